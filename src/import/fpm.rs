//! php-fpm.conf and its pools, as `php-fpm.conf(5)` and PHP's manual describe them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::draft::{Draft, Item, Kind};
use crate::manifest::HostPath;
use crate::resolve::Host;
use crate::{Error, Result};

/// How deep files may include each other.
const DEPTH: usize = 8;

/// One pool, its directives with `$pool` filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// `[www]`
    pub name: String,
    /// Where its section begins.
    pub file: PathBuf,
    /// The line of it, from 1.
    pub line: usize,
    directives: HashMap<String, String>,
}

impl Pool {
    /// The value of a directive such as `chroot`, if it is set and not empty.
    pub fn get(&self, directive: &str) -> Option<&str> {
        self.directives.get(directive).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `chroot`, with the pool's `prefix` in the place of `$prefix`.
    pub fn chroot(&self) -> Option<String> {
        let chroot = self.get("chroot")?;
        Some(match self.get("prefix") {
            Some(prefix) => chroot.replace("$prefix", prefix),
            None => chroot.to_owned(),
        })
    }

    /// `FILE:LINE`, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// The PHP settings that the pool makes by `kind`, such as `php_admin_value`.
    pub(super) fn php_values(&self, kind: &str) -> Vec<(String, String)> {
        let setting =
            |key: &str| Some(key.strip_prefix(kind)?.strip_prefix('[')?.strip_suffix(']')?.to_owned());
        self.directives.iter().filter_map(|(key, value)| Some((setting(key)?, value.clone()))).collect()
    }

    /// Whether its chroot is the directory `root`, by whatever links of root's it gets there. A link in the hands of
    /// others is none's word for whose the root is.
    pub fn lives_in(&self, host: &Host, root: &HostPath) -> bool {
        let Some(chroot) = self.chroot().and_then(|chroot| HostPath::new(chroot).ok()) else { return false };
        let directory = |path: &HostPath| host.walk_strictly(path).ok().map(|walk| walk.stat.file);
        chroot == *root || directory(&chroot).is_some_and(|found| Some(found) == directory(root))
    }
}

/// The pools of `path`: a php-fpm.conf, a single pool's file, or a directory such as `/etc/php/8.2/fpm`.
///
/// Errors: a file cannot be read; a line is neither a section nor a directive (with file and line); files that
/// include each other.
pub fn pools(path: &Path) -> Result<Vec<Pool>> {
    let mut reader = Reader::default();
    reader.path(path)?;
    Ok(reader.pools)
}

/// The configurations of this host, one a master process.
pub fn masters() -> Vec<PathBuf> {
    let places = ["/etc/php/*/fpm", "/etc/php-fpm.conf", "/etc/php*/php-fpm.conf"];
    places.iter().filter_map(|place| glob::glob(place).ok()).flatten().flatten().collect()
}

/// The sites of these pools: one a chroot, with the users and services of all its pools.
pub fn drafts(pools: &[Pool]) -> Result<Vec<Draft>> {
    let mut drafts: Vec<Draft> = vec![];
    for pool in pools {
        let Some(chroot) = pool.chroot() else { continue };
        let root = HostPath::new(&chroot).map_err(|why| {
            Error::failed(format!("{}: pool {}: chroot = {chroot}", pool.place(), pool.name)).because_of(why)
        })?;
        let nth = drafts.iter().position(|draft| draft.root() == Some(&root)).unwrap_or_else(|| {
            let draft = Draft::new(pool.name.clone(), Kind::Site(root.clone()));
            drafts.push(Draft { place: pool.place(), presets: vec!["php-fpm".to_owned()], ..draft });
            drafts.len() - 1
        });
        add(&mut drafts[nth], &root, pool);
    }
    Ok(drafts)
}

fn add(draft: &mut Draft, root: &HostPath, pool: &Pool) {
    draft.found.push(format!("The pool {} of {}.", pool.name, pool.file.display()));
    draft.services.extend(service_of(&pool.file));
    match pool.get("user") {
        Some(user) if user.bytes().all(|byte| byte.is_ascii_digit()) => draft.remarks.push(format!(
            "The pool {} runs as the user with the id {user}: name that user under `users`, and it has a name inside.",
            pool.name
        )),
        Some(user) if draft.users.iter().all(|known| known.any_of != [user]) => {
            draft.users.push(Item::new(user));
            draft.users.sort_by(|a, b| a.any_of.cmp(&b.any_of));
        }
        _ => {}
    }
    if let Some(listen) = pool.get("listen")
        && Path::new(listen).starts_with(root)
    {
        draft.remarks.push(format!(
            "The socket {listen} of the pool {} is inside the root: the site's owner can replace it.",
            pool.name
        ));
    }
}

/// The unit that runs the pools of a file, by the places of Debian's packages and of everybody else's.
fn service_of(file: &Path) -> Option<String> {
    let parts: Vec<_> = file.components().filter_map(|part| part.as_os_str().to_str()).collect();
    match parts.as_slice() {
        [_, "etc", "php", version, "fpm", ..] => Some(format!("php{version}-fpm.service")),
        [_, "etc", "php-fpm.conf" | "php-fpm.d", ..] => Some("php-fpm.service".to_owned()),
        _ => None,
    }
}

#[derive(Default)]
struct Reader {
    pools: Vec<Pool>,
    depth: usize,
}

impl Reader {
    fn path(&mut self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            return self.file(path);
        }
        let main = path.join("php-fpm.conf");
        if main.exists() { self.file(&main) } else { self.matching(&path.join("*.conf")) }
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let text = super::text(path)?;
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Error::failed(format!("{} is included by itself", path.display())));
        }
        let mut pool = None;
        for (line, nth) in String::from_utf8_lossy(&text).lines().zip(1..) {
            match item(line) {
                Some(IniLine::Nothing) => {}
                Some(IniLine::Section(name)) => pool = self.pool(name, path, nth),
                Some(IniLine::Directive("include", pattern)) => {
                    let beside = path.parent().unwrap_or(Path::new("/"));
                    self.matching(&beside.join(pattern))?;
                }
                Some(IniLine::Directive(key, value)) => {
                    if let Some(pool) = pool.and_then(|nth| self.pools.get_mut(nth)) {
                        let value = value.replace("$pool", &pool.name);
                        pool.directives.insert(key.to_owned(), value);
                    }
                }
                None => {
                    let place = format!("{}:{nth}", path.display());
                    return Err(Error::failed(format!(
                        "{place}: `{line}` is no directive of php-fpm.conf(5)"
                    ))
                    .hint("`php-fpm --test` says what PHP-FPM thinks of it"));
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// The index of the pool of this name; `None` for `[global]`, which is none.
    fn pool(&mut self, name: &str, file: &Path, line: usize) -> Option<usize> {
        if name == "global" {
            return None;
        }
        let known = self.pools.iter().position(|pool| pool.name == name);
        known.or_else(|| {
            self.pools.push(Pool { name: name.to_owned(), file: file.to_owned(), line, ..Pool::default() });
            Some(self.pools.len() - 1)
        })
    }

    fn matching(&mut self, pattern: &Path) -> Result<()> {
        let text = pattern.to_string_lossy();
        let cannot =
            |why: &dyn std::fmt::Display| Error::failed(format!("cannot look for {text}")).because_of(why);
        for file in glob::glob(&text).map_err(|error| cannot(&error))? {
            self.file(&file.map_err(|error| cannot(&error))?)?;
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum IniLine<'t> {
    Nothing,
    Section(&'t str),
    Directive(&'t str, String),
}

/// One line; `None`: it is none of PHP's ini format.
pub(super) fn item(line: &str) -> Option<IniLine<'_>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with([';', '#']) {
        return Some(IniLine::Nothing);
    }
    if let Some(rest) = line.strip_prefix('[') {
        return rest.split_once(']').map(|(name, _)| IniLine::Section(name.trim()));
    }
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let value = match value.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        Some((quoted, _)) => quoted,
        None => value.split(';').next().unwrap_or_default().trim(),
    };
    (!key.is_empty()).then(|| IniLine::Directive(key, value.to_owned()))
}
