//! Patterns of `glob(7)` on the host.

use std::path::Component;

use super::desired::FileKind;
use super::host::Host;
use super::lookup_error::{LookupError, found};
use crate::Error;
use crate::base::{ErrorContext, HostPath};

/// A leading dot is matched only by a dot.
const OPTIONS: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// One component of a pattern.
enum PatternPart {
    /// A name as it is.
    Name(String),
    /// Names that match.
    Names(glob::Pattern),
    /// Directories at any depth: `**`.
    AnyDepth,
}

/// The parts of `pattern`. Errors: why it is not a pattern.
fn parts_of(pattern: &HostPath) -> Result<Vec<PatternPart>, String> {
    let mut parts = vec![];
    for component in pattern.as_path().components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let Some(name) = name.to_str() else {
            return Err("it is not UTF-8".to_owned());
        };
        parts.push(match name {
            "**" => PatternPart::AnyDepth,
            _ if name.contains(['*', '?', '[']) => {
                PatternPart::Names(glob::Pattern::new(name).map_err(|error| error.to_string())?)
            }
            _ => PatternPart::Name(name.to_owned()),
        });
    }
    Ok(parts)
}

impl Host {
    /// The paths that `pattern` (`glob(7)`) stands for, sorted.
    ///
    /// Errors: it is not a pattern; a directory on the way cannot be looked at.
    pub(super) fn glob(&self, pattern: &HostPath) -> Result<Vec<HostPath>, Error> {
        let parts = parts_of(pattern).map_err(|why| {
            Error::usage(format!("cannot use the pattern {pattern}")).because_of(why)
        })?;
        let mut paths = self
            .matching(&HostPath::slash(), &parts)
            .context(format_args!("cannot look for {pattern}"))?;
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    /// The paths below `directory` that `parts` stand for.
    fn matching(
        &self,
        directory: &HostPath,
        parts: &[PatternPart],
    ) -> Result<Vec<HostPath>, LookupError> {
        let Some((part, rest)) = parts.split_first() else {
            return Ok(vec![directory.clone()]);
        };
        let mut all = vec![];
        match part {
            PatternPart::Name(name) => {
                let Ok(path) = directory.join(name) else {
                    return Ok(all);
                };
                if self.has_name(&path)? {
                    all.extend(self.matching(&path, rest)?);
                }
            }
            PatternPart::Names(pattern) => {
                for name in found(self.read_dir(directory))?.unwrap_or_default() {
                    let fits = pattern.matches_with(&name.to_string_lossy(), OPTIONS);
                    if let (true, Ok(path)) = (fits, directory.join(&name)) {
                        all.extend(self.matching(&path, rest)?);
                    }
                }
            }
            PatternPart::AnyDepth => {
                all.extend(self.matching(directory, rest)?);
                for path in self.directories_in(directory)? {
                    all.extend(self.matching(&path, parts)?);
                }
            }
        }
        Ok(all)
    }

    /// The directories in `directory` whose names begin with no dot. Links to directories are not
    /// among them: they may lead in a circle.
    fn directories_in(&self, directory: &HostPath) -> Result<Vec<HostPath>, LookupError> {
        let mut directories = vec![];
        for name in found(self.read_dir(directory))?.unwrap_or_default() {
            let Ok(path) = directory.join(&name) else {
                continue;
            };
            if let Some(node) = self.now(&path)?
                && node.stat.kind == FileKind::Directory
                && !name.to_string_lossy().starts_with('.')
            {
                directories.push(path);
            }
        }
        Ok(directories)
    }

    /// Whether there is something of that name, if only a link that leads nowhere.
    fn has_name(&self, path: &HostPath) -> Result<bool, LookupError> {
        match self.walk(path) {
            Ok(_) | Err(LookupError::Dangling { .. }) => Ok(true),
            Err(error) if error.is_unknown() => Err(error),
            Err(_) => Ok(false),
        }
    }
}
