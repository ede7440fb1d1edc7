//! The lines of one unit, as systemd merges them: its file, then its drop-ins in their order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::unit_files::{DIRECTORIES, names_in, template, text_of};

/// `Key=value` of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitLine {
    /// The file that it is in.
    pub file: PathBuf,
    /// `Service`
    pub section: String,
    /// `ExecStart`
    pub key: String,
    /// As it is written, without the white space at its ends. It may have several lines, of which
    /// all but the last end in a backslash.
    pub value: String,
}

/// The lines of the unit `name`, where the directory `first` takes precedence. Drop-ins whose first
/// line is `own` are left out. `None`: the unit has no file.
pub fn unit_lines(first: &Path, name: &str, own: &str) -> Option<Vec<UnitLine>> {
    let mut directories = vec![first];
    directories.extend(DIRECTORIES.map(Path::new));
    let (file, names) = fragment(&directories, name)?;
    let mut lines = lines_of(&file, own);
    for file in drop_ins(&directories, &names) {
        lines.extend(lines_of(&file, own));
    }
    Some(lines)
}

/// The unit's file, and its names: its own, and those that lead to it.
fn fragment(directories: &[&Path], name: &str) -> Option<(PathBuf, Vec<String>)> {
    let mut names = vec![name.to_owned()];
    // An alias may lead to an alias.
    for _ in 0..8 {
        let current = names.last()?;
        let found = match file_of(directories, current) {
            Some(found) => found,
            None => file_of(directories, &template(current)?)?,
        };
        match alias(&found, current) {
            Some(other) => names.push(other),
            None => return fs::metadata(&found).is_ok().then_some((found, names)),
        }
    }
    None
}

/// The file or link `name` in the first directory that has one.
fn file_of(directories: &[&Path], name: &str) -> Option<PathBuf> {
    for directory in directories {
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            return Some(path);
        }
    }
    None
}

/// The other unit that the file of `current` is a link to.
fn alias(file: &Path, current: &str) -> Option<String> {
    let end = fs::read_link(file).ok()?;
    let end = end.file_name()?.to_str()?;
    let is_own = end == current || template(current).as_deref() == Some(end) || end == "null";
    (!is_own).then(|| end.to_owned())
}

/// The drop-ins, sorted by name. Of two with the same name, the one counts whose directory belongs
/// to the more specific name, or is preferred.
fn drop_ins(directories: &[&Path], names: &[String]) -> Vec<PathBuf> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for place in places(names) {
        for directory in directories {
            let directory = directory.join(format!("{place}.d"));
            for name in names_in(&directory) {
                if Path::new(&name).extension() == Some("conf".as_ref()) {
                    let path = directory.join(&name);
                    found.entry(name).or_insert(path);
                }
            }
        }
    }
    found.into_values().collect()
}

/// The names of directories of drop-ins: the unit, its template, its prefixes, its type.
fn places(names: &[String]) -> Vec<String> {
    let mut places = names.to_vec();
    for name in names {
        places.extend(template(name));
        let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        for (dash, _) in stem.match_indices('-').rev() {
            places.push(format!("{}.{kind}", &stem[..=dash]));
        }
    }
    for name in names {
        if let Some((_, kind)) = name.rsplit_once('.') {
            places.push(kind.to_owned());
        }
    }
    places
}

fn lines_of(file: &Path, own: &str) -> Vec<UnitLine> {
    match text_of(file) {
        Some(text) if text.lines().next() != Some(own) => parse(file, &text),
        _ => vec![],
    }
}

fn parse(file: &Path, text: &str) -> Vec<UnitLine> {
    let mut found = vec![];
    for_each_setting(text, |section, key, value| {
        found.push(UnitLine {
            file: file.to_owned(),
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        });
    });
    found
}

/// Calls `take` with the section, key and value of each setting in a unit's file. A value may have
/// several lines, as in [`UnitLine`].
pub(super) fn for_each_setting(text: &str, mut take: impl FnMut(&str, &str, &str)) {
    let mut section = String::new();
    let mut open: Option<String> = None;
    let mut end = |line: &str| {
        if let Some(name) = section_name(line) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=') {
            take(&section, key.trim(), value.trim());
        }
    };
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        let whole = match open.take() {
            Some(begun) => Cow::Owned(format!("{begun}\n{line}")),
            None => Cow::Borrowed(line),
        };
        if goes_on(line) {
            open = Some(whole.into_owned());
        } else {
            end(&whole);
        }
    }
    if let Some(whole) = open {
        end(whole.strip_suffix('\\').unwrap_or(&whole));
    }
}

/// Whether the line ends in a backslash that is not itself escaped.
fn goes_on(line: &str) -> bool {
    let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\');
    backslashes.count() % 2 == 1
}

/// `Service` in the line `[Service]`.
fn section_name(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_units_lines_are_merged_as_systemd_merges_them() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            (
                "u-a@.service",
                "[Service]\n# no\nExecStart=/bin/a \\\n # no\n  b \\\\\nUser=x\n",
            ),
            ("u-a@.service.d/20.conf", "[Service]\nUser=template\n"),
            ("u-a@1.service.d/20.conf", "[Service]\nUser=instance\n"),
            ("u-.service.d/10.conf", "[Service]\nUser=prefix\n"),
            ("service.d/30.conf", "[Service]\nUser=type\n"),
            ("u-a@1.service.d/zz.conf", "# own\n[Service]\nUser=own\n"),
            ("u-a@1.service.d/40.txt", "[Service]\nUser=no\n"),
        ];
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("u-a@1.service", dir.path().join("other.service")).unwrap();
        let values = |name: &str| -> Vec<String> {
            let lines = unit_lines(dir.path(), name, "# own").unwrap();
            assert!(lines.iter().all(|line| line.section == "Service"));
            lines.into_iter().map(|line| line.value).collect()
        };
        let expected = ["/bin/a \\\nb \\\\", "x", "prefix", "instance", "type"];
        assert_eq!(values("u-a@1.service"), expected);
        assert_eq!(values("other.service"), expected);
        assert_eq!(values("u-a@2.service")[3], "template");
        assert_eq!(unit_lines(dir.path(), "none-such.service", "# own"), None);
    }
}
