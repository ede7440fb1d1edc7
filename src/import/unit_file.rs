//! Unit files as systemd.syntax(7) describes them. Only [`of_host`], [`of_file`] and
//! [`UnitFile::environment`] read files.
//!
//! It has its own parser, because the crates for unit files either need systemd's libraries or do
//! not know quotes and drop-ins.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::command_line::CommandLine;
use super::words::words;
use crate::render::fstab::escaped;

/// The directories of units, in the order in which systemd prefers them.
const DIRECTORIES: [&str; 7] = [
    "/etc/systemd/system",
    "/run/systemd/transient",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The keys of a mount's unit that say when it is mounted, and the options of fstab that say the
/// same.
const MOUNT_ORDER: [(&str, &str); 7] = [
    ("Requires", "x-systemd.requires"),
    ("BindsTo", "x-systemd.requires"),
    ("Wants", "x-systemd.wants"),
    ("After", "x-systemd.after"),
    ("Before", "x-systemd.before"),
    ("RequiresMountsFor", "x-systemd.requires-mounts-for"),
    ("WantsMountsFor", "x-systemd.wants-mounts-for"),
];

/// One unit, with its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnitFile {
    /// `php8.2-fpm.service`
    pub name: String,
    /// All assignments, in their order.
    pub lines: Vec<Assignment>,
}

/// `Key=value`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// `Service`
    pub section: String,
    pub key: String,
    /// Continuation lines are joined.
    pub value: String,
}

/// The assignments of a unit file. Other lines are ignored, as by systemd.
pub(super) fn read(file: &Path, text: &str) -> Vec<Assignment> {
    let mut lines = vec![];
    let mut section = String::new();
    // A line that ends in a backslash: its number, and its text so far.
    let mut open: Option<(usize, String)> = None;
    for (line, nth) in text.lines().zip(1..) {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && open.is_none()) {
            continue;
        }
        let (first, mut whole) = open.take().unwrap_or((nth, String::new()));
        if let Some(begun) = trimmed.strip_suffix('\\') {
            whole.push_str(begun);
            whole.push(' ');
            open = Some((first, whole));
            continue;
        }
        whole.push_str(trimmed);

        if let Some(name) = whole
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            lines.push(Assignment {
                file: file.to_owned(),
                line: first,
                section: section.clone(),
                key,
                value,
            });
        }
    }
    lines
}

impl UnitFile {
    /// The mount of a `.mount` unit as a line of fstab(5), at the number of its line. Its order is
    /// among the options, as systemd.mount(5) describes them.
    pub(crate) fn mount_line(&self) -> Option<String> {
        let what = self.get("Mount", "What")?;
        let mut order = String::new();
        for (key, option) in MOUNT_ORDER {
            for line in self.list("Unit", key) {
                for value in line.value.split_whitespace() {
                    let _ = write!(order, ",{option}={value}");
                }
            }
        }
        Some(format!(
            "{}{} {} {} {}{order}",
            "\n".repeat(what.line.saturating_sub(1)),
            fstab_field(&what.value),
            fstab_field(self.value("Mount", "Where")?),
            self.value("Mount", "Type").unwrap_or("auto"),
            self.value("Mount", "Options").unwrap_or("defaults"),
        ))
    }

    /// The values of a list such as `ExecStart=` or `BindPaths=`. An empty value removes those
    /// before it.
    pub(crate) fn list(&self, section: &str, key: &str) -> Vec<&Assignment> {
        let mut values = vec![];
        for line in &self.lines {
            if line.section != section || line.key != key {
                continue;
            }
            if line.value.is_empty() {
                values.clear();
            } else {
                values.push(line);
            }
        }
        values
    }

    /// The last value, if it is not empty.
    pub(crate) fn get(&self, section: &str, key: &str) -> Option<&Assignment> {
        self.list(section, key).pop()
    }

    /// The text of the last value.
    fn value(&self, section: &str, key: &str) -> Option<&str> {
        Some(&self.get(section, key)?.value)
    }

    /// The command lines that start the service, as words. The variables that the unit itself sets
    /// are replaced.
    pub(crate) fn commands(&self) -> Vec<Vec<String>> {
        let environment = self.environment();
        let mut commands = vec![];
        for line in self.list("Service", "ExecStart") {
            let line = line.value.trim_start_matches(['-', '@', ':', '+', '!']);
            let mut command = vec![];
            for word in words(line) {
                command.extend(expand(&word, &environment));
            }
            commands.push(command);
        }
        commands
    }

    /// The commands that start the service, with their environment and directory.
    pub(super) fn command_lines(&self) -> Vec<CommandLine> {
        let directory = self.value("Service", "WorkingDirectory").unwrap_or("/");
        let directory = directory.trim_start_matches('-');
        let mut commands = vec![];
        for words in self.commands() {
            commands.push(CommandLine {
                words,
                environment: self.environment(),
                directory: Path::new("/").join(directory),
            });
        }
        commands
    }

    /// The variables that `Environment=` and the files of `EnvironmentFile=` set.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for line in self.list("Service", "Environment") {
            for word in words(&line.value) {
                if let Some((name, value)) = word.split_once('=') {
                    variables.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        for line in self.list("Service", "EnvironmentFile") {
            let file = line.value.trim_start_matches('-');
            let text = text_of(Path::new(file)).unwrap_or_default();
            for line in text.lines().map(str::trim) {
                if let Some((name, value)) = line.split_once('=')
                    && !line.starts_with(['#', ';'])
                {
                    variables.insert(name.trim().to_owned(), words(value).join(" "));
                }
            }
        }
        variables
    }
}

/// `$NAME` alone becomes the words of its value, `${NAME}` becomes its value, and `$$` a `$`.
fn expand(word: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    match word.strip_prefix('$') {
        Some(name) if !name.starts_with(['{', '$']) => {
            return match environment.get(name) {
                Some(value) => words(value),
                None => vec![],
            };
        }
        _ => {}
    }
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let name = after
            .strip_prefix('{')
            .and_then(|name| name.split_once('}'));
        if let Some((name, after)) = name
            && let Some(value) = environment.get(name)
        {
            text.push_str(value);
            rest = after;
        } else {
            text.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    text.push_str(rest);
    vec![text]
}

/// The service `name` of this host, or an instance of a template, with its drop-ins.
pub(crate) fn named(name: &str) -> Option<UnitFile> {
    let files = service_files();
    let template = template_of(name);
    let mut names = [Some(name), template.as_deref()].into_iter().flatten();
    let file = names.find_map(|name| files.get(name))?;
    text_of(file)?;
    Some(with_drop_ins(name, Some(file), None))
}

/// `php@.service` of `php@x.service`.
fn template_of(name: &str) -> Option<String> {
    let (prefix, _) = name.split_once('@')?;
    Some(format!("{prefix}@.service"))
}

/// The unit whose own file is `file`, with its drop-ins, also those in the directory `beside`.
fn with_drop_ins(name: &str, file: Option<&Path>, beside: Option<&Path>) -> UnitFile {
    let mut files: Vec<_> = file.into_iter().map(Path::to_owned).collect();
    if let Some(template) = template_of(name).filter(|template| template != name) {
        files.extend(drop_ins(&template, beside));
    }
    files.extend(drop_ins(name, beside));
    let mut lines = vec![];
    for file in files {
        lines.extend(read(&file, &text_of(&file).unwrap_or_default()));
    }
    UnitFile {
        name: name.to_owned(),
        lines,
    }
}

/// The services of this host, with their drop-ins. A template's name is `name@.service`.
pub(super) fn of_host() -> Vec<UnitFile> {
    let unit = |(name, file): (&String, &PathBuf)| with_drop_ins(name, Some(file), None);
    service_files().iter().map(unit).collect()
}

/// Whether the configuration of this host names an instance of a template: by a link to start it,
/// or by files of its own.
pub(super) fn is_asked_for(instance: &str) -> bool {
    let is_there = |path: PathBuf| path.symlink_metadata().is_ok();
    for directory in DIRECTORIES.map(Path::new) {
        let own = [instance.to_owned(), format!("{instance}.d")];
        if own.iter().any(|name| is_there(directory.join(name))) {
            return true;
        }
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let kind = entry.path().extension().map(OsStr::to_owned);
            let starts = ["wants", "requires", "upholds"].map(|kind| Some(kind.into()));
            if starts.contains(&kind) && is_there(entry.path().join(instance)) {
                return true;
            }
        }
    }
    false
}

/// The file of each service, by name.
fn service_files() -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    for directory in DIRECTORIES {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string()
                && name.ends_with(".service")
                && entry.path().is_file()
            {
                files.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    files
}

/// The unit of a file, with its drop-ins. The file may be a drop-in itself.
pub(super) fn of_file(file: &Path) -> UnitFile {
    let above = file.parent();
    let name_of = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let unit = above.and_then(name_of);
    let unit = unit.as_deref().and_then(|name| name.strip_suffix(".d"));
    let Some(unit) = unit.filter(|name| name.ends_with(".service") || *name == "service") else {
        return with_drop_ins(&name_of(file).unwrap_or_default(), Some(file), above);
    };
    let beside = above.and_then(Path::parent);
    let template = template_of(unit);
    let names = [Some(unit), template.as_deref()];
    let own = names.into_iter().flatten().find_map(|name| {
        let own = beside?.join(name);
        if own.is_file() {
            Some(own)
        } else {
            service_files().remove(name)
        }
    });
    with_drop_ins(unit, own.as_deref(), beside)
}

/// The `*.conf` of `NAME.d`, and those for all units whose names begin like it, sorted by their
/// names.
/// `beside`: another directory of units.
fn drop_ins(name: &str, beside: Option<&Path>) -> Vec<PathBuf> {
    let mut names = vec![format!("{name}.d")];
    if let Some((stem, kind)) = name.rsplit_once('.') {
        let dashes = stem.match_indices('-').rev();
        names.extend(dashes.map(|(at, _)| format!("{}.{kind}.d", &stem[..=at])));
        names.push(format!("{kind}.d"));
    }
    let directories = beside.into_iter().chain(DIRECTORIES.map(Path::new));
    let directories: Vec<_> = directories.collect();
    let mut files: BTreeMap<_, PathBuf> = BTreeMap::new();
    for name in names {
        for directory in &directories {
            let entries = fs::read_dir(directory.join(&name));
            for entry in entries.into_iter().flatten().flatten() {
                let file = entry.path();
                if file.extension() == Some(OsStr::new("conf")) {
                    files.entry(entry.file_name()).or_insert(file);
                }
            }
        }
    }
    files.into_values().collect()
}

/// The path as a field of fstab(5).
fn fstab_field(path: &str) -> String {
    let path = escaped(Path::new(path));
    String::from_utf8_lossy(&path).replace('#', "\\043") // it would begin a comment
}

/// The text of a file that can be read.
fn text_of(file: &Path) -> Option<String> {
    let text = super::files::text(file).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
