//! What was looked up on the host: what a result depends on, so that it is known when to ask again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::MountAttributes;

/// Paths that were asked for, whether or not there was anything. The directory of each was a real
/// one, with no link on the way to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dependencies {
    paths: BTreeMap<PathBuf, Aspect>,
    /// By the mount's never reused id, what it forbade.
    mounts: BTreeMap<u64, MountAttributes>,
}

/// What besides its name was of interest in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Aspect {
    /// The file was read: other contents can mean another result.
    pub contents: bool,
    /// The directory was listed: any new name in it can mean another result.
    pub names: bool,
}

impl Dependencies {
    /// Every path, with what was of interest in it; sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Aspect)> {
        self.paths
            .iter()
            .map(|(path, interest)| (path.as_path(), *interest))
    }

    /// Mounts, by their never reused ids, with what they forbade; `read_only` does not count.
    pub fn mounts(&self) -> impl Iterator<Item = (u64, MountAttributes)> {
        self.mounts.iter().map(|(id, options)| (*id, *options))
    }

    /// Whether nothing was looked up.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.mounts.is_empty()
    }

    /// Adds the mount with this never reused id, and what it forbids.
    pub fn add_mount(&mut self, id: u64, options: MountAttributes) {
        self.mounts.insert(id, options);
    }

    /// Whether `path` was asked for, by its name or by listing its directory.
    pub fn has(&self, path: &Path) -> bool {
        let listed = |directory| {
            self.paths
                .get(directory)
                .is_some_and(|interest| interest.names)
        };
        self.paths.contains_key(path) || path.parent().is_some_and(listed)
    }

    /// Adds `path`.
    pub fn add(&mut self, path: &Path, interest: Aspect) {
        // Most are known already: no copy of the path for those.
        if let Some(known) = self.paths.get_mut(path) {
            *known = known.and(interest);
        } else {
            self.paths.insert(path.to_owned(), interest);
        }
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Self) {
        for (path, interest) in other.iter() {
            self.add(path, interest);
        }
        self.mounts.extend(other.mounts());
    }
}

impl Aspect {
    /// Only whether there is something, and what.
    pub const NAME: Self = Self {
        contents: false,
        names: false,
    };
    /// What is in the file.
    pub const CONTENTS: Self = Self {
        contents: true,
        names: false,
    };
    /// What is in the directory.
    pub const NAMES: Self = Self {
        contents: false,
        names: true,
    };

    fn and(self, other: Self) -> Self {
        Self {
            contents: self.contents || other.contents,
            names: self.names || other.names,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::base::{HostPath, SiteName};
    use crate::manifest;
    use crate::manifest::{Manifest, Presets, SourceFile};
    use crate::resolve::{Host, Resolver, Roots};

    /// What was looked up for `lines` on a host with a link `/etc/hosts -> ../run/hosts`.
    fn looked_up(lines: &str) -> Vec<Arc<Dependencies>> {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["etc/many", "run", "usr/lib/a", "usr/lib/b", "srv/site"] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        fs::write(dir.path().join("run/hosts"), "").unwrap();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:\n").unwrap();
        symlink("../run/hosts", dir.path().join("etc/hosts")).unwrap();
        symlink("../../run/hosts", dir.path().join("etc/many/link")).unwrap();
        let text = format!("root: /srv/site\n{lines}\n");
        let file = SourceFile::File("/s.yaml".into());
        let presets = Presets::built_in();
        let manifest: Manifest =
            manifest::parse(SiteName::new("s").unwrap(), file, &text, &presets)
                .expect("a good manifest");
        let host = Host::at(dir.path()).tracked();
        let resolver = Resolver::new(&host, HostPath::new("/var/lib/mountjail").unwrap());
        resolver
            .resolve_partly(&manifest, &Roots::default())
            .dependencies
    }

    fn interest(lookups: &[Arc<Dependencies>], path: &str) -> Option<Aspect> {
        let found = lookups
            .iter()
            .filter_map(|lookups| lookups.paths.get(Path::new(path)));
        found.copied().reduce(Aspect::and)
    }

    #[test]
    fn every_link_and_every_directory_on_the_way_counts() {
        let lookups = looked_up("etc: [hosts]");
        for path in [
            "/etc",
            "/etc/hosts",
            "/run",
            "/run/hosts",
            "/srv",
            "/srv/site",
        ] {
            assert_eq!(interest(&lookups, path), Some(Aspect::NAME), "{path}");
        }
        assert_eq!(interest(&lookups, "/etc/passwd"), None);
    }

    #[test]
    fn what_is_absent_counts_up_to_the_first_name_that_is_not_there() {
        let lookups =
            looked_up("mounts: [{ source: /run/none/deeper, optional: true }, /run/required]");
        assert_eq!(interest(&lookups, "/run/none"), Some(Aspect::NAME));
        assert_eq!(interest(&lookups, "/run/none/deeper"), None);
        assert_eq!(
            interest(&lookups, "/run/required"),
            Some(Aspect::NAME),
            "although it is an error"
        );
        let lookups = looked_up("etc: [{ any_of: [first, hosts, third] }]");
        assert_eq!(interest(&lookups, "/etc/first"), Some(Aspect::NAME));
        assert_eq!(
            interest(&lookups, "/etc/third"),
            None,
            "an earlier one was there"
        );
    }

    #[test]
    fn directories_that_were_listed_and_files_that_were_read_count_as_such() {
        let lookups = looked_up("etc: [many]\nusers: [root]");
        assert!(
            interest(&lookups, "/etc/many").unwrap().names,
            "a new link in it brings more along"
        );
        assert_eq!(interest(&lookups, "/etc/passwd"), Some(Aspect::CONTENTS));
        let lookups = looked_up("mounts: [{ source: '/usr/lib/*/deep/x.so', optional: true }]");
        assert!(interest(&lookups, "/usr/lib").unwrap().names);
        assert_eq!(interest(&lookups, "/usr/lib/b/deep"), Some(Aspect::NAME));
        let has = |path: &str| lookups.iter().any(|lookups| lookups.has(Path::new(path)));
        assert!(has("/usr/lib/b/deep") && has("/usr/lib/new") && !has("/usr/lib/new/deep"));
    }

    #[test]
    fn nothing_is_written_down_where_nobody_wants_to_know() {
        let host = Host::at("/nowhere");
        let _ = host.is_there(&HostPath::new("/etc/hosts").unwrap());
        assert!(host.into_dependencies().is_empty());
    }
}
