//! Directories that many sites show alike. Such a directory is a graft: one recursive mount of a
//! template, which the sites share.
//!
//! In: the mounts and links that a site needs, one by one, and what is in its root. Out: the same
//! with a graft in place of all that a directory shows which the root does not have. What is the
//! site's own in such a directory is mounted into the graft.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use crate::base::{HostPath, JailPath, MountAttributes, SiteName};
use crate::observe::{CreatedKind, CreatedPath, Observed, ObservedMount};
use crate::resolve::{Desired, FileKind, Link, Mount};

/// The number of shared mounts from which on a directory is a graft. With fewer, the graft would be
/// one more mount in place of one less.
const WORTH_A_GRAFT: usize = 2;

/// What a directory shows in all sites that want the same in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Tells apart what templates show: 16 hexadecimal digits, made from all below except for the
    /// reasons.
    pub contents: String,
    /// The directory, as a path in the jail.
    pub at: JailPath,
    /// The mounts in it, sorted by target.
    pub mounts: Vec<Arc<Mount>>,
    /// The links in it, sorted by path.
    pub links: Vec<Link>,
    /// What sites mount their own on, sorted by path: directories and files.
    pub placeholders: Vec<(JailPath, FileKind)>,
}

/// A directory of one site that comes from a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graft {
    /// The mount of the directory. Its source is the directory in the template.
    pub mount: Arc<Mount>,
    /// What it shows.
    pub template: Arc<Template>,
}

/// A site with grafts.
pub(super) struct GraftedSite {
    /// The mounts of the site, with grafts in place of those that come along with them.
    pub desired: Desired,
    pub grafts: Vec<Graft>,
}

/// How sites share mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// The directory of the templates.
    pub templates: HostPath,
    /// Mounts that were made one by one make way for grafts, even if nothing else changes.
    pub renew: bool,
}

/// The fate of mounts of ours where a graft could be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnMounts {
    /// They stay.
    Stay,
    /// A graft covers them.
    MakeWay,
}

/// Puts what `desired` has in directories that the root lacks into grafts. `templates`: the
/// directory of the templates; `None`: everything is mounted one by one.
pub(super) fn layout(
    desired: &Desired,
    observed: &Observed,
    templates: Option<&HostPath>,
    own_mounts: OwnMounts,
) -> GraftedSite {
    let mut layout = GraftedSite {
        desired: desired.clone(),
        grafts: vec![],
    };
    let Some(templates) = templates else {
        return layout;
    };

    let soil = Soil::of(desired, observed, own_mounts);
    for (at, parts) in soil.parts() {
        if parts.shared.len() < WORTH_A_GRAFT && !soil.grafts.contains(&at) {
            continue;
        }
        let template = Template::new(at, parts);
        template.take_from(&mut layout.desired);
        layout.grafts.push(Graft::of(template, templates));
    }

    let mounts = &mut layout.desired.mounts;
    for graft in &layout.grafts {
        mounts.push(Arc::clone(&graft.mount));
    }
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    layout
}

impl Graft {
    /// Whether a mount at `target` comes along with it.
    pub(crate) fn has(&self, target: &JailPath) -> bool {
        has_target(&self.template.mounts, target)
    }

    fn of(template: Template, templates: &HostPath) -> Self {
        let name = template_name(&template.contents);
        let source = templates.inside(&name).inside(&template.at);
        let mount = Mount {
            target: template.at.clone(),
            source,
            file_system: None,
            file: None,
            kind: FileKind::Directory,
            attributes: MountAttributes::DATA,
            recursive: true,
            reasons: vec![],
        };
        Self {
            mount: Arc::new(mount),
            template: Arc::new(template),
        }
    }
}

impl Template {
    fn new(at: JailPath, parts: Parts<'_>) -> Self {
        let mounts: Vec<_> = parts.shared.into_iter().cloned().collect();
        let mut placeholders = vec![];
        for own in &parts.own {
            let mut above = own.target.directories_above().into_iter();
            if above.any(|above| has_target(&mounts, &above)) {
                continue; // it is in a source
            }
            placeholders.push((own.target.clone(), on_which(own.kind)));
        }
        let links: Vec<_> = parts.links.into_iter().cloned().collect();
        Self {
            contents: contents_of(&at, &mounts, &links, &placeholders),
            at,
            mounts,
            links,
            placeholders,
        }
    }

    /// The targets of the mounts.
    pub(super) fn targets(&self) -> BTreeSet<&JailPath> {
        self.mounts.iter().map(|mount| &mount.target).collect()
    }

    /// Takes the mounts and links of the template out of those of a site.
    fn take_from(&self, desired: &mut Desired) {
        desired
            .mounts
            .retain(|mount| !has_target(&self.mounts, &mount.target));
        let links: HashSet<_> = self.links.iter().map(|link| &link.path).collect();
        desired.links.retain(|link| !links.contains(&link.path));
    }

    /// The mounts of the template, as the site `name` in the directory `root`.
    pub fn desired(&self, name: &SiteName, root: &HostPath) -> Desired {
        Desired {
            mounts: self.mounts.clone(),
            links: self.links.clone(),
            placeholders: self.placeholders.clone(),
            ..Desired::nothing(name, root)
        }
    }
}

/// The name of a new template with these contents, as a path.
fn template_name(contents: &str) -> JailPath {
    JailPath::normal(Path::new("/").join(format!("template-{contents}")))
}

/// The type of the placeholder for a mount of this type.
fn on_which(kind: FileKind) -> FileKind {
    match kind {
        FileKind::Directory => FileKind::Directory,
        _ => FileKind::File,
    }
}

/// Tells apart what templates show.
fn contents_of(
    at: &JailPath,
    mounts: &[Arc<Mount>],
    links: &[Link],
    placeholders: &[(JailPath, FileKind)],
) -> String {
    let mut hash = DefaultHasher::new();
    at.hash(&mut hash);
    for mount in mounts {
        (&mount.target, &mount.source, &mount.kind, &mount.attributes).hash(&mut hash);
    }
    for link in links {
        (&link.path, &link.destination).hash(&mut hash);
    }
    placeholders.hash(&mut hash);
    format!("{:016x}", hash.finish())
}

/// The mounts of one site in a directory that can be a graft.
#[derive(Default)]
struct Parts<'d> {
    shared: Vec<&'d Arc<Mount>>,
    own: Vec<&'d Arc<Mount>>,
    links: Vec<&'d Link>,
}

impl Parts<'_> {
    /// Whether `target` is at or in a mount of the site's own.
    fn is_in_an_own_one(&self, target: &JailPath) -> bool {
        self.own.iter().any(|own| target.starts_with(&own.target))
    }
}

/// The directories in a root where grafts could go.
struct Soil<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    /// The targets of the recorded grafts that are there.
    grafts: BTreeSet<&'a JailPath>,
    generated: HashSet<&'a HostPath>,
    own_mounts: OwnMounts,
    /// The directories that were made in the root, if they may be covered: lines of fstab(5) mount
    /// on nothing of them.
    made: Vec<&'a CreatedPath>,
    /// Whether directories are free, once that was asked: most paths share theirs with others.
    free: RefCell<BTreeMap<JailPath, bool>>,
}

impl<'a> Soil<'a> {
    fn of(desired: &'a Desired, observed: &'a Observed, own_mounts: OwnMounts) -> Self {
        let mut grafts = BTreeSet::new();
        for mount in observed.recorded_mounts() {
            if mount.is_graft() && observed.mounts.contains_key(&mount.target) {
                grafts.insert(&mount.target);
            }
        }
        let mut made = vec![];
        if let Some(kept) = &observed.kept
            && kept.fstab.is_none()
        {
            for path in &kept.made {
                if path.kind == CreatedKind::Directory {
                    made.push(path);
                }
            }
        }
        Self {
            desired,
            observed,
            grafts,
            generated: desired.files.iter().map(|file| &file.path).collect(),
            own_mounts,
            made,
            free: RefCell::default(),
        }
    }

    /// The mounts of the site in each directory that can be a graft.
    fn parts(&self) -> BTreeMap<JailPath, Parts<'a>> {
        let mut parts: BTreeMap<JailPath, Parts<'_>> = BTreeMap::new();
        let is_beside = |one: &Arc<Mount>, other: &Arc<Mount>| {
            one.target.as_path().parent() == other.target.as_path().parent()
        };
        for mounts in self.desired.mounts.chunk_by(is_beside) {
            let Some(at) = self.place_of(&mounts[0].target) else {
                continue;
            };
            let parts = parts.entry(at).or_default();
            for mount in mounts {
                if self.is_shared(mount, parts) {
                    parts.shared.push(mount);
                } else {
                    parts.own.push(mount);
                }
            }
        }
        for link in &self.desired.links {
            if let Some(at) = self.place_of(&link.path) {
                parts.entry(at).or_default().links.push(link);
            }
        }
        parts
    }

    /// Whether other sites may have the same mount: it shows a file of the host, read-only, and is
    /// in no mount of the site's own.
    fn is_shared(&self, mount: &Mount, parts: &Parts<'_>) -> bool {
        mount.attributes.read_only
            && !mount.recursive
            && mount.kind != FileKind::Socket
            && mount.file.is_some()
            && !self.generated.contains(&mount.source)
            && !parts.is_in_an_own_one(&mount.target)
    }

    /// The topmost directory above `path` that can be a graft.
    fn place_of(&self, path: &JailPath) -> Option<JailPath> {
        for above in path.directories_above() {
            if has_target(&self.desired.mounts, &above) {
                return None; // it is in a mount
            }
            if self.grafts.contains(&above) || self.is_known_to_be_free(&above) {
                return Some(above);
            }
        }
        None
    }

    fn is_known_to_be_free(&self, directory: &JailPath) -> bool {
        if let Some(known) = self.free.borrow().get(directory) {
            return *known;
        }
        let is_free = self.is_free(directory);
        self.free.borrow_mut().insert(directory.clone(), is_free);
        is_free
    }

    /// Whether the root has nothing at this path, or a directory that mountjail made and in which
    /// there is nothing else than what it made.
    fn is_free(&self, directory: &JailPath) -> bool {
        if self.has_own_directories(directory) || self.has_lasting_mounts(directory) {
            return false;
        }
        if !self.observed.paths.contains_key(directory) {
            return !has_any_in(&self.observed.mounts, directory);
        }
        let mut ours = false;
        for made in &self.made {
            if !made.path.starts_with(directory) {
                continue;
            }
            if !self.is_as_made(made) {
                return false;
            }
            ours |= made.path == *directory;
        }
        ours
    }

    /// Whether the site has directories of its own there.
    fn has_own_directories(&self, directory: &JailPath) -> bool {
        let mut own = self.desired.directories.iter();
        own.any(|own| own.path.starts_with(directory))
    }

    /// Whether there are mounts in the directory that stay where they are.
    fn has_lasting_mounts(&self, directory: &JailPath) -> bool {
        let observed = self.observed;
        for target in paths_in(&observed.mounts, directory) {
            if self.own_mounts == OwnMounts::Stay || !can_be_covered(observed, target) {
                return true;
            }
        }
        has_any_in(&observed.elsewhere, directory) || has_any_in(&observed.holders, directory)
    }

    /// Whether the directory is the one that was made, with nothing else in it than what was made.
    fn is_as_made(&self, made: &CreatedPath) -> bool {
        let Some(seen) = self.observed.paths.get(&made.path) else {
            return true; // it is gone
        };
        if self.observed.mounts.contains_key(&made.path) {
            return true; // a mount of ours is on it
        }
        let is_it = made.file.is_some_and(|file| file.is(&seen.file));
        is_it && seen.kind == FileKind::Directory && seen.empty
    }
}

/// Whether a graft may cover what is mounted at `target`: all of it is ours, was made one by one,
/// and can be found when it is hidden.
fn can_be_covered(observed: &Observed, target: &JailPath) -> bool {
    let has_others_in_it = paths_in(&observed.mounts, target).any(|inside| inside != target);
    if has_others_in_it || observed.unseen.contains_key(target) {
        return false;
    }
    let mut stack = observed.stack(target).iter();
    stack.all(|seen| was_made_alone(observed, target, seen))
}

/// Whether `seen`, a mount at `target`, has a unique ID by which it is recorded, and no other mount
/// came along with it.
fn was_made_alone(observed: &Observed, target: &JailPath, seen: &ObservedMount) -> bool {
    let Some(id) = seen.unique_id else {
        return false;
    };
    for known in observed.recorded_mounts() {
        if known.target == *target && known.unique_id == Some(id) {
            return !known.is_graft() && !known.recursive;
        }
    }
    false
}

/// Whether one of `mounts`, which are sorted by target, is at `target`.
fn has_target(mounts: &[Arc<Mount>], target: &JailPath) -> bool {
    mounts
        .binary_search_by(|mount| mount.target.cmp(target))
        .is_ok()
}

/// The paths at or below `directory`.
fn paths_in<'m, V>(
    map: &'m BTreeMap<JailPath, V>,
    directory: &'m JailPath,
) -> impl Iterator<Item = &'m JailPath> {
    let from = map.range(directory..).map(|(path, _)| path);
    from.take_while(|path| path.starts_with(directory))
}

fn has_any_in<V>(map: &BTreeMap<JailPath, V>, directory: &JailPath) -> bool {
    paths_in(map, directory).next().is_some()
}
