//! The text of one file → a [`Manifest`], or all of its mistakes.

use std::path::Path;
use std::sync::Arc;

use super::defaults::Defaults;
use super::diagnostic::{Diagnostic, Diagnostics, Fault, FaultText};
use super::entries::{Entry, Manifest, Scope, SourceFile};
use super::grammar::{FileContents, Grammar};
use super::instances::{Instances, instance_of};
use super::locate::PairPart;
use super::node;
use super::parsed::{LinesOf, ParsedFile};
use super::presets::Presets;
use super::root_line;
use crate::base::{HostPath, SiteName};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = node::MAX_BYTES;

/// The text of a file from its bytes, which must be UTF-8.
pub fn decode(file: &SourceFile, bytes: Vec<u8>) -> Result<String, Diagnostics> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|byte| *byte == b'\n').count();
        let fault = FaultText {
            key: String::new(),
            message: "the file is not UTF-8 text".to_owned(),
            label: format!("line {line} has a byte that is not"),
            help: Some("save it as UTF-8".to_owned()),
        };
        Diagnostics::one(Diagnostic::whole_file(file, fault))
    })
}

/// Reads the manifest of `site` from `text`; `file` is where that is from. It may be a template of
/// sites, which is then read for this one. Presets and defaults are looked up in `presets`.
///
/// Errors: every mistake in the file, in the presets that it includes, and in the defaults.
pub fn parse(
    site: SiteName,
    file: SourceFile,
    text: &str,
    presets: &Presets,
) -> Result<Manifest, Diagnostics> {
    let none = Defaults::default();
    let (defaults, in_defaults) = match presets.defaults() {
        None => (&none, None),
        Some(Ok(defaults)) => (defaults, None),
        Some(Err(mistakes)) => (&none, Some(mistakes.clone())),
    };
    let mut parsed = match grammar_of(&site, &file) {
        Grammar::Site => presets.known_manifests().parsed(text),
        grammar => ParsedFile::new(text, grammar),
    };
    let mut faults = std::mem::take(&mut parsed.faults);
    if in_defaults.is_none() {
        faults.extend(without_services(&parsed.contents, defaults));
    }

    let mut entries = defaults.entries.clone();
    entries.extend(parsed.entries(&file, &[], LinesOf::OneSite));
    let includes = &parsed.contents.presets;
    let in_presets = presets.include(&defaults.sections, includes, &mut entries, &mut faults);

    let in_file = parsed.diagnostics(&file, text, faults);
    if let Some(all) = Diagnostics::merged([in_file, in_defaults, in_presets]) {
        return Err(all);
    }
    let contents = parsed.contents;
    let Some(root) = contents.root else {
        unreachable!("a file without a root has a fault that says so");
    };
    let mut services = defaults.services.clone();
    services.extend(contents.services);
    Ok(Manifest {
        site,
        file,
        root,
        entries,
        services: without_repeats(services),
        default_services: defaults
            .file
            .clone()
            .map(|file| (defaults.services.clone(), file)),
        scope: match contents.scope {
            Some(line) => line.scope,
            None => defaults.scope.unwrap_or_default(),
        },
        instances: contents.instances,
    })
}

/// The entries of `lines`, as they would be in `file`, without those of the defaults.
///
/// Errors: every mistake in them and in the presets that they include.
pub fn entries_of(
    lines: &str,
    file: &SourceFile,
    presets: &Presets,
) -> Result<Vec<Arc<Entry>>, Diagnostics> {
    let mut parsed = ParsedFile::new(lines, Grammar::Defaults);
    let mut faults = std::mem::take(&mut parsed.faults);
    let mut entries = parsed.entries(file, &[], LinesOf::OneSite);
    let includes = &parsed.contents.presets;
    let in_presets = presets.include(&[], includes, &mut entries, &mut faults);

    let in_lines = parsed.diagnostics(file, lines, faults);
    Diagnostics::merged([in_lines, in_presets]).map_or(Ok(entries), Err)
}

fn grammar_of<'s>(site: &'s SiteName, file: &SourceFile) -> Grammar<'s> {
    let instance = match file {
        SourceFile::File(file) => instance_of(site, file),
        SourceFile::BuiltIn(_) => None,
    };
    instance.map_or(Grammar::Site, Grammar::Template)
}

fn without_repeats(names: Vec<String>) -> Vec<String> {
    let mut once = vec![];
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

/// A fault if the mounts should be in the namespaces of services, and there are none.
fn without_services(contents: &FileContents, defaults: &Defaults) -> Option<Fault> {
    let own = contents.scope;
    let scope = own.map(|line| line.scope).or(defaults.scope);
    let has_services = !contents.services.is_empty() || !defaults.services.is_empty();
    if scope != Some(Scope::Services) || has_services || contents.services_are_wrong {
        return None;
    }
    let message = match own {
        Some(_) => "the scope `services` needs services",
        None => "the scope `services`, of defaults.yaml, needs services",
    };
    let text = FaultText {
        key: own.map(|_| "scope".to_owned()).unwrap_or_default(),
        message: message.to_owned(),
        label: "expected at least one unit under `services`".to_owned(),
        help: Some(
            "add the units that run inside, as in `services: [php8.2-fpm.service]`, or write \
             `scope: host`"
                .to_owned(),
        ),
    };
    Some(Fault {
        steps: own.into_iter().map(|line| line.nth).collect(),
        part: PairPart::Value,
        text,
    })
}

/// The instances of the template of sites `file`, which has `text`, whatever else is wrong with it,
/// and all mistakes in it that can be seen without one of its sites.
pub fn instances(file: &SourceFile, text: &str) -> (Option<Instances>, Option<Diagnostics>) {
    // The name of an instance can be as good as this one.
    let mut parsed = ParsedFile::new(text, Grammar::Template("instance"));
    let faults = std::mem::take(&mut parsed.faults);
    let mistakes = parsed.diagnostics(file, text, faults);
    (parsed.contents.instances, mistakes)
}

/// The root that the manifest of `site` names, whatever else is wrong with it. `text` is that of
/// `file`.
pub fn root_of(site: &SiteName, file: &Path, text: &str) -> Option<HostPath> {
    let instance = instance_of(site, file);
    if let Some(root) = root_line::root(text, instance) {
        return Some(root);
    }
    let grammar = instance.map_or(Grammar::Site, Grammar::Template);
    ParsedFile::new(text, grammar).contents.root
}
