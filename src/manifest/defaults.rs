//! The defaults of all sites: one file with the keys of a manifest, merged under every site.

use std::sync::Arc;

use super::entries::{Entry, Scope, SourceFile};
use super::grammar::Grammar;
use super::node::YamlError;
use super::parsed::ParsedFile;

/// The file.
#[derive(Debug)]
pub(super) struct DefaultsFile {
    pub file: SourceFile,
    pub text: String,
    /// Why it cannot be read.
    unreadable: Option<String>,
}

/// The lines of one preset itself, without its includes.
#[derive(Clone, Debug)]
pub(super) struct PresetSection {
    pub preset: String,
    pub entries: Vec<Arc<Entry>>,
}

/// The lines of the file, with all that it includes.
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
        }
    }

    pub(super) fn unreadable(file: SourceFile, why: String) -> Self {
        Self {
            unreadable: Some(why),
            ..Self::new(file, String::new())
        }
    }

    /// Its contents, or why they are not known.
    pub(super) fn parsed(&self) -> ParsedFile {
        match &self.unreadable {
            None => ParsedFile::new(&self.text, Grammar::Defaults),
            Some(why) => ParsedFile::not_yaml(YamlError {
                at: None,
                message: "the defaults of all sites cannot be read",
                label: why.clone(),
                help: None,
            }),
        }
    }
}
