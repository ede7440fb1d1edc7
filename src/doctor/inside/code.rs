//! Programs and libraries: what the dynamic loader finds, with the jail as the whole host.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::probe::{InsideError, Probe, reason};
use crate::base::{HostPath, is_searched};
use crate::resolve::Host;
use crate::resolve::ldso::{Closure, Code, Loader, is_musls};
use crate::{Result, sys};

const SHELL: &str = "/bin/sh";

/// The most bytes of what a program complains about.
const MAX_COMPLAINT: u64 = 64 << 10;

/// The most files that are looked at.
const MAX_FILES: usize = 10_000;

/// Whether programs and libraries can be used.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct CheckLibraries {
    /// These files, and the programs in these directories, have to find all that they need.
    pub places: Vec<PathBuf>,
    /// These files have to be executable.
    pub programs: Vec<PathBuf>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct CheckedCode {
    pub programs: usize,
    pub libraries: usize,
    /// The files that do not find something, and what.
    pub broken: Vec<(HostPath, String)>,
    /// Programs that find their libraries by `/proc/self/exe`, which is not there.
    pub without_proc: Vec<HostPath>,
    /// Programs that the user may not execute.
    pub not_executable: Vec<PathBuf>,
    /// Programs where these are looked for, and on a mount with `noexec`.
    pub on_noexec: Vec<HostPath>,
}

impl Probe for CheckLibraries {
    type Answer = CheckedCode;

    fn run(&self) -> CheckedCode {
        let host = Host::new();
        let loader = Loader::read(&host);
        let has_proc = Path::new("/proc/self").exists();
        let mut checked = CheckedCode::default();
        for program in &self.programs {
            if is_closed(program) {
                checked.not_executable.push(program.clone());
            }
        }
        let mut examined = vec![];
        let files = self.places.iter().flat_map(|path| code_in(path));
        for file in files.take(MAX_FILES) {
            let Ok(path) = HostPath::new(&file) else {
                continue;
            };
            if file.parent().is_some_and(is_searched) && is_on_noexec(&file) {
                checked.on_noexec.push(path.clone());
            }
            let closure = match &loader {
                Ok(loader) => loader.closure(&path),
                Err(error) => Err(error.clone()),
            };
            if let Ok(closure) = &closure
                && let Some(program) = closure.needs_proc.clone()
                && !has_proc
                && !checked.without_proc.contains(&program)
            {
                checked.without_proc.push(program);
            }
            examined.push((path, closure));
        }
        let of_programs = loaded_by_programs(&examined);
        for (path, closure) in examined {
            match closure {
                Ok(closure) if is_program(&closure) => checked.programs += 1,
                Ok(_) => checked.libraries += 1,
                Err(_) if of_programs.contains(&real(&path)) => checked.libraries += 1,
                Err(error) => checked.broken.push((path, error.to_string())),
            }
        }
        checked
    }
}

/// Whether the file is there, and the user may not execute it: by its mode, or by its mount.
fn is_closed(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK) == Err(nix::Error::EACCES)
}

fn is_on_noexec(path: &Path) -> bool {
    statvfs(path).is_ok_and(|found| found.flags().contains(FsFlags::ST_NOEXEC))
}

fn is_program(closure: &Closure) -> bool {
    closure.interpreter.is_some() || !closure.script_interpreters.is_empty()
}

/// The libraries of the programs that find all that they need. Some find nothing by themselves: the
/// loader looks for what they need in the `RPATH` of the program, too, and takes what it has loaded
/// already.
fn loaded_by_programs(examined: &[(HostPath, Result<Closure>)]) -> BTreeSet<PathBuf> {
    let mut loaded = BTreeSet::new();
    for closure in examined.iter().flat_map(|(_, closure)| closure) {
        if is_program(closure) {
            loaded.extend(closure.libraries.iter().map(|library| real(&library.path)));
        }
    }
    loaded
}

/// The path with all links followed, if something is there.
fn real(path: &HostPath) -> PathBuf {
    match fs::canonicalize(path) {
        Ok(real) => real,
        Err(_) => path.as_path().to_owned(),
    }
}

/// `path`, if it is a program or library, or the programs in the directory `path`. Libraries in a
/// directory are left out: they are modules, and the programs that open them have mostly loaded the
/// C library before they entered the jail. So are scripts, unless programs are looked for there:
/// modules of Python and others are often executable.
fn code_in(path: &Path) -> Vec<PathBuf> {
    let Ok(metadata) = fs::metadata(path) else {
        return vec![];
    };
    if metadata.is_file() {
        return match code_of(path) {
            Some(Code::Program | Code::Script | Code::Library) => vec![path.to_owned()],
            Some(Code::RunnableLibrary) | None => vec![],
        };
    }

    let is_searched = is_searched(path);
    let mut programs = vec![];
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_file() => {}
            _ => continue,
        }
        match code_of(&path) {
            Some(Code::Program) => programs.push(path),
            Some(Code::Script) if is_searched => programs.push(path),
            _ => {}
        }
    }
    programs.sort();
    programs
}

fn code_of(path: &Path) -> Option<Code> {
    let file = sys::open_regular(path).ok()?;
    let executable = file.metadata().ok()?.permissions().mode() & 0o111 != 0;
    Code::of(&file, path.file_name()?, executable)
}

/// Whether `mail()` can start `/bin/sh` and, by it, this program.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Mailer {
    pub program: HostPath,
    /// A command line that starts it and sends nothing, where one is known.
    pub pretend: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct MailerState {
    /// Why `/bin/sh` cannot be started.
    pub shell: Option<InsideError>,
    /// Whether the program is not there.
    pub missing: bool,
    /// Why the program, which is there, cannot be started.
    pub broken: Option<String>,
    /// The complaint of a program that starts.
    pub complaint: Option<String>,
}

impl MailerState {
    /// Why no mail leaves by it.
    pub(crate) fn failure(&self) -> Option<String> {
        if let Some(error) = &self.shell {
            return Some(error.to_string());
        }
        if self.missing {
            return Some("it is not there".to_owned());
        }
        let why = self.broken.as_ref().or(self.complaint.as_ref())?;
        Some(why.to_owned())
    }
}

impl Probe for Mailer {
    type Answer = MailerState;

    fn run(&self) -> MailerState {
        let shell = succeeds(quiet(Command::new(SHELL).args(["-c", ":"])))
            .err()
            .map(InsideError::from);
        let missing = fs::metadata(&self.program).is_err();
        let broken = if missing { None } else { self.start().err() };
        let is_ready = shell.is_none() && !missing && broken.is_none();
        let complaint = match &self.pretend {
            Some(line) if is_ready => complaint(line).err(),
            _ => None,
        };
        MailerState {
            shell,
            missing,
            broken,
            complaint,
        }
    }
}

/// A mail to nobody. It is read, and not sent.
const MAIL: &[u8] = b"To: nobody@localhost\nSubject: mountjail doctor\n\n";

/// The complaint of the command as it gets a mail: its last line.
fn complaint(line: &str) -> Result<(), String> {
    let mut command = Command::new(SHELL);
    command.args(["-c", line]).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(reason)?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(MAIL); // EPIPE: it has ended by itself
    }
    let mut text = vec![];
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(MAX_COMPLAINT).read_to_end(&mut text);
    }
    let status = child.wait().map_err(reason)?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text);
    match text.lines().rfind(|line| !line.trim().is_empty()) {
        Some(last) => Err(last.to_owned()),
        None => Err(format!("it ended with {status}")),
    }
}

impl Mailer {
    /// Starts the program so that its loader maps it with its libraries and then ends (ld.so(8)):
    /// nothing is sent. A program without glibc's loader would really run, so only its file is
    /// examined.
    fn start(&self) -> Result<(), String> {
        let host = Host::new();
        let closure = Loader::read(&host)
            .and_then(|loader| loader.closure(&self.program))
            .map_err(|error| error.to_string())?;
        if !closure.interpreter.as_ref().is_some_and(is_glibcs) || gains_rights(&self.program) {
            return Ok(());
        }

        let mut command = Command::new(self.program.as_path());
        command.env("LD_TRACE_LOADED_OBJECTS", "1");
        command.env("LD_BIND_NOW", "1");
        succeeds(quiet(&mut command)).map_err(reason)
    }
}

/// Whether the program has rights of its owner or group, as Exim has: glibc's loader only maps
/// others.
fn gains_rights(program: &HostPath) -> bool {
    let found = fs::metadata(program.as_path());
    found.is_ok_and(|found| found.permissions().mode() & 0o6000 != 0)
}

fn is_glibcs(interpreter: &HostPath) -> bool {
    let name = interpreter.file_name().unwrap_or_default();
    let is_loader = name.as_bytes().starts_with(b"ld");
    is_loader && !is_musls(&Host::new(), interpreter.as_path().as_os_str().as_bytes())
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
