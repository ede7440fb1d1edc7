//! The directories that belong together: those where an interpreter looks for what it loads, and
//! those of one package.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
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
const ABOVE_PACKAGES: [&str; 4] = ["/etc", "/usr/lib", "/usr/share", "/var/lib"];

/// What dpkg(1) knows of its packages' files.
const DPKG: &str = "/var/lib/dpkg/info";

/// How many files of a directory are looked at for objects.
const MOST_FILES: usize = 20_000;

/// The whole directories that `path` is a part of, one or all those of its interpreter; none: it
/// stands alone.
pub(super) fn directories_of(path: &HostPath) -> Vec<HostPath> {
    for group in SEARCHED {
        let Some(own) = group.iter().find_map(|known| below(path, known)) else {
            continue;
        };
        let mut found = vec![own];
        for pattern in group.iter().filter(|known| below(path, known).is_none()) {
            let paths = glob::glob(pattern).into_iter().flatten().flatten();
            found.extend(paths.filter_map(|path| HostPath::new(path).ok()));
        }
        return found;
    }
    of_package(path).into_iter().collect()
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

/// The directory of the package that has `path`, if the directory is that package's alone.
fn of_package(path: &HostPath) -> Option<HostPath> {
    let above = ABOVE_PACKAGES
        .iter()
        .find(|above| path.as_path().starts_with(above))?;
    let name = path.as_path().strip_prefix(above).ok()?.iter().next()?;
    let directory = Path::new(above).join(name);
    let is_of_one = directory != path.as_path() && owners().get(&directory) == Some(&1);
    is_of_one.then(|| HostPath::new(directory).ok()).flatten()
}

/// How many packages have each directory right below [`ABOVE_PACKAGES`].
fn owners() -> &'static HashMap<PathBuf, usize> {
    static OWNERS: OnceLock<HashMap<PathBuf, usize>> = OnceLock::new();
    OWNERS.get_or_init(|| {
        let mut owners = HashMap::new();
        for entry in fs::read_dir(DPKG).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "list") {
                count(&entry.path(), &mut owners);
            }
        }
        owners
    })
}

fn count(list: &Path, owners: &mut HashMap<PathBuf, usize>) {
    let Ok(file) = fs::File::open(list) else {
        return;
    };
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        let path = Path::new(&line);
        let above = path.parent().and_then(Path::to_str);
        if above.is_some_and(|above| ABOVE_PACKAGES.contains(&above)) {
            *owners.entry(path.to_owned()).or_default() += 1;
        }
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
}
