//! The roots of all sites, compared by what they are: one directory can have many paths.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use super::desired::FileId;
use super::host::Host;
use super::lookup_error::LookupError;
use super::place::{Level, Mounts, Place};
use crate::base::{HostPath, SiteName};
use crate::{Error, Result, patience};

/// The roots of all sites. They are looked at when the first site is compared with them, each by
/// itself: one that cannot be looked at is known by its path alone.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    all: Vec<(SiteName, HostPath)>,
    /// Those without a manifest.
    recorded: BTreeSet<SiteName>,
    up: Up,
    /// The sites that come up in this run.
    coming: OnceLock<BTreeSet<SiteName>>,
    index: OnceLock<Arc<Index>>,
}

/// Tells whether a site is up at a root.
#[derive(Clone, Default)]
struct Up(Option<Arc<IsUp>>);

type IsUp = dyn Fn(&SiteName, &HostPath) -> bool + Send + Sync;

impl fmt::Debug for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Up").finish_non_exhaustive()
    }
}

/// Another site with the same root, one above or one below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The one root, as it was asked for.
    pub root: HostPath,
    /// The other site.
    pub site: SiteName,
    /// Its root.
    pub theirs: HostPath,
    relation: Relation,
    /// Only the records tell of the other site.
    recorded: bool,
}

/// What the one root is to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    Inside,
    Around,
}

/// The roots by what they are; all by their number in [`Roots::all`].
#[derive(Debug, Default)]
struct Index {
    mounts: Arc<Mounts>,
    /// Without links, where that can be told.
    paths: HashMap<usize, HostPath>,
    by_path: BTreeMap<HostPath, Vec<usize>>,
    by_id: HashMap<FileId, Vec<usize>>,
    by_level: BTreeMap<Level, Vec<usize>>,
    /// By where their mounts are mounted.
    by_outer_level: BTreeMap<Level, Vec<usize>>,
    /// By the directories above them.
    by_above: HashMap<FileId, Vec<usize>>,
}

/// Where a root is.
enum Looked {
    At(HostPath, Option<Place>),
    /// It is reached by a link that is in others' hands: what that leads to is not theirs to claim.
    Nobodys,
}

impl Roots {
    /// None yet; `is_up` tells whether a site is up at a root.
    pub fn new(is_up: impl Fn(&SiteName, &HostPath) -> bool + Send + Sync + 'static) -> Self {
        Self {
            up: Up(Some(Arc::new(is_up))),
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
        let nth = path
            .ancestors()
            .find_map(|above| by_path.get(&above)?.first())?;
        Some(&self.all[*nth].0)
    }

    /// Says which sites are about to come up together.
    pub fn come_up(&self, sites: impl Iterator<Item = SiteName>) {
        let _ = self.coming.set(sites.collect()); // a run says it once
    }

    /// Why `site` cannot come up at `root`, or cannot stay alone there: other sites with the same
    /// root, one above or one below, by whatever path.
    ///
    /// Errors: it is not up, and another one is, or would have to be refused as well.
    pub(super) fn check(&self, site: &SiteName, root: &HostPath) -> Result<Vec<String>> {
        let overlaps = self.overlaps(site, root);
        if overlaps.is_empty() || self.is_up(site, root) {
            // What is up stays so: the other one is refused.
            return Ok(overlaps.iter().map(Overlap::to_string).collect());
        }
        match overlaps.iter().find(|overlap| self.refuses(site, overlap)) {
            Some(overlap) => Err(overlap.error()),
            None => Ok(overlaps.iter().map(Overlap::to_string).collect()),
        }
    }

    /// Whether `site`, which is not up, must not come up because of `overlap`. By their paths alone
    /// neither can, whatever is mounted; else the first one does.
    fn refuses(&self, site: &SiteName, overlap: &Overlap) -> bool {
        let Overlap {
            root,
            site: other,
            theirs,
            recorded,
            ..
        } = overlap;
        let by_path = root.starts_with(theirs) || theirs.starts_with(root);
        let comes_first = || {
            self.coming
                .get()
                .is_some_and(|coming| coming.contains(other))
                && other < site
        };
        by_path || *recorded || self.is_up(other, theirs) || comes_first()
    }

    /// Whether `site` is up at `root`.
    fn is_up(&self, site: &SiteName, root: &HostPath) -> bool {
        self.up.0.as_ref().is_some_and(|is_up| is_up(site, root))
    }

    /// Other sites than `site` with the same root as `root`, one above or one below, by whatever
    /// path; each once.
    pub fn overlaps(&self, site: &SiteName, root: &HostPath) -> Vec<Overlap> {
        let mut overlaps: Vec<Overlap> = vec![];
        if self.all.iter().all(|(other, _)| other == site) {
            return overlaps;
        }
        let index = self.index();
        let place = index.mounts.place(root.as_path()).ok();
        for (nth, relation) in index.in_the_way(root, place.as_ref()) {
            let (Some(theirs), (other, _)) = (index.paths.get(&nth), &self.all[nth]) else {
                continue;
            };
            if other != site && overlaps.iter().all(|known| known.site != *other) {
                let recorded = self.recorded.contains(other);
                let (root, site, theirs) = (root.clone(), other.clone(), theirs.clone());
                overlaps.push(Overlap {
                    root,
                    site,
                    theirs,
                    relation,
                    recorded,
                });
            }
        }
        overlaps
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let (mut index, host) = (Index::default(), Host::new());
            let roots: Vec<_> = self.all.iter().map(|(_, root)| root.clone()).collect();
            let mounts = index.mounts.clone();
            let look = move |root: &HostPath| look(&host, &mounts, root);
            let looked = patience::each_within(roots.clone(), Some(patience::SHORT), look);
            for (nth, (root, looked)) in roots.into_iter().zip(looked).enumerate() {
                // One that does not answer cannot be looked at.
                if let Looked::At(path, place) = looked.unwrap_or(Looked::At(root, None)) {
                    index.add(nth, path, place);
                }
            }
            Arc::new(index)
        })
    }
}

/// Where the root `root` is.
fn look(host: &Host, mounts: &Mounts, root: &HostPath) -> Looked {
    let linked = |error: &io::Error| error.raw_os_error() == Some(libc::ELOOP);
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return Looked::At(root.clone(), None);
    };
    match mounts.place(root.as_path()) {
        Ok(place) => Looked::At(root.clone(), Some(place)),
        Err(error) if linked(&error) => {
            match host.walk_strictly(&parent).map(|walk| walk.real.join(name)) {
                Ok(Ok(path)) => {
                    let place = mounts.place(path.as_path()).ok();
                    Looked::At(path, place)
                }
                Err(LookupError::Strange { .. }) => Looked::Nobodys,
                _ => Looked::At(root.clone(), None),
            }
        }
        Err(_) => Looked::At(root.clone(), None),
    }
}

impl Index {
    fn add(&mut self, nth: usize, path: HostPath, place: Option<Place>) {
        self.paths.insert(nth, path.clone());
        self.by_path.entry(path).or_default().push(nth);
        let Some(Place { id, levels, above }) = place else {
            return;
        };
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

    /// Roots that are the directory at `root`, hold it, or are in it.
    fn in_the_way<'i>(
        &'i self,
        root: &HostPath,
        place: Option<&Place>,
    ) -> impl Iterator<Item = (usize, Relation)> + 'i {
        let (mut same, mut around, mut inside) = (vec![], vec![], vec![]);
        let ancestors = root.ancestors().skip(1);
        same.extend(self.by_path.get(root));
        around.extend(ancestors.filter_map(|above| self.by_path.get(&above)));
        let below = self
            .by_path
            .range((Bound::Excluded(root), Bound::Unbounded));
        inside.extend(
            below
                .take_while(|(path, _)| path.starts_with(root))
                .map(|(_, all)| all),
        );
        if let Some(Place { id, levels, above }) = place {
            same.extend(self.by_id.get(id));
            around.extend(above.iter().filter_map(|id| self.by_id.get(id)));
            inside.extend(self.by_above.get(id));
            for level in levels.iter().flat_map(Level::at_or_above) {
                around.extend(self.by_level.get(&level));
            }
            for (levels, level) in [&self.by_level, &self.by_outer_level]
                .into_iter()
                .zip(levels.first().into_iter().cycle())
            {
                let below = levels
                    .range(level..)
                    .take_while(|(other, _)| other.is_in(level));
                inside.extend(below.map(|(_, all)| all));
            }
        }
        let all = |lists: Vec<&'i Vec<usize>>, relation| {
            lists.into_iter().flatten().map(move |nth| (*nth, relation))
        };
        all(same, Relation::Same)
            .chain(all(around, Relation::Inside))
            .chain(all(inside, Relation::Around))
    }
}

impl Overlap {
    /// Whether both are one directory.
    pub fn is_same(&self) -> bool {
        self.relation == Relation::Same
    }

    /// That no site can come up at the one root, and what to do.
    pub(super) fn error(&self) -> Error {
        let Self { site, .. } = self;
        match (self.relation, self.recorded) {
            (Relation::Same, true) => Error::failed(self.to_string())
                .hint(format!("`mountjail down {site}`, then this again")),
            (Relation::Same, false) => {
                Error::usage(self.to_string()).hint("make one manifest of the two")
            }
            _ => Error::usage(self.to_string())
                .hint("a jail inside another jail could be reached, and changed, from there"),
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
                    "the root {root} is set up as the site {site}{by}, whose manifest is gone or elsewhere"
                )
            }
            (Relation::Same, false) => {
                write!(
                    f,
                    "the root {root} is the root of the site {site} as well{by}"
                )
            }
            (Relation::Inside, _) => {
                write!(
                    f,
                    "the roots {root} and {theirs} (of the site {site}) overlap: {root} is in {theirs}"
                )
            }
            (Relation::Around, _) => {
                write!(
                    f,
                    "the roots {root} and {theirs} (of the site {site}) overlap: {theirs} is in {root}"
                )
            }
        }
    }
}
