//! The bind lines of one jail → the keys of its manifest.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::draft::{Draft, DraftItem, DraftMount};
use super::fstab::Bind;
use super::source_properties::{SourceKind, SourceProperties, look};
use crate::base::HostPath;
use crate::manifest::{Access, Entry, Pattern, Presets, Request, Wanted};

/// One line, with what it mounts.
struct BindLine<'b> {
    bind: &'b Bind,
    /// Where inside, if that is another path than on the host.
    target: Option<String>,
    look: SourceProperties,
}

/// Adds what the lines `binds` mount in the jail at `root`: presets where they are what a preset
/// brings, and else as they are.
pub(super) fn add(draft: &mut Draft, root: &HostPath, binds: &[&Bind], presets: &Presets) {
    let mut lines = visible(draft, root, binds);
    draft.found.push(summary(&lines));
    for BindLine { bind, .. } in lines.iter().filter(|line| !line.bind.userspace.is_empty()) {
        draft.remarks.push(format!(
            "{}: {}: what fstab told systemd or mount(8) besides is not in a manifest; units are named under `services`, or \
             order mountjail.service after them.",
            bind.place,
            bind.userspace.join(", ")
        ));
    }
    for name in draft.presets.clone() {
        lines.retain(|line| {
            !entries(presets, &name)
                .iter()
                .any(|entry| brings(entry, line))
        });
    }
    while let Some(name) = best(presets, draft, &lines) {
        lines.retain(|line| {
            !entries(presets, &name)
                .iter()
                .any(|entry| brings(entry, line))
        });
        draft.presets.push(name);
    }
    for line in &lines {
        line.say(draft);
    }
}

/// One line a target: a later one covers an earlier one.
fn visible<'b>(draft: &mut Draft, root: &HostPath, binds: &[&'b Bind]) -> Vec<BindLine<'b>> {
    let mut last: BTreeMap<&HostPath, &Bind> = BTreeMap::new();
    last.extend(binds.iter().map(|bind| (&bind.target, *bind)));
    let mut lines = vec![];
    for bind in binds {
        let covering = last[&bind.target];
        if covering.place == bind.place {
            let inside = Path::new("/").join(bind.target.below(root).unwrap_or(Path::new("")));
            let target =
                (inside != bind.source.as_path()).then(|| inside.to_string_lossy().into_owned());
            lines.push(BindLine {
                bind,
                target,
                look: look(bind.source.as_path()),
            });
        } else if covering.source != bind.source {
            draft.remarks.push(format!(
                "{}: {} covers it, so it is left out.",
                bind.place, covering.place
            ));
        }
    }
    lines
}

fn summary(lines: &[BindLine<'_>]) -> String {
    let places: Vec<_> = lines.iter().map(|line| line.bind.place.as_str()).collect();
    match places.as_slice() {
        [only] => format!("The bind line {only}: only one line leads here; is it a jail?"),
        [first, .., last] => format!(
            "{} bind lines, from {first} to {last}; once the site is up, fstab can do without them.",
            places.len()
        ),
        [] => String::new(),
    }
}

/// What the preset asks for, with all that it includes. One with mistakes brings nothing.
fn entries(presets: &Presets, name: &str) -> Vec<Arc<Entry>> {
    presets
        .entries(name)
        .and_then(Result::ok)
        .unwrap_or_default()
}

/// The preset that stands for most of `lines`: those have all that it must have itself, and not
/// just one of several things that it could bring.
fn best(presets: &Presets, draft: &Draft, lines: &[BindLine<'_>]) -> Option<String> {
    let fits = |name: &str| {
        let entries = entries(presets, name);
        let own: Vec<_> = entries
            .iter()
            .filter(|entry| entry.origin.presets.len() == 1)
            .collect();
        let brought = |entry: &&Arc<Entry>| lines.iter().any(|line| brings(entry, line));
        let all = own
            .iter()
            .filter(|entry| !is_optional(&entry.request))
            .all(&brought);
        let count = own.iter().filter(|entry| brought(entry)).count();
        let paths = own
            .iter()
            .filter(|entry| names_paths(&entry.request))
            .count();
        (all && count > 0 && count >= paths.min(2)).then_some(count)
    };
    let names = presets
        .names()
        .filter(|name| !draft.presets.iter().any(|known| known == name));
    let fitting = names.filter_map(|name| Some((fits(name)?, name)));
    fitting
        .min_by_key(|(count, name)| (usize::MAX - count, *name))
        .map(|(_, name)| name.to_owned())
}

fn names_paths(request: &Request) -> bool {
    !matches!(request, Request::User(_) | Request::NameService(_))
}

fn is_optional(request: &Request) -> bool {
    match request {
        Request::Device(wanted) | Request::Etc(wanted) | Request::User(wanted) => wanted.optional,
        Request::Program(wanted) | Request::Library(wanted) => wanted.optional,
        Request::Mount(mount) => mount.sources.optional,
        // The modules that name services need come along with them.
        Request::NameService(_) => true,
    }
}

/// Whether `entry` mounts what `line` mounts, with all that a process inside could do with it.
fn brings(entry: &Entry, line: &BindLine<'_>) -> bool {
    let source = &line.bind.source;
    let is = |base: &str, wanted: &Wanted<String>| {
        wanted
            .any_of
            .iter()
            .any(|name| source.as_path() == Path::new(base).join(name))
    };
    let data = line.is_read_only() && !line.executable() && !line.setuid();
    line.target.is_none()
        && !line.bind.recursive
        && match &entry.request {
            Request::Device(wanted) => is("/dev", wanted),
            Request::Etc(wanted) => data && is("/etc", wanted),
            Request::Program(wanted) | Request::Library(wanted) => {
                line.is_read_only() && !line.setuid() && matches_any(wanted, source)
            }
            Request::Mount(mount) => {
                mount.target.is_none()
                    && (line.is_read_only() || mount.access == Access::ReadWrite)
                    && (!line.executable() || mount.executable == Some(true))
                    && (!line.setuid() || mount.setuid == Some(true))
                    && matches_any(&mount.sources, source)
            }
            Request::User(_) | Request::NameService(_) => false,
        }
}

fn matches_any(wanted: &Wanted<Pattern>, path: &HostPath) -> bool {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::new()
    };
    wanted.any_of.iter().any(|pattern| {
        let glob = || glob::Pattern::new(&pattern.to_string()).ok();
        pattern.path() == path
            || pattern.is_glob()
                && glob().is_some_and(|glob| glob.matches_path_with(path.as_path(), options))
    })
}

impl BindLine<'_> {
    /// A device node works the same on a read-only mount.
    fn is_read_only(&self) -> bool {
        self.bind.read_only || self.look.kind == SourceKind::Device
    }

    fn executable(&self) -> bool {
        self.look.code && !self.bind.noexec
    }

    fn setuid(&self) -> bool {
        self.look.setuid && !self.bind.nosuid
    }

    /// Puts the line under the manifest's key for it.
    fn say(&self, draft: &mut Draft) {
        let source = self.bind.source.to_string();
        let plain =
            self.target.is_none() && !self.bind.recursive && self.is_read_only() && !self.setuid();
        let below = |base: &str| source.strip_prefix(base).map(DraftItem::new);
        match (plain, self.look.kind) {
            (true, SourceKind::Program) if self.executable() => {
                draft.programs.push(DraftItem::new(source))
            }
            (true, SourceKind::Library) if self.executable() => {
                draft.libraries.push(DraftItem::new(source))
            }
            (true, SourceKind::Device) if source.starts_with("/dev/") => {
                draft.devices.extend(below("/dev/"));
            }
            (true, SourceKind::File | SourceKind::Directory)
                if !self.executable() && source.starts_with("/etc/") =>
            {
                draft.etc.extend(below("/etc/"));
            }
            _ => self.mount(draft),
        }
    }

    fn mount(&self, draft: &mut Draft) {
        let Bind { place, source, .. } = self.bind;
        let directory = self.look.kind == SourceKind::Directory;
        let mount = DraftMount {
            source: glob::Pattern::escape(&source.to_string()),
            target: self.target.clone(),
            writable: !self.is_read_only(),
            recursive: self.bind.recursive && directory,
            optional: self.look.kind == SourceKind::Missing,
            executable: self.executable(),
            devices: self.look.devices && !self.bind.nodev,
            setuid: self.setuid(),
        };
        let mut remark = |text: String| draft.remarks.push(format!("{place}: {text}"));
        if mount.optional {
            remark(format!(
                "{source} is not on this host now, so it is optional."
            ));
        }
        if mount.writable {
            remark(format!(
                "{source} is writable, as there; without `access: read-write` the site can only read it."
            ));
        }
        if mount.recursive && self.bind.read_only {
            remark(format!(
                "what is mounted below {source} is read-only now as well; mount(8) leaves it writable."
            ));
        }
        if *source == HostPath::new("/dev").unwrap_or_else(|_| HostPath::slash()) {
            remark("all of /dev is more than a jail needs: `presets: [base]` has null, zero, random, urandom, full.".to_owned());
        }
        if mount.setuid {
            remark(format!(
                "setuid programs of {source} keep their bits, as there."
            ));
        }
        draft.mounts.push(mount);
    }
}
