//! The keys of a manifest and of a preset: from a tree to what it asks for.

use super::check::{At, Checker, Field, did_you_mean, found};
use super::diagnostic::quoted;
use super::entries::{Access, MountRequest, Pattern, Request, Wanted};
use super::locate::{self, Part, Step};
use super::node::Node;
use super::words::{self, BadWord};
use crate::base::{HostPath, JailPath};

pub(super) const SITE_KEYS: [&str; 10] = [
    "root",
    "presets",
    "devices",
    "etc",
    "programs",
    "libraries",
    "users",
    "nss",
    "mounts",
    "services",
];
pub(super) const PRESET_KEYS: [&str; 9] = [
    "description",
    "presets",
    "devices",
    "etc",
    "programs",
    "libraries",
    "users",
    "nss",
    "mounts",
];
pub(super) const MOUNT_KEYS: [&str; 9] = [
    "source",
    "any_of",
    "target",
    "access",
    "recursive",
    "optional",
    "executable",
    "devices",
    "setuid",
];
pub(super) const NAME_KEYS: [&str; 3] = ["name", "any_of", "optional"];
pub(super) const PATH_KEYS: [&str; 3] = ["path", "any_of", "optional"];

/// Which of the two kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Site,
    Preset,
}

/// A file's contents, before its presets are looked up.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub root: Option<HostPath>,
    pub description: Option<String>,
    pub presets: Vec<Include>,
    pub lines: Vec<Line>,
    pub services: Vec<String>,
}

/// One item of `presets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Include {
    pub name: String,
    /// Its place in the tree.
    pub steps: Vec<usize>,
    /// `presets[1]`
    pub key: String,
}

/// One item that asks for something.
#[derive(Debug)]
pub(super) struct Line {
    pub request: Request,
    /// `mounts[3]`
    pub key: String,
    /// The item on one line.
    pub text: String,
}

/// Checks a whole tree. `text` is what it was read from.
pub(super) fn draft(tree: &Node, text: &str, kind: Kind, checker: &mut Checker) -> Draft {
    let mut file = File {
        text,
        checker,
        draft: Draft::default(),
    };
    match tree {
        Node::Map(pairs) => file.top(pairs, kind),
        Node::Null => {
            let help = match kind {
                Kind::Site => "a site needs at least `root: /the/directory`",
                Kind::Preset => "a preset needs at least `description: one line`",
            };
            file.checker.fault(
                &At::TOP,
                "the file is empty",
                "expected keys and values",
                Some(help.to_owned()),
            );
        }
        other => {
            let label = format!(
                "expected keys and values such as `root: /srv/www/site1`, found {}",
                found(other)
            );
            file.checker
                .fault(&At::TOP, "the file is not a mapping", label, None);
        }
    }
    file.draft
}

struct File<'t, 'c> {
    text: &'t str,
    checker: &'c mut Checker,
    draft: Draft,
}

/// A parser of one name or path.
type Word<'t, 'c, T> = fn(&mut File<'t, 'c>, &At<'_>, &Node) -> Option<T>;

impl<'t, 'c> File<'t, 'c> {
    fn top(&mut self, pairs: &[(Node, Node)], kind: Kind) {
        let (known, required): (&[_], _) = match kind {
            Kind::Site => (&SITE_KEYS, "root"),
            Kind::Preset => (&PRESET_KEYS, "description"),
        };
        let fields = self.checker.fields(&At::TOP, pairs, known);
        for field in &fields {
            self.section(&At::TOP.key(field.name, field.nth), field);
        }
        if !pairs
            .iter()
            .any(|(key, _)| *key == Node::Text(required.to_owned()))
        {
            let help = match kind {
                Kind::Site => "add `root: /the/directory`, the jail's directory on the host",
                Kind::Preset => "add `description: what it is for`",
            };
            self.checker.fault(
                &At::TOP,
                format!("the key `{required}` is missing"),
                format!("expected `{required}` among these keys"),
                Some(help.to_owned()),
            );
        }
    }

    fn section(&mut self, at: &At<'_>, field: &Field<'_>) {
        let value = field.value;
        match field.name {
            "root" => self.draft.root = self.root(at, value),
            "description" => self.draft.description = self.description(at, value),
            "presets" => self.presets(at, value),
            "services" => self.services(at, value),
            "nss" => self.databases(at, value),
            "devices" => self.items(
                at,
                value,
                "device names",
                &NAME_KEYS,
                Self::device,
                Request::Device,
            ),
            "etc" => self.items(
                at,
                value,
                "names under /etc",
                &NAME_KEYS,
                Self::etc,
                Request::Etc,
            ),
            "users" => self.items(
                at,
                value,
                "login names",
                &NAME_KEYS,
                Self::login,
                Request::User,
            ),
            "programs" => self.items(
                at,
                value,
                "paths",
                &PATH_KEYS,
                Self::pattern,
                Request::Program,
            ),
            "libraries" => self.items(
                at,
                value,
                "paths",
                &PATH_KEYS,
                Self::pattern,
                Request::Library,
            ),
            "mounts" => self.mounts(at, value),
            other => unreachable!("`fields` gave the key {other}, which is not in the grammar"),
        }
    }

    fn root(&mut self, at: &At<'_>, node: &Node) -> Option<HostPath> {
        let text = self
            .checker
            .text(at, node, "an absolute path such as `/srv/www/site1`")?;
        self.path(at, text, HostPath::new(text))
    }

    fn description(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
        let text = self
            .checker
            .text(at, node, "one line that says what the preset is for")?
            .trim();
        if text.is_empty() || text.contains(['\n', '\r', '\0']) {
            self.checker.fault(
                at,
                "a description is one line",
                "expected one line of text",
                None,
            );
            return None;
        }
        Some(text.to_owned())
    }

    fn presets(&mut self, at: &At<'_>, node: &Node) {
        for (nth, item) in self
            .checker
            .list(at, node, "preset names")
            .iter()
            .enumerate()
        {
            let at = at.item(nth);
            if let Some(name) = self.checker.text(&at, item, "a preset's name") {
                let include = Include {
                    name: name.to_owned(),
                    steps: at.steps(),
                    key: at.path(),
                };
                self.draft.presets.push(include);
            }
        }
    }

    fn services(&mut self, at: &At<'_>, node: &Node) {
        for (nth, item) in self.checker.list(at, node, "unit names").iter().enumerate() {
            let unit = self.word(
                &at.item(nth),
                item,
                "a unit's name such as `php8.2-fpm.service`",
                words::unit,
            );
            self.draft.services.extend(unit);
        }
    }

    fn databases(&mut self, at: &At<'_>, node: &Node) {
        for (nth, item) in self
            .checker
            .list(at, node, "databases of nsswitch.conf")
            .iter()
            .enumerate()
        {
            let at = at.item(nth);
            if let Some(name) = self.word(&at, item, "a database such as `hosts`", words::database)
            {
                let (key, text) = (at.path(), name.clone());
                self.draft.lines.push(Line {
                    request: Request::NameService(name),
                    key,
                    text,
                });
            }
        }
    }

    fn items<T: ToString>(
        &mut self,
        at: &At<'_>,
        node: &Node,
        what: &str,
        keys: &[&'static str],
        word: Word<'t, 'c, T>,
        request: fn(Wanted<T>) -> Request,
    ) {
        for (nth, item) in self.checker.list(at, node, what).iter().enumerate() {
            let at = at.item(nth);
            let wanted = match item {
                Node::Map(pairs) => {
                    let fields = self.checker.fields(&at, pairs, keys);
                    self.wanted(&at, &fields, keys[0], word)
                }
                _ => word(self, &at, item).map(|one| Wanted {
                    any_of: vec![one],
                    optional: false,
                }),
            };
            if let Some(wanted) = wanted {
                let (key, text) = (at.path(), one_line(&wanted));
                self.draft.lines.push(Line {
                    request: request(wanted),
                    key,
                    text,
                });
            }
        }
    }

    /// What `name`/`path`/`source`, `any_of` and `optional` of an item say together.
    fn wanted<T>(
        &mut self,
        at: &At<'_>,
        fields: &[Field<'_>],
        name: &'static str,
        word: Word<'t, 'c, T>,
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
        word: Word<'t, 'c, T>,
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

    fn mounts(&mut self, at: &At<'_>, node: &Node) {
        for (nth, item) in self.checker.list(at, node, "mounts").iter().enumerate() {
            let at = at.item(nth);
            let request = match item {
                Node::Map(pairs) => self.mount(&at, pairs),
                _ => self.pattern(&at, item).map(|one| {
                    plain_mount(Wanted {
                        any_of: vec![one],
                        optional: false,
                    })
                }),
            };
            let Some(request) = request else { continue };
            if self.covers_the_root(&at, &request) {
                continue;
            }
            let (key, text) = (at.path(), one_line(&request.sources));
            self.draft.lines.push(Line {
                request: Request::Mount(request),
                key,
                text,
            });
        }
    }

    fn mount(&mut self, at: &At<'_>, pairs: &[(Node, Node)]) -> Option<MountRequest> {
        let before = self.checker.faults.len();
        let fields = self.checker.fields(at, pairs, &MOUNT_KEYS);
        let sources = self.wanted(at, &fields, "source", Self::pattern);
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
            let help = "mount the directory that holds the files".to_owned();
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

    fn device(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
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
        let steps: Vec<_> = at.steps().into_iter().map(Step::Nth).collect();
        let offset = locate::offset(self.text, &steps, Part::Value);
        offset.is_some_and(|offset| self.text[offset..].starts_with("null"))
    }

    fn etc(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
        self.word(at, node, "a name under /etc such as `hosts`", words::etc)
    }

    fn login(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
        self.word(at, node, "a login name such as `www-data`", words::login)
    }

    fn word(
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

    fn pattern(&mut self, at: &At<'_>, node: &Node) -> Option<Pattern> {
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

    fn path<T>(
        &mut self,
        at: &At<'_>,
        text: &str,
        path: Result<T, crate::base::BadPath>,
    ) -> Option<T> {
        path.map_err(|why| {
            let help = match why {
                crate::base::BadPath::NotAbsolute if text.starts_with('~') => {
                    Some("write the home directory out".to_owned())
                }
                crate::base::BadPath::NotAbsolute => Some("paths begin with `/`".to_owned()),
                crate::base::BadPath::ParentComponent => {
                    Some("write the path without `..`".to_owned())
                }
                _ => None,
            };
            self.checker.fault(
                at,
                why.to_string(),
                format!("expected an absolute path, found {}", quoted(text)),
                help,
            );
        })
        .ok()
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

/// The item on one line: its name, or its alternatives.
fn one_line<T: ToString>(wanted: &Wanted<T>) -> String {
    wanted
        .any_of
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" | ")
}
