//! Where a key or value is in a text.
//!
//! The YAML parser returns no positions with its values, but each of its errors has one. So the
//! text is read a second time, only when a position is needed, by a visitor that walks to the place
//! and fails there.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// One step from a list or mapping to what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathStep<'a> {
    /// The item or pair at this place, from 0.
    Nth(usize),
    /// The pair with this key.
    Named(&'a str),
}

/// Which part of the last pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairPart {
    Key,
    Value,
}

/// The byte offset in `text` of what `steps` lead to; `None`: nothing is there.
pub(super) fn offset(text: &str, steps: &[PathStep<'_>], part: PairPart) -> Option<usize> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document = serde_yaml::Deserializer::from_str(body).next()?;
    let found = std::cell::Cell::new(false);
    let error = Finder {
        steps,
        part,
        found: &found,
    }
    .deserialize(document)
    .err()?;
    let location = error.location().filter(|_| found.get())?;
    Some(text.len() - body.len() + byte_offset(body, location.index()))
}

/// The parser's index, which counts bytes, as an offset at which `text` can be split.
pub(super) fn byte_offset(text: &str, index: usize) -> usize {
    let index = index.min(text.len());
    (0..=index)
        .rev()
        .find(|offset| text.is_char_boundary(*offset))
        .unwrap_or(0)
}

/// The line and column, both from 1, the column in characters, of a byte offset on a character's
/// boundary.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[line_start..]
        .trim_start_matches('\u{feff}')
        .chars()
        .count()
        + 1;
    (before.matches('\n').count() + 1, column)
}

/// The line and column, both from 1, of the value that `key` leads to: `mounts[3].target`,
/// `etc[2]`, `root`.
///
/// `None`: the text is not YAML, or nothing is there. Columns count characters.
pub fn position(text: &str, key: &str) -> Option<(usize, usize)> {
    located(text, key, PairPart::Value)
}

/// As [`position`], but for the key itself; an item of a list has no key, so for the item.
pub fn key_position(text: &str, key: &str) -> Option<(usize, usize)> {
    located(text, key, PairPart::Key)
}

fn located(text: &str, key: &str, part: PairPart) -> Option<(usize, usize)> {
    offset(text, &steps_of(key)?, part).map(|offset| line_and_column(text, offset))
}

/// `mounts[3].target` → `mounts`, 3, `target`.
fn steps_of(key: &str) -> Option<Vec<PathStep<'_>>> {
    let mut steps = Vec::new();
    for part in key.split('.') {
        let (name, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !name.is_empty() {
            steps.push(PathStep::Named(name));
        }
        for index in indices.split_terminator(']') {
            steps.push(PathStep::Nth(index.strip_prefix('[')?.parse().ok()?));
        }
    }
    Some(steps)
}

#[derive(Clone, Copy)]
struct Finder<'s> {
    steps: &'s [PathStep<'s>],
    part: PairPart,
    found: &'s std::cell::Cell<bool>,
}

impl Finder<'_> {
    fn stop<E: de::Error>(self) -> E {
        self.found.set(self.steps.is_empty());
        E::custom("the walk ends here")
    }
}

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Err(self.stop())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.stop())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((PathStep::Nth(nth), rest)) = self.steps.split_first() else {
            return Err(self.stop());
        };
        for _ in 0..*nth {
            if items.next_element::<IgnoredAny>()?.is_none() {
                return Err(self.stop());
            }
        }
        items.next_element_seed(Finder {
            steps: rest,
            ..self
        })?;
        Err(self.stop())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else {
            return Err(self.stop());
        };
        let inner = Finder {
            steps: rest,
            ..self
        };
        let stop_at_key = rest.is_empty() && self.part == PairPart::Key;
        let mut nth = 0;
        while let Some(here) = pairs.next_key_seed(KeyFinder {
            inner,
            step: *step,
            nth,
            stop_at_key,
        })? {
            if here {
                pairs.next_value_seed(inner)?;
            } else {
                pairs.next_value::<IgnoredAny>()?;
            }
            nth += 1;
        }
        Err(self.stop())
    }
}

/// Compares one key with the wanted one, or stops there.
#[derive(Clone, Copy)]
struct KeyFinder<'s> {
    inner: Finder<'s>,
    step: PathStep<'s>,
    nth: usize,
    stop_at_key: bool,
}

impl<'de> DeserializeSeed<'de> for KeyFinder<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        match self.step {
            PathStep::Nth(nth) if nth == self.nth && self.stop_at_key => {
                self.inner.deserialize(deserializer).map(|()| true)
            }
            PathStep::Nth(nth) => deserializer
                .deserialize_ignored_any(IgnoredAny)
                .map(|_| nth == self.nth),
            PathStep::Named(_) => deserializer.deserialize_any(self),
        }
    }
}

impl Visitor<'_> for KeyFinder<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        let here = self.step == PathStep::Named(key);
        if here && self.stop_at_key {
            Err(self.inner.stop())
        } else {
            Ok(here)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_several_bytes_move_nothing() {
        for before in [
            "root: /s # ü€𝄞",
            "root: \"/ü€𝄞\"",
            "# ü\r\nroot: /ü",
            "\u{feff}root: /ü",
        ] {
            let line = before.lines().count() + 1;
            assert_eq!(
                position(&format!("{before}\netc: [ü, b]"), "etc[1]"),
                Some((line, 10)),
                "{before}"
            );
        }
    }
}
