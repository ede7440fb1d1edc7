//! The misses that are on the host → the lines that would bring them. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::miss::Miss;
use super::on_host::{MissKind, MissOnHost};
use crate::base::{HostPath, JailPath};
use crate::manifest::{Addition, Pattern};
use crate::resolve::{Desired, FileKind, Mount, why};

/// If this many files of one directory were missed, the directory or a pattern is advised.
const MANY: usize = 4;

/// What a preset would bring.
#[derive(Clone, Debug)]
pub(crate) struct PresetContents {
    pub preset: String,
    /// As if the preset were a whole site.
    pub desired: Desired,
    /// The programs that the preset's own lines name, by their real paths on the host.
    pub programs: BTreeSet<HostPath>,
}

/// What the advice depends on besides the misses.
#[derive(Clone, Debug)]
pub(crate) struct AdviceContext<'c> {
    /// What the site's manifest asks for already.
    pub desired: &'c Desired,
    /// The presets that it does not include.
    pub presets: &'c [PresetContents],
    /// The names of the users that the programs ran as.
    pub users: &'c BTreeMap<u32, String>,
}

/// A line of a manifest, and the misses that it would bring.
#[derive(Clone, Debug)]
pub(crate) struct AdvisedLine {
    pub addition: Addition,
    /// The one that was looked up most often comes first.
    pub misses: Vec<Miss>,
}

/// What to do about the misses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Advice {
    /// The lines to add, the most useful first.
    pub lines: Vec<AdvisedLine>,
    /// What the manifest asks for already: the site is not as it should be.
    pub not_mounted: Vec<Miss>,
    /// What a jail should not get just because a program looked for it, and why.
    pub refused: Vec<(Miss, String)>,
}

/// The lines for the misses that are on the host.
pub(crate) fn advise(found: Vec<MissOnHost>, context: &AdviceContext<'_>) -> Advice {
    let mut advice = Advice::default();
    let wanted = sort_out(found, context, &mut advice);

    let presets = presets_by_programs(&wanted, context.presets);
    let mut lines: BTreeMap<Addition, Vec<MissOnHost>> = BTreeMap::new();
    for found in wanted {
        for addition in additions(&found, context, &presets) {
            lines.entry(addition).or_default().push(found.clone());
        }
    }
    merge_presets(&mut lines, context.presets);
    merge_files(&mut lines);
    merge_below(&mut lines);

    advice.lines = lines
        .into_iter()
        .map(|(addition, found)| AdvisedLine::new(addition, found))
        .collect();
    advice
        .lines
        .sort_by_key(|line| Reverse((line.misses.len(), lookups(&line.misses))));
    advice
}

/// The misses that need a line. The others are added to `advice`.
fn sort_out(
    found: Vec<MissOnHost>,
    context: &AdviceContext<'_>,
    advice: &mut Advice,
) -> Vec<MissOnHost> {
    let mut wanted: Vec<MissOnHost> = vec![];
    for found in found {
        if lines_of_noexec(&found, context).is_some() {
            wanted.push(found);
        } else if found.miss.is_refused {
            let why = "it is there, and may not be executed: see its mode, and whether its file \
                       system is mounted with noexec";
            advice.refused.push((found.miss, why.to_owned()));
        } else if why(context.desired, &found.miss.path).mount.is_some() {
            advice.not_mounted.push(found.miss);
        } else if let Some(why) = found.refusal {
            advice.refused.push((found.miss, why));
        } else if is_a_daemons(&found, context) {
            let line = own_line(&found);
            let why =
                format!("it is a daemon's; if this site is to reach it, add `{line}` by hand");
            advice.refused.push((found.miss, why));
        } else {
            wanted.push(found);
        }
    }

    // A directory on the way to something comes with it.
    advice.refused.retain(|(miss, _)| {
        let mut paths = wanted.iter().map(|found| &found.miss.path);
        !paths.any(|path| path.starts_with(&miss.path))
    });
    without_aliases(wanted)
}

impl AdvisedLine {
    fn new(addition: Addition, found: Vec<MissOnHost>) -> Self {
        let mut misses: Vec<_> = found.into_iter().map(|found| found.miss).collect();
        misses.sort_by(|a, b| b.lookups.cmp(&a.lookups).then_with(|| a.path.cmp(&b.path)));
        Self { addition, misses }
    }

    /// For a pattern of libraries: a line for each of the files, in case the pattern matches files
    /// that cannot be brought. No lines for other keys.
    pub fn apart(&self) -> Vec<Self> {
        if self.addition.key != "libraries" || self.misses.len() < MANY {
            return vec![];
        }
        let mut lines = vec![];
        for miss in &self.misses {
            lines.push(Self {
                addition: addition("libraries", pattern(miss.path.as_path())),
                misses: vec![miss.clone()],
            });
        }
        lines
    }
}

fn lookups(misses: &[Miss]) -> u64 {
    misses.iter().map(|miss| miss.lookups).sum()
}

/// Each program and library once, even if it was looked for by several names, such as in `/usr/bin`
/// and `/bin`: by its real path, if that is one of them.
fn without_aliases(mut wanted: Vec<MissOnHost>) -> Vec<MissOnHost> {
    wanted.sort_by_key(|found| found.miss.path.as_path() != found.real.as_path());
    let mut seen = BTreeSet::new();
    wanted.retain(|found| match found.kind {
        MissKind::Program | MissKind::Library => seen.insert(found.real.clone()),
        _ => true,
    });
    wanted
}

/// The presets of which at least half of the programs were missed. Only programs that no other
/// preset names count: the shell, which many bring, is not a sign of any of them.
fn presets_by_programs(wanted: &[MissOnHost], presets: &[PresetContents]) -> BTreeSet<String> {
    let mut missed_presets = BTreeSet::new();
    for preset in presets {
        let is_others = |program: &HostPath| {
            presets
                .iter()
                .any(|other| other.preset != preset.preset && other.programs.contains(program))
        };
        let (mut own, mut missed) = (0, 0);
        for program in &preset.programs {
            if !is_others(program) {
                own += 1;
                missed += usize::from(wanted.iter().any(|found| found.real == *program));
            }
        }
        if missed > 0 && 2 * missed >= own {
            missed_presets.insert(preset.preset.clone());
        }
    }
    missed_presets
}

/// Whether it is a socket, or something else that daemons keep where their sockets are, and no
/// preset was made for it. Only the administrator knows what the daemon would do for a site.
fn is_a_daemons(found: &MissOnHost, context: &AdviceContext<'_>) -> bool {
    let is_kept_by_daemons = match found.kind {
        MissKind::Socket => true,
        MissKind::Device => false,
        _ => is_on_run(&found.miss.path),
    };
    let mut presets = context.presets.iter();
    is_kept_by_daemons && !presets.any(|preset| fits(preset, found, &BTreeSet::new()))
}

fn is_on_run(path: &JailPath) -> bool {
    path.as_path().starts_with("/run") || path.as_path().starts_with("/var/run")
}

/// The lines for one path. There are several to give several users a name, and for what belongs to
/// an interpreter.
fn additions(
    found: &MissOnHost,
    context: &AdviceContext<'_>,
    presets_by_programs: &BTreeSet<String>,
) -> Vec<Addition> {
    if let Some(lines) = lines_of_noexec(found, context) {
        return lines;
    }
    let path = found.miss.path.as_path();
    if path == Path::new("/etc/passwd") || path == Path::new("/etc/group") {
        return user_additions(&found.miss, context.users);
    }

    let smallest = context
        .presets
        .iter()
        .filter(|preset| fits(preset, found, presets_by_programs))
        .min_by_key(|preset| preset.desired.mounts.len());
    match smallest {
        Some(preset) => vec![addition("presets", preset.preset.clone())],
        None if found.part_of.is_empty() => vec![own_line(found)],
        None => {
            let mut lines = vec![];
            for (directory, has_objects) in &found.part_of {
                lines.extend(lines_of_part(directory, *has_objects));
            }
            lines
        }
    }
}

/// The lines that give the users who looked up their own name an account inside.
fn user_additions(miss: &Miss, names: &BTreeMap<u32, String>) -> Vec<Addition> {
    let mut lines = vec![];
    for user in &miss.users {
        if let Some(name) = names.get(user) {
            lines.push(addition("users", name.clone()));
        }
    }
    if lines.is_empty() {
        lines.push(addition("presets", "users".to_owned()));
    }
    lines
}

/// Whether the preset is right for the path: one of its lines names the path, or a directory above,
/// and the preset is not for other programs.
fn fits(
    preset: &PresetContents,
    found: &MissOnHost,
    presets_by_programs: &BTreeSet<String>,
) -> bool {
    let answer = why(&preset.desired, &found.miss.path);
    let Some(mount) = answer.mount else {
        return false;
    };
    // A socket that is a link, such as /dev/log, comes with the directory that the link leads to.
    let is_link = answer.link.is_some_and(|link| link.path == found.miss.path);
    let is_links = is_link && found.kind == MissKind::Socket;
    if !is_named(mount) && !is_links {
        return false;
    }
    let is_missed = presets_by_programs.contains(&preset.preset);
    let is_directory = mount.kind == FileKind::Directory;
    match found.kind {
        MissKind::Library => is_directory,
        MissKind::Program => is_directory || is_missed,
        _ => is_directory || is_missed || preset.programs.is_empty(),
    }
}

/// Whether a line names it; otherwise, only something else needs it.
fn is_named(mount: &Mount) -> bool {
    mount.reasons.iter().any(|reason| reason.chain.is_empty())
}

fn addition(key: &'static str, name: String) -> Addition {
    Addition {
        key,
        name,
        optional: false,
        executable: false,
    }
}

/// The line that brings only this path.
fn own_line(found: &MissOnHost) -> Addition {
    let path = &found.miss.path;
    let below = |base| {
        let name = path.as_path().strip_prefix(base).ok()?;
        Some(name.display().to_string())
    };
    match found.kind {
        MissKind::Program => addition("programs", pattern(path.as_path())),
        MissKind::Library => addition("libraries", pattern(path.as_path())),
        // Its directory: a bound socket is dead once its daemon restarts.
        MissKind::Socket => mount_of(&path.parent().unwrap_or_else(JailPath::slash)),
        MissKind::Device => match below("/dev") {
            Some(name) => addition("devices", name),
            None => addition("mounts", pattern(path.as_path())),
        },
        MissKind::Directory | MissKind::Data => match below("/etc") {
            Some(name) if !name.contains(['*', '?']) => addition("etc", name),
            _ => mount_of(path),
        },
    }
}

/// The lines that bring a whole directory of a package or an interpreter; for objects in it, also
/// the libraries that they need.
fn lines_of_part(directory: &HostPath, has_objects: bool) -> Vec<Addition> {
    let whole = pattern(directory.as_path());
    match directory.as_path().strip_prefix("/etc") {
        Ok(name) if !has_objects => vec![addition("etc", name.display().to_string())],
        _ if !has_objects => vec![addition("mounts", whole)],
        _ => {
            let objects = format!("{whole}/**/*.so");
            let mount = Addition {
                executable: true,
                ..addition("mounts", whole)
            };
            vec![mount, addition("libraries", objects)]
        }
    }
}

/// The lines for a file that may not be executed, because its mount is `noexec`; `None`: another
/// reason.
fn lines_of_noexec(found: &MissOnHost, context: &AdviceContext<'_>) -> Option<Vec<Addition>> {
    let mount = why(context.desired, &found.miss.path).mount?;
    let is_shown = found.miss.is_refused && mount.attributes.noexec;
    let is_directory = mount.kind == FileKind::Directory;
    (is_shown && is_directory).then(|| lines_of_part(&mount.source, true))
}

/// Optional on `/run`: what is there exists only once its daemon has started, which may be after
/// the site came up.
fn mount_of(path: &JailPath) -> Addition {
    Addition {
        key: "mounts",
        name: pattern(path.as_path()),
        optional: is_on_run(path),
        executable: false,
    }
}

/// The path, escaped for a key that takes patterns.
fn pattern(path: &Path) -> String {
    let text = path.display().to_string();
    let is_glob = HostPath::new(path).is_ok_and(|path| Pattern::new(path).is_glob());
    if is_glob {
        glob::Pattern::escape(&text)
    } else {
        text
    }
}

/// A preset is not needed if a larger advised preset brings all its paths as well.
fn merge_presets(lines: &mut BTreeMap<Addition, Vec<MissOnHost>>, presets: &[PresetContents]) {
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
fn merge_files(lines: &mut BTreeMap<Addition, Vec<MissOnHost>>) {
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
fn line_of_directory(line: &Addition, found: &MissOnHost) -> Option<Addition> {
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

/// What is below an advised directory comes with it.
fn merge_below(lines: &mut BTreeMap<Addition, Vec<MissOnHost>>) {
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

#[cfg(test)]
mod tests;
