//! Whether a file is a program or a library.

use std::ffi::OsStr;
use std::fs::File;

use super::elf::{BadElf, Bytes, Object};

/// A file of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// An executable file with an ELF header.
    Program,
    /// An executable file with a `#!` line.
    Script,
    /// A shared object.
    Library,
    /// A shared object that can also be run, as the C library can, and never is.
    RunnableLibrary,
}

impl Code {
    /// The kind of the file with this name; `None`: it is not code.
    pub(crate) fn of(file: &File, name: &OsStr, executable: bool) -> Option<Self> {
        let program = executable.then_some(Self::Program);
        let named_as_library = is_library_name(name);
        match Object::read(file) {
            Ok(object) if named_as_library && object.interpreter.is_some() => {
                Some(Self::RunnableLibrary)
            }
            Ok(object) => {
                let starts = object.program || object.interpreter.is_some() || !object.dynamic;
                if named_as_library || !starts {
                    Some(Self::Library)
                } else {
                    program
                }
            }
            Err(BadElf::NotElf) => {
                let is_script = file.at(0, 2).is_ok_and(|start| start == b"#!");
                (executable && is_script).then_some(Self::Script)
            }
            // A damaged one, at which the loader stops.
            Err(_) if named_as_library => Some(Self::Library),
            Err(_) => program,
        }
    }
}

/// Whether a file of this name is a shared object: `libc.so.6`, `mod_a.so`.
pub(crate) fn is_library_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(".so") || name.contains(".so.")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn code_is_known_by_its_contents_name_and_mode() {
        let own = File::open("/proc/self/exe").unwrap();
        let file = |contents: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(contents).unwrap();
            file
        };
        let (script, damaged) = (file(b"#!/bin/sh\n"), file(b"\x7fELF"));
        for (file, name, executable, expected) in [
            (&own, "prog", true, Some(Code::Program)),
            (&own, "prog", false, None),
            (&script, "run", true, Some(Code::Script)),
            (&script, "run", false, None),
            (&script, "run.so", false, None),
            (&damaged, "liba.so.1", false, Some(Code::Library)),
            (&damaged, "prog", true, Some(Code::Program)),
            (&damaged, "data", false, None),
        ] {
            let found = Code::of(file, OsStr::new(name), executable);
            assert_eq!(found, expected, "{name} {executable}");
        }
    }
}
