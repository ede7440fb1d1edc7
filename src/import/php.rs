//! PHP's settings in a pool: php.ini as PHP-FPM reads it, and then the pool's own `php_value` and
//! `php_admin_value`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::fpm::Pool;
use super::php_ini::{Statement, statements};

/// PHP's settings in one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PhpSettings {
    /// The php.ini that was found.
    pub file: Option<PathBuf>,
    /// The directory of further files that was found.
    pub directory: Option<PathBuf>,
    /// In the order in which they are read; the last one counts.
    values: Vec<(String, String)>,
    /// Where the pool's own begin in `values`.
    of_pool: usize,
}

impl PhpSettings {
    /// The settings of `pool`: from php.ini beside or above the pool's file, from the directory of
    /// further files, and the pool's own. A file that cannot be read is ignored, as by PHP.
    pub(crate) fn new(pool: &Pool) -> Self {
        Self::with(pool, php_ini_above(&pool.file))
    }

    /// As [`PhpSettings::new`], for a pool of this host whose file may be anywhere: without a
    /// php.ini above it, Debian's counts.
    pub(crate) fn of_host(pool: &Pool) -> Self {
        Self::with(pool, php_ini_above(&pool.file).or_else(only_php_ini))
    }

    fn with(pool: &Pool, php_ini: Option<PathBuf>) -> Self {
        let mut settings = Self::default();
        if let Some(php_ini) = php_ini {
            settings.add(&php_ini);
            settings.directory = further_files(&php_ini);
            let files = settings.directory.as_deref().map(ini_files);
            for file in files.unwrap_or_default() {
                settings.add(&file);
            }
            settings.file = Some(php_ini);
        }
        settings.of_pool = settings.values.len();
        for kind in ["php_value", "php_admin_value"] {
            settings.values.extend(pool.php_values(kind));
        }
        settings
    }

    fn add(&mut self, file: &Path) {
        let text = super::files::text(file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut applies = true;
        for statement in statements(&text, &|name| std::env::var(name).ok()) {
            match statement {
                // [PATH=…] and [HOST=…] only apply to some requests.
                Ok(Statement::Section(name)) => applies = !name.text.contains('='),
                Ok(Statement::Entry(key, Some(value))) if applies => {
                    self.values.push((key, value.text));
                }
                _ => {}
            }
        }
    }

    /// The value of a setting such as `session.save_path`, if it is set and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.last(key).filter(|value| !value.is_empty())
    }

    /// Whether a switch is on; `None`: it is not set.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let value = self.last(key)?.to_ascii_lowercase();
        Some(["1", "on", "yes", "true"].contains(&value.as_str()))
    }

    fn last(&self, key: &str) -> Option<&str> {
        let (_, value) = self.values.iter().rfind(|(known, _)| known == key)?;
        Some(value)
    }

    /// The settings that the pool itself makes.
    pub(crate) fn of_pool(&self) -> &[(String, String)] {
        &self.values[self.of_pool..]
    }

    /// Whether one of the functions is among those that may not be called.
    pub(crate) fn disables(&self, function: &str) -> bool {
        let names = self.get("disable_functions").unwrap_or_default();
        names.split(',').any(|name| name.trim() == function)
    }

    /// Whether `OPcache` is on, as far as the files tell: since PHP 8.5 it is built in, and no line
    /// need load it.
    pub(crate) fn has_opcache(&self) -> bool {
        self.flag("opcache.enable")
            .unwrap_or_else(|| self.loads("opcache"))
    }

    /// Whether the files load an extension such as `opcache` or `mysqli`. One that is built into
    /// PHP needs no line.
    pub(crate) fn loads(&self, extension: &str) -> bool {
        for (key, value) in &self.values {
            if (key == "zend_extension" || key == "extension")
                && let Some(name) = Path::new(value).file_stem().and_then(OsStr::to_str)
                && name.strip_prefix("php_").unwrap_or(name) == extension
            {
                return true;
            }
        }
        false
    }
}

/// The php.ini in the directory of `file`, or in the nearest one above that has one.
fn php_ini_above(file: &Path) -> Option<PathBuf> {
    for directory in file.ancestors().skip(1) {
        let php_ini = directory.join("php.ini");
        if php_ini.is_file() {
            return Some(php_ini);
        }
    }
    None
}

/// The php.ini of Debian's PHP-FPM, where there is one version.
fn only_php_ini() -> Option<PathBuf> {
    let mut found = glob::glob("/etc/php/*/fpm/php.ini").ok()?.flatten();
    found.next().filter(|_| found.next().is_none())
}

/// The directory of `*.ini` files that distributions keep beside php.ini, or beside the directory
/// of php.ini.
fn further_files(php_ini: &Path) -> Option<PathBuf> {
    for above in php_ini.ancestors().skip(1).take(2) {
        for name in ["conf.d", "php.d"] {
            let directory = above.join(name);
            if directory.is_dir() {
                return Some(directory);
            }
        }
    }
    None
}

/// Sorted, as PHP reads them.
fn ini_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let file = entry.path();
        if file.extension() == Some(OsStr::new("ini")) {
            files.push(file);
        }
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::super::fpm::pools;
    use super::*;

    #[test]
    fn the_pools_own_settings_count_most() {
        let dir = tempfile::tempdir().unwrap();
        let fpm = dir.path().join("fpm");
        for below in ["pool.d", "conf.d"] {
            fs::create_dir_all(fpm.join(below)).unwrap();
        }
        let ini = "[PHP]\nopcache.enable=1\n;x=1\nsession.save_path = \"1;/a\" ; a comment\n\
        sys_temp_dir=/t\n\
                   [PATH=/srv]\nsys_temp_dir=/other\n";
        fs::write(fpm.join("php.ini"), ini).unwrap();
        fs::write(
            fpm.join("conf.d/10-opcache.ini"),
            "zend_extension=opcache.so\nopcache.enable=Off\n",
        )
        .unwrap();
        fs::write(fpm.join("conf.d/README"), "sys_temp_dir=/wrong\n").unwrap();
        let pool = "[a]\nphp_admin_value[sys_temp_dir] = /mine\nphp_value[sys_temp_dir] = /less\n";
        fs::write(fpm.join("pool.d/a.conf"), pool).unwrap();
        let pools = pools(&fpm.join("pool.d/a.conf")).unwrap();
        let settings = PhpSettings::new(&pools[0]);
        assert_eq!(settings.file, Some(fpm.join("php.ini")));
        assert_eq!(settings.get("session.save_path"), Some("1;/a"));
        assert_eq!(settings.get("sys_temp_dir"), Some("/mine"));
        assert_eq!(
            (settings.flag("opcache.enable"), settings.flag("x")),
            (Some(false), None)
        );
        assert!(settings.loads("opcache") && !settings.loads("xdebug"));
        assert!(!settings.has_opcache());
        let pool = "[a]\nphp_admin_flag[opcache.enable] = on\n";
        fs::write(dir.path().join("built-in.conf"), pool).unwrap();
        let built_in = super::super::fpm::pools(&dir.path().join("built-in.conf")).unwrap();
        assert!(PhpSettings::new(&built_in[0]).has_opcache());
    }
}
