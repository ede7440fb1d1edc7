//! The units that systemd knows, by their files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::base::text::nearest;

/// The directories where systemd looks for units of the system: systemd.unit(5).
pub(super) const DIRECTORIES: [&str; 11] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// The units that this host has.
#[derive(Clone, Debug, Default)]
pub struct Units(BTreeSet<String>);

impl Units {
    /// Reads the names of the unit files and of the scripts in `/etc/init.d`, which systemd makes
    /// units of. Directories that do not exist are skipped.
    pub fn read() -> Self {
        let mut units: BTreeSet<_> = DIRECTORIES.iter().flat_map(names_in).collect();
        for script in names_in("/etc/init.d") {
            units.insert(format!("{script}.service"));
        }
        Self(units)
    }

    /// Whether the host has the unit `name`, or a template that it is an instance of.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name) || template(name).is_some_and(|template| self.0.contains(&template))
    }

    /// The unit with the most similar name, if one is similar enough.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let units = self.0.iter().map(String::as_str);
        nearest(
            name,
            units.filter(|known| Path::new(known).extension().is_some()),
        )
    }
}

/// The names in a directory, sorted. There are none if it cannot be read.
pub(super) fn names_in(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The text of a unit's file. Bytes that are not UTF-8 are replaced: systemd passes over the lines
/// that have some, and reads the others. `None`: it cannot be read, and systemd does without it.
pub(super) fn text_of(file: &Path) -> Option<String> {
    let text = fs::read(file).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The template of an instance: `getty@.service` for `getty@tty1.service`.
pub(super) fn template(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (_, suffix) = rest.rsplit_once('.')?;
    Some(format!("{prefix}@.{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_known_by_their_template() {
        let units = Units(
            ["php8.2-fpm.service", "getty@.service"]
                .map(str::to_owned)
                .into(),
        );
        assert!(units.has("php8.2-fpm.service") && units.has("getty@tty.1.service"));
        assert!(!units.has("getty@tty1.socket") && !units.has("php8.3-fpm.service"));
        assert_eq!(
            units.nearest("php82-fpm.service"),
            Some("php8.2-fpm.service")
        );
        assert_eq!(units.nearest("nginx.service"), None);
    }
}
