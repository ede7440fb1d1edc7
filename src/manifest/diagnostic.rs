//! Errors of a manifest as an administrator reads them: what, where, with the line itself.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::entries::SourceFile;
use super::locate::{self, PairPart, PathStep};
use crate::base::quote::printable;

/// How many errors of one file are shown; the others are counted.
const MAX_SHOWN: usize = 50;
/// How much of a very long line is shown after the mistake, in characters.
const MAX_LINE: usize = 200;

/// A mistake in the tree, before its position in the text is known.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub steps: Vec<usize>,
    pub part: PairPart,
    pub text: FaultText,
}

/// The text about a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FaultText {
    /// The key's path; empty for the file as a whole.
    pub key: String,
    /// The mistake: the title of the report.
    pub message: String,
    /// The expected and the found, next to the place.
    pub label: String,
    /// The remedy: the last line of the report.
    pub help: Option<String>,
}

/// One error in a manifest or preset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    file: SourceFile,
    excerpt: Option<Excerpt>,
    note: FaultText,
}

/// The line that an error is in, so that the whole text need not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: usize,
    column: usize,
    text: Arc<str>,
    /// The bytes of `text` that the error is about.
    span: Range<usize>,
}

impl Diagnostic {
    /// The file that the error is in.
    pub fn file(&self) -> &SourceFile {
        &self.file
    }

    /// Line and column, both from 1, the column in characters; `None`: the file as a whole.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.excerpt
            .as_ref()
            .map(|excerpt| (excerpt.line, excerpt.column))
    }

    /// The key's path, such as `mounts[3].target`; empty for the file as a whole.
    pub fn key(&self) -> &str {
        &self.note.key
    }

    /// The mistake with the key's path, on one line.
    pub fn message(&self) -> String {
        match self.note.key.as_str() {
            "" => self.note.message.clone(),
            key => format!("{key}: {}", self.note.message),
        }
    }

    /// The remedy, if one is known.
    pub fn hint(&self) -> Option<&str> {
        self.note.help.as_deref()
    }

    pub(super) fn whole_file(file: &SourceFile, note: FaultText) -> Self {
        Self {
            file: file.clone(),
            excerpt: None,
            note,
        }
    }

    pub(super) fn at(file: &SourceFile, text: &str, offset: usize, note: FaultText) -> Self {
        Self {
            file: file.clone(),
            excerpt: Some(Excerpt::at(text, offset)),
            note,
        }
    }

    fn brief(&self) -> String {
        let message = format!("{}: {}", self.message(), self.note.label);
        match self.position() {
            Some((line, column)) => format!("{line}:{column}: {message}"),
            None => message,
        }
    }

    fn render(&self, renderer: &Renderer) -> String {
        let file = self.file.to_string();
        let mut group = Group::with_title(Level::ERROR.primary_title(self.message()));
        match &self.excerpt {
            Some(excerpt) => {
                let mark = AnnotationKind::Primary
                    .span(excerpt.span.clone())
                    .label(self.note.label.as_str());
                let snippet = Snippet::source(&*excerpt.text)
                    .line_start(excerpt.line)
                    .path(file);
                group = group.element(snippet.annotation(mark));
            }
            None => {
                group = group
                    .element(annotate_snippets::Origin::path(file))
                    .element(Level::NOTE.message(self.note.label.as_str()));
            }
        }
        if let Some(help) = &self.note.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

impl Excerpt {
    fn at(text: &str, offset: usize) -> Self {
        let (line, column) = locate::line_and_column(text, offset);
        let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[offset..]
            .find('\n')
            .map_or(text.len(), |newline| offset + newline);
        let cut = text[offset..end]
            .char_indices()
            .nth(MAX_LINE)
            .map_or(end, |(after, _)| offset + after);
        let shown = text[start..cut].trim_end().trim_start_matches('\u{feff}');
        let from = (offset - start).min(shown.len());
        let length = token_length(&shown[from..]);
        Self {
            line,
            column,
            text: shown.into(),
            span: from..from + length,
        }
    }
}

/// How many bytes at the beginning of `line` are one key or value.
fn token_length(line: &str) -> usize {
    if let Some(quote @ ('"' | '\'')) = line.chars().next()
        && let Some(end) = line[1..].find(quote)
    {
        return end + 2;
    }
    let stops = [" #", ", ", ": ", "]", "}"];
    let end = stops
        .iter()
        .filter_map(|stop| line.find(stop))
        .min()
        .unwrap_or(line.len());
    let token = line[..end].trim_end();
    match token.strip_suffix(':').unwrap_or(token).len() {
        0 => line.chars().next().map_or(0, char::len_utf8),
        length => length,
    }
}

/// All errors of a file, in the file's order, and those of the presets that it includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    more: usize,
}

impl Diagnostics {
    pub(super) fn one(diagnostic: Diagnostic) -> Self {
        Self {
            list: vec![diagnostic],
            more: 0,
        }
    }

    /// Finds the place of each fault. Too many are cut off first, because that costs time.
    pub(super) fn locate(file: &SourceFile, text: &str, mut faults: Vec<Fault>) -> Self {
        let more = faults.len().saturating_sub(MAX_SHOWN);
        faults.truncate(MAX_SHOWN);
        let mut list = vec![];
        for fault in faults {
            let steps: Vec<_> = fault.steps.iter().map(|nth| PathStep::Nth(*nth)).collect();
            list.push(match locate::offset(text, &steps, fault.part) {
                Some(offset) => Diagnostic::at(file, text, offset, fault.text),
                None => Diagnostic::whole_file(file, fault.text),
            });
        }
        list.sort_by_key(Diagnostic::position);
        Self { list, more }
    }

    /// All of `parts` in their order, each error once; `None`: there are none.
    pub(super) fn merged(parts: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        parts.into_iter().flatten().reduce(|mut all, part| {
            all.append(part);
            all
        })
    }

    fn append(&mut self, mut other: Self) {
        other
            .list
            .retain(|diagnostic| !self.list.contains(diagnostic));
        self.list.append(&mut other.list);
        self.more += other.more;
    }

    /// The errors, at least one.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many errors there are, with those that are not shown.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// The errors within one line: `3:1: unknown key: expected …`.
    pub fn brief(&self) -> String {
        let briefs: Vec<_> = self.list.iter().map(Diagnostic::brief).collect();
        briefs.join("; ")
    }

    /// As [`brief`](Self::brief), for readers who know that it is about `file`: other files are
    /// named.
    pub(crate) fn brief_in(&self, file: &Path) -> String {
        let own = SourceFile::File(file.to_owned());
        let brief = |diagnostic: &Diagnostic| match &diagnostic.file {
            file if *file == own => diagnostic.brief(),
            file => format!("{file}:{}", diagnostic.brief()),
        };
        let briefs: Vec<_> = self.list.iter().map(brief).collect();
        briefs.join("; ")
    }

    /// The errors with excerpts, as text of several lines without a newline at the end.
    pub fn render(&self, colour: bool) -> String {
        self.render_if(colour, |_| true).join("\n\n")
    }

    /// As [`render`](Self::render), only those whose text `is_new`.
    pub(crate) fn render_if(
        &self,
        colour: bool,
        mut is_new: impl FnMut(&str) -> bool,
    ) -> Vec<String> {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut texts: Vec<_> = self
            .list
            .iter()
            .map(|diagnostic| diagnostic.render(&renderer))
            .filter(|text| is_new(text))
            .collect();
        if self.more > 0 && !texts.is_empty() {
            texts.push(format!("and {} more", self.more));
        }
        texts
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// `text` for a message: on one line, without control characters, not too long.
pub(super) fn quoted(text: &str) -> String {
    const MAX: usize = 60;
    let mut shown = printable(&text.chars().take(MAX).collect::<String>()).into_owned();
    if text.chars().nth(MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
