//! The order in which systemd starts units, by their files: systemd.unit(5).

mod files;
mod graph;
mod mount_units;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeSet;
use std::path::Path;

use self::files::Files;
use self::unit::Unit;
use super::unit_files::{DIRECTORIES, template};

pub use graph::Ordering;
pub use mount_units::{is_network_type, mounts_of};

impl Ordering {
    /// Reads the units of this host, where the directory `first` takes precedence. `more`: further
    /// instances of templates. Drop-ins whose first line is `own` are ignored, because they will be
    /// replaced.
    pub fn read(first: &Path, more: &[String], own: &str) -> Self {
        let directories = [first].into_iter().chain(DIRECTORIES.map(Path::new));
        ordering(&Files::find(directories, own), more)
    }
}

/// The order of the units in `files`, and of `more` instances of templates.
fn ordering(files: &Files, more: &[String]) -> Ordering {
    let mut units: BTreeSet<&String> = files.wanted.values().flatten().collect();
    units.extend(files.fragments.keys());
    units.extend(more);
    let mut ordering = Ordering {
        aliases: files.aliases.clone(),
        ..Ordering::default()
    };

    for unit in units {
        if unit.contains("@.") || files.aliases.contains_key(unit) {
            continue;
        }
        let has_file = match template(unit) {
            Some(template) if files.fragments.contains_key(&template) => true,
            _ => files.fragments.contains_key(unit),
        };
        if has_file {
            ordering.units.insert(unit.clone());
        }
        Unit::of(unit, &files.texts(unit)).put_into(&mut ordering, files.wanted.get(unit));
    }
    ordering
}
