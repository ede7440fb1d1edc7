//! Which line of a manifest brings a program: a preset that is made for it, or one of `programs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::desired::{FileKind, Mount};
use super::host::Host;
use super::resolver::Resolver;
use crate::base::{HostPath, SEARCH_PATH, is_searched};
use crate::manifest::{CodeName, Presets, Request, Wanted, yaml_scalar};

/// A preset that needs more programs than this is made for none of them: it brings far more.
const FEW: usize = 3;

/// Knows which line brings a program of this host.
pub(crate) struct ProgramLines<'p> {
    host: &'p Host,
    resolver: &'p Resolver,
    presets: &'p Presets,
    named: OnceLock<NamedPrograms>,
}

/// The programs that presets' own lines name, each by its real path.
struct NamedPrograms {
    all: BTreeSet<HostPath>,
    /// The presets that are made for a program.
    made_for: BTreeMap<HostPath, BTreeSet<String>>,
}

/// The line that brings a program. `Display` is the line itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProgramLine {
    Preset(String),
    Program(HostPath),
}

impl ProgramLine {
    /// The key of the line, and its item.
    pub(crate) fn key_and_item(&self) -> (&'static str, String) {
        match self {
            Self::Preset(name) => ("presets", name.clone()),
            Self::Program(path) => ("programs", path.to_string()),
        }
    }
}

impl fmt::Display for ProgramLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, item) = self.key_and_item();
        write!(f, "{key}: [{}]", yaml_scalar(&item))
    }
}

/// A line under `programs` of a preset itself.
pub(crate) struct OwnProgram {
    is_required: bool,
    /// The real paths of its files.
    pub(crate) files: Vec<HostPath>,
}

impl OwnProgram {
    /// Those that the preset cannot do without, or all if it needs none.
    pub(crate) fn needed(own: &[Self]) -> impl Iterator<Item = &Self> {
        let any_is_required = own.iter().any(|program| program.is_required);
        own.iter()
            .filter(move |program| program.is_required == any_is_required)
    }
}

impl<'p> ProgramLines<'p> {
    pub(crate) fn new(host: &'p Host, resolver: &'p Resolver, presets: &'p Presets) -> Self {
        Self {
            host,
            resolver,
            presets,
            named: OnceLock::new(),
        }
    }

    /// The line for the program that is looked for at `places`, in this order. A preset for the
    /// program at a later place wins over a line for the one at the first. `None`: this host does
    /// not have it.
    pub(crate) fn line(&self, places: &[HostPath]) -> Option<ProgramLine> {
        let mut first = None;
        for place in places {
            let Ok(walk) = self.host.walk(place) else {
                continue;
            };
            if walk.stat.kind != FileKind::File {
                continue;
            }
            if let Some(preset) = self.preset_of(place) {
                return Some(ProgramLine::Preset(preset));
            }
            first.get_or_insert(place);
        }
        let first = first?;
        Some(ProgramLine::Program(match places {
            [only] => only.clone(), // the usual name may not bring this one
            _ => self.usual(first),
        }))
    }

    /// The preset that is named after the host's program at `path`, or made for it.
    pub(crate) fn preset_of(&self, path: &HostPath) -> Option<String> {
        let real = self.real(path)?;
        let mut presets = names_after(path);
        if let Some(made_for) = self.named().made_for.get(&real)
            && made_for.len() == 1
        {
            presets.extend(made_for.iter().cloned());
        }
        presets
            .into_iter()
            .find(|preset| self.brings(preset, &real))
    }

    /// The host's files and directories that the preset's own lines under `mounts` name.
    pub(crate) fn mounts_of(&self, preset: &str) -> Vec<HostPath> {
        let mut sources = vec![];
        for mount in self.resolved(preset) {
            let is_own = |reason: &super::Reason| {
                reason.chain.is_empty()
                    && reason.origin.presets == [preset]
                    && reason.origin.key.starts_with("mounts")
            };
            if mount.reasons.iter().any(is_own) {
                sources.push(mount.source.clone());
            }
        }
        sources
    }

    fn brings(&self, preset: &str, program: &HostPath) -> bool {
        let mounts = self.resolved(preset);
        let mut mounts = mounts.iter();
        mounts.any(|mount| program.starts_with(&mount.source) && !mount.attributes.noexec)
    }

    /// The mounts of the preset; none: it has mistakes, or cannot be used on this host.
    fn resolved(&self, preset: &str) -> Vec<Arc<Mount>> {
        let Some(Ok(entries)) = self.presets.entries(preset) else {
            return vec![];
        };
        match self.resolver.resolve_preset(&entries) {
            Ok(preset) => preset.mounts,
            Err(_) => vec![],
        }
    }

    /// The real paths of the programs that presets name.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &HostPath> {
        self.named().all.iter()
    }

    fn named(&self) -> &NamedPrograms {
        self.named.get_or_init(|| self.read_presets())
    }

    /// A preset is made for the few programs that it cannot do without and that no other preset
    /// names.
    fn read_presets(&self) -> NamedPrograms {
        let mut named: BTreeMap<HostPath, BTreeSet<&str>> = BTreeMap::new();
        let mut programs = vec![];
        for preset in self.presets.names() {
            let own = self.own_programs(preset);
            for file in own.iter().flat_map(|program| &program.files) {
                named.entry(file.clone()).or_default().insert(preset);
            }
            programs.push((preset, own));
        }
        let mut made_for: BTreeMap<HostPath, BTreeSet<String>> = BTreeMap::new();
        for (preset, own) in programs {
            let is_its_own = |file: &HostPath| named.get(file).is_some_and(|by| by.len() == 1);
            for file in needed(&own, is_its_own) {
                made_for.entry(file).or_default().insert(preset.to_owned());
            }
        }
        NamedPrograms {
            all: named.into_keys().collect(),
            made_for,
        }
    }

    /// The programs that the preset's own lines name, as far as this host has them.
    pub(crate) fn own_programs(&self, preset: &str) -> Vec<OwnProgram> {
        let Some(Ok(entries)) = self.presets.entries(preset) else {
            return vec![];
        };
        let mut programs = vec![];
        for entry in entries {
            if let Request::Program(wanted) = &entry.request
                && entry.origin.presets == [preset]
            {
                programs.push(OwnProgram {
                    is_required: !wanted.optional,
                    files: self.files(wanted),
                });
            }
        }
        programs
    }

    /// The real paths of the first alternative that this host has.
    fn files(&self, wanted: &Wanted<CodeName>) -> Vec<HostPath> {
        for name in &wanted.any_of {
            let paths = match name {
                CodeName::Path(pattern) if pattern.is_glob() => {
                    self.host.glob(pattern.path()).unwrap_or_default()
                }
                CodeName::Path(pattern) => vec![pattern.path().clone()],
                CodeName::Name(name) => in_path(name),
            };
            let mut found: Vec<_> = paths.iter().filter_map(|path| self.real(path)).collect();
            if matches!(name, CodeName::Name(_)) {
                found.truncate(1);
            }
            if !found.is_empty() {
                return found;
            }
        }
        vec![]
    }

    fn real(&self, path: &HostPath) -> Option<HostPath> {
        Some(self.host.walk(path).ok()?.real)
    }

    /// The first name in PATH of the program at `path`: `/usr/bin/vim` for `/bin/vim`, where these
    /// are the same directory.
    fn usual(&self, path: &HostPath) -> HostPath {
        let usual = || {
            let name = path.file_name()?.to_str()?;
            let directory = path.parent()?;
            let searched = is_searched(directory.as_path());
            let directory = self.real(&directory).filter(|_| searched)?;
            let is_same = |other: &HostPath| {
                let other = other.parent().and_then(|other| self.real(&other));
                other.as_ref() == Some(&directory)
            };
            in_path(name).into_iter().find(is_same)
        };
        usual().unwrap_or_else(|| path.clone())
    }
}

/// The programs that a preset needs; none, if there are many.
fn needed(own: &[OwnProgram], is_its_own: impl Fn(&HostPath) -> bool) -> Vec<HostPath> {
    let mut lines = 0;
    let mut files = vec![];
    for program in OwnProgram::needed(own) {
        let its_own: Vec<_> = program
            .files
            .iter()
            .filter(|file| is_its_own(file))
            .collect();
        if !its_own.is_empty() {
            lines += 1;
            files.extend(its_own.into_iter().cloned());
        }
    }
    if lines > FEW {
        return vec![];
    }
    files
}

/// The paths of a program's name in PATH.
fn in_path(name: &str) -> Vec<HostPath> {
    let mut paths = vec![];
    for directory in SEARCH_PATH {
        paths.extend(HostPath::new(Path::new(directory).join(name)));
    }
    paths
}

/// The names of presets that are for a program of this name: `php-cli` for `php8.2`.
fn names_after(path: &HostPath) -> Vec<String> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return vec![];
    };
    let base = without_version(name);
    vec![
        name.to_owned(),
        base.to_owned(),
        format!("{base}-cli"),
        format!("{base}-client"),
    ]
}

/// A program's name without the number at its end: `php` for `php8.2`.
pub(crate) fn without_version(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
}
