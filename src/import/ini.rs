//! The dialect of ini files that Python's `configparser` reads, which jailkit uses: pure.
//!
//! It has its own parser, because the crates for ini files do not know this dialect (indented lines
//! continue a value, comments only at the beginning of a line, `=` and `:`, `[DEFAULT]`), nor the
//! line of a value.

use std::path::Path;

use crate::{Error, Result};

/// How deep values may refer to others, as in Python.
const MAX_DEPTH: usize = 10;

/// How long a value may become by what it refers to.
const MAX_LENGTH: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IniSection {
    pub name: String,
    /// From 1.
    pub line: usize,
    pub values: Vec<IniValue>,
    /// One of its lines is wrong.
    is_wrong: bool,
}

/// One `key = value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IniValue {
    /// In lower case.
    pub key: String,
    pub line: usize,
    /// Continuation lines are joined by newlines.
    pub text: String,
}

impl IniSection {
    pub(super) fn get(&self, key: &str) -> Option<&IniValue> {
        self.values.iter().find(|value| value.key == key)
    }
}

/// The sections of a file.
#[derive(Debug, Default)]
pub(super) struct IniFile {
    /// Each with the values of `[DEFAULT]` that it does not set itself. Those with mistakes are
    /// left out.
    pub sections: Vec<IniSection>,
    /// The mistakes, with file and line.
    pub errors: Vec<Error>,
}

/// The sections of `text`. `keys`: those whose values matter; others may refer to what is not
/// there.
pub(super) fn read(file: &Path, text: &[u8], keys: &[&str]) -> IniFile {
    let mut reader = IniReader::default();
    for (line, nth) in text.split(|byte| *byte == b'\n').zip(1..) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        reader.line(nth, line);
    }

    let IniReader {
        sections,
        mut errors,
        ..
    } = reader;
    let (defaults, sections): (Vec<_>, Vec<_>) = sections
        .into_iter()
        .partition(|section| section.name == "DEFAULT");
    let mut good = vec![];
    for mut section in sections {
        add_defaults(&mut section, &defaults);
        let wrong = interpolate(&mut section, keys);
        if wrong.is_empty() && !section.is_wrong {
            good.push(section);
        }
        errors.extend(wrong);
    }

    errors.sort();
    errors.dedup();
    let error = |(nth, why)| Error::failed(format!("{}:{nth}: {why}", file.display()));
    IniFile {
        sections: good,
        errors: errors.into_iter().map(error).collect(),
    }
}

fn add_defaults(section: &mut IniSection, defaults: &[IniSection]) {
    for value in defaults.iter().flat_map(|defaults| &defaults.values) {
        if section.get(&value.key).is_none() {
            section.values.push(value.clone());
        }
    }
}

/// Replaces `%(name)s` in the values of the section. Returns the values of `keys` that cannot be
/// understood, by their lines.
fn interpolate(section: &mut IniSection, keys: &[&str]) -> Vec<(usize, String)> {
    let raw = section.clone();
    let mut errors = vec![];
    for value in &mut section.values {
        match interpolated(&value.text, &raw, 0) {
            Ok(text) => value.text = text,
            Err(why) if keys.contains(&value.key.as_str()) => {
                let name = &section.name;
                errors.push((value.line, format!("[{name}]: `{}` has {why}", value.key)));
            }
            Err(_) => {}
        }
    }
    errors
}

/// `text` with `%%` as a percent sign, and `%(name)s` as the value of `name` in the same section.
fn interpolated(text: &str, section: &IniSection, depth: usize) -> Result<String, String> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        whole.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            whole.push('%');
            rest = after;
            continue;
        }

        let name = after.strip_prefix('(');
        let Some((name, after)) = name.and_then(|name| name.split_once(")s")) else {
            return Err("a `%`, which is neither `%%` nor the beginning of `%(name)s`".to_owned());
        };
        let value = match section.get(&name.to_lowercase()) {
            Some(value) if depth < MAX_DEPTH => value,
            _ => return Err(format!("%({name})s, and there is no such value")),
        };
        whole.push_str(&interpolated(&value.text, section, depth + 1)?);
        if whole.len() > MAX_LENGTH {
            return Err(format!("%({name})s, and becomes longer than 1 MiB"));
        }
        rest = after;
    }
    whole.push_str(rest);
    Ok(whole)
}

#[derive(Default)]
struct IniReader {
    sections: Vec<IniSection>,
    /// By their lines.
    errors: Vec<(usize, String)>,
    /// Whether an indented line continues the last value.
    continues: bool,
}

impl IniReader {
    fn line(&mut self, nth: usize, line: &[u8]) {
        let start = line.trim_ascii_start();
        if start.is_empty() || start.starts_with(b"#") || start.starts_with(b";") {
            return;
        }
        let Ok(line) = str::from_utf8(line) else {
            self.wrong(nth, "it is not UTF-8".to_owned());
            return;
        };
        let text = line.trim();
        if line.starts_with([' ', '\t']) && self.continues {
            if let Some(section) = self.sections.last_mut()
                && let Some(value) = section.values.last_mut()
            {
                value.text.push('\n');
                value.text.push_str(text);
            }
        } else if let Some(rest) = text.strip_prefix('[') {
            self.continues = false;
            match rest.split_once(']') {
                Some((name, _)) if !name.trim().is_empty() => self.section(nth, name.trim()),
                _ => {
                    self.section(nth, ""); // of the lines that follow
                    let why = format!("`{text}` begins a section without a name and a `]`");
                    self.wrong(nth, why);
                }
            }
        } else {
            self.continues = true;
            self.value(nth, text);
        }
    }

    /// The mistake concerns only the section that the line is in.
    fn wrong(&mut self, nth: usize, why: String) {
        if let Some(section) = self.sections.last_mut() {
            section.is_wrong = true;
        }
        self.errors.push((nth, why));
    }

    fn section(&mut self, nth: usize, name: &str) {
        let first = self.sections.iter().find(|section| section.name == name);
        let first = first.map(|section| section.line);
        self.sections.push(IniSection {
            name: name.to_owned(),
            line: nth,
            ..IniSection::default()
        });
        if let Some(line) = first
            && !name.is_empty()
        {
            let why = format!("the section [{name}] is already in line {line}");
            self.wrong(nth, why);
        }
    }

    fn value(&mut self, nth: usize, text: &str) {
        let (key, value) = match text.split_once(['=', ':']) {
            Some((key, value)) if !key.trim().is_empty() => (key.trim().to_lowercase(), value),
            _ => {
                let why = format!("`{text}` is neither `[section]` nor `key = value`");
                return self.wrong(nth, why);
            }
        };
        let Some(section) = self.sections.last_mut() else {
            return self.wrong(nth, format!("`{text}` stands before the first section"));
        };

        let first = section.get(&key).map(|first| first.line);
        section.values.push(IniValue {
            key: key.clone(),
            line: nth,
            text: value.trim().to_owned(),
        });
        if let Some(line) = first {
            self.wrong(nth, format!("`{key}` is already in line {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> IniFile {
        read(
            Path::new("f"),
            text.as_bytes(),
            &["paths", "loop", "x", "x3", "v"],
        )
    }

    fn sections(text: &str) -> Vec<IniSection> {
        let file = read_text(text);
        assert!(file.errors.is_empty(), "{file:?}");
        file.sections
    }

    #[test]
    fn values_go_on_in_indented_lines() {
        let text = "# c\n[DEFAULT]\nusers: root\n[a b]\nPaths = /x,\n\t/y ; no comment\n; \
        comment\n  /z\nusers=u\n[c]\n";
        let sections = sections(text);
        assert_eq!(
            sections
                .iter()
                .map(|section| section.name.as_str())
                .collect::<Vec<_>>(),
            ["a b", "c"]
        );
        assert_eq!(
            sections[0].get("paths").unwrap().text,
            "/x,\n/y ; no comment\n/z"
        );
        assert_eq!(
            (
                sections[0].get("users").unwrap().text.as_str(),
                sections[0].line
            ),
            ("u", 4)
        );
        assert_eq!(sections[1].get("users").unwrap().text, "root");
    }

    #[test]
    fn values_are_put_together() {
        let text = "[DEFAULT]\nlib = /usr/lib\n[a]\npaths = %(Lib)s/x, /100%%\nloop = %(loop)s%\n";
        let file = read_text(text);
        assert!(file.sections.is_empty());
        assert_eq!(
            file.errors[0].to_string(),
            "f:5: [a]: `loop` has %(loop)s, and there is no such value"
        );
        let sections = sections(&text.replace("loop =", "other ="));
        assert_eq!(sections[0].get("paths").unwrap().text, "/usr/lib/x, /100%");
    }

    #[test]
    fn values_have_an_end() {
        let percents = format!("[a]\nx = {}\n", "%%".repeat(1_000_000));
        let sections = sections(&percents);
        assert_eq!(sections[0].get("x").unwrap().text.len(), 1_000_000);

        let mut lines = vec!["[a]".to_owned(), format!("x0 = {}", "x".repeat(100))];
        for nth in 1..10 {
            let before = format!("%(x{})s", nth - 1).repeat(100);
            lines.push(format!("x{nth} = {before}"));
        }
        let errors = read_text(&lines.join("\n")).errors;
        let expected = "f:5: [a]: `x3` has %(x2)s, and becomes longer than 1 MiB";
        assert_eq!(errors[0].to_string(), expected);
    }

    #[test]
    fn every_wrong_line_is_named() {
        let text = "x = 1\n[a]\nnothing\n= 2\n[a]\n[\nk = 1\nK = 2\n[b]\nv = %(x)s\n";
        let file = read_text(text);
        let text: Vec<_> = file.errors.iter().map(ToString::to_string).collect();
        let expected = [
            "f:1: `x = 1` stands before the first section",
            "f:3: `nothing` is neither `[section]` nor `key = value`",
            "f:4: `= 2` is neither `[section]` nor `key = value`",
            "f:5: the section [a] is already in line 2",
            "f:6: `[` begins a section without a name and a `]`",
            "f:8: `k` is already in line 7",
            "f:10: [b]: `v` has %(x)s, and there is no such value",
        ];
        assert_eq!(text, expected);
        assert!(file.sections.is_empty(), "{file:?}");
    }

    #[test]
    fn a_mistake_concerns_one_section() {
        let latin1 = b"[good]\n# caf\xe9\npaths = /x\n[bad]\npaths = /caf\xe9\n\
                       [open\npaths = /no\n[none]\npaths = %(x)s\n[good]\nx = 2\n[last]\nx=1\n";
        let file = read(Path::new("f"), latin1, &["paths"]);
        let names: Vec<_> = file.sections.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["good", "last"]);
        assert_eq!(file.errors.len(), 4, "{file:?}");
        assert_eq!(file.errors[0].to_string(), "f:5: it is not UTF-8");
    }
}
