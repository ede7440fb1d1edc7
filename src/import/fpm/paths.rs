//! The paths that PHP's settings in a pool name: what it writes, and code that it reads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::pool::Pool;
use crate::import::php::PhpSettings;

/// Where Debian's PHP keeps sessions when nothing is set.
const DEBIANS_SESSIONS: &str = "/var/lib/php/sessions";

/// Settings that name a file to which PHP appends.
const LOGS: [&str; 2] = ["error_log", "mail.log"];

/// A directory that PHP writes to, or a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Written {
    pub path: PathBuf,
    pub what_for: &'static str,
    pub is_file: bool,
}

impl Written {
    /// The directory that has to be there.
    pub(crate) fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(above) if self.is_file => above,
            _ => &self.path,
        }
    }
}

/// The directories and files that PHP writes to, each once.
pub(crate) fn written_by(pool: &Pool, settings: &PhpSettings) -> Vec<Written> {
    let temporary = settings.get("sys_temp_dir").or(pool.env("TMPDIR"));
    let temporary = temporary.unwrap_or("/tmp");

    let mut needed = vec![(temporary, "temporary files", false)];
    if settings.flag("file_uploads") != Some(false) {
        let uploads = settings.get("upload_tmp_dir").unwrap_or(temporary);
        needed.push((uploads, "uploads", false));
    }
    if matches!(settings.get("session.save_handler"), None | Some("files")) {
        let sessions = session_directory(settings).unwrap_or(temporary);
        needed.push((sessions, "sessions", false));
    }
    for setting in LOGS {
        let is_off = setting == "error_log" && settings.flag("log_errors") == Some(false);
        // A relative path begins at the directory of a script, and `syslog` is no path.
        if let Some(file) = settings.get(setting).filter(|file| file.starts_with('/'))
            && !is_off
        {
            needed.push((file, setting, true));
        }
    }

    let mut known = BTreeSet::new();
    needed.retain(|(path, ..)| known.insert(*path));
    let mut written = vec![];
    for (path, what_for, is_file) in needed {
        written.push(Written {
            path: PathBuf::from(path),
            what_for,
            is_file,
        });
    }
    written
}

fn session_directory(settings: &PhpSettings) -> Option<&str> {
    if let Some(set) = settings.get("session.save_path") {
        return set.rsplit(';').next(); // "N;MODE;/path"
    }
    let is_debians = Path::new(DEBIANS_SESSIONS).is_dir();
    is_debians.then_some(DEBIANS_SESSIONS)
}

/// The mode of a directory that PHP writes to. `/tmp` is everybody's; files of sessions and logs
/// are not for other users to list.
pub(crate) fn mode_of_written(path: &Path) -> &'static str {
    if path.ends_with("tmp") {
        "1777"
    } else {
        "1733"
    }
}

/// Code that PHP reads, besides the scripts that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Included {
    /// An absolute path: a file, or a directory.
    pub path: String,
    pub setting: &'static str,
    /// PHP answers no request without it.
    pub is_needed: bool,
}

/// The code that settings name by absolute paths. PHP's own default of `include_path` is not
/// among it.
pub(crate) fn included_by(settings: &PhpSettings) -> Vec<Included> {
    let mut included = vec![];
    for setting in ["auto_prepend_file", "auto_append_file"] {
        included.extend(settings.get(setting).map(|path| (path, setting, true)));
    }
    let directories = settings.get("include_path").unwrap_or_default();
    included.extend(
        directories
            .split(':')
            .map(|path| (path, "include_path", false)),
    );
    included.retain(|(path, ..)| path.starts_with('/'));
    let mut found = vec![];
    for (path, setting, is_needed) in included {
        found.push(Included {
            path: path.to_owned(),
            setting,
            is_needed,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_named_tmp_is_everybodys() {
        for (path, mode) in [
            ("/tmp", "1777"),
            ("/var/tmp", "1777"),
            ("/srv/upload_tmp", "1733"),
            ("/var/lib/php/sessions", "1733"),
        ] {
            assert_eq!(mode_of_written(Path::new(path)), mode, "{path}");
        }
    }
}
