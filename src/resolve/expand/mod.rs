//! One request → what it brings on this host, whatever site asks for it.

mod code;
mod expander;
mod names;

use self::code::Missing;
use self::expander::{ExpandResult, Expander};
use self::names::absolute;
use super::desired::{Cause, FileKind};
use super::host::Host;
use super::item::Item;
use super::lookup_error::{LookupError, found};
use super::made::Made;
use super::shared::Shared;
use super::users::WHERE;
use super::{includes, link_targets, nss};
use crate::Error;
use crate::base::{ErrorContext, HostPath, MountAttributes};
use crate::manifest::{Access, CodeName, MountRequest, Request, Wanted};

pub(super) use expander::{ExpandError, Expansion};

/// The items that `request` brings.
pub(super) fn expand(host: &Host, shared: &Shared, request: &Request) -> ExpandResult<Expansion> {
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

impl Expander<'_> {
    /// `devices` and `etc`.
    fn names(
        &mut self,
        wanted: &Wanted<String>,
        base: &str,
        attributes: MountAttributes,
    ) -> ExpandResult<()> {
        let mut paths = vec![];
        for name in &wanted.any_of {
            paths.push(absolute(base, name)?);
        }
        let Some(path) = self.first(&paths, wanted.optional)? else {
            return Ok(());
        };
        let item = self.found(path, Item::at(self.host, path, attributes, vec![]))?;
        self.data(item)
    }

    fn user(&mut self, wanted: &Wanted<String>) -> ExpandResult<()> {
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
                .hint("create the user, or take the line out")
                .into())
        } else {
            Err(Error::failed(format!("none of the users {all} is {WHERE}"))
                .hint("create one of them, or take the line out")
                .into())
        }
    }

    fn name_service(&mut self, database: &str) -> ExpandResult<()> {
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

    /// The directory in which the daemon of a module listens, if this host has it.
    fn back_end(&mut self, directory: &str, cause: &Cause) -> ExpandResult<()> {
        let Ok(path) = HostPath::new(directory) else {
            return Ok(());
        };
        let item = Item::at(self.host, &path, MountAttributes::DATA, vec![cause.clone()]);
        let item = found(item).context(format_args!("cannot look at {path}"))?;
        match item {
            Some(item) if item.kind == FileKind::Directory => self.data(item),
            _ => Ok(()),
        }
    }

    fn mount(&mut self, request: &MountRequest) -> ExpandResult<()> {
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
        let sources: Vec<_> = request.sources.any_of.iter().collect();
        for path in self.matches(&sources, request.sources.optional)? {
            let item = match &request.target {
                None => Item::at(self.host, &path, attributes, vec![]),
                Some(target) => Item::with_target(self.host, &path, target.clone(), attributes),
            };
            let mut item = self.found(&path, item)?;
            item.fixed = attributes != MountAttributes::DATA;
            item.recursive = request.recursive && item.kind == FileKind::Directory;
            self.data(item)?;
        }
        Ok(())
    }

    /// The item, and, if it is a directory, what links inside it lead to.
    fn data(&mut self, item: Item) -> ExpandResult<()> {
        if item.kind == FileKind::Symlink {
            return Err(Error::failed(format!("{} leads to no file", item.source)).into());
        }
        let source = item.source.clone();
        let cannot = format_args!("cannot tell what {source} needs");
        if item.kind == FileKind::Socket {
            let item = self.socket(item).context(cannot)?;
            self.out.items.push(item);
            return Ok(());
        }

        if item.kind == FileKind::Directory && item.attributes.read_only && has_lasting_links(&item)
        {
            let brought = link_targets::bring(self.host, &item).context(cannot)?;
            self.out.items.extend(brought.items);
            self.out.notes.extend(brought.notes);
        }
        if item.kind == FileKind::Directory && item.attributes.read_only && !item.attributes.noexec
        {
            self.objects_in(&item)?;
        }
        for (path, cause) in includes::of(self.host, &item).context(cannot)? {
            match cause {
                Cause::ModuleOf(_) => self.module(&path, &cause)?,
                _ => self.included(&path, cause)?,
            }
        }
        if item.path.as_path() == item.source.as_path() {
            self.add_top_links(&item).context(cannot)?;
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

    /// A file that the configuration file of an item includes.
    fn included(&mut self, path: &HostPath, cause: Cause) -> ExpandResult<()> {
        let item = Item::at(self.host, path, MountAttributes::DATA, vec![cause]);
        let item = found(item).context(format_args!("cannot look at {path}"))?;
        match item {
            Some(item) if item.kind == FileKind::Symlink => Ok(()),
            Some(item) => self.data(item),
            None => Ok(()),
        }
    }
}

fn is_pattern(name: &CodeName) -> bool {
    match name {
        CodeName::Path(pattern) => pattern.is_glob(),
        CodeName::Name(_) => false,
    }
}

/// Whether links in the directory lead to the same place for long: those in `/proc` lead to
/// whatever processes happen to use.
fn has_lasting_links(directory: &Item) -> bool {
    !["/proc", "/sys"]
        .iter()
        .any(|kernels| directory.source.as_path().starts_with(kernels))
}
