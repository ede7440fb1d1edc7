//! Patterns of `glob(7)` on the host.

use std::ffi::OsStr;
use std::path::{Component, Path};

use super::host::Host;
use super::types::FileKind;
use crate::Error;
use crate::manifest::HostPath;

impl Host {
    /// The paths that `pattern` (`glob(7)`) stands for, sorted; a leading dot is matched only by a dot.
    pub(super) fn glob(&self, pattern: &HostPath) -> Result<Vec<HostPath>, Error> {
        let bad = |why: String| Error::usage(format!("cannot use the pattern {pattern}")).because_of(why);
        let relative = pattern.as_path().strip_prefix("/").unwrap_or(pattern.as_path());
        let relative = relative.to_str().ok_or_else(|| bad("it is not UTF-8".to_owned()))?;
        let base = self.on_disk(Path::new("/"));
        let escaped = glob::Pattern::escape(&base.to_string_lossy());
        let whole = format!("{}/{relative}", escaped.trim_end_matches('/'));
        self.note_pattern(pattern);
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let found = glob::glob_with(&whole, options).map_err(|error| bad(error.to_string()))?;
        let mut paths = vec![];
        for path in found {
            let path = path.map_err(|error| {
                Error::failed(format!("cannot look for {pattern} in {}", error.path().display()))
                    .because(error.error())
            })?;
            let path = Path::new("/").join(path.strip_prefix(&base).unwrap_or(&path));
            paths.extend(HostPath::new(path).ok());
        }
        paths.sort();
        Ok(paths)
    }

    /// Remembers all that a file which comes or goes later can make this pattern stand for something else by.
    fn note_pattern(&self, pattern: &HostPath) {
        if !self.is_recording() {
            return;
        }
        let mut directories = vec![HostPath::slash()];
        for component in pattern.as_path().components() {
            let Component::Normal(name) = component else { continue };
            directories = directories.iter().flat_map(|directory| self.matching(directory, name)).collect();
        }
    }

    /// What one component of a pattern stands for in `directory`; `**` for all directories at any depth.
    fn matching(&self, directory: &HostPath, name: &OsStr) -> Vec<HostPath> {
        let text = name.to_string_lossy();
        if !text.contains(['*', '?', '[']) {
            return directory.join(name).ok().filter(|path| self.exists(path)).into_iter().collect();
        }
        let inside = self.read_dir(directory).unwrap_or_default();
        let inside = inside.iter().filter_map(|name| directory.join(name).ok());
        if text == "**" {
            let real =
                |path: &HostPath| self.now(path).is_ok_and(|(stat, _)| stat.kind == FileKind::Directory);
            let below = inside.filter(real).flat_map(|below| self.matching(&below, name));
            return std::iter::once(directory.clone()).chain(below).collect();
        }
        let Ok(pattern) = glob::Pattern::new(&text) else { return vec![] };
        let matches =
            |path: &HostPath| path.file_name().is_some_and(|name| pattern.matches(&name.to_string_lossy()));
        inside.filter(matches).collect()
    }
}
