//! The files that a file of configuration includes, and the modules that it names.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use super::desired::{Cause, FileKind};
use super::host::Host;
use super::include_lines::{DIALECTS, Dialect};
use super::item::Item;
use super::link_targets::may_be_brought;
use super::lookup_error::{LookupError, found};
use crate::base::HostPath;

/// The largest configuration that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The most files that are read for one item.
const MOST_FILES: usize = 64;

/// The files and directories that the files of configuration include which `item` is or has in it,
/// and the modules that they name. Only what root alone can change decides that.
///
/// Errors: a file cannot be read.
pub(super) fn of(host: &Host, item: &Item) -> Result<Vec<(HostPath, Cause)>, LookupError> {
    let mut included = vec![];
    for dialect in &DIALECTS {
        for name in dialect.names {
            let first = match item.kind {
                FileKind::File if item.path.file_name() == Some(OsStr::new(name)) => {
                    Some(item.source.clone())
                }
                FileKind::Directory => item.source.join(name).ok(),
                _ => None,
            };
            if let Some(first) = first {
                included.extend(by_file(host, dialect, first)?);
            }
        }
    }
    Ok(included)
}

/// What `first` includes and names, also by way of others.
fn by_file(
    host: &Host,
    dialect: &Dialect,
    first: HostPath,
) -> Result<Vec<(HostPath, Cause)>, LookupError> {
    let mut queue = vec![first];
    let (mut read, mut included) = (BTreeSet::new(), vec![]);
    while let Some(file) = queue.pop() {
        if read.len() == MOST_FILES || !read.insert(file.clone()) {
            continue;
        }
        let text = text_of(host, &file)?;
        for path in (dialect.included)(&text) {
            if !may_be_brought(host, &path)? {
                continue;
            }
            queue.extend(configuration_at(host, dialect, &path)?);
            included.push((path, Cause::IncludedBy(file.as_path().to_owned())));
        }
        for path in (dialect.modules)(&text) {
            let kind = found(host.stat(&path))?.map(|stat| stat.kind);
            if kind == Some(FileKind::File) && may_be_brought(host, &path)? {
                included.push((path, Cause::ModuleOf(file.as_path().to_owned())));
            }
        }
    }
    Ok(included)
}

/// The text of `file`; empty if others than root can change it.
fn text_of(host: &Host, file: &HostPath) -> Result<String, LookupError> {
    let stat = found(host.stat(file))?;
    let is_roots = stat.is_some_and(|stat| stat.kind == FileKind::File)
        && found(host.others(file))?.flatten().is_none();
    if !is_roots {
        return Ok(String::new());
    }
    let bytes = found(host.read_up_to(file, LARGEST))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The files of configuration that an included path stands for: those of a directory that are read
/// for their names.
fn configuration_at(
    host: &Host,
    dialect: &Dialect,
    path: &HostPath,
) -> Result<Vec<HostPath>, LookupError> {
    let Some(stat) = found(host.stat(path))? else {
        return Ok(vec![]);
    };
    if stat.kind != FileKind::Directory {
        return Ok(vec![path.clone()]);
    }
    let names = found(host.read_dir(path))?.unwrap_or_default();
    let fitting = names.iter().filter(|name| match name.to_str() {
        Some(name) => (dialect.is_read)(name),
        None => false,
    });
    Ok(fitting.filter_map(|name| path.join(name).ok()).collect())
}
