//! The items of some entries together, before it is known what is in the root.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use super::dependencies::Dependencies;
use super::desired::{Asked, Cause, Link, Note, Reason};
use super::expand::Expansion;
use super::host::Host;
use super::lookup_error::LookupError;
use super::made::Made;
use super::own::{self, Own};
use super::parts::{self, SharedParts};
use super::top_links::TopLink;
use crate::base::sync::lock;
use crate::base::{HostPath, JailPath};
use crate::manifest::Origin;
use crate::{Error, Result};

/// The expansions of some entries, and the mounts and links made of them.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    expansions: Vec<(Arc<Origin>, Arc<Expansion>)>,
    /// The host's directory links on the way to anything, with their destinations.
    ways: BTreeMap<PathBuf, PathBuf>,
    /// Other links that lead to what is mounted: `/lib` with `/usr`, `/var/run` with `/run/mysqld`.
    top_links: BTreeMap<PathBuf, Link>,
    /// The links that data such as `/etc/localtime` are.
    leaves: BTreeSet<PathBuf>,
    /// By the links that a root has in another form. Each has a cell of its own, so that a site
    /// waits only for the parts that it needs.
    parts: Mutex<HashMap<Vec<Own>, Arc<PartsCell>>>,
}

/// The expansions of some entries, for all that they ask for besides mounts and links.
#[derive(Clone, Debug, Default)]
pub(super) struct Additions(Vec<(Arc<Origin>, Arc<Expansion>)>);

impl Additions {
    pub(super) fn add(&mut self, origin: &Arc<Origin>, expansion: &Arc<Expansion>) {
        self.0.push((origin.clone(), expansion.clone()));
    }

    /// Adds those of other entries.
    pub(super) fn extend(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }

    pub(super) fn users(&self) -> Vec<Asked<'_, String>> {
        let mut users = vec![];
        for (origin, expansion) in &self.0 {
            users.extend(expansion.user.iter().map(|user| (user, origin)));
        }
        users
    }

    pub(super) fn made(&self) -> Vec<Asked<'_, Made>> {
        let mut made = vec![];
        for (origin, expansion) in &self.0 {
            made.extend(expansion.made.iter().map(|thing| (thing, origin)));
        }
        made
    }

    /// Programs that find their libraries by `/proc/self/exe`, each once.
    pub(super) fn need_proc(&self) -> Vec<Asked<'_, HostPath>> {
        let mut programs: Vec<Asked<'_, HostPath>> = vec![];
        for (origin, expansion) in &self.0 {
            for program in &expansion.need_proc {
                if programs.iter().all(|(known, _)| *known != program) {
                    programs.push((program, origin));
                }
            }
        }
        programs
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = vec![];
        for (origin, expansion) in &self.0 {
            let texts = expansion.notes.iter();
            notes.extend(texts.map(|text| Note::new(origin, text.clone())));
        }
        notes
    }
}

type PartsCell = OnceLock<(PartsResult, Dependencies)>;

type PartsResult = Result<Arc<SharedParts>, Vec<Error>>;

impl Gathered {
    pub(super) fn add(&mut self, origin: &Arc<Origin>, expansion: Arc<Expansion>) {
        for item in &expansion.items {
            let way = item.way.iter().flat_map(|way| &way.links);
            for link in way.chain(item.links.iter().flatten()) {
                let path = link.path.as_path().to_owned();
                self.ways.insert(path, link.destination.clone());
            }
            if item.attributes.noexec
                && let Some(leaf) = &item.leaf
            {
                self.leaves.insert(leaf.path.as_path().to_owned());
            }
        }
        for link in &expansion.top_links {
            self.add_top_link(origin, link);
        }
        self.expansions.push((origin.clone(), expansion));
    }

    fn add_top_link(&mut self, origin: &Arc<Origin>, link: &TopLink) {
        let Ok(path) = JailPath::new(link.path.as_path()) else {
            return;
        };
        let cause = Cause::OnTheWayTo(link.real.as_path().to_owned());
        let reason = Reason::chain(origin, vec![cause]);
        let key = path.as_path().to_owned();
        let link = self.top_links.entry(key).or_insert_with(|| Link {
            path,
            destination: link.destination.clone(),
            reasons: vec![],
        });
        if !link.reasons.contains(&reason) {
            link.reasons.push(reason);
        }
    }

    /// The parts that the root at `root` needs.
    pub(super) fn shared_parts(&self, host: &Host, root: &HostPath) -> PartsResult {
        let own = self
            .own(host, root)
            .map_err(|error| vec![error.error(format!("cannot look into the root {root}"))])?;
        self.shared_parts_for(host, &own)
    }

    /// The things that the root at `root` has of its own in the places of the host's links.
    fn own(&self, host: &Host, root: &HostPath) -> Result<Vec<Own>, LookupError> {
        let mut all = vec![];
        for (at, destination) in &self.ways {
            all.extend(own::in_place_of_needed(host, root, at, destination)?);
        }
        for (at, link) in &self.top_links {
            if !self.ways.contains_key(at) {
                let destination = &link.destination;
                all.extend(own::in_place_of_optional(host, root, at, destination)?);
            }
        }
        for at in &self.leaves {
            all.extend(own::file_in_place_of(host, root, at)?);
        }
        Ok(all)
    }

    /// The parts that a root with `own` needs.
    pub(super) fn shared_parts_for(&self, host: &Host, own: &[Own]) -> PartsResult {
        let cell = lock(&self.parts).entry(own.to_vec()).or_default().clone();
        let (parts, dependencies) = cell.get_or_init(|| {
            let scope = host.scope();
            let parts = parts::build(&scope, own, &self.expansions, &self.top_links);
            (parts.map(Arc::new), scope.into_dependencies())
        });
        host.note_all(dependencies);
        parts.clone()
    }
}
