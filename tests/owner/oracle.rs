//! Everything that must stay unchanged, whatever the owners do.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::journal::Journal;
use super::player::Act;
use super::world::{Owner, QUIET, World};
use crate::support::{Mount, Tree, mounts, mounts_below, tree};

/// The state in the beginning of everything that nobody may change.
pub struct Oracle<'w> {
    world: &'w World,
    journal: Journal,
    trees: Vec<(PathBuf, Tree)>,
    listings: Vec<(PathBuf, BTreeSet<String>)>,
    outside: BTreeSet<String>,
    /// The roots of the quiet sites while they are down.
    bare: Vec<Tree>,
}

/// Directories in which nothing changes.
const STILL: [&str; 8] = [
    "host/vault",
    "host/unnamed",
    "host/static",
    "host/tree",
    "host/tree/sub",
    "home/vault",
    "home/carol",
    "config/presets",
];

/// Directories in which no name appears or disappears.
const LISTED: [&str; 6] = ["", "host", "host/named", "host/named/share", "home", "srv"];

impl<'w> Oracle<'w> {
    pub fn new(world: &'w World, journal: &Journal) -> Self {
        world.sandbox.directory("output");
        world.sandbox.directory("state");
        let path = |name: &str| world.sandbox.path(name);
        Self {
            world,
            journal: journal.clone(),
            trees: STILL
                .map(path)
                .map(|path| (path.clone(), tree(&path)))
                .into(),
            listings: LISTED
                .map(path)
                .map(|path| (path.clone(), listing(world, &path)))
                .into(),
            outside: outside(world),
            bare: QUIET
                .iter()
                .map(|name| tree(&world.sandbox.root(name)))
                .collect(),
        }
    }

    /// Everything that can be checked while the owners pause.
    pub fn looks_at_all(&self) {
        for (path, before) in &self.trees {
            let changes = before.changes(&tree(path));
            if !changes.is_empty() {
                self.journal.finds(
                    "a: a directory of the host changed",
                    &format!("{}:\n{changes}", path.display()),
                );
            }
        }
        for (path, before) in &self.listings {
            let now = listing(self.world, path);
            let changes: Vec<_> = before.symmetric_difference(&now).collect();
            if !changes.is_empty() {
                self.journal.finds(
                    "a: names in the host's directories",
                    &format!("{}: {changes:?}", path.display()),
                );
            }
        }
        for (name, text) in &*self.world.named.lock().unwrap() {
            let path = self.world.sandbox.path("host/named").join(name);
            let found = fs::read_to_string(&path);
            if !found.as_ref().is_ok_and(|found| found == text) {
                self.journal.finds(
                    "a: a source changed",
                    &format!("{}: {found:?}, not {text:?}", path.display()),
                );
            }
        }
        for owner in &self.world.owners {
            let upload = self.world.upload(owner);
            let of_root = made_by_root(&upload);
            if !of_root.is_empty() {
                self.journal.finds(
                    "a: something was made in a read-write source",
                    &format!("{of_root:?}"),
                );
            }
        }
        self.looks_at_the_table();
        self.searches();
    }

    /// Checks the mount table, which must be right at any moment.
    pub fn looks_at_the_table(&self) {
        let now = outside(self.world);
        let changes: Vec<_> = self.outside.symmetric_difference(&now).collect();
        if !changes.is_empty() {
            self.journal.finds(
                "a: the mount table outside of the sites changed",
                &format!("{changes:#?}"),
            );
        }
        for owner in &self.world.owners {
            for mount in owner.sites_mounts() {
                if let Err(why) = self.is_named(owner, &mount) {
                    self.journal.finds(
                        "d: a mount that no manifest names",
                        &format!("{}: {why}: {mount:?}", owner.name),
                    );
                }
            }
        }
    }

    /// Whether the mount shows what the manifest may name, in the way that it may be shown.
    fn is_named(&self, owner: &Owner, mount: &Mount) -> Result<(), String> {
        if mount.kind.starts_with("fuse") {
            return Ok(()); // it shows what its owner likes, read-only
        }
        let base = self.world.sandbox.path("");
        let inside = mount.root.strip_prefix("/").unwrap_or(&mount.root);
        let shown = base.parent().unwrap().join(inside);
        let upload = self.world.upload(owner);
        let writable = shown.starts_with(&upload);
        if !mount.has("ro") && !writable {
            return Err("it is writable".to_owned());
        }
        let host = |name: &str| self.world.sandbox.path("host").join(name);
        let generated = self
            .world
            .sandbox
            .state()
            .join("lib")
            .join(format!("{}.", owner.name));
        let named = [
            host("named"),
            host("static"),
            host("tree"),
            upload,
            owner.home.clone(),
            owner.root.clone(),
        ];
        let of_host = ["/usr", "/lib", "/etc/ld.so"]
            .iter()
            .any(|system| mount.root.to_string_lossy().starts_with(system));
        let device = mount.root.ends_with("null");
        // what is in it, is searched
        let whole_tmpfs = mount.kind == "tmpfs" && mount.root == Path::new("/");
        let is_named = named.iter().any(|named| shown.starts_with(named))
            || shown
                .to_string_lossy()
                .starts_with(&*generated.to_string_lossy())
            || of_host
            || device
            || whole_tmpfs
            || mount.is_graft && mount.has("ro")
            || is_of(owner, &shown);
        if is_named {
            Ok(())
        } else {
            let [source, target] = [&shown, &mount.point].map(|path| owner_of(path));
            Err(format!(
                "no line names what it shows, of user {source:?}, and at the target {target:?}"
            ))
        }
    }

    /// Looks into the sites' roots and their owners' homes, with the owners' rights.
    fn searches(&self) {
        let fuse = mounts()
            .into_iter()
            .filter(|mount| mount.kind.starts_with("fuse"));
        let without: Vec<_> = fuse.map(|mount| mount.point).collect();
        for owner in &self.world.owners {
            let directories = [&owner.home, &owner.root];
            // A link of his own on the way shows him only what he can see anyway.
            let is_real = |path: &Path| fs::canonicalize(path).is_ok_and(|real| real == path);
            let directories: Vec<_> = directories
                .into_iter()
                .filter(|path| !without.contains(path) && is_real(path))
                .cloned()
                .collect();
            let found = self
                .world
                .plays(
                    owner,
                    Act::Search {
                        directories,
                        without: without.clone(),
                    },
                )
                .unwrap();
            let own = format!("secret of {}'s", owner.name);
            let foreign = found.lines().filter(|line| !line.ends_with(&own));
            for line in foreign.filter(|line| !self.was_given(line)) {
                self.journal.finds(
                    "d: a secret can be read",
                    &format!("by {}: {line}", owner.name),
                );
            }
        }
    }

    /// Whether the secret, which `line` says where it was found, is a file that its owner has moved
    /// there: it lies on the file system of the homes, and no mount shows it.
    fn was_given(&self, line: &str) -> bool {
        let path = Path::new(line.split('\t').next().unwrap_or_default());
        let base = self.world.sandbox.path("");
        let is_shown = |mount: &Mount| path.starts_with(&mount.point) && mount.point != base;
        let below = mounts_below(&base);
        let uid = fs::symlink_metadata(path).map(|found| found.uid()).ok();
        let of_an_owner = self.world.owners.iter().any(|owner| Some(owner.uid) == uid);
        of_an_owner && !below.iter().any(is_shown)
    }

    /// Whether the `nth` quiet site is up, and all of it is as it should be.
    ///
    /// The watcher may be about to swap one of its mounts, which on some kernels is gone for a
    /// moment meanwhile.
    pub fn quiet_is_up(&self, nth: usize) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match self.quiet_is_up_now(nth) {
                Err(_) if start.elapsed() < Duration::from_secs(30) => {
                    thread::sleep(Duration::from_millis(10));
                }
                result => return result,
            }
        }
    }

    fn quiet_is_up_now(&self, nth: usize) -> Result<(), String> {
        let root = self.world.sandbox.root(QUIET[nth]);
        let mounts = mounts_below(&root);
        let count = [4, 2][nth]; // conf, /dev/null, passwd, group; conf and share
        if mounts.len() != count || !mounts.iter().all(|mount| mount.has("ro")) {
            return Err(format!("the mounts of {} are {mounts:#?}", QUIET[nth]));
        }
        let text = fs::read_to_string(root.join("etc/conf"));
        if text.as_ref().is_ok_and(|text| !text.is_empty()) {
            Ok(())
        } else {
            Err(format!("it reads {text:?}"))
        }
    }

    /// Whether the `nth` quiet site is down, and its root as before.
    pub fn quiet_is_down(&self, nth: usize) -> Result<(), String> {
        let root = self.world.sandbox.root(QUIET[nth]);
        let mounts = mounts_below(&root);
        let changes = self.bare[nth].changes(&tree(&root));
        if mounts.is_empty() && changes.is_empty() {
            Ok(())
        } else {
            Err(format!("{mounts:#?}\n{changes}"))
        }
    }

    /// Files that should be gone once all sites are down.
    pub fn records(&self) -> Vec<PathBuf> {
        let mut left = vec![];
        for directory in ["run", "lib"] {
            let entries = fs::read_dir(self.world.sandbox.state().join(directory))
                .into_iter()
                .flatten()
                .flatten();
            let record = |path: &PathBuf| {
                path.extension().is_none_or(|extension| extension != "lock") && !path.is_dir()
            };
            left.extend(entries.map(|entry| entry.path()).filter(record));
        }
        left
    }
}

/// Whether the file at `path` is the owner's own, or may be, if that is not known. He may move it
/// to where another owner lets him.
fn is_of(owner: &Owner, path: &Path) -> bool {
    owner_of(path).is_none_or(|user| user == owner.uid)
}

/// The user to whom the file at `path` belongs, if a FUSE file system, which may not answer, need
/// not be asked.
fn owner_of(path: &Path) -> Option<u32> {
    let is_fuse = |mount: &Mount| mount.kind.starts_with("fuse") && path.starts_with(&mount.point);
    if mounts().iter().any(is_fuse) {
        return None;
    }
    Some(fs::symlink_metadata(path).ok()?.uid())
}

/// The mounts that belong to no site, as text.
fn outside(world: &World) -> BTreeSet<String> {
    let base = world.sandbox.path("");
    let scratch = base.parent().unwrap();
    let mut inside: Vec<_> = world
        .owners
        .iter()
        .flat_map(|owner| [owner.home.clone(), owner.root.clone()])
        .collect();
    inside.extend(QUIET.map(|name| world.sandbox.root(name)));
    inside.push(world.sandbox.state());
    let mine = |mount: &Mount| {
        let others = mount.point.starts_with(scratch)
            && !mount.point.starts_with(&base)
            && mount.point != scratch;
        !others && !inside.iter().any(|inside| mount.point.starts_with(inside))
    };
    mounts()
        .into_iter()
        .filter(mine)
        .map(|mount| format!("{mount:?}"))
        .collect()
}

/// What is in a directory, with modes and owners but of what hostile owners have: these change it,
/// and may have mounted there what does not answer.
fn listing(world: &World, path: &Path) -> BTreeSet<String> {
    let describe = |entry: fs::DirEntry| {
        let (path, name) = (entry.path(), entry.file_name());
        if world
            .owners
            .iter()
            .any(|owner| [&owner.root, &owner.home, &world.upload(owner)].contains(&&path))
        {
            return format!("{}", name.display());
        }
        let meta = path.symlink_metadata().unwrap();
        format!("{} {:o} {}", name.display(), meta.mode(), meta.uid())
    };
    fs::read_dir(path)
        .unwrap()
        .map(|entry| describe(entry.unwrap()))
        .collect()
}

/// What is root's in a directory that is not his.
fn made_by_root(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.uid() == 0))
        .collect()
}
