//! Several lines → one that brings the same.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::{addition, pattern};
use crate::base::{HostPath, JailPath};
use crate::manifest::Addition;
use crate::resolve::{Desired, why};
use crate::trace::miss::Miss;
use crate::trace::on_host::{MissKind, MissOnHost};

/// If this many files of one directory were missed, the directory or a pattern is advised.
pub(super) const MANY: usize = 4;

/// The mounts that a preset would bring.
#[derive(Clone, Debug)]
pub(in crate::trace) struct PresetContents {
    pub preset: String,
    /// As if the preset were a whole site.
    pub desired: Desired,
    /// The programs that the preset's own lines name, by their real paths on the host.
    pub programs: BTreeSet<HostPath>,
    /// Those of them that it cannot do without, or all if it needs none.
    pub needed_programs: BTreeSet<HostPath>,
    /// Whether it is that of an interpreter, with all that it loads.
    pub is_language: bool,
}

impl PresetContents {
    /// The line that includes the preset.
    pub(super) fn line(&self) -> Addition {
        addition("presets", self.preset.clone())
    }

    fn brings(&self, found: &[MissOnHost]) -> bool {
        let mut paths = found.iter().map(|found| &found.miss.path);
        paths.all(|path| why(&self.desired, path).mount.is_some())
    }
}

/// A preset is not needed if a larger advised preset also brings all its paths.
pub(super) fn merge_presets(
    lines: &mut BTreeMap<Addition, Vec<MissOnHost>>,
    presets: &[PresetContents],
) {
    let mut advised = vec![];
    for preset in presets {
        if lines.contains_key(&preset.line()) {
            advised.push(preset);
        }
    }
    advised.sort_by_key(|preset| preset.desired.mounts.len());

    for (nth, small) in advised.iter().enumerate() {
        let Some(found) = lines.get(&small.line()) else {
            continue;
        };
        let mut larger = advised[nth + 1..].iter();
        let Some(large) = larger.find(|large| large.brings(found)) else {
            continue;
        };
        let found = lines.remove(&small.line()).unwrap_or_default();
        lines.entry(large.line()).or_default().extend(found);
    }
}

/// Many files of one directory become that directory; many of its libraries become a pattern.
pub(super) fn merge_files(lines: &mut BTreeMap<Addition, Vec<MissOnHost>>) {
    let mut by_directory: BTreeMap<Addition, Vec<Addition>> = BTreeMap::new();
    for (line, found) in lines.iter() {
        if let [only] = found.as_slice()
            && let Some(merged) = line_of_directory(line, only)
        {
            by_directory.entry(merged).or_default().push(line.clone());
        }
    }

    for (merged, files) in by_directory {
        if files.len() < MANY {
            continue;
        }
        let mut found = vec![];
        for file in &files {
            found.extend(lines.remove(file).unwrap_or_default());
        }
        lines.entry(merged).or_default().extend(found);
    }
}

/// The line that brings the whole directory of a file.
pub(super) fn line_of_directory(line: &Addition, found: &MissOnHost) -> Option<Addition> {
    if !found.whole_directory {
        return None;
    }
    let path = &found.miss.path;
    let directory = pattern(path.parent()?.as_path());
    let is_object = path.as_path().extension().is_some_and(|end| end == "so");
    match line.key {
        "mounts" if found.kind == MissKind::Data => Some(addition("mounts", directory)),
        "libraries" if is_object => Some(addition("libraries", format!("{directory}/*.so"))),
        _ => None,
    }
}

/// Paths below an advised directory come with it.
pub(super) fn merge_below(lines: &mut BTreeMap<Addition, Vec<MissOnHost>>) {
    let mut by_path = BTreeMap::new();
    for line in lines.keys() {
        let path = match line.key {
            "mounts" => JailPath::new(&line.name),
            "etc" => JailPath::new(format!("/etc/{}", line.name)),
            _ => continue,
        };
        if let Ok(path) = path {
            by_path.insert(path, line.clone());
        }
    }

    for (path, line) in &by_path {
        let mut ancestors = path.directories_above().into_iter();
        let above = ancestors.find_map(|above| by_path.get(&above));
        if let Some(above) = above
            && let Some(found) = lines.remove(line)
        {
            lines.entry(above.clone()).or_default().extend(found);
        }
    }
}

/// Takes out the directories of the site's own that would be in one of the host's, where they
/// cannot be made. Returns their misses, each with the reason.
pub(super) fn within_mounts(
    lines: &mut BTreeMap<Addition, Vec<MissOnHost>>,
) -> Vec<(Miss, String)> {
    let mut mounted = BTreeSet::new();
    for line in lines.keys() {
        if line.key == "mounts" {
            mounted.extend(JailPath::new(&line.name).ok());
        }
    }
    let mut refused = vec![];
    lines.retain(|line, found| {
        let Some(above) = mount_above(line, found, &mounted) else {
            return true;
        };
        let why = format!("it would be in {above}, which is mounted read-only");
        for found in found.drain(..) {
            refused.push((found.miss, why.clone()));
        }
        false
    });
    refused
}

/// The one of `mounted` that a directory of the site's own would be in.
fn mount_above(
    line: &Addition,
    found: &[MissOnHost],
    mounted: &BTreeSet<JailPath>,
) -> Option<JailPath> {
    if line.key != "directories" {
        return None;
    }
    let own = found.first()?.scratch.as_ref()?;
    let mut above = own.path.directories_above().into_iter();
    above.find(|above| mounted.contains(above))
}
