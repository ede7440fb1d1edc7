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
    script::parse(&start).map(|script| script.interpreter)
}

/// Whether the loader `interpreter` is musl's, whatever it is called.
pub(crate) fn is_musls(host: &Host, interpreter: &[u8]) -> bool {
    let path = HostPath::new(OsStr::from_bytes(interpreter));
    let bytes = path.ok().and_then(|path| host.read(&path).ok());
    let family = bytes.and_then(|bytes| LoaderFile::of(&bytes).family);
    let name = || {
        let name = interpreter.rsplit(|byte| *byte == b'/').next();
        Family::of(name.unwrap_or_default())
    };
    family.unwrap_or_else(name) == Family::Musl
}
