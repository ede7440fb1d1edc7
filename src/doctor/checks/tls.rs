//! TLS: the certificates that OpenSSL trusts, where the installed one looks for them.

use std::path::{Path, PathBuf};

use super::Exam;
use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Anchors, Certificates, Handshake, HandshakeResult};
use crate::resolve::ldso::Loader;

/// Programs that most likely use the OpenSSL that PHP uses.
const USERS: [&str; 4] = [
    "/usr/sbin/php-fpm*",
    "/usr/bin/php-fpm*",
    "/usr/bin/openssl",
    "/usr/bin/curl",
];

pub(super) fn tls(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let Some(directory) = openssl_directory(exam) else {
        return Ok(match exam.options.tls {
            Some(_) => {
                CheckOutcome::could_not_check("no libcrypto of OpenSSL was found on this host")
            }
            None => CheckOutcome::not_needed("this host has no libcrypto of OpenSSL"),
        });
    };
    let anchors = anchors(exam, &directory);
    let places = [&anchors.file, &anchors.directory].into_iter().flatten();
    let brought = places.clone().any(|path| exam.mount_of(path).is_some());
    if !exam.is_php() && !brought && exam.options.tls.is_none() {
        return Ok(CheckOutcome::not_needed(format!(
            "nothing brings certificates to {}",
            directory.display()
        )));
    }
    let found = exam.ask(Certificates(anchors.clone()))?;
    let mut problems = vec![];
    let shown: Vec<_> = places.map(|path| path.display().to_string()).collect();
    if found.trusted == 0 && found.unhashed > 0 {
        let remedy = Remedy::act(format!(
            "openssl rehash {}",
            directory.join("certs").display()
        ));
        problems.push(Problem::new(
            format!(
                "no certificate in {} has a hash for its name",
                shown.join(" or ")
            ),
            remedy,
        ));
    } else if found.trusted == 0 && found.broken.is_empty() && found.dangling.is_empty() {
        let text = format!("no certificate of an authority in {}", shown.join(" or "));
        problems.push(Problem::new(text, bring_certificates(exam, &anchors)));
    }
    problems.extend(found.broken.into_iter().map(|text| {
        Problem::new(
            text,
            Remedy::act("take the damaged file away, or run `update-ca-certificates --fresh`"),
        )
    }));
    problems.extend(found.dangling.iter().map(|dangling| {
        let text = format!(
            "the link {} leads to {}, which is not inside",
            dangling.link,
            dangling.text.display()
        );
        Problem::new(text, bring_target(exam, &dangling.text))
    }));
    let good = format!("{} certificates in {}", found.trusted, shown.join(" and "));
    match &exam.options.tls {
        Some((host, port)) if problems.is_empty() => handshake(exam, anchors, host, *port, &good),
        _ => Ok(CheckOutcome::of(problems, good)),
    }
}

fn handshake(
    exam: &Exam<'_>,
    anchors: Anchors,
    host: &str,
    port: u16,
    good: &str,
) -> Result<CheckOutcome, NoAnswer> {
    let probe = Handshake {
        host: host.to_owned(),
        port,
        anchors,
        limit: exam.inner_limit(),
    };
    Ok(match exam.ask(probe)? {
        HandshakeResult::Verified(version) => {
            CheckOutcome::ok(format!("{good}; {host}:{port} is trusted ({version})"))
        }
        HandshakeResult::Unreachable(why) => {
            CheckOutcome::could_not_check(format!("{good}; no connection to {host}:{port}: {why}"))
        }
        HandshakeResult::Refused(why) => {
            let remedy = Remedy::act(format!(
                "see what the host says: `openssl s_client -connect {host}:{port} -verify_return_error`"
            ));
            CheckOutcome::of(
                vec![Problem::new(
                    format!("{host}:{port} is not trusted: {why}"),
                    remedy,
                )],
                "",
            )
        }
    })
}

fn bring_certificates(exam: &Exam<'_>, anchors: &Anchors) -> Remedy {
    let there = [&anchors.directory, &anchors.file]
        .into_iter()
        .flatten()
        .find(|path| exam.on_host(path));
    match there {
        Some(path) => exam.bring(path, Remedy::preset("tls")),
        None => Remedy::act("install ca-certificates: this host has no certificates either"),
    }
}

fn bring_target(exam: &Exam<'_>, target: &Path) -> Remedy {
    if exam.on_host(target) {
        return exam.bring(target, Remedy::line("mounts", target.display().to_string()));
    }
    Remedy::act("the link dangles on the host, too: `update-ca-certificates --fresh` there")
}

/// What PHP's settings name, or else what is compiled into OpenSSL.
fn anchors(exam: &Exam<'_>, directory: &Path) -> Anchors {
    let setting = |key: &str| {
        let mut values = exam
            .patient
            .pool_users
            .iter()
            .filter_map(|tenant| tenant.settings.get(key));
        values.next().map(PathBuf::from)
    };
    match (setting("openssl.cafile"), setting("openssl.capath")) {
        (None, None) => Anchors {
            file: Some(directory.join("cert.pem")),
            directory: Some(directory.join("certs")),
        },
        (file, directory) => Anchors { file, directory },
    }
}

/// `OPENSSLDIR`, as the library's file has it: `OPENSSLDIR: "/usr/lib/ssl"`.
fn openssl_directory(exam: &Exam<'_>) -> Option<PathBuf> {
    let library = libcrypto(exam)?;
    directory_in(&exam.host.read(&library).ok()?)
}

fn directory_in(library: &[u8]) -> Option<PathBuf> {
    const MARK: &[u8] = b"OPENSSLDIR: \"";
    let start = library
        .windows(MARK.len())
        .position(|window| window == MARK)?
        + MARK.len();
    let text = library[start..].split(|byte| *byte == b'"').next()?;
    let text = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.starts_with('/'))?;
    Some(PathBuf::from(text))
}

/// The library of the first of [`USERS`] that has it, or else the one beside the C library.
fn libcrypto(exam: &Exam<'_>) -> Option<HostPath> {
    let loader = Loader::read(exam.host).ok()?;
    let users = USERS
        .iter()
        .filter_map(|pattern| glob::glob(pattern).ok())
        .flatten()
        .flatten();
    let of_user = |user: PathBuf| {
        let closure = loader.closure(&HostPath::new(user).ok()?).ok()?;
        closure
            .libraries
            .into_iter()
            .find(|library| library.name.starts_with("libcrypto.so"))
            .map(|l| l.path)
    };
    let beside = || {
        ["libcrypto.so.3", "libcrypto.so.1.1"]
            .iter()
            .find_map(|name| loader.library(name).ok()?)
    };
    users.into_iter().find_map(of_user).or_else(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_read_out_of_the_library() {
        let library =
            b"\x7fELF\0OPENSSLDIR\0OPENSSLDIR: \"/etc/pki/tls\"\0ENGINESDIR: \"/usr/lib64\"\0";
        assert_eq!(directory_in(library), Some(PathBuf::from("/etc/pki/tls")));
        assert_eq!(directory_in(b"OPENSSLDIR: \"etc"), None);
        assert_eq!(directory_in(b"nothing"), None);
    }
}
