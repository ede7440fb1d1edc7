//! The files that define units.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::observe::unit_files::{names_in, template, text_of};

/// The files that define units and their dependencies.
#[derive(Default)]
pub(super) struct Files {
    /// Unit or template → its file.
    pub fragments: BTreeMap<String, PathBuf>,
    pub aliases: BTreeMap<String, String>,
    /// `php8.2-fpm.service` for `php8.2-fpm.service.d` → the texts of the files in it.
    drop_ins: BTreeMap<String, Vec<String>>,
    /// Unit → the units in its `.wants` and `.requires` directories.
    pub wanted: BTreeMap<String, BTreeSet<String>>,
}

impl Files {
    pub(super) fn find<'d>(directories: impl Iterator<Item = &'d Path>, own: &str) -> Self {
        let mut files = Self::default();
        for directory in directories {
            for name in names_in(directory) {
                let path = directory.join(&name);
                files.add(name, path, own);
            }
        }
        files
    }

    /// Adds the file or directory `name` at `path`. Files found before take precedence.
    fn add(&mut self, name: String, path: PathBuf, own: &str) {
        if let Some(unit) = name.strip_suffix(".d") {
            let drop_ins = self.drop_ins.entry(unit.to_owned()).or_default();
            drop_ins.extend(drop_in_texts(&path, own));
        } else if let Some(unit) = name
            .strip_suffix(".wants")
            .or(name.strip_suffix(".requires"))
        {
            let wanted = self.wanted.entry(unit.to_owned()).or_default();
            wanted.extend(names_in(&path));
        } else if !self.fragments.contains_key(&name) && !self.aliases.contains_key(&name) {
            match alias(&path) {
                Some(other) if other != name => drop(self.aliases.insert(name, other)),
                _ => drop(self.fragments.insert(name, path)),
            }
        }
    }

    /// The texts of the unit's file and its drop-ins.
    pub(super) fn texts(&self, unit: &str) -> Vec<String> {
        let template = template(unit);
        let mut fragment = self.fragments.get(unit);
        if let Some(template) = &template {
            fragment = fragment.or(self.fragments.get(template));
        }
        let mut texts = vec![];
        if let Some(path) = fragment {
            texts.extend(text_of(path));
        }

        let (stem, kind) = unit.rsplit_once('.').unwrap_or((unit, ""));
        let mut places = vec![kind.to_owned()];
        for (dash, _) in stem.match_indices('-') {
            places.push(format!("{}.{kind}", &stem[..=dash]));
        }
        places.extend(template);
        places.push(unit.to_owned());
        for place in places {
            if let Some(drop_ins) = self.drop_ins.get(&place) {
                texts.extend_from_slice(drop_ins);
            }
        }
        texts
    }
}

/// The texts of the drop-ins in a directory, except those whose first line is `own`.
fn drop_in_texts(directory: &Path, own: &str) -> Vec<String> {
    let mut texts = vec![];
    for name in names_in(directory) {
        if suffix(&name) != "conf" {
            continue;
        }
        if let Some(text) = text_of(&directory.join(name))
            && text.lines().next() != Some(own)
        {
            texts.push(text);
        }
    }
    texts
}

/// The part of a name after its last dot.
fn suffix(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, suffix)| suffix)
}

/// The unit that a file is an alias of, if it is a link.
fn alias(path: &Path) -> Option<String> {
    let end = fs::read_link(path).ok()?.file_name()?.to_str()?.to_owned();
    (end != "null" && !end.contains("@.")).then_some(end)
}
