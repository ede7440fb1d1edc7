//! The closure of a program: interpreters and shared libraries, found as the dynamic loader finds
//! them.
//!
//! In: a program or shared object on the [`Host`]. Out: its [`Closure`]. Files are parsed, never
//! executed, and never read whole. glibc's loader is followed as of 2.33 and later
//! (`elf/dl-load.c`), musl's as of 1.2 (`ldso/dynlink.c`). The environment counts for nothing: a
//! service has its own. Left out on purpose: `/etc/ld.so.preload`, which a jail does not have, and
//! the legacy hwcap subdirectories (`tls`, `haswell`) that glibc 2.37 dropped.

pub mod cache;
mod conf;
pub mod elf;
mod load;
mod process;
pub mod script;
mod search;
mod system;
mod tokens;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use self::cache::Cache;
use self::conf::Conf;
use self::elf::{BadElf, Bytes, Object};
use self::process::Process;
use self::script::Script;
use self::system::Family;
use super::dependencies::Aspect;
use super::host::Host;
use super::link_targets::everybody_may_read;
use super::others::{self, Others};
use super::walk::{LookupError, found};
use crate::base::HostPath;
use crate::sys::{FileId, FileKind};
use crate::{Error, Result};

const CACHE: &str = "/etc/ld.so.cache";
const CONF: &str = "/etc/ld.so.conf";

/// Where `env` looks for a program that a script names, in a service without a `PATH` of its own.
const PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Programs of which every host has one that uses the C library.
const PROGRAMS: [&str; 4] = ["/usr/bin/getent", "/bin/sh", "/usr/bin/env", "/bin/ls"];

/// What a program or shared object needs before its first line runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// The ELF interpreter (`PT_INTERP`) as written; for a script the one of its last interpreter.
    pub interpreter: Option<HostPath>,
    /// The ELF interpreters of everything below, each once, with the first object that names it.
    pub interpreters: Vec<Interpreter>,
    /// The programs that a script needs, in the order the kernel and `env` take them.
    pub script_interpreters: Vec<ScriptInterpreter>,
    /// The libraries, in the order the loader opens them, each path once.
    pub libraries: Vec<Needed>,
    /// The loader's own files: the cache and what it is made from. Empty for a static program.
    pub loader_configuration: Vec<HostPath>,
    /// Programs that must also stand at their real path to find their libraries.
    pub origins: Vec<Origin>,
    /// The first file that decides about the others and that somebody besides root can change, and
    /// who all can.
    changeable: Option<(HostPath, Others)>,
}

/// A program that is asked for by a link and searches relative to `$ORIGIN`, its real directory:
/// under the link's name alone it would search elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The program as asked for: a link.
    pub program: HostPath,
    /// Where it is.
    pub real: HostPath,
}

/// An ELF interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// As written in `PT_INTERP`.
    pub path: HostPath,
    /// The program that names it.
    pub needed_by: HostPath,
}

/// A program that a script needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptInterpreter {
    /// As the `#!` line has it, or as found for `env`.
    pub path: HostPath,
    /// The script.
    pub needed_by: HostPath,
}

/// A shared library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The name that the loader opens; links in it are not resolved.
    pub path: HostPath,
    /// The `DT_NEEDED` text.
    pub name: String,
    /// The object that needs it, by the name it was opened by.
    pub needed_by: HostPath,
}

/// The dynamic loader's view of a host.
#[derive(Clone, Copy)]
pub struct Loader<'h> {
    host: &'h Host,
    state: &'h State,
}

/// What all closures of one run share.
#[derive(Debug)]
pub(super) struct State {
    cache: Option<Cache>,
    conf: Conf,
    objects: Mutex<HashMap<HostPath, Result<Arc<Object>, BadElf>>>,
    directories: Mutex<HashMap<HostPath, Option<Vec<String>>>>,
}

impl State {
    pub(super) fn read(host: &Host) -> Result<Self, LookupError> {
        let fixed = |path| HostPath::new(path).unwrap_or_else(|_| HostPath::slash());
        Ok(Self {
            // The loader, too, goes on without a cache that is not there or that it does not
            // understand.
            cache: found(host.read(&fixed(CACHE)))?.and_then(|bytes| cache::parse(&bytes).ok()),
            conf: Conf::read(host, &fixed(CONF))?,
            objects: Mutex::default(),
            directories: Mutex::default(),
        })
    }
}

impl Closure {
    /// Takes in what the program itself says, before its libraries.
    fn note_program(&mut self, opened: &Opened, process: &Process) {
        let interpreters = process.interpreter.iter().map(|path| Interpreter {
            path: path.clone(),
            needed_by: opened.path.clone(),
        });
        add_unknown(&mut self.interpreters, interpreters.collect(), |known| {
            &known.path
        });
        self.interpreter.clone_from(&process.interpreter);
        let search_path = opened
            .object
            .runpath
            .as_ref()
            .or(opened.object.rpath.as_ref());
        let relative =
            search_path.is_some_and(|text| text.windows(6).any(|token| token == b"ORIGIN"));
        if relative && opened.path.parent() != opened.real.parent() {
            let origin = Origin {
                program: opened.path.clone(),
                real: opened.real.clone(),
            };
            add_unknown(&mut self.origins, vec![origin], |known| &known.program);
        }
    }
}

/// A file as the loader sees it.
#[derive(Clone)]
struct Opened {
    path: HostPath,
    real: HostPath,
    file: FileId,
    object: Arc<Object>,
}

/// Why a file could not be opened as an object.
enum Refused {
    Lookup(LookupError),
    Elf(BadElf),
}

impl<'h> Loader<'h> {
    /// The loader's view of `host`; its configuration is read once a run.
    ///
    /// Errors: that cannot be read.
    pub fn read(host: &'h Host) -> Result<Self> {
        let cannot =
            |error: LookupError| error.error("cannot read the dynamic loader's configuration");
        Ok(Self {
            host,
            state: host.loader_state().map_err(cannot)?,
        })
    }

    /// What `path`, a program, script or shared object, needs.
    ///
    /// Errors: something of it is not there, is broken or cannot be looked at; it asks for more
    /// work than any program does.
    pub fn closure(&self, path: &HostPath) -> Result<Closure> {
        let mut closure = Closure::default();
        self.add(path, &mut closure, 0)?;
        Ok(closure)
    }

    /// The library `name` from the directory of the C library, where glibc has its own modules;
    /// `None` if it is not there.
    ///
    /// Errors: it cannot be told where the C library is.
    pub fn library(&self, name: &str) -> Result<Option<HostPath>> {
        let cannot =
            |error: LookupError| error.error(format!("cannot look for the library {name}"));
        let mut broken = None;
        for program in PROGRAMS.iter().filter_map(|path| HostPath::new(path).ok()) {
            if !self.host.is_there(&program).map_err(cannot)? {
                continue;
            }
            let closure = match self.closure(&program) {
                Ok(closure) => closure,
                Err(error) => {
                    broken = broken.or(Some(error));
                    continue;
                }
            };
            let libraries = closure.libraries.iter();
            let c_library = libraries
                .into_iter()
                .find(|library| library.name.starts_with("libc.so"));
            let beside = c_library.and_then(|library| library.path.parent()?.join(name).ok());
            return match beside {
                Some(path) => Ok(self.host.is_there(&path).map_err(cannot)?.then_some(path)),
                None => Ok(None),
            };
        }
        broken.map_or(Ok(None), |error| {
            Err(error.context(format!("cannot look for the library {name}")))
        })
    }

    /// Remembers who besides root can change the file at `path`, which decides what else is needed.
    fn note_others(&self, path: &HostPath, closure: &mut Closure) -> Result<()> {
        let cannot = |error: LookupError| error.error(format!("cannot look at {path}"));
        if let Some(more) = found(self.host.others(path)).map_err(cannot)?.flatten() {
            closure.changeable = Some(match closure.changeable.take() {
                Some((first, others)) => (first, others::and(others, &more)),
                None => (path.clone(), more),
            });
        }
        Ok(())
    }

    /// Refuses what of the closure of `program` not everybody may read, if somebody besides root
    /// has a say in what is needed: they could have any file of the host brought along. What is
    /// their own is theirs to show.
    pub(super) fn refuse_private(&self, program: &HostPath, closure: &Closure) -> Result<()> {
        let Some((object, others)) = &closure.changeable else {
            return Ok(());
        };
        let needed = (closure.interpreters.iter().map(|needed| &needed.path))
            .chain(
                closure
                    .script_interpreters
                    .iter()
                    .map(|needed| &needed.path),
            )
            .chain(closure.libraries.iter().map(|needed| &needed.path))
            .chain(
                closure
                    .origins
                    .iter()
                    .map(|origin| &origin.real)
                    .filter(|real| *real != program),
            );
        for path in needed {
            let cannot = |error: LookupError| error.error(format!("cannot look at {path}"));
            let walk = self.host.walk_strictly(path).map_err(cannot)?;
            let own = others.user == Some(walk.stat.uid);
            if !own && !everybody_may_read(self.host, &walk).map_err(cannot)? {
                return Err(Error::failed(format!(
                    "{program} asks for {path}, which not everybody may read; {object} has a say in that, and {others}"
                ))
                .hint(format!("make it root's alone: `{}`; or take {program} out", others.remedy())));
            }
        }
        Ok(())
    }

    fn add(&self, path: &HostPath, closure: &mut Closure, nested: usize) -> Result<()> {
        self.note_others(path, closure)?;
        match self.open(path) {
            Ok(opened) => self.add_object(opened, closure),
            Err(Refused::Lookup(reason)) => Err(reason.error(format!("cannot read {path}"))),
            Err(Refused::Elf(BadElf::NotElf)) => match self.script(path)? {
                Some(_) if nested == script::MAX_NESTED => Err(Error::failed(format!(
                    "the script {path} is more than {} scripts deep; the kernel will not run it",
                    script::MAX_NESTED
                ))),
                Some(script) => self.add_script(path, &script, closure, nested + 1),
                None => Err(Error::failed(format!(
                    "{path} is neither an ELF file nor a script that begins with `#!`"
                ))
                .hint("list it under `mounts` if it is data")),
            },
            Err(Refused::Elf(reason)) => Err(Error::failed(format!(
                "cannot use {path} as a program or library"
            ))
            .because_of(reason)),
        }
    }

    fn add_object(&self, opened: Opened, closure: &mut Closure) -> Result<()> {
        let object = opened.object.clone();
        if object.interpreter.is_none() && object.needs.is_empty() {
            return Ok(()); // static, also static PIE, or a library that stands alone
        }
        let process = Process::of(self, &opened)?;
        if object.interpreter.is_some() {
            closure.note_program(&opened, &process);
        }
        add_unknown(
            &mut closure.loader_configuration,
            process.configuration.clone(),
            |path| path,
        );
        closure.loader_configuration.sort();
        if let Some(interpreter) = &process.interpreter {
            self.note_others(interpreter, closure)?;
        }
        let libraries = load::libraries(self, &process, opened)?;
        for library in &libraries {
            self.note_others(&library.path, closure)?;
        }
        add_unknown(&mut closure.libraries, libraries, |needed| &needed.path);
        Ok(())
    }

    /// The `#!` line of `path`, if it has one.
    fn script(&self, path: &HostPath) -> Result<Option<Script>> {
        let cannot =
            |reason: &std::io::Error| Error::failed(format!("cannot read {path}")).because(reason);
        let file = self
            .host
            .open(path)
            .map_err(|reason| reason.error(format!("cannot read {path}")))?;
        file.at(0, script::LINE)
            .map(|bytes| script::parse(&bytes))
            .map_err(|reason| cannot(&reason))
    }

    fn add_script(
        &self,
        path: &HostPath,
        script: &Script,
        closure: &mut Closure,
        nested: usize,
    ) -> Result<()> {
        let interpreter = HostPath::new(OsStr::from_bytes(&script.interpreter)).map_err(|bad| {
            let written = String::from_utf8_lossy(&script.interpreter);
            Error::failed(format!(
                "cannot find the interpreter {written} of the script {path}"
            ))
            .because_of(bad)
            .hint("write an absolute path after `#!`")
        })?;
        let mut programs = vec![interpreter];
        if let Some(name) = script.program_of_env() {
            programs.push(self.program(name, path)?);
        }
        for program in programs {
            let needed = ScriptInterpreter {
                path: program.clone(),
                needed_by: path.clone(),
            };
            add_unknown(&mut closure.script_interpreters, vec![needed], |known| {
                &known.path
            });
            self.add(&program, closure, nested)
                .map_err(|error| error.context(format!("interpreter of the script {path}")))?;
        }
        Ok(())
    }

    /// What `env` finds for `name`.
    fn program(&self, name: &[u8], script: &HostPath) -> Result<HostPath> {
        let name = Path::new(OsStr::from_bytes(name));
        if let Ok(path) = HostPath::new(name) {
            return Ok(path);
        }
        if name.components().count() > 1 {
            return Err(Error::failed(format!(
                "cannot find {} for the script {script}",
                name.display()
            ))
            .because_of("env takes it from a working directory that is not known")
            .hint("write an absolute path in the script's first line"));
        }
        let message = format!(
            "program {}, needed by the script {script} through env,",
            name.display()
        );
        for path in PATH
            .iter()
            .filter_map(|directory| HostPath::new(Path::new(directory).join(name)).ok())
        {
            let cannot = |error: LookupError| {
                error.error(format!("cannot look for the {message} at {path}"))
            };
            let stat = found(self.host.stat(&path)).map_err(cannot)?;
            if stat.is_some_and(|stat| stat.kind == FileKind::File && stat.mode & 0o111 != 0) {
                return Ok(path);
            }
        }
        Err(
            Error::failed(format!("{message} was not found in {}", PATH.join(":")))
                .hint("install it, or name the interpreter by its path in the script's first line"),
        )
    }

    /// Opens and parses `path`; each real file is parsed once a run.
    fn open(&self, path: &HostPath) -> Result<Opened, Refused> {
        let walk = self.host.walk(path).map_err(Refused::Lookup)?;
        let known = lock(&self.state.objects).get(&walk.real).cloned();
        let object = if let Some(known) = known {
            self.host.note(walk.real.as_path(), Aspect::CONTENTS);
            known
        } else {
            let file = self.host.open(path).map_err(Refused::Lookup)?;
            let object = Object::read(&file).map(Arc::new);
            lock(&self.state.objects)
                .entry(walk.real.clone())
                .or_insert(object)
                .clone()
        };
        let object = object.map_err(Refused::Elf)?;
        Ok(Opened {
            path: path.clone(),
            real: walk.real,
            file: walk.stat.file,
            object,
        })
    }

    /// `text` as a path without `..`: what is before a `..` is walked, because the kernel goes up
    /// from where a link leads. `None` for a relative path, or where the kernel would find nothing.
    fn absolute(&self, text: &[u8]) -> Result<Option<HostPath>, LookupError> {
        let text = Path::new(OsStr::from_bytes(text));
        if !text.is_absolute() {
            return Ok(None);
        }
        let mut path = PathBuf::from("/");
        for component in text.components() {
            match component {
                std::path::Component::ParentDir => {
                    let Ok(below) = HostPath::new(&path) else {
                        return Ok(None);
                    };
                    let Some(walk) = found(self.host.walk(&below))? else {
                        return Ok(None);
                    };
                    path = walk.real.parent().unwrap_or(walk.real).as_path().into();
                }
                other => path.push(other),
            }
        }
        Ok(HostPath::new(path).ok())
    }
}

/// The interpreter that the kernel starts for the program `path`: of its `#!` line, or the loader
/// that its ELF headers name. `None`: it needs none, or cannot be read.
pub fn interpreter_of(host: &Host, path: &HostPath) -> Option<Vec<u8>> {
    let file = host.open(path).ok()?;
    match Object::read(&file) {
        Ok(object) => object.interpreter,
        Err(_) => file
            .at(0, script::LINE)
            .ok()
            .and_then(|bytes| script::parse(&bytes))
            .map(|s| s.interpreter),
    }
}

/// Whether the loader `interpreter` is musl's.
pub fn is_musls(interpreter: &[u8]) -> bool {
    let name = interpreter
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or_default();
    Family::of(name) == Family::Musl
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add_unknown<T>(known: &mut Vec<T>, more: Vec<T>, key: impl Fn(&T) -> &HostPath) {
    for item in more {
        if known.iter().all(|old| key(old) != key(&item)) {
            known.push(item);
        }
    }
}
