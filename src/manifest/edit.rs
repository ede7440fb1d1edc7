//! Adding items to a manifest's text, of which every other byte stays as it is.
//!
//! The text is not written again from its tree, which would lose comments, order and style. The
//! places are found in the text, and the new text is read again. If it does not mean the old
//! manifest and the additions, there is no result.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::entries::Request;
use super::grammar::{FileContents, Grammar};
use super::grammar_keys::SITE_KEYS;
use super::locate::{self, PairPart, PathStep};
use super::node::{self, Node};
use super::parsed::ParsedFile;

/// One item for one of the lists of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addition {
    /// `presets`, `etc`, `programs`, …
    pub key: &'static str,
    /// The name or path, as it stands in the list.
    pub name: String,
    /// May be absent; for `mounts` alone.
    pub optional: bool,
    /// Programs and libraries in it may be used; for `mounts` alone.
    pub executable: bool,
    /// Whose it is; for `directories` alone.
    pub owner: Option<DirectoryOwner>,
}

/// The owner and the mode of a directory of the site's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryOwner {
    /// A login name; `None`: root.
    pub user: Option<String>,
    /// The permission bits.
    pub mode: u32,
}

/// Why nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is written in a style of YAML that cannot be added to without disturbing it")]
pub struct CannotAdd;

impl fmt::Display for Addition {
    /// `programs: [/usr/bin/perl]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [{}]", self.key, self.item(Quotes::WhereNeeded))
    }
}

/// How names are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// In quotes where YAML would read something else.
    WhereNeeded,
    /// All in quotes, as in JSON.
    Always,
}

impl Quotes {
    /// Those that what follows the opening bracket at `at` has.
    fn after(text: &str, at: usize) -> Self {
        if text[at + 1..].trim_start().starts_with('"') {
            Self::Always
        } else {
            Self::WhereNeeded
        }
    }

    /// Around a word that is plain.
    fn mark(self) -> &'static str {
        match self {
            Self::WhereNeeded => "",
            Self::Always => "\"",
        }
    }
}

impl Addition {
    /// As it is written in the manifest of a site, or in a template of sites.
    fn written(&self, instance: Option<&str>) -> Self {
        let mut written = self.clone();
        if instance.is_some() {
            written.name = self.name.replace('%', "%%");
        }
        written
    }

    /// The item as text in a list.
    fn item(&self, quotes: Quotes) -> String {
        let name = scalar(&self.name, quotes);
        let mark = quotes.mark();
        if let Some(DirectoryOwner { user, mode }) = &self.owner {
            let user = match user {
                Some(user) => format!(", {mark}user{mark}: {}", scalar(user, quotes)),
                None => String::new(),
            };
            return format!(
                "{{ {mark}path{mark}: {name}{user}, {mark}mode{mark}: \"{mode:04o}\" }}"
            );
        }
        let mut attributes = String::new();
        for (attribute, is_set) in [("optional", self.optional), ("executable", self.executable)] {
            if is_set {
                let _ = write!(attributes, ", {mark}{attribute}{mark}: true");
            }
        }
        if attributes.is_empty() {
            return name;
        }
        format!("{{ {mark}source{mark}: {name}{attributes} }}")
    }
}

/// `text`, a manifest without mistakes, with those `additions` that it does not have yet.
/// `instance`: the text is that of a template of sites, and the additions are for the instance of
/// this name, among others.
pub fn add(
    text: &str,
    additions: &[Addition],
    instance: Option<&str>,
) -> Result<String, CannotAdd> {
    let before = contents(text, instance)?;
    let mut new: BTreeMap<&str, Vec<Addition>> = BTreeMap::new();
    let mut meanings = vec![];
    for addition in additions {
        let addition = addition.written(instance);
        let meaning = meaning(&addition, instance)?;
        if !meaning.is_in(&before) && !meanings.contains(&meaning) {
            new.entry(addition.key).or_default().push(addition);
            meanings.push(meaning);
        }
    }
    let mut out = text.to_owned();
    for key in SITE_KEYS {
        if let Some(items) = new.get(key) {
            out = add_to(&out, key, items)?;
        }
    }
    if is_sum(&before, &meanings, &contents(&out, instance)?) {
        Ok(out)
    } else {
        Err(CannotAdd)
    }
}

fn contents(text: &str, instance: Option<&str>) -> Result<FileContents, CannotAdd> {
    let grammar = instance.map_or(Grammar::Site, Grammar::Template);
    let parsed = ParsedFile::new(text, grammar);
    if parsed.not_yaml.is_some() || !parsed.faults.is_empty() {
        Err(CannotAdd)
    } else {
        Ok(parsed.contents)
    }
}

/// The request of one item.
#[derive(Debug, PartialEq)]
enum Meaning {
    Preset(String),
    Line(Request),
}

fn meaning(addition: &Addition, instance: Option<&str>) -> Result<Meaning, CannotAdd> {
    let before = match instance {
        None => "root: /x",
        Some(_) => "root: /%i\ninstances: []",
    };
    let mut contents = contents(&format!("{before}\n{addition}\n"), instance)?;
    if let Some(line) = contents.lines.pop() {
        return Ok(Meaning::Line(line.request));
    }
    match contents.presets.pop() {
        Some(preset) => Ok(Meaning::Preset(preset.name)),
        None => Err(CannotAdd),
    }
}

impl Meaning {
    fn is_in(&self, contents: &FileContents) -> bool {
        match self {
            Self::Preset(name) => contents.presets.iter().any(|preset| preset.name == *name),
            Self::Line(request) => contents.lines.iter().any(|line| line.request == *request),
        }
    }
}

/// The meanings of all presets and lines.
fn meanings(contents: &FileContents) -> Vec<Meaning> {
    let mut meanings = vec![];
    for preset in &contents.presets {
        meanings.push(Meaning::Preset(preset.name.clone()));
    }
    for line in &contents.lines {
        meanings.push(Meaning::Line(line.request.clone()));
    }
    meanings
}

/// Whether `after` is `before` and `added`, nothing else, with the order of `before`.
fn is_sum(before: &FileContents, added: &[Meaning], after: &FileContents) -> bool {
    let mut rest = meanings(after);
    for meaning in added {
        let Some(nth) = rest.iter().rposition(|found| found == meaning) else {
            return false;
        };
        rest.remove(nth);
    }
    rest == meanings(before)
        && before.root == after.root
        && before.services == after.services
        && before.scope.map(|line| line.scope) == after.scope.map(|line| line.scope)
        && before.instances == after.instances
}

fn add_to(text: &str, key: &'static str, items: &[Addition]) -> Result<String, CannotAdd> {
    match locate::offset(text, &[PathStep::Named(key)], PairPart::Value) {
        None => add_key(text, key, items),
        Some(at) if text[at..].starts_with('[') => {
            add_in_brackets(text, at, &joined(items, Quotes::after(text, at)))
        }
        Some(_) => add_below(text, key, items),
    }
}

/// The items as they are between brackets.
fn joined(items: &[Addition], quotes: Quotes) -> String {
    let items: Vec<_> = items.iter().map(|item| item.item(quotes)).collect();
    items.join(", ")
}

/// Adds items after the last one of a list with one line per item.
fn add_below(text: &str, key: &'static str, items: &[Addition]) -> Result<String, CannotAdd> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Ok(Node::Map(pairs)) = node::read(body) else {
        return Err(CannotAdd);
    };
    let list = pairs
        .iter()
        .find(|(name, _)| *name == Node::Text(key.to_owned()));
    let Some((_, Node::List(list))) = list else {
        return Err(CannotAdd);
    };
    let steps = [
        PathStep::Named(key),
        PathStep::Nth(list.len().checked_sub(1).ok_or(CannotAdd)?),
    ];
    let at = locate::offset(text, &steps, PairPart::Value).ok_or(CannotAdd)?;
    let line = start_of_line(text, at);
    let prefix = &text[line..at];
    let indent = prefix.len() - prefix.trim_start().len();
    if prefix.trim() != "-" {
        return Err(CannotAdd);
    }
    let (before, after) = text.split_at(end_of_item(text, line, indent));
    let mut out = before.to_owned();
    for item in items {
        out += newline(text);
        out += prefix;
        out += &item.item(Quotes::WhereNeeded);
    }
    Ok(out + after)
}

/// The end of the last line of the item that begins in the line at `start`. Following lines belong
/// to it as long as they are indented further than its dash.
fn end_of_item(text: &str, start: usize, indent: usize) -> usize {
    let (mut at, mut end) = (start, start);
    for (nth, line) in text[start..].split_inclusive('\n').enumerate() {
        let content = line.trim_end_matches(['\n', '\r']);
        let words = content.trim_start();
        let deeper = content.len() - words.len() > indent;
        match (nth, words.is_empty() || words.starts_with('#')) {
            (0, _) => end = at + content.len(),
            (_, true) => {}
            (_, false) if deeper => end = at + content.len(),
            (_, false) => break,
        }
        at += line.len();
    }
    end
}

/// Adds a key that the manifest does not have, at its end.
fn add_key(text: &str, key: &str, items: &[Addition]) -> Result<String, CannotAdd> {
    let top = locate::offset(text, &[], PairPart::Value).ok_or(CannotAdd)?;
    if text[top..].starts_with('{') {
        let quotes = Quotes::after(text, top);
        let mark = quotes.mark();
        let pair = format!("{mark}{key}{mark}: [{}]", joined(items, quotes));
        return add_in_brackets(text, top, &pair);
    }
    let first = locate::offset(text, &[PathStep::Named("root")], PairPart::Key).ok_or(CannotAdd)?;
    let indent = text[start_of_line(text, first)..first].trim_start_matches('\u{feff}');
    if !indent.trim().is_empty() {
        return Err(CannotAdd);
    }
    let newline = newline(text);
    let start = if text.ends_with('\n') { "" } else { newline };
    let mut out = format!("{text}{start}{indent}{key}:");
    if ["mounts", "directories"].contains(&key) {
        out += newline;
        for item in items {
            let _ = write!(
                out,
                "{indent}  - {}{newline}",
                item.item(Quotes::WhereNeeded)
            );
        }
    } else {
        let _ = write!(out, " [{}]{newline}", joined(items, Quotes::WhereNeeded));
    }
    Ok(out)
}

fn start_of_line(text: &str, at: usize) -> usize {
    match text[..at].rfind('\n') {
        Some(newline) => newline + 1,
        None => 0,
    }
}

/// Adds `items` to the list or mapping whose opening bracket is at `at`.
fn add_in_brackets(text: &str, at: usize, items: &str) -> Result<String, CannotAdd> {
    let last = last_in_brackets(text, at).ok_or(CannotAdd)?;
    let (before, after) = text.split_at(last);
    Ok(match before.as_bytes().last() {
        _ if last == at + 1 => format!("{before}{items}{after}"),
        Some(b',') => format!("{before} {items},{after}"),
        _ => format!("{before}, {items}{after}"),
    })
}

/// Where the last thing before the bracket that closes the one at `at` ends.
fn last_in_brackets(text: &str, at: usize) -> Option<usize> {
    let (mut depth, mut last, mut before) = (0_usize, at, ' ');
    let mut chars = text[at..]
        .char_indices()
        .map(|(offset, c)| (at + offset, c))
        .peekable();
    while let Some((offset, c)) = chars.next() {
        let begins = before.is_whitespace() || "[{,:".contains(before);
        before = c;
        match c {
            '#' if begins => {
                while chars.next_if(|(_, c)| *c != '\n').is_some() {}
                continue;
            }
            '"' | '\'' if begins => {
                let end = end_of_quotes(&text[offset..])? + offset;
                while chars.next_if(|(offset, _)| *offset < end).is_some() {}
                (last, before) = (end, '"');
                continue;
            }
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            c if c.is_whitespace() => continue,
            _ => {}
        }
        if depth == 0 {
            return Some(last);
        }
        last = offset + c.len_utf8();
    }
    None
}

/// The length of the quoted text at the beginning of `text`.
fn end_of_quotes(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((offset, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => drop(chars.next()),
            '\'' if quote == '\'' && chars.next_if(|(_, next)| *next == '\'').is_some() => {}
            c if c == quote => return Some(offset + 1),
            _ => {}
        }
    }
    None
}

fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Words that other YAML parsers take for a truth value.
const TRUTH_WORDS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];

/// `text` as a YAML scalar, quoted where YAML would read something else.
pub(crate) fn yaml_scalar(text: &str) -> String {
    scalar(text, Quotes::WhereNeeded)
}

/// `name` as a YAML scalar that is a text.
fn scalar(name: &str, quotes: Quotes) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._@+-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || "/_".contains(c));
    let is_text = || matches!(node::read(name), Ok(Node::Text(_)));
    let is_word = TRUTH_WORDS
        .iter()
        .any(|word| name.eq_ignore_ascii_case(word));
    let may_be_plain = quotes == Quotes::WhereNeeded && begins && !is_word;
    if may_be_plain && name.chars().all(plain) && is_text() {
        return name.to_owned();
    }
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        // Line breaks, and what YAML does not accept unescaped.
        '\0'..='\x1f'
        | '\x7f'..='\u{a0}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{feff}'
        | '\u{fffe}'
        | '\u{ffff}' => {
            format!("\\u{:04X}", u32::from(c))
        }
        c => c.to_string(),
    };
    format!("\"{}\"", name.chars().map(escaped).collect::<String>())
}

#[cfg(test)]
mod tests;
