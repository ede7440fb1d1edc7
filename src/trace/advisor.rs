//! The paths that one site lacks on this host, and the lines that would bring them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::advice::{Advice, AdviceContext, AdvisedLine, PresetContents, advise, why_read_only};
use super::denied::{user_name, why_denied};
use super::miss::{LookupFailure, Miss, Misses};
use super::on_host::{MissKind, MissOnHost, look};
use crate::Error;
use crate::base::{HostPath, JailPath, SEARCH_PATH};
use crate::manifest::{self, Manifest, MountRequest, Origin, Presets, Request, SourceFile};
use crate::resolve::{
    Desired, Host, OwnProgram, ProgramLine, ProgramLines, Resolver, Roots, name_services,
};

/// A site and its host, on which the advice depends.
pub(crate) struct Advisor<'s> {
    /// The site as its manifest has it.
    pub desired: &'s Desired,
    pub host: &'s Host,
    pub resolver: &'s Resolver,
    /// The roots of all sites.
    pub roots: &'s Roots,
    pub presets: &'s Presets,
}

/// The misses of a trace, by what they are on the host.
#[derive(Debug, Default)]
pub(crate) struct SortedMisses {
    pub on_host: Vec<MissOnHost>,
    /// Paths that the host does not have either.
    pub nowhere: Vec<Miss>,
    /// Paths that are there and may not be used so, with the reason.
    pub forbidden: Vec<(Miss, String)>,
}

impl Advisor<'_> {
    /// Looks the misses up on the host.
    pub(crate) fn sort(&self, misses: &Misses) -> SortedMisses {
        let mut sorted = SortedMisses::default();
        for miss in misses.iter() {
            if let Some(why) = self.why_forbidden(miss) {
                sorted.forbidden.push((miss.clone(), why));
            } else if let Some(found) = self.look(miss) {
                sorted.on_host.push(found);
            } else {
                sorted.nowhere.push(miss.clone());
            }
        }
        sorted
    }

    fn why_forbidden(&self, miss: &Miss) -> Option<String> {
        match miss.failure {
            LookupFailure::ReadOnly => Some(why_read_only(self.desired, &miss.path)),
            LookupFailure::Denied => Some(why_denied(self.desired, miss)),
            LookupFailure::Absent | LookupFailure::NotExecutable => None,
        }
    }

    fn look(&self, miss: &Miss) -> Option<MissOnHost> {
        look(self.host, self.roots, &self.desired.root, miss)
    }

    /// The lines that would bring what was `found` and is still missing, as far as they can be used
    /// in `manifest` on this host.
    pub(crate) fn usable_advice(&self, found: Vec<MissOnHost>, manifest: &Path) -> Advice {
        let mut advice = self.advice(found);
        // A path that was made only after it was looked up is not missing.
        let jail = Host::at(self.desired.root.as_path());
        advice
            .not_mounted
            .retain(|miss| !jail.is_there(&miss.path.on_host()).unwrap_or(false));
        advice.take_out(|line| self.failure(line, manifest));
        advice
    }

    /// The lines that would bring what was `found`, where presets can be among them.
    fn advice(&self, found: Vec<MissOnHost>) -> Advice {
        if found.is_empty() {
            return Advice::default();
        }
        let lines = ProgramLines::new(self.host, self.resolver, self.presets);
        let mut presets = vec![];
        for name in self.presets.names() {
            presets.extend(self.contents(name, &lines));
        }
        let mut users = BTreeMap::new();
        for found in &found {
            for id in &found.miss.users {
                users.extend(user_name(*id).map(|name| (*id, name)));
            }
        }
        let program_lines = program_lines(&lines, &found);
        advise(
            found,
            &AdviceContext {
                desired: self.desired,
                presets: &presets,
                users: &users,
                program_lines: &program_lines,
                account_modules: &account_modules(self.host),
            },
        )
    }

    /// The mounts that the preset would bring; `None`: it has mistakes, or cannot be used on this
    /// host.
    fn contents(&self, name: &str, lines: &ProgramLines<'_>) -> Option<PresetContents> {
        let is_language = self.presets.is_language(name);
        if !self.presets.is_part(name) && !is_language {
            return None;
        }
        let entries = self.presets.entries(name)?.ok()?;
        let preset = self.resolver.resolve_preset(&entries).ok()?;
        let own = lines.own_programs(name);
        let programs = own.iter().flat_map(|program| &program.files);
        let needed = OwnProgram::needed(&own).flat_map(|program| &program.files);
        let nothing = Desired::nothing(&self.desired.site, &self.desired.root);
        let desired = Desired {
            mounts: preset.mounts,
            links: preset.links,
            ..nothing
        };
        Some(PresetContents {
            preset: name.to_owned(),
            desired,
            programs: programs.cloned().collect(),
            needed_programs: needed.cloned().collect(),
            is_language,
        })
    }

    /// Why the line cannot be used on this host: a library of a program may be missing, for
    /// instance.
    fn failure(&self, line: &AdvisedLine, manifest: &Path) -> Option<String> {
        let file = SourceFile::File(manifest.to_owned());
        match manifest::entries_of(&format!("{}\n", line.addition), &file, self.presets) {
            Ok(entries) => {
                let errors = self.resolver.resolve_preset(&entries).err()?;
                errors.first().map(ToString::to_string)
            }
            Err(mistakes) => Some(mistakes.brief()),
        }
    }

    /// The error that nothing brings `path`, with the line that would as its hint. `manifest`: the
    /// site's, if it can be read.
    pub(crate) fn why_nothing(&self, manifest: Option<&Manifest>, path: JailPath) -> Error {
        let Desired { site, root, .. } = self.desired;
        let nothing = Error::failed(format!("{site}: nothing brings {path} into {root}"));
        if let Some(manifest) = manifest
            && let Some(origin) = waiting_for(manifest, &path)
        {
            return nothing.because_of(format_args!(
                "it is not on the host; once it is, this line brings it: {origin}"
            ));
        }
        let Some(found) = self.look(&Miss::new(path)) else {
            return nothing.because_of("it is not on the host either");
        };
        let advice = self.advice(vec![found]);
        match (advice.lines.first(), advice.refused.first()) {
            (Some(line), _) => nothing.hint(format!(
                "it is on the host; this line would bring it: {}",
                line.addition
            )),
            (None, Some((_, why))) => nothing.because_of(format_args!(
                "it is on the host, but no line is advised: {why}"
            )),
            (None, None) => nothing,
        }
    }
}

/// The names of the modules that the host asks for users and groups, and not for names of hosts.
fn account_modules(host: &Host) -> BTreeSet<String> {
    let text = HostPath::new("/etc/nsswitch.conf").ok();
    let text = text.and_then(|path| host.read(&path).ok());
    let text = text.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut asked: BTreeSet<String> = BTreeSet::new();
    for database in ["passwd", "group"] {
        asked.extend(name_services(&text, database));
    }
    for others in name_services(&text, "hosts") {
        asked.remove(&others);
    }
    let modules = asked.iter().map(|service| format!("libnss_{service}.so.2"));
    modules.collect()
}

/// The lines that bring the programs among what was `found`.
fn program_lines(
    lines: &ProgramLines<'_>,
    found: &[MissOnHost],
) -> BTreeMap<JailPath, ProgramLine> {
    let programs = found.iter().filter(|found| found.kind == MissKind::Program);
    let paths: Vec<_> = programs.map(|found| found.miss.path.on_host()).collect();
    let mut by_path = BTreeMap::new();
    for path in &paths {
        // A name that was looked for in several directories was looked for in PATH.
        let in_path = SEARCH_PATH.iter().map(Path::new);
        let same_name =
            in_path.filter_map(|known| HostPath::new(known.join(path.file_name()?)).ok());
        let places: Vec<_> = same_name.filter(|place| paths.contains(place)).collect();
        let line = if places.contains(path) {
            lines.line(&places)
        } else {
            lines.line(std::slice::from_ref(path))
        };
        if let (Some(line), Ok(path)) = (line, JailPath::new(path.as_path())) {
            by_path.insert(path, line);
        }
    }
    by_path
}

/// The optional line that names `path`, or a directory above it, which does not exist.
fn waiting_for<'m>(manifest: &'m Manifest, path: &JailPath) -> Option<&'m Origin> {
    for entry in &manifest.entries {
        let waits = match &entry.request {
            Request::Mount(mount) => mount.sources.optional && names(mount, path),
            Request::Etc(wanted) => {
                let mut any_of = wanted.any_of.iter();
                let path = path.as_path();
                wanted.optional && any_of.any(|name| path.starts_with(Path::new("/etc").join(name)))
            }
            _ => false,
        };
        if waits {
            return Some(&entry.origin);
        }
    }
    None
}

/// Whether `path` is a target or a source of the mount, or below one.
fn names(mount: &MountRequest, path: &JailPath) -> bool {
    if let Some(target) = &mount.target
        && path.starts_with(target)
    {
        return true;
    }
    let path = path.on_host();
    let mut sources = mount.sources.any_of.iter();
    sources.any(|pattern| path.starts_with(pattern.path()))
}
