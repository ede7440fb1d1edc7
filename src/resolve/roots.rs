//! The roots of all sites, compared by what they are: one directory can have many paths.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::desired::FileId;
use super::host::Host;
use super::lookup_error::LookupError;
use super::place::{Level, MountCache, Place};
use super::system_directories::system_directories;
use crate::base::{HostPath, SiteName};
use crate::{Error, Result, patience};

/// The roots of all sites. Each is looked at when the first site is compared with them; one that
/// cannot be looked at is known by its path alone.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    all: Vec<(SiteName, HostPath)>,
    /// The sites without a manifest.
    recorded: BTreeSet<SiteName>,
    is_up: IsUp,
    /// The sites that are to come up in this run.
    coming: OnceLock<BTreeSet<SiteName>>,
    index: OnceLock<Arc<RootIndex>>,
    mounts: Arc<MountCache>,
    system: OnceLock<Arc<Vec<SystemDirectory>>>,
}

/// How a directory lies to one that holds the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InSystem {
    /// It is that directory.
    At(&'static str),
    /// It is below it.
    Below(&'static str),
}

/// A directory that holds the system.
#[derive(Debug)]
struct SystemDirectory {
    path: &'static str,
    /// No jail can be below it.
    with_contents: bool,
    place: Place,
}

/// Tells whether a site is up at a root.
#[derive(Clone, Default)]
struct IsUp(Option<Arc<IsUpAt>>);

type IsUpAt = dyn Fn(&SiteName, &HostPath) -> bool + Send + Sync;

impl fmt::Debug for IsUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IsUp").finish_non_exhaustive()
    }
}

/// Another site with the same root, one above or one below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub(crate) root: HostPath,
    /// The other site.
    pub(crate) site: SiteName,
    /// Its root.
    pub(crate) theirs: HostPath,
    relation: Relation,
    /// The other site is known from the records alone.
    recorded: bool,
}

/// How the root lies to that of the other site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    Inside,
    Around,
}

/// The roots by where they are. Each is represented by its index in [`Roots::all`].
#[derive(Debug, Default)]
struct RootIndex {
    /// The paths without links, where they are known.
    paths: HashMap<usize, HostPath>,
    /// The directories at these paths.
    places: HashMap<HostPath, Place>,
    by_path: BTreeMap<HostPath, Vec<usize>>,
    by_id: HashMap<FileId, Vec<usize>>,
    by_level: BTreeMap<Level, Vec<usize>>,
    /// By where their mounts are mounted.
    by_outer_level: BTreeMap<Level, Vec<usize>>,
    /// By the directories above them.
    by_above: HashMap<FileId, Vec<usize>>,
}

/// Where a root is.
enum RootPlace {
    At(HostPath, Option<Place>),
    /// The path has a link that other users control: they must not be able to claim what it leads
    /// to.
    Unknown,
}

impl Roots {
    /// None yet; `is_up` tells whether a site is up at a root.
    pub fn new(is_up: impl Fn(&SiteName, &HostPath) -> bool + Send + Sync + 'static) -> Self {
        Self {
            is_up: IsUp(Some(Arc::new(is_up))),
            ..Self::default()
        }
    }

    /// Adds the root of `site`.
    pub fn add(&mut self, site: SiteName, root: HostPath) {
        self.all.push((site, root));
        self.index = OnceLock::new();
    }

    /// Adds the root of a site that only the records know: its manifest was renamed, removed, or is
    /// elsewhere.
    pub fn add_recorded(&mut self, site: SiteName, root: HostPath) {
        self.recorded.insert(site.clone());
        self.add(site, root);
    }

    /// The site that the path is in, if any.
    pub fn site_of(&self, path: &HostPath) -> Option<&SiteName> {
        let by_path = &self.index().by_path;
        for above in path.ancestors() {
            if let Some([nth, ..]) = by_path.get(&above).map(Vec::as_slice) {
                return Some(&self.all[*nth].0);
            }
        }
        None
    }

    /// The directory of the system that `root`, whose path has no links, is or is in, by any
    /// path. Errors: as open(2).
    pub(super) fn system_at(&self, root: &HostPath) -> io::Result<Option<InSystem>> {
        let place = self.mounts.place(root.as_path())?;
        for system in self.system() {
            if system.place.id == place.id {
                return Ok(Some(InSystem::At(system.path)));
            }
            if system.with_contents && place.is_below(&system.place) {
                return Ok(Some(InSystem::Below(system.path)));
            }
        }
        Ok(None)
    }

    fn system(&self) -> &[SystemDirectory] {
        self.system.get_or_init(|| {
            let mut system = vec![];
            for (path, with_contents) in system_directories() {
                let Ok(place) = self.mounts.place(Path::new(path)) else {
                    continue; // it is a link
                };
                system.push(SystemDirectory {
                    path,
                    with_contents,
                    place,
                });
            }
            Arc::new(system)
        })
    }

    /// Sets which sites are about to come up together.
    pub fn come_up(&self, sites: impl Iterator<Item = SiteName>) {
        let _ = self.coming.set(sites.collect()); // once per run
    }

    /// Warnings about other sites with the same root, one above or one below, by any path.
    ///
    /// Errors: `site` is not up and cannot come up at `root` because of one of them.
    pub(crate) fn check(&self, site: &SiteName, root: &HostPath) -> Result<Vec<String>> {
        let overlaps = self.overlaps(site, root);
        if overlaps.is_empty() {
            return Ok(vec![]);
        }
        let is_up = self.is_up(site, root);
        let mut warnings = vec![];
        for overlap in &overlaps {
            let is_refused = self.refuses(site, overlap);
            if is_refused && !is_up {
                return Err(overlap.error());
            }
            // A site that is up stays up: the other one is refused.
            warnings.push(if is_refused {
                let remedy = overlap.remedy();
                format!("{overlap}; once {site} is down, it cannot come up again: {remedy}")
            } else {
                overlap.to_string()
            });
        }
        Ok(warnings)
    }

    /// Whether `site`, which is not up, must not come up because of `overlap`. If the paths
    /// themselves overlap, neither can come up, whatever is mounted; otherwise the first one does.
    fn refuses(&self, site: &SiteName, overlap: &Overlap) -> bool {
        let Overlap {
            root,
            site: other,
            theirs,
            recorded,
            ..
        } = overlap;
        let by_path = root.starts_with(theirs) || theirs.starts_with(root);
        by_path || *recorded || self.is_up(other, theirs) || self.comes_before(other, site)
    }

    fn comes_before(&self, one: &SiteName, other: &SiteName) -> bool {
        match self.coming.get() {
            Some(coming) => one < other && coming.contains(one),
            None => false,
        }
    }

    /// Whether `site` is up at `root`.
    fn is_up(&self, site: &SiteName, root: &HostPath) -> bool {
        match &self.is_up.0 {
            Some(is_up) => is_up(site, root),
            None => false,
        }
    }

    /// Other sites than `site` with the same root as `root`, one above or one below, by any
    /// path; each once.
    pub(crate) fn overlaps(&self, site: &SiteName, root: &HostPath) -> Vec<Overlap> {
        let mut overlaps: Vec<Overlap> = vec![];
        if self.all.iter().all(|(other, _)| other == site) {
            return overlaps;
        }
        let index = self.index();
        let place = match index.places.get(root) {
            Some(place) => Some(place.clone()),
            None => self.mounts.place(root.as_path()).ok(),
        };
        for (nth, relation) in index.overlapping(root, place.as_ref()) {
            let (other, _) = &self.all[nth];
            let is_known = overlaps.iter().any(|known| known.site == *other);
            let Some(theirs) = index.paths.get(&nth) else {
                continue;
            };
            if other != site && !is_known {
                overlaps.push(Overlap {
                    root: root.clone(),
                    site: other.clone(),
                    theirs: theirs.clone(),
                    relation,
                    recorded: self.recorded.contains(other),
                });
            }
        }
        overlaps
    }

    fn index(&self) -> &RootIndex {
        self.index.get_or_init(|| {
            let (mut index, host) = (RootIndex::default(), Host::new());
            let roots: Vec<_> = self.all.iter().map(|(_, root)| root.clone()).collect();
            let mounts = self.mounts.clone();
            let look = move |root: &HostPath| look(&host, &mounts, root);
            let looked = patience::each_within(roots.clone(), Some(patience::SHORT), look);
            for (nth, (root, looked)) in roots.into_iter().zip(looked).enumerate() {
                // One that does not answer cannot be looked at.
                if let RootPlace::At(path, place) = looked.unwrap_or(RootPlace::At(root, None)) {
                    index.add(nth, path, place);
                }
            }
            Arc::new(index)
        })
    }
}

/// Where the root `root` is.
fn look(host: &Host, mounts: &MountCache, root: &HostPath) -> RootPlace {
    let by_path = |place| RootPlace::At(root.clone(), place);
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return by_path(None);
    };
    match mounts.place(root.as_path()) {
        Ok(place) => return by_path(Some(place)),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
        Err(_) => return by_path(None),
    }

    let walk = match host.walk_strictly(&parent) {
        Ok(walk) => walk,
        Err(LookupError::Strange { .. }) => return RootPlace::Unknown,
        Err(_) => return by_path(None),
    };
    let Ok(path) = walk.real.join(name) else {
        return by_path(None);
    };
    let place = mounts.place(path.as_path()).ok();
    RootPlace::At(path, place)
}

impl RootIndex {
    fn add(&mut self, nth: usize, path: HostPath, place: Option<Place>) {
        self.paths.insert(nth, path.clone());
        self.by_path.entry(path.clone()).or_default().push(nth);
        let Some(place) = place else {
            return;
        };
        self.places.insert(path, place.clone());
        let Place { id, levels, above } = place;
        self.by_id.entry(id).or_default().push(nth);
        let mut levels = levels.into_iter();
        if let Some(level) = levels.next() {
            self.by_level.entry(level).or_default().push(nth);
        }
        for level in levels {
            self.by_outer_level.entry(level).or_default().push(nth);
        }
        for id in above {
            self.by_above.entry(id).or_default().push(nth);
        }
    }

    /// The roots that are the directory at `root`, hold it, or are in it.
    fn overlapping(&self, root: &HostPath, place: Option<&Place>) -> Vec<(usize, Relation)> {
        let mut found = Overlapping::default();
        found.same.extend(self.by_path.get(root));
        for above in root.ancestors().skip(1) {
            found.around.extend(self.by_path.get(&above));
        }
        let after = (Bound::Excluded(root), Bound::Unbounded);
        for (path, roots) in self.by_path.range(after) {
            if !path.starts_with(root) {
                break;
            }
            found.inside.push(roots);
        }
        if let Some(place) = place {
            self.add_by_place(place, &mut found);
        }
        found.into_relations()
    }

    fn add_by_place<'i>(&'i self, place: &Place, found: &mut Overlapping<'i>) {
        found.same.extend(self.by_id.get(&place.id));
        found.inside.extend(self.by_above.get(&place.id));
        for id in &place.above {
            found.around.extend(self.by_id.get(id));
        }
        for level in place.levels.iter().flat_map(Level::at_or_above) {
            found.around.extend(self.by_level.get(&level));
        }
        let Some(level) = place.levels.first() else {
            return;
        };
        for levels in [&self.by_level, &self.by_outer_level] {
            for (other, roots) in levels.range(level..) {
                if !other.is_in(level) {
                    break;
                }
                found.inside.push(roots);
            }
        }
    }
}

/// Roots by their relation to one, each list from the index.
#[derive(Default)]
struct Overlapping<'i> {
    same: Vec<&'i Vec<usize>>,
    /// Those that hold it.
    around: Vec<&'i Vec<usize>>,
    /// Those in it.
    inside: Vec<&'i Vec<usize>>,
}

impl Overlapping<'_> {
    fn into_relations(self) -> Vec<(usize, Relation)> {
        let mut all = vec![];
        for (lists, relation) in [
            (self.same, Relation::Same),
            (self.around, Relation::Inside),
            (self.inside, Relation::Around),
        ] {
            let roots = lists.into_iter().flatten();
            all.extend(roots.map(|nth| (*nth, relation)));
        }
        all
    }
}

impl Overlap {
    /// Whether both are one directory.
    pub fn is_same(&self) -> bool {
        self.relation == Relation::Same
    }

    /// The error of a site that cannot come up because of this.
    pub(super) fn error(&self) -> Error {
        match (self.relation, self.recorded) {
            (Relation::Same, true) => Error::failed(self.to_string())
                .hint(format!("{}, then this command again", self.remedy())),
            _ => Error::usage(self.to_string()).hint(self.remedy()),
        }
    }

    /// What to do about it.
    fn remedy(&self) -> String {
        match (self.relation, self.recorded) {
            (Relation::Same, true) => format!("run `mountjail down {}`", self.site),
            (Relation::Same, false) => "make one manifest of the two".to_owned(),
            _ => "give one of the two a root outside of the other's, or remove its manifest"
                .to_owned(),
        }
    }
}

/// A sentence.
impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            root,
            site,
            theirs,
            relation,
            recorded,
        } = self;
        let by = if theirs == root {
            String::new()
        } else {
            format!(", by the path {theirs}")
        };
        match (relation, recorded) {
            (Relation::Same, true) => {
                write!(
                    f,
                    "the root {root} is set up as the site {site}{by}, \
                     whose manifest is gone or elsewhere"
                )
            }
            (Relation::Same, false) => {
                write!(f, "the root {root} is also the root of the site {site}{by}")
            }
            (Relation::Inside, _) => {
                write!(
                    f,
                    "the roots {root} and {theirs} (of the site {site}) overlap: \
                     {root} is in {theirs}"
                )
            }
            (Relation::Around, _) => {
                write!(
                    f,
                    "the roots {root} and {theirs} (of the site {site}) overlap: \
                     {theirs} is in {root}"
                )
            }
        }
    }
}
