//! The checks: each decides whether the site needs it, asks inside, and judges the answers.

mod code;
mod data;
mod devices;
mod extensions;
mod includes;
mod interpreters;
mod mail;
mod mounts;
mod names;
mod network;
mod php;
mod services;
mod sockets;
mod tls;

use CheckFunction::{Inside, Outside};

use super::ask::NoAnswer;
use super::denied;
use super::exam::Exam;
use super::finding::{CheckOutcome, Problem, Remedy};
use super::inside::Enter;
use crate::base::JailPath;
use crate::base::quote::shell_path;

/// A check, and the name that users know it by.
pub(super) struct NamedCheck {
    pub name: &'static str,
    function: CheckFunction,
}

enum CheckFunction {
    /// It looks only from outside.
    Outside(fn(&Exam<'_>) -> CheckOutcome),
    /// It runs probes inside.
    Inside(fn(&Exam<'_>) -> Result<CheckOutcome, NoAnswer>),
}

impl NamedCheck {
    const fn new(name: &'static str, function: CheckFunction) -> Self {
        Self { name, function }
    }

    /// Runs the check. `can_enter`: whether probes can enter the root at all.
    pub(super) fn run(&self, exam: &Exam<'_>, can_enter: bool) -> CheckOutcome {
        match self.function {
            Outside(check) => check(exam),
            Inside(_) if !can_enter => CheckOutcome::could_not_check("the root cannot be entered"),
            Inside(check) => match check(exam) {
                Ok(outcome) => outcome,
                Err(no_answer) => CheckOutcome::could_not_check(no_answer.to_string()),
            },
        }
    }
}

/// Whether the user can enter the root and reach what is mounted in it. It comes before all others:
/// without it, nothing is found inside.
pub(super) fn entry(exam: &Exam<'_>) -> CheckOutcome {
    let desired = exam.site.desired;
    let root = &desired.root;
    let user = &exam.site.user.name;

    let (closed, error) = match exam.ask(Enter(desired.ways())) {
        Ok(Ok(())) => {
            let own = exam.host.without_execution(root);
            let own = own.map(|point| {
                format!("; nothing of the root's own can be executed: {point} is mounted noexec")
            });
            let own = own.unwrap_or_default();
            return CheckOutcome::ok(format!("{user} can enter the root{own}"));
        }
        Ok(Err(closed)) => closed,
        Err(no_answer) => return CheckOutcome::could_not_check(no_answer.to_string()),
    };

    let directory = if closed == JailPath::slash() {
        root.clone()
    } else {
        root.inside(&closed)
    };
    let (mode, remedy) = match exam.denied(closed.as_path()) {
        Some(at) => (format!(" ({})", denied::mode(&at)), exam.opened(&at)),
        None => (
            String::new(),
            Remedy::act(format!("chmod o+x {}", shell_path(directory.as_path()))),
        ),
    };
    let text = format!("{user} may not enter {directory}{mode}: {error}");
    CheckOutcome::failed(Problem::new(text, remedy))
}

/// In the order in which they are shown.
pub(super) static ALL: [NamedCheck; 20] = [
    NamedCheck::new("mounts", Outside(mounts::mounts)),
    NamedCheck::new("processes", Outside(mounts::processes)),
    NamedCheck::new("services", Outside(services::services)),
    NamedCheck::new("libraries", Inside(code::libraries)),
    NamedCheck::new("languages", Inside(interpreters::interpreters)),
    NamedCheck::new("devices", Inside(devices::devices)),
    NamedCheck::new("dns", Inside(network::dns)),
    NamedCheck::new("nss", Inside(names::nss)),
    NamedCheck::new("tls", Inside(tls::tls)),
    NamedCheck::new("users", Inside(names::users)),
    NamedCheck::new("timezone", Inside(data::timezone)),
    NamedCheck::new("iconv", Inside(data::iconv)),
    NamedCheck::new("locale", Inside(data::locale)),
    NamedCheck::new("mail", Inside(mail::mail)),
    NamedCheck::new("syslog", Inside(sockets::syslog)),
    NamedCheck::new("sockets", Inside(sockets::sockets)),
    NamedCheck::new("php", Inside(extensions::extensions)),
    NamedCheck::new("directories", Inside(php::directories)),
    NamedCheck::new("opcache", Outside(php::opcache)),
    NamedCheck::new("web-root", Inside(php::web_root)),
];
