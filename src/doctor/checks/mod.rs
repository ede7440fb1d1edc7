//! The checks: each decides whether the site needs it, asks, and judges the answers.

mod code;
mod data;
mod devices;
mod mail;
mod mounts;
mod names;
mod network;
mod php;
mod sockets;
mod tls;

use Check::{Asks, Looks};

use super::Exam;
use super::ask::NoAnswer;
use super::finding::{CheckOutcome, Problem, Remedy};
use super::inside::Enter;
use crate::base::JailPath;

/// A check's work.
pub(super) enum Check {
    /// It looks from outside alone.
    Looks(fn(&Exam<'_>) -> CheckOutcome),
    /// It asks inside.
    Asks(fn(&Exam<'_>) -> Result<CheckOutcome, NoAnswer>),
}

/// A check and its name.
pub(super) type Named = (&'static str, Check);

impl Check {
    /// `closed`: nobody can look inside.
    pub(super) fn run(&self, exam: &Exam<'_>, closed: bool) -> CheckOutcome {
        match self {
            Self::Looks(look) => look(exam),
            Self::Asks(_) if closed => CheckOutcome::could_not_check("the root cannot be entered"),
            Self::Asks(ask) => ask(exam)
                .unwrap_or_else(|silence| CheckOutcome::could_not_check(silence.to_string())),
        }
    }
}

/// Whether the root can be entered, and what is mounted in it be reached, before all others:
/// without that nothing is found inside.
pub(super) fn entry(exam: &Exam<'_>) -> CheckOutcome {
    let (desired, name) = (exam.patient.desired, &exam.patient.who.name);
    let root = &desired.root;
    match exam.ask(Enter(desired.ways())) {
        Ok(Ok(())) => CheckOutcome::ok(format!("{name} can be in the root")),
        Ok(Err((way, trouble))) => {
            let at = if way == JailPath::slash() {
                root.clone()
            } else {
                root.inside(&way)
            };
            let text = format!("{name} may not be in {at}: {}", trouble.text);
            CheckOutcome::of(
                vec![Problem::new(text, Remedy::act(format!("chmod o+x {at}")))],
                "",
            )
        }
        Err(silence) => CheckOutcome::could_not_check(silence.to_string()),
    }
}

/// By name, in the order in which they are shown.
pub(super) static ALL: [Named; 17] = [
    ("mounts", Looks(mounts::mounts)),
    ("processes", Looks(mounts::processes)),
    ("libraries", Asks(code::libraries)),
    ("devices", Asks(devices::devices)),
    ("dns", Asks(network::dns)),
    ("nss", Asks(names::nss)),
    ("tls", Asks(tls::tls)),
    ("users", Asks(names::users)),
    ("timezone", Asks(data::timezone)),
    ("iconv", Asks(data::iconv)),
    ("locale", Asks(data::locale)),
    ("mail", Asks(mail::mail)),
    ("syslog", Asks(sockets::syslog)),
    ("sockets", Asks(sockets::sockets)),
    ("directories", Asks(php::directories)),
    ("opcache", Looks(php::opcache)),
    ("web-root", Asks(php::web_root)),
];
