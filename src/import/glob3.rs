//! Patterns of file names as glob(3) reads them.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The files that glob(3) finds, in its order. Only a dot matches a leading dot.
pub(super) fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let text = pattern.to_string_lossy();
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let cannot = |why: &dyn std::fmt::Display| {
        Error::failed(format!("cannot look for {text}")).because_of(why)
    };
    let paths = glob::glob_with(&as_glob3(&text), options).map_err(|error| cannot(&error))?;
    let mut paths = paths
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| cannot(&error))?;
    paths.retain(|path| !path.is_dir());
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(paths)
}

/// glob(3)'s pattern, as the `glob` crate writes it. glob(3) has no `**`; `\` removes the meaning
/// of the next character, and a `[` without a `]` means itself.
fn as_glob3(text: &str) -> String {
    let mut pattern = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' if !rest.is_empty() => {
                let escaped = rest.chars().next().unwrap_or_default();
                pattern.push_str(&glob::Pattern::escape(&escaped.to_string()));
                rest = &rest[escaped.len_utf8()..];
            }
            '*' if pattern.ends_with('*') => {}
            '[' => match CharacterClass::at_start(rest) {
                Some(class) => {
                    let open = if class.is_negated { "[!" } else { "[" };
                    pattern.extend([open, class.characters, "]"]);
                    rest = class.after;
                }
                None => pattern.push_str("[[]"),
            },
            c => pattern.push(c),
        }
    }
    pattern
}

/// `[!characters]`
struct CharacterClass<'t> {
    is_negated: bool,
    characters: &'t str,
    /// The text after its `]`.
    after: &'t str,
}

impl<'t> CharacterClass<'t> {
    /// The class that `text` begins with, after its `[`.
    fn at_start(text: &'t str) -> Option<Self> {
        let inner = text.strip_prefix(['!', '^']).unwrap_or(text);
        let mut after_first = inner.char_indices().skip(1);
        let (end, _) = after_first.find(|(_, c)| *c == ']')?;
        let class = Self {
            is_negated: inner.len() < text.len(),
            characters: &inner[..end],
            after: &inner[end + 1..],
        };
        (!class.characters.contains('/')).then_some(class)
    }
}
