//! Which loader or interpreter the kernel starts for a program.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::elf::{Bytes, Object};
use super::loader_file::LoaderFile;
use super::script;
use super::system::Family;
use crate::base::HostPath;
use crate::resolve::host::Host;

/// The interpreter that the kernel starts for the program `path`: that of its `#!` line, or the
/// loader that its ELF headers name. `None`: it needs none, or cannot be read.
pub(crate) fn interpreter_of(host: &Host, path: &HostPath) -> Option<Vec<u8>> {
    let file = host.open(path).ok()?;
    if let Ok(object) = Object::read(&file) {
        return object.interpreter;
    }
    let start = file.at(0, script::LINE).ok()?;
    Some(script::parse(&start)?.interpreter)
}

/// Whether the loader `interpreter` is musl's, whatever it is called.
pub(crate) fn is_musls(host: &Host, interpreter: &[u8]) -> bool {
    let family = match family_in(host, interpreter) {
        Some(family) => family,
        None => family_by_name(interpreter),
    };
    family == Family::Musl
}

/// The family that the loader's file tells.
fn family_in(host: &Host, interpreter: &[u8]) -> Option<Family> {
    let path = HostPath::new(OsStr::from_bytes(interpreter)).ok()?;
    LoaderFile::of(&host.read(&path).ok()?).family
}

fn family_by_name(interpreter: &[u8]) -> Family {
    let name = interpreter.rsplit(|byte| *byte == b'/').next();
    Family::of(name.unwrap_or_default())
}
