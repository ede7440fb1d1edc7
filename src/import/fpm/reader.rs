//! Files → pools, line by line, as PHP-FPM reads them: a section continues in the next file, and
//! the last definition counts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::master::Master;
use super::pool::{FpmConfiguration, Pool};
use super::refused;
use crate::base::ErrorContext;
use crate::import::glob3::matching;
use crate::import::php_ini::{PhpValue, Statement, statements};
use crate::{Error, Result};

/// How deep PHP-FPM lets files include each other.
const MAX_DEPTH: usize = 5;

/// The names that php-fpm.conf(5) has with a key in brackets.
const ARRAYS: [&str; 5] = [
    "env",
    "php_value",
    "php_admin_value",
    "php_flag",
    "php_admin_flag",
];

/// The directive that is an array of paths, without keys.
const PATHS: &str = "access.suppress_path";

/// The directives that a pool's jail depends on.
const NEEDED: [&str; 4] = ["prefix", "chroot", "user", "group"];

struct FpmReader<'m> {
    master: &'m Master,
    prefix: Option<&'m Path>,
    result: FpmConfiguration,
    /// The mistake in each pool, if there is one.
    pool_errors: Vec<Option<Error>>,
    /// The pool whose section is open; `None`: `[global]`.
    open: Option<usize>,
    depth: usize,
    /// The variables that were taken from this process's own environment.
    borrowed: RefCell<BTreeSet<String>>,
}

/// The pools of these files, which one master reads in this order. `prefix`: where relative paths
/// begin; `None`: it is not known, and pools that depend on it are wrong.
///
/// Errors: one of the files cannot be read.
pub(super) fn files(
    files: &[PathBuf],
    prefix: Option<&Path>,
    master: &Master,
) -> Result<FpmConfiguration> {
    let mut reader = FpmReader {
        master,
        prefix,
        result: FpmConfiguration::default(),
        pool_errors: vec![],
        open: None,
        depth: 0,
        borrowed: RefCell::default(),
    };
    for file in files {
        reader.file(file)?;
    }
    Ok(reader.finish())
}

impl FpmReader<'_> {
    fn file(&mut self, path: &Path) -> Result<()> {
        let text = crate::import::files::text(path)?;
        if self.depth == MAX_DEPTH {
            let deep = format!(
                "{}: files include each other more than {MAX_DEPTH} deep",
                path.display()
            );
            let hint = "PHP-FPM refuses that, too: see `php-fpm --test`";
            return Err(Error::failed(deep).hint(hint));
        }
        self.depth += 1;
        self.result.files.push(path.to_owned());
        for (line, nth) in text.split(|byte| *byte == b'\n').zip(1..) {
            let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
            if let Err(error) = self.line(path, nth, &String::from_utf8_lossy(line)) {
                self.wrong(self.open, error);
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// The mistake concerns only the pool `section`.
    fn wrong(&mut self, section: Option<usize>, error: Error) {
        match section {
            Some(nth) => drop(self.pool_errors[nth].get_or_insert(error)),
            None => self.result.errors.push(error),
        }
    }

    fn line(&mut self, path: &Path, nth: usize, line: &str) -> Result<()> {
        let place = format!("{}:{nth}", path.display());
        let failed = |why: &str| {
            Error::failed(format!("{place}: `{}`: {why}", line.trim()))
                .hint("see what PHP-FPM reports: `php-fpm --test`")
        };

        let mut include = None;
        for statement in self.statements(line) {
            match statement.map_err(|why| failed(&why))? {
                Statement::Section(name) => self.section(&name, path, nth),
                Statement::Entry(_, None) => return Err(failed("it has no value")),
                Statement::Entry(name, Some(value)) if name == "include" => include = Some(value),
                Statement::Entry(name, Some(value)) => {
                    let name = name.to_ascii_lowercase();
                    self.warn_outside(&place, &name);
                    self.refuse(&place, refused::of_value(&name, &value));
                    self.set(name, value);
                }
                Statement::Item(name, key, value) if ARRAYS.contains(&name.as_str()) => {
                    self.warn_outside(&place, &name);
                    if key.text.is_empty() {
                        return Err(failed("the brackets have no key"));
                    }
                    let item = format!("{name}[{}]", key.text);
                    let refused = if name.ends_with("_flag") {
                        refused::of_flag(&item, &value)
                    } else {
                        refused::of_value(&item, &value)
                    };
                    self.refuse(&place, refused);
                    self.set_item(&name, &key.text, value);
                }
                // No jail depends on it.
                Statement::Item(name, key, value) if name == PATHS => {
                    if !key.text.is_empty() {
                        return Err(failed("the brackets have a key"));
                    }
                    if !value.text.starts_with('/') {
                        return Err(failed("the path does not begin with /"));
                    }
                }
                Statement::Item(..) => return Err(failed("php-fpm.conf(5) has no such directive")),
            }
        }
        match include {
            Some(value) => self.include(&value, &place),
            None => Ok(()),
        }
    }

    fn statements(&self, line: &str) -> Vec<Result<Statement, String>> {
        let variable = |name: &str| {
            let (value, is_borrowed) = self.master.variable(name)?;
            if is_borrowed {
                self.borrowed.borrow_mut().insert(name.to_owned());
            }
            Some(value)
        };
        statements(&format!("{line}\n"), &variable)
    }

    /// Begins a pool, or continues the one with this name, in upper or lower case.
    fn section(&mut self, name: &PhpValue, path: &Path, line: usize) {
        let name = &name.text;
        if name.eq_ignore_ascii_case("global") {
            self.open = None;
            return;
        }
        let pools = &mut self.result.pools;
        let known = pools
            .iter()
            .position(|pool| pool.name.eq_ignore_ascii_case(name));
        if known.is_some() {
            self.open = known;
            return;
        }
        self.open = Some(pools.len());
        pools.push(Pool {
            name: name.clone(),
            file: path.to_owned(),
            line,
            ..Pool::default()
        });
        self.pool_errors.push(None);
    }

    fn set(&mut self, name: String, mut value: PhpValue) {
        if let Some(nth) = self.open {
            let pool = &mut self.result.pools[nth];
            value.text = value.text.replace("$pool", &pool.name);
            pool.directives.insert(name, value);
        }
    }

    /// Warns of a pool's directive that stands in no pool.
    fn warn_outside(&mut self, place: &str, name: &str) {
        let is_of_pool = refused::is_of_pool(name) || ARRAYS.contains(&name);
        if self.open.is_none() && is_of_pool {
            self.result.warnings.push(format!(
                "{place}: `{name}` belongs to a pool, but stands before the first one or in \
                 [global], where PHP-FPM refuses it"
            ));
        }
    }

    /// Notes why PHP-FPM refuses a value of the open pool.
    fn refuse(&mut self, place: &str, why: Option<String>) {
        if let (Some(nth), Some(why)) = (self.open, why) {
            let pool = &mut self.result.pools[nth];
            pool.refused_values.push(format!("{place}: {why}"));
        }
    }

    /// `name[key] = value`. A flag is a value that is on or off, and the last of both counts.
    fn set_item(&mut self, name: &str, key: &str, mut value: PhpValue) {
        if name.ends_with("_flag") && value.text.is_empty() {
            "0".clone_into(&mut value.text);
        }
        let name = name.replace("_flag", "_value");
        self.set(format!("{name}[{key}]"), value);
    }

    fn include(&mut self, value: &PhpValue, place: &str) -> Result<()> {
        let named = format!("{place}: include = {}", value.text);
        if let Some(unknown) = &value.unknown {
            let why = not_known(unknown);
            return Err(Error::failed(format!("{place}: include: {why}")));
        }

        self.result.needs_prefix |= !value.text.starts_with('/');
        let pattern = full_path(&value.text, self.prefix).context(&named)?;
        let files = matching(Path::new(&pattern)).context(&named)?;
        if files.is_empty() {
            let from = if pattern == value.text {
                String::new()
            } else {
                format!(", which is {pattern}")
            };
            let why = if Path::new(&pattern).is_dir() {
                "PHP-FPM reads no file of a directory; `/*.conf` after it would name its files"
            } else {
                "no file matches"
            };
            self.result.warnings.push(format!("{named}{from}: {why}"));
        }
        // What other files have opened meanwhile has nothing to do with one that cannot be read.
        let section = self.open;
        for file in files {
            if let Err(error) = self.file(&file).context(&named) {
                self.wrong(section, error);
                // Files that include each other in a circle do so in each file again.
                if self.depth > 1 {
                    break;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> FpmConfiguration {
        let pools = std::mem::take(&mut self.result.pools);
        for (mut pool, error) in pools.into_iter().zip(self.pool_errors) {
            self.result.needs_prefix |= pool.depends_on_prefix();
            let completed = match error {
                Some(error) => Err(error),
                None => pool.complete(self.prefix),
            };
            match completed {
                Ok(()) => self.result.pools.push(pool),
                Err(error) => self.result.errors.push(of_pool(&pool, error)),
            }
        }

        let file = match self.result.files.first() {
            Some(file) => file.display().to_string(),
            None => String::new(),
        };
        for name in self.borrowed.into_inner() {
            let value = std::env::var(&name).unwrap_or_default();
            self.result.warnings.push(format!(
                "{file}: no master process is running whose environment could be read; ${{{name}}} \
                 is {value}, as in the environment of this command"
            ));
        }
        self.result
    }
}

/// The error names the pool, and its place if it does not begin with a place already.
fn of_pool(pool: &Pool, error: Error) -> Error {
    let name = &pool.name;
    let has_place = error
        .to_string()
        .starts_with(&pool.file.display().to_string());
    if has_place {
        error.context(format_args!("pool {name}"))
    } else {
        error.context(format_args!("{}: pool {name}", pool.place()))
    }
}

impl Pool {
    /// Whether its chroot begins at the master's prefix.
    fn depends_on_prefix(&self) -> bool {
        let begins = |path: &str| !path.is_empty() && !path.starts_with('/');
        self.chroot().is_some_and(begins) && self.known("prefix").is_none_or(begins)
    }

    /// Makes paths that begin at a prefix absolute, which PHP-FPM does after it has read
    /// everything.
    ///
    /// Errors: a value that the jail depends on cannot be known.
    fn complete(&mut self, prefix: Option<&Path>) -> Result<()> {
        for name in NEEDED {
            let Some(value) = self.directives.get(name) else {
                continue;
            };
            if let Some(unknown) = &value.unknown {
                let failed = Error::failed(format!("{name}: {}", not_known(unknown)));
                return Err(match variable_name(unknown) {
                    Some(variable) => failed.hint(format!(
                        "set it for this command as it is set for PHP-FPM: `{variable}=VALUE \
                         mountjail import …`"
                    )),
                    None => failed,
                });
            }
            if value.text.contains('\u{fffd}') {
                let text = &value.text;
                return Err(Error::failed(format!("{name} = {text}: it is not UTF-8")));
            }
        }
        if let Some(own) = self.get("prefix")
            && let Ok(own) = full_path(own, prefix)
        {
            self.directives
                .insert("prefix".to_owned(), PhpValue::new(own));
        }
        if let Some(chroot) = self.chroot() {
            let chroot = rooted(chroot, self.known("prefix"), prefix)?;
            self.directives
                .insert("chroot".to_owned(), PhpValue::new(chroot));
        }
        Ok(())
    }
}

/// An absolute path as it is, another one below the master's prefix.
///
/// Errors: the prefix is not known.
fn full_path(path: &str, prefix: Option<&Path>) -> Result<String> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let Some(prefix) = prefix else {
        let unknown = "it begins at the prefix of PHP-FPM's master process, which cannot be known";
        let hint = "name the prefix: `mountjail import --prefix DIRECTORY`";
        return Err(Error::failed(unknown).hint(hint));
    };
    Ok(format!("{}/{path}", prefix.display()))
}

/// The absolute path of a `chroot`. If it is relative or begins with `$prefix`, it is below the
/// pool's own prefix, or if there is none, below the master's.
fn rooted(chroot: &str, own: Option<&str>, prefix: Option<&Path>) -> Result<String> {
    if chroot.starts_with('/') {
        return Ok(chroot.to_owned());
    }
    let below = match chroot.split_once("$prefix") {
        Some(("", rest)) => rest,
        Some(_) => {
            let why = "PHP-FPM knows `$prefix` only at the beginning of a value";
            return Err(Error::failed(format!("chroot = {chroot}")).because_of(why));
        }
        None => chroot,
    };
    let of_master = prefix.map(|prefix| prefix.display().to_string());
    let path = match own.map(str::to_owned).or(of_master) {
        Some(base) if below.is_empty() => base,
        Some(base) => format!("{base}/{below}"),
        None => below.trim_start_matches('/').to_owned(), // an error
    };
    full_path(&path, prefix).context(format_args!("chroot = {chroot}"))
}

/// `NAME` of `${NAME}`.
fn variable_name(what: &str) -> Option<&str> {
    what.strip_prefix("${")?.strip_suffix('}')
}

fn not_known(what: &str) -> String {
    if what.starts_with("${") {
        format!(
            "{what} stands for a variable of the master's environment, which cannot be read now"
        )
    } else {
        format!("{what} is a constant, whose value depends on the build of PHP")
    }
}
