//! A page that becomes a manual page and a page of the book. Texts have one kind of markup:
//! `words` between backticks are bold in a manual page, and code in the book.

use roff::{Inline, Roff, bold, italic, roman};
use serde_json::Value;

/// A page of reference.
pub struct Page {
    name: &'static str,
    section: &'static str,
    summary: &'static str,
    blocks: Vec<Block>,
    also: Vec<(&'static str, &'static str)>,
}

enum Block {
    Heading(String),
    Paragraph(String),
    /// Terms, each with its explanation, and with lines about its values.
    Entries(Vec<Entry>),
    /// As it is, in this language.
    Example(&'static str, String),
    /// A heading below a heading.
    Item(String),
}

/// A term and what it means.
struct Entry {
    term: String,
    note: &'static str,
    about: String,
    /// `One of` and `Example`, each with a value.
    values: Vec<(&'static str, String)>,
}

impl Page {
    pub fn new(name: &'static str, section: &'static str, summary: &'static str) -> Self {
        let (blocks, also) = (Vec::new(), Vec::new());
        Self {
            name,
            section,
            summary,
            blocks,
            also,
        }
    }

    pub fn heading(&mut self, text: &str) {
        self.blocks.push(Block::Heading(text.into()));
    }

    pub fn item(&mut self, text: &str) {
        self.blocks.push(Block::Item(text.into()));
    }

    pub fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Paragraph(text.into()));
    }

    pub fn example(&mut self, language: &'static str, text: impl Into<String>) {
        self.blocks.push(Block::Example(language, text.into()));
    }

    pub fn entries(&mut self, entries: &[(&str, &str)]) {
        let entries = entries.iter().map(|(term, about)| Entry {
            term: (*term).into(),
            note: "",
            about: (*about).into(),
            values: Vec::new(),
        });
        self.blocks.push(Block::Entries(entries.collect()));
    }

    /// An entry per key of `schema`, required keys first.
    pub fn keys(&mut self, schema: &Value) {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let is_required = |key: &str| required.iter().any(|required| *required == *key);
        let properties = schema["properties"].as_object();
        let mut keys: Vec<_> = properties.into_iter().flatten().collect();
        keys.sort_by_key(|(key, _)| !is_required(key));
        let entries = keys.into_iter().map(|(key, about)| {
            let mut values = Vec::new();
            if let Some(all) = about["enum"].as_array() {
                let all: Vec<_> = all.iter().filter_map(Value::as_str).collect();
                values.push(("One of", all.join(", ")));
            }
            if let Some(sample) = about["examples"].get(0) {
                values.push(("Example", sample.to_string()));
            }
            Entry {
                term: key.clone(),
                note: if is_required(key) { " (required)" } else { "" },
                about: about["description"].as_str().unwrap_or_default().into(),
                values,
            }
        });
        self.blocks.push(Block::Entries(entries.collect()));
    }

    /// The other manual pages that concern the reader.
    pub fn see_also(&mut self, also: &[(&'static str, &'static str)]) {
        self.also.extend(also);
    }

    /// The manual page. It has no date, so that it is the same each time.
    pub fn to_roff(&self) -> String {
        let mut page = Roff::new();
        let name = self.name.to_uppercase();
        let source = concat!("mountjail ", env!("CARGO_PKG_VERSION"));
        page.control("TH", [&*name, self.section, "", source, "File Formats"]);
        page.control("SH", ["NAME"]);
        page.text([roman(format!("{} - {}", self.name, self.summary))]);
        self.body(&mut page);
        see_also(&mut page, &self.also);
        page.to_roff()
    }

    /// The sections of the manual page, without its title and its end.
    pub fn body(&self, page: &mut Roff) {
        let mut after_heading = false;
        for block in &self.blocks {
            match block {
                Block::Heading(text) => {
                    page.control("SH", [&*text.to_uppercase()]);
                }
                Block::Item(text) => {
                    page.control("SS", [&**text]);
                }
                Block::Paragraph(text) => {
                    if !after_heading {
                        page.control("PP", []);
                    }
                    page.text(inline(text));
                }
                Block::Entries(entries) => entries.iter().for_each(|entry| entry.to_roff(page)),
                Block::Example(_, text) => {
                    page.control("PP", []);
                    page.control("EX", []);
                    for line in text.lines() {
                        page.text([roman(line)]);
                    }
                    page.control("EE", []);
                }
            }
            after_heading = matches!(block, Block::Heading(_) | Block::Item(_));
        }
    }

    /// The page of the book.
    pub fn to_markdown(&self) -> String {
        let title = self.summary;
        let (first, rest) = title.split_at(1);
        let mut page = format!("# {}{rest}\n", first.to_uppercase());
        for block in &self.blocks {
            page.push('\n');
            let text = match block {
                Block::Heading(text) => format!("## {text}\n"),
                Block::Item(text) => format!("### {text}\n"),
                Block::Paragraph(text) => format!("{}\n", escaped(text)),
                Block::Example(language, text) => {
                    format!("```{language}\n{}\n```\n", text.trim_end())
                }
                Block::Entries(entries) => {
                    let entries: Vec<_> = entries.iter().map(Entry::to_markdown).collect();
                    entries.join("")
                }
            };
            page.push_str(&text);
        }
        page
    }
}

impl Entry {
    fn to_roff(&self, page: &mut Roff) {
        page.control("TP", []);
        page.text([bold(&*self.term), roman(self.note)]);
        page.text(inline(&self.about));
        for (what, value) in &self.values {
            page.control("br", []);
            page.text([roman(format!("{what}: ")), italic(&**value)]);
        }
    }

    fn to_markdown(&self) -> String {
        let Self {
            term, note, about, ..
        } = self;
        let mut entry = format!("- `{term}`{note}: {}", escaped(about));
        for (what, value) in &self.values {
            entry.extend([" ", what, ": `", value, "`."]);
        }
        entry + "\n"
    }
}

/// A text with its words between backticks in bold.
fn inline(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    let styled = parts.map(|(nth, part)| {
        if nth % 2 == 1 {
            bold(part)
        } else {
            roman(part)
        }
    });
    styled.collect()
}

/// A text whose characters outside of backticks mean nothing in Markdown.
pub fn escaped(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(nth, part)| {
        if nth % 2 == 1 {
            return part.to_owned();
        }
        let mut plain = String::new();
        for c in part.chars() {
            if "*_<[]|\\".contains(c) {
                plain.push('\\');
            }
            plain.push(c);
        }
        plain
    });
    parts.collect::<Vec<_>>().join("`")
}

pub fn see_also(page: &mut Roff, pages: &[(&str, &str)]) {
    page.control("SH", ["SEE ALSO"]);
    for (nth, (name, section)) in pages.iter().enumerate() {
        let comma = if nth + 1 < pages.len() { "," } else { "" };
        page.text([bold(*name), roman(format!("({section}){comma}"))]);
    }
}
