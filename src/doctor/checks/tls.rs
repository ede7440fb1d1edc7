//! TLS: the certificates that OpenSSL trusts, in the places where the host's OpenSSL looks.

use std::path::{Path, PathBuf};

use crate::base::HostPath;
use crate::base::text::plural;
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{
    Anchors, Certificates, DanglingLink, Exist, FoundCertificates, Handshake, HandshakeResult,
};
use crate::doctor::pools;
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
    let is_brought = anchors.paths().any(|path| exam.mount_of(path).is_some());
    if !exam.is_php() && !is_brought && exam.options.tls.is_none() {
        let why = format!("nothing brings certificates to {}", directory.display());
        return Ok(CheckOutcome::not_needed(why));
    }

    let found = exam.ask(Certificates(anchors.clone()))?;
    let mut shown = vec![];
    for path in anchors.paths() {
        shown.push(path.display().to_string());
    }
    let mut problems = problems(exam, &anchors, &shown.join(" or "), &found);
    if problems.is_empty() {
        problems.extend(curls(exam));
    }
    let good = format!(
        "{} in {}",
        plural(found.trusted, "certificate"),
        shown.join(" and ")
    );
    match &exam.options.tls {
        Some((host, port)) if problems.is_empty() => handshake(exam, anchors, host, *port, &good),
        _ => Ok(CheckOutcome::judge(problems, good)),
    }
}

/// The complaints of libcurl, which has a file of its own.
fn curls(exam: &Exam<'_>) -> Option<Problem> {
    let why = why_curl_fails(exam)?;
    let cainfo = path_in_settings(exam, "curl.cainfo");
    let remedy = if let Some(file) = cainfo.filter(|file| !is_inside(exam, file)) {
        bring_named(exam, "curl.cainfo", &file)
    } else if exam.presets.contains("tls") {
        Remedy::act("run `update-ca-certificates --fresh`")
    } else {
        Remedy::preset("tls")
    };
    Some(Problem::new(format!("curl: {why}"), remedy))
}

fn why_curl_fails<'e>(exam: &'e Exam<'_>) -> Option<&'e String> {
    for php in pools::of(exam) {
        if let Ok(state) = &php.state
            && let Some(why) = state.failed.get("curl")
        {
            return Some(why);
        }
    }
    None
}

fn problems(
    exam: &Exam<'_>,
    anchors: &Anchors,
    shown: &str,
    found: &FoundCertificates,
) -> Vec<Problem> {
    let mut problems = vec![];
    if let Some(directory) = &anchors.directory
        && found.trusted == 0
        && found.unhashed > 0
    {
        problems.push(Problem::new(
            format!("no certificate in {shown} has a hash as its name"),
            Remedy::act(format!("openssl rehash {}", directory.display())),
        ));
    } else if found.trusted == 0 && found.broken.is_empty() && found.dangling.is_empty() {
        let text = format!("no certificate of an authority is in {shown}");
        problems.push(Problem::new(text, bring_certificates(exam, anchors)));
    }
    for text in &found.broken {
        let remedy = "remove the damaged file, or run `update-ca-certificates --fresh`";
        problems.push(Problem::new(text, Remedy::act(remedy)));
    }
    for DanglingLink { link, target } in &found.dangling {
        let shown = target.display();
        let text = format!("the link {link} leads to {shown}, which is not inside");
        problems.push(Problem::new(text, bring_target(exam, target)));
    }
    problems
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
        HandshakeResult::Refused(why) => CheckOutcome::failed(Problem::new(
            format!("{host}:{port} is not trusted: {why}"),
            Remedy::act(format!(
                "try it on the host: `openssl s_client -connect {host}:{port} \
                 -verify_return_error`"
            )),
        )),
    })
}

/// Whether there is something at `path` inside.
fn is_inside(exam: &Exam<'_>, path: &Path) -> bool {
    let found = exam.ask(Exist(vec![path.to_owned()]));
    found.is_ok_and(|found| found.contains(&true))
}

/// The remedy for a path that the setting `key` names, and that is not inside.
fn bring_named(exam: &Exam<'_>, key: &str, path: &Path) -> Remedy {
    if !exam.on_host(path) {
        return Remedy::act(format!(
            "correct `{key}`: this host does not have {} either",
            path.display()
        ));
    }
    let line = match path.strip_prefix("/etc") {
        Ok(name) => Remedy::line("etc", name.display().to_string()),
        Err(_) => Remedy::line("mounts", path.display().to_string()),
    };
    exam.bring(path, line)
}

fn bring_certificates(exam: &Exam<'_>, anchors: &Anchors) -> Remedy {
    for key in ["openssl.cafile", "openssl.capath"] {
        if let Some(path) = path_in_settings(exam, key)
            && !is_inside(exam, &path)
        {
            return bring_named(exam, key, &path);
        }
    }
    let mut paths = [&anchors.directory, &anchors.file].into_iter().flatten();
    match paths.find(|path| exam.on_host(path)) {
        Some(path) => exam.bring(path, Remedy::preset("tls")),
        None => Remedy::act("install ca-certificates: the host has no certificates either"),
    }
}

fn bring_target(exam: &Exam<'_>, target: &Path) -> Remedy {
    if exam.on_host(target) {
        return exam.bring(target, Remedy::line("mounts", target.display().to_string()));
    }
    Remedy::act("run `update-ca-certificates --fresh`: the link dangles on the host, too")
}

/// The places that PHP's settings name; without any, those that are compiled into OpenSSL.
fn anchors(exam: &Exam<'_>, directory: &Path) -> Anchors {
    let file = path_in_settings(exam, "openssl.cafile");
    match (file, path_in_settings(exam, "openssl.capath")) {
        (None, None) => Anchors {
            file: Some(directory.join("cert.pem")),
            directory: Some(directory.join("certs")),
        },
        (file, directory) => Anchors { file, directory },
    }
}

/// The path that the first pool with this setting names.
fn path_in_settings(exam: &Exam<'_>, key: &str) -> Option<PathBuf> {
    let mut pool_users = exam.site.pool_users.iter();
    let path = pool_users.find_map(|pool_user| pool_user.settings.get(key))?;
    Some(PathBuf::from(path))
}

/// `OPENSSLDIR`, as it stands in the library's file: `OPENSSLDIR: "/usr/lib/ssl"`.
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

/// The libcrypto of the first of [`USERS`] that has one, or else the one beside the C library.
fn libcrypto(exam: &Exam<'_>) -> Option<HostPath> {
    let loader = Loader::read(exam.host).ok()?;
    for pattern in USERS {
        for program in glob::glob(pattern).ok()?.flatten() {
            let library = HostPath::new(program)
                .ok()
                .and_then(|program| libcrypto_of(&loader, &program));
            if library.is_some() {
                return library;
            }
        }
    }
    ["libcrypto.so.3", "libcrypto.so.1.1"]
        .iter()
        .find_map(|name| loader.library(name).ok()?)
}

fn libcrypto_of(loader: &Loader<'_>, program: &HostPath) -> Option<HostPath> {
    let libraries = loader.closure(program).ok()?.libraries;
    let mut libraries = libraries.into_iter();
    let library = libraries.find(|library| library.name.starts_with("libcrypto.so"))?;
    Some(library.path)
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
