//! The text of one file → a [`Manifest`], or all of its mistakes.

use super::diagnostic::{Diagnostic, Diagnostics, FaultText};
use super::entries::{Manifest, SourceFile};
use super::grammar::Grammar;
use super::node;
use super::parsed::ParsedFile;
use super::presets::Presets;
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
    let mut parsed = ParsedFile::new(text, Grammar::Site);
    let mut faults = std::mem::take(&mut parsed.faults);
    let mut entries = parsed.entries(&file, &[]);
    let in_presets = presets.include(&parsed.contents.presets, &mut entries, &mut faults);

    let in_file = parsed.diagnostics(&file, text, faults);
    if let Some(mut all) = in_file {
        if let Some(more) = in_presets {
            all.append(more);
        }
        return Err(all);
    }
    if let Some(all) = in_presets {
        return Err(all);
    }
    let Some(root) = parsed.contents.root else {
        unreachable!("a file without a root has a fault that says so");
    };
    Ok(Manifest {
        site,
        file,
        root,
        entries,
        services: parsed.contents.services,
    })
}

/// The root that a manifest names, whatever else is wrong with it.
pub fn root_of(text: &str) -> Option<HostPath> {
    if let Some(root) = root_in_first_line(text) {
        return Some(root);
    }
    ParsedFile::new(text, Grammar::Site).contents.root
}

/// The root of a file that begins as most do, without reading the rest: every run needs the roots
/// of all sites.
fn root_in_first_line(text: &str) -> Option<HostPath> {
    let mut lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let value = lines.next()?.strip_prefix("root: ")?.trim();
    let next_is_a_key = lines
        .next()
        .is_none_or(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@".contains(c);
    if value.chars().all(plain) && next_is_a_key {
        HostPath::new(value).ok()
    } else {
        None
    }
}
