//! Files → pools, line by line, as PHP-FPM does it: a section goes on into the next file, the last
//! definition counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::masters::Master;
use super::{FpmConfiguration, Pool};
use crate::import::php_ini::{PhpValue, Statement, statements};
use crate::{Error, Result};

/// How deep PHP-FPM lets files include each other.
const DEPTH: usize = 5;

/// Names that php-fpm.conf(5) writes with a key in brackets.
const ARRAYS: [&str; 5] = [
    "env",
    "php_value",
    "php_admin_value",
    "php_flag",
    "php_admin_flag",
];

/// Directives without which nothing can be said of a pool's jail.
const NEEDED: [&str; 4] = ["prefix", "chroot", "user", "group"];

struct FpmReader<'m> {
    master: &'m Master,
    prefix: Option<&'m Path>,
    found: FpmConfiguration,
    /// What is wrong with each pool, if something is.
    odd: Vec<Option<Error>>,
    /// The section that is open; `None`: `[global]`.
    open: Option<usize>,
    depth: usize,
    /// Variables that were taken out of this process's own environment.
    borrowed: std::cell::RefCell<BTreeSet<String>>,
}

/// The pools of these files, which one master reads in this order.
///
/// Errors: one of them cannot be read.
pub(super) fn files(
    files: &[PathBuf],
    prefix: Option<&Path>,
    master: &Master,
) -> Result<FpmConfiguration> {
    let mut reader = FpmReader {
        master,
        prefix,
        found: FpmConfiguration::default(),
        odd: vec![],
        open: None,
        depth: 0,
        borrowed: std::cell::RefCell::default(),
    };
    for file in files {
        reader.file(file)?;
    }
    Ok(reader.finish())
}

/// The files that glob(3) finds, in its order: a leading dot is matched by a dot alone.
pub(super) fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let text = pattern.to_string_lossy();
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let cannot = |why: &dyn std::fmt::Display| {
        Error::failed(format!("cannot look for {text}")).because_of(why)
    };
    let paths = glob::glob_with(&as_glob3(&text), options).map_err(|error| cannot(&error))?;
    let mut paths = paths
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| cannot(&error))?;
    paths.retain(|path| !path.is_dir());
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(paths)
}

/// glob(3)'s pattern in the words of the `glob` crate: no `**`, `\` takes the meaning of what
/// follows, and a `[` that nothing closes means itself.
fn as_glob3(text: &str) -> String {
    let (mut pattern, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' if !rest.is_empty() => {
                let escaped = rest.chars().next().unwrap_or_default();
                pattern.push_str(&glob::Pattern::escape(&escaped.to_string()));
                rest = &rest[escaped.len_utf8()..];
            }
            '*' if pattern.ends_with('*') && !pattern.ends_with("[*") => {}
            '[' => {
                let inner = rest.strip_prefix(['!', '^']).unwrap_or(rest);
                let end = inner
                    .char_indices()
                    .skip(1)
                    .find(|(_, c)| *c == ']')
                    .map(|(at, _)| at);
                match end.filter(|end| !inner[..*end].contains('/')) {
                    Some(end) => {
                        let not = if inner.len() < rest.len() { "!" } else { "" };
                        pattern.extend(["[", not, &inner[..end], "]"]);
                        rest = &inner[end + 1..];
                    }
                    None => pattern.push_str("[[]"),
                }
            }
            c => pattern.push(c),
        }
    }
    pattern
}

impl FpmReader<'_> {
    fn file(&mut self, path: &Path) -> Result<()> {
        let text = crate::import::text(path)?;
        if self.depth == DEPTH {
            let deep = format!(
                "{}: files include each other more than {DEPTH} deep",
                path.display()
            );
            return Err(Error::failed(deep).hint("PHP-FPM reads no more either: `php-fpm --test`"));
        }
        self.depth += 1;
        self.found.files.push(path.to_owned());
        for (line, nth) in text.split(|byte| *byte == b'\n').zip(1..) {
            let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
            if let Err(error) = self.line(path, nth, &String::from_utf8_lossy(line)) {
                self.wrong(error);
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// What is wrong is the open pool's trouble alone.
    fn wrong(&mut self, error: Error) {
        match self.open {
            Some(nth) => drop(self.odd[nth].get_or_insert(error)),
            None => self.found.errors.push(error),
        }
    }

    fn line(&mut self, path: &Path, nth: usize, line: &str) -> Result<()> {
        let variables = |name: &str| {
            let (value, own) = self.master.variable(name)?;
            if own {
                self.borrowed.borrow_mut().insert(name.to_owned());
            }
            Some(value)
        };
        let failed = |why: &str| {
            Error::failed(format!(
                "{}:{nth}: `{}`: {why}",
                path.display(),
                line.trim()
            ))
            .hint("`php-fpm --test` tells what PHP-FPM thinks of it")
        };
        let mut include = None;
        for statement in statements(&format!("{line}\n"), &variables) {
            match statement.map_err(|why| failed(&why))? {
                Statement::Section(name) => self.section(&name, path, nth),
                Statement::Entry(_, None) => return Err(failed("it has no value")),
                Statement::Entry(name, Some(value)) if name == "include" => include = Some(value),
                Statement::Entry(name, Some(value)) => self.set(name.to_ascii_lowercase(), value),
                Statement::Item(name, key, mut value) if ARRAYS.contains(&name.as_str()) => {
                    // A flag is a value that is on or off, of which the last counts, whatever they
                    // are called.
                    if name.ends_with("_flag") && value.text.is_empty() {
                        "0".clone_into(&mut value.text);
                    }
                    self.set(
                        format!("{}[{}]", name.replace("_flag", "_value"), key.text),
                        value,
                    );
                }
                Statement::Item(..) => return Err(failed("php-fpm.conf(5) has no such directive")),
            }
        }
        match include {
            Some(value) => self.include(&value, &format!("{}:{nth}", path.display())),
            None => Ok(()),
        }
    }

    /// Begins a pool, or goes on with the one of this name, in whatever case.
    fn section(&mut self, name: &PhpValue, path: &Path, line: usize) {
        let name = &name.text;
        if name.eq_ignore_ascii_case("global") {
            self.open = None;
            return;
        }
        let known = self
            .found
            .pools
            .iter()
            .position(|pool| pool.name.eq_ignore_ascii_case(name));
        self.open = known.or_else(|| {
            let pool = Pool {
                name: name.clone(),
                file: path.to_owned(),
                line,
                ..Pool::default()
            };
            self.found.pools.push(pool);
            self.odd.push(None);
            Some(self.found.pools.len() - 1)
        });
    }

    fn set(&mut self, name: String, mut value: PhpValue) {
        if let Some(pool) = self.open.map(|nth| &mut self.found.pools[nth]) {
            value.text = value.text.replace("$pool", &pool.name);
            pool.directives.insert(name, value);
        }
    }

    fn include(&mut self, value: &PhpValue, place: &str) -> Result<()> {
        let named = format!("{place}: include = {}", value.text);
        if let Some(unknown) = &value.unknown {
            return Err(Error::failed(format!(
                "{place}: include: {}",
                not_known(unknown)
            )));
        }
        let pattern = full_path(&value.text, self.prefix());
        let files = matching(Path::new(&pattern)).map_err(|error| error.context(&named))?;
        if files.is_empty() {
            let from = if pattern == value.text {
                String::new()
            } else {
                format!(", which is {pattern}")
            };
            self.found
                .warnings
                .push(format!("{named}{from}: no file matches"));
        }
        for file in files {
            self.file(&file).map_err(|error| error.context(&named))?;
        }
        Ok(())
    }

    /// Where relative paths count from.
    fn prefix(&self) -> &Path {
        self.prefix.unwrap_or(&self.master.prefix)
    }

    fn finish(mut self) -> FpmConfiguration {
        let prefix = self.prefix().to_owned();
        let pools = std::mem::take(&mut self.found.pools);
        for (mut pool, odd) in pools.into_iter().zip(self.odd) {
            let named = format!("{}: pool {}", pool.place(), pool.name);
            match odd.map_or_else(|| pool.complete(&prefix), Err) {
                Ok(()) => self.found.pools.push(pool),
                Err(error)
                    if error
                        .to_string()
                        .starts_with(&pool.file.display().to_string()) =>
                {
                    self.found
                        .errors
                        .push(error.context(format_args!("pool {}", pool.name)));
                }
                Err(error) => self.found.errors.push(error.context(named)),
            }
        }
        for name in self.borrowed.into_inner() {
            let value = std::env::var(&name).unwrap_or_default();
            self.found.warnings.push(format!(
                "{}: no master process runs that could tell its environment; ${{{name}}} is {value}, as in the \
                 environment of this command",
                self.found.files.first().map(|file| file.display().to_string()).unwrap_or_default()
            ));
        }
        self.found
    }
}

impl Pool {
    /// Fills in what PHP-FPM fills in once all is read: paths that count from a prefix.
    ///
    /// Errors: something cannot be known that the jail depends on.
    fn complete(&mut self, prefix: &Path) -> Result<()> {
        for name in NEEDED {
            let Some(value) = self.directives.get(name) else {
                continue;
            };
            if let Some(unknown) = &value.unknown {
                return Err(Error::failed(format!("{name}: {}", not_known(unknown))).hint(
                    "start its master process, or set the variable for this command as it is set for PHP-FPM",
                ));
            }
            if value.text.contains('\u{fffd}') {
                return Err(Error::failed(format!(
                    "{name} = {}: it is not UTF-8",
                    value.text
                )));
            }
        }
        if let Some(own) = self.get("prefix").map(|own| full_path(own, prefix)) {
            self.directives
                .insert("prefix".to_owned(), PhpValue::of(own));
        }
        if let Some(chroot) = self.chroot() {
            let chroot = rooted(&chroot, self.known("prefix"), prefix)?;
            self.directives
                .insert("chroot".to_owned(), PhpValue::of(chroot));
        }
        Ok(())
    }
}

/// `path` itself, if it is absolute, else below `prefix`.
fn full_path(path: &str, prefix: &Path) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", prefix.display())
    }
}

/// A `chroot` that begins with `$prefix`, or is relative, below the pool's own prefix, else below
/// the master's.
fn rooted(chroot: &str, own: Option<&str>, prefix: &Path) -> Result<String> {
    if chroot.starts_with('/') {
        return Ok(chroot.to_owned());
    }
    let base = own.map_or_else(|| prefix.display().to_string(), ToOwned::to_owned);
    let path = match chroot.split_once("$prefix") {
        Some(("", "")) => base,
        Some(("", rest)) => format!("{base}/{rest}"),
        Some(_) => {
            let why = "PHP-FPM knows `$prefix` at the beginning of a value alone";
            return Err(Error::failed(format!("chroot = {chroot}")).because_of(why));
        }
        None => format!("{base}/{chroot}"),
    };
    Ok(full_path(&path, prefix))
}

fn not_known(what: &str) -> String {
    if what.starts_with("${") {
        format!(
            "{what} stands for a variable of the master's environment, which cannot be seen now"
        )
    } else {
        format!("{what} is a constant that each build of PHP has its own value of")
    }
}
