//! The bind lines of one jail → the keys of its manifest.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::draft::{Draft, DraftItem, DraftMount};
use super::fstab::Bind;
use super::mount_options::remark_on_order;
use super::source_properties::{SourceKind, SourceProperties};
use crate::base::HostPath;
use crate::manifest::{Access, CodeName, Entry, MountRequest, Pattern, Presets, Request, Wanted};

/// A bind line, and what it mounts.
struct BindLine<'b> {
    bind: &'b Bind,
    /// The path inside, if it is not the same as on the host.
    target: Option<String>,
    source: SourceProperties,
}

/// Adds what the lines `binds` mount in the jail at `root`: presets for the lines that they cover,
/// and the other lines as they are.
pub(super) fn add(draft: &mut Draft, root: &HostPath, binds: &[&Bind], presets: &Presets) {
    let mut lines = visible(draft, root, binds);
    draft.found.push(summary(&lines));
    draft
        .remarks
        .extend(lines.iter().flat_map(remarks_on_options));

    for name in &draft.presets {
        remove_covered(&mut lines, presets, name);
    }
    while let Some(name) = best_preset(presets, draft, &lines) {
        remove_covered(&mut lines, presets, &name);
        draft.presets.push(name);
    }
    for line in &lines {
        line.add_to(draft);
    }
}

/// One line per target: a later one covers an earlier one.
fn visible<'b>(draft: &mut Draft, root: &HostPath, binds: &[&'b Bind]) -> Vec<BindLine<'b>> {
    let mut last: BTreeMap<&HostPath, &Bind> = BTreeMap::new();
    for bind in binds {
        last.insert(&bind.target, bind);
    }

    let mut lines = vec![];
    for bind in binds {
        let covering = last[&bind.target];
        if covering.place == bind.place {
            lines.push(BindLine::new(bind, root));
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
    match lines {
        [] => String::new(),
        [only] => {
            let place = &only.bind.place;
            format!("The bind line {place}: only one line leads here; is it a jail?")
        }
        [first, .., last] => {
            let are_units = lines.iter().any(|line| line.bind.place.contains(".mount:"));
            let afterwards = if are_units {
                "disable the units, so that the mounts are made once"
            } else {
                "fstab can do without them"
            };
            format!(
                "{} bind lines, from {} to {}; once the site is up, {afterwards}.",
                lines.len(),
                first.bind.place,
                last.bind.place
            )
        }
    }
}

/// The remarks about options that a manifest does not have.
fn remarks_on_options(line: &BindLine<'_>) -> Vec<String> {
    let Bind {
        place, order, lost, ..
    } = line.bind;
    let mut remarks = vec![];
    remarks.extend(remark_on_order(place, order));
    if !lost.is_empty() {
        let lost = lost.join(", ");
        remarks.push(format!(
            "{place}: {lost}: left out; a manifest has no such options."
        ));
    }
    remarks
}

/// Removes the lines that the preset brings.
fn remove_covered(lines: &mut Vec<BindLine<'_>>, presets: &Presets, name: &str) {
    let entries = entries(presets, name);
    lines.retain(|line| !entries.iter().any(|entry| brings(entry, line)));
}

/// The entries of the preset, with all that it includes. A preset with mistakes has none.
fn entries(presets: &Presets, name: &str) -> Vec<Arc<Entry>> {
    match presets.entries(name) {
        Some(Ok(entries)) => entries,
        _ => vec![],
    }
}

/// The preset that covers most of `lines`, among those that are right for them. If several cover
/// as many, the first by name.
fn best_preset(presets: &Presets, draft: &Draft, lines: &[BindLine<'_>]) -> Option<String> {
    let mut candidates = vec![];
    for name in presets.names() {
        let is_new = draft.presets.iter().all(|known| known != name);
        if is_new && let Some(covered) = covered_by(&entries(presets, name), lines) {
            candidates.push((Reverse(covered), name));
        }
    }
    let (_, best) = candidates.into_iter().min()?;
    Some(best.to_owned())
}

/// How many of the preset's own entries bring a line; `None`: the preset is not right for the
/// lines. It is right if they have all that the preset must have, and not just one of several
/// paths that it could bring.
fn covered_by(entries: &[Arc<Entry>], lines: &[BindLine<'_>]) -> Option<usize> {
    let (mut covered, mut paths) = (0, 0);
    for entry in entries {
        let is_own = entry.origin.presets.len() == 1;
        if !is_own {
            continue;
        }
        let is_covered = lines.iter().any(|line| brings(entry, line));
        if !is_covered && !is_optional(&entry.request) {
            return None;
        }
        covered += usize::from(is_covered);
        paths += usize::from(names_paths(&entry.request));
    }
    (covered > 0 && covered >= paths.min(2)).then_some(covered)
}

fn names_paths(request: &Request) -> bool {
    use Request::{Directory, FileSystem, NameService, User};
    !matches!(
        request,
        User(_) | NameService(_) | Directory(_) | FileSystem(..)
    )
}

fn is_optional(request: &Request) -> bool {
    match request {
        Request::Device(wanted) | Request::Etc(wanted) | Request::User(wanted) => wanted.optional,
        Request::Program(wanted) | Request::Library(wanted) => wanted.optional,
        Request::Mount(mount) => mount.sources.optional,
        // Name services bring their modules. A site's own directories and file systems are no bind
        // mounts.
        Request::NameService(_) | Request::Directory(_) | Request::FileSystem(..) => true,
    }
}

/// Whether `entry` mounts what `line` mounts, and a process inside can do all with it that the line
/// allows.
fn brings(entry: &Entry, line: &BindLine<'_>) -> bool {
    if line.target.is_some() || line.bind.recursive {
        return false;
    }
    if line.bind.optional && !is_optional(&entry.request) {
        return false; // the site would fail without the source
    }
    let source = &line.bind.source;
    let is_read_only = line.is_read_only();
    let is_data = is_read_only && !line.is_executable() && !line.has_setuid();
    match &entry.request {
        Request::Device(wanted) => is_below("/dev", wanted, source),
        Request::Etc(wanted) => is_data && is_below("/etc", wanted, source),
        Request::Program(wanted) | Request::Library(wanted) => {
            is_read_only && !line.has_setuid() && matches_code(wanted, source)
        }
        Request::Mount(mount) => allows(mount, line) && matches_any(&mount.sources, source),
        Request::User(_)
        | Request::NameService(_)
        | Request::Directory(_)
        | Request::FileSystem(..) => false,
    }
}

/// Whether the entry of `mounts` allows a process inside all that the line allows it.
fn allows(mount: &MountRequest, line: &BindLine<'_>) -> bool {
    mount.target.is_none()
        && (line.is_read_only() || mount.access == Access::ReadWrite)
        && (!line.is_executable() || mount.executable == Some(true))
        && (!line.has_setuid() || mount.setuid == Some(true))
}

/// Whether `path` is one of the wanted names in `directory`.
fn is_below(directory: &str, wanted: &Wanted<String>, path: &HostPath) -> bool {
    let mut names = wanted.any_of.iter();
    names.any(|name| path.as_path() == Path::new(directory).join(name))
}

fn matches_any(wanted: &Wanted<Pattern>, path: &HostPath) -> bool {
    wanted.any_of.iter().any(|pattern| matches(pattern, path))
}

/// Whether `path` is one of the wanted programs or libraries. A name alone is that of any file that
/// has it.
fn matches_code(wanted: &Wanted<CodeName>, path: &HostPath) -> bool {
    wanted.any_of.iter().any(|name| match name {
        CodeName::Path(pattern) => matches(pattern, path),
        CodeName::Name(name) => path.file_name().is_some_and(|file| file == name.as_str()),
    })
}

fn matches(pattern: &Pattern, path: &HostPath) -> bool {
    if pattern.path() == path {
        return true;
    }
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::new()
    };
    match glob::Pattern::new(&pattern.to_string()) {
        Ok(glob) => pattern.is_glob() && glob.matches_path_with(path.as_path(), options),
        Err(_) => false,
    }
}

impl<'b> BindLine<'b> {
    fn new(bind: &'b Bind, root: &HostPath) -> Self {
        let inside = bind.target.below(root).unwrap_or(Path::new(""));
        let inside = Path::new("/").join(inside);
        let source = bind.source.as_path();
        Self {
            bind,
            target: (inside != source).then(|| inside.to_string_lossy().into_owned()),
            source: SourceProperties::of(source),
        }
    }

    /// A device node works the same on a read-only mount.
    fn is_read_only(&self) -> bool {
        self.bind.read_only || self.source.kind == SourceKind::Device
    }

    fn is_executable(&self) -> bool {
        self.source.code && !self.bind.noexec
    }

    fn has_setuid(&self) -> bool {
        self.source.setuid && !self.bind.nosuid
    }

    /// Adds the line under the manifest's key for it.
    fn add_to(&self, draft: &mut Draft) {
        let is_simple = self.target.is_none()
            && !self.bind.recursive
            && self.is_read_only()
            && !self.has_setuid();
        if !is_simple {
            return self.add_mount(draft);
        }

        let source = self.bind.source.to_string();
        let is_executable = self.is_executable();
        let item = |name: &str| DraftItem {
            optional: self.bind.optional,
            ..DraftItem::new(name)
        };
        match self.source.kind {
            SourceKind::Program if is_executable => draft.programs.push(item(&source)),
            SourceKind::Library if is_executable => draft.libraries.push(item(&source)),
            SourceKind::Device => match source.strip_prefix("/dev/") {
                Some(name) => draft.devices.push(item(name)),
                None => self.add_mount(draft),
            },
            SourceKind::File | SourceKind::Directory => match source.strip_prefix("/etc/") {
                Some(name) if !is_executable => draft.etc.push(item(name)),
                _ => self.add_mount(draft),
            },
            _ => self.add_mount(draft),
        }
    }

    fn add_mount(&self, draft: &mut Draft) {
        let mount = DraftMount {
            target: self.target.clone(),
            writable: !self.is_read_only(),
            recursive: self.bind.recursive && self.source.kind == SourceKind::Directory,
            optional: self.bind.optional || self.source.kind == SourceKind::Missing,
            executable: self.is_executable(),
            devices: self.source.devices && !self.bind.nodev,
            setuid: self.has_setuid(),
            ..DraftMount::of_path(self.bind.source.to_string())
        };
        for remark in self.remarks(&mount) {
            draft.remarks.push(format!("{}: {remark}", self.bind.place));
        }
        draft.mounts.push(mount);
    }

    /// Remarks about the line's entry of `mounts`.
    fn remarks(&self, mount: &DraftMount) -> Vec<String> {
        let source = &self.bind.source;
        let mut remarks = vec![];
        if self.source.kind == SourceKind::Missing {
            remarks.push(format!(
                "{source} is not on this host now, so it is optional."
            ));
        }
        if mount.writable {
            remarks.push(format!(
                "{source} is writable, as in fstab; without `access: read-write` the site can only \
                 read it."
            ));
        }
        if mount.recursive && self.bind.read_only {
            remarks.push(format!(
                "the mounts below {source} become read-only, too; mount(8) leaves them writable."
            ));
        }
        if source.as_path() == Path::new("/dev") {
            remarks.push(
                "all of /dev is more than a jail needs: `presets: [base]` has null, zero, random, \
                 urandom, full."
                    .to_owned(),
            );
        }
        if mount.setuid {
            remarks.push(format!(
                "setuid programs of {source} keep their bits, as in fstab."
            ));
        }
        remarks
    }
}
