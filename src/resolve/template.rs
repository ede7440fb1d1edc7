//! The parts of all entries together, and what roots have of their own → a template for all roots
//! that are alike.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::builder::Builder;
use super::dependencies::{Aspect, Dependencies};
use super::desired::{Cause, FileKind, Link, Mount, Note, Reason};
use super::expand::{Part, lexical};
use super::host::{Host, Node};
use super::walk::LookupError;
use crate::base::{HostPath, JailPath};
use crate::manifest::Origin;
use crate::{Error, Result};

/// What some entries bring, before it is known what stands in the root.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    items: Vec<(Arc<Origin>, Arc<Part>)>,
    /// The host's directory links on the way to anything, with their texts.
    ways: BTreeMap<PathBuf, PathBuf>,
    /// Other links that lead to what is mounted, with their texts: `/lib` with `/usr`, `/var/run`
    /// with `/run/mysqld`.
    tops: BTreeMap<PathBuf, Link>,
    /// The links that data such as `/etc/localtime` are.
    leaves: BTreeSet<PathBuf>,
    pub users: Vec<(String, Arc<Origin>)>,
    pub notes: Vec<Note>,
    /// By the links that a root has in another form.
    templates: Mutex<HashMap<Vec<Own>, Arc<Cell>>>,
}

/// What is not found out yet, only those wait for who ask for it.
type Cell = OnceLock<(Templated, Dependencies)>;

type Templated = Result<Arc<Template>, Vec<Error>>;

/// The same for every root in which the links on the way stand alike.
#[derive(Debug, Default)]
pub(super) struct Template {
    pub mounts: Vec<Arc<Mount>>,
    pub links: Vec<Link>,
    /// What the host forbids, and what it cannot do meanwhile.
    pub notes: Vec<Note>,
}

/// What a root has where the host has a directory link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Own {
    pub at: PathBuf,
    /// `None`: a directory, or a file in the place of a link to one; else the text of a link that
    /// leads to the same place as the host's.
    pub link: Option<PathBuf>,
}

impl Gathered {
    pub(super) fn add(&mut self, origin: &Arc<Origin>, part: Arc<Part>) {
        let links = part
            .items
            .iter()
            .filter_map(|item| item.way.as_ref())
            .flat_map(|way| &way.links);
        self.ways
            .extend(links.map(|link| (link.path.as_path().to_owned(), link.text.clone())));
        let data = part.items.iter().filter(|item| item.options.noexec);
        self.leaves
            .extend(data.filter_map(|item| Some(item.leaf.as_ref()?.path.as_path().to_owned())));
        for top in &part.tops {
            let Ok(path) = JailPath::new(top.path.as_path()) else {
                continue;
            };
            let chain = vec![Cause::OnTheWayTo(top.real.as_path().to_owned())];
            let reason = Reason {
                origin: origin.clone(),
                chain,
            };
            let new = Link {
                path: path.clone(),
                text: top.text.clone(),
                reasons: vec![],
            };
            let link = self.tops.entry(path.as_path().to_owned()).or_insert(new);
            if !link.reasons.contains(&reason) {
                link.reasons.push(reason);
            }
        }
        self.users
            .extend(part.user.iter().map(|user| (user.clone(), origin.clone())));
        let note = |text: &String| Note {
            origin: origin.clone(),
            text: text.clone(),
            always: false,
        };
        self.notes.extend(part.notes.iter().map(note));
        self.items.push((origin.clone(), part));
    }

    /// What the root at `root` needs.
    pub(super) fn template(&self, host: &Host, root: &HostPath) -> Templated {
        let own = self
            .own(host, root)
            .map_err(|error| vec![error.error(format!("cannot look into the root {root}"))])?;
        self.template_for(host, &own)
    }

    /// What the root at `root` has of its own in the places of the host's links.
    fn own(&self, host: &Host, root: &HostPath) -> Result<Vec<Own>, LookupError> {
        let mut all = vec![];
        for (at, text) in &self.ways {
            all.extend(own(host, root, at, text)?);
        }
        for (at, link) in self
            .tops
            .iter()
            .filter(|(at, _)| !self.ways.contains_key(*at))
        {
            all.extend(own_in_place_of(host, root, at, &link.text)?);
        }
        for at in &self.leaves {
            all.extend(own_file(host, root, at)?);
        }
        Ok(all)
    }

    /// What a root that has `own` needs.
    pub(super) fn template_for(&self, host: &Host, own: &[Own]) -> Templated {
        let cell = {
            let mut known = self
                .templates
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            known.entry(own.to_vec()).or_default().clone()
        };
        let (template, lookups) = cell.get_or_init(|| {
            let scope = host.scope();
            let template = Builder::new(&scope, own)
                .build(&self.items, &self.tops)
                .map(Arc::new);
            (template, scope.into_lookups())
        });
        host.note_all(lookups);
        template.clone()
    }
}

/// What the root has at the host's link `at`, if it is something of its own that does.
fn own(host: &Host, root: &HostPath, at: &Path, text: &Path) -> Result<Option<Own>, LookupError> {
    let Ok(path) = JailPath::new(at) else {
        return Ok(None);
    };
    let Some(Node { stat, link }) = host.glimpse(&root.inside(&path))? else {
        return Ok(None);
    };
    Ok(match (link, at.parent()) {
        (None, _) if stat.kind == FileKind::Directory => Some(Own {
            at: at.to_owned(),
            link: None,
        }),
        (Some(found), Some(directory)) => {
            let same = lexical(directory, &found) == lexical(directory, text);
            (same && found != text).then(|| Own {
                at: at.to_owned(),
                link: Some(found),
            })
        }
        _ => None,
    })
}

/// What the root has at `at` of its own, in whose place the host has a link that nothing needs:
/// that is left alone.
fn own_in_place_of(
    host: &Host,
    root: &HostPath,
    at: &Path,
    text: &Path,
) -> Result<Option<Own>, LookupError> {
    let Ok(path) = JailPath::new(at) else {
        return Ok(None);
    };
    match host.glimpse(&root.inside(&path))? {
        Some(node) if node.link.as_deref() != Some(text) => {
            Ok(own(host, root, at, text)?.or_else(|| {
                Some(Own {
                    at: at.to_owned(),
                    link: None,
                })
            }))
        }
        _ => Ok(None),
    }
}

/// What the root has at the host's link `at` to a file, if it is a file: one to mount on, such as a
/// placeholder.
fn own_file(host: &Host, root: &HostPath, at: &Path) -> Result<Option<Own>, LookupError> {
    let Ok(path) = JailPath::new(at) else {
        return Ok(None);
    };
    let inside = root.inside(&path);
    host.note(inside.as_path(), Aspect::NAME);
    let found = host.glimpse(&inside)?;
    let file = found.filter(|node| node.stat.kind == FileKind::File);
    Ok(file.map(|_| Own {
        at: at.to_owned(),
        link: None,
    }))
}
