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

/// What a step changes in a graft, as a site sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraftChange {
    /// What the graft shows afterwards.
    pub template: Arc<Template>,
    /// The mounts that come.
    pub attach: Vec<Arc<Mount>>,
    /// The mounts that are replaced.
    pub swap: Vec<Arc<Mount>>,
    /// The targets of the mounts that go.
    pub detach: Vec<JailPath>,
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
    Stays,
    /// A graft covers them.
    MakesWay,
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
        let template = Template::new(at, &parts);
        let in_it: HashSet<_> = template.mounts.iter().map(|mount| &mount.target).collect();
        layout
            .desired
            .mounts
            .retain(|mount| !in_it.contains(&mount.target));
        let links: HashSet<_> = template.links.iter().map(|link| &link.path).collect();
        layout
            .desired
            .links
            .retain(|link| !links.contains(&link.path));
        layout.grafts.push(Graft::of(template, templates));
    }

    let grafts = layout.grafts.iter().map(|graft| graft.mount.clone());
    layout.desired.mounts.extend(grafts);
    layout
        .desired
        .mounts
        .sort_by(|a, b| a.target.cmp(&b.target));
    layout
}

impl Graft {
    /// Whether a mount at `target` comes along with it.
    pub(crate) fn has(&self, target: &JailPath) -> bool {
        self.template
            .mounts
            .iter()
            .any(|mount| mount.target == *target)
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
    fn new(at: JailPath, parts: &Parts<'_>) -> Self {
        let placeholder = |mount: &&Arc<Mount>| (mount.target.clone(), on_which(mount.kind));
        let mounts: Vec<_> = parts.shared.iter().map(|mount| Arc::clone(mount)).collect();
        let targets: BTreeSet<_> = mounts.iter().map(|mount| &mount.target).collect();
        let own = parts.own.iter().filter(|own| {
            let above = own.target.directories_above();
            !above.iter().any(|above| targets.contains(above)) // it is in a source
        });
        let placeholders: Vec<_> = own.map(placeholder).collect();
        let links: Vec<Link> = parts.links.iter().map(|link| (*link).clone()).collect();
        Self {
            contents: contents_of(&at, &mounts, &links, &placeholders),
            at,
            mounts,
            links,
            placeholders,
        }
    }

    /// The mounts of the template, as the site `name` in the directory `root`.
    pub fn desired(&self, name: SiteName, root: HostPath) -> Desired {
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
        let Mount {
            target,
            source,
            kind,
            attributes,
            ..
        } = &**mount;
        (target, source, kind, attributes).hash(&mut hash);
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

/// The directories in a root where grafts could go.
struct Soil<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    targets: BTreeSet<&'a JailPath>,
    /// The targets of the recorded grafts that are there.
    grafts: BTreeSet<&'a JailPath>,
    generated: HashSet<&'a HostPath>,
    own_mounts: OwnMounts,
    /// The directories that were made in the root, if they may be covered: lines of fstab(5) mount
    /// on nothing of them.
    made: Vec<&'a CreatedPath>,
    /// The knowledge of directories: most paths share theirs with others.
    free: RefCell<BTreeMap<JailPath, bool>>,
}

impl<'a> Soil<'a> {
    fn of(desired: &'a Desired, observed: &'a Observed, own_mounts: OwnMounts) -> Self {
        let grafts = observed
            .recorded_mounts()
            .filter(|mount| mount.template.is_some());
        let is_there = |target: &&JailPath| observed.mounts.contains_key(*target);
        let kept = observed.kept.iter().filter(|kept| kept.fstab.is_none());
        Self {
            desired,
            observed,
            targets: desired.mounts.iter().map(|mount| &mount.target).collect(),
            grafts: grafts.map(|mount| &mount.target).filter(is_there).collect(),
            generated: desired.files.iter().map(|file| &file.path).collect(),
            own_mounts,
            made: kept
                .flat_map(|kept| &kept.made)
                .filter(|made| made.kind == CreatedKind::Directory)
                .collect(),
            free: RefCell::default(),
        }
    }

    /// The mounts of the site in each directory that can be a graft.
    fn parts(&self) -> BTreeMap<JailPath, Parts<'a>> {
        let mut parts: BTreeMap<JailPath, Parts<'_>> = BTreeMap::new();
        for mount in &self.desired.mounts {
            if let Some(at) = self.place_of(&mount.target) {
                let parts = parts.entry(at).or_default();
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
        let is_in = |own: &&Arc<Mount>| mount.target.starts_with(&own.target);
        mount.attributes.read_only
            && !mount.recursive
            && mount.kind != FileKind::Socket
            && mount.file.is_some()
            && !self.generated.contains(&mount.source)
            && !parts.own.iter().any(is_in)
    }

    /// The topmost directory above `path` that can be a graft.
    fn place_of(&self, path: &JailPath) -> Option<JailPath> {
        for above in path.directories_above() {
            if self.targets.contains(&above) {
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
        let mut own = self.desired.directories.iter();
        if self.has_lasting_mounts(directory) || own.any(|own| own.path.starts_with(directory)) {
            return false;
        }
        if !self.observed.paths.contains_key(directory) {
            return first_in(&self.observed.mounts, directory).is_none();
        }
        let mut ours = false;
        for made in &self.made {
            let is_it = made.path == *directory;
            if made.path.starts_with(directory) {
                if !self.is_as_made(made) {
                    return false;
                }
                ours |= is_it;
            }
        }
        ours
    }

    /// Whether there are mounts in the directory that stay where they are.
    fn has_lasting_mounts(&self, directory: &JailPath) -> bool {
        let Observed {
            mounts,
            elsewhere,
            holders,
            ..
        } = self.observed;
        let stays = |target: &JailPath| {
            self.own_mounts == OwnMounts::Stays || !can_be_covered(self.observed, target)
        };
        paths_in(mounts, directory).any(stays)
            || first_in(elsewhere, directory).is_some()
            || first_in(holders, directory).is_some()
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
pub(super) fn can_be_covered(observed: &Observed, target: &JailPath) -> bool {
    let is_plain = |seen: &ObservedMount| {
        let mut recorded = observed.recorded_mounts();
        let known = recorded.find(|known| {
            known.target == *target && known.unique_id.is_some_and(|id| Some(id) == seen.unique_id)
        });
        known.is_some_and(|known| known.template.is_none() && !known.recursive)
    };
    let inside = paths_in(&observed.mounts, target).filter(|inside| *inside != target);
    observed.stack(target).iter().all(is_plain)
        && !observed.unseen.contains_key(target)
        && inside.count() == 0
}

/// The paths at or below `directory`.
fn paths_in<'m, V>(
    map: &'m BTreeMap<JailPath, V>,
    directory: &'m JailPath,
) -> impl Iterator<Item = &'m JailPath> {
    let from = map.range(directory..).map(|(path, _)| path);
    from.take_while(|path| path.starts_with(directory))
}

fn first_in<'m, V>(
    map: &'m BTreeMap<JailPath, V>,
    directory: &'m JailPath,
) -> Option<&'m JailPath> {
    paths_in(map, directory).next()
}
