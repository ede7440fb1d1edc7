//! What was missed and is on the host → the lines that would bring it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::found::{Found, Nature};
use super::miss::Miss;
use crate::base::{HostPath, JailPath};
use crate::manifest::{Addition, Pattern};
use crate::resolve::{Desired, FileKind, Mount, why};

/// From this many files of one directory on, the directory itself is advised, or a pattern.
const MANY: usize = 4;

/// What a preset would bring.
#[derive(Clone, Debug)]
pub struct Brings {
    /// Its name.
    pub preset: String,
    /// As if it were all of a site.
    pub desired: Desired,
    /// The programs that lines of its own name, by where they really are on the host.
    pub programs: BTreeSet<HostPath>,
}

/// What is known besides the paths.
#[derive(Clone, Debug)]
pub struct Known<'k> {
    /// What the site's manifest asks for already.
    pub desired: &'k Desired,
    /// The presets that it does not include.
    pub presets: &'k [Brings],
    /// The names of the users that ran what missed something.
    pub users: &'k BTreeMap<u32, String>,
}

/// A line of a manifest, and what it would bring.
#[derive(Clone, Debug)]
pub struct Line {
    /// The line.
    pub addition: Addition,
    /// What was missed, most often looked up first.
    pub misses: Vec<Miss>,
}

/// What to do about what was missed.
#[derive(Clone, Debug, Default)]
pub struct Advice {
    /// The lines to add, the most useful first.
    pub lines: Vec<Line>,
    /// What the manifest asks for already: the site is not as it should be.
    pub not_mounted: Vec<Miss>,
    /// What nobody should get for the asking, with the reason.
    pub refused: Vec<(Miss, String)>,
}

/// The lines for what was `found`.
pub fn advise(found: Vec<Found>, known: &Known<'_>) -> Advice {
    let mut advice = Advice::default();
    let mut wanted = vec![];
    for found in found {
        if why(known.desired, &found.miss.path).mount.is_some() {
            advice.not_mounted.push(found.miss);
        } else if let Some(why) = found.refusal {
            advice.refused.push((found.miss, why));
        } else if is_a_daemons(&found, known) {
            let line = alone(&found);
            let why =
                format!("it is a daemon's; if this site is to reach it, add `{line}` by hand");
            advice.refused.push((found.miss, why));
        } else {
            wanted.push(found);
        }
    }
    // A directory on the way to something comes with it.
    let is_above = |miss: &Miss| {
        wanted
            .iter()
            .any(|found| found.miss.path.starts_with(&miss.path))
    };
    advice.refused.retain(|(miss, _)| !is_above(miss));
    let wanted = by_file(wanted);
    let own = shares(&wanted, known.presets);
    let mut lines: BTreeMap<Addition, Vec<Found>> = BTreeMap::new();
    for found in wanted {
        for addition in additions(&found, known, &own) {
            lines.entry(addition).or_default().push(found.clone());
        }
    }
    merge_presets(&mut lines, known.presets);
    merge_files(&mut lines);
    merge_below(&mut lines);
    advice.lines = lines.into_iter().map(line).collect();
    advice
        .lines
        .sort_by_key(|line| std::cmp::Reverse((line.misses.len(), lookups(&line.misses))));
    advice
}

impl Line {
    /// A line for each file of a pattern, for where the pattern has more than can be had. None for
    /// another line.
    pub fn apart(&self) -> Vec<Self> {
        let is_pattern = self.addition.key == "libraries" && self.misses.len() >= MANY;
        let one = |miss: &Miss| Self {
            addition: addition("libraries", pattern(miss.path.as_path())),
            misses: vec![miss.clone()],
        };
        self.misses.iter().filter(|_| is_pattern).map(one).collect()
    }
}

fn lookups(misses: &[Miss]) -> u64 {
    misses.iter().map(|miss| miss.lookups).sum()
}

fn line((addition, found): (Addition, Vec<Found>)) -> Line {
    let mut misses: Vec<_> = found.into_iter().map(|found| found.miss).collect();
    misses.sort_by(|a, b| b.lookups.cmp(&a.lookups).then_with(|| a.path.cmp(&b.path)));
    Line { addition, misses }
}

/// Each program and library once, where it was looked for by several names, as by `/usr/bin` and
/// `/bin`: by its real name, if that is one of them.
fn by_file(mut wanted: Vec<Found>) -> Vec<Found> {
    let code = |found: &Found| matches!(found.nature, Nature::Program | Nature::Library);
    let real_name = |found: &Found| found.miss.path.as_path() == found.real.as_path();
    wanted.sort_by_key(|found| !real_name(found));
    let mut seen = BTreeSet::new();
    wanted.retain(|found| !code(found) || seen.insert(found.real.clone()));
    wanted
}

/// The presets of whose own programs at least half were missed. A preset's own are those that no
/// other one names: the shell, which many bring, is no sign of any of them.
fn shares(wanted: &[Found], presets: &[Brings]) -> BTreeSet<String> {
    let half = |preset: &&Brings| {
        let is_own = |path: &&HostPath| {
            presets
                .iter()
                .all(|other| other.preset == preset.preset || !other.programs.contains(path))
        };
        let own: Vec<_> = preset.programs.iter().filter(is_own).collect();
        let missed = own
            .iter()
            .filter(|path| wanted.iter().any(|found| found.real == ***path))
            .count();
        missed > 0 && 2 * missed >= own.len()
    };
    presets
        .iter()
        .filter(half)
        .map(|preset| preset.preset.clone())
        .collect()
}

/// Whether it is a socket, or what else daemons keep where their sockets are, that no preset was
/// made for: what its daemon would do for a site, only the administrator knows.
fn is_a_daemons(found: &Found, known: &Known<'_>) -> bool {
    let kept = found.nature == Nature::Socket
        || (found.nature != Nature::Device && is_on_run(&found.miss.path));
    kept && !known
        .presets
        .iter()
        .any(|preset| fits(preset, found, &BTreeSet::new()))
}

fn is_on_run(path: &JailPath) -> bool {
    ["/run", "/var/run"]
        .iter()
        .any(|run| path.as_path().starts_with(run))
}

/// The lines for one path: more than one only for the names of several users.
fn additions(found: &Found, known: &Known<'_>, own: &BTreeSet<String>) -> Vec<Addition> {
    let path = found.miss.path.as_path();
    if ["/etc/passwd", "/etc/group"]
        .iter()
        .any(|file| path.as_os_str() == *file)
    {
        let names = found
            .miss
            .users
            .iter()
            .filter_map(|user| known.users.get(user));
        let names: Vec<_> = names.map(|name| addition("users", name.clone())).collect();
        return if names.is_empty() {
            vec![addition("presets", "users".to_owned())]
        } else {
            names
        };
    }
    let fits = |preset: &&Brings| fits(preset, found, own);
    let smallest = known
        .presets
        .iter()
        .filter(fits)
        .min_by_key(|preset| preset.desired.mounts.len());
    vec![match smallest {
        Some(preset) => addition("presets", preset.preset.clone()),
        None => alone(found),
    }]
}

/// Whether the preset is the right one for the path: a line of it names the path, or a directory
/// above, and it is not about other programs.
fn fits(preset: &Brings, found: &Found, own: &BTreeSet<String>) -> bool {
    let Some(mount) = why(&preset.desired, &found.miss.path)
        .mount
        .filter(|mount| is_named(mount))
    else {
        return false;
    };
    match found.nature {
        Nature::Program => mount.kind == FileKind::Directory || own.contains(&preset.preset),
        Nature::Library => mount.kind == FileKind::Directory,
        _ => {
            preset.programs.is_empty()
                || own.contains(&preset.preset)
                || mount.kind == FileKind::Directory
        }
    }
}

/// Whether a line names it, not only something else that needs it.
fn is_named(mount: &Mount) -> bool {
    mount.reasons.iter().any(|reason| reason.chain.is_empty())
}

fn addition(key: &'static str, name: String) -> Addition {
    Addition {
        key,
        name,
        optional: false,
    }
}

/// The line that brings the path by itself.
fn alone(found: &Found) -> Addition {
    let path = &found.miss.path;
    let below = |base: &str| {
        path.as_path()
            .strip_prefix(base)
            .ok()
            .map(|name| name.display().to_string())
    };
    match found.nature {
        Nature::Program => addition("programs", pattern(path.as_path())),
        Nature::Library => addition("libraries", pattern(path.as_path())),
        // Its directory: a bound socket is dead when its daemon restarts.
        Nature::Socket => mount_of(&path.parent().unwrap_or_else(JailPath::slash)),
        Nature::Device => match below("/dev") {
            Some(name) => addition("devices", name),
            None => addition("mounts", pattern(path.as_path())),
        },
        Nature::Directory | Nature::Data => {
            match below("/etc").filter(|name| !name.contains(['*', '?'])) {
                Some(name) => addition("etc", name),
                None => mount_of(path),
            }
        }
    }
}

/// What is on `/run` is there only once its daemon was started, which may be after the site came
/// up.
fn mount_of(path: &JailPath) -> Addition {
    Addition {
        key: "mounts",
        name: pattern(path.as_path()),
        optional: is_on_run(path),
    }
}

/// The path as it stands where patterns may.
fn pattern(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let is_glob = HostPath::new(path).is_ok_and(|path| Pattern::new(path).is_glob());
    if is_glob {
        glob::Pattern::escape(&text)
    } else {
        text
    }
}

/// A preset whose paths another advised preset brings as well is not needed.
fn merge_presets(lines: &mut BTreeMap<Addition, Vec<Found>>, presets: &[Brings]) {
    let by_name = |addition: &Addition| {
        let of_name =
            |preset: &&Brings| addition.key == "presets" && preset.preset == addition.name;
        presets.iter().find(of_name)
    };
    let mut advised: Vec<_> = lines.keys().filter_map(by_name).collect();
    advised.sort_by_key(|preset| preset.desired.mounts.len());
    for (nth, small) in advised.iter().enumerate() {
        let key = addition("presets", small.preset.clone());
        let has_all = |large: &&&Brings| {
            let brings = |found: &Found| why(&large.desired, &found.miss.path).mount.is_some();
            lines
                .get(&key)
                .is_some_and(|found| found.iter().all(brings))
        };
        if let Some(large) = advised[nth + 1..].iter().find(has_all) {
            let found = lines.remove(&key).unwrap_or_default();
            lines
                .entry(addition("presets", large.preset.clone()))
                .or_default()
                .extend(found);
        }
    }
}

/// Many files of one directory become that directory, many of its libraries a pattern.
fn merge_files(lines: &mut BTreeMap<Addition, Vec<Found>>) {
    let mut many: BTreeMap<Addition, Vec<Addition>> = BTreeMap::new();
    for (line, found) in &*lines {
        let [one] = found.as_slice() else { continue };
        let Some(directory) = one.miss.path.parent().filter(|_| one.directory) else {
            continue;
        };
        let directory = pattern(directory.as_path());
        let together = match (line.key, one.nature) {
            ("mounts", Nature::Data) => addition("mounts", directory),
            ("libraries", _)
                if one
                    .miss
                    .path
                    .as_path()
                    .extension()
                    .is_some_and(|end| end == "so") =>
            {
                addition("libraries", format!("{directory}/*.so"))
            }
            _ => continue,
        };
        many.entry(together).or_default().push(line.clone());
    }
    for (together, files) in many.into_iter().filter(|(_, files)| files.len() >= MANY) {
        let found: Vec<_> = files
            .iter()
            .filter_map(|file| lines.remove(file))
            .flatten()
            .collect();
        lines.entry(together).or_default().extend(found);
    }
}

/// What is below a directory that is advised as well comes with it.
fn merge_below(lines: &mut BTreeMap<Addition, Vec<Found>>) {
    let place = |line: &Addition| match line.key {
        "mounts" => JailPath::new(&line.name).ok(),
        "etc" => JailPath::new(format!("/etc/{}", line.name)).ok(),
        _ => None,
    };
    let places: BTreeMap<JailPath, Addition> = lines
        .keys()
        .filter_map(|line| Some((place(line)?, line.clone())))
        .collect();
    for (path, line) in &places {
        let above = path
            .directories_above()
            .into_iter()
            .find_map(|above| places.get(&above));
        if let Some(above) = above
            && let Some(found) = lines.remove(line)
        {
            lines.entry(above.clone()).or_default().extend(found);
        }
    }
}

#[cfg(test)]
mod tests;
