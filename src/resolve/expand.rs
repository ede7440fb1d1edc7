//! One request → what it brings on this host, whatever site asks for it.

use super::desired::{Cause, FileKind};
use super::host::Host;
use super::item::Item;
use super::ldso::Closure;
use super::lookup_error::{LookupError, found};
use super::made::Made;
use super::shared::Shared;
use super::top_links::TopLink;
use super::users::WHERE;
use super::walk::{LinkOnTheWay, Walk};
use super::{includes, link_targets, nss, objects};
use crate::base::text::nearest;
use crate::base::{HostPath, MountAttributes, SEARCH_PATH, lexical};
use crate::manifest::{Access, CodeName, MountRequest, Pattern, Request, Wanted};
use crate::{Error, Result};

/// What to do about a file that this host does not have.
const MAY_DO_WITHOUT: &str = "if this host may do without it, say `optional: true`";

/// All that a request brings.
#[derive(Clone, Debug, Default)]
pub(super) struct Expansion {
    pub items: Vec<Item>,
    /// Links that no line names: those in `/` that lead to a directory of the items or into it, and
    /// those by which items are also known.
    pub top_links: Vec<TopLink>,
    /// A login name for the generated passwd.
    pub user: Option<String>,
    /// What is made in the root for the site alone.
    pub made: Option<Made>,
    /// Programs that ask `/proc/self/exe` where they are, to find their libraries.
    pub need_proc: Vec<HostPath>,
    /// What was left out and why.
    pub notes: Vec<String>,
}

/// What `request` brings.
pub(super) fn expand(host: &Host, shared: &Shared, request: &Request) -> Result<Expansion> {
    let mut expander = Expander {
        host,
        shared,
        out: Expansion::default(),
    };
    match request {
        Request::Device(wanted) => expander.names(wanted, "/dev", MountAttributes::DEVICE)?,
        Request::Etc(wanted) => expander.names(wanted, "/etc", MountAttributes::DATA)?,
        Request::Program(wanted) => {
            for path in expander.code_files(wanted, Expander::program)? {
                expander.code(&path, None, Missing::IsError)?;
            }
        }
        Request::Library(wanted) => {
            let is_pattern = |name: &CodeName| match name {
                CodeName::Path(pattern) => pattern.is_glob(),
                CodeName::Name(_) => false,
            };
            // A program that opens some of many objects may have loaded what others of them need.
            let missing = if wanted.any_of.iter().any(is_pattern) {
                Missing::IsNoted
            } else {
                Missing::IsError
            };
            for path in expander.code_files(wanted, Expander::library)? {
                expander.code(&path, None, missing)?;
            }
        }
        Request::User(wanted) => expander.user(wanted)?,
        Request::NameService(database) => expander.name_service(database)?,
        Request::Mount(request) => expander.mount(request)?,
        Request::Directory(request) => {
            expander.out.made = Some(Made::directory(host, shared, request)?);
        }
        Request::FileSystem(target, file_system) => {
            expander.out.made = Some(Made::FileSystem(target.clone(), *file_system));
        }
    }
    Ok(expander.out)
}

/// A request on its way to an [`Expansion`].
struct Expander<'h> {
    host: &'h Host,
    shared: &'h Shared,
    out: Expansion,
}

impl Expander<'_> {
    /// `devices` and `etc`.
    fn names(
        &mut self,
        wanted: &Wanted<String>,
        base: &str,
        attributes: MountAttributes,
    ) -> Result<()> {
        let paths = wanted
            .any_of
            .iter()
            .map(|name| absolute(base, name))
            .collect::<Result<Vec<_>>>()?;
        let Some(path) = self.first(&paths, wanted.optional)? else {
            return Ok(());
        };
        let item = Item::at(self.host, &path, attributes, vec![])
            .map_err(|error| self.missing(&path, &error))?;
        self.data(item)
    }

    fn user(&mut self, wanted: &Wanted<String>) -> Result<()> {
        let accounts = self.shared.accounts(self.host)?;
        for name in &wanted.any_of {
            if accounts.knows(self.host, name)? {
                self.out.user = Some(name.clone());
                return Ok(());
            }
        }

        let all = wanted.any_of.join(", ");
        let is_one = wanted.any_of.len() == 1;
        if wanted.optional {
            self.out.notes.push(if is_one {
                format!("there is no user {all} {WHERE}; skipped, because it is optional")
            } else {
                format!(
                    "there is none of the users {all} {WHERE}; skipped, because they are optional"
                )
            });
            Ok(())
        } else if is_one {
            Err(Error::failed(format!("there is no user {all} {WHERE}"))
                .hint("create the user, or take the line out"))
        } else {
            Err(Error::failed(format!("none of the users {all} is {WHERE}"))
                .hint("create one of them, or take the line out"))
        }
    }

    fn name_service(&mut self, database: &str) -> Result<()> {
        for (service, path) in nss::modules(self.host, self.shared, database)? {
            let back_ends = nss::talks_to(&service);
            let cause = Cause::NameService {
                database: database.to_owned(),
                service,
            };
            for directory in back_ends {
                self.back_end(directory, &cause)?;
            }
            self.code(&path, Some(&cause), Missing::IsError)?;
        }
        let cache = Cause::NameService {
            database: database.to_owned(),
            service: "nscd".to_owned(),
        };
        self.back_end(nss::CACHE, &cache)
    }

    /// The directory in which what a module talks to listens, if this host has it.
    fn back_end(&mut self, directory: &str, cause: &Cause) -> Result<()> {
        let Ok(path) = HostPath::new(directory) else {
            return Ok(());
        };
        let item = Item::at(self.host, &path, MountAttributes::DATA, vec![cause.clone()]);
        let item = found(item).map_err(|error| error.error(format!("cannot look at {path}")))?;
        match item {
            Some(item) if item.kind == FileKind::Directory => self.data(item),
            _ => Ok(()),
        }
    }

    fn mount(&mut self, request: &MountRequest) -> Result<()> {
        let base = MountAttributes {
            read_only: request.access == Access::ReadOnly,
            ..MountAttributes::DATA
        };
        let attributes = MountAttributes {
            noexec: !request.executable.unwrap_or(!base.noexec),
            nodev: !request.devices.unwrap_or(!base.nodev),
            nosuid: !request.setuid.unwrap_or(!base.nosuid),
            ..base
        };
        for path in self.matches(&request.sources)? {
            let item = match &request.target {
                None => Item::at(self.host, &path, attributes, vec![]),
                Some(target) => Item::with_target(self.host, &path, target.clone(), attributes),
            };
            let mut item = item.map_err(|error| self.missing(&path, &error))?;
            item.fixed = attributes != MountAttributes::DATA;
            item.recursive = request.recursive && item.kind == FileKind::Directory;
            self.data(item)?;
        }
        Ok(())
    }

    /// The item, and, if it is a directory, what links inside it lead to.
    fn data(&mut self, item: Item) -> Result<()> {
        if item.kind == FileKind::Symlink {
            return Err(Error::failed(format!("{} leads to no file", item.source)));
        }
        let source = item.source.clone();
        let cannot = |error: LookupError| error.error(format!("cannot tell what {source} needs"));
        if item.kind == FileKind::Socket {
            let item = self.socket(item).map_err(cannot)?;
            self.out.items.push(item);
            return Ok(());
        }

        if item.kind == FileKind::Directory && item.attributes.read_only && has_lasting_links(&item)
        {
            let brought = link_targets::bring(self.host, &item).map_err(cannot)?;
            self.out.items.extend(brought.items);
            self.out.notes.extend(brought.notes);
        }
        if item.kind == FileKind::Directory && item.attributes.read_only && !item.attributes.noexec
        {
            self.objects_in(&item)?;
        }
        for (path, cause) in includes::of(self.host, &item).map_err(cannot)? {
            self.included(&path, cause)?;
        }
        if item.path.as_path() == item.source.as_path() {
            self.add_top_links(&item).map_err(cannot)?;
        }
        self.out.items.push(item);
        Ok(())
    }

    /// Links in `/` into the item, and those to `/run` by which it is also known.
    fn add_top_links(&mut self, item: &Item) -> Result<(), LookupError> {
        if item.kind == FileKind::Directory {
            for link in self.shared.top_links(self.host)? {
                if link.real.starts_with(&item.source) {
                    self.out.top_links.push(link.clone());
                }
            }
        }
        for link in self.shared.run_links(self.host)? {
            if item.source.starts_with(&link.real) {
                self.out.top_links.push(link.clone());
            }
        }
        Ok(())
    }

    /// A socket that is reached by a link, such as `/dev/log`: the link and the socket's directory,
    /// which outlives a restart of the daemon. A bound socket file is dead after one.
    fn socket(&mut self, item: Item) -> Result<Item, LookupError> {
        if let Some(directory) = self.directory_of_socket(&item)? {
            return Ok(directory);
        }
        self.out.notes.push(format!(
            "{} is a socket: when its daemon restarts, the jail keeps the dead one; \
             bind its directory instead",
            item.source
        ));
        Ok(item)
    }

    /// The directory to bind in place of the socket, if there is one that can be.
    fn directory_of_socket(&self, socket: &Item) -> Result<Option<Item>, LookupError> {
        let (Some(link), Some(_), Some(directory)) =
            (&socket.leaf, &socket.way, socket.source.parent())
        else {
            return Ok(None);
        };
        if !link_targets::may_be_brought(self.host, &directory)? {
            return Ok(None);
        }

        let cause = Cause::LinkedFrom(link.path.as_path().to_owned());
        let item = Item::at(self.host, &directory, socket.attributes, vec![cause]);
        let Some(mut item) = found(item)? else {
            return Ok(None);
        };
        item.attributes.noexec = true;
        item.attributes.nodev = true;
        if let Some(way) = &mut item.way {
            way.links.push(link.clone());
        }
        Ok(Some(item))
    }

    /// What the configuration file of an item includes.
    fn included(&mut self, path: &HostPath, cause: Cause) -> Result<()> {
        let item = Item::at(self.host, path, MountAttributes::DATA, vec![cause]);
        let item = found(item).map_err(|error| error.error(format!("cannot look at {path}")))?;
        match item {
            Some(item) if item.kind == FileKind::Symlink => Ok(()),
            Some(item) => self.data(item),
            None => Ok(()),
        }
    }

    /// The libraries that the objects in an executable directory need, from outside of it.
    fn objects_in(&mut self, directory: &Item) -> Result<()> {
        let source = &directory.source;
        let cannot = |error: LookupError| error.error(format!("cannot tell what {source} needs"));
        let objects = objects::below(self.host, source, &mut self.out.notes).map_err(cannot)?;
        let loader = self.shared.loader(self.host)?;
        for object in objects {
            let Ok(closure) = loader.closure_of_object(&object) else {
                continue; // it is damaged, or for another machine
            };
            for (path, step, opened) in needed_by(&closure) {
                let is_in = |path: &HostPath| path.starts_with(source);
                let real = found(self.host.walk(&path)).map_err(cannot)?;
                if is_in(&path) || real.is_some_and(|walk| is_in(&walk.real)) {
                    continue;
                }
                let mut chain = directory.chain.clone();
                chain.push(step);
                self.needed(&path, opened, chain)?;
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
    fn code(&mut self, path: &HostPath, cause: Option<&Cause>, missing: Missing) -> Result<()> {
        let chain = Vec::from_iter(cause.cloned());
        let item = self
            .program_item(path, chain)
            .map_err(|error| self.missing(path, &error))?;
        if item.kind != FileKind::File {
            return Err(Error::failed(format!(
                "{path} is a {}, not a program or shared object",
                item.kind
            ))
            .hint("a directory belongs under `mounts`"));
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
            let chain = cause.into_iter().cloned().chain([step]).collect();
            self.needed(&path, opened, chain)?;
        }
        Ok(())
    }

    /// What the loader or the kernel opens for a program.
    fn needed(&mut self, path: &HostPath, opened: Opened, chain: Vec<Cause>) -> Result<()> {
        let item = match opened {
            Opened::Program => self.program_item(path, chain),
            Opened::Object => Item::at(self.host, path, MountAttributes::CODE, chain),
            Opened::Data => Item::at(self.host, path, MountAttributes::DATA, chain),
        };
        let item = item.map_err(|error| self.missing(path, &error))?;
        if item.kind == FileKind::Directory {
            return self.data(item);
        }
        self.out.items.push(item);
        Ok(())
    }

    /// The files that the first alternative stands for that has any. `by_name`: all paths by which
    /// a process finds what has this name.
    fn code_files(
        &mut self,
        wanted: &Wanted<CodeName>,
        by_name: fn(&Self, &str) -> Result<Vec<HostPath>>,
    ) -> Result<Vec<HostPath>> {
        let paths = |name: &CodeName| match name {
            CodeName::Path(pattern) => Some(pattern.clone()),
            CodeName::Name(_) => None,
        };
        if let Some(any_of) = wanted.any_of.iter().map(paths).collect() {
            let optional = wanted.optional;
            return self.matches(&Wanted { any_of, optional });
        }

        for name in &wanted.any_of {
            let found = match name {
                CodeName::Name(name) => by_name(self, name)?,
                CodeName::Path(pattern) if pattern.is_glob() => self.host.glob(pattern.path())?,
                CodeName::Path(pattern) => match self.why_not(pattern.path())? {
                    None => vec![pattern.path().clone()],
                    Some(_) => vec![],
                },
            };
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let names: Vec<_> = wanted.any_of.iter().map(ToString::to_string).collect();
        let none = match names.as_slice() {
            [name] => format!("{name} is not on this host, where it would be looked for"),
            names => format!("none of {} is on this host", names.join(", ")),
        };
        if !wanted.optional {
            return Err(Error::failed(none).hint(MAY_DO_WITHOUT));
        }
        let skipped = format!("{none}; skipped, because it is optional");
        self.out.notes.push(skipped);
        Ok(vec![])
    }

    /// The paths of the program `name` in the default PATH that lead to the file which is found
    /// first: it may also be called by another of them.
    fn program(&self, name: &str) -> Result<Vec<HostPath>> {
        let mut paths = vec![];
        let mut first = None;
        for directory in SEARCH_PATH {
            let path = absolute(directory, name)?;
            let walk = found(self.host.walk(&path)).map_err(|error| self.missing(&path, &error))?;
            let is_program =
                |walk: &Walk| walk.stat.kind == FileKind::File && walk.stat.mode & 0o111 != 0;
            if let Some(walk) = walk.filter(is_program)
                && *first.get_or_insert(walk.stat.file) == walk.stat.file
            {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// The library `name`, as the loader finds it.
    fn library(&self, name: &str) -> Result<Vec<HostPath>> {
        let found = self.shared.loader(self.host)?.library_of_any(name)?;
        Ok(found.into_iter().collect())
    }

    /// The files that the first alternative stands for that has any.
    fn matches(&mut self, wanted: &Wanted<Pattern>) -> Result<Vec<HostPath>> {
        if let [pattern] = wanted.any_of.as_slice()
            && pattern.is_glob()
        {
            return self.matches_of_one(pattern.path(), wanted.optional);
        }

        let mut reasons = vec![];
        for pattern in &wanted.any_of {
            let path = pattern.path();
            if pattern.is_glob() {
                let found = self.host.glob(path)?;
                if !found.is_empty() {
                    return Ok(found);
                }
                reasons.push(LookupError::Missing { at: path.clone() });
            } else if let Some(reason) = self.why_not(path)? {
                reasons.push(reason);
            } else {
                return Ok(vec![path.clone()]);
            }
        }
        let paths: Vec<_> = wanted
            .any_of
            .iter()
            .map(|pattern| pattern.path().clone())
            .collect();
        self.none_of(&paths, &reasons, wanted.optional)?;
        Ok(vec![])
    }

    /// The files that a pattern without alternatives stands for.
    fn matches_of_one(&mut self, pattern: &HostPath, optional: bool) -> Result<Vec<HostPath>> {
        let found = self.host.glob(pattern)?;
        if found.is_empty() {
            let nothing = format!("nothing on this host matches {pattern}");
            if !optional {
                return Err(Error::failed(nothing).hint(MAY_DO_WITHOUT));
            }
            let note = format!("{nothing}; skipped, because it is optional");
            self.out.notes.push(note);
        }
        Ok(found)
    }

    /// The first of `paths` that exists. `None`: none does, and that is noted.
    fn first(&mut self, paths: &[HostPath], optional: bool) -> Result<Option<HostPath>> {
        let mut reasons = vec![];
        for path in paths {
            match self.why_not(path)? {
                None => return Ok(Some(path.clone())),
                Some(reason) => reasons.push(reason),
            }
        }
        self.none_of(paths, &reasons, optional)?;
        Ok(None)
    }

    /// Why `path` is not there; `None`: it is.
    ///
    /// Errors: it is unknown.
    fn why_not(&self, path: &HostPath) -> Result<Option<LookupError>> {
        match self.host.walk(path) {
            Ok(_) => Ok(None),
            Err(error) if error.is_unknown() => Err(self.missing(path, &error)),
            Err(error) => Ok(Some(error)),
        }
    }

    /// A note that none of `paths` is there, or, unless it is optional, an error.
    fn none_of(
        &mut self,
        paths: &[HostPath],
        reasons: &[LookupError],
        optional: bool,
    ) -> Result<()> {
        let names: Vec<_> = paths.iter().map(ToString::to_string).collect();
        let all = names.join(", ");
        match (paths, reasons) {
            ([_], [reason]) if optional => {
                let note = format!("{reason}; skipped, because it is optional");
                self.out.notes.push(note);
            }
            _ if optional => self.out.notes.push(format!(
                "none of {all} is on this host; skipped, because they are optional"
            )),
            ([path], [reason]) => return Err(self.missing(path, reason)),
            _ => {
                return Err(
                    Error::failed(format!("none of these is on this host: {all}"))
                        .hint("name the file that this host has, or say `optional: true`"),
                );
            }
        }
        Ok(())
    }

    fn missing(&self, path: &HostPath, reason: &LookupError) -> Error {
        let error = reason.error(format!("cannot find {path}"));
        match reason {
            LookupError::Missing { at } => match self.near(at) {
                Some(near) => {
                    error.hint(format!("did you mean {near}? Otherwise, {MAY_DO_WITHOUT}"))
                }
                None => error.hint(MAY_DO_WITHOUT),
            },
            LookupError::Strange { .. } => error.hint(
                "find out who made that link; \
                 a directory of that user's own can be named without it",
            ),
            _ if reason.is_missing() => error.hint(MAY_DO_WITHOUT),
            _ => error,
        }
    }

    /// What is beside `missing` with almost the same name.
    fn near(&self, missing: &HostPath) -> Option<HostPath> {
        let directory = missing.parent()?;
        let names = self.host.read_dir(&directory).ok()?;
        let known = names.iter().filter_map(|name| name.to_str());
        let near = nearest(missing.file_name()?.to_str()?, known)?;
        directory.join(near).ok()
    }
}

/// How a file is opened that a program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    /// As a program of its own: the interpreter of a script.
    Program,
    /// By its name: a library, or the loader.
    Object,
    /// A configuration of the loader.
    Data,
}

/// What to do about a library that the loader does not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    IsError,
    IsNoted,
}

/// Whether a program's name is a link to another directory.
fn leads_away(link: &LinkOnTheWay) -> bool {
    let Some(directory) = link.path.parent().filter(|_| link.last) else {
        return false;
    };
    let to = lexical(directory.as_path(), &link.destination);
    to.parent() != Some(directory.as_path())
}

/// Whether links in the directory lead to the same place for long: those in `/proc` lead to
/// whatever processes happen to use.
fn has_lasting_links(directory: &Item) -> bool {
    !["/proc", "/sys"]
        .iter()
        .any(|kernels| directory.source.as_path().starts_with(kernels))
}

/// What a closure names, with the reason.
fn needed_by(closure: &Closure) -> Vec<(HostPath, Cause, Opened)> {
    let owned = |path: &HostPath| path.as_path().to_owned();
    let mut needed = vec![];
    for interpreter in &closure.interpreters {
        let cause = Cause::InterpreterOf(owned(&interpreter.needed_by));
        needed.push((interpreter.path.clone(), cause, Opened::Object));
    }
    for interpreter in &closure.script_interpreters {
        let cause = Cause::InterpreterOf(owned(&interpreter.needed_by));
        needed.push((interpreter.path.clone(), cause, Opened::Program));
    }
    for library in &closure.libraries {
        let cause = Cause::LibraryOf {
            name: library.name.clone(),
            object: owned(&library.needed_by),
        };
        needed.push((library.path.clone(), cause, Opened::Object));
    }
    for path in &closure.loader_configuration {
        needed.push((path.clone(), Cause::LoaderConfiguration, Opened::Data));
    }
    for origin in &closure.origins {
        let cause = Cause::LinkedFrom(owned(&origin.program));
        needed.push((origin.real.clone(), cause, Opened::Object));
    }
    needed
}

fn absolute(base: &str, name: &str) -> Result<HostPath> {
    HostPath::new(format!("{base}/{name}"))
        .map_err(|why| Error::usage(format!("{base}/{name}: {why}")))
}
