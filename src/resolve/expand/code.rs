//! Programs and shared objects, with everything that the loader opens for them.

use super::expander::{ExpandResult, Expander};
use crate::Error;
use crate::base::{ErrorContext, HostPath, MountAttributes, lexical};
use crate::resolve::desired::{Cause, FileKind};
use crate::resolve::item::Item;
use crate::resolve::ldso::Closure;
use crate::resolve::lookup_error::{LookupError, found, is_unknown};
use crate::resolve::objects;
use crate::resolve::walk::LinkOnTheWay;

impl Expander<'_> {
    /// The libraries that the objects in an executable directory need, from outside of it.
    pub(super) fn objects_in(&mut self, directory: &Item) -> ExpandResult<()> {
        let source = &directory.source;
        let cannot = format_args!("cannot tell what {source} needs");
        let objects = objects::below(self.host, source, &mut self.out.notes).context(cannot)?;
        let loader = self.shared.loader(self.host)?;
        for object in objects {
            let closure = match loader.closure_of_object(&object) {
                Ok(closure) => closure,
                Err(error) if error.errno().is_some_and(is_unknown) => {
                    return Err(error.context(cannot).into());
                }
                Err(_) => continue, // it is damaged, or for another machine
            };
            for (path, step, opened) in needed_by(&closure) {
                if path.starts_with(source) {
                    continue;
                }
                if let Some(walk) = found(self.host.walk(path)).context(cannot)?
                    && walk.real.starts_with(source)
                {
                    continue;
                }
                self.needed(path, opened, directory.chain_to(step))?;
            }
        }
        Ok(())
    }

    /// A program, on whose name the host may have links: if they lead to another directory, the
    /// jail has the same links, and the program where it really is. It may look for its own files
    /// from there.
    fn program_item(&self, path: &HostPath, chain: Vec<Cause>) -> Result<Item, LookupError> {
        let item = Item::at(self.host, path, MountAttributes::CODE, chain)?;
        let links = self.host.walk(path)?.links;
        Ok(Item {
            links: links.iter().any(leads_away).then_some(links),
            ..item
        })
    }

    /// A program or shared object with everything that the loader opens for it. `cause`: what
    /// brought it, unless a line names it.
    pub(super) fn code(
        &mut self,
        path: &HostPath,
        cause: Option<&Cause>,
        missing: Missing,
    ) -> ExpandResult<()> {
        let chain = Vec::from_iter(cause.cloned());
        let item = self.found(path, self.program_item(path, chain))?;
        if item.kind != FileKind::File {
            return Err(Error::failed(format!(
                "{path} is a {}, not a program or shared object",
                item.kind
            ))
            .hint("a directory belongs under `mounts`")
            .into());
        }
        self.out.items.push(item);

        let loader = self.shared.loader(self.host)?;
        let closure = match missing {
            Missing::IsError => loader.closure(path)?,
            Missing::IsNoted => loader.closure_of_object(path)?,
        };
        loader.refuse_private(path, &closure)?;
        for name in &closure.missing {
            self.out.notes.push(format!(
                "{path} needs {name}, which the loader does not find: it works in a program that \
                 has loaded that already"
            ));
        }
        self.out.need_proc.extend(closure.needs_proc.clone());
        for (path, step, opened) in needed_by(&closure) {
            let mut chain = Vec::from_iter(cause.cloned());
            chain.push(step);
            self.needed(path, opened, chain)?;
        }
        Ok(())
    }

    /// A shared object that a program loads by its path, with its libraries. One that is damaged,
    /// or for another machine, works on the host no better.
    pub(super) fn module(&mut self, path: &HostPath, cause: &Cause) -> ExpandResult<()> {
        match self.shared.loader(self.host)?.closure_of_object(path) {
            Ok(_) => self.code(path, Some(cause), Missing::IsNoted),
            Err(error) if error.errno().is_some_and(is_unknown) => Err(error
                .context(format_args!("cannot tell what {path} needs"))
                .into()),
            Err(_) => Ok(()),
        }
    }

    /// A file that the loader or the kernel opens for a program.
    fn needed(&mut self, path: &HostPath, opened: OpenedAs, chain: Vec<Cause>) -> ExpandResult<()> {
        let item = match opened {
            OpenedAs::Program => self.program_item(path, chain),
            OpenedAs::Object => Item::at(self.host, path, MountAttributes::CODE, chain),
            OpenedAs::Data => Item::at(self.host, path, MountAttributes::DATA, chain),
        };
        let item = self.found(path, item)?;
        if item.kind == FileKind::Directory {
            return self.data(item);
        }
        self.out.items.push(item);
        Ok(())
    }
}

/// How a file is opened that a program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenedAs {
    /// As a program of its own: the interpreter of a script.
    Program,
    /// By its name: a library, or the loader.
    Object,
    /// A configuration of the loader.
    Data,
}

/// The consequence of a library that the loader does not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    IsError,
    IsNoted,
}

/// Whether a program's name is a link to another directory.
fn leads_away(link: &LinkOnTheWay) -> bool {
    match link.path.parent() {
        Some(directory) if link.last => {
            let to = lexical(directory.as_path(), &link.destination);
            to.parent() != Some(directory.as_path())
        }
        _ => false,
    }
}

/// The files that a closure names, with the reasons.
fn needed_by(closure: &Closure) -> Vec<(&HostPath, Cause, OpenedAs)> {
    let mut needed = vec![];
    for interpreter in &closure.interpreters {
        let cause = interpreter_of(&interpreter.needed_by);
        needed.push((&interpreter.path, cause, OpenedAs::Object));
    }
    for interpreter in &closure.script_interpreters {
        let cause = interpreter_of(&interpreter.needed_by);
        needed.push((&interpreter.path, cause, OpenedAs::Program));
    }
    for library in &closure.libraries {
        let cause = Cause::LibraryOf {
            name: library.name.clone(),
            object: library.needed_by.as_path().to_owned(),
        };
        needed.push((&library.path, cause, OpenedAs::Object));
    }
    for path in &closure.loader_configuration {
        needed.push((path, Cause::LoaderConfiguration, OpenedAs::Data));
    }
    for origin in &closure.origins {
        let cause = Cause::LinkedFrom(origin.program.as_path().to_owned());
        needed.push((&origin.real, cause, OpenedAs::Object));
    }
    needed
}

fn interpreter_of(program: &HostPath) -> Cause {
    Cause::InterpreterOf(program.as_path().to_owned())
}
