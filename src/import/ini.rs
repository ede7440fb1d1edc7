//! The dialect of ini files that Python's `configparser` reads, which jailkit uses: pure.
//!
//! A reader of our own: the crates that read ini files know neither this dialect (values go on in
//! indented lines, comments only at a line's beginning, `=` and `:`, `[DEFAULT]`) nor the line that
//! a value stands in.

use std::path::Path;

use crate::{Error, Result};

/// One section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IniSection {
    pub name: String,
    /// Its line, from 1.
    pub line: usize,
    pub values: Vec<IniValue>,
}

/// One `key = value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IniValue {
    /// In lower case.
    pub key: String,
    pub line: usize,
    /// Lines that go on are joined by newlines.
    pub text: String,
}

impl IniSection {
    pub fn get(&self, key: &str) -> Option<&IniValue> {
        self.values.iter().find(|value| value.key == key)
    }
}

/// The sections, each with what `[DEFAULT]` says in addition.
///
/// Errors: every line that is wrong, with file and line.
pub(super) fn read(file: &Path, text: &str) -> Result<Vec<IniSection>, Vec<Error>> {
    let mut reader = IniReader::default();
    for (line, nth) in text.lines().zip(1..) {
        reader.line(nth, line);
    }
    let IniReader {
        mut sections,
        mut errors,
        ..
    } = reader;
    let (defaults, mut named): (Vec<_>, Vec<_>) = sections
        .drain(..)
        .partition(|section| section.name == "DEFAULT");
    for section in &mut named {
        for value in defaults.iter().flat_map(|defaults| &defaults.values) {
            if section.get(&value.key).is_none() {
                section.values.push(value.clone());
            }
        }
        let raw = section.clone();
        for value in &mut section.values {
            match put_together(&value.text, &raw, 0) {
                Ok(text) => value.text = text,
                Err(why) => errors.push((value.line, format!("`{}` has {why}", value.key))),
            }
        }
    }
    if errors.is_empty() {
        return Ok(named);
    }
    errors.sort();
    errors.dedup();
    let error = |(nth, why)| Error::failed(format!("{}:{nth}: {why}", file.display()));
    Err(errors.into_iter().map(error).collect())
}

/// `text` with `%%` as a percent sign, and `%(name)s` as the value of `name` in the same section.
fn put_together(text: &str, section: &IniSection, depth: usize) -> Result<String, String> {
    let Some((before, rest)) = text.split_once('%') else {
        return Ok(text.to_owned());
    };
    if let Some(rest) = rest.strip_prefix('%') {
        return Ok(format!("{before}%{}", put_together(rest, section, depth)?));
    }
    let (name, rest) = rest
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(")s"))
        .ok_or("a `%`, which is neither `%%` nor the beginning of `%(name)s`")?;
    let value = section.get(&name.to_lowercase()).filter(|_| depth < 10);
    let value = value.ok_or(format!("%({name})s, and there is no such value"))?;
    let value = put_together(&value.text, section, depth + 1)?;
    Ok(format!(
        "{before}{value}{}",
        put_together(rest, section, depth)?
    ))
}

#[derive(Default)]
struct IniReader {
    sections: Vec<IniSection>,
    errors: Vec<(usize, String)>,
    /// The last line began or went on with a value, which an indented line goes on with.
    open: bool,
}

impl IniReader {
    fn line(&mut self, nth: usize, line: &str) {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            return;
        }
        if line.starts_with([' ', '\t']) && self.open {
            if let Some(value) = self
                .sections
                .last_mut()
                .and_then(|section| section.values.last_mut())
            {
                value.text.push('\n');
                value.text.push_str(text);
            }
        } else if let Some(rest) = text.strip_prefix('[') {
            self.open = false;
            match rest.split_once(']') {
                Some((name, _)) if !name.trim().is_empty() => self.section(nth, name.trim()),
                _ => self.errors.push((
                    nth,
                    format!("`{text}` begins a section without a name and a `]`"),
                )),
            }
        } else {
            self.value(nth, text);
        }
    }

    fn section(&mut self, nth: usize, name: &str) {
        if let Some(first) = self.sections.iter().find(|section| section.name == name) {
            self.errors.push((
                nth,
                format!(
                    "the section [{name}] is there already, in line {}",
                    first.line
                ),
            ));
        }
        self.sections.push(IniSection {
            name: name.to_owned(),
            line: nth,
            values: vec![],
        });
    }

    fn value(&mut self, nth: usize, text: &str) {
        self.open = true;
        let Some((key, value)) = text
            .split_once(['=', ':'])
            .filter(|(key, _)| !key.trim().is_empty())
        else {
            self.errors.push((
                nth,
                format!("`{text}` is neither `[section]` nor `key = value`"),
            ));
            return;
        };
        let key = key.trim().to_lowercase();
        let Some(section) = self.sections.last_mut() else {
            self.errors
                .push((nth, format!("`{text}` stands before the first section")));
            return;
        };
        if let Some(first) = section.get(&key) {
            self.errors.push((
                nth,
                format!("`{key}` is there already, in line {}", first.line),
            ));
        }
        section.values.push(IniValue {
            key,
            line: nth,
            text: value.trim().to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_on_in_indented_lines() {
        let text = "# c\n[DEFAULT]\nusers: root\n[a b]\nPaths = /x,\n\t/y ; no comment\n; comment\n  /z\nusers=u\n[c]\n";
        let sections = read(Path::new("f"), text).unwrap();
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
        let errors = read(Path::new("f"), text).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "f:5: `loop` has %(loop)s, and there is no such value"
        );
        let sections = read(Path::new("f"), &text.replace("loop = %(loop)s%\n", "")).unwrap();
        assert_eq!(sections[0].get("paths").unwrap().text, "/usr/lib/x, /100%");
    }

    #[test]
    fn every_wrong_line_is_named() {
        let text = "x = 1\n[a]\nnothing\n= 2\n[a]\n[\nk = 1\nK = 2\nv = %(x)s\n";
        let errors = read(Path::new("f"), text).unwrap_err();
        let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let expected = [
            "f:1: `x = 1` stands before the first section",
            "f:3: `nothing` is neither `[section]` nor `key = value`",
            "f:4: `= 2` is neither `[section]` nor `key = value`",
            "f:5: the section [a] is there already, in line 2",
            "f:6: `[` begins a section without a name and a `]`",
            "f:8: `k` is there already, in line 7",
            "f:9: `v` has %(x)s, and there is no such value",
        ];
        assert_eq!(text, expected);
    }
}
