//! One request → what it brings on this host, whatever site asks for it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::desired::{Cause, FileId, FileKind};
use super::host::{Host, TopLink};
use super::ldso::{Closure, Loader};
use super::users::WHERE;
use super::walk::{LinkOnTheWay, LookupError, Walk, found};
use super::{link_targets, nss};
use crate::base::{HostPath, JailPath, MountAttributes};
use crate::manifest::{Access, MountRequest, Origin, Pattern, Request, SourceFile, Wanted};
use crate::{Error, Result};

/// What to do about a file that this host does not have.
const MAY_DO_WITHOUT: &str = "if this host may do without it, say `optional: true`";

/// One file or directory that shall be found in the jail.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The name by which the jail looks it up.
    pub path: JailPath,
    /// The host's directory links on the way to `path`, and where its directory really is; `None`:
    /// the manifest names a target of its own, so the host's links do not count.
    pub way: Option<Way>,
    /// The real file.
    pub source: HostPath,
    pub file: FileId,
    pub kind: FileKind,
    /// As asked for.
    pub options: MountAttributes,
    /// The attributes of the host's mount that `source` lies on; all of them where nothing is asked
    /// for that one could forbid.
    pub host: MountAttributes,
    /// The manifest says so, in place of the class.
    pub fixed: bool,
    pub recursive: bool,
    /// The one link that `path` itself is, if it leads straight to `source`.
    pub leaf: Option<LinkOnTheWay>,
    pub chain: Vec<Cause>,
}

/// How the host comes to the directory that holds a path.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub links: Vec<LinkOnTheWay>,
    pub directory: HostPath,
}

/// All that a request brings.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub items: Vec<Item>,
    /// Links that no line names: those in `/` that lead to a directory of the items or into it, and
    /// by which else items are known.
    pub tops: Vec<TopLink>,
    /// A login name for the generated passwd.
    pub user: Option<String>,
    /// What was left out and why.
    pub notes: Vec<String>,
}

/// What `request` brings.
pub(super) fn expand(host: &Host, request: &Request) -> Result<Part> {
    let mut part = Part::default();
    match request {
        Request::Device(wanted) => part.names(host, wanted, "/dev", MountAttributes::DEVICE)?,
        Request::Etc(wanted) => part.names(host, wanted, "/etc", MountAttributes::DATA)?,
        Request::Program(wanted) | Request::Library(wanted) => {
            for path in part.matches(host, wanted)? {
                part.code(host, &path)?;
            }
        }
        Request::User(wanted) => part.login(host, wanted)?,
        Request::NameService(database) => {
            for (service, path) in nss::modules(host, database)? {
                let cause = Cause::NameService {
                    database: database.clone(),
                    service,
                };
                part.code_because(host, &path, Some(&cause))?;
            }
        }
        Request::Mount(request) => part.mount(host, request)?,
    }
    Ok(part)
}

impl Item {
    /// What the jail has to find at `path`, the host's own name for it.
    pub(super) fn at(
        host: &Host,
        path: &HostPath,
        options: MountAttributes,
        chain: Vec<Cause>,
    ) -> Result<Self, LookupError> {
        Self::named(
            host,
            path,
            JailPath::new(path.as_path()).unwrap_or_else(|_| JailPath::slash()),
            options,
            chain,
        )
    }

    /// What stands at `source` on the host, for the jail at `name`, which is the host's name as
    /// well.
    pub(super) fn named(
        host: &Host,
        source: &HostPath,
        name: JailPath,
        options: MountAttributes,
        chain: Vec<Cause>,
    ) -> Result<Self, LookupError> {
        let walk = host.walk(source)?;
        let way = match name.on_host().parent() {
            Some(directory) => found(host.walk(&directory))?.map(|walk| Way {
                links: walk.links,
                directory: walk.real,
            }),
            None => None,
        };
        Self::of(host, walk, name, way, options, chain)
    }

    fn of(
        host: &Host,
        walk: Walk,
        path: JailPath,
        way: Option<Way>,
        options: MountAttributes,
        chain: Vec<Cause>,
    ) -> Result<Self, LookupError> {
        host.refuse_strange_links(&walk)?;
        let (file, kind) = (walk.stat.file, walk.stat.kind);
        let leaf = walk
            .links
            .last()
            .filter(|link| leads_straight(link, &walk.real))
            .cloned();
        let host = if options.within(MountAttributes::DATA) == options {
            MountAttributes::DATA
        } else {
            host.mount_options(&walk.real, &walk.stat)?
        };
        Ok(Self {
            path,
            way,
            source: walk.real,
            file,
            kind,
            options,
            host,
            fixed: false,
            recursive: false,
            leaf,
            chain,
        })
    }

    /// The attributes that its mount gets.
    pub(super) fn effective(&self) -> MountAttributes {
        self.options.within(self.host)
    }

    /// The same as the line at `origin` asks for it: what an administrator says of a mount counts
    /// more than what the host's mount forbids, what comes along with it and what a built-in preset
    /// says does not.
    pub(super) fn asked_at(&self, origin: &Origin) -> Cow<'_, Self> {
        let said =
            self.fixed && self.chain.is_empty() && matches!(origin.file, SourceFile::File(_));
        if said {
            Cow::Owned(Self {
                host: MountAttributes::OPEN,
                ..self.clone()
            })
        } else {
            Cow::Borrowed(self)
        }
    }
}

impl Part {
    /// `devices` and `etc`.
    fn names(
        &mut self,
        host: &Host,
        wanted: &Wanted<String>,
        base: &str,
        options: MountAttributes,
    ) -> Result<()> {
        let paths = wanted
            .any_of
            .iter()
            .map(|name| absolute(base, name))
            .collect::<Result<Vec<_>>>()?;
        let Some(path) = self.first(host, &paths, wanted.optional)? else {
            return Ok(());
        };
        self.data(
            host,
            Item::at(host, &path, options, vec![]).map_err(|error| missing(host, &path, &error))?,
        )
    }

    /// The item, and, if it is a directory, what links inside it lead to.
    fn data(&mut self, host: &Host, item: Item) -> Result<()> {
        if item.kind == FileKind::Symlink {
            return Err(Error::failed(format!("{} leads to no file", item.source)));
        }
        let source = item.source.clone();
        let cannot = |error: LookupError| error.error(format!("cannot tell what {source} needs"));
        if item.kind == FileKind::Socket {
            let item = self.socket(host, item).map_err(cannot)?;
            self.items.push(item);
            return Ok(());
        }
        // Links in /proc lead to whatever processes happen to use.
        let lasting = !["/proc", "/sys"]
            .iter()
            .any(|kernels| item.source.as_path().starts_with(kernels));
        if item.kind == FileKind::Directory && item.options.read_only && lasting {
            let brought = link_targets::bring(host, &item).map_err(cannot)?;
            self.items.extend(brought.items);
            self.notes.extend(brought.notes);
        }
        if item.path.as_path() == item.source.as_path() {
            let directory = item.kind == FileKind::Directory;
            let (tops, runs) = (
                host.top_links().map_err(cannot)?,
                host.run_links().map_err(cannot)?,
            );
            let into = tops
                .iter()
                .filter(|link| directory && link.real.starts_with(&item.source));
            let known_by = runs
                .iter()
                .filter(|link| item.source.starts_with(&link.real));
            self.tops.extend(into.chain(known_by).cloned());
        }
        self.items.push(item);
        Ok(())
    }

    /// A socket that is reached by a link, such as `/dev/log`: the link and the socket's directory,
    /// which outlives a restart of the daemon. A bound socket file is dead after one.
    fn socket(&mut self, host: &Host, item: Item) -> Result<Item, LookupError> {
        let link = item.leaf.clone().filter(|_| item.way.is_some());
        if let (Some(link), Some(directory)) = (link, item.source.parent())
            && link_targets::may_be_brought(host, &directory)?
        {
            let cause = Cause::LinkedFrom(link.path.as_path().to_owned());
            if let Some(mut through) = found(Item::at(host, &directory, item.options, vec![cause]))?
            {
                through.options.noexec = true;
                through.options.nodev = true;
                if let Some(way) = &mut through.way {
                    way.links.push(link);
                }
                return Ok(through);
            }
        }
        self.notes.push(format!(
            "{} is a socket: when its daemon restarts, the jail keeps the dead one; bind its directory instead",
            item.source
        ));
        Ok(item)
    }

    fn login(&mut self, host: &Host, wanted: &Wanted<String>) -> Result<()> {
        let accounts = host
            .accounts()
            .map_err(|error| error.error("cannot read the host's users and groups"))?;
        for name in &wanted.any_of {
            if self.user.is_none() && accounts.knows(host, name)? {
                self.user = Some(name.clone());
            }
        }
        match (&self.user, wanted.any_of.as_slice()) {
            (Some(_), _) => {}
            (None, [one]) if wanted.optional => {
                self.notes.push(format!(
                    "there is no user {one} {WHERE}; skipped, because it is optional"
                ));
            }
            (None, several) if wanted.optional => self.notes.push(format!(
                "there is none of the users {} {WHERE}; skipped, because they are optional",
                several.join(", ")
            )),
            (None, [one]) => {
                return Err(Error::failed(format!("there is no user {one} {WHERE}"))
                    .hint("create the user, or take the line out"));
            }
            (None, several) => {
                return Err(Error::failed(format!(
                    "none of the users {} is {WHERE}",
                    several.join(", ")
                )));
            }
        }
        Ok(())
    }

    fn mount(&mut self, host: &Host, request: &MountRequest) -> Result<()> {
        let base = MountAttributes {
            read_only: request.access == Access::ReadOnly,
            ..MountAttributes::DATA
        };
        let options = MountAttributes {
            noexec: !request.executable.unwrap_or(!base.noexec),
            nodev: !request.devices.unwrap_or(!base.nodev),
            nosuid: !request.setuid.unwrap_or(!base.nosuid),
            ..base
        };
        for path in self.matches(host, &request.sources)? {
            let found = |error| missing(host, &path, &error);
            let mut item = match &request.target {
                None => Item::at(host, &path, options, vec![]).map_err(found)?,
                Some(target) => {
                    let walk = host.walk(&path).map_err(found)?;
                    Item::of(host, walk, target.clone(), None, options, vec![]).map_err(found)?
                }
            };
            item.fixed = options != MountAttributes::DATA;
            item.recursive = request.recursive && item.kind == FileKind::Directory;
            self.data(host, item)?;
        }
        Ok(())
    }

    fn code(&mut self, host: &Host, path: &HostPath) -> Result<()> {
        self.code_because(host, path, None)
    }

    /// A program or shared object with everything that the loader opens for it.
    fn code_because(&mut self, host: &Host, path: &HostPath, cause: Option<&Cause>) -> Result<()> {
        let item = Item::at(
            host,
            path,
            MountAttributes::CODE,
            cause.into_iter().cloned().collect(),
        )
        .map_err(|error| missing(host, path, &error))?;
        if item.kind != FileKind::File {
            return Err(Error::failed(format!(
                "{path} is a {}, not a program or shared object",
                item.kind
            ))
            .hint("a directory belongs under `mounts`"));
        }
        self.items.push(item);
        let loader = Loader::read(host)?;
        let closure = loader.closure(path)?;
        loader.refuse_private(path, &closure)?;
        for (path, step) in needs(&closure) {
            let options = if step == Cause::LoaderConfiguration {
                MountAttributes::DATA
            } else {
                MountAttributes::CODE
            };
            let chain = cause.into_iter().cloned().chain([step]).collect();
            match Item::at(host, &path, options, chain) {
                Ok(item) if item.kind == FileKind::Directory => self.data(host, item)?,
                Ok(item) => self.items.push(item),
                Err(error) => return Err(missing(host, &path, &error)),
            }
        }
        Ok(())
    }

    /// The first of `paths` that exists. `None`: none does, which is no error, and is noted.
    fn first(
        &mut self,
        host: &Host,
        paths: &[HostPath],
        optional: bool,
    ) -> Result<Option<HostPath>> {
        let mut refusals = vec![];
        for path in paths {
            match host.walk(path) {
                Ok(_) => return Ok(Some(path.clone())),
                Err(error) if error.is_unknown() => return Err(missing(host, path, &error)),
                Err(error) => refusals.push(error),
            }
        }
        self.none_of(host, paths, &refusals, optional)
            .map(|()| None)
    }

    fn none_of(
        &mut self,
        host: &Host,
        paths: &[HostPath],
        refusals: &[LookupError],
        optional: bool,
    ) -> Result<()> {
        let all = paths
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        match (paths, refusals) {
            ([_], [error]) if optional => {
                self.notes
                    .push(format!("{error}; skipped, because it is optional"));
                Ok(())
            }
            _ if optional => {
                self.notes.push(format!(
                    "none of {all} is on this host; skipped, because they are optional"
                ));
                Ok(())
            }
            ([path], [error]) => Err(missing(host, path, error)),
            _ => Err(
                Error::failed(format!("none of these is on this host: {all}"))
                    .hint("name the file that this host has, or say `optional: true`"),
            ),
        }
    }

    /// The files that the first alternative with any stands for.
    fn matches(&mut self, host: &Host, wanted: &Wanted<Pattern>) -> Result<Vec<HostPath>> {
        let mut refusals = vec![];
        if let [pattern] = wanted.any_of.as_slice()
            && pattern.is_glob()
        {
            let found = host.glob(pattern.path())?;
            let nothing = format!("nothing on this host matches {}", pattern.path());
            match (found.is_empty(), wanted.optional) {
                (false, _) => {}
                (true, true) => self
                    .notes
                    .push(format!("{nothing}; skipped, because it is optional")),
                (true, false) => return Err(Error::failed(nothing).hint(MAY_DO_WITHOUT)),
            }
            return Ok(found);
        }
        for pattern in &wanted.any_of {
            if pattern.is_glob() {
                let found = host.glob(pattern.path())?;
                if !found.is_empty() {
                    return Ok(found);
                }
                refusals.push(LookupError::Missing {
                    at: pattern.path().clone(),
                });
            } else {
                match host.walk(pattern.path()) {
                    Ok(_) => return Ok(vec![pattern.path().clone()]),
                    Err(error) if error.is_unknown() => {
                        return Err(missing(host, pattern.path(), &error));
                    }
                    Err(error) => refusals.push(error),
                }
            }
        }
        let paths: Vec<_> = wanted
            .any_of
            .iter()
            .map(|pattern| pattern.path().clone())
            .collect();
        self.none_of(host, &paths, &refusals, wanted.optional)
            .map(|()| vec![])
    }
}

/// Whether a link stands for a file itself, and no other link comes after it.
fn leads_straight(link: &LinkOnTheWay, real: &HostPath) -> bool {
    let directory = link.path.as_path().parent().unwrap_or(Path::new("/"));
    link.last && lexical(directory, &link.text) == real.as_path()
}

/// What a closure names, with the reason.
fn needs(closure: &Closure) -> Vec<(HostPath, Cause)> {
    let buf = |path: &HostPath| path.as_path().to_owned();
    let interpreters = closure
        .interpreters
        .iter()
        .map(|i| (i.path.clone(), Cause::InterpreterOf(buf(&i.needed_by))));
    let scripts = closure
        .script_interpreters
        .iter()
        .map(|i| (i.path.clone(), Cause::InterpreterOf(buf(&i.needed_by))));
    let libraries = closure.libraries.iter().map(|library| {
        let cause = Cause::LibraryOf {
            name: library.name.clone(),
            object: buf(&library.needed_by),
        };
        (library.path.clone(), cause)
    });
    let configuration = closure
        .loader_configuration
        .iter()
        .map(|path| (path.clone(), Cause::LoaderConfiguration));
    let origins = closure
        .origins
        .iter()
        .map(|o| (o.real.clone(), Cause::LinkedFrom(buf(&o.program))));
    interpreters
        .chain(scripts)
        .chain(libraries)
        .chain(configuration)
        .chain(origins)
        .collect()
}

fn missing(host: &Host, path: &HostPath, error: &LookupError) -> Error {
    let message = error.error(format!("cannot find {path}"));
    match error {
        LookupError::Missing { at } => match near(host, at) {
            Some(near) => message.hint(format!("did you mean {near}? Otherwise, {MAY_DO_WITHOUT}")),
            None => message.hint(MAY_DO_WITHOUT),
        },
        LookupError::Strange { .. } => message.hint(
            "find out who made that link; a directory of that user's own can be named without it",
        ),
        _ if error.is_missing() => message.hint(MAY_DO_WITHOUT),
        _ => message,
    }
}

/// What stands beside `missing` with a name that is hardly different.
fn near(host: &Host, missing: &HostPath) -> Option<HostPath> {
    let (directory, wanted) = (missing.parent()?, missing.file_name()?.to_str()?);
    let distance =
        |name: &OsString| strsim::damerau_levenshtein(name.to_str().unwrap_or_default(), wanted);
    let names = host.read_dir(&directory).ok()?;
    let nearest = names.iter().min_by_key(|name| distance(name))?;
    let far = distance(nearest) > if wanted.len() < 5 { 1 } else { 2 };
    if far {
        None
    } else {
        directory.join(nearest).ok()
    }
}

fn absolute(base: &str, name: &str) -> Result<HostPath> {
    HostPath::new(format!("{base}/{name}"))
        .map_err(|why| Error::usage(format!("{base}/{name}: {why}")))
}

/// `text` as a link in the directory `at` means it, by its letters alone.
pub(crate) fn lexical(at: &Path, text: &Path) -> PathBuf {
    let mut path = if text.is_absolute() {
        PathBuf::from("/")
    } else {
        at.to_owned()
    };
    for component in text.components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path
}
