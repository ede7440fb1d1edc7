//! The files that a program needs before its first line runs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::by_name::PROGRAMS;
use super::elf::{BadElf, Bytes};
use super::load::{self, IfNotFound, Libraries};
use super::loader::{Loader, OpenError, Opened};
use super::objects::Needed;
use super::process::ProcessImage;
use super::script::{self, Script};
use super::system::Family;
use super::tokens;
use crate::base::{ErrorContext, HostPath, SEARCH_PATH};
use crate::resolve::lookup_error::{LookupError, found};
use crate::resolve::others::Others;
use crate::sys::FileKind;
use crate::{Error, Result};

/// The files that a program or shared object needs before its first line runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// The ELF interpreter (`PT_INTERP`) as written; for a script, that of its last interpreter.
    pub interpreter: Option<HostPath>,
    /// The ELF interpreters of everything below, each once, with the first object that names it.
    pub interpreters: Vec<Interpreter>,
    /// The programs that a script needs, in the order in which the kernel and `env` start them.
    pub script_interpreters: Vec<Interpreter>,
    /// The libraries, in the order in which the loader opens them, each path once.
    pub libraries: Vec<Needed>,
    /// The loader's own files: the cache and its configuration. Empty for a static program.
    pub loader_configuration: Vec<HostPath>,
    /// Programs that must also be at their real path to find their libraries.
    pub origins: Vec<RealProgram>,
    /// The first program whose loader asks `/proc/self/exe` where it is, to find libraries.
    pub needs_proc: Option<HostPath>,
    /// Libraries that the loader does not find, each by its name.
    pub missing: Vec<String>,
    /// What becomes of libraries that are not found.
    if_not_found: IfNotFound,
    /// The first file that decides what is needed and that others than root can change, and all who
    /// can change such files.
    changeable: Option<(HostPath, Others)>,
}

/// A program that is named by a link and searches for libraries relative to `$ORIGIN`, its real
/// directory. Under the name of the link alone it would search elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealProgram {
    /// The program as named: a link.
    pub program: HostPath,
    /// The file on the host, all links followed.
    pub real: HostPath,
}

/// An interpreter of a program or script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// As written in `PT_INTERP` or in the `#!` line, or as found for `env`.
    pub path: HostPath,
    /// The program or script that names it.
    pub needed_by: HostPath,
}

impl Closure {
    /// Adds what the program itself names, before its libraries.
    fn note_program(&mut self, opened: &Opened, process: &ProcessImage) {
        if let Some(path) = &process.interpreter {
            add_interpreter(&mut self.interpreters, path, &opened.path);
            if let Some(starts) = process.starts.first() {
                add_interpreter(&mut self.interpreters, starts, path);
                self.note_proc(&opened.path);
            }
        }
        self.interpreter.clone_from(&process.interpreter);

        let object = &opened.object;
        if let Some(search_path) = object.runpath.as_ref().or(object.rpath.as_ref())
            && tokens::has_origin(search_path)
            && opened.path.parent() != opened.real.parent()
            && !self.has_origin(&opened.path)
        {
            self.origins.push(RealProgram {
                program: opened.path.clone(),
                real: opened.real.clone(),
            });
        }
    }

    fn add_library(&mut self, library: Needed) {
        let mut known = self.libraries.iter();
        if known.all(|known| known.path != library.path) {
            self.libraries.push(library);
        }
    }

    fn has_origin(&self, program: &HostPath) -> bool {
        self.origins.iter().any(|known| known.program == *program)
    }

    /// Notes that the loader of `program` asks `/proc/self/exe` where it is.
    fn note_proc(&mut self, program: &HostPath) {
        if self.needs_proc.is_none() {
            self.needs_proc = Some(program.clone());
        }
    }

    /// Everything but the loader's configuration, each with its name in the jail.
    fn needed(&self) -> Vec<&HostPath> {
        let mut needed = vec![];
        needed.extend(self.interpreters.iter().map(|needed| &needed.path));
        needed.extend(self.script_interpreters.iter().map(|needed| &needed.path));
        needed.extend(self.libraries.iter().map(|needed| &needed.path));
        needed.extend(self.origins.iter().map(|program| &program.real));
        needed
    }
}

impl Loader<'_> {
    /// The closure of `path`, a program, script or shared object.
    ///
    /// Errors: something of it is not there, is broken or cannot be looked at; it asks for more
    /// work than any program does.
    pub fn closure(&self, path: &HostPath) -> Result<Closure> {
        let mut closure = Closure::default();
        self.add(path, &mut closure, 0)?;
        Ok(closure)
    }

    /// As [`Self::closure`], for an object that a running program opens: libraries that are not
    /// found are [missing](Closure::missing).
    pub fn closure_of_object(&self, path: &HostPath) -> Result<Closure> {
        let mut closure = Closure {
            if_not_found: IfNotFound::GoOn,
            ..Closure::default()
        };
        self.add(path, &mut closure, 0)?;
        Ok(closure)
    }

    /// The library `name` from the directory of the C library, where glibc has its own modules;
    /// `None`: it is not there.
    ///
    /// Errors: it is unknown where the C library is.
    pub fn library(&self, name: &str) -> Result<Option<HostPath>> {
        let cannot = format_args!("cannot look for the library {name}");
        let mut broken = None;
        for program in PROGRAMS {
            let Ok(program) = HostPath::new(program) else {
                continue;
            };
            if !self.host.is_there(&program).context(cannot)? {
                continue;
            }
            match self.closure(&program) {
                Ok(closure) => return self.beside_c_library(&closure, name).context(cannot),
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        match broken {
            Some(error) => Err(error.context(cannot)),
            None => Ok(None),
        }
    }

    /// The library `name` beside the C library of `closure`, if it is there.
    fn beside_c_library(
        &self,
        closure: &Closure,
        name: &str,
    ) -> Result<Option<HostPath>, LookupError> {
        let Some(path) = place_beside_c_library(closure, name) else {
            return Ok(None);
        };
        Ok(self.host.is_there(&path)?.then_some(path))
    }

    /// Records who besides root can change the file at `path`, which decides what else is needed.
    fn note_others(&self, path: &HostPath, closure: &mut Closure) -> Result<()> {
        let others =
            found(self.host.others(path)).context(format_args!("cannot look at {path}"))?;
        if let Some(more) = others.flatten() {
            closure.changeable = Some(match closure.changeable.take() {
                Some((first, others)) => (first, others.merged_with(&more)),
                None => (path.clone(), more),
            });
        }
        Ok(())
    }

    /// Refuses the closure of `program` if it has a file that not everybody may read, while users
    /// besides root decide what is needed: they could have any file of the host brought along.
    /// Their own files they may show.
    pub(in crate::resolve) fn refuse_private(
        &self,
        program: &HostPath,
        closure: &Closure,
    ) -> Result<()> {
        let Some((object, others)) = &closure.changeable else {
            return Ok(());
        };
        for path in closure.needed() {
            if path == program {
                continue;
            }
            let cannot = format_args!("cannot look at {path}");
            let walk = self.host.walk_strictly(path).context(cannot)?;
            let is_theirs = others.user == Some(walk.stat.uid);
            if !is_theirs && !self.host.everybody_may_read(&walk).context(cannot)? {
                return Err(Error::failed(format!(
                    "{program} asks for {path}, which not everybody may read; \
                     {object} decides that, and {others}"
                ))
                .hint(format!(
                    "let root alone change it: `{}`; or take {program} out",
                    others.remedy()
                )));
            }
        }
        Ok(())
    }

    fn add(&self, path: &HostPath, closure: &mut Closure, nested: usize) -> Result<()> {
        self.note_others(path, closure)?;
        match self.open(path) {
            Ok(opened) => self.add_object(opened, closure),
            Err(OpenError::Lookup(reason)) => Err(reason.error(format!("cannot read {path}"))),
            Err(OpenError::Elf(BadElf::NotElf)) => match self.script(path)? {
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
            Err(OpenError::Elf(reason)) => Err(Error::failed(format!(
                "cannot use {path} as a program or library"
            ))
            .because_of(reason)),
        }
    }

    fn add_object(&self, opened: Opened, closure: &mut Closure) -> Result<()> {
        let object = Arc::clone(&opened.object);
        if object.interpreter.is_none() && object.needs.is_empty() {
            return Ok(()); // static, also static PIE, or a library that stands alone
        }
        let process = ProcessImage::new(self, &opened)?;
        if object.interpreter.is_some() {
            closure.note_program(&opened, &process);
        }
        closure
            .loader_configuration
            .extend_from_slice(&process.configuration);
        closure.loader_configuration.sort();
        closure.loader_configuration.dedup();
        if let Some(interpreter) = &process.interpreter {
            self.note_others(interpreter, closure)?;
        }
        let program = opened.path.clone();
        let Libraries {
            list: libraries,
            origin,
            missing,
        } = load::libraries(self, &process, opened, closure.if_not_found)?;
        closure.missing.extend(missing);
        // Only `/proc/self/exe` tells glibc's loader where the program is. It knows where libraries
        // are, because it opened them.
        if origin && object.interpreter.is_some() && process.family == Family::Glibc {
            closure.note_proc(&program);
        }
        for path in process.starts.iter().skip(1) {
            self.add_preloaded(path, &process, closure)?;
        }
        self.add_libraries(libraries, closure)
    }

    fn add_libraries(&self, libraries: Vec<Needed>, closure: &mut Closure) -> Result<()> {
        for library in libraries {
            self.note_others(&library.path, closure)?;
            closure.add_library(library);
        }
        Ok(())
    }

    /// The library `path`, which the loader of `process` preloads, with what it needs.
    fn add_preloaded(
        &self,
        path: &HostPath,
        process: &ProcessImage,
        closure: &mut Closure,
    ) -> Result<()> {
        let opened = match self.open(path) {
            Ok(opened) => opened,
            Err(OpenError::Lookup(reason)) if reason.is_unknown() => {
                return Err(reason.error(format!("cannot read {path}")));
            }
            Err(_) => return Ok(()), // the loader reports it, and goes on
        };
        let preloaded = Needed {
            path: path.clone(),
            name: path.to_string(),
            needed_by: process.interpreter.as_ref().unwrap_or(path).clone(),
        };
        let needed = load::libraries(self, process, opened, closure.if_not_found)?;
        closure.missing.extend(needed.missing);
        self.add_libraries(vec![preloaded], closure)?;
        self.add_libraries(needed.list, closure)
    }

    /// The `#!` line of `path`, if it has one.
    fn script(&self, path: &HostPath) -> Result<Option<Script>> {
        let cannot = format_args!("cannot read {path}");
        let file = self.host.open(path).context(cannot)?;
        let start = file.at(0, script::LINE).context(cannot)?;
        Ok(script::parse(&start))
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
            add_interpreter(&mut closure.script_interpreters, &program, path);
            self.add(&program, closure, nested)
                .context(format_args!("interpreter of the script {path}"))?;
        }
        Ok(())
    }

    /// The program that `env` finds for `name`.
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
        for directory in SEARCH_PATH {
            let Ok(path) = HostPath::new(Path::new(directory).join(name)) else {
                continue;
            };
            let cannot = format_args!("cannot look for the {message} at {path}");
            let stat = found(self.host.stat(&path)).context(cannot)?;
            if stat.is_some_and(|stat| stat.kind == FileKind::File && stat.mode & 0o111 != 0) {
                return Ok(path);
            }
        }
        Err(Error::failed(format!(
            "{message} was not found in {}",
            SEARCH_PATH.join(":")
        ))
        .hint("install it, or name the interpreter by its path in the script's first line"))
    }
}

/// Adds the interpreter `path`, which `needed_by` names, unless it is there.
fn add_interpreter(known: &mut Vec<Interpreter>, path: &HostPath, needed_by: &HostPath) {
    if known.iter().all(|known| known.path != *path) {
        known.push(Interpreter {
            path: path.clone(),
            needed_by: needed_by.clone(),
        });
    }
}

/// Where `name` is if it is beside the C library of `closure`.
fn place_beside_c_library(closure: &Closure, name: &str) -> Option<HostPath> {
    let mut libraries = closure.libraries.iter();
    let c_library = libraries.find(|library| library.name.starts_with("libc.so"))?;
    c_library.path.parent()?.join(name).ok()
}
