//! One file by itself: what it asks for, and its mistakes, before its presets are looked up.

use std::sync::Arc;

use super::check::Checker;
use super::diagnostic::{Diagnostic, Diagnostics, Fault, FaultText};
use super::entries::{Entry, Origin, SourceFile};
use super::grammar::{self, FileContents, Grammar};
use super::locate;
use super::node::{self, YamlError};
use super::specifiers;

/// Whose the lines of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinesOf {
    OneSite,
    /// They are the defaults, or a preset of these.
    AllSites,
}

/// A file's contents and its mistakes.
#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    pub contents: FileContents,
    pub faults: Vec<Fault>,
    /// Why it has no contents at all.
    pub not_yaml: Option<YamlError>,
}

impl ParsedFile {
    /// Reads and checks `text`.
    pub(super) fn new(text: &str, grammar: Grammar<'_>) -> Self {
        match node::read(without_byte_order_mark(text)) {
            Ok(mut tree) => {
                let mut checker = Checker::default();
                if let Grammar::Template(instance) = grammar {
                    specifiers::replace(&mut tree, instance, &mut checker);
                }
                let unreplaced = checker.faults.clone();
                let contents = grammar::contents(&tree, text, grammar, &mut checker);
                // Other faults of a value whose specifiers are wrong do not matter.
                let mut faults = checker.faults.split_off(unreplaced.len());
                faults.retain(|fault| unreplaced.iter().all(|one| one.steps != fault.steps));
                Self {
                    contents,
                    faults: [unreplaced, faults].concat(),
                    not_yaml: None,
                }
            }
            Err(error) => Self::not_yaml(error),
        }
    }

    /// A file that has no contents because of `error`.
    pub(super) fn not_yaml(error: YamlError) -> Self {
        Self {
            not_yaml: Some(error),
            ..Self::default()
        }
    }

    /// The file's lines, which are `of` one site or all, as entries. `presets` led to it, outermost
    /// first.
    pub(super) fn entries(
        &self,
        file: &SourceFile,
        presets: &[String],
        of: LinesOf,
    ) -> Vec<Arc<Entry>> {
        let mut entries = vec![];
        for line in &self.contents.lines {
            let origin = Origin {
                file: file.clone(),
                key: line.key.clone(),
                text: line.text.clone(),
                presets: presets.to_vec(),
                defaults: of == LinesOf::AllSites,
            };
            entries.push(Arc::new(Entry {
                request: line.request.clone(),
                origin: Arc::new(origin),
            }));
        }
        entries
    }

    /// The mistakes with their places; `faults` are the file's own and those found since. `None`:
    /// there are none.
    pub(super) fn diagnostics(
        &self,
        file: &SourceFile,
        text: &str,
        faults: Vec<Fault>,
    ) -> Option<Diagnostics> {
        if let Some(error) = &self.not_yaml {
            return Some(Diagnostics::one(not_yaml(file, text, error)));
        }
        (!faults.is_empty()).then(|| Diagnostics::locate(file, text, faults))
    }
}

fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn not_yaml(file: &SourceFile, text: &str, error: &YamlError) -> Diagnostic {
    let fault = FaultText {
        key: String::new(),
        message: error.message.to_owned(),
        label: error.label.clone(),
        help: error.help.map(ToOwned::to_owned),
    };
    let body = without_byte_order_mark(text);
    match error.at {
        Some(at) => {
            let offset = text.len() - body.len() + locate::byte_offset(body, at);
            Diagnostic::at(file, text, offset, fault)
        }
        None => Diagnostic::whole_file(file, fault),
    }
}
