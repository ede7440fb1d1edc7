//! The files that OpenSSL's configuration includes: `.include` of config(5ssl).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::desired::{Cause, FileKind};
use super::host::Host;
use super::item::Item;
use super::link_targets::may_be_brought;
use super::lookup_error::{LookupError, found};
use crate::base::HostPath;

/// The name of the configuration.
const NAME: &str = "openssl.cnf";

/// The largest configuration that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The most files that are read for one item.
const MOST_FILES: usize = 64;

/// The files and directories that the configuration of OpenSSL includes, which `item` is or has in
/// it. Only what root alone can change decides that.
///
/// Errors: a file cannot be read.
pub(super) fn of(host: &Host, item: &Item) -> Result<Vec<(HostPath, Cause)>, LookupError> {
    let first = match item.kind {
        FileKind::File if item.path.file_name() == Some(OsStr::new(NAME)) => {
            Some(item.source.clone())
        }
        FileKind::Directory => item.source.join(NAME).ok(),
        _ => None,
    };
    let mut queue = Vec::from_iter(first);
    let (mut read, mut included) = (BTreeSet::new(), vec![]);
    while let Some(file) = queue.pop() {
        if read.len() == MOST_FILES || !read.insert(file.clone()) {
            continue;
        }
        for path in includes_in(host, &file)? {
            if !may_be_brought(host, &path)? {
                continue;
            }
            queue.extend(configuration_at(host, &path)?);
            included.push((path, Cause::IncludedBy(file.as_path().to_owned())));
        }
    }
    Ok(included)
}

/// The paths that `file` includes.
fn includes_in(host: &Host, file: &HostPath) -> Result<Vec<HostPath>, LookupError> {
    let stat = found(host.stat(file))?;
    let is_roots = stat.is_some_and(|stat| stat.kind == FileKind::File)
        && found(host.others(file))?.flatten().is_none();
    if !is_roots {
        return Ok(vec![]);
    }
    let bytes = found(host.read_up_to(file, LARGEST))?.unwrap_or_default();
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

/// The files of configuration that an included path stands for: those of a directory whose names
/// end in `.cnf` or `.conf`, as OpenSSL takes them.
fn configuration_at(host: &Host, path: &HostPath) -> Result<Vec<HostPath>, LookupError> {
    let Some(stat) = found(host.stat(path))? else {
        return Ok(vec![]);
    };
    if stat.kind != FileKind::Directory {
        return Ok(vec![path.clone()]);
    }
    let names = found(host.read_dir(path))?.unwrap_or_default();
    let is_configuration = |name: &&OsString| {
        let ending = Path::new(name).extension().unwrap_or_default();
        ending.eq_ignore_ascii_case("cnf") || ending.eq_ignore_ascii_case("conf")
    };
    let fitting = names.iter().filter(is_configuration);
    Ok(fitting.filter_map(|name| path.join(name).ok()).collect())
}

/// The absolute paths of `.include` lines. A relative one is in the `includedir` of a `.pragma`
/// before it; without that, it depends on the working directory.
fn parse(text: &str) -> Vec<HostPath> {
    let (mut paths, mut directory) = (vec![], None);
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(value) = directive(line, ".pragma") {
            let included = value.strip_prefix("includedir:");
            directory = included
                .and_then(|path| HostPath::new(unquoted(path)).ok())
                .or(directory);
        }
        let Some(value) = directive(line, ".include").map(unquoted) else {
            continue;
        };
        let path = match &directory {
            Some(directory) if !value.starts_with('/') => directory.join(value),
            _ => HostPath::new(value),
        };
        paths.extend(path);
    }
    paths
}

/// The value of `.include VALUE` or `.include = VALUE`.
fn directive<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let rest = line.strip_prefix(name)?;
    let value = rest.trim_start();
    let value = value.strip_prefix('=').unwrap_or(value).trim();
    let is_whole = rest.starts_with(|c: char| c.is_whitespace() || c == '=');
    (is_whole && !value.is_empty()).then_some(value)
}

fn unquoted(value: &str) -> &str {
    value.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_include_are_read() {
        let text = "openssl_conf = x\n.include /etc/pki/tls/openssl.d\n\
                    .include = \"/etc/crypto-policies/o.config\" # policy\n\
                    .included /no\n.include fipsmodule.cnf\n\
                    .pragma = includedir:/etc/ssl/d\n .include fipsmodule.cnf\n";
        let paths: Vec<_> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(
            paths,
            [
                "/etc/pki/tls/openssl.d",
                "/etc/crypto-policies/o.config",
                "/etc/ssl/d/fipsmodule.cnf"
            ]
        );
    }
}
