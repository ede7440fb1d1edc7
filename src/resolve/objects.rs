//! The programs and shared objects in a directory of the host.

use super::files::RootsEntry;
use super::host::Host;
use super::ldso::elf::Object;
use super::ldso::{OpenError, is_library_name};
use super::lookup_error::{LookupError, found};
use crate::base::HostPath;

/// The most entries that are looked at below one directory.
const MAX_ENTRIES: usize = 50_000;

/// The most objects of one directory whose libraries are looked for.
const MAX_OBJECTS: usize = 4096;

/// The files below `directory` that a process there may load or run, sorted. Directories that
/// others than root can write to are left out: their owners must not decide what a jail gets.
///
/// Errors: it is unknown what is there.
pub(super) fn below(
    host: &Host,
    directory: &HostPath,
    notes: &mut Vec<String>,
) -> Result<Vec<HostPath>, LookupError> {
    let (mut objects, mut seen) = (vec![], 0);
    let mut queue = vec![directory.clone()];
    while let Some(directory_in_it) = queue.pop() {
        let Some(entries) = host.roots_entries(&directory_in_it)? else {
            continue;
        };
        seen += entries.len();
        for entry in entries {
            match entry {
                RootsEntry::Directory(path) => queue.push(path),
                RootsEntry::File(path) if is_object(host, &path)? => objects.push(path),
                RootsEntry::File(_) | RootsEntry::Link(..) => {}
            }
        }
        if seen > MAX_ENTRIES || objects.len() > MAX_OBJECTS {
            notes.push(format!(
                "{directory} has too many files to look into each for the libraries that it needs"
            ));
            break;
        }
    }
    objects.sort();
    Ok(objects)
}

fn is_object(host: &Host, path: &HostPath) -> Result<bool, LookupError> {
    let Some(name) = path.file_name() else {
        return Ok(false);
    };
    let node = host.now(path)?;
    let executable = node.is_some_and(|node| node.stat.mode & 0o111 != 0);
    if !executable && !is_library_name(name) {
        return Ok(false);
    }
    let Some(file) = found(host.open(path))? else {
        return Ok(false);
    };
    match Object::read(&file).map_err(|bad| OpenError::new(bad, path)) {
        Ok(_) => Ok(true),
        Err(OpenError::Lookup(error)) if error.is_unknown() => Err(error),
        Err(_) => Ok(false),
    }
}
