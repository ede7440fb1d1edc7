//! DNS: the name servers of the jail's resolv.conf, and how names resolve.

use std::net::IpAddr;
use std::path::Path;
use std::thread;

use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Nameserver, Nameservers, Resolve};

const CONF: &str = "/etc/resolv.conf";

/// Looked up if the caller names nothing: every server can answer it, and nobody learns anything.
const HARMLESS: &str = "localhost";

pub(super) fn dns(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let wanted = exam.options.name.as_deref();
    if !exam.is_php() && !exam.brings(CONF) && wanted.is_none() {
        return Ok(CheckOutcome::not_needed(format!("nothing brings {CONF}")));
    }

    let servers = match exam.ask(Nameservers)? {
        Ok(servers) => servers,
        Err(error) => {
            let remedy = exam.bring(Path::new(CONF), Remedy::preset("dns"));
            let why = exam.explained(Path::new(CONF), &error);
            let problem = Problem::new(format!("{CONF}: {why}"), remedy);
            return Ok(CheckOutcome::failed(problem));
        }
    };

    let mut problems = failing_servers(exam, &servers);
    let mut good = vec![format!("{} answers", servers.join(", "))];
    if exam.other_c_library.is_none() {
        let servers_fail = !problems.is_empty();
        for name in [Some(HARMLESS), wanted].into_iter().flatten() {
            match resolve(exam, name) {
                Ok(addresses) if name == HARMLESS && !addresses.iter().any(|at| is_own(at)) => {
                    let addresses = addresses.join(", ");
                    let text = format!("{name} is {addresses}, not this machine");
                    problems.push(Problem::new(text, own_address(exam)));
                }
                Ok(addresses) => good.push(format!("{name} is {}", addresses.join(", "))),
                Err(why) => problems.push(unresolved(exam, name, &why, servers_fail)),
            }
        }
    }
    Ok(CheckOutcome::judge(problems, good.join("; ")).unless(exam.other_c_library))
}

fn resolve(exam: &Exam<'_>, name: &str) -> Result<Vec<String>, String> {
    let probe = Resolve {
        name: name.to_owned(),
    };
    let mut addresses = match exam.ask(probe) {
        Ok(answer) => answer?,
        Err(no_answer) => return Err(no_answer.to_string()),
    };
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Whether it is an address of this machine alone.
fn is_own(address: &str) -> bool {
    address
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The remedy for a localhost that is not this machine.
fn own_address(exam: &Exam<'_>) -> Remedy {
    if !exam.brings("/etc/hosts") {
        return exam.bring(Path::new("/etc/hosts"), Remedy::preset("dns"));
    }
    Remedy::act(
        "give localhost the address 127.0.0.1 in /etc/hosts, and say `files` before `dns` for \
         `hosts` in /etc/nsswitch.conf",
    )
}

/// Asks all servers at once, since each may take the whole time limit.
fn failing_servers(exam: &Exam<'_>, servers: &[String]) -> Vec<Problem> {
    let mut problems = vec![];
    thread::scope(|scope| {
        let mut running = vec![];
        for server in servers {
            running.push((server, scope.spawn(move || why_it_fails(exam, server))));
        }
        for (server, check) in running {
            let why = check
                .join()
                .unwrap_or_else(|_| Some("could not be asked".to_owned()));
            if let Some(why) = why {
                let text = format!("name server {server} {why}");
                problems.push(Problem::new(text, other_server(exam)));
            }
        }
    });
    problems
}

/// `None`: the server answers.
fn why_it_fails(exam: &Exam<'_>, server: &str) -> Option<String> {
    let wanted = exam.options.name.as_deref();
    let name = wanted.unwrap_or(HARMLESS);
    let probe = Nameserver {
        address: server.to_owned(),
        name: name.to_owned(),
        limit: exam.inner_limit(),
    };
    match exam.ask(probe) {
        // A refusal only means something for a name that the caller asked for.
        Ok(Ok(code)) if wanted.is_some() && ["Refused", "ServerFailure"].contains(&&*code) => {
            Some(format!("answers {code} for {name}"))
        }
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("does not answer: {error}")),
        Err(no_answer) => Some(format!("does not answer: {no_answer}")),
    }
}

fn other_server(exam: &Exam<'_>) -> Remedy {
    let file = match exam.mount_of(Path::new(CONF)) {
        Some(mount) => mount.source.to_string(),
        None => format!("{}{CONF}", exam.site.desired.root),
    };
    Remedy::act(format!("name a server that answers in {file}"))
}

fn unresolved(exam: &Exam<'_>, name: &str, why: &str, servers_fail: bool) -> Problem {
    let remedy = match name {
        HARMLESS if !exam.brings("/etc/hosts") => {
            exam.bring(Path::new("/etc/hosts"), Remedy::preset("dns"))
        }
        HARMLESS => Remedy::act("give localhost an address in /etc/hosts"),
        _ if servers_fail => other_server(exam),
        _ => Remedy::act(format!("try it on the host: `getent hosts {name}`")),
    };
    Problem::new(format!("{name} does not resolve: {why}"), remedy)
}
