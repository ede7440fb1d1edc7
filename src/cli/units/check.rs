//! `mountjail units --check`: the drop-ins that are there against what `--install` would write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;
use crate::base::style;
use crate::engine::read_drop_in;
use crate::render::systemd::HEADER;
use crate::render::text::{line, row};

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Missing,
    Differs,
    /// No site needs it any more.
    Unneeded,
}

/// A file that is not as the manifests ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    path: PathBuf,
    how: How,
    /// Lines that only one side has.
    missing: Vec<String>,
    unexpected: Vec<String>,
}

/// The differences that `--install` would mend: `drop_ins` to write, `unneeded` ones to remove. An
/// error for each file that cannot be read.
pub(super) fn differences(
    drop_ins: &BTreeMap<PathBuf, &str>,
    unneeded: Vec<PathBuf>,
) -> Vec<Result<Difference>> {
    let mut differences = vec![];
    for (path, text) in drop_ins {
        differences.extend(Difference::of(path, text).transpose());
    }
    for path in unneeded {
        differences.extend(Difference::of_unneeded(path).transpose());
    }
    differences
}

impl Difference {
    fn of(path: &Path, wanted: &str) -> Result<Option<Self>> {
        let Some(found) = read_drop_in(path)? else {
            return Ok(Some(Self {
                path: path.to_owned(),
                how: How::Missing,
                missing: vec![],
                unexpected: vec![],
            }));
        };
        if found == wanted {
            return Ok(None);
        }
        Ok(Some(Self {
            path: path.to_owned(),
            how: How::Differs,
            missing: only(wanted, &found),
            unexpected: only(&found, wanted),
        }))
    }

    /// `None`: it does not exist, or is not mountjail's.
    fn of_unneeded(path: PathBuf) -> Result<Option<Self>> {
        match read_drop_in(&path)? {
            Some(text) if text.starts_with(HEADER) => Ok(Some(Self {
                path,
                how: How::Unneeded,
                missing: vec![],
                unexpected: vec![],
            })),
            _ => Ok(None),
        }
    }

    /// A sentence, and the lines that differ.
    pub(super) fn text(&self) -> String {
        let path = self.path.display();
        let mut text = String::new();
        match self.how {
            How::Missing => line(&mut text, format_args!("{path} is missing")),
            How::Unneeded => line(&mut text, format_args!("{path}: no site needs it any more")),
            How::Differs if self.missing.is_empty() && self.unexpected.is_empty() => {
                line(
                    &mut text,
                    format_args!("{path} has its lines in another order"),
                );
            }
            How::Differs => line(&mut text, format_args!("{path} differs")),
        }
        let unexpected = (("-", style::WRONG), &self.unexpected);
        let missing = (("+", style::RIGHT), &self.missing);
        for (sign, lines) in [unexpected, missing] {
            for only in lines {
                row(&mut text, sign, 0, format_args!("{only}"));
            }
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let how = match self.how {
            How::Missing => "missing",
            How::Differs => "differs",
            How::Unneeded => "unneeded",
        };
        json!({
            "file": self.path, "how": how, "missing": self.missing, "unexpected": self.unexpected,
        })
    }
}

/// The lines of `text` that `other` does not have.
fn only(text: &str, other: &str) -> Vec<String> {
    let known: Vec<_> = other.lines().collect();
    let mut only = vec![];
    for line in text.lines() {
        if !known.contains(&line) {
            only.push(line.to_owned());
        }
    }
    only
}
