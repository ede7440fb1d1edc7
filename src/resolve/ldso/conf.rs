//! `/etc/ld.so.conf` and what it includes.
//!
//! ldconfig reads these files, the loader does not. They belong to the loader's configuration, and
//! they explain why a library is missing from the cache.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::base::HostPath;
use crate::resolve::host::Host;
use crate::resolve::lookup_error::{LookupError, found};

/// ldconfig's directories, and the files that name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conf {
    /// The files that were read, as written or matched; sorted.
    pub files: BTreeSet<HostPath>,
    /// In the order of ldconfig.
    pub directories: Vec<ConfDirectory>,
}

/// A directory in which ldconfig looks for libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfDirectory {
    pub path: HostPath,
    /// The file that names it.
    pub named_in: HostPath,
}

/// One line that is not empty.
#[derive(Debug, PartialEq, Eq)]
enum ConfLine<'a> {
    Directory(&'a [u8]),
    Include(Vec<&'a [u8]>),
}

impl Conf {
    /// Reads `file` and, following `include`, the others. Missing files are passed over, as by
    /// ldconfig.
    ///
    /// Errors: a file cannot be read.
    pub(super) fn read(host: &Host, file: &HostPath) -> Result<Self, LookupError> {
        let mut conf = Self::default();
        conf.add(host, file)?;
        Ok(conf)
    }

    fn add(&mut self, host: &Host, file: &HostPath) -> Result<(), LookupError> {
        if self.files.contains(file) {
            return Ok(());
        }
        let Some(text) = found(host.read(file))? else {
            return Ok(());
        };
        self.files.insert(file.clone());
        for line in text.split(|byte| *byte == b'\n').filter_map(parse_line) {
            match line {
                ConfLine::Directory(text) => {
                    if let Ok(path) = HostPath::new(OsStr::from_bytes(text)) {
                        let named_in = file.clone();
                        self.directories.push(ConfDirectory { path, named_in });
                    }
                }
                ConfLine::Include(patterns) => self.include(host, file, &patterns)?,
            }
        }
        Ok(())
    }

    fn include(
        &mut self,
        host: &Host,
        file: &HostPath,
        patterns: &[&[u8]],
    ) -> Result<(), LookupError> {
        let directory = file.parent().unwrap_or_else(HostPath::slash);
        for pattern in patterns {
            let pattern = Path::new(OsStr::from_bytes(pattern));
            for included in matches(host, &directory.as_path().join(pattern))? {
                self.add(host, &included)?;
            }
        }
        Ok(())
    }
}

/// The rest of a line that begins with `word` and a blank.
fn after_keyword<'l>(line: &'l [u8], word: &[u8]) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(word)?;
    matches!(rest.first(), Some(b' ' | b'\t')).then_some(rest)
}

/// As `parse_conf` of glibc's `elf/ldconfig.c`; `hwcap` lines do nothing since glibc 2.33.
fn parse_line(line: &[u8]) -> Option<ConfLine<'_>> {
    let line = line.split(|byte| *byte == b'#').next()?.trim_ascii();
    if let Some(rest) = after_keyword(line, b"include") {
        let words = rest.split(|byte| matches!(byte, b' ' | b'\t'));
        let words = words.filter(|word| !word.is_empty());
        return Some(ConfLine::Include(words.collect()));
    }
    if line.is_empty() || after_keyword(line, b"hwcap").is_some() {
        return None;
    }
    // The older form `directory=libc6` has a type after the path.
    let path = line.split(|byte| *byte == b'=').next()?.trim_ascii_end();
    path.starts_with(b"/").then_some(ConfLine::Directory(path))
}

/// The files that a pattern of `glob(7)` matches, sorted.
fn matches(host: &Host, pattern: &Path) -> Result<Vec<HostPath>, LookupError> {
    let mut all = vec![HostPath::slash()];
    for component in pattern.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let mut next = vec![];
        for directory in &all {
            next.extend(children(host, directory, name)?);
        }
        all = next;
    }
    Ok(all)
}

fn children(host: &Host, directory: &HostPath, name: &OsStr) -> Result<Vec<HostPath>, LookupError> {
    let text = name.to_string_lossy();
    if !text.contains(['*', '?', '[']) {
        let Ok(path) = directory.join(name) else {
            return Ok(vec![]);
        };
        return Ok(host.is_there(&path)?.then_some(path).into_iter().collect());
    }
    let Ok(pattern) = glob::Pattern::new(&text) else {
        return Ok(vec![]);
    };
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let names = found(host.read_dir(directory))?.unwrap_or_default();
    let fitting = names
        .iter()
        .filter(|name| pattern.matches_with(&name.to_string_lossy(), options));
    Ok(fitting
        .filter_map(|name| directory.join(name).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_ldconfig_reads_them() {
        assert_eq!(
            parse_line(b"  /opt/lib  # mine"),
            Some(ConfLine::Directory(b"/opt/lib"))
        );
        assert_eq!(
            parse_line(b"/opt/lib = libc6"),
            Some(ConfLine::Directory(b"/opt/lib"))
        );
        assert_eq!(
            parse_line(b"include a.conf\td/*.conf"),
            Some(ConfLine::Include(vec![b"a.conf", b"d/*.conf"]))
        );
        assert_eq!(parse_line(b"hwcap 1 nosegneg"), None);
        assert_eq!(parse_line(b"# /opt/lib"), None);
        assert_eq!(parse_line(b"opt/lib"), None);
    }

    #[test]
    fn includes_are_followed_once_each_and_relative_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir_all(etc.join("ld.so.conf.d")).unwrap();
        std::fs::write(
            etc.join("ld.so.conf"),
            "include ld.so.conf.d/*.conf\n/last\n",
        )
        .unwrap();
        std::fs::write(
            etc.join("ld.so.conf.d/b.conf"),
            "/b\ninclude /etc/ld.so.conf\n",
        )
        .unwrap();
        std::fs::write(etc.join("ld.so.conf.d/a.conf"), "/a\n").unwrap();
        std::fs::write(etc.join("ld.so.conf.d/.hidden.conf"), "/hidden\n").unwrap();
        let host = Host::at(dir.path());
        let conf = Conf::read(&host, &HostPath::new("/etc/ld.so.conf").unwrap()).unwrap();
        let directories: Vec<_> = conf
            .directories
            .iter()
            .map(|directory| directory.path.to_string())
            .collect();
        assert_eq!(directories, ["/a", "/b", "/last"]);
        assert_eq!(conf.files.len(), 3);
    }
}
