//! The text of one file → a [`Manifest`], or all of its mistakes.

use super::check::Checker;
use super::diagnostic::{Diagnostic, Diagnostics, Fault, Note};
use super::entries::{Manifest, SourceFile};
use super::grammar::{self, Draft, Kind};
use super::locate;
use super::node::{self, Refused};
use super::presets::{Presets, entries_of};
use crate::base::{HostPath, SiteName};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = node::MAX_BYTES;

/// A file's contents and its mistakes, before its presets are looked up.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub draft: Draft,
    pub faults: Vec<Fault>,
    /// It is no YAML at all.
    pub refused: Option<Refused>,
}

/// Reads and checks one file by itself.
pub(super) fn read(text: &str, kind: Kind) -> Read {
    match node::read(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        Ok(tree) => {
            let mut checker = Checker::default();
            let draft = grammar::draft(&tree, text, kind, &mut checker);
            Read {
                draft,
                faults: checker.faults,
                refused: None,
            }
        }
        Err(refused) => Read {
            refused: Some(refused),
            ..Read::default()
        },
    }
}

impl Read {
    /// The mistakes with their places; `faults` are the file's own and what was found since.
    /// `None`: none.
    pub(super) fn diagnostics(
        &self,
        file: &SourceFile,
        text: &str,
        faults: Vec<Fault>,
    ) -> Option<Diagnostics> {
        if let Some(refused) = &self.refused {
            return Some(Diagnostics::one(refusal(file, text, refused)));
        }
        (!faults.is_empty()).then(|| Diagnostics::locate(file, text, faults))
    }
}

fn refusal(file: &SourceFile, text: &str, refused: &Refused) -> Diagnostic {
    let note = Note {
        key: String::new(),
        message: refused.message.to_owned(),
        label: refused.label.clone(),
        help: refused.help.map(ToOwned::to_owned),
    };
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    match refused.at {
        Some(at) => {
            let offset = text.len() - body.len() + locate::byte_offset(body, at);
            Diagnostic::at(file, text, offset, note)
        }
        None => Diagnostic::whole_file(file, note),
    }
}

/// The text of a file from its bytes, which must be UTF-8.
pub fn decode(file: &SourceFile, bytes: Vec<u8>) -> Result<String, Diagnostics> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|byte| *byte == b'\n').count();
        let note = Note {
            key: String::new(),
            message: "the file is not UTF-8 text".to_owned(),
            label: format!("line {line} has a byte that is none"),
            help: Some("save it as UTF-8".to_owned()),
        };
        Diagnostics::one(Diagnostic::whole_file(file, note))
    })
}

/// Reads the manifest of `site` from `text`; `file` is where that is from. Presets are looked up in
/// `presets`.
///
/// Errors: every mistake in the file and in the presets that it includes.
pub fn parse(
    site: SiteName,
    file: SourceFile,
    text: &str,
    presets: &Presets,
) -> Result<Manifest, Diagnostics> {
    let mut read = read(text, Kind::Site);
    let mut faults = std::mem::take(&mut read.faults);
    let mut entries = entries_of(&read.draft, &file, &[]);
    let in_presets = presets.include(&read.draft.presets, &mut entries, &mut faults);
    let mut wrong = read.diagnostics(&file, text, faults);
    match (&mut wrong, in_presets) {
        (Some(wrong), Some(more)) => wrong.append(more),
        (None, more) => wrong = more,
        (Some(_), None) => {}
    }
    match (wrong, read.draft.root) {
        (None, Some(root)) => Ok(Manifest {
            site,
            file,
            root,
            entries,
            services: read.draft.services,
        }),
        (Some(wrong), _) => Err(wrong),
        (None, None) => unreachable!("a file without a root has a fault that says so"),
    }
}

/// The root that a manifest names, whatever else is wrong with it.
pub fn root_of(text: &str) -> Option<HostPath> {
    if let Some(root) = root_in_first_line(text) {
        return Some(root);
    }
    read(text, Kind::Site).draft.root
}

/// The root of a file that begins as most do, without reading the rest: a run looks at all sites'
/// roots.
fn root_in_first_line(text: &str) -> Option<HostPath> {
    let mut lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let value = lines.next()?.strip_prefix("root: ")?.trim();
    let next_is_a_key = lines
        .next()
        .is_none_or(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@".contains(c);
    (value.chars().all(plain) && next_is_a_key)
        .then(|| HostPath::new(value).ok())
        .flatten()
}
