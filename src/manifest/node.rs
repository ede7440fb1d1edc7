//! YAML text → [`Node`], a plain tree that keeps what validation needs.
//!
//! In: the text of one file. Out: its tree, or the [`YamlError`] that ended reading. Mappings are
//! lists of pairs, so that duplicate keys are seen. Null, truth values and numbers are distinct
//! from text. The cost is bounded before and while reading, whatever the text is.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// The largest file that is read, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// How deep lists and mappings may nest; the grammar needs four levels.
const MAX_DEPTH: usize = 16;
/// The cost that the tree may have: a node costs 16, each byte of text one. Only a file with
/// aliases comes near that.
pub(super) const MAX_COST: usize = 16 << 20;

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// `!name value`, which no manifest needs.
    Tagged(String),
}

/// Why a text has no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct YamlError {
    /// Where, in bytes from the beginning of the text; `None`: the file as a whole.
    pub at: Option<usize>,
    pub message: &'static str,
    pub label: String,
    pub help: Option<&'static str>,
}

/// Reads `text`, without its byte order mark, as one YAML document.
pub(super) fn read(text: &str) -> Result<Node, YamlError> {
    if text.len() > MAX_BYTES {
        return Err(too_large(text.len()));
    }
    if let Some(at) = brackets_too_deep(text) {
        return Err(YamlError {
            at: Some(at),
            ..too_deep()
        });
    }
    let limits = Limits {
        left: Cell::new(MAX_COST),
        hit: Cell::new(None),
    };
    let reader = TreeReader {
        limits: &limits,
        depth: 0,
    };
    reader
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| refusal(text, &limits, &error))
}

pub(super) fn too_large(bytes: usize) -> YamlError {
    YamlError {
        at: None,
        message: "the file is too large",
        label: format!("it has {bytes} bytes, more than the {MAX_BYTES} that are read"),
        help: Some("name directories or use globs in place of single files"),
    }
}

fn too_deep() -> YamlError {
    YamlError {
        at: None,
        message: "lists and mappings are nested too deeply",
        label: format!("more than {MAX_DEPTH} levels; a manifest needs four"),
        help: None,
    }
}

fn too_costly() -> YamlError {
    YamlError {
        at: None,
        message: "the file grows too large when its aliases are followed",
        label: "aliases (`*name`) repeat too much here".to_owned(),
        help: Some("write the items out in place of aliases"),
    }
}

/// The byte at which `[` and `{` nest deeper than in any manifest.
///
/// libyaml's scanner takes time quadratic in the open brackets before serde sees the first event.
/// Brackets in quotes and comments count too, which is why the bound is far above [`MAX_DEPTH`].
fn brackets_too_deep(text: &str) -> Option<usize> {
    const MAX_OPEN: usize = 1000;
    let mut open = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '[' | '{' => open += 1,
            ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_OPEN {
            return Some(at);
        }
    }
    None
}

fn refusal(text: &str, limits: &Limits, error: &serde_yaml::Error) -> YamlError {
    let at = error.location().map(|location| location.index());
    let message = error.to_string();
    if let Some(limit) = limits.hit.get() {
        return YamlError { at, ..limit() };
    }
    if message.starts_with("recursion limit") {
        return YamlError { at, ..too_deep() };
    }
    if message.starts_with("repetition limit") {
        return YamlError { at, ..too_costly() };
    }
    if message.contains("more than one document") {
        return more_than_one_document(text);
    }
    YamlError {
        at,
        message: "this is not valid YAML",
        label: without_position(&message),
        help: yaml_help(&message),
    }
}

fn more_than_one_document(text: &str) -> YamlError {
    let second = serde_yaml::Deserializer::from_str(text).nth(1);
    let error = second.and_then(|document| StopHere.deserialize(document).err());
    YamlError {
        at: error
            .and_then(|error| error.location())
            .map(|location| location.index()),
        message: "the file has more than one YAML document",
        label: "a second document begins before this".to_owned(),
        help: Some("write one file per site, without `---` between its lines"),
    }
}

/// Fails at the first value, so that its position becomes known.
struct StopHere;

impl<'de> DeserializeSeed<'de> for StopHere {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(de::Error::custom("found"))
    }
}

/// libyaml's message without its first position, which the excerpt shows.
fn without_position(message: &str) -> String {
    let Some((before, after)) = message.split_once(" at line ") else {
        return message.to_owned();
    };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest
        .strip_prefix(" column ")
        .unwrap_or(rest)
        .trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{rest}")
}

fn yaml_help(message: &str) -> Option<&'static str> {
    if message.contains("cannot start any token") {
        return Some("indent with spaces, and quote a text that begins with such a character");
    }
    if message.contains("mapping values are not allowed") {
        return Some("check the indentation, and quote a text that contains `: `");
    }
    if message.contains("unknown anchor") {
        return Some("a text that begins with `*` needs quotes");
    }
    None
}

/// The cost that reading may still have, and the limit that was exceeded.
struct Limits {
    left: Cell<usize>,
    hit: Cell<Option<fn() -> YamlError>>,
}

#[derive(Clone, Copy)]
struct TreeReader<'l> {
    limits: &'l Limits,
    depth: usize,
}

impl TreeReader<'_> {
    fn charge<E: de::Error>(self, text: usize) -> Result<(), E> {
        match self.limits.left.get().checked_sub(16 + text) {
            Some(left) => {
                self.limits.left.set(left);
                Ok(())
            }
            None => Err(self.refuse(too_costly)),
        }
    }

    fn refuse<E: de::Error>(self, limit: fn() -> YamlError) -> E {
        self.limits.hit.set(Some(limit));
        E::custom("refused")
    }

    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.refuse(too_deep));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn leaf<E: de::Error>(self, node: Node) -> Result<Node, E> {
        self.charge(0)?;
        Ok(node)
    }
}

impl<'de> DeserializeSeed<'de> for TreeReader<'_> {
    type Value = Node;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TreeReader<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Node::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Node::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.leaf(Node::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.leaf(Node::Int(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.leaf(Node::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.leaf(Node::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.leaf(Node::Int(value.try_into().unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.leaf(Node::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.charge(value.len())?;
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        self.charge(0)?;
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        self.charge(0)?;
        let inner = self.deeper()?;
        let mut map = Vec::new();
        while let Some(key) = pairs.next_key_seed(inner)? {
            map.push((key, pairs.next_value_seed(inner)?));
        }
        Ok(Node::Map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Node, A::Error> {
        let (tag, value) = data.variant::<String>()?;
        self.charge(tag.len())?;
        value.newtype_variant_seed(self.deeper()?)?;
        Ok(Node::Tagged(tag))
    }
}
