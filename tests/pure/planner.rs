//! The planner against a model of a root: applying a plan reaches what is desired, the next plan is
//! empty, up and then down restores, and a crash after any step is finished by the next run.

use std::collections::BTreeMap;
use std::sync::Arc;

use mountjail::base::MountAttributes;
use mountjail::base::{HostPath, JailPath, SiteName};
use mountjail::observe::{
    BootId, BootRecord, CreatedKind, CreatedPath, Holder, Identity, Observed, ObservedMount,
    PathState, PersistentRecord, RecordedMount, Stray, Unknown,
};
use mountjail::plan::{self, Plan, State, Step};
use mountjail::resolve::{Desired, FileId, FileKind, Link, Mount};
use proptest::prelude::*;

fn jail(path: &str) -> JailPath {
    JailPath::new(path).unwrap()
}

fn root() -> HostPath {
    HostPath::new("/srv/s").unwrap()
}

fn site() -> SiteName {
    SiteName::new("s").unwrap()
}

fn file(ino: u64) -> FileId {
    FileId { dev: 1, ino }
}

/// The contents of one path of a root's own file system.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    kind: FileKind,
    ino: u64,
    link: Option<String>,
}

/// A root: its files, the mounts in it, the records.
#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    files: BTreeMap<JailPath, Node>,
    mounts: BTreeMap<JailPath, Vec<ObservedMount>>,
    /// What the mount at a path above hides: that path, and what it is.
    buried: Vec<(JailPath, JailPath, ObservedMount)>,
    record: Vec<RecordedMount>,
    kept: Vec<CreatedPath>,
    next: u64,
}

impl World {
    fn id(&mut self) -> u64 {
        self.next += 1;
        1000 + self.next
    }

    /// The innermost mount above `path`, if there is one.
    fn mounted_above(&self, path: &JailPath) -> bool {
        path.directories_above()
            .iter()
            .any(|above| self.mounts.contains_key(above))
    }

    fn observe(&self, desired: &Desired) -> Observed {
        let mut observed = Observed {
            record: (!self.record.is_empty()).then(|| BootRecord {
                directory: None,
                mounts: self.record.clone(),
                ..BootRecord::nothing(BootId("b".into()), root())
            }),
            kept: (!self.kept.is_empty()).then(|| PersistentRecord {
                made: self.kept.clone(),
                ..PersistentRecord::nothing(root())
            }),
            ..Observed::default()
        };
        let desired_at = desired.mounts.iter().map(|mount| mount.target.clone());
        let known: Vec<_> = desired_at
            .chain(self.record.iter().map(|mount| mount.target.clone()))
            .collect();
        for target in &known {
            if let Some(stack) = self.mounts.get(target) {
                observed.mounts.insert(target.clone(), covered(stack));
            }
        }
        observed.strays = self
            .buried
            .iter()
            .map(|(_, target, seen)| stray(target, target, seen))
            .chain(self.moved())
            .collect();
        let strays = &mut observed.strays;
        strays.sort_by(|a, b| b.point.cmp(&a.point));
        observed.holders = self.holders(desired, &known);
        for (path, stack) in &self.mounts {
            let is_stray = |stray: &Stray| {
                stack
                    .iter()
                    .any(|seen| seen.unique_id == Some(stray.unique_id))
            };
            if !known.contains(path) && !observed.strays.iter().any(is_stray) {
                observed.elsewhere.insert(path.clone(), covered(stack));
            }
        }
        let links = desired.links.iter().map(|link| &link.path);
        for path in known
            .iter()
            .filter(|target| !self.mounts.contains_key(target))
            .chain(links)
        {
            for at in path.directories_above().iter().chain([path]) {
                if self.mounted_above(at) {
                    break; // what is seen there is in a source
                }
                match self.files.get(at) {
                    Some(node) => drop(observed.paths.insert(at.clone(), self.seen(at, node))),
                    None => break,
                }
            }
        }
        observed
    }

    /// The recorded mounts that are at other paths now.
    fn moved(&self) -> Vec<Stray> {
        let mut moved = vec![];
        for recorded in &self.record {
            for (path, stack) in &self.mounts {
                for seen in stack {
                    if seen.unique_id == recorded.unique_id && *path != recorded.target {
                        moved.push(stray(&recorded.target, path, seen));
                    }
                }
            }
        }
        moved
    }

    /// The directories on the way to something that are in a mount which is at no target.
    fn holders(&self, desired: &Desired, known: &[JailPath]) -> BTreeMap<JailPath, Holder> {
        let mut holders = BTreeMap::new();
        let links = desired.links.iter().map(|link| &link.path);
        for directory in known
            .iter()
            .chain(links)
            .flat_map(JailPath::directories_above)
        {
            let mut ways = directory.directories_above();
            ways.push(directory.clone());
            let innermost = ways
                .iter()
                .rev()
                .find_map(|way| self.mounts.get_key_value(way));
            let Some((point, stack)) = innermost else {
                continue;
            };
            if !known.contains(point) {
                holders.insert(directory, holder(point, stack.last().unwrap()));
            }
        }
        holders
    }

    fn seen(&self, path: &JailPath, node: &Node) -> PathState {
        let below = |other: &JailPath| other != path && other.starts_with(path);
        let made = |other: &JailPath| self.kept.iter().any(|made| made.path == *other);
        PathState {
            kind: node.kind,
            file: identity(node.ino),
            empty: !self.files.keys().any(|other| below(other) && !made(other)),
            link: node.link.as_ref().map(Into::into),
        }
    }

    /// Carries out the first `steps` steps as the engine does, with half of a swap as one.
    fn apply(&mut self, plan: &Plan, steps: usize) {
        assert!(plan.conflicts.is_empty(), "{:?}", plan.conflicts);
        let ids: BTreeMap<_, _> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Attach { mount, .. } | Step::Swap { mount, .. } => {
                    Some((mount.target.clone(), self.id()))
                }
                _ => None,
            })
            .collect();
        let new = |mount: &Arc<Mount>| recorded(mount, ids[&mount.target]);
        let will_be: Vec<_> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Attach { mount, .. } | Step::Swap { mount, .. } => Some(new(mount)),
                _ => None,
            })
            .collect();
        let kept = plan
            .unchanged
            .iter()
            .filter(|keep| !self.record.contains(keep))
            .cloned()
            .collect::<Vec<_>>();
        self.record
            .extend(kept.into_iter().chain(will_be.iter().cloned()));
        for step in &plan.steps {
            if let Step::CreatePlaceholder { path, kind } = step {
                let kind = if *kind == FileKind::Directory {
                    CreatedKind::Directory
                } else {
                    CreatedKind::File
                };
                self.kept.push(CreatedPath::planned(path.clone(), kind));
            }
            if let Step::CreateLink { path, destination } = step {
                self.kept.push(CreatedPath::planned(
                    path.clone(),
                    CreatedKind::Link(destination.clone()),
                ));
            }
        }
        let mut done = 0;
        for step in &plan.steps {
            for half in 0..2 {
                if done == steps {
                    return;
                }
                done += 1;
                self.half(step, half, &ids);
            }
        }
        self.record = plan.unchanged.iter().cloned().chain(will_be).collect();
    }

    fn half(&mut self, step: &Step, half: usize, ids: &BTreeMap<JailPath, u64>) {
        match (step, half) {
            (
                Step::Swap {
                    mount, expected, ..
                },
                0,
            ) => {
                let id = ids[&mount.target];
                let stack = self.mounts.get_mut(&mount.target).unwrap();
                assert_eq!(stack.last().unwrap().unique_id, expected.unique_id);
                stack.insert(stack.len() - 1, mounted(mount, id));
            }
            (Step::Swap { mount, .. }, _) => self.pop(&mount.target),
            // There are no templates here.
            (_, 1) | (Step::Refresh { .. }, _) => {}
            (
                Step::Detach {
                    target, expected, ..
                },
                _,
            ) => {
                assert_eq!(
                    self.mounts[target].last().unwrap().unique_id,
                    expected.unique_id
                );
                self.pop(target);
            }
            (Step::Attach { mount, .. }, _) => {
                let exists = self.files.get(&mount.target);
                assert!(
                    self.mounted_above(&mount.target)
                        || exists.is_some_and(|node| mount.kind.fits_on(node.kind))
                );
                assert!(
                    !self.has_mounts_in(&mount.target),
                    "{} hides mounts",
                    mount.target
                );
                let id = ids[&mount.target];
                let stack = self.mounts.entry(mount.target.clone()).or_default();
                assert!(stack.is_empty(), "stacked on {}", mount.target);
                stack.push(mounted(mount, id));
            }
            (Step::DetachStray(stray), _) => {
                let is_it = |seen: &ObservedMount| seen.unique_id == Some(stray.unique_id);
                let at = root().path_inside(stray.point.as_deref().unwrap()).unwrap();
                let top = self.mounts.get(&at).and_then(|stack| stack.last());
                assert!(top.is_some_and(is_it), "{} is hidden", stray.target);
                self.pop(&at);
                self.clear_after(&stray.target, &at);
            }
            (Step::CreatePlaceholder { path, kind }, _) => self.create(path, *kind, None),
            (Step::CreateLink { path, destination }, _) => {
                self.create(
                    path,
                    FileKind::Symlink,
                    Some(destination.to_str().unwrap().to_owned()),
                );
            }
            (Step::RemovePlaceholder { path, kind, file }, _) => self.remove(path, *kind, *file),
            (Step::RemoveLink { path, .. }, _) => self.remove(path, FileKind::Symlink, None),
            (Step::CreateDirectory { path, .. }, _) => {
                self.create(path, FileKind::Directory, None);
            }
            (Step::WriteFile(_) | Step::RemoveFile(_), _) => {
                unreachable!("no site of the model has users")
            }
            (Step::DetachCovered { .. }, _) => unreachable!("no site of the model has grafts"),
        }
    }

    fn has_mounts_in(&self, target: &JailPath) -> bool {
        self.mounts
            .keys()
            .any(|other| other != target && other.starts_with(target))
    }

    fn pop(&mut self, target: &JailPath) {
        assert!(!self.has_mounts_in(target), "{target} has mounts on it");
        let stack = self.mounts.get_mut(target).unwrap();
        stack.pop();
        if stack.is_empty() {
            self.mounts.remove(target);
            let buried = std::mem::take(&mut self.buried);
            for (above, at, seen) in buried {
                if above == *target {
                    self.mounts.insert(at, vec![seen]);
                } else {
                    self.buried.push((above, at, seen));
                }
            }
        }
    }

    /// Mounts `mount`, a directory, over all mounts in its target, as no plan does.
    fn bury(&mut self, mount: &Arc<Mount>) {
        for path in mount
            .target
            .directories_above()
            .iter()
            .chain([&mount.target])
        {
            if !self.files.contains_key(path) {
                self.create(path, FileKind::Directory, None);
            }
        }
        let inside = |path: &JailPath| *path != mount.target && path.starts_with(&mount.target);
        let paths: Vec<_> = self
            .mounts
            .keys()
            .filter(|path| inside(path))
            .cloned()
            .collect();
        for path in paths {
            let [seen] = self.mounts.remove(&path).unwrap().try_into().unwrap();
            self.buried.push((mount.target.clone(), path, seen));
        }
        let id = self.id();
        self.mounts
            .insert(mount.target.clone(), vec![mounted(mount, id)]);
        self.record.push(recorded(mount, id));
    }

    fn create(&mut self, path: &JailPath, kind: FileKind, link: Option<String>) {
        assert!(
            !self.mounted_above(path),
            "{path} would be made in a source"
        );
        let parent = path.parent().filter(|parent| *parent != JailPath::slash());
        assert!(parent.is_none_or(|parent| self.files[&parent].kind == FileKind::Directory));
        let ino = self.id();
        assert!(
            self.files
                .insert(path.clone(), Node { kind, ino, link })
                .is_none(),
            "{path} is there already"
        );
        let node = &self.files[path];
        let kind = match (&node.link, kind) {
            (Some(text), _) => CreatedKind::Link(text.into()),
            (None, FileKind::Directory) => CreatedKind::Directory,
            (None, _) => CreatedKind::File,
        };
        self.kept.retain(|made| made.path != *path);
        self.kept.push(CreatedPath {
            file: Some(identity(ino)),
            ..CreatedPath::planned(path.clone(), kind)
        });
    }

    /// Removes the placeholder of the mount that was made at `target` and is detached from `at`.
    fn clear_after(&mut self, target: &JailPath, at: &JailPath) {
        for made in self.kept.clone() {
            if made.path == *target {
                self.remove_file(at, kind_of(&made), made.file);
            }
        }
    }

    /// The directories at these paths change places, with all that is mounted in them, unless that
    /// makes no sense. What is mounted on cannot be renamed.
    fn exchange(&mut self, one: &JailPath, other: &JailPath) {
        for path in [one, other] {
            let node = self.files.get(path);
            let is_directory = node.is_some_and(|node| node.kind == FileKind::Directory);
            if !is_directory || self.mounts.contains_key(path) || self.mounted_above(path) {
                return;
            }
        }
        if one.starts_with(other) || other.starts_with(one) {
            return;
        }
        let renamed = |path: JailPath| {
            for (from, to) in [(one, other), (other, one)] {
                if let Some(below) = path.below(from) {
                    let path = to.as_path().join(below);
                    return jail(path.to_str().unwrap().trim_end_matches('/'));
                }
            }
            path
        };
        let files = std::mem::take(&mut self.files).into_iter();
        self.files = files.map(|(path, node)| (renamed(path), node)).collect();
        let mounts = std::mem::take(&mut self.mounts).into_iter();
        self.mounts = mounts.map(|(path, stack)| (renamed(path), stack)).collect();
    }

    /// As the engine: only what is empty, unchanged, not mounted on, and not in a source.
    fn remove(&mut self, path: &JailPath, kind: FileKind, made: Option<Identity>) {
        self.remove_file(path, kind, made);
        self.kept.retain(|made| made.path != *path);
    }

    fn remove_file(&mut self, path: &JailPath, kind: FileKind, made: Option<Identity>) {
        let below = self
            .files
            .keys()
            .any(|other| other != path && other.starts_with(path));
        let same =
            |node: &Node| node.kind == kind && made.is_none_or(|made| made.is(&identity(node.ino)));
        if self.files.get(path).is_some_and(same)
            && !below
            && !self.mounts.contains_key(path)
            && !self.mounted_above(path)
        {
            self.files.remove(path);
        }
    }
}

fn kind_of(made: &CreatedPath) -> FileKind {
    match made.kind {
        CreatedKind::Directory => FileKind::Directory,
        CreatedKind::File => FileKind::File,
        CreatedKind::Link(_) => FileKind::Symlink,
    }
}

/// As a file system tells it that does not say when files were made.
fn identity(ino: u64) -> Identity {
    Identity {
        ino,
        on_root: Some(true),
        born: None,
    }
}

fn covered(stack: &[ObservedMount]) -> Vec<ObservedMount> {
    let mut seen = stack.to_vec();
    let last = seen.len() - 1;
    for mount in &mut seen[..last] {
        (mount.file, mount.kind) = (None, None);
    }
    seen
}

/// The mount `seen`, which was made at `target` and is at `path` now.
fn stray(target: &JailPath, path: &JailPath, seen: &ObservedMount) -> Stray {
    let point = Some(root().inside(path).as_path().to_owned());
    Stray {
        target: target.clone(),
        unique_id: seen.unique_id.unwrap(),
        point,
    }
}

/// The mount `seen` at `path`, as that of a directory.
fn holder(path: &JailPath, seen: &ObservedMount) -> Holder {
    Holder {
        id: seen.id,
        unique_id: seen.unique_id,
        device: 1,
        root: "/".into(),
        point: root().inside(path).as_path().to_owned(),
        own_volume: false,
    }
}

/// How the record has a mount with this id.
fn recorded(mount: &Mount, id: u64) -> RecordedMount {
    RecordedMount {
        file_system: None,
        target: mount.target.clone(),
        source: mount.source.clone(),
        file: mount.file.unwrap(),
        attributes: mount.attributes,
        recursive: mount.recursive,
        submounts: None,
        unique_id: Some(id),
        since: None,
        template: None,
        peer_group: None,
        more: Unknown::new(),
    }
}

fn mounted(mount: &Mount, id: u64) -> ObservedMount {
    ObservedMount {
        file_system: None,
        id,
        unique_id: Some(id),
        file: mount.file,
        kind: Some(mount.kind),
        fs_root: None,
        attributes: mount.attributes,
        made_shared: false,
        master: None,
        device: None,
    }
}

/// The targets that a site of the model may have: some inside others, some whose type changes,
/// names that sort oddly, and some that have the names and the sources of others.
const TARGETS: [&str; 12] = [
    "/a", "/a/b", "/a/b/c", "/a.b", "/c", "/d", "/d/e", "/d/f", "/w/b", "/w/b/c", "/x/y", "/x/y/z",
];

/// Directories on the way to targets.
const WAYS: [&str; 7] = ["/a", "/a/b", "/d", "/l", "/w", "/x", "/x/y"];

/// For each target: which of three files, with which attributes; `None`: not asked for.
type Choice = (Vec<Option<(u64, bool)>>, Option<bool>);

fn choice() -> impl Strategy<Value = Choice> {
    let mount = proptest::option::of((0..3u64, any::<bool>()));
    (
        proptest::collection::vec(mount, TARGETS.len()),
        proptest::option::of(any::<bool>()),
    )
}

fn desired((mounts, link): &Choice) -> Desired {
    let mut desired = Desired::nothing(&site(), &root());
    for (target, wanted) in TARGETS.iter().zip(mounts) {
        let Some((which, exec)) = wanted else {
            continue;
        };
        let directory = match *target {
            "/a" | "/a.b" | "/d" | "/d/f" => true,
            "/a/b" | "/w/b" | "/x/y" => which % 2 == 0,
            _ => false,
        };
        let like = target.replace("/w/", "/a/");
        let nth = TARGETS.iter().position(|target| *target == like).unwrap();
        // Nothing is in a file.
        if desired.mounts.iter().any(|above: &Arc<Mount>| {
            above.kind == FileKind::File && jail(target).starts_with(&above.target)
        }) {
            continue;
        }
        desired.mounts.push(Arc::new(Mount {
            file_system: None,
            target: jail(target),
            // Two files of one path (stale) and one of another (wrong source).
            source: HostPath::new(format!("/host/{nth}/{}", which / 2)).unwrap(),
            file: Some(file(nth as u64 * 10 + which)),
            kind: if directory {
                FileKind::Directory
            } else {
                FileKind::File
            },
            attributes: if *exec {
                MountAttributes::CODE
            } else {
                MountAttributes::DATA
            },
            recursive: false,
            reasons: vec![],
        }));
    }
    if let Some(first) = link {
        let text = if *first { "c" } else { "d/e" };
        desired.links.push(Link {
            path: jail("/l/link"),
            destination: text.into(),
            reasons: vec![],
        });
    }
    desired.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    desired
}

/// A root before the first `up`: some of the placeholders are there already, and somebody else's
/// mount.
fn bare(own: [bool; 4]) -> World {
    let mut world = World::default();
    let nodes = [
        ("/a", FileKind::Directory),
        ("/c", FileKind::File),
        ("/d", FileKind::Directory),
        ("/l", FileKind::Directory),
    ];
    for ((path, kind), present) in nodes.into_iter().zip(own) {
        if present {
            let ino = world.id();
            world.files.insert(
                jail(path),
                Node {
                    kind,
                    ino,
                    link: None,
                },
            );
        }
    }
    let id = world.id();
    world.mounts.insert(jail("/theirs"), vec![theirs(id)]);
    world
}

/// A mount of somebody else.
fn theirs(id: u64) -> ObservedMount {
    ObservedMount {
        file_system: None,
        id,
        unique_id: Some(id),
        file: Some(file(999)),
        kind: Some(FileKind::File),
        fs_root: None,
        attributes: MountAttributes::DATA,
        made_shared: false,
        master: None,
        device: None,
    }
}

fn up(world: &mut World, desired: &Desired) {
    // A run after a crash may first finish a swap, whose result the next plan sees.
    for run in 0.. {
        let plan = plan::up(desired, &world.observe(desired), None);
        world.apply(&plan, usize::MAX);
        assert!(!plan.unfinished || run < 4, "it comes to no end");
        if !plan.unfinished && run > 0 {
            break;
        }
    }
    let plan = plan::up(desired, &world.observe(desired), None);
    assert!(plan.in_sync(), "not in sync: {:#?}", plan.steps);
    let ours = plan.states.iter().filter(|state| state.mount.is_some());
    assert!(
        ours.clone().all(|state| state.state == State::Ok),
        "{:?}",
        plan.states
    );
    assert_eq!(ours.count(), desired.mounts.len());
}

/// Carries out plans as one `up` does. Returns whether nothing is in the way.
fn ends(world: &mut World, desired: &Desired) -> bool {
    for _ in 0..10 {
        let observed = world.observe(desired);
        let plan = plan::up(desired, &observed, None);
        for conflict in &plan.conflicts {
            let text = conflict.to_string();
            assert!(
                !text.contains("by mountjail"),
                "only mountjail mounts: {text}"
            );
        }
        if !plan.conflicts.is_empty() {
            return false;
        }
        world.kept.retain(|made| !observed.is_gone(made));
        world.apply(&plan, usize::MAX);
        if !plan.unfinished {
            return true;
        }
    }
    panic!("it comes to no end");
}

fn down(world: &mut World) {
    let nothing = Desired::nothing(&site(), &root());
    let plan = plan::down(&site(), &root(), None, &world.observe(&nothing));
    world.apply(&plan, usize::MAX);
}

/// What is mounted, without the ids.
fn table(world: &World) -> BTreeMap<JailPath, Vec<(Option<FileId>, MountAttributes)>> {
    let shown = |stack: &Vec<ObservedMount>| {
        stack
            .iter()
            .map(|seen| (seen.file, seen.attributes))
            .collect()
    };
    world
        .mounts
        .iter()
        .map(|(path, stack)| (path.clone(), shown(stack)))
        .collect()
}

/// The world without its counter.
fn visible(world: &World) -> World {
    World {
        next: 0,
        ..world.clone()
    }
}

/// It cannot be detached before the other one, and must not be forgotten meanwhile.
#[test]
fn an_orphan_beneath_a_foreign_mount_stays_recorded() {
    let before = bare([false; 4]);
    let mut world = before.clone();
    let choices = TARGETS.map(|target| (target == "/c").then_some((0, false)));
    up(&mut world, &desired(&(choices.to_vec(), None)));

    let id = world.id();
    world.mounts.get_mut(&jail("/c")).unwrap().push(theirs(id));
    let nothing = Desired::nothing(&site(), &root());
    up(&mut world, &nothing);
    world.mounts.get_mut(&jail("/c")).unwrap().pop();
    up(&mut world, &nothing);
    assert_eq!(visible(&world), visible(&before));
}

/// A mount that was moved lies in a directory that another one would cover.
#[test]
fn a_moved_mount_in_the_way_is_not_taken_for_a_foreign_one() {
    let with = |asked: &[&str]| {
        let choices = TARGETS.map(|target| asked.contains(&target).then_some((0, false)));
        desired(&(choices.to_vec(), None))
    };
    let mut world = bare([true, false, false, false]);
    up(&mut world, &with(&["/w/b"]));
    world.exchange(&jail("/a"), &jail("/w"));
    let wanted = with(&["/a", "/a/b/c"]);
    let plan = plan::up(&wanted, &world.observe(&wanted), None);
    let [conflict] = plan.conflicts.as_slice() else {
        panic!("{:?}", plan.conflicts)
    };
    let text = conflict.to_string();
    assert!(
        text.contains("cannot mount /host/0/0 on /srv/s/a: "),
        "{text}"
    );
    assert!(text.contains("a directory that is not empty"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn up_reaches_what_is_desired_and_down_restores(
        first in choice(), second in choice(), own: [bool; 4],
    ) {
        let before = bare(own);
        let (mut world, mut fresh) = (before.clone(), before.clone());
        up(&mut world, &desired(&first));
        up(&mut world, &desired(&second));
        up(&mut fresh, &desired(&second));
        prop_assert_eq!(table(&world), table(&fresh), "as from nothing");
        down(&mut world);
        prop_assert_eq!(visible(&world), visible(&before));
    }

    /// A site whose own mounts a new one hides, as version 0.1.0 made them.
    #[test]
    fn what_hides_mounts_of_ours_is_taken_off(
        first in choice(), second in choice(), over in 0..TARGETS.len(),
    ) {
        let before = bare([false; 4]);
        let (mut world, mut fresh) = (before.clone(), before.clone());
        let over = Mount {
            file_system: None,
            target: jail(TARGETS[over]),
            source: HostPath::new("/host/over").unwrap(),
            file: Some(file(500)),
            kind: FileKind::Directory,
            attributes: MountAttributes::DATA,
            recursive: false,
            reasons: vec![],
        };
        let (mut first, mut second) = (desired(&first), desired(&second));
        first.mounts.retain(|mount| mount.target != over.target);
        up(&mut world, &first);
        let over = Arc::new(over);
        if world.mounted_above(&over.target) {
            return Ok(()); // what it hides has its mounts in another one
        }
        world.bury(&over);
        let mut stuck = world.clone();
        up(&mut world, &second);
        up(&mut fresh, &second);
        prop_assert_eq!(table(&world), table(&fresh), "as from nothing");
        down(&mut world);
        prop_assert_eq!(visible(&world), visible(&before));
        // The manifest that made it so.
        second = first.clone();
        second.mounts.retain(|mount| !mount.target.starts_with(&over.target));
        second.mounts.push(over);
        second.mounts.sort_by(|a, b| a.target.cmp(&b.target));
        up(&mut stuck, &second);
        down(&mut stuck);
        prop_assert_eq!(visible(&stuck), visible(&before));
    }

    /// The owner moves directories with mounts in them.
    #[test]
    fn what_was_moved_is_put_right_at_once(
        first in choice(), second in choice(), own: [bool; 4],
        moves in proptest::collection::vec((0..WAYS.len(), 0..WAYS.len()), 1..4),
    ) {
        let mut world = bare(own);
        up(&mut world, &desired(&first));
        for (one, other) in moves {
            world.exchange(&jail(WAYS[one]), &jail(WAYS[other]));
        }
        let wanted = desired(&second);
        if !ends(&mut world, &wanted) {
            return Ok(()); // what he moved is in the way
        }
        let next = plan::up(&wanted, &world.observe(&wanted), None);
        prop_assert!(next.in_sync(), "{:#?}\n{:#?}", next.steps, next.conflicts);
        prop_assert!(world.moved().is_empty());
        down(&mut world);
        prop_assert!(world.mounts.keys().eq([&jail("/theirs")]), "{:#?}", world.mounts);
    }

    #[test]
    fn one_run_is_enough(first in choice(), second in choice(), own: [bool; 4]) {
        let mut world = bare(own);
        for wanted in [first, second] {
            let wanted = desired(&wanted);
            let plan = plan::up(&wanted, &world.observe(&wanted), None);
            world.apply(&plan, usize::MAX);
            if plan.unfinished {
                let rest = plan::up(&wanted, &world.observe(&wanted), None);
                prop_assert!(!rest.unfinished);
                world.apply(&rest, usize::MAX);
            }
            let next = plan::up(&wanted, &world.observe(&wanted), None);
            prop_assert!(next.in_sync(), "{:#?}", next.steps);
            prop_assert_eq!(plan::up(&wanted, &world.observe(&wanted), None), next, "it is \
                                                                               deterministic");
        }
    }

    #[test]
    fn a_crash_after_any_step_is_finished(
        first in choice(), second in choice(), own: [bool; 4], at in 0usize..40,
    ) {
        let before = bare(own);
        let mut world = before.clone();
        up(&mut world, &desired(&first));
        let wanted = desired(&second);
        let plan = plan::up(&wanted, &world.observe(&wanted), None);
        world.apply(&plan, at);
        let mut crashed = world.clone();
        up(&mut world, &wanted);
        down(&mut world);
        prop_assert_eq!(visible(&world), visible(&before), "up, then down");
        down(&mut crashed);
        prop_assert_eq!(visible(&crashed), visible(&before), "down at once");
    }

    #[test]
    fn a_crash_of_down_is_finished(first in choice(), own: [bool; 4], at in 0usize..40) {
        let before = bare(own);
        let mut world = before.clone();
        up(&mut world, &desired(&first));
        let nothing = Desired::nothing(&site(), &root());
        let plan = plan::down(&site(), &root(), None, &world.observe(&nothing));
        world.apply(&plan, at);
        down(&mut world);
        prop_assert_eq!(visible(&world), visible(&before));
    }
}
