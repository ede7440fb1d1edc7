//! The defaults of all sites: one file with the keys of a manifest, merged under every site.

use std::sync::{Arc, OnceLock};

use super::diagnostic::Diagnostics;
use super::entries::{Entry, Scope, SourceFile};
use super::grammar::Grammar;
use super::node::YamlError;
use super::parsed::ParsedFile;
use super::presets::{PresetExpansion, PresetSection, Presets};

/// The file. It is parsed once, when it is first needed.
#[derive(Debug)]
pub(super) struct DefaultsFile {
    file: SourceFile,
    text: String,
    /// Why it cannot be read.
    unreadable: Option<String>,
    read: OnceLock<Result<Defaults, Diagnostics>>,
}

/// What the file asks for, with all that it includes.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    /// Its own lines.
    pub entries: Vec<Arc<Entry>>,
    /// The presets that it includes, each once.
    pub sections: Vec<PresetSection>,
    pub services: Vec<String>,
    /// Where these are from.
    pub file: Option<SourceFile>,
    pub scope: Option<Scope>,
}

impl DefaultsFile {
    pub(super) fn new(file: SourceFile, text: String) -> Self {
        Self {
            file,
            text,
            unreadable: None,
            read: OnceLock::new(),
        }
    }

    pub(super) fn unreadable(file: SourceFile, why: String) -> Self {
        Self {
            unreadable: Some(why),
            ..Self::new(file, String::new())
        }
    }

    /// What it asks for. Errors: every mistake in it and in the presets that it includes.
    pub(super) fn read(&self, presets: &Presets) -> &Result<Defaults, Diagnostics> {
        self.read.get_or_init(|| self.expanded(presets))
    }

    fn expanded(&self, presets: &Presets) -> Result<Defaults, Diagnostics> {
        let parsed = match &self.unreadable {
            None => ParsedFile::new(&self.text, Grammar::Defaults),
            Some(why) => ParsedFile::not_yaml(YamlError {
                at: None,
                message: "the defaults of all sites cannot be read",
                label: why.clone(),
                help: None,
            }),
        };
        let mut expansion = PresetExpansion::of_defaults(presets);
        let mut faults = parsed.faults.clone();
        expansion.include(&mut vec![], &parsed.contents.presets, &mut faults);
        let in_file = parsed.diagnostics(&self.file, &self.text, faults);
        if let Some(wrong) = Diagnostics::merged([in_file, expansion.wrong]) {
            return Err(wrong);
        }
        Ok(Defaults {
            entries: parsed.entries(&self.file, &[], true),
            sections: expansion.sections,
            services: parsed.contents.services,
            file: Some(self.file.clone()),
            scope: parsed.contents.scope.map(|line| line.scope),
        })
    }
}
