//! The items of a manifest's lists: from a node to what it asks for.

use super::check::{At, Checker, Field, did_you_mean};
use super::diagnostic::quoted;
use super::entries::{Access, CodeName, MountRequest, Pattern, Wanted};
use super::grammar_keys::MOUNT_KEYS;
use super::locate::{self, PairPart, PathStep};
use super::node::Node;
use super::words::{self, BadWord};
use crate::base::{BadPath, HostPath, JailPath};

/// Checks items of the file that has `text`.
pub(super) struct ItemChecker<'t, 'c> {
    pub text: &'t str,
    pub checker: &'c mut Checker,
}

/// A parser of one name or path.
pub(super) type ParseWord<'t, 'c, T> = fn(&mut ItemChecker<'t, 'c>, &At<'_>, &Node) -> Option<T>;

impl<'t, 'c> ItemChecker<'t, 'c> {
    /// The alternatives of an item, from its `name`/`path`/`source`, `any_of` and `optional`.
    pub(super) fn wanted<T>(
        &mut self,
        at: &At<'_>,
        fields: &[Field<'_>],
        name: &'static str,
        word: ParseWord<'t, 'c, T>,
    ) -> Option<Wanted<T>> {
        let get = |name| fields.iter().find(|field| field.name == name);
        let optional = match get("optional") {
            Some(field) => self
                .checker
                .flag(&at.key(field.name, field.nth), field.value),
            None => Some(false),
        };
        let any_of = match (get(name), get("any_of")) {
            (Some(one), None) => word(self, &at.key(name, one.nth), one.value).map(|one| vec![one]),
            (None, Some(several)) => {
                self.alternatives(&at.key("any_of", several.nth), several.value, word)
            }
            (Some(_), Some(second)) => {
                let at = at.key("any_of", second.nth);
                self.checker.fault(
                    &at,
                    format!("`{name}` and `any_of` exclude each other"),
                    "one of the two is too many",
                    None,
                );
                None
            }
            (None, None) => {
                let label = format!("expected `{name}` or `any_of` in this item");
                self.checker
                    .fault(at, format!("the item has no `{name}`"), label, None);
                None
            }
        };
        Some(Wanted {
            any_of: any_of?,
            optional: optional?,
        })
    }

    fn alternatives<T>(
        &mut self,
        at: &At<'_>,
        node: &Node,
        word: ParseWord<'t, 'c, T>,
    ) -> Option<Vec<T>> {
        let before = self.checker.faults.len();
        let items = self.checker.list(at, node, "alternatives");
        let words: Vec<_> = items
            .iter()
            .enumerate()
            .filter_map(|(nth, item)| word(self, &at.item(nth), item))
            .collect();
        let sound = self.checker.faults.len() == before;
        if words.is_empty() && sound {
            self.checker.fault(
                at,
                "there is no alternative in it",
                "expected at least one",
                None,
            );
        }
        (sound && !words.is_empty()).then_some(words)
    }

    /// An item of `mounts`.
    pub(super) fn mount(&mut self, at: &At<'_>, node: &Node) -> Option<MountRequest> {
        let request = match node {
            Node::Map(pairs) => self.mount_fields(at, pairs)?,
            _ => plain_mount(Wanted {
                any_of: vec![self.pattern(at, node)?],
                optional: false,
            }),
        };
        (!self.covers_the_root(at, &request)).then_some(request)
    }

    fn mount_fields(&mut self, at: &At<'_>, pairs: &[(Node, Node)]) -> Option<MountRequest> {
        let before = self.checker.faults.len();
        let fields = self.checker.fields(at, pairs, &MOUNT_KEYS);
        let word = match fields.iter().find(|field| field.name == "literal") {
            Some(field) if self.literal(at, field) => Self::literal_path,
            _ => Self::pattern,
        };
        let sources = self.wanted(at, &fields, "source", word);
        let mut request = plain_mount(sources.unwrap_or(Wanted {
            any_of: Vec::new(),
            optional: false,
        }));
        for field in &fields {
            let at = at.key(field.name, field.nth);
            match field.name {
                "target" => request.target = self.target(&at, field.value, &request.sources),
                "access" => request.access = self.access(&at, field.value).unwrap_or_default(),
                "recursive" => {
                    request.recursive = self.checker.flag(&at, field.value).unwrap_or_default();
                }
                "executable" => request.executable = self.checker.flag(&at, field.value),
                "devices" => request.devices = self.checker.flag(&at, field.value),
                "setuid" => request.setuid = self.checker.flag(&at, field.value),
                _ => {}
            }
        }
        (self.checker.faults.len() == before).then_some(request)
    }

    fn literal(&mut self, at: &At<'_>, field: &Field<'_>) -> bool {
        let at = at.key(field.name, field.nth);
        self.checker.flag(&at, field.value).unwrap_or_default()
    }

    fn target(&mut self, at: &At<'_>, node: &Node, sources: &Wanted<Pattern>) -> Option<JailPath> {
        let text = self
            .checker
            .text(at, node, "an absolute path inside the jail")?;
        let target = self.path(at, text, JailPath::new(text))?;
        if let Some(glob) = sources.any_of.iter().find(|source| source.is_glob()) {
            let label = format!(
                "the source {} may match more than one file",
                quoted(&glob.to_string())
            );
            let help = "mount the directory that holds the files; or say `literal: true`, if \
                        this is the name of one file"
                .to_owned();
            self.checker
                .fault(at, "a pattern has no single target", label, Some(help));
        }
        Some(target)
    }

    fn covers_the_root(&mut self, at: &At<'_>, request: &MountRequest) -> bool {
        let slash = |source: &Pattern| *source.path() == HostPath::slash();
        let covers = match &request.target {
            Some(target) => *target == JailPath::slash(),
            None => request.sources.any_of.iter().any(slash),
        };
        if covers {
            let help = "name a directory below the root as `target`".to_owned();
            self.checker.fault(
                at,
                "a mount on `/` would cover the whole jail",
                "its target is `/`",
                Some(help),
            );
        }
        covers
    }

    fn access(&mut self, at: &At<'_>, node: &Node) -> Option<Access> {
        let text = self.checker.text(at, node, "`read-only` or `read-write`")?;
        match text {
            "read-only" => Some(Access::ReadOnly),
            "read-write" => Some(Access::ReadWrite),
            _ => {
                let help = match text {
                    "ro" => Some("write `read-only`".to_owned()),
                    "rw" => Some("write `read-write`".to_owned()),
                    _ => did_you_mean(text, &["read-only", "read-write"]),
                };
                let label = format!(
                    "expected `read-only` or `read-write`, found {}",
                    quoted(text)
                );
                self.checker
                    .fault(at, "there is no such access", label, help);
                None
            }
        }
    }

    pub(super) fn device(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
        if *node == Node::Null && self.reads_null(at) {
            return Some("null".to_owned());
        }
        self.word(
            at,
            node,
            "a name under /dev such as `urandom`",
            words::device,
        )
    }

    /// Whether the text has the word `null` there, and not `~` or nothing.
    fn reads_null(&self, at: &At<'_>) -> bool {
        let steps: Vec<_> = at.steps().into_iter().map(PathStep::Nth).collect();
        let offset = locate::offset(self.text, &steps, PairPart::Value);
        offset.is_some_and(|offset| self.text[offset..].starts_with("null"))
    }

    pub(super) fn etc(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
        self.word(at, node, "a name under /etc such as `hosts`", words::etc)
    }

    pub(super) fn login(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
        self.word(at, node, "a login name such as `www-data`", words::login)
    }

    pub(super) fn word(
        &mut self,
        at: &At<'_>,
        node: &Node,
        expected: &str,
        check: fn(&str) -> Result<String, BadWord>,
    ) -> Option<String> {
        let text = self.checker.text(at, node, expected)?;
        match check(text) {
            Ok(word) => Some(word),
            Err(bad) => {
                let label = format!("expected {expected}, found {}", quoted(text));
                self.checker.fault(at, bad.message, label, bad.help);
                None
            }
        }
    }

    /// A path whose characters all stand for themselves.
    fn literal_path(&mut self, at: &At<'_>, node: &Node) -> Option<Pattern> {
        let text = self
            .checker
            .text(at, node, "an absolute path such as `/data[1]`")?;
        self.path(at, text, HostPath::new(text))
            .map(Pattern::literal)
    }

    /// A path or pattern, or a name without a slash.
    pub(super) fn code(&mut self, at: &At<'_>, node: &Node) -> Option<CodeName> {
        match node {
            Node::Text(text) if !text.is_empty() && !text.contains('/') => {
                let expected = "a path, or a name without `/`";
                self.word(at, node, expected, words::code)
                    .map(CodeName::Name)
            }
            _ => self.pattern(at, node).map(CodeName::Path),
        }
    }

    pub(super) fn pattern(&mut self, at: &At<'_>, node: &Node) -> Option<Pattern> {
        let text = self
            .checker
            .text(at, node, "an absolute path such as `/usr/share/fonts`")?;
        let pattern = Pattern::new(self.path(at, text, HostPath::new(text))?);
        if pattern.is_glob()
            && let Err(error) = glob::Pattern::new(text)
        {
            self.checker
                .fault(at, "this pattern cannot match", error.msg, None);
            return None;
        }
        Some(pattern)
    }

    pub(super) fn path<T>(
        &mut self,
        at: &At<'_>,
        text: &str,
        path: Result<T, BadPath>,
    ) -> Option<T> {
        let why = match path {
            Ok(path) => return Some(path),
            Err(why) => why,
        };
        let help = match why {
            BadPath::NotAbsolute if text.starts_with('~') => Some("write the home directory out"),
            BadPath::NotAbsolute => Some("paths begin with `/`"),
            BadPath::ParentComponent => Some("write the path without `..`"),
            _ => None,
        };
        let label = format!("expected an absolute path, found {}", quoted(text));
        let help = help.map(ToOwned::to_owned);
        self.checker.fault(at, why.to_string(), label, help);
        None
    }
}

fn plain_mount(sources: Wanted<Pattern>) -> MountRequest {
    MountRequest {
        sources,
        target: None,
        access: Access::ReadOnly,
        recursive: false,
        executable: None,
        devices: None,
        setuid: None,
    }
}
