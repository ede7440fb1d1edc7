//! DNS: the name servers of the jail's resolv.conf, and what names resolve to.

use std::path::Path;
use std::thread;

use super::Exam;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Nameserver, Nameservers, Resolve};

const CONF: &str = "/etc/resolv.conf";

/// Asked when the caller names nothing: every server can answer, and no one learns anything.
const HARMLESS: &str = "localhost";

pub(super) fn dns(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if !exam.is_php() && !exam.brings(CONF) && exam.options.name.is_none() {
        return Ok(CheckOutcome::not_needed(format!("nothing brings {CONF}")));
    }
    let servers = match exam.ask(Nameservers)? {
        Ok(servers) => servers,
        Err(trouble) => {
            let remedy = exam.bring(Path::new(CONF), Remedy::preset("dns"));
            let problem = Problem::new(format!("{CONF}: {}", trouble.text), remedy);
            return Ok(CheckOutcome::of(vec![problem], ""));
        }
    };
    let names = [Some(HARMLESS), exam.options.name.as_deref()]
        .into_iter()
        .flatten();
    let mut problems = servers_that_fail(exam, &servers);
    let dead = !problems.is_empty();
    let mut good = vec![format!("{} answers", servers.join(", "))];
    for name in names.filter(|_| exam.other_c_library.is_none()) {
        match resolve(exam, name) {
            Ok(addresses) => good.push(format!("{name} is {}", addresses.join(", "))),
            Err(why) => problems.push(unresolved(exam, name, &why, dead)),
        }
    }
    Ok(CheckOutcome::of(problems, good.join("; ")).unless(exam.other_c_library))
}

fn resolve(exam: &Exam<'_>, name: &str) -> Result<Vec<String>, String> {
    let found = exam
        .ask(Resolve {
            name: name.to_owned(),
        })
        .map_err(|silence| silence.to_string())?;
    let mut found = found?;
    found.sort();
    found.dedup();
    Ok(found)
}

fn servers_that_fail(exam: &Exam<'_>, servers: &[String]) -> Vec<Problem> {
    let name = exam.options.name.as_deref().unwrap_or(HARMLESS);
    let ask = |address: &String| {
        let (address, limit) = (address.clone(), exam.inner_limit());
        exam.ask(Nameserver {
            address,
            name: name.to_owned(),
            limit,
        })
    };
    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = servers
            .iter()
            .map(|address| scope.spawn(move || ask(address)))
            .collect();
        asked
            .into_iter()
            .map(|asked| {
                asked
                    .join()
                    .unwrap_or(Err(NoAnswer::TimedOut(exam.options.limit)))
            })
            .collect()
    });
    let failed = servers.iter().zip(answers).filter_map(|(address, answer)| {
        let why = match answer {
            // Only of a name that the caller means does a refusal say something.
            Ok(Ok(code))
                if exam.options.name.is_some()
                    && ["Refused", "ServerFailure"].contains(&&*code) =>
            {
                format!("answers {code} for {name}")
            }
            Ok(Ok(_)) => return None,
            Ok(Err(trouble)) => format!("does not answer: {}", trouble.text),
            Err(silence) => format!("does not answer: {silence}"),
        };
        Some(Problem::new(
            format!("name server {address} {why}"),
            other_server(exam),
        ))
    });
    failed.collect()
}

fn other_server(exam: &Exam<'_>) -> Remedy {
    let file = exam.mount_of(Path::new(CONF)).map_or_else(
        || {
            exam.patient
                .desired
                .root
                .as_path()
                .join(CONF.trim_start_matches('/'))
        },
        |mount| mount.source.as_path().to_owned(),
    );
    Remedy::act(format!("name a server that answers in {}", file.display()))
}

fn unresolved(exam: &Exam<'_>, name: &str, why: &str, dead: bool) -> Problem {
    let remedy = match name {
        HARMLESS if !exam.brings("/etc/hosts") => {
            exam.bring(Path::new("/etc/hosts"), Remedy::preset("dns"))
        }
        HARMLESS => Remedy::act("give localhost an address in /etc/hosts"),
        _ if dead => other_server(exam),
        _ => Remedy::act(format!("ask on the host as well: `getent hosts {name}`")),
    };
    Problem::new(format!("{name} does not resolve: {why}"), remedy)
}
