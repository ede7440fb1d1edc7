//! The settings of a unit that its `[Service]` lines make together.

use crate::observe::UnitLine;

/// The values of a list. An empty value removes those before it.
pub(super) fn list<'l>(lines: &'l [UnitLine], key: &str) -> Vec<&'l UnitLine> {
    let mut found = vec![];
    for line in lines {
        if line.section != "Service" || line.key != key {
            continue;
        }
        if line.value.is_empty() {
            found.clear();
        } else {
            found.push(line);
        }
    }
    found
}

/// The last value of a setting; `None`: it has its default.
pub(super) fn last<'l>(lines: &'l [UnitLine], key: &str) -> Option<&'l str> {
    let mut values = lines
        .iter()
        .filter(|line| line.section == "Service" && line.key == key);
    let value = values.next_back()?.value.as_str();
    (!value.is_empty()).then_some(value)
}

pub(super) fn is_yes(value: &str) -> bool {
    is_among(value, ["1", "yes", "y", "true", "t", "on"])
}

pub(super) fn is_no(value: &str) -> bool {
    is_among(value, ["0", "no", "n", "false", "f", "off"])
}

/// Whether `value` is one of these words, in upper or lower case: systemd.syntax(7).
fn is_among(value: &str, words: [&str; 6]) -> bool {
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}
