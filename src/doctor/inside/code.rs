//! Programs and libraries, with the jail for the whole host: what the dynamic loader would find.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Probe, Trouble};
use crate::base::HostPath;
use crate::resolve::Host;
use crate::resolve::ldso::{Code, Loader, is_musls};
use crate::sys;

/// The most files that are looked at.
const MAX_FILES: usize = 10_000;

/// Whether these files, and those in these directories, find all that they need.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Libraries(pub Vec<PathBuf>);

/// What was found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct Checked {
    pub programs: usize,
    pub libraries: usize,
    /// What does not find something, each with the reason.
    pub broken: Vec<(HostPath, String)>,
}

impl Probe for Libraries {
    type Answer = Checked;

    fn run(&self) -> Checked {
        let host = Host::new();
        let loader = Loader::read(&host);
        let mut checked = Checked::default();
        for file in self.0.iter().flat_map(|path| code_in(path)).take(MAX_FILES) {
            let Ok(path) = HostPath::new(&file) else {
                continue;
            };
            match loader.clone().and_then(|loader| loader.closure(&path)) {
                Ok(closure)
                    if closure.interpreter.is_some() || !closure.script_interpreters.is_empty() =>
                {
                    checked.programs += 1;
                }
                Ok(_) => checked.libraries += 1,
                Err(error) => checked.broken.push((path, error.to_string())),
            }
        }
        checked
    }
}

/// `path`, if it is a program or library, or the programs in it. Libraries in a directory are left
/// out: they are modules, opened by programs that most often have entered the jail with the C
/// library in them.
fn code_in(path: &Path) -> Vec<PathBuf> {
    let Ok(metadata) = fs::metadata(path) else {
        return vec![];
    };
    if metadata.is_file() {
        return match code_of(path) {
            Some(Code::Program | Code::Library) => vec![path.to_owned()],
            Some(Code::RunnableLibrary) | None => vec![],
        };
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
    files.retain(|path| code_of(path) == Some(Code::Program));
    files.sort();
    files
}

fn code_of(path: &Path) -> Option<Code> {
    let file = sys::open_regular(path).ok()?;
    let executable = file.metadata().ok()?.permissions().mode() & 0o111 != 0;
    Code::of(&file, path.file_name()?, executable)
}

/// Whether what `mail()` starts can be started: `/bin/sh`, and by it this program.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Mailer {
    pub program: HostPath,
}

/// What of it does not work.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct Mailing {
    /// `/bin/sh` cannot be started.
    pub shell: Option<Trouble>,
    /// The program is not there.
    pub missing: bool,
    /// It is there and does not find what it needs, or cannot be started.
    pub broken: Option<String>,
}

impl Probe for Mailer {
    type Answer = Mailing;

    fn run(&self) -> Mailing {
        let shell = succeeds(quiet(Command::new("/bin/sh").args(["-c", ":"])))
            .err()
            .map(Trouble::from);
        let missing = fs::metadata(&self.program).is_err();
        let broken = if missing { None } else { self.start().err() };
        Mailing {
            shell,
            missing,
            broken,
        }
    }
}

impl Mailer {
    /// Starts the program so that its loader maps it with its libraries and then ends (ld.so(8)):
    /// nothing is sent. One without glibc's loader would really run; of that the file alone is
    /// looked at.
    fn start(&self) -> Result<(), String> {
        let host = Host::new();
        let closure = Loader::read(&host)
            .and_then(|loader| loader.closure(&self.program))
            .map_err(|error| error.to_string())?;
        let is_glibcs = |path: &HostPath| {
            let name = path
                .file_name()
                .is_some_and(|name| name.as_bytes().starts_with(b"ld"));
            name && !is_musls(path.as_path().as_os_str().as_bytes())
        };
        if !closure.interpreter.as_ref().is_some_and(is_glibcs) {
            return Ok(());
        }
        let mut command = Command::new(self.program.as_path());
        let command = quiet(
            command
                .env("LD_TRACE_LOADED_OBJECTS", "1")
                .env("LD_BIND_NOW", "1"),
        );
        succeeds(command).map_err(super::reason)
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

fn succeeds(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("it ended with {status}")))
    }
}
