//! The directories that belong together: those where an interpreter looks for what it loads, and
//! those of one package.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::base::HostPath;

/// Where interpreters look: PHP's `include_path`, Perl's `@INC`, Python's `sys.path`, Ruby's and
/// Node's directories. A `*` is one name.
const SEARCHED: [&[&str]; 5] = [
    &["/usr/share/php", "/usr/share/pear"],
    &[
        "/etc/perl",
        "/usr/share/perl5",
        "/usr/share/perl/*",
        "/usr/lib/*/perl/*",
        "/usr/lib/*/perl5/*",
        "/usr/lib/*/perl-base",
        "/usr/lib/perl5",
        "/usr/lib64/perl5",
    ],
    &[
        "/usr/lib/python3.*",
        "/usr/lib64/python3.*",
        "/usr/lib/python3/dist-packages",
    ],
    &[
        "/usr/lib/ruby",
        "/usr/lib/*/ruby",
        "/usr/share/rubygems-integration",
    ],
    &["/usr/share/nodejs", "/usr/lib/node_modules"],
];

/// Where packages have directories of their own.
const ABOVE_PACKAGES: [&str; 4] = ["/etc", "/usr/lib", "/usr/share", STATE];

/// Of these, the one for what programs write.
const STATE: &str = "/var/lib";

/// The files of packages, as dpkg(1) knows them.
const DPKG: &str = "/var/lib/dpkg/info";

/// Where rpm(8) has its database, in a format of its own.
const RPM: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];

/// How rpm(8) prints each file with its package.
const RPM_QUERY: [&str; 3] = ["-qa", "--queryformat", "[%{=NAME}\\t%{FILENAMES}\\n]"];

/// How many files of a directory are looked at for objects.
const MOST_FILES: usize = 20_000;

/// The whole directories that `path` is a part of: those of its interpreter, or those of its
/// package; none: it stands alone.
pub(super) fn directories_of(path: &HostPath) -> Vec<HostPath> {
    for group in SEARCHED {
        let Some(own) = group.iter().find_map(|known| below(path, known)) else {
            continue;
        };
        let mut found = vec![own];
        for pattern in group {
            if below(path, pattern).is_some() {
                continue;
            }
            for other in glob::glob(pattern).into_iter().flatten().flatten() {
                found.extend(HostPath::new(other).ok());
            }
        }
        return found;
    }
    of_package(path)
}

/// The beginning of `path` that `pattern` matches.
fn below(path: &HostPath, pattern: &str) -> Option<HostPath> {
    let mut names = path.as_path().components();
    let mut begin = PathBuf::new();
    for wanted in Path::new(pattern).components() {
        let name = names.next()?;
        let (wanted, found) = (wanted.as_os_str().to_str()?, name.as_os_str().to_str()?);
        let fits = match wanted.split_once('*') {
            Some((before, _)) => found.starts_with(before),
            None => wanted == found,
        };
        if !fits {
            return None;
        }
        begin.push(name);
    }
    HostPath::new(begin).ok()
}

/// The directories of the package that has `path`, if the one that `path` is in is that package's
/// alone.
fn of_package(path: &HostPath) -> Vec<HostPath> {
    let Some(own) = top(path.as_path()) else {
        return vec![];
    };
    let owned = owned();
    if !owned.is_of_one(&own) {
        return vec![];
    }
    let mut directories = vec![];
    for part in owned.parts(&own, leads_to) {
        if part.is_dir() {
            directories.extend(HostPath::new(part).ok());
        }
    }
    directories
}

/// The directory of a package that `path` is below.
fn top(path: &Path) -> Option<PathBuf> {
    let above = ABOVE_PACKAGES
        .iter()
        .find(|above| path.starts_with(above))?;
    let mut names = path.strip_prefix(above).ok()?.iter();
    let name = names.next()?;
    names.next()?;
    Some(Path::new(above).join(name))
}

/// Whether a link in `directory` leads to one of `others`: then the directory is one view of the
/// program, not only what it writes.
fn leads_to(directory: &Path, others: &[PathBuf]) -> bool {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if let Ok(end) = fs::read_link(entry.path())
            && others.iter().any(|other| end.starts_with(other))
        {
            return true;
        }
    }
    false
}

/// Which packages, by their names, have files in the directories right below [`ABOVE_PACKAGES`].
#[derive(Debug, Default)]
struct Owned(BTreeMap<PathBuf, BTreeSet<Vec<u8>>>);

impl Owned {
    fn add(&mut self, package: &[u8], path: &[u8]) {
        if let Some(directory) = top(Path::new(OsStr::from_bytes(path))) {
            let owners = self.0.entry(directory).or_default();
            if !owners.contains(package) {
                owners.insert(package.to_owned());
            }
        }
    }

    /// Adds the files of a list of dpkg(1).
    fn add_list(&mut self, package: &[u8], list: &[u8]) {
        for path in lines(list) {
            self.add(package, path);
        }
    }

    /// Adds what rpm(8) answers to [`RPM_QUERY`].
    fn add_answer(&mut self, answer: &[u8]) {
        for line in lines(answer) {
            if let Some((package, path)) = split_at(line, b'\t') {
                self.add(package, path);
            }
        }
    }

    /// Whether one package has the directory, or several that are named after it, such as
    /// `mediawiki` and `mediawiki-classes`.
    fn is_of_one(&self, directory: &Path) -> bool {
        let (Some(owners), Some(name)) = (self.0.get(directory), directory.file_name()) else {
            return false;
        };
        let name = name.as_bytes();
        owners.len() == 1 || owners.iter().all(|owner| is_named_after(owner, name))
    }

    /// `own` and its namesakes of the same packages alone. `is_view`: whether one in
    /// [`STATE`] leads to others, and so belongs to them.
    fn parts(&self, own: &Path, is_view: impl Fn(&Path, &[PathBuf]) -> bool) -> Vec<PathBuf> {
        let Some(packages) = self.0.get(own) else {
            return vec![];
        };
        let (mut parts, mut states) = (vec![own.to_owned()], vec![]);
        for (directory, owners) in &self.0 {
            let is_namesake = directory != own && directory.file_name() == own.file_name();
            if !is_namesake || !owners.is_subset(packages) || !self.is_of_one(directory) {
                continue;
            }
            if directory.starts_with(STATE) {
                states.push(directory.clone());
            } else {
                parts.push(directory.clone());
            }
        }
        states.retain(|state| is_view(state, &parts));
        parts.extend(states);
        parts
    }
}

fn is_named_after(package: &[u8], name: &[u8]) -> bool {
    match package.strip_prefix(name) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"-"),
        None => false,
    }
}

/// The lines of a text whose names may have any bytes.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

/// What is before the first `separator`, and what is after it.
fn split_at(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

fn owned() -> &'static Owned {
    static OWNED: OnceLock<Owned> = OnceLock::new();
    OWNED.get_or_init(read_owned)
}

fn read_owned() -> Owned {
    let mut owned = Owned::default();
    read_dpkg(&mut owned, Path::new(DPKG));
    read_rpm(&mut owned);
    owned
}

/// The lists of dpkg(1) in `directory`: `NAME.list` or `NAME:ARCHITECTURE.list`.
fn read_dpkg(owned: &mut Owned, directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let Some(name) = file.as_bytes().strip_suffix(b".list") else {
            continue;
        };
        let package = match split_at(name, b':') {
            Some((package, _)) => package,
            None => name,
        };
        if let Ok(list) = fs::read(entry.path()) {
            owned.add_list(package, &list);
        }
    }
}

/// The answer of rpm(8), on a host that has its database. Without one, nothing is known.
fn read_rpm(owned: &mut Owned) {
    if !RPM.iter().any(|database| Path::new(database).is_dir()) {
        return;
    }
    let answer = Command::new("rpm")
        .args(RPM_QUERY)
        .stdin(Stdio::null())
        .output();
    if let Ok(answer) = answer {
        owned.add_answer(&answer.stdout);
    }
}

/// Whether programs map objects of the directory, which takes a mount without `noexec`.
pub(super) fn has_objects(directory: &HostPath) -> bool {
    let mut left = MOST_FILES;
    let mut open = vec![directory.as_path().to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            left = left.saturating_sub(1);
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if left == 0 {
                return false;
            }
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && is_object(&entry.path()) {
                return true;
            }
        }
    }
    false
}

fn is_object(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end == "so" || end == "node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searched_directories_are_whole() {
        let of = |path: &str| {
            let path = HostPath::new(path).unwrap();
            let mut patterns = SEARCHED.into_iter().flatten();
            let found = patterns.find_map(|known| below(&path, known));
            found.map(|found| found.to_string())
        };
        for (path, directory) in [
            ("/usr/share/php/Twig/autoload.php", "/usr/share/php"),
            ("/usr/share/perl5/CGI.pm", "/usr/share/perl5"),
            ("/usr/share/perl/5.36.0/strict.pm", "/usr/share/perl/5.36.0"),
            (
                "/usr/lib/x86_64-linux-gnu/perl/5.36/auto/B/B.so",
                "/usr/lib/x86_64-linux-gnu/perl/5.36",
            ),
            ("/usr/lib/python3.11/os.py", "/usr/lib/python3.11"),
            (
                "/usr/lib/python3/dist-packages/flask/app.py",
                "/usr/lib/python3/dist-packages",
            ),
        ] {
            assert_eq!(of(path).as_deref(), Some(directory), "{path}");
        }
        for path in ["/usr/share", "/usr/share/phpmyadmin/x", "/usr/lib/php/x.so"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn names_may_have_any_bytes() {
        let (lists, mut owned) = (tempfile::tempdir().unwrap(), Owned::default());
        let list = b"/.\n/usr/share/mail\n/usr/share/mail/\xff.png\n/usr/share/mail/index.php\n";
        fs::write(lists.path().join("mail:amd64.list"), list).unwrap();
        read_dpkg(&mut owned, lists.path());
        owned.add_answer(b"wiki\t/usr/share/wiki/\xff/a\nwiki\t/usr/share/\xff/b\n");
        for directory in [
            &b"/usr/share/mail"[..],
            b"/usr/share/wiki",
            b"/usr/share/\xff",
        ] {
            let directory = Path::new(OsStr::from_bytes(directory));
            assert!(owned.is_of_one(directory), "{}", directory.display());
        }
    }

    #[test]
    fn a_package_has_directories_of_its_own() {
        let mut owned = Owned::default();
        for (package, path) in [
            ("mail", "/usr/share/mail/index.php"),
            ("mail", "/etc/mail/config.php"),
            ("mail", "/var/lib/mail/temp"),
            ("mail", "/usr/share/icons/mail.png"),
            ("mail", "/usr/share/doc/mail"),
            ("mail-data", "/usr/share/mail/data"),
            ("mail", "/etc/cron.d/mail"),
            ("other", "/etc/cron.d/other"),
            ("other", "/usr/share/doc/other"),
            ("mailer", "/etc/mail/mailer.conf"),
            ("wiki", "/usr/share/wiki/a/b"),
            ("wiki", "/var/lib/wiki/a"),
            ("wiki", "/usr/share"),
            ("wiki", "/etc/wiki.conf"),
        ] {
            owned.add(package.as_bytes(), path.as_bytes());
        }
        let parts = |own: &str, is_view: bool| -> Vec<String> {
            let own = Path::new(own);
            let parts = if owned.is_of_one(own) {
                owned.parts(own, |_, _| is_view)
            } else {
                vec![]
            };
            parts
                .iter()
                .map(|part| part.display().to_string())
                .collect()
        };
        assert_eq!(
            parts("/usr/share/mail", true),
            ["/usr/share/mail", "/var/lib/mail"]
        );
        assert_eq!(parts("/usr/share/mail", false), ["/usr/share/mail"]);
        assert_eq!(
            parts("/var/lib/wiki", false),
            ["/var/lib/wiki", "/usr/share/wiki"]
        );
        for others in ["/etc/mail", "/etc/cron.d", "/usr/share/doc", "/etc/none"] {
            assert_eq!(parts(others, true), Vec::<String>::new(), "{others}");
        }
    }
}
