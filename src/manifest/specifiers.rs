//! The specifiers in a template of sites, as in units of systemd: `%i` is the instance's name, `%%`
//! a percent sign.

use super::check::{At, Checker};
use super::diagnostic::quoted;
use super::node::{MAX_COST, Node};
use super::words::BadWord;

/// Replaces the specifiers in all values of the file's tree; mistakes are added to `checker`.
pub(super) fn replace(tree: &mut Node, instance: &str, checker: &mut Checker) {
    let Node::Map(pairs) = tree else { return };
    let mut replacer = Replacer {
        checker,
        left: MAX_COST,
    };
    for (nth, (key, value)) in pairs.iter_mut().enumerate() {
        let key = key_text(key);
        let at = At::TOP.key(&key, nth);
        let instance = match key.as_str() {
            "instances" => None,
            "root" => {
                replacer.differs_by_instance(&at, value);
                Some(instance)
            }
            _ => Some(instance),
        };
        replacer.value(&at, value, instance);
    }
}

fn key_text(key: &Node) -> String {
    match key {
        Node::Text(text) => text.clone(),
        _ => "?".to_owned(),
    }
}

struct Replacer<'c> {
    checker: &'c mut Checker,
    /// How many more bytes the values may grow to.
    left: usize,
}

impl Replacer<'_> {
    /// Replaces the specifiers in `value`. `instance`: `None` in what names the instances.
    fn value(&mut self, at: &At<'_>, value: &mut Node, instance: Option<&str>) {
        match value {
            Node::Text(text) if text.contains('%') => match replaced(text, instance) {
                Ok(new) if self.charge(at, new.len()) => *text = new,
                Ok(_) => {}
                Err(bad) => {
                    let label = "`%` begins a specifier";
                    self.checker.fault(at, bad.message, label, bad.help);
                }
            },
            Node::List(items) => {
                for (nth, item) in items.iter_mut().enumerate() {
                    self.value(&at.item(nth), item, instance);
                }
            }
            Node::Map(pairs) => {
                for (nth, (key, value)) in pairs.iter_mut().enumerate() {
                    let key = key_text(key);
                    self.value(&at.key(&key, nth), value, instance);
                }
            }
            _ => {}
        }
    }

    /// Whether the values may grow by so much.
    fn charge(&mut self, at: &At<'_>, bytes: usize) -> bool {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return true;
        }
        let message = "the file grows too large when its specifiers are replaced";
        self.checker
            .fault(at, message, "`%i` repeats too much here", None);
        false
    }

    /// Sites cannot share a root.
    fn differs_by_instance(&mut self, at: &At<'_>, root: &Node) {
        let Node::Text(text) = root else { return };
        if text.starts_with('/') && !text.replace("%%", "").contains("%i") {
            let help = format!("write `{}/%i`", text.trim_end_matches('/'));
            self.checker.fault(
                at,
                "all sites of the template would have the same root",
                "expected `%i`, the instance's name, in it",
                Some(help),
            );
        }
    }
}

/// `text` with its specifiers replaced.
pub(super) fn replaced(text: &str, instance: Option<&str>) -> Result<String, BadWord> {
    let (mut new, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('%') {
        new.push_str(before);
        let mut after = after.chars();
        match (after.next(), instance) {
            (Some('%'), _) => new.push('%'),
            (Some('i'), Some(instance)) => new.push_str(instance),
            (specifier, _) => return Err(unknown(specifier)),
        }
        rest = after.as_str();
    }
    new.push_str(rest);
    Ok(new)
}

fn unknown(specifier: Option<char>) -> BadWord {
    let found = quoted(&specifier.map_or("%".to_owned(), |c| format!("%{c}")));
    let (message, help) = match specifier {
        Some('i') => (
            "`%i` has no meaning here".to_owned(),
            "write the names out, or a pattern such as `/srv/customers/*`",
        ),
        Some(_) => (
            format!("there is no specifier {found}"),
            "write `%i` for the instance's name, and `%%` for a percent sign",
        ),
        None => (
            format!("{found} is not a whole specifier"),
            "write `%%` for a percent sign",
        ),
    };
    BadWord {
        message,
        help: Some(help.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_are_replaced_once() {
        for (text, expected) in [
            ("/srv/%i", Ok("/srv/a%i")),
            ("%i%i", Ok("a%ia%i")),
            ("100%% %%i", Ok("100% %i")),
            ("", Ok("")),
            ("%", Err("`%` is not a whole specifier")),
            ("%%%", Err("`%` is not a whole specifier")),
            ("%I", Err("there is no specifier `%I`")),
            ("%ü", Err("there is no specifier `%ü`")),
        ] {
            let found = replaced(text, Some("a%i")).map_err(|bad| bad.message);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
        }
        assert!(replaced("/srv/%i", None).is_err());
    }
}
