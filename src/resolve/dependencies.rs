//! The dependencies of a result: the names that were looked up on the host, and what was of
//! interest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::MountAttributes;

/// The paths that were looked up, whether or not they exist. There is no link on the way to the
/// directory of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dependencies {
    paths: BTreeMap<PathBuf, Aspect>,
    /// The restrictions of mounts, by their unique mount IDs.
    mounts: BTreeMap<u64, MountAttributes>,
}

/// The properties of a path that mattered besides its existence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Aspect {
    /// The file was read: other contents can mean another result.
    pub contents: bool,
    /// The directory was listed: any new name in it can mean another result.
    pub names: bool,
}

impl Dependencies {
    /// Every path, with what mattered of it; sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Aspect)> {
        self.paths
            .iter()
            .map(|(path, aspect)| (path.as_path(), *aspect))
    }

    /// Mounts, by their unique mount IDs, with what they forbade; `read_only` does not count.
    pub fn mounts(&self) -> impl Iterator<Item = (u64, MountAttributes)> {
        self.mounts
            .iter()
            .map(|(id, attributes)| (*id, *attributes))
    }

    /// Whether nothing was looked up.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.mounts.is_empty()
    }

    /// Adds the mount with this unique mount ID, and what it forbids.
    pub fn add_mount(&mut self, id: u64, attributes: MountAttributes) {
        self.mounts.insert(id, attributes);
    }

    /// Whether `path` was looked up, by its name or by listing its directory.
    pub fn has(&self, path: &Path) -> bool {
        if self.paths.contains_key(path) {
            return true;
        }
        match path.parent() {
            Some(directory) => self.paths.get(directory).is_some_and(|aspect| aspect.names),
            None => false,
        }
    }

    /// Adds `path`.
    pub fn add(&mut self, path: &Path, aspect: Aspect) {
        // Most are known already, and need no copy of the path.
        if let Some(known) = self.paths.get_mut(path) {
            *known = known.merged_with(aspect);
        } else {
            self.paths.insert(path.to_owned(), aspect);
        }
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Self) {
        for (path, aspect) in other.iter() {
            self.add(path, aspect);
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
    /// The contents of the file.
    pub const CONTENTS: Self = Self {
        contents: true,
        names: false,
    };
    /// The names in the directory.
    pub const NAMES: Self = Self {
        contents: false,
        names: true,
    };

    fn merged_with(self, other: Self) -> Self {
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

    /// The paths that were looked up for `lines` on a host with a link `/etc/hosts ->
    /// ../run/hosts`.
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

    fn aspect(lookups: &[Arc<Dependencies>], path: &str) -> Option<Aspect> {
        let found = lookups
            .iter()
            .filter_map(|lookups| lookups.paths.get(Path::new(path)));
        found.copied().reduce(Aspect::merged_with)
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
            assert_eq!(aspect(&lookups, path), Some(Aspect::NAME), "{path}");
        }
        assert_eq!(aspect(&lookups, "/etc/passwd"), None);
    }

    #[test]
    fn what_is_absent_counts_up_to_the_first_name_that_is_not_there() {
        let lookups =
            looked_up("mounts: [{ source: /run/none/deeper, optional: true }, /run/required]");
        assert_eq!(aspect(&lookups, "/run/none"), Some(Aspect::NAME));
        assert_eq!(aspect(&lookups, "/run/none/deeper"), None);
        assert_eq!(
            aspect(&lookups, "/run/required"),
            Some(Aspect::NAME),
            "although it is an error"
        );
        let lookups = looked_up("etc: [{ any_of: [first, hosts, third] }]");
        assert_eq!(aspect(&lookups, "/etc/first"), Some(Aspect::NAME));
        assert_eq!(
            aspect(&lookups, "/etc/third"),
            None,
            "an earlier one was there"
        );
    }

    #[test]
    fn directories_that_were_listed_and_files_that_were_read_count_as_such() {
        let lookups = looked_up("etc: [many]\nusers: [root]");
        assert!(
            aspect(&lookups, "/etc/many").unwrap().names,
            "a new link in it brings more along"
        );
        assert_eq!(aspect(&lookups, "/etc/passwd"), Some(Aspect::CONTENTS));
        let lookups = looked_up("mounts: [{ source: '/usr/lib/*/deep/x.so', optional: true }]");
        assert!(aspect(&lookups, "/usr/lib").unwrap().names);
        assert_eq!(aspect(&lookups, "/usr/lib/b/deep"), Some(Aspect::NAME));
        let has = |path: &str| lookups.iter().any(|lookups| lookups.has(Path::new(path)));
        assert!(has("/usr/lib/b/deep") && has("/usr/lib/new") && !has("/usr/lib/new/deep"));
    }

    #[test]
    fn nothing_is_recorded_unless_the_host_is_tracked() {
        let host = Host::at("/nowhere");
        let _ = host.is_there(&HostPath::new("/etc/hosts").unwrap());
        assert!(host.into_dependencies().is_empty());
    }
}
