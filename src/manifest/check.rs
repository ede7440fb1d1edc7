//! Walking a tree and collecting every mistake with the way that leads to it.
//!
//! This file knows YAML's types and the wording of mistakes; `grammar` knows the keys.

use super::diagnostic::{Fault, FaultText, quoted};
use super::locate::PairPart;
use super::node::Node;
use crate::base::text::{listed, nearest};

/// The way from the top of the tree to a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: AtStep<'a>,
}

#[derive(Clone, Copy, Debug)]
enum AtStep<'a> {
    Top,
    Key { name: &'a str, nth: usize },
    Item(usize),
}

impl<'a> At<'a> {
    pub(super) const TOP: At<'static> = At {
        parent: None,
        step: AtStep::Top,
    };

    pub(super) fn key(&'a self, name: &'a str, nth: usize) -> At<'a> {
        At {
            parent: Some(self),
            step: AtStep::Key { name, nth },
        }
    }

    pub(super) fn item(&'a self, nth: usize) -> At<'a> {
        At {
            parent: Some(self),
            step: AtStep::Item(nth),
        }
    }

    /// `mounts[3].target`
    pub(super) fn path(&self) -> String {
        let before = self.parent.map_or_else(String::new, At::path);
        match self.step {
            AtStep::Top => before,
            AtStep::Key { name, .. } if before.is_empty() => name.to_owned(),
            AtStep::Key { name, .. } => format!("{before}.{name}"),
            AtStep::Item(nth) => format!("{before}[{nth}]"),
        }
    }

    pub(super) fn steps(&self) -> Vec<usize> {
        let mut steps = self.parent.map_or_else(Vec::new, At::steps);
        match self.step {
            AtStep::Top => {}
            AtStep::Key { nth, .. } | AtStep::Item(nth) => steps.push(nth),
        }
        steps
    }
}

/// One pair of a mapping whose key is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'n> {
    pub name: &'static str,
    pub nth: usize,
    pub value: &'n Node,
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Checker {
    pub faults: Vec<Fault>,
}

impl Checker {
    /// Adds a mistake in the value at `at`; `label` tells what was expected and found.
    pub(super) fn fault(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        self.note(at, PairPart::Value, message.into(), label.into(), help);
    }

    fn key_fault(&mut self, at: &At<'_>, message: String, label: String, help: Option<String>) {
        self.note(at, PairPart::Key, message, label, help);
    }

    fn note(
        &mut self,
        at: &At<'_>,
        part: PairPart,
        message: String,
        label: String,
        help: Option<String>,
    ) {
        let text = FaultText {
            key: at.path(),
            message,
            label,
            help,
        };
        self.faults.push(Fault {
            steps: at.steps(),
            part,
            text,
        });
    }

    /// The pairs of a mapping whose keys are among `known`. Unknown keys and duplicates are
    /// mistakes.
    pub(super) fn fields<'n>(
        &mut self,
        at: &At<'_>,
        pairs: &'n [(Node, Node)],
        known: &[&'static str],
    ) -> Vec<Field<'n>> {
        let mut fields: Vec<Field<'n>> = Vec::with_capacity(pairs.len());
        for (nth, (key, value)) in pairs.iter().enumerate() {
            let Node::Text(key) = key else {
                let shown = scalar_text(key).unwrap_or_else(|| "?".to_owned());
                let label = format!("expected one of {}, found {}", listed(known), found(key));
                self.key_fault(
                    &at.key(&shown, nth),
                    "a key is a word".to_owned(),
                    label,
                    None,
                );
                continue;
            };
            let Some(name) = known.iter().find(|name| *name == key) else {
                self.unknown_key(&at.key(key, nth), key, known);
                continue;
            };
            if fields.iter().any(|field| field.name == *name) {
                let label = "the second of this name".to_owned();
                let help = "put both into one".to_owned();
                self.key_fault(
                    &at.key(name, nth),
                    "the key is here twice".to_owned(),
                    label,
                    Some(help),
                );
                continue;
            }
            fields.push(Field { name, nth, value });
        }
        fields
    }

    fn unknown_key(&mut self, at: &At<'_>, key: &str, known: &[&'static str]) {
        let label = format!("expected one of {}", listed(known));
        self.key_fault(
            at,
            format!("unknown key {}", quoted(key)),
            label,
            did_you_mean(key, known),
        );
    }

    /// The items of a list.
    pub(super) fn list<'n>(&mut self, at: &At<'_>, node: &'n Node, what: &str) -> &'n [Node] {
        if let Node::List(items) = node {
            return items;
        }
        let help = match scalar_text(node) {
            Some(text) => format!("write it as a list: `[{text}]`"),
            None if *node == Node::Null => "remove the key, or write `[]`".to_owned(),
            None => format!("begin each of the {what} with `- `"),
        };
        let label = format!("expected a list of {what}, found {}", found(node));
        self.fault(at, "this is not a list", label, Some(help));
        &[]
    }

    /// A text that is not empty.
    pub(super) fn text<'n>(
        &mut self,
        at: &At<'_>,
        node: &'n Node,
        expected: &str,
    ) -> Option<&'n str> {
        if let Node::Text(text) = node {
            if text.is_empty() {
                self.fault(at, "it is empty", format!("expected {expected}"), None);
                return None;
            }
            return Some(text);
        }
        let help = scalar_text(node).map(|text| match node {
            Node::Null => "if the name is `null`, quote it: \"null\"".to_owned(),
            _ => format!("if this is the name, quote it: \"{text}\""),
        });
        self.fault(
            at,
            "this is not a text",
            format!("expected {expected}, found {}", found(node)),
            help,
        );
        None
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, at: &At<'_>, node: &Node) -> Option<bool> {
        if let Node::Bool(value) = node {
            return Some(*value);
        }
        let help = match node {
            Node::Text(text) => match text.to_lowercase().as_str() {
                "yes" | "on" | "true" | "y" => Some("write `true`".to_owned()),
                "no" | "off" | "false" | "n" => Some("write `false`".to_owned()),
                _ => None,
            },
            _ => None,
        };
        self.fault(
            at,
            "this is neither true nor false",
            format!("expected `true` or `false`, found {}", found(node)),
            help,
        );
        None
    }
}

/// The kind of a node, as a message names it.
pub(super) fn found(node: &Node) -> String {
    match node {
        Node::Null => "nothing (in YAML, an empty value, `~` and `null` mean that)".to_owned(),
        Node::Bool(value) => format!("the truth value `{value}`"),
        Node::Int(value) => format!("the number `{value}`"),
        Node::Float(value) => format!("the number `{value}`"),
        Node::Text(text) => format!("the text {}", quoted(text)),
        Node::List(_) => "a list".to_owned(),
        Node::Map(_) => "a mapping".to_owned(),
        Node::Tagged(tag) => format!("a value with the YAML tag {}", quoted(&format!("!{tag}"))),
    }
}

/// A scalar as it could be written in the file; `None` for null and for anything else.
fn scalar_text(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(quoted(text).trim_matches('`').to_owned()),
        Node::Bool(value) => Some(value.to_string()),
        Node::Int(value) => Some(value.to_string()),
        Node::Float(value) => Some(value.to_string()),
        Node::Null | Node::List(_) | Node::Map(_) | Node::Tagged(_) => None,
    }
}

pub(super) fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    nearest(word, known.iter().copied()).map(|name| format!("did you mean `{name}`?"))
}
