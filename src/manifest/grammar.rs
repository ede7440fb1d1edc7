//! The keys of manifests, templates of sites, presets and the defaults: from a tree to what it asks
//! for.

use super::check::{At, Checker, Field, did_you_mean, found};
use super::diagnostic::quoted;
use super::entries::{CodeName, Request, Scope, Wanted};
use super::grammar_keys::{
    DEFAULTS_KEYS, NAME_KEYS, PATH_KEYS, PRESET_KEYS, SITE_KEYS, TEMPLATE_KEYS,
};
use super::instances::{InstancePattern, Instances};
use super::items::{ItemChecker, ParseWord};
use super::node::Node;
use super::words;
use crate::base::{FileSystem, HostPath, JailPath};

/// Which kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar<'i> {
    Site,
    /// A template of sites, which is read for the instance of this name.
    Template(&'i str),
    Preset,
    /// The defaults of all sites.
    Defaults,
}

impl Grammar<'_> {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Site => &SITE_KEYS,
            Self::Template(_) => &TEMPLATE_KEYS,
            Self::Preset => &PRESET_KEYS,
            Self::Defaults => &DEFAULTS_KEYS,
        }
    }

    /// The keys that the file must have, and what to do where one is missing.
    fn required(self) -> &'static [(&'static str, &'static str)] {
        const ROOT: &str = "add `root: /the/directory`, the jail's directory on the host";
        match self {
            Self::Site => &[("root", ROOT)],
            Self::Template(_) => &[
                (
                    "root",
                    "add `root: /the/directory/%i`; `%i` is the instance's name",
                ),
                (
                    "instances",
                    "add `instances: [NAME, NAME]`, or a pattern such as \
                     `instances: /srv/customers/*`",
                ),
            ],
            Self::Preset => &[("description", "add `description: what it is for`")],
            Self::Defaults => &[],
        }
    }

    /// The remedy for a key that other kinds of files have; `None`: none is known.
    fn help_for(self, key: &str) -> Option<&'static str> {
        match (self, key) {
            (Self::Site, "instances") => {
                Some("name the file NAME@.yaml: then it is a template of sites")
            }
            (Self::Defaults, "root" | "instances") => Some("write it into the manifests of sites"),
            _ => None,
        }
    }
}

/// A file's contents, before its presets are looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct FileContents {
    pub root: Option<HostPath>,
    pub description: Option<String>,
    pub presets: Vec<Include>,
    pub lines: Vec<RequestLine>,
    pub services: Vec<String>,
    /// `services` has mistakes.
    pub services_are_wrong: bool,
    pub scope: Option<ScopeLine>,
    /// Those of a template of sites.
    pub instances: Option<Instances>,
}

/// The value of `scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScopeLine {
    pub scope: Scope,
    /// Which pair of the file it is.
    pub nth: usize,
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
#[derive(Clone, Debug)]
pub(super) struct RequestLine {
    pub request: Request,
    /// `mounts[3]`
    pub key: String,
    /// The item on one line.
    pub text: String,
}

/// Checks a whole tree, which was read from `text`.
pub(super) fn contents(
    tree: &Node,
    text: &str,
    grammar: Grammar<'_>,
    checker: &mut Checker,
) -> FileContents {
    let mut file = FileChecker {
        items: ItemChecker { text, checker },
        contents: FileContents::default(),
    };
    match tree {
        Node::Map(pairs) => file.top(pairs, grammar),
        Node::Null if grammar == Grammar::Defaults => {}
        Node::Null => {
            let help = match grammar {
                Grammar::Template(_) => "a template needs at least `root` and `instances`",
                Grammar::Preset => "a preset needs at least `description: one line`",
                Grammar::Site | Grammar::Defaults => "a site needs at least `root: /the/directory`",
            };
            file.items.checker.fault(
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
            file.items
                .checker
                .fault(&At::TOP, "the file is not a mapping", label, None);
        }
    }
    file.contents
}

/// A file that is being checked.
struct FileChecker<'t, 'c> {
    items: ItemChecker<'t, 'c>,
    contents: FileContents,
}

impl<'t, 'c> FileChecker<'t, 'c> {
    fn top(&mut self, pairs: &[(Node, Node)], grammar: Grammar<'_>) {
        let fields = self.items.checker.fields(&At::TOP, pairs, grammar.keys());
        for fault in &mut self.items.checker.faults {
            if let Some(help) = grammar.help_for(&fault.text.key) {
                fault.text.help = Some(help.to_owned());
            }
        }
        for field in &fields {
            self.section(&At::TOP.key(field.name, field.nth), field);
        }
        for (required, help) in grammar.required() {
            let is_there = pairs
                .iter()
                .any(|(key, _)| *key == Node::Text((*required).to_owned()));
            if !is_there {
                self.items.checker.fault(
                    &At::TOP,
                    format!("the key `{required}` is missing"),
                    format!("expected `{required}` among these keys"),
                    Some((*help).to_owned()),
                );
            }
        }
    }

    fn section(&mut self, at: &At<'_>, field: &Field<'_>) {
        let value = field.value;
        match field.name {
            "root" => self.contents.root = self.root(at, value),
            "description" => self.contents.description = self.description(at, value),
            "presets" => self.presets(at, value),
            "services" => self.services(at, value),
            "scope" => {
                let scope = self.scope(at, value);
                self.contents.scope = scope.map(|scope| ScopeLine {
                    scope,
                    nth: field.nth,
                });
            }
            "nss" => self.databases(at, value),
            "instances" => self.contents.instances = Some(self.instances(at, value)),
            "devices" => {
                let items = self.items.checker.list(at, value, "device names");
                self.items(at, items, &NAME_KEYS, ItemChecker::device, Request::Device);
            }
            "etc" => {
                let items = self.items.checker.list(at, value, "names under /etc");
                self.items(at, items, &NAME_KEYS, ItemChecker::etc, Request::Etc);
            }
            "users" => {
                let items = self.items.checker.list(at, value, "login names");
                self.items(at, items, &NAME_KEYS, ItemChecker::login, Request::User);
            }
            "programs" => self.code(at, value, Request::Program),
            "libraries" => self.code(at, value, Request::Library),
            "mounts" => self.mounts(at, value),
            "directories" => self.own(at, value, "directories", ItemChecker::directory),
            "tmpfs" => self.own(at, value, "paths inside", ItemChecker::tmpfs),
            "proc" => self.proc(at, value),
            other => unreachable!("`fields` gave the key {other}, which is not in the grammar"),
        }
    }

    fn root(&mut self, at: &At<'_>, node: &Node) -> Option<HostPath> {
        let text =
            self.items
                .checker
                .text(at, node, "an absolute path such as `/srv/www/site1`")?;
        self.items.path(at, text, HostPath::new(text))
    }

    fn scope(&mut self, at: &At<'_>, node: &Node) -> Option<Scope> {
        let text = self.items.checker.text(at, node, "`host` or `services`")?;
        match text {
            "host" => Some(Scope::Host),
            "services" => Some(Scope::Services),
            _ => {
                let label = format!("expected `host` or `services`, found {}", quoted(text));
                let help = did_you_mean(text, &["host", "services"]);
                self.items
                    .checker
                    .fault(at, "there is no such scope", label, help);
                None
            }
        }
    }

    fn description(&mut self, at: &At<'_>, node: &Node) -> Option<String> {
        let text = self
            .items
            .checker
            .text(at, node, "one line that says what the preset is for")?
            .trim();
        if text.is_empty() || text.contains(['\n', '\r', '\0']) {
            self.items.checker.fault(
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
        let items = self.items.checker.list(at, node, "preset names");
        for (nth, item) in items.iter().enumerate() {
            let at = at.item(nth);
            if let Some(name) = self.items.checker.text(&at, item, "a preset's name") {
                self.contents.presets.push(Include {
                    name: name.to_owned(),
                    steps: at.steps(),
                    key: at.path(),
                });
            }
        }
    }

    fn services(&mut self, at: &At<'_>, node: &Node) {
        let expected = "a unit's name such as `php8.2-fpm.service`";
        let before = self.items.checker.faults.len();
        let items = self.items.checker.list(at, node, "unit names");
        for (nth, item) in items.iter().enumerate() {
            let unit = self.items.word(&at.item(nth), item, expected, words::unit);
            self.contents.services.extend(unit);
        }
        self.contents.services_are_wrong = self.items.checker.faults.len() > before;
    }

    /// A pattern, or a list of names and patterns.
    fn instances(&mut self, at: &At<'_>, node: &Node) -> Instances {
        let mut instances = Instances::default();
        if let Node::Text(text) = node
            && text.starts_with('/')
        {
            self.instance(at, node, &mut instances);
            return instances;
        }
        let items = self.items.checker.list(at, node, "names");
        for (nth, item) in items.iter().enumerate() {
            self.instance(&at.item(nth), item, &mut instances);
        }
        instances
    }

    fn instance(&mut self, at: &At<'_>, node: &Node, instances: &mut Instances) {
        let expected = "a name, or a pattern such as `/srv/customers/*`";
        if !matches!(node, Node::Text(text) if text.starts_with('/')) {
            let name = self.items.word(at, node, expected, words::instance);
            instances.names.extend(name);
            return;
        }
        let text = self.items.checker.text(at, node, expected);
        let path = text.and_then(|text| self.items.path(at, text, HostPath::new(text)));
        match path.map(InstancePattern::new) {
            Some(Ok(pattern)) => instances.patterns.push(pattern),
            Some(Err(bad)) => {
                let label = format!("expected {expected}");
                self.items.checker.fault(at, bad.message, label, bad.help);
            }
            None => {}
        }
    }

    fn databases(&mut self, at: &At<'_>, node: &Node) {
        let expected = "a database such as `hosts`";
        let items = self
            .items
            .checker
            .list(at, node, "databases of nsswitch.conf");
        for (nth, item) in items.iter().enumerate() {
            let at = at.item(nth);
            if let Some(name) = self.items.word(&at, item, expected, words::database) {
                self.add(&at, Request::NameService(name.clone()), name);
            }
        }
    }

    /// A list of programs or libraries.
    fn code(&mut self, at: &At<'_>, node: &Node, request: fn(Wanted<CodeName>) -> Request) {
        let items = self.items.checker.list(at, node, "paths");
        self.items(at, items, &PATH_KEYS, ItemChecker::code, request);
    }

    fn items<T: ToString>(
        &mut self,
        at: &At<'_>,
        items: &[Node],
        keys: &[&'static str],
        word: ParseWord<'t, 'c, T>,
        request: fn(Wanted<T>) -> Request,
    ) {
        for (nth, item) in items.iter().enumerate() {
            let at = at.item(nth);
            let wanted = match item {
                Node::Map(pairs) => {
                    let fields = self.items.checker.fields(&at, pairs, keys);
                    self.items.wanted(&at, &fields, keys[0], word)
                }
                _ => word(&mut self.items, &at, item).map(|one| Wanted {
                    any_of: vec![one],
                    optional: false,
                }),
            };
            if let Some(wanted) = wanted {
                let text = one_line(&wanted);
                self.add(&at, request(wanted), text);
            }
        }
    }

    fn mounts(&mut self, at: &At<'_>, node: &Node) {
        let items = self.items.checker.list(at, node, "mounts");
        for (nth, item) in items.iter().enumerate() {
            let at = at.item(nth);
            if let Some(request) = self.items.mount(&at, item) {
                let text = one_line(&request.sources);
                self.add(&at, Request::Mount(request), text);
            }
        }
    }

    /// A list of what the site has for itself.
    fn own(
        &mut self,
        at: &At<'_>,
        node: &Node,
        what: &str,
        parse: fn(&mut ItemChecker<'t, 'c>, &At<'_>, &Node) -> Option<(JailPath, Request)>,
    ) {
        let items = self.items.checker.list(at, node, what);
        for (nth, item) in items.iter().enumerate() {
            let at = at.item(nth);
            if let Some((path, request)) = parse(&mut self.items, &at, item) {
                self.add(&at, request, path.to_string());
            }
        }
    }

    fn proc(&mut self, at: &At<'_>, node: &Node) {
        if self.items.checker.flag(at, node) == Some(true) {
            let target = JailPath::normal("/proc".into());
            let request = Request::FileSystem(target, FileSystem::Proc);
            self.add(at, request, "true".to_owned());
        }
    }

    fn add(&mut self, at: &At<'_>, request: Request, text: String) {
        self.contents.lines.push(RequestLine {
            request,
            key: at.path(),
            text,
        });
    }
}

/// The item on one line: its name, or its alternatives.
fn one_line<T: ToString>(wanted: &Wanted<T>) -> String {
    let names: Vec<_> = wanted.any_of.iter().map(ToString::to_string).collect();
    names.join(" | ")
}
