//! Manifest + host → [`Desired`]: every path that a process in the jail will look up leads to the
//! same file as on the host.
//!
//! In: a [`Manifest`](crate::manifest::Manifest), the host's files, what stands in the root. Out:
//! the mounts, links and generated files that the site needs on this host now, sorted and
//! deterministic, each with the reason it is there. It reads; it never writes, mounts or executes
//! anything.

mod builder;
mod dedup;
mod dependencies;
mod desired;
mod expand;
mod host;
pub mod ldso;
mod link_targets;
mod nested;
mod nss;
mod others;
mod pattern;
mod place;
mod restrictions;
mod root;
mod roots;
mod template;
mod users;
mod walk;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::base::{HostPath, JailPath};
use crate::manifest::{Entry, Manifest, Origin, Request, SourceFile};
use crate::{Error, Result, sys};

pub(crate) use nss::services as name_services;

pub use crate::base::MountAttributes;
pub use dependencies::{Aspect, Dependencies};
pub use desired::{Cause, Desired, FileId, FileKind, GeneratedFile, Link, Mount, Note, Reason};
pub use host::Host;
pub use ldso::interpreter_of;
pub use link_targets::may_be_brought;
pub use others::Others;
pub use root::{create_root, refuse_system, root_id};
pub use roots::{Overlap, Roots};
pub(crate) use walk::found;
pub use walk::{LinkOnTheWay, LookupError, Walk};

use expand::Part;
pub(crate) use expand::lexical;
use root::Checked;
use template::Gathered;
pub(crate) use users::WHERE as WHERE_USERS_ARE;

/// Resolves sites on one host. What several sites ask for is looked up once.
pub struct Resolver {
    host: Host,
    /// The directory in which generated files are kept.
    generated: HostPath,
    parts: Mutex<HashMap<Request, Expanded>>,
    /// What is not found out yet, only those wait for who ask for it.
    gathered: Mutex<HashMap<Vec<EntryId>, Arc<OnceLock<Gatherings>>>>,
}

/// What one request brings, and what that depends on.
type Expanded = (Result<Arc<Part>>, Arc<Dependencies>);

/// What several bring, as far as they can be resolved; why some cannot; and what that depends on.
type Gatherings = (Arc<Gathered>, Arc<[Error]>, Arc<[Arc<Dependencies>]>);

/// What a preset brings by itself.
#[derive(Clone, Debug)]
pub struct ResolvedPreset {
    /// The mounts, sorted by target.
    pub mounts: Vec<Arc<Mount>>,
    /// The links on the way.
    pub links: Vec<Link>,
    /// What was left out and why.
    pub notes: Vec<Note>,
}

/// An entry by its address; whoever keeps one keeps the entry as well.
#[derive(Clone, Debug)]
struct EntryId(Arc<Entry>);

impl PartialEq for EntryId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for EntryId {}

impl std::hash::Hash for EntryId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::ptr::hash(Arc::as_ptr(&self.0), state);
    }
}

impl Resolver {
    /// A resolver for `host`; generated files are to be written in the directory `generated`.
    pub fn new(host: &Host, generated: HostPath) -> Self {
        Self {
            host: host.scope(),
            generated,
            parts: Mutex::default(),
            gathered: Mutex::default(),
        }
    }

    /// Everything that `manifest` needs on this host now; `roots` are those of all sites.
    ///
    /// Errors: all that is wrong, each naming the line it comes from.
    pub fn resolve(&self, manifest: &Manifest, roots: &Roots) -> Result<Desired, Vec<Error>> {
        self.resolve_and_tell(manifest, roots).0
    }

    /// As [`Resolver::resolve`]; besides, what the result depends on, also if it is an error. The
    /// lookups of what sites have in common are common to them. They are empty unless the host is
    /// one that is [`Host::tracked`].
    pub fn resolve_and_tell(
        &self,
        manifest: &Manifest,
        roots: &Roots,
    ) -> (Result<Desired, Vec<Error>>, Vec<Arc<Dependencies>>) {
        let (desired, errors, lookups) = self.resolve_in_part(manifest, roots);
        (desired.filter(|_| errors.is_empty()).ok_or(errors), lookups)
    }

    /// As [`Resolver::resolve_and_tell`]; but what can be resolved is there although there are
    /// errors: lines with an error bring nothing. `None`: not even the root is known.
    pub fn resolve_in_part(
        &self,
        manifest: &Manifest,
        roots: &Roots,
    ) -> (Option<Desired>, Vec<Error>, Vec<Arc<Dependencies>>) {
        let host = self.host.scope();
        let (gathered, wrong, common) = self.gather(&manifest.entries);
        let mut errors: Vec<_> = wrong.iter().cloned().collect();
        let root = root::check(&host, manifest, roots);
        let root = root.map_err(|error| errors.insert(0, error)).ok();
        let mut more = vec![];
        let desired =
            root.and_then(|root| self.with_root(&host, manifest, root, &gathered, &mut more));
        if errors.is_empty() {
            errors = more; // else these may be because of those
        }
        let own = Arc::new(host.into_lookups());
        let lookups = common
            .iter()
            .cloned()
            .chain([own])
            .filter(|lookups| !lookups.is_empty())
            .collect();
        let errors = errors
            .into_iter()
            .map(|error| error.context(&manifest.site))
            .collect();
        (desired, errors, lookups)
    }

    fn with_root(
        &self,
        host: &Host,
        manifest: &Manifest,
        root: Checked,
        gathered: &Gathered,
        errors: &mut Vec<Error>,
    ) -> Option<Desired> {
        let template = gathered
            .template(host, &root.path)
            .map_err(|more| errors.extend(more))
            .ok()?;
        let mut desired = Desired {
            site: manifest.site.clone(),
            root: root.path,
            manifest: match &manifest.file {
                SourceFile::File(file) => Some(file.clone()),
                SourceFile::BuiltIn(_) => None,
            },
            mounts: template.mounts.clone(),
            links: template.links.clone(),
            files: vec![],
            notes: gathered
                .notes
                .iter()
                .chain(&template.notes)
                .cloned()
                .collect(),
            warnings: root.warnings,
        };
        errors.extend(self.add_users(host, &mut desired, gathered).err());
        errors.extend(root::contains_a_source(&desired));
        Some(desired)
    }

    /// What `entries`, those of a preset, bring on this host, in a root that is empty.
    pub fn resolve_preset(&self, entries: &[Arc<Entry>]) -> Result<ResolvedPreset, Vec<Error>> {
        let (gathered, errors, _) = self.gather(entries);
        if !errors.is_empty() {
            return Err(errors.to_vec());
        }
        let template = gathered.template_for(&self.host, &[])?;
        Ok(ResolvedPreset {
            mounts: template.mounts.clone(),
            links: template.links.clone(),
            notes: gathered
                .notes
                .iter()
                .chain(&template.notes)
                .cloned()
                .collect(),
        })
    }

    /// What all entries bring together. Remembered where only presets ask: sites share these.
    fn gather(&self, entries: &[Arc<Entry>]) -> Gatherings {
        let shared = entries.iter().all(|entry| !entry.origin.presets.is_empty());
        if !shared {
            return self.gather_new(entries);
        }
        let key: Vec<_> = entries.iter().cloned().map(EntryId).collect();
        let cell = {
            let mut known = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(key).or_default().clone()
        };
        cell.get_or_init(|| self.gather_new(entries)).clone()
    }

    fn gather_new(&self, entries: &[Arc<Entry>]) -> Gatherings {
        let mut gathered = Gathered::default();
        let (mut errors, mut all) = (vec![], vec![]);
        for entry in entries {
            let (part, lookups) = self.part(&entry.request);
            match part {
                Ok(part) => gathered.add(&entry.origin, part),
                Err(error) => errors.push(error.context(&entry.origin)),
            }
            all.push(lookups);
        }
        (Arc::new(gathered), errors.into(), all.into())
    }

    fn part(&self, request: &Request) -> Expanded {
        let lock = || self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(request) {
            return known.clone();
        }
        let host = self.host.scope();
        let part = expand::expand(&host, request).map(Arc::new);
        let expanded = (part, Arc::new(host.into_lookups()));
        lock().entry(request.clone()).or_insert(expanded).clone()
    }

    /// The generated passwd and group.
    fn add_users(&self, host: &Host, desired: &mut Desired, gathered: &Gathered) -> Result<()> {
        let Some((_, origin)) = gathered.users.first() else {
            return Ok(());
        };
        let names: Vec<_> = gathered
            .users
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        let accounts = host
            .accounts()
            .map_err(|error| error.error("cannot read the host's users and groups"))?;
        let (passwd, group) = accounts.files(host, &names)?;
        if let Some(etc) = desired
            .mounts
            .iter()
            .find(|mount| mount.target.as_path() == Path::new("/etc"))
        {
            let text = nested::in_the_way(Path::new("/etc/passwd"), 1, &etc.target);
            desired.notes.push(Note {
                origin: origin.clone(),
                text,
                always: true,
            });
        }
        for (name, contents) in [("passwd", passwd), ("group", group)] {
            let bad =
                |why| Error::usage(format!("cannot name the file for {name}")).because_of(why);
            let path = self
                .generated
                .join(format!("{}.{name}", desired.site))
                .map_err(bad)?;
            let target = JailPath::new(format!("/etc/{name}")).map_err(bad)?;
            if let Some(other) = desired.mounts.iter().find(|mount| mount.target == target) {
                return Err(builder::conflict(
                    &target,
                    &other.source,
                    &other.reasons,
                    &path,
                    origin,
                ));
            }
            desired.mounts.push(Arc::new(generated_mount(
                host, &target, &path, &contents, gathered,
            )?));
            desired.files.push(GeneratedFile { path, contents });
        }
        desired.mounts.sort_by(|a, b| a.target.cmp(&b.target));
        desired.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }
}

fn generated_mount(
    host: &Host,
    target: &JailPath,
    path: &HostPath,
    contents: &[u8],
    gathered: &Gathered,
) -> Result<Mount> {
    let cannot = |reason: &io::Error| Error::failed(format!("cannot read {path}")).because(reason);
    let there = host.now(path).map_err(|error| cannot(&error.into()))?;
    let file = match there.filter(|there| there.stat.kind == FileKind::File) {
        Some(there) => {
            let limit = contents.len() as u64;
            let is_current = match sys::read_regular(path.as_path(), limit) {
                Ok(found) => found == contents,
                Err(error) if error.raw_os_error() == Some(libc::EFBIG) => false,
                Err(error) => return Err(cannot(&error)),
            };
            is_current.then_some(there.stat.file)
        }
        None => None,
    };
    let reason = |(_, origin): &(String, Arc<Origin>)| Reason {
        origin: origin.clone(),
        chain: vec![Cause::Users],
    };
    Ok(Mount {
        target: target.clone(),
        source: path.clone(),
        file,
        kind: FileKind::File,
        options: MountAttributes::DATA,
        recursive: false,
        reasons: gathered.users.iter().map(reason).collect(),
    })
}
