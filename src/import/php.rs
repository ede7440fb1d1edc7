//! php.ini as PHP-FPM reads it for a pool, with the pool's own `php_value` and `php_admin_value` on
//! top.

use std::fs;
use std::path::{Path, PathBuf};

use super::fpm::Pool;
use super::php_ini::{Statement, statements};

/// PHP's settings in one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PhpSettings {
    /// The php.ini that was found.
    pub file: Option<PathBuf>,
    /// In the order in which they are read: the last one counts.
    values: Vec<(String, String)>,
}

impl PhpSettings {
    /// The settings of `pool`: php.ini beside or above its file, the directory of further files,
    /// the pool's own. A file that cannot be read says nothing, as for PHP.
    pub fn new(pool: &Pool) -> Self {
        let mut settings = Self::default();
        let above = pool.file.ancestors().skip(1);
        if let Some(file) = above
            .map(|directory| directory.join("php.ini"))
            .find(|file| file.is_file())
        {
            for file in [vec![file.clone()], further_files(&file)].concat() {
                settings.add(&super::text(&file).unwrap_or_default());
            }
            settings.file = Some(file);
        }
        for kind in ["php_value", "php_admin_value"] {
            settings.values.extend(pool.php_values(kind));
        }
        settings
    }

    fn add(&mut self, text: &[u8]) {
        let mut applies = true;
        let text = String::from_utf8_lossy(text);
        for statement in statements(&text, &|name| std::env::var(name).ok()) {
            match statement {
                // [PATH=…] and [HOST=…] are about some requests alone.
                Ok(Statement::Section(name)) => applies = !name.text.contains('='),
                Ok(Statement::Entry(key, Some(value))) if applies => {
                    self.values.push((key, value.text));
                }
                _ => {}
            }
        }
    }

    /// The value of a setting such as `session.save_path`, if it is set and not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        let value = self
            .values
            .iter()
            .rev()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// Whether a switch is on, where it is set.
    pub fn flag(&self, key: &str) -> Option<bool> {
        let (_, value) = self.values.iter().rev().find(|(known, _)| known == key)?;
        let value = value.to_ascii_lowercase();
        Some(["1", "on", "yes", "true"].contains(&value.as_str()))
    }

    /// Whether a Zend extension such as `opcache` is loaded.
    pub fn loads(&self, extension: &str) -> bool {
        let is_it = |value: &str| {
            Path::new(value)
                .file_stem()
                .is_some_and(|stem| stem == extension)
        };
        self.values
            .iter()
            .any(|(key, value)| key == "zend_extension" && is_it(value))
    }
}

/// The `*.ini` files of the directory that distributions keep beside php.ini, or beside its
/// directory.
fn further_files(php_ini: &Path) -> Vec<PathBuf> {
    let directories = php_ini.ancestors().skip(1).take(2);
    let places =
        directories.flat_map(|directory| [directory.join("conf.d"), directory.join("php.d")]);
    let Some(place) = places.into_iter().find(|place| place.is_dir()) else {
        return vec![];
    };
    let mut files: Vec<_> = fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "ini"));
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::super::fpm::pools;
    use super::*;

    #[test]
    fn the_last_word_is_the_pools_own() {
        let dir = tempfile::tempdir().unwrap();
        let fpm = dir.path().join("fpm");
        for below in ["pool.d", "conf.d"] {
            fs::create_dir_all(fpm.join(below)).unwrap();
        }
        let ini = "[PHP]\nopcache.enable=1\n;x=1\nsession.save_path = \"1;/a\" ; a comment\nsys_temp_dir=/t\n\
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
    }
}
