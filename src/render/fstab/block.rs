//! mountjail's block in a file such as `/etc/fstab`: lines between two markers, in one section per
//! site.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::SiteName;
use crate::base::text::unescape_octal;

const BEGIN: &[u8] = b"# BEGIN mountjail";
const END: &[u8] = b"# END mountjail";
const BEGIN_LINE: &[u8] =
    b"# BEGIN mountjail: `mountjail fstab --install` writes this block; changes in it are lost\n";

/// The markers are not one `BEGIN` followed by one `END`. The first line is number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMarkers {
    #[error("line {0} begins mountjail's block, and no line ends it")]
    NoEnd(usize),
    #[error("line {0} ends mountjail's block, and no line before it begins it")]
    NoBegin(usize),
    #[error("line {1} repeats the marker of line {0}")]
    Twice(usize, usize),
}

/// A file's text in three parts. The text before and after the block stays byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FstabBlock {
    before: Vec<u8>,
    sections: BTreeMap<SiteName, Vec<u8>>,
    after: Vec<u8>,
    /// The text did not end in a newline.
    open_end: bool,
}

impl FstabBlock {
    /// Parses `text`. If it has no block, all of it is before the place of one.
    pub(crate) fn read(text: &[u8]) -> Result<Self, BadMarkers> {
        let open_end = text.last().is_some_and(|last| *last != b'\n');
        let mut text = text.to_vec();
        if open_end {
            text.push(b'\n');
        }
        let (mut begin, mut end) = (None, None);
        let (mut before, mut inside, mut after) = (vec![], vec![], vec![]);
        for (line, nth) in text.split_inclusive(|byte| *byte == b'\n').zip(1..) {
            match (is_marker(line, BEGIN), is_marker(line, END), begin, end) {
                (true, _, Some(first), _) => return Err(BadMarkers::Twice(first, nth)),
                (true, ..) => begin = Some(nth),
                (_, true, None, _) => return Err(BadMarkers::NoBegin(nth)),
                (_, true, _, Some(first)) => return Err(BadMarkers::Twice(first, nth)),
                (_, true, ..) => end = Some(nth),
                (_, _, None, _) => before.extend(line),
                (_, _, _, None) => inside.push(line),
                _ => after.extend(line),
            }
        }
        match (begin, end) {
            (Some(begin), None) => Err(BadMarkers::NoEnd(begin)),
            _ => Ok(Self {
                before,
                sections: sections(&inside),
                after,
                open_end,
            }),
        }
    }

    /// The text with the block as it is now; a block without sections is left out.
    pub(crate) fn to_text(&self) -> Vec<u8> {
        let mut text = self.before.clone();
        if !self.sections.is_empty() {
            text.extend(BEGIN_LINE);
            text.extend(self.sections.values().flatten());
            text.extend(END);
            text.push(b'\n');
        }
        text.extend(&self.after);
        if self.open_end && text.last() == Some(&b'\n') {
            text.pop();
        }
        text
    }

    /// The sites that have a section.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &SiteName> {
        self.sections.keys()
    }

    /// The section of `site`, as [`super::section`] made it.
    pub(crate) fn get(&self, site: &SiteName) -> Option<&[u8]> {
        self.sections.get(site).map(Vec::as_slice)
    }

    /// Puts in or replaces the section of `site`.
    pub(crate) fn set(&mut self, site: SiteName, section: Vec<u8>) {
        self.sections.insert(site, section);
    }

    /// Takes out the section of `site`; whether there was one.
    pub(crate) fn remove(&mut self, site: &SiteName) -> bool {
        self.sections.remove(site).is_some()
    }
}

/// The lines outside of the block, with their numbers.
pub(crate) fn outside_lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut inside = false;
    let lines = text.split(|byte| *byte == b'\n').zip(1..);
    lines.filter_map(move |(line, nth)| {
        let marker = is_marker(line, BEGIN) || is_marker(line, END);
        if marker {
            inside = is_marker(line, BEGIN);
        }
        (!inside && !marker).then_some((nth, line))
    })
}

/// Each mount point that a line outside of the block names, with the number of its line.
pub(crate) fn outside_targets(text: &[u8]) -> Vec<(usize, PathBuf)> {
    let mut targets = vec![];
    for (nth, line) in outside_lines(text) {
        let mut fields = line
            .split(|byte| b" \t".contains(byte))
            .filter(|field| !field.is_empty());
        if let (Some(source), Some(target)) = (fields.next(), fields.next())
            && source[0] != b'#'
        {
            targets.push((nth, unescape_octal(target)));
        }
    }
    targets
}

/// Whether `line` is this marker, whatever follows its words.
fn is_marker(line: &[u8], marker: &[u8]) -> bool {
    let rest = line.trim_ascii_start().strip_prefix(marker);
    rest.is_some_and(|rest| {
        rest.first()
            .is_none_or(|next| !next.is_ascii_alphanumeric() && *next != b'-')
    })
}

/// Each section begins with its site's comment, `# site1: /srv/www/site1`. Lines before the first
/// one belong to no site.
fn sections(lines: &[&[u8]]) -> BTreeMap<SiteName, Vec<u8>> {
    let mut sections = BTreeMap::<SiteName, Vec<u8>>::new();
    let mut current = None;
    for line in lines {
        current = site_of(line).or(current);
        if let Some(site) = &current {
            sections.entry(site.clone()).or_default().extend(*line);
        }
    }
    sections
}

fn site_of(line: &[u8]) -> Option<SiteName> {
    let line = std::str::from_utf8(
        line.strip_prefix(b"# ")?
            .split(|byte| *byte == b'/')
            .next()?,
    )
    .ok()?;
    SiteName::new(line.strip_suffix(": ")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn site(name: &str) -> SiteName {
        SiteName::new(name).unwrap()
    }

    #[test]
    fn a_block_is_put_in_replaced_and_taken_out() {
        for text in ["", "a\n", "a", "a\n\n", "# a\nb", "\n"] {
            let mut block = FstabBlock::read(text.as_bytes()).unwrap();
            assert_eq!(block.to_text(), text.as_bytes());
            block.set(site("b"), b"# b: /srv/b\nx\n".to_vec());
            block.set(site("a"), b"# a: /srv/a\ny\nz\n".to_vec());
            let installed = block.to_text();
            let mut again = FstabBlock::read(&installed).unwrap();
            assert_eq!(again.to_text(), installed, "the same bytes");
            assert_eq!(again.get(&site("a")).unwrap(), b"# a: /srv/a\ny\nz\n");
            assert!(
                again.remove(&site("a")) && again.remove(&site("b")) && !again.remove(&site("c"))
            );
            assert_eq!(again.to_text(), text.as_bytes(), "as before");
        }
    }

    #[test]
    fn broken_markers_are_named() {
        let begin = "# BEGIN mountjail: x\n";
        for (text, error) in [
            (format!("a\n{begin}b\n"), BadMarkers::NoEnd(2)),
            ("a\n# END mountjail\n".to_owned(), BadMarkers::NoBegin(2)),
            (
                format!("{begin}{begin}# END mountjail\n"),
                BadMarkers::Twice(1, 2),
            ),
            (
                format!("{begin}# END mountjail\n{begin}"),
                BadMarkers::Twice(1, 3),
            ),
            (
                format!("{begin}# END mountjail\n# END mountjail"),
                BadMarkers::Twice(2, 3),
            ),
            (format!("# END mountjail\n{begin}"), BadMarkers::NoBegin(1)),
        ] {
            assert_eq!(FstabBlock::read(text.as_bytes()), Err(error), "{text}");
        }
        assert!(
            FstabBlock::read(b"# BEGIN mountjails\n# BEGIN mountjail-extra\n").is_ok(),
            "not ours"
        );
    }

    #[test]
    fn lines_outside_are_found_by_their_number() {
        let text = b"# c\n/dev/a / ext4\n# BEGIN mountjail\nx /in none\n# END mountjail\n\n  \
              y\t/o\\040t none bind";
        assert_eq!(outside_targets(text), [(2, "/".into()), (7, "/o t".into())]);
    }

    proptest! {
        #[test]
        fn what_is_outside_stays_byte_for_byte(
            before in proptest::collection::vec(any::<u8>(), 0..60),
            after in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut text = before.clone();
            if text.last().is_some_and(|last| *last != b'\n') {
                text.push(b'\n');
            }
            let start = text.len();
            text.extend(b"# BEGIN mountjail\n# a: /x\nold\n# END mountjail\n");
            text.extend(&after);
            let mut block = FstabBlock::read(&text).unwrap();
            block.set(site("a"), b"# a: /x\nnew\n".to_vec());
            let now = block.to_text();
            prop_assert_eq!(&now[..start], &text[..start]);
            prop_assert!(now.ends_with(&after));
            block.remove(&site("a"));
            prop_assert_eq!(block.to_text(), [&text[..start], &after].concat());
        }
    }
}
