//! Unit files as systemd.syntax(7) describes them: pure, but for the looking in [`of_host`] and
//! [`of_file`].
//!
//! A reader of our own: the crates for it either need systemd's libraries or do not know quotes and
//! drop-ins.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where units are, in the order in which systemd prefers them.
const DIRECTORIES: [&str; 7] = [
    "/etc/systemd/system",
    "/run/systemd/transient",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// One unit, with its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UnitFile {
    /// `php8.2-fpm.service`
    pub name: String,
    /// All assignments in their order.
    pub lines: Vec<Assignment>,
}

/// `Key=value` of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Its line, from 1.
    pub line: usize,
    /// `Service`
    pub section: String,
    pub key: String,
    /// Lines that go on are joined.
    pub value: String,
}

/// The assignments of a unit file. Lines that are none are passed over, as systemd does.
pub(super) fn read(text: &str) -> Vec<Assignment> {
    let (mut lines, mut section, mut open) = (vec![], String::new(), None::<(usize, String)>);
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
                line: first,
                section: section.clone(),
                key,
                value,
            });
        }
    }
    lines
}

/// The words of a value, quotes and escapes taken out.
pub(super) fn words(value: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (vec![], None::<String>, None);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', _) => word.get_or_insert_default().push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('s') => ' ',
                Some(other) => other,
                None => '\\',
            }),
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

impl UnitFile {
    /// The values of a list such as `ExecStart=` or `BindPaths=`: an empty one takes those before
    /// it away.
    pub fn list(&self, section: &str, key: &str) -> Vec<&Assignment> {
        let mut values = vec![];
        for line in self
            .lines
            .iter()
            .filter(|line| line.section == section && line.key == key)
        {
            if line.value.is_empty() {
                values.clear();
            } else {
                values.push(line);
            }
        }
        values
    }

    /// The last value, if it is not empty.
    pub fn get(&self, section: &str, key: &str) -> Option<&Assignment> {
        self.list(section, key).pop()
    }

    /// The command lines that start it, as words, with the variables that the unit itself sets put
    /// in.
    pub fn commands(&self) -> Vec<Vec<String>> {
        let environment = self.environment();
        let command = |line: &&Assignment| {
            let line = line.value.trim_start_matches(['-', '@', ':', '+', '!']);
            words(line)
                .iter()
                .flat_map(|word| put_in(word, &environment))
                .collect()
        };
        self.list("Service", "ExecStart")
            .iter()
            .map(command)
            .collect()
    }

    /// What `Environment=` and the files of `EnvironmentFile=` set.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let set = self
            .list("Service", "Environment")
            .into_iter()
            .flat_map(|line| words(&line.value));
        let mut variables: Vec<String> = set.collect();
        for line in self.list("Service", "EnvironmentFile") {
            let file = line.value.trim_start_matches('-');
            let text = super::text(Path::new(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.starts_with(['#', ';']));
            variables.extend(lines.filter_map(|line| {
                let (name, value) = line.split_once('=')?;
                Some(format!("{}={}", name.trim(), words(value).join(" ")))
            }));
        }
        let pairs = variables
            .iter()
            .filter_map(|variable| variable.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

/// `$NAME` alone becomes the words of its value, `${NAME}` its value.
fn put_in(word: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    let value = |name: &str| environment.get(name).cloned().unwrap_or_default();
    if let Some(name) = word
        .strip_prefix('$')
        .filter(|name| !name.starts_with(['{', '$']))
    {
        return words(&value(name));
    }
    let mut text = word.to_owned();
    for name in environment.keys() {
        text = text.replace(&format!("${{{name}}}"), &value(name));
    }
    vec![text]
}

/// The services of this host whose text has `word`, with their drop-ins; a template is called
/// `name@.service`.
pub(super) fn of_host(word: &str) -> Vec<UnitFile> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
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
    let unit = |(name, file): (String, PathBuf)| {
        let texts: Vec<_> = [file]
            .into_iter()
            .chain(drop_ins(&name))
            .map(|file| super::text(&file))
            .collect();
        let texts: Vec<_> = texts
            .into_iter()
            .flatten()
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect();
        let found = texts.iter().any(|text| text.contains(word));
        found.then(|| UnitFile {
            name,
            lines: texts.iter().flat_map(|text| read(text)).collect(),
        })
    };
    files.into_iter().filter_map(unit).collect()
}

/// The unit of a file, with its drop-ins.
pub(super) fn of_file(file: &Path, text: &str) -> UnitFile {
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let more = drop_ins(&name)
        .into_iter()
        .filter_map(|file| super::text(&file).ok());
    let lines = read(text)
        .into_iter()
        .chain(more.flat_map(|text| read(&String::from_utf8_lossy(&text))))
        .collect();
    UnitFile { name, lines }
}

/// The `*.conf` of `NAME.d`, sorted by their names.
fn drop_ins(name: &str) -> Vec<PathBuf> {
    let mut files: BTreeMap<_, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        let place = Path::new(directory).join(format!("{name}.d"));
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "conf")
            {
                files
                    .entry(entry.file_name())
                    .or_insert_with(|| entry.path());
            }
        }
    }
    files.into_values().collect()
}
