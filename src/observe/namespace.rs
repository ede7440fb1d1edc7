//! The mounts of a namespace, and what identifies one and its copies in others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::OnceLock;

use super::mountinfo::{self, Line};
use crate::Result;
use crate::sys;

/// The identity of a directory or file across namespaces: the device and the path in its file
/// system or, if these are not shown, the path in the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum On {
    Place(u64, OsString),
    Path(OsString),
}

/// The identity of a mount and its copies across namespaces: what it shows, and what it is mounted
/// on.
pub(super) type MountIdentity = (On, On);

/// The device of what a mount is on, if it is known, and its own device. They distinguish a mount
/// from most others without its paths.
pub(super) type Pair = (Option<u64>, u64);

/// The key of the mount with this unique ID.
pub(super) fn key_of_mount(unique_id: u64) -> io::Result<MountIdentity> {
    let mount = sys::stat_mount(unique_id)?;
    let on = sys::stat_mount(mount.parent)?;
    let shows = On::Place(mount.device, mount.root.into());
    let on = place(on.device, &on.root, &on.point, &mount.point);
    Ok((shows, on))
}

/// The id of a mount's holder, and the index of the mount. Mounts with the same key are sorted by
/// their holders, because grafts of one template have them in all sites.
type HeldMount = (Option<u64>, usize);

/// The mounts of one namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    lines: Vec<Line>,
    by_id: HashMap<u64, usize>,
    by_point: HashMap<OsString, Vec<usize>>,
    pairs: HashSet<Pair>,
    by_key: OnceLock<HashMap<MountIdentity, Vec<HeldMount>>>,
}

impl Namespace {
    /// The namespace of this process.
    pub(super) fn own() -> Result<Self> {
        Ok(Self::of(&mountinfo::own_text()?, Path::new("/")))
    }

    /// The table `text`, read from a process with the root directory `root`. Its mount points are
    /// relative to that root.
    pub(super) fn of(text: &[u8], root: &Path) -> Self {
        let mut lines: Vec<_> = mountinfo::lines(text).collect();
        let (mut by_id, mut by_point) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (nth, line) in lines.iter_mut().enumerate() {
            let point = &mut line.mount.point;
            if root != Path::new("/") {
                *point = joined(root, below(point, Path::new("/")).unwrap_or_default()).into();
            }
            by_id.insert(line.mount.id, nth);
            by_point
                .entry(point.clone().into_os_string())
                .or_default()
                .push(nth);
        }

        let mut namespace = Self {
            lines,
            by_id,
            by_point,
            pairs: HashSet::new(),
            by_key: OnceLock::new(),
        };
        let lines = namespace.lines.iter();
        namespace.pairs = lines.map(|line| namespace.pair(line)).collect();
        namespace
    }

    /// The devices of the mount of `line`.
    pub(super) fn pair(&self, line: &Line) -> Pair {
        let on = self.parent(line).map(|on| on.mount.device);
        (on, line.mount.device)
    }

    /// The mount that `line`, or the stack of mounts at its place, is on.
    pub(super) fn holder(&self, line: &Line) -> Option<&Line> {
        let mut on = self.parent(line)?;
        while on.mount.point == line.mount.point {
            on = self.parent(on)?;
        }
        Some(on)
    }

    /// The mount that the one of `line` is on, if the table has it.
    pub(super) fn parent(&self, line: &Line) -> Option<&Line> {
        if line.mount.parent == line.mount.id {
            return None;
        }
        Some(&self.lines[*self.by_id.get(&line.mount.parent)?])
    }

    /// Whether the namespace may have a copy of a mount with these devices. `None`: they are not
    /// known.
    pub(super) fn may_have(&self, pair: Option<Pair>) -> bool {
        match pair {
            Some((on, device)) => {
                self.pairs.contains(&(on, device)) || self.pairs.contains(&(None, device))
            }
            None => true,
        }
    }

    /// The mounts with one of `keys`.
    pub(super) fn lines_with(&self, keys: &[MountIdentity]) -> Vec<&Line> {
        let mut found = vec![];
        for key in keys {
            for (_, nth) in self.known_by(key) {
                found.push(&self.lines[*nth]);
            }
        }
        found
    }

    /// The mounts with one of `keys` that are on one of the mounts `on`, or on one that the table
    /// does not have.
    pub(super) fn lines_on(&self, keys: &[MountIdentity], on: &[&Line]) -> Vec<&Line> {
        let holders: BTreeSet<_> = on.iter().map(|line| Some(line.mount.id)).collect();
        let mut found = vec![];
        for key in keys {
            let known = self.known_by(key);
            for holder in holders.iter().chain([&None]) {
                let start = known.partition_point(|(held_by, _)| held_by < holder);
                let held = known[start..].iter();
                for (_, nth) in held.take_while(|(held_by, _)| held_by == holder) {
                    found.push(&self.lines[*nth]);
                }
            }
        }
        found
    }

    /// The mounts with this key by the ids of their holders.
    fn known_by(&self, key: &MountIdentity) -> &[HeldMount] {
        let by_key = self.by_key.get_or_init(|| {
            let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
            for (nth, line) in self.lines.iter().enumerate() {
                let holder = self.holder(line).map(|holder| holder.mount.id);
                by_key
                    .entry(self.key(line))
                    .or_default()
                    .push((holder, nth));
            }
            for known in by_key.values_mut() {
                known.sort_unstable();
            }
            by_key
        });
        by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// The keys of the mounts at `point`.
    pub(super) fn keys_at(&self, point: &OsStr) -> Vec<MountIdentity> {
        self.at(point).map(|line| self.key(line)).collect()
    }

    /// The mounts at `point`.
    pub(super) fn at(&self, point: &OsStr) -> impl Iterator<Item = &Line> {
        let at = self.by_point.get(point).into_iter().flatten();
        at.map(|nth| &self.lines[*nth])
    }

    /// The nearest mount point that `path` is at or below.
    pub(super) fn nearest(&self, path: &Path) -> Option<&OsStr> {
        if !path.is_absolute() {
            return None;
        }
        for above in path.ancestors() {
            if let Some((point, _)) = self.by_point.get_key_value(above.as_os_str()) {
                return Some(point);
            }
        }
        None
    }

    /// Whether anything is mounted below `path`.
    pub(super) fn has_mounts_in(&self, path: &Path) -> bool {
        let mut lines = self.lines.iter();
        lines.any(|line| matches!(below(&line.mount.point, path), Some([_, ..])))
    }

    /// The mount that is visible at `path`.
    pub(super) fn mount_of(&self, path: &Path) -> Option<&Line> {
        let stack = &self.by_point[self.nearest(path)?];
        let stack: Vec<_> = stack.iter().map(|nth| &self.lines[*nth]).collect();
        for line in &stack {
            let id = line.mount.id;
            if !stack
                .iter()
                .any(|on| on.mount.id != id && on.mount.parent == id)
            {
                return Some(line);
            }
        }
        None
    }

    pub(super) fn key(&self, line: &Line) -> MountIdentity {
        let mount = &line.mount;
        let shows = On::Place(mount.device, mount.root.clone().into());
        let on = match self.parent(line) {
            Some(Line { mount: on, .. }) => place(on.device, &on.root, &on.point, &mount.point),
            None => On::Path(mount.point.clone().into()),
        };
        (shows, on)
    }
}

/// The place of `path` on the file system of `device`. Its directory `root` is mounted at `point`,
/// which is at or above `path`.
fn place(device: u64, root: &Path, point: &Path, path: &Path) -> On {
    match below(path, point) {
        Some(rest) => On::Place(device, joined(root, rest)),
        None => On::Path(path.into()),
    }
}

/// The part of `path` below `above`. They are compared byte by byte, because tables are long and
/// their paths are in normal form.
fn below<'p>(path: &'p Path, above: &Path) -> Option<&'p [u8]> {
    let (path, above) = (path.as_os_str().as_bytes(), above.as_os_str().as_bytes());
    let rest = path.strip_prefix(above.strip_suffix(b"/").unwrap_or(above))?;
    match rest {
        [] => Some(rest),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Joins `path` and `below`, without a slash at the end.
fn joined(path: &Path, below: &[u8]) -> OsString {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if !below.is_empty() {
        if !bytes.ends_with(b"/") {
            bytes.push(b'/');
        }
        bytes.extend(below);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"1 0 8:1 / / rw - ext4 d rw\n\
        2 1 8:1 /usr/lib/a.so /srv/s/lib/a.so ro - ext4 d rw\n\
        3 1 8:1 /data /srv/s/dir ro - ext4 d rw\n\
        4 3 0:9 / /srv/s/dir/sub ro - tmpfs d rw\n\
        5 1 8:1 /srv/s /mnt/copy rw - ext4 d rw\n";

    fn key(namespace: &Namespace, point: &str) -> MountIdentity {
        namespace.keys_at(OsStr::new(point)).remove(0)
    }

    #[test]
    fn a_copy_is_known_wherever_the_root_is() {
        let host = Namespace::of(HOST, Path::new("/"));
        // As systemd makes it for RootDirectory=/srv/s.
        let service = b"21 20 8:1 /srv/s / rw - ext4 d rw\n\
            22 21 8:1 /usr/lib/a.so /lib/a.so ro - ext4 d rw\n\
            23 21 8:1 /data /dir ro - ext4 d rw\n\
            24 23 0:9 / /dir/sub ro - tmpfs d rw\n\
            25 21 8:1 /usr/lib/a.so /lib/b.so ro - ext4 d rw\n";
        let service = Namespace::of(service, Path::new("/"));
        for target in ["/lib/a.so", "/dir", "/dir/sub"] {
            assert_eq!(
                key(&host, &format!("/srv/s{target}")),
                key(&service, target),
                "{target}"
            );
        }
        assert_ne!(
            key(&host, "/srv/s/lib/a.so"),
            key(&service, "/lib/b.so"),
            "mounted elsewhere"
        );
        // The table of a process inside, which does not see the mount that its root directory is
        // on.
        let inside = b"32 31 8:1 /usr/lib/a.so /lib/a.so ro - ext4 d rw\n";
        let inside = Namespace::of(inside, Path::new("/srv/s"));
        let found = inside.nearest(Path::new("/srv/s/lib/a.so")).unwrap();
        assert_eq!(found, "/srv/s/lib/a.so");
        assert_eq!(
            key(&inside, "/srv/s/lib/a.so").1,
            On::Path("/srv/s/lib/a.so".into())
        );
        assert!(
            inside.has_mounts_in(Path::new("/srv/s"))
                && !inside.has_mounts_in(Path::new("/srv/s/lib/a.so"))
        );
    }

    #[test]
    fn the_mounts_of_a_graft_are_those_on_it() {
        // Two grafts of one template, and somebody's mount on what came along with the second.
        let sites = b"1 0 8:1 / / rw - ext4 d rw\n\
            2 1 0:9 /etc /srv/a/etc ro - tmpfs d rw\n\
            3 2 8:1 /etc/hosts /srv/a/etc/hosts ro - ext4 d rw\n\
            4 1 0:9 /etc /srv/b/etc ro - tmpfs d rw\n\
            5 4 8:1 /etc/hosts /srv/b/etc/hosts ro - ext4 d rw\n\
            6 5 8:1 /tmp/x /srv/b/etc/hosts rw - ext4 d rw\n\
            8 7 8:1 /tmp/x /srv/c/hosts rw - ext4 d rw\n";
        let sites = Namespace::of(sites, Path::new("/"));
        let ids = |lines: Vec<&Line>| -> Vec<u64> {
            let mut ids: Vec<_> = lines.iter().map(|line| line.mount.id).collect();
            ids.sort_unstable();
            ids
        };
        let keys = sites.keys_at(OsStr::new("/srv/a/etc/hosts"));
        assert_eq!(ids(sites.lines_with(&keys)), [3, 5]);

        let graft = |point: &str| sites.at(OsStr::new(point)).collect::<Vec<_>>();
        assert_eq!(ids(sites.lines_on(&keys, &graft("/srv/a/etc"))), [3]);
        assert_eq!(ids(sites.lines_on(&keys, &graft("/srv/b/etc"))), [5]);
        assert_eq!(ids(sites.lines_on(&keys, &[])), [] as [u64; 0]);

        // The stack that a mount is in is on the graft; a holder that is not shown may be it.
        let keys = sites.keys_at(OsStr::new("/srv/b/etc/hosts"));
        assert_eq!(ids(sites.lines_on(&keys, &graft("/srv/b/etc"))), [5, 6]);
        let keys = sites.keys_at(OsStr::new("/srv/c/hosts"));
        assert_eq!(ids(sites.lines_on(&keys, &graft("/srv/b/etc"))), [8]);
    }

    #[test]
    fn a_path_is_in_the_mount_that_is_nearest_above_it() {
        let host = Namespace::of(HOST, Path::new("/"));
        let nearest = |path: &str| {
            host.nearest(Path::new(path))
                .map(|point| point.to_str().unwrap())
        };
        assert_eq!(
            nearest("/srv/s/dir/sub/x (deleted)"),
            Some("/srv/s/dir/sub")
        );
        assert_eq!(nearest("/srv/s/dirt"), Some("/"));
        assert_eq!(nearest("socket:[7]"), None);
    }
}
