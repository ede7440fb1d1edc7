//! The items of `directories` and `tmpfs`: what a site has for itself.

use std::borrow::Cow;

use super::check::{At, Field};
use super::diagnostic::quoted;
use super::entries::{DirectoryRequest, Request};
use super::grammar_keys::{DIRECTORY_KEYS, TMPFS_KEYS};
use super::items::ItemChecker;
use super::node::Node;
use super::words;
use crate::base::{FileSystem, JailPath, STICKY, bytes};

/// The mode of a directory whose line names none.
const PLAIN: u32 = 0o755;

impl ItemChecker<'_, '_> {
    /// An item of `directories`, with its path.
    pub(super) fn directory(&mut self, at: &At<'_>, node: &Node) -> Option<(JailPath, Request)> {
        let (fields, path) = self.place(at, node, "path", &DIRECTORY_KEYS);
        let before = self.checker.faults.len();
        let mut request = DirectoryRequest {
            path: path?,
            user: None,
            group: None,
            mode: PLAIN,
        };
        for field in &fields {
            let at = at.key(field.name, field.nth);
            match field.name {
                "user" => request.user = self.login(&at, field.value),
                "group" => request.group = self.group(&at, field.value),
                "mode" => request.mode = self.mode(&at, field.value).unwrap_or(PLAIN),
                _ => {}
            }
        }
        let sound = self.checker.faults.len() == before;
        sound.then(|| (request.path.clone(), Request::Directory(request)))
    }

    /// An item of `tmpfs`, with its mount point.
    pub(super) fn tmpfs(&mut self, at: &At<'_>, node: &Node) -> Option<(JailPath, Request)> {
        let (fields, target) = self.place(at, node, "target", &TMPFS_KEYS);
        let target = target?;
        let before = self.checker.faults.len();
        let (mut size, mut mode) = (None, STICKY);
        for field in &fields {
            let at = at.key(field.name, field.nth);
            match field.name {
                "size" => size = self.size(&at, field.value),
                "mode" => mode = self.mode(&at, field.value).unwrap_or(STICKY),
                _ => {}
            }
        }
        let request = Request::FileSystem(target.clone(), FileSystem::Tmpfs { size, mode });
        (self.checker.faults.len() == before).then_some((target, request))
    }

    /// The fields of an item, and the path inside that it is about: the item itself, or the value
    /// of `key`.
    fn place<'n>(
        &mut self,
        at: &At<'_>,
        node: &'n Node,
        key: &'static str,
        keys: &[&'static str],
    ) -> (Vec<Field<'n>>, Option<JailPath>) {
        let Node::Map(pairs) = node else {
            return (vec![], self.path_inside(at, node));
        };
        let fields = self.checker.fields(at, pairs, keys);
        let Some(field) = fields.iter().find(|field| field.name == key) else {
            let label = format!("expected `{key}` in this item");
            let message = format!("the item has no `{key}`");
            self.checker.fault(at, message, label, None);
            return (fields, None);
        };
        let path = self.path_inside(&at.key(key, field.nth), field.value);
        (fields, path)
    }

    fn path_inside(&mut self, at: &At<'_>, node: &Node) -> Option<JailPath> {
        let expected = "an absolute path inside the jail";
        let text = self.checker.text(at, node, expected)?;
        let path = self.path(at, text, JailPath::new(text))?;
        if path == JailPath::slash() {
            let message = "this is the root itself";
            let label = "expected a directory below it";
            self.checker.fault(at, message, label, None);
            return None;
        }
        Some(path)
    }

    fn group(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
        self.word(at, node, "a group such as `www-data`", words::group)
    }

    fn mode(&mut self, at: &At<'_>, node: &Node) -> Option<u32> {
        let expected = "a mode in quotes, such as \"0750\"";
        let text = self.checker.text(at, node, expected)?;
        let is_octal =
            (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal);
        if mode.is_none() {
            let label = format!(
                "expected three or four octal digits, found {}",
                quoted(text)
            );
            self.checker.fault(at, "this is not a mode", label, None);
        }
        mode
    }

    fn size(&mut self, at: &At<'_>, node: &Node) -> Option<u64> {
        let expected = "a size such as `64M`";
        let text = match node {
            Node::Int(bytes) => Cow::from(bytes.to_string()),
            _ => Cow::from(self.checker.text(at, node, expected)?),
        };
        let size = bytes(&text);
        if size.is_none() {
            let label = format!(
                "expected bytes, or a number with k, M or G, found {}",
                quoted(&text)
            );
            self.checker.fault(at, "this is not a size", label, None);
        }
        size
    }
}
