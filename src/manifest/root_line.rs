//! Manifests that begin with the root, as most do.

use std::sync::{Arc, Mutex};

use super::grammar::{FileContents, Grammar};
use super::node::MAX_BYTES;
use super::parsed::ParsedFile;
use super::specifiers;
use crate::base::HostPath;
use crate::base::sync::lock;

/// How many manifests are known at a time. Most farms have few that differ.
const KNOWN: usize = 8;

/// Manifests without mistakes, by what follows the root. Those of a farm often differ in their
/// roots alone, and each kind is read once.
#[derive(Debug, Default)]
pub(super) struct KnownManifests(Mutex<Vec<Arc<KnownManifest>>>);

#[derive(Debug)]
struct KnownManifest {
    after_root: String,
    contents: FileContents,
}

impl KnownManifests {
    /// As [`ParsedFile::new`], for a manifest that is not a template of sites.
    pub(super) fn parsed(&self, text: &str) -> ParsedFile {
        let is_usual = text.len() <= MAX_BYTES;
        let Some((root, after_root)) = split(text, None).filter(|_| is_usual) else {
            return ParsedFile::new(text, Grammar::Site);
        };
        let known = lock(&self.0).clone();
        if let Some(known) = known.iter().find(|known| known.after_root == after_root) {
            let contents = FileContents {
                root: Some(root),
                ..known.contents.clone()
            };
            return ParsedFile {
                contents,
                ..ParsedFile::default()
            };
        }

        let parsed = ParsedFile::new(text, Grammar::Site);
        let is_right = parsed.faults.is_empty() && parsed.not_yaml.is_none();
        if is_right && parsed.contents.root == Some(root) {
            let mut known = lock(&self.0);
            if known.len() == KNOWN {
                known.remove(0);
            }
            known.push(Arc::new(KnownManifest {
                after_root: after_root.to_owned(),
                contents: parsed.contents.clone(),
            }));
        }
        parsed
    }
}

/// The root of a file that begins with it, without reading the rest: every run needs the roots of
/// all sites.
pub(super) fn root(text: &str, instance: Option<&str>) -> Option<HostPath> {
    let is_comment =
        |line: &str| line.trim_end_matches(['\r', '\n']).is_empty() || line.starts_with('#');
    let mut rest = text;
    while let Some(line) = rest
        .split_inclusive('\n')
        .next()
        .filter(|line| is_comment(line))
    {
        rest = &rest[line.len()..];
    }
    split(rest, instance).map(|(root, _)| root)
}

/// The root in the first line, and what follows that line. `None`: it is not certain.
fn split<'t>(text: &'t str, instance: Option<&str>) -> Option<(HostPath, &'t str)> {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    let value = line.strip_prefix("root: ")?.trim();
    let mut lines = rest
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let next_is_a_key = lines
        .next()
        .is_none_or(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@%".contains(c);
    if !value.chars().all(plain) || !next_is_a_key {
        return None;
    }
    let root = match instance {
        None => HostPath::new(value).ok(),
        Some(_) => HostPath::new(specifiers::replaced(value, instance).ok()?).ok(),
    };
    Some((root?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(known: &KnownManifests, text: &str) -> (Option<HostPath>, usize, usize) {
        let ParsedFile {
            contents, faults, ..
        } = known.parsed(text);
        (contents.root, contents.presets.len(), faults.len())
    }

    #[test]
    fn manifests_that_differ_in_their_roots_are_read_alike() {
        let known = KnownManifests::default();
        let root = |path: &str| HostPath::new(path).ok();
        for path in ["/srv/a", "/srv/b", "/srv/a"] {
            let text = format!("root: {path}\npresets: [base, dns]\n");
            assert_eq!(contents(&known, &text), (root(path), 2, 0));
        }
        let other = "root: /srv/a\npresets: [base]\n";
        assert_eq!(contents(&known, other), (root("/srv/a"), 1, 0));
        assert_eq!(lock(&known.0).len(), 2);
    }

    #[test]
    fn mistakes_are_found_in_each() {
        let known = KnownManifests::default();
        for text in [
            "root: /srv/a\npreset: [base]\n",
            "root: /srv/b\npreset: [base]\n",
            "root: /srv/../b\npresets: [base]\n",
            "root: /srv/a\nroot: /srv/b\n",
            "root: srv\npresets: [base]\n",
        ] {
            let ParsedFile {
                faults, not_yaml, ..
            } = known.parsed(text);
            assert!(!faults.is_empty() || not_yaml.is_some(), "{text}");
        }
        assert!(lock(&known.0).is_empty());
    }

    #[test]
    fn a_root_that_goes_on_in_the_next_line_is_not_certain() {
        for text in [
            "root: /srv/a\n  b\n",
            "root: /srv/a b\n",
            "root: '/srv/a'\n",
        ] {
            assert_eq!(root(text, None), None, "{text}");
        }
        let later = "# a comment\n\nroot: /srv/%i\npresets: [base]\n";
        assert_eq!(root(later, Some("x")), HostPath::new("/srv/x").ok());
    }
}
