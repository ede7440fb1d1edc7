//! What all entries bring → one mount a target, links for the directories on the way.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::desired::{Cause, FileKind, Link, Mount, Reason};
use super::expand::{Item, Part, Way, lexical};
use super::host::{Host, Node};
use super::template::{Own, Template};
use super::walk::{LookupError, found};
use crate::base::{HostPath, JailPath, MountAttributes};
use crate::manifest::Origin;
use crate::{Error, Result};

/// One target's mount while it is put together.
pub(super) struct Draft {
    pub item: Item,
    pub target: JailPath,
    pub reasons: Vec<Reason>,
}

pub(super) struct Builder<'o> {
    pub host: &'o Host,
    own: HashMap<&'o Path, Option<&'o Path>>,
    pub drafts: BTreeMap<JailPath, Draft>,
    pub links: BTreeMap<JailPath, Link>,
    errors: Vec<Error>,
    /// What could not be told of the host.
    unknown: RefCell<Vec<LookupError>>,
}

impl<'o> Builder<'o> {
    pub(super) fn new(host: &'o Host, own: &'o [Own]) -> Self {
        let own = own
            .iter()
            .map(|own| (own.at.as_path(), own.link.as_deref()))
            .collect();
        let (drafts, links) = Default::default();
        Self {
            host,
            own,
            drafts,
            links,
            errors: vec![],
            unknown: RefCell::default(),
        }
    }

    pub(super) fn build(
        mut self,
        parts: &[(Arc<Origin>, Arc<Part>)],
        tops: &BTreeMap<PathBuf, Link>,
    ) -> Result<Template, Vec<Error>> {
        let items = || {
            parts
                .iter()
                .flat_map(|(origin, part)| part.items.iter().map(move |item| (origin, item)))
        };
        let mut targets = vec![];
        for (origin, item) in items() {
            targets.push(self.place(origin, item));
        }
        for ((origin, item), target) in items().zip(targets) {
            let target = self.through_links(target);
            let reason = Reason {
                origin: origin.clone(),
                chain: item.chain.clone(),
            };
            self.add(target, &item.asked_at(origin), reason);
        }
        for top in tops.values() {
            self.add_top(top);
        }
        let refused = self.refused();
        self.settle();
        self.keep_links();
        self.drop_covered_links();
        self.check_parents();
        let notes = self.say(refused).into_iter().chain(self.nested()).collect();
        let unknown = self.unknown.take().into_iter();
        self.errors
            .extend(unknown.map(|error| error.error("cannot tell what the mounts will show")));
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mounts = self
            .drafts
            .into_values()
            .map(|draft| Arc::new(draft.mount()))
            .collect();
        Ok(Template {
            mounts,
            links: self.links.into_values().collect(),
            notes,
        })
    }

    /// Where the item goes; the directory links on the way are noted.
    fn place(&mut self, origin: &Arc<Origin>, item: &Item) -> JailPath {
        let Some(way) = item.way.as_ref().filter(|way| !way.links.is_empty()) else {
            return item.path.clone();
        };
        let kept = |at: &Path| matches!(self.own.get(at), Some(None));
        let keeps_one = way.links.iter().any(|link| kept(link.path.as_path()));
        let Some(name) = item.path.file_name() else {
            return item.path.clone();
        };
        let (directory, count) = if keeps_one {
            part_of_the_way(&item.path, way, kept)
        } else {
            (way.directory.as_path().to_owned(), way.links.len())
        };
        for link in &way.links[..count] {
            self.link(origin, item, &link.path, &link.text);
        }
        JailPath::new(directory.join(name)).unwrap_or_else(|_| item.path.clone())
    }

    fn link(&mut self, origin: &Arc<Origin>, item: &Item, at: &HostPath, text: &Path) {
        let Ok(path) = JailPath::new(at.as_path()) else {
            return;
        };
        let text = self
            .own
            .get(at.as_path())
            .copied()
            .flatten()
            .unwrap_or(text)
            .to_owned();
        let cause = Cause::OnTheWayTo(item.path.as_path().to_owned());
        let chain = item.chain.iter().cloned().chain([cause]).collect();
        let reason = Reason {
            origin: origin.clone(),
            chain,
        };
        let link = self.links.entry(path.clone()).or_insert(Link {
            path,
            text,
            reasons: vec![],
        });
        // One reason a line is enough: a link such as /lib is on the way to everything.
        if link
            .reasons
            .iter()
            .all(|known| known.origin != reason.origin)
        {
            link.reasons.push(reason);
        }
    }

    /// `target` with the links above it followed, so that no component of it is one.
    fn through_links(&self, mut target: JailPath) -> JailPath {
        for _ in 0..40 {
            let above = target
                .ancestors()
                .into_iter()
                .find_map(|above| self.links.get(&above));
            let Some(link) = above else { return target };
            let Some(directory) = link.path.parent() else {
                return target;
            };
            let Some(rest) = target.below(&link.path) else {
                return target;
            };
            match JailPath::new(lexical(directory.as_path(), &link.text).join(rest)) {
                Ok(next) if next != target => target = next,
                _ => return target,
            }
        }
        target
    }

    pub(super) fn add(&mut self, target: JailPath, item: &Item, reason: Reason) {
        let Some(draft) = self.drafts.get_mut(&target) else {
            let draft = Draft {
                item: item.clone(),
                target: target.clone(),
                reasons: vec![reason],
            };
            self.drafts.insert(target, draft);
            return;
        };
        if draft.item.file != item.file {
            // What a line names goes before what a link or a library name brings along.
            match (draft.item.chain.is_empty(), item.chain.is_empty()) {
                (false, true) => {
                    *draft = Draft {
                        item: item.clone(),
                        target,
                        reasons: vec![reason],
                    }
                }
                (true, false) => {}
                _ => {
                    let error = conflict(
                        &target,
                        &draft.item.source,
                        &draft.reasons,
                        &item.source,
                        &reason.origin,
                    );
                    self.errors.push(error);
                }
            }
            return;
        }
        if draft.item.options != item.options || draft.item.recursive != item.recursive {
            match (draft.item.fixed, item.fixed) {
                (true, true) => {
                    self.errors.push(differing(draft, item, &reason));
                    return;
                }
                (false, true) => draft.item = item.clone(),
                (true, false) => {}
                (false, false) => {
                    draft.item.options = widest(draft.item.options, item.options);
                    draft.item.recursive |= item.recursive;
                }
            }
        }
        draft.item.host = widest(draft.item.host, item.host);
        if !draft.reasons.contains(&reason) {
            draft.reasons.push(reason);
        }
    }

    /// Adds a link of the host's that leads to what is mounted, unless something else is to be
    /// there.
    fn add_top(&mut self, link: &Link) {
        let taken = self
            .own
            .get(link.path.as_path())
            .is_some_and(Option::is_none);
        let mut at_or_below = self
            .drafts
            .range(&link.path..)
            .take_while(|(at, _)| at.starts_with(&link.path));
        if taken || at_or_below.next().is_some() {
            return;
        }
        let text = self
            .own
            .get(link.path.as_path())
            .copied()
            .flatten()
            .unwrap_or(&link.text)
            .to_owned();
        self.links.entry(link.path.clone()).or_insert(Link {
            text,
            ..link.clone()
        });
    }

    /// A link whose file the jail has anyway, in a bound directory, stays a link: one mount less,
    /// and the file behind it is always the host's newest.
    fn keep_links(&mut self) {
        let shows = |draft: &Draft, file: &HostPath| {
            draft.item.kind == FileKind::Directory
                && draft.target.as_path() == draft.item.source.as_path()
                && file.starts_with(&draft.item.source)
        };
        let kept: Vec<_> = (self.drafts.values())
            .filter(|draft| {
                !draft.item.fixed && !draft.item.recursive && self.above(&draft.target).is_none()
            })
            .filter_map(|draft| Some((draft, draft.item.leaf.as_ref()?)))
            .filter(|(draft, link)| link.path.as_path() == draft.target.as_path())
            .filter(|(_, link)| !self.own.contains_key(link.path.as_path()))
            .filter(|(draft, _)| {
                self.drafts.values().any(|other| {
                    other.target != draft.target
                        && shows(other, &draft.item.source)
                        && stands_in(&other.item, &draft.item)
                })
            })
            .map(|(draft, link)| (draft.target.clone(), link.text.clone()))
            .collect();
        for (path, text) in kept {
            let Some(draft) = self.drafts.remove(&path) else {
                continue;
            };
            self.links.insert(
                path.clone(),
                Link {
                    path,
                    text,
                    reasons: draft.reasons,
                },
            );
        }
    }

    fn drop_covered_links(&mut self) {
        let paths: Vec<_> = self.links.keys().cloned().collect();
        for path in paths {
            if self.above(&path).is_some() || self.drafts.contains_key(&path) {
                self.links.remove(&path);
            }
        }
    }

    /// What the host has at `path`, whose directory has no links in it; what cannot be told is an
    /// error of the whole.
    pub(super) fn node(&self, path: &HostPath) -> Option<Node> {
        let unreadable = |errno| LookupError::Unreadable {
            at: path.clone(),
            errno,
        };
        let node = found(self.host.node(path.as_path()).map_err(unreadable));
        node.unwrap_or_else(|error| {
            self.unknown.borrow_mut().push(error);
            None
        })
    }

    /// The nearest mount above `target`, and the way from there.
    pub(super) fn above(&self, target: &JailPath) -> Option<(&Draft, PathBuf)> {
        let above = target
            .ancestors()
            .into_iter()
            .rev()
            .find_map(|above| self.drafts.get(&above))?;
        Some((above, target.below(&above.target)?.to_owned()))
    }

    /// A mount inside another one needs something to mount on, and nothing is ever made in a
    /// source.
    fn check_parents(&mut self) {
        let errors: Vec<_> = self
            .drafts
            .values()
            .filter_map(|draft| self.cannot_be_inside(draft))
            .collect();
        self.errors.extend(errors);
    }

    /// Why nothing can be mounted at the draft's target, if it is inside another mount.
    fn cannot_be_inside(&self, draft: &Draft) -> Option<Error> {
        let (above, rest) = self.above(&draft.target)?;
        let on_host = above.item.source.join(&rest).ok()?;
        let _ = self.host.walk(&on_host); // so that every name on the way counts as looked up
        let found = match self.host.glimpse(&on_host) {
            Ok(found) => found.map(|node| (node.stat.kind, node.link)),
            Err(error) => return Some(error.error(format!("cannot look at {on_host}"))),
        };
        let hidden = self.hidden_below(&above.item, &on_host);
        if hidden.is_none()
            && found
                .as_ref()
                .is_some_and(|(kind, _)| draft.item.kind.fits_on(*kind))
        {
            return None;
        }
        let why = match (&hidden, found) {
            (Some(point), _) => format!("without what the host has mounted at {point}"),
            (None, Some((_, Some(text)))) => {
                format!("and {on_host} is a link there, to {}", text.display())
            }
            (None, _) if draft.item.kind == FileKind::Directory => {
                format!("and {on_host} is no directory to mount on")
            }
            (None, _) => format!("and {on_host} is no file to mount on"),
        };
        let error = Error::failed(format!(
            "cannot mount {} on {} ({}): {} is mounted on {} ({}), {why}",
            draft.item.source,
            draft.target,
            origins(&draft.reasons),
            above.item.source,
            above.target,
            origins(&above.reasons),
        ));
        Some(match hidden {
            Some(point) => error
                .hint(format!("add {point} to `mounts`, or say `recursive: true` of {}", above.item.source)),
            None => error.hint(
                "nothing is ever made inside a source; choose another target, or mount fewer files above",
            ),
        })
    }

    /// The host's mount point between `mount` and the directory of `file`, whose contents the jail
    /// does not have.
    fn hidden_below(&self, mount: &Item, file: &HostPath) -> Option<HostPath> {
        let directories = file
            .as_path()
            .ancestors()
            .skip(1)
            .filter_map(|path| HostPath::new(path).ok());
        let below: Vec<_> = directories
            .take_while(|path| path.starts_with(&mount.source))
            .collect();
        below
            .into_iter()
            .rev()
            .find(|path| self.node(path).is_some() && self.in_mount(mount, path).is_none())
    }
}

impl Draft {
    fn mount(self) -> Mount {
        let options = self.item.effective();
        let Item {
            source,
            file,
            kind,
            recursive,
            ..
        } = self.item;
        Mount {
            target: self.target,
            source,
            file: Some(file),
            kind,
            options,
            recursive,
            reasons: self.reasons,
        }
    }
}

/// Where a path's directory is if some of the links on the way are directories in the root, and how
/// many of them are passed before the first such.
fn part_of_the_way(path: &JailPath, way: &Way, kept: impl Fn(&Path) -> bool) -> (PathBuf, usize) {
    let mut rest: VecDeque<OsString> = path
        .parent()
        .map(|directory| names(directory.as_path()))
        .unwrap_or_default();
    let mut at = PathBuf::from("/");
    let mut passed = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(name);
        match way
            .links
            .get(passed)
            .filter(|link| link.path.as_path() == at)
        {
            Some(link) if !kept(&at) => {
                at = if link.text.is_absolute() {
                    PathBuf::from("/")
                } else {
                    at.parent().unwrap_or(Path::new("/")).to_owned()
                };
                for name in names(&link.text).into_iter().rev() {
                    rest.push_front(name);
                }
                passed += 1;
            }
            Some(_) => {
                at.extend(rest.drain(..));
            }
            None => {}
        }
    }
    (at, passed)
}

pub(super) fn names(path: &Path) -> VecDeque<OsString> {
    use std::path::Component;
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// Whether the directory `above` gives `item` what it needs, and no more but to execute.
pub(super) fn stands_in(above: &Item, item: &Item) -> bool {
    let (shown, wanted) = (above.effective(), item.effective());
    let same = |noexec| MountAttributes { noexec, ..shown } == MountAttributes { noexec, ..wanted };
    shown == wanted || (!item.fixed && !shown.noexec && same(false))
}

/// What allows all that either allows.
fn widest(a: MountAttributes, b: MountAttributes) -> MountAttributes {
    MountAttributes {
        read_only: a.read_only && b.read_only,
        nosuid: a.nosuid && b.nosuid,
        nodev: a.nodev && b.nodev,
        noexec: a.noexec && b.noexec,
    }
}

fn origins(reasons: &[Reason]) -> String {
    reasons
        .first()
        .map(|reason| reason.origin.to_string())
        .unwrap_or_default()
}

/// Two sources for one target.
pub(super) fn conflict(
    target: &JailPath,
    one: &HostPath,
    because: &[Reason],
    other: &HostPath,
    origin: &Arc<Origin>,
) -> Error {
    let because = origins(because);
    Error::usage(format!(
        "two sources for {target}: {one}, from {because}; and {other}, from {origin}"
    ))
    .hint("take one of the two lines out, or give one another `target`")
}

fn differing(draft: &Draft, item: &Item, reason: &Reason) -> Error {
    let form = |item: &Item| {
        format!(
            "{}{}",
            item.options,
            if item.recursive { ",recursive" } else { "" }
        )
    };
    Error::usage(format!(
        "two ways to mount {}: {}, from {}; and {}, from {}",
        draft.target,
        form(&draft.item),
        origins(&draft.reasons),
        form(item),
        reason.origin
    ))
    .hint("make the two lines say the same, or take one out")
}
