//! Templates of sites: `NAME@.yaml` is the manifest of all sites `NAME@INSTANCE`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::words::BadWord;
use crate::base::{HostPath, SiteName};

/// The name before the `@`, if `file` is a template of sites.
pub fn template_name(file: &Path) -> Option<&str> {
    let name = file.file_stem()?.to_str()?.strip_suffix('@')?;
    (!name.is_empty() && !name.contains('@')).then_some(name)
}

/// The name of the instance that `site` is, if `file`, its manifest, is a template of sites.
pub fn instance_of<'s>(site: &'s SiteName, file: &Path) -> Option<&'s str> {
    let (name, instance) = site.instance()?;
    (template_name(file)? == name).then_some(instance)
}

/// `instances` of a template of sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    /// The names that are written out.
    pub names: Vec<String>,
    /// The patterns that give the others.
    pub patterns: Vec<InstancePattern>,
}

/// A path with one `*`: each directory that it matches is an instance, named by what `*` matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstancePattern {
    path: HostPath,
    directory: HostPath,
    before: String,
    after: String,
    below: PathBuf,
}

impl InstancePattern {
    /// The pattern that `path` is.
    pub(super) fn new(path: HostPath) -> Result<Self, BadWord> {
        let bad = |message: &str, help: &str| BadWord {
            message: message.to_owned(),
            help: Some(help.to_owned()),
        };
        let text = path.to_string();
        if text.contains(['?', '[']) {
            return Err(bad(
                "only `*` is allowed in this pattern",
                "write `*` for the instance's name",
            ));
        }
        let [before_star, after_star] = text.split('*').collect::<Vec<_>>()[..] else {
            return Err(bad(
                "the pattern must have one `*`",
                "write `*` for the instance's name, as in `/srv/customers/*`",
            ));
        };
        let (directory, before) = before_star.rsplit_once('/').unwrap_or(("", before_star));
        let (after, below) = after_star.split_once('/').unwrap_or((after_star, ""));
        let directory = HostPath::new(format!("{directory}/")).map_err(|why| BadWord {
            message: why.to_string(),
            help: None,
        })?;
        Ok(Self {
            directory,
            before: before.to_owned(),
            after: after.to_owned(),
            below: below.into(),
            path,
        })
    }

    /// The directory whose entries are compared with the pattern.
    pub fn directory(&self) -> &HostPath {
        &self.directory
    }

    /// The name of the instance that `entry` of the directory is; `None`: it does not match. As in
    /// a shell, hidden entries match no `*` at their beginning.
    pub fn instance<'e>(&self, entry: &'e OsStr) -> Option<&'e OsStr> {
        let name = entry.as_bytes();
        let name = name.strip_prefix(self.before.as_bytes())?;
        let name = name.strip_suffix(self.after.as_bytes())?;
        let is_hidden = self.before.is_empty() && name.starts_with(b".");
        (!name.is_empty() && !is_hidden).then_some(OsStr::from_bytes(name))
    }

    /// The entry of the directory that the instance is.
    pub fn entry(&self, instance: &OsStr) -> OsString {
        let parts = [self.before.as_ref(), instance, self.after.as_ref()];
        OsString::from_iter(parts)
    }

    /// The instance's directory, relative to [`directory`](Self::directory).
    pub fn relative(&self, instance: &OsStr) -> PathBuf {
        let entry = PathBuf::from(self.entry(instance));
        if self.is_of_entries() {
            entry
        } else {
            entry.join(&self.below)
        }
    }

    /// The directories between [`directory`](Self::directory) and the instance's own, outermost
    /// first.
    pub fn on_the_way(&self, instance: &OsStr) -> Vec<HostPath> {
        let relative = self.relative(instance);
        let above = relative.ancestors().skip(1);
        let named = above.filter(|path| !path.as_os_str().is_empty());
        let mut paths: Vec<_> = named
            .filter_map(|path| self.directory.join(path).ok())
            .collect();
        paths.reverse();
        paths
    }

    /// Whether the instances are the directory's entries, not directories below these.
    pub fn is_of_entries(&self) -> bool {
        self.below.as_os_str().is_empty()
    }
}

impl fmt::Display for InstancePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_belongs_to_the_template_of_the_name_before_the_first_at() {
        let name = |file: &str| template_name(Path::new(file)).map(ToOwned::to_owned);
        assert_eq!(name("/e/customer@.yaml").as_deref(), Some("customer"));
        for other in ["/e/a.yaml", "/e/@.yaml", "/e/a@b.yaml", "/e/a@b@.yaml"] {
            assert_eq!(name(other), None, "{other}");
        }
        let instance = |site: &str, file: &str| {
            let site = SiteName::new(site).unwrap();
            instance_of(&site, Path::new(file)).map(ToOwned::to_owned)
        };
        assert_eq!(instance("a@b", "/e/a@.yaml").as_deref(), Some("b"));
        assert_eq!(instance("a@b@c", "/e/a@.yaml").as_deref(), Some("b@c"));
        assert_eq!(instance("a@b", "/e/a@b.yaml"), None);
        assert_eq!(instance("a@b", "/e/b@.yaml"), None);
    }

    #[test]
    fn an_instance_is_called_by_what_the_star_matches() {
        let pattern = |path: &str| InstancePattern::new(HostPath::new(path).unwrap());
        let name = |path: &str, entry: &str| {
            let pattern = pattern(path).unwrap();
            let name = pattern.instance(OsStr::new(entry))?;
            Some((
                name.to_str().unwrap().to_owned(),
                pattern.directory().as_path().join(pattern.relative(name)),
            ))
        };
        let some = |name: &str, path: &str| Some((name.to_owned(), PathBuf::from(path)));
        assert_eq!(name("/srv/*", "a"), some("a", "/srv/a"));
        assert_eq!(name("/*", "a"), some("a", "/a"));
        assert_eq!(name("/srv/*/www/html", "a"), some("a", "/srv/a/www/html"));
        assert_eq!(name("/srv/c-*.d/x", "c-a.d"), some("a", "/srv/c-a.d/x"));
        assert_eq!(name("/srv/c-*.d", "c-.d"), None);
        assert_eq!(name("/srv/c-*.d", "c-a"), None);
        assert_eq!(name("/srv/*", ".a"), None);
        assert_eq!(name("/srv/.*", ".a"), some("a", "/srv/.a"));
        let deep = pattern("/srv/*/www/html").unwrap();
        let on_the_way = deep.on_the_way(OsStr::new("a"));
        let on_the_way: Vec<_> = on_the_way.iter().map(ToString::to_string).collect();
        assert_eq!(on_the_way, ["/srv/a", "/srv/a/www"]);
        for bad in ["/srv", "/srv/*/*", "/srv/**", "/srv/[ab]*", "/srv/?*"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
