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
pub(crate) struct PresetContents {
    pub preset: String,
    /// As if the preset were a whole site.
    pub desired: Desired,
    /// The programs that the preset's own lines name, by their real paths on the host.
    pub programs: BTreeSet<HostPath>,
}

/// A preset is not needed if a larger advised preset also brings all its paths.
pub(super) fn merge_presets(
    lines: &mut BTreeMap<Addition, Vec<MissOnHost>>,
    presets: &[PresetContents],
) {
    let mut advised: Vec<_> = presets
        .iter()
        .filter(|preset| lines.contains_key(&addition("presets", preset.preset.clone())))
        .collect();
    advised.sort_by_key(|preset| preset.desired.mounts.len());

    for (nth, small) in advised.iter().enumerate() {
        let small = addition("presets", small.preset.clone());
        let Some(found) = lines.get(&small) else {
            continue;
        };
        let brings = |preset: &PresetContents, found: &MissOnHost| {
            why(&preset.desired, &found.miss.path).mount.is_some()
        };
        let mut larger = advised[nth + 1..].iter();
        let large = larger.find(|preset| found.iter().all(|found| brings(preset, found)));
        if let Some(large) = large {
            let large = addition("presets", large.preset.clone());
            let found = lines.remove(&small).unwrap_or_default();
            lines.entry(large).or_default().extend(found);
        }
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
        if files.len() >= MANY {
            let found: Vec<_> = files.iter().filter_map(|file| lines.remove(file)).collect();
            let found = found.into_iter().flatten();
            lines.entry(merged).or_default().extend(found);
        }
    }
}

/// The line that brings the whole directory of a file.
pub(super) fn line_of_directory(line: &Addition, found: &MissOnHost) -> Option<Addition> {
    let path = &found.miss.path;
    let directory = path.parent().filter(|_| found.whole_directory)?;
    let directory = pattern(directory.as_path());
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
    for line in lines.keys().filter(|line| line.key == "mounts") {
        mounted.extend(JailPath::new(&line.name).ok());
    }
    let mut refused = vec![];
    lines.retain(|line, found| {
        let own = found.first().and_then(|found| found.scratch.as_ref());
        let above = own.and_then(|own| {
            let mut above = own.path.directories_above().into_iter();
            above.find(|above| mounted.contains(above))
        });
        let Some(above) = above.filter(|_| line.key == "directories") else {
            return true;
        };
        let why = format!("it would be in {above}, which is mounted read-only");
        refused.extend(found.drain(..).map(|found| (found.miss, why.clone())));
        false
    });
    refused
}
