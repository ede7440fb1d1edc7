//! The misses that are on the host → the lines that would bring them. Pure.

mod lines;
mod merge;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::path::Path;

use super::miss::{LookupFailure, Miss};
use super::on_host::{MissKind, MissOnHost};
use crate::base::{HostPath, JailPath, SEARCH_PATH};
use crate::manifest::Addition;
use crate::resolve::{Desired, FileKind, Mount, ProgramLine, why};
use lines::{
    addition, is_on_run, line_of_data, lines_of_objects, of_program, own_directory, own_line,
    pattern,
};
pub(super) use merge::PresetContents;
use merge::{MANY, merge_below, merge_files, merge_presets, within_mounts};

/// The site and host that the advice depends on.
#[derive(Clone, Debug)]
pub(super) struct AdviceContext<'c> {
    /// The site as its manifest has it now.
    pub desired: &'c Desired,
    /// The presets that it does not include.
    pub presets: &'c [PresetContents],
    /// The names of the users that the programs ran as.
    pub users: &'c BTreeMap<u32, String>,
    /// The lines that bring the programs among the misses.
    pub program_lines: &'c BTreeMap<JailPath, ProgramLine>,
    /// The names of the modules that this host asks for accounts alone (nsswitch.conf(5)).
    pub account_modules: &'c BTreeSet<String>,
}

/// A line of a manifest, and the misses that it would bring.
#[derive(Clone, Debug)]
pub(crate) struct AdvisedLine {
    pub addition: Addition,
    /// The one that was looked up most often comes first.
    pub misses: Vec<Miss>,
}

/// The advice about the misses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Advice {
    /// The lines to add, the most useful first.
    pub lines: Vec<AdvisedLine>,
    /// Paths that the manifest has already: the site is not as it should be.
    pub not_mounted: Vec<Miss>,
    /// Paths that a jail should not get just because a program looked for them, and why.
    pub refused: Vec<(Miss, String)>,
}

impl Advice {
    /// Takes out the lines for which `failure` knows a reason not to add them.
    pub(super) fn take_out(&mut self, failure: impl Fn(&AdvisedLine) -> Option<String>) {
        let mut lines: VecDeque<_> = std::mem::take(&mut self.lines).into();
        while let Some(line) = lines.pop_front() {
            match failure(&line) {
                None => self.lines.push(line),
                Some(_) if !line.apart().is_empty() => lines.extend(line.apart()),
                Some(why) => {
                    for miss in line.misses {
                        self.refused.push((miss, why.clone()));
                    }
                }
            }
        }
    }
}

/// The lines for the misses that are on the host.
pub(super) fn advise(found: Vec<MissOnHost>, context: &AdviceContext<'_>) -> Advice {
    let mut advice = Advice::default();
    let wanted = sort_out(found, context, &mut advice);

    let presets = presets_by_programs(&wanted, context);
    let mut lines: BTreeMap<Addition, Vec<MissOnHost>> = BTreeMap::new();
    for found in wanted {
        for addition in additions(&found, context, &presets) {
            lines.entry(addition).or_default().push(found.clone());
        }
    }
    merge_presets(&mut lines, context.presets);
    merge_files(&mut lines);
    merge_below(&mut lines);
    advice.refused.extend(within_mounts(&mut lines));

    for (addition, found) in lines {
        advice.lines.push(AdvisedLine::new(addition, found));
    }
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
        match verdict(&found, context) {
            MissVerdict::Wanted => wanted.push(found),
            MissVerdict::NotMounted => advice.not_mounted.push(found.miss),
            MissVerdict::Refused(why) => advice.refused.push((found.miss, why)),
        }
    }

    let mut own = vec![];
    for found in &wanted {
        if let Some(scratch) = &found.scratch {
            own.push(scratch.path.clone());
        }
    }
    advice
        .refused
        .retain(|(miss, _)| !comes_with(&miss.path, &wanted, &own));
    wanted.retain(|found| found.scratch.is_some() || !is_above(&found.miss.path, &own));
    without_aliases(wanted)
}

/// Whether a miss needs a line.
enum MissVerdict {
    Wanted,
    /// The manifest has it already.
    NotMounted,
    /// A jail should not get it, for this reason.
    Refused(String),
}

fn verdict(found: &MissOnHost, context: &AdviceContext<'_>) -> MissVerdict {
    if lines_of_noexec(found, context).is_some() {
        return MissVerdict::Wanted;
    }
    if found.miss.failure == LookupFailure::NotExecutable {
        let why = "it is there, and may not be executed: see its mode, and whether its file \
                   system is mounted with noexec";
        return MissVerdict::Refused(why.to_owned());
    }
    if brings(context.desired, &found.miss.path) {
        return MissVerdict::NotMounted;
    }
    if is_of_accounts(found, context) {
        let why = "it is asked for an account that /etc/passwd or /etc/group does not have inside: \
                   name the user that the program looked up under `users`, or add `nss: [passwd]` \
                   for all that it knows";
        return MissVerdict::Refused(why.to_owned());
    }
    if let Some(scratch) = &found.scratch {
        let mut own = context.desired.directories.iter();
        return if own.any(|own| own.path == scratch.path) {
            MissVerdict::NotMounted
        } else {
            MissVerdict::Wanted
        };
    }
    if let Some(why) = &found.refusal {
        return MissVerdict::Refused(why.clone());
    }
    if is_a_daemons(found, context) {
        let line = own_line(found);
        let why = format!("it is a daemon's; if this site is to reach it, add `{line}` by hand");
        return MissVerdict::Refused(why);
    }
    MissVerdict::Wanted
}

/// Whether a module that knows accounts is asked, although the site has files with its own.
fn is_of_accounts(found: &MissOnHost, context: &AdviceContext<'_>) -> bool {
    let name = found.miss.path.file_name().and_then(OsStr::to_str);
    let mut own = ["/etc/passwd", "/etc/group"].iter();
    name.is_some_and(|name| context.account_modules.contains(name))
        && own.any(|file| JailPath::new(file).is_ok_and(|file| brings(context.desired, &file)))
}

/// Whether nothing need be said about `path`: a directory on the way to something that is wanted
/// comes with it, and what was looked for in a directory of the site's `own` is the site's to make.
fn comes_with(path: &JailPath, wanted: &[MissOnHost], own: &[JailPath]) -> bool {
    wanted.iter().any(|found| found.miss.path.starts_with(path))
        || is_above(path, own)
        || own.iter().any(|own| path.starts_with(own))
}

/// Whether `path` is one of `paths`, or above one.
fn is_above(path: &JailPath, paths: &[JailPath]) -> bool {
    paths.iter().any(|below| below.starts_with(path))
}

fn brings(desired: &Desired, path: &JailPath) -> bool {
    why(desired, path).mount.is_some()
}

impl AdvisedLine {
    fn new(addition: Addition, found: Vec<MissOnHost>) -> Self {
        let mut misses: Vec<_> = found.into_iter().map(|found| found.miss).collect();
        misses.sort_by(|a, b| b.lookups.cmp(&a.lookups).then_with(|| a.path.cmp(&b.path)));
        Self { addition, misses }
    }

    /// For a pattern of libraries: a line for each of the files, in case the pattern matches files
    /// that cannot be brought. No lines for other keys.
    fn apart(&self) -> Vec<Self> {
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
/// and `/bin`: by its real path, if that is one of them. Of a program that `PATH` was searched for,
/// the first place counts.
fn without_aliases(mut wanted: Vec<MissOnHost>) -> Vec<MissOnHost> {
    wanted.sort_by_key(|found| {
        let is_link = found.miss.path.as_path() != found.real.as_path();
        (place_in_path(found).unwrap_or(usize::MAX), is_link)
    });
    let (mut seen, mut searched) = (BTreeSet::new(), BTreeSet::new());
    wanted.retain(|found| match found.kind {
        MissKind::Program | MissKind::Library => {
            let name = found.miss.path.as_path().file_name().map(OsStr::to_owned);
            let is_first = place_in_path(found).is_none() || searched.insert(name);
            seen.insert(found.real.clone()) && is_first
        }
        _ => true,
    });
    wanted
}

/// The place in `PATH` of the directory that the program is in.
fn place_in_path(found: &MissOnHost) -> Option<usize> {
    let directory = found.miss.path.as_path().parent()?;
    let mut places = SEARCH_PATH.iter();
    let place = places.position(|place| Path::new(place) == directory);
    place.filter(|_| found.kind == MissKind::Program)
}

/// The presets that are made for a missed program, and those of which several programs were missed
/// that are at least half of those that it needs. Only programs that no other preset names count:
/// the shell, which many bring, is not a sign of any of them.
fn presets_by_programs(wanted: &[MissOnHost], context: &AdviceContext<'_>) -> BTreeSet<String> {
    let mut missed_presets = BTreeSet::new();
    for found in wanted {
        let line = context.program_lines.get(&found.miss.path);
        if let Some(ProgramLine::Preset(name)) = line {
            missed_presets.insert(name.clone());
        }
    }
    for preset in context.presets {
        if preset.is_language {
            continue;
        }
        let (mut own, mut missed) = (0, 0);
        for program in &preset.needed_programs {
            if is_of_another(program, preset, context.presets) {
                continue;
            }
            own += 1;
            if wanted.iter().any(|found| found.real == *program) {
                missed += 1;
            }
        }
        if missed > 1 && 2 * missed >= own {
            missed_presets.insert(preset.preset.clone());
        }
    }
    missed_presets
}

/// Whether a preset other than `preset`, and not of a language, names the program.
fn is_of_another(program: &HostPath, preset: &PresetContents, presets: &[PresetContents]) -> bool {
    for other in presets {
        let is_other = other.preset != preset.preset && !other.is_language;
        if is_other && other.programs.contains(program) {
            return true;
        }
    }
    false
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
    if let Some(scratch) = &found.scratch {
        return vec![own_directory(scratch, context.users)];
    }
    let path = found.miss.path.as_path();
    if path == Path::new("/etc/passwd") || path == Path::new("/etc/group") {
        return user_additions(&found.miss, context.users);
    }

    let line = context.program_lines.get(&found.miss.path);
    if let Some(line @ ProgramLine::Preset(_)) = line {
        return vec![of_program(line)];
    }
    if let Some(preset) = smallest_preset(found, context, presets_by_programs) {
        return vec![preset.line()];
    }
    if let Some(line) = line {
        return vec![of_program(line)];
    }
    if found.part_of.is_empty() {
        return vec![own_line(found)];
    }
    let mut lines = vec![];
    for (directory, has_objects) in &found.part_of {
        if is_brought(context, directory) {
            continue;
        }
        if *has_objects {
            lines.extend(lines_of_objects(directory));
        } else {
            lines.push(line_of_data(directory));
        }
    }
    lines
}

/// The smallest preset that is right for the path.
fn smallest_preset<'c>(
    found: &MissOnHost,
    context: &AdviceContext<'c>,
    presets_by_programs: &BTreeSet<String>,
) -> Option<&'c PresetContents> {
    let mut right = vec![];
    for preset in context.presets {
        let is_of_use = if preset.is_language {
            has_its_program(preset, context)
        } else {
            found.part_of.is_empty() || is_of_site(preset, context, presets_by_programs)
        };
        if is_of_use && fits(preset, found, presets_by_programs) {
            right.push(preset);
        }
    }
    right
        .into_iter()
        .min_by_key(|preset| preset.desired.mounts.len())
}

/// Whether the manifest asks for the host's directory already.
fn is_brought(context: &AdviceContext<'_>, directory: &HostPath) -> bool {
    match JailPath::new(directory.as_path()) {
        Ok(path) => brings(context.desired, &path),
        Err(_) => false,
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

/// Whether the site has the programs that the preset is for, or looked for them. Another preset is
/// more than the directories that are missed.
fn is_of_site(
    preset: &PresetContents,
    context: &AdviceContext<'_>,
    presets_by_programs: &BTreeSet<String>,
) -> bool {
    let mut programs = preset.programs.iter();
    preset.programs.is_empty()
        || presets_by_programs.contains(&preset.preset)
        || programs.any(|program| is_brought(context, program))
}

/// Whether the site has a program that the preset is for, by whatever name.
fn has_its_program(preset: &PresetContents, context: &AdviceContext<'_>) -> bool {
    let mut mounts = context.desired.mounts.iter();
    mounts.any(|mount| preset.needed_programs.contains(&mount.source))
}

/// Whether a line names it; otherwise, only something else needs it.
fn is_named(mount: &Mount) -> bool {
    mount.reasons.iter().any(|reason| reason.chain.is_empty())
}

/// Why `path`, which was to be written, could not be.
pub(super) fn why_read_only(desired: &Desired, path: &JailPath) -> String {
    match why(desired, path).mount {
        Some(mount) => {
            let (target, what) = (&mount.target, mount.what());
            format!(
                "it was to be written, and {target} is {what}, mounted read-only; let the program \
                 write elsewhere"
            )
        }
        None => {
            "it was to be written in a directory that is read-only: either it was made for the \
                 mounts in it, and `directories` or `tmpfs` gives the site one of its own, or its \
                 disk is mounted read-only"
                .to_owned()
        }
    }
}

/// The lines for a file that may not be executed, because its mount is `noexec`; `None`: another
/// reason.
fn lines_of_noexec(found: &MissOnHost, context: &AdviceContext<'_>) -> Option<Vec<Addition>> {
    let mount = why(context.desired, &found.miss.path).mount?;
    let is_shown = found.miss.failure == LookupFailure::NotExecutable && mount.attributes.noexec;
    if !is_shown || mount.kind != FileKind::Directory {
        return None;
    }
    Some(lines_of_objects(&mount.source))
}

#[cfg(test)]
mod tests;
