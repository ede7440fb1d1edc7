//! Named parts of manifests: the built-in ones, those that a host adds, and their includes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::check::did_you_mean;
use super::defaults::{Defaults, DefaultsFile, PresetSection};
use super::diagnostic::{Diagnostics, Fault, FaultText, quoted};
use super::entries::{Entry, SourceFile};
use super::grammar::{Grammar, Include};
use super::locate::PairPart;
use super::node::YamlError;
use super::parsed::{LinesOf, ParsedFile};
use super::root_line::KnownManifests;
use crate::base::text::nearest;

macro_rules! embedded {
    ($($group:literal: [$($name:literal),* $(,)?]),* $(,)?) => {
        &[$($((
            $name,
            $group,
            include_str!(concat!("../../manifests/presets/", $name, ".yaml")),
        ),)*)*]
    };
}

/// The files of `manifests/presets`, with the groups in which they are listed.
const BUILT_IN: &[(&str, &str, &str)] = embedded![
    "Parts": [
        "base", "dns", "dns-resolved", "tls", "timezone", "locale", "iconv", "users", "syslog",
        "fonts", "mail", "systemd-notify",
    ],
    "Sockets of services": ["mysql", "postgresql", "redis", "memcached"],
    "PHP": ["php-fpm", "php-imagick", "php-cli", "composer", "wp-cli"],
    "Languages": ["python3", "perl", "ruby", "node", "java"],
    "Programs": [
        "shell", "busybox", "git", "imagemagick", "mysql-client", "ping", "rsync",
    ],
    "Logins by SSH": ["sftp", "ssh-shell"],
    "Daemons": [
        "apache", "haproxy", "named", "nginx", "nsd", "postfix", "squid", "unbound",
    ],
];

/// The presets of one run, and the defaults of all sites. Each is parsed once, when it is first
/// needed.
#[derive(Debug, Default)]
pub struct Presets {
    by_name: BTreeMap<String, Preset>,
    defaults: Option<DefaultsFile>,
    expanded_defaults: OnceLock<Result<Defaults, Diagnostics>>,
    manifests: KnownManifests,
}

#[derive(Debug)]
struct Preset {
    file: SourceFile,
    text: Cow<'static, str>,
    parsed: OnceLock<ParsedFile>,
    expanded: OnceLock<Result<Vec<PresetSection>, Diagnostics>>,
}

impl Preset {
    fn new(file: SourceFile, text: Cow<'static, str>) -> Self {
        Self {
            file,
            text,
            parsed: OnceLock::new(),
            expanded: OnceLock::new(),
        }
    }

    fn parsed(&self) -> &ParsedFile {
        self.parsed
            .get_or_init(|| ParsedFile::new(&self.text, Grammar::Preset))
    }
}

impl Presets {
    /// The presets that are part of the binary.
    pub fn built_in() -> Self {
        let preset = |(name, _, text): &(&str, &str, &'static str)| {
            let file = SourceFile::BuiltIn((*name).to_owned());
            ((*name).to_owned(), Preset::new(file, Cow::Borrowed(text)))
        };
        Self {
            by_name: BUILT_IN.iter().map(preset).collect(),
            ..Self::default()
        }
    }

    /// The manifests that were read with these presets.
    pub(super) fn known_manifests(&self) -> &KnownManifests {
        &self.manifests
    }

    /// Sets the defaults of all sites. They are checked when they are used.
    pub fn set_defaults(&mut self, file: SourceFile, text: String) {
        self.defaults = Some(DefaultsFile::new(file, text));
    }

    /// As [`Presets::set_defaults`] for a file that could not be read, and why. That is a mistake
    /// of every site.
    pub fn set_unreadable_defaults(&mut self, file: SourceFile, why: String) {
        self.defaults = Some(DefaultsFile::unreadable(file, why));
    }

    /// Every mistake in the defaults of all sites and in what they include; `None`: there are none.
    pub fn mistakes_in_defaults(&self) -> Option<&Diagnostics> {
        self.defaults()?.as_ref().err()
    }

    /// The defaults of all sites; `None`: there is no such file.
    pub(super) fn defaults(&self) -> Option<&Result<Defaults, Diagnostics>> {
        let file = self.defaults.as_ref()?;
        Some(
            self.expanded_defaults
                .get_or_init(|| self.expand_defaults(file)),
        )
    }

    /// The lines of the defaults of all sites. Errors: every mistake in `file` and in the presets
    /// that it includes.
    fn expand_defaults(&self, file: &DefaultsFile) -> Result<Defaults, Diagnostics> {
        let mut parsed = file.parsed();
        let mut expansion = PresetExpansion::of_defaults(self);
        let mut faults = std::mem::take(&mut parsed.faults);
        expansion.include(&mut vec![], &parsed.contents.presets, &mut faults);
        let in_file = parsed.diagnostics(&file.file, &file.text, faults);
        if let Some(wrong) = Diagnostics::merged([in_file, expansion.wrong]) {
            return Err(wrong);
        }
        Ok(Defaults {
            entries: parsed.entries(&file.file, &[], LinesOf::AllSites),
            sections: expansion.sections,
            services: parsed.contents.services,
            file: Some(file.file.clone()),
            scope: parsed.contents.scope.map(|line| line.scope),
        })
    }

    /// Adds the preset `name`, or replaces the one of that name. It is checked when it is used.
    pub fn add(&mut self, name: &str, file: SourceFile, text: String) {
        self.by_name
            .insert(name.to_owned(), Preset::new(file, Cow::Owned(text)));
    }

    /// As [`Presets::add`] for a file that could not be read, and why. That is a mistake of every
    /// file that uses the preset.
    pub fn add_unreadable(&mut self, name: &str, file: SourceFile, why: String) {
        let error = YamlError {
            at: None,
            message: "the preset cannot be read",
            label: why,
            help: None,
        };
        let mut preset = Preset::new(file, Cow::Borrowed(""));
        preset.parsed = OnceLock::from(ParsedFile::not_yaml(error));
        self.by_name.insert(name.to_owned(), preset);
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Whether a preset of that name is part of the binary, even if a file has replaced it.
    pub fn is_built_in(&self, name: &str) -> bool {
        BUILT_IN.iter().any(|(known, ..)| *known == name)
    }

    /// Whether a preset is a part of what many programs need, and not for one language, daemon or
    /// way to log in.
    pub fn is_part(&self, name: &str) -> bool {
        const WHOLE: [&str; 3] = ["Languages", "Daemons", "Logins by SSH"];
        let mut groups = self.groups().into_iter();
        groups.all(|(group, names)| !WHOLE.contains(&group) || !names.contains(&name))
    }

    /// Whether the preset is that of an interpreter, with all that it loads.
    pub fn is_language(&self, name: &str) -> bool {
        let mut groups = self.groups().into_iter();
        groups.any(|(group, names)| group == "Languages" && names.contains(&name))
    }

    /// The groups, each with the names of its presets, in the order in which they are listed. Those
    /// that are not part of the binary come last.
    pub fn groups(&self) -> Vec<(&'static str, Vec<&str>)> {
        let mut groups: Vec<(&'static str, Vec<&str>)> = vec![];
        for (name, group, _) in BUILT_IN {
            match groups.last_mut() {
                Some((last, names)) if last == group => names.push(name),
                _ => groups.push((group, vec![name])),
            }
        }
        let others: Vec<_> = self
            .names()
            .filter(|name| !self.is_built_in(name))
            .collect();
        if !others.is_empty() {
            groups.push(("Of this host", others));
        }
        groups
    }

    /// The file that has the preset `name`.
    pub fn file(&self, name: &str) -> Option<&SourceFile> {
        self.by_name.get(name).map(|preset| &preset.file)
    }

    /// The preset's text as its author wrote it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(|preset| &*preset.text)
    }

    /// The one line that describes the preset; `None`: there is no such preset, or it has mistakes.
    pub fn description(&self, name: &str) -> Option<&str> {
        let parsed = self.by_name.get(name)?.parsed();
        parsed.contents.description.as_deref()
    }

    /// The known name that `name` was probably meant to be.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.names())
    }

    /// The lines of the preset `name`, with all that it includes, each once.
    ///
    /// Errors: every mistake in it and in what it includes; `None`: there is no such preset.
    pub fn entries(&self, name: &str) -> Option<Result<Vec<Arc<Entry>>, Diagnostics>> {
        let (name, preset) = self.by_name.get_key_value(name)?;
        let expanded = self.expanded(name, preset);
        Some(expanded.clone().map(|sections| {
            sections
                .into_iter()
                .flat_map(|section| section.entries)
                .collect()
        }))
    }

    /// Adds to `entries` what `defaults` and `includes` bring by presets, each preset once.
    /// Mistakes of the includes themselves are added to `faults`; those in the presets are
    /// returned.
    pub(super) fn include(
        &self,
        defaults: &[PresetSection],
        includes: &[Include],
        entries: &mut Vec<Arc<Entry>>,
        faults: &mut Vec<Fault>,
    ) -> Option<Diagnostics> {
        let mut seen = HashSet::new();
        for section in defaults {
            seen.insert(section.preset.as_str());
            entries.extend_from_slice(&section.entries);
        }
        let mut wrong = None;
        for include in includes {
            let Some((name, preset)) = self.by_name.get_key_value(&include.name) else {
                faults.push(self.unknown(include));
                continue;
            };
            match self.expanded(name, preset) {
                Ok(sections) => {
                    for section in sections {
                        if seen.insert(section.preset.as_str()) {
                            entries.extend_from_slice(&section.entries);
                        }
                    }
                }
                Err(diagnostics) => {
                    wrong = Diagnostics::merged([wrong, Some(diagnostics.clone())]);
                }
            }
        }
        wrong
    }

    fn expanded<'p>(
        &self,
        name: &str,
        preset: &'p Preset,
    ) -> &'p Result<Vec<PresetSection>, Diagnostics> {
        preset.expanded.get_or_init(|| {
            let mut expansion = PresetExpansion::of_preset(self);
            expansion.add(&mut vec![name.to_owned()], preset);
            match expansion.wrong {
                None => Ok(expansion.sections),
                Some(wrong) => Err(wrong),
            }
        })
    }

    fn unknown(&self, include: &Include) -> Fault {
        let names: Vec<_> = self.names().collect();
        let help = did_you_mean(&include.name, &names)
            .unwrap_or_else(|| "`mountjail presets` lists all".to_owned());
        fault(
            include,
            format!("there is no preset {}", quoted(&include.name)),
            "unknown".to_owned(),
            help,
        )
    }
}

/// One preset, or the defaults, with all that it includes, depth first.
struct PresetExpansion<'p> {
    presets: &'p Presets,
    /// Whose the includes are.
    of: LinesOf,
    seen: HashSet<String>,
    sections: Vec<PresetSection>,
    wrong: Option<Diagnostics>,
}

impl<'p> PresetExpansion<'p> {
    fn of_preset(presets: &'p Presets) -> Self {
        Self {
            presets,
            of: LinesOf::OneSite,
            seen: HashSet::new(),
            sections: vec![],
            wrong: None,
        }
    }

    fn of_defaults(presets: &'p Presets) -> Self {
        Self {
            of: LinesOf::AllSites,
            ..Self::of_preset(presets)
        }
    }

    /// Adds the preset at the end of `chain`.
    fn add(&mut self, chain: &mut Vec<String>, preset: &Preset) {
        let Some(name) = chain.last() else { return };
        if !self.seen.insert(name.clone()) {
            return;
        }
        let parsed = preset.parsed();
        let mut faults = parsed.faults.clone();
        self.sections.push(PresetSection {
            preset: name.clone(),
            entries: parsed.entries(&preset.file, chain, self.of),
        });
        self.include(chain, &parsed.contents.presets, &mut faults);
        let found = parsed.diagnostics(&preset.file, &preset.text, faults);
        self.wrong = Diagnostics::merged([self.wrong.take(), found]);
    }

    /// Adds the presets that the file at the end of `chain` includes. Mistakes of the includes
    /// themselves are added to `faults`.
    fn include(&mut self, chain: &mut Vec<String>, includes: &[Include], faults: &mut Vec<Fault>) {
        for include in includes {
            if let Some(cycle) = cycle(chain, &include.name) {
                let help = "take one of the includes out".to_owned();
                faults.push(fault(
                    include,
                    "presets include each other in a circle".to_owned(),
                    cycle,
                    help,
                ));
                continue;
            }
            match self.presets.by_name.get(&include.name) {
                Some(preset) => {
                    chain.push(include.name.clone());
                    self.add(chain, preset);
                    chain.pop();
                }
                None => faults.push(self.presets.unknown(include)),
            }
        }
    }
}

fn fault(include: &Include, message: String, label: String, help: String) -> Fault {
    let text = FaultText {
        key: include.key.clone(),
        message,
        label,
        help: Some(help),
    };
    Fault {
        steps: include.steps.clone(),
        part: PairPart::Value,
        text,
    }
}

/// `a -> b -> a`, if `name` is already in the chain.
fn cycle(chain: &[String], name: &str) -> Option<String> {
    let start = chain.iter().position(|outer| outer == name)?;
    let names = chain[start..].iter().map(String::as_str).chain([name]);
    Some(names.collect::<Vec<_>>().join(" -> "))
}
