//! The files of this host that names, paths and patterns stand for, and the errors where there are
//! none.

use super::expander::{ExpandError, ExpandResult, Expander, MAY_DO_WITHOUT};
use crate::Error;
use crate::base::text::nearest;
use crate::base::{HostPath, SEARCH_PATH};
use crate::manifest::{CodeName, Pattern, Wanted};
use crate::resolve::desired::FileKind;
use crate::resolve::lookup_error::{LookupError, found};
use crate::resolve::walk::Walk;

impl Expander<'_> {
    /// The files that the first alternative stands for that has any. `by_name`: all paths by which
    /// a process finds what has this name.
    pub(super) fn code_files(
        &mut self,
        wanted: &Wanted<CodeName>,
        by_name: fn(&Self, &str) -> ExpandResult<Vec<HostPath>>,
    ) -> ExpandResult<Vec<HostPath>> {
        let paths = |name: &CodeName| match name {
            CodeName::Path(pattern) => Some(pattern.clone()),
            CodeName::Name(_) => None,
        };
        if let Some(any_of) = wanted.any_of.iter().map(paths).collect() {
            let optional = wanted.optional;
            return self.matches(&Wanted { any_of, optional });
        }

        for name in &wanted.any_of {
            let found = match name {
                CodeName::Name(name) => by_name(self, name)?,
                CodeName::Path(pattern) if pattern.is_glob() => self.host.glob(pattern.path())?,
                CodeName::Path(pattern) => match self.why_not(pattern.path())? {
                    None => vec![pattern.path().clone()],
                    Some(_) => vec![],
                },
            };
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let names: Vec<_> = wanted.any_of.iter().map(ToString::to_string).collect();
        let none = match names.as_slice() {
            [name] => format!("{name} is not on this host, where it would be looked for"),
            names => format!("none of {} is on this host", names.join(", ")),
        };
        if !wanted.optional {
            let error = Error::failed(none).hint(MAY_DO_WITHOUT);
            return Err(ExpandError::Absent(error));
        }
        let skipped = format!("{none}; skipped, because it is optional");
        self.out.notes.push(skipped);
        Ok(vec![])
    }

    /// The paths of the program `name` in the default PATH that lead to the file which is found
    /// first: it may also be called by another of them.
    pub(super) fn program(&self, name: &str) -> ExpandResult<Vec<HostPath>> {
        let mut paths = vec![];
        let mut first = None;
        for directory in SEARCH_PATH {
            let path = absolute(directory, name)?;
            let walk = found(self.host.walk(&path)).map_err(|error| self.missing(&path, &error))?;
            let is_program =
                |walk: &Walk| walk.stat.kind == FileKind::File && walk.stat.mode & 0o111 != 0;
            if let Some(walk) = walk.filter(is_program)
                && *first.get_or_insert(walk.stat.file) == walk.stat.file
            {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// The library `name`, as the loader finds it.
    pub(super) fn library(&self, name: &str) -> ExpandResult<Vec<HostPath>> {
        let found = self.shared.loader(self.host)?.library_of_any(name)?;
        Ok(found.into_iter().collect())
    }

    /// The files that the first alternative stands for that has any.
    pub(super) fn matches(&mut self, wanted: &Wanted<Pattern>) -> ExpandResult<Vec<HostPath>> {
        if let [pattern] = wanted.any_of.as_slice()
            && pattern.is_glob()
        {
            return self.matches_of_one(pattern.path(), wanted.optional);
        }

        let mut reasons = vec![];
        for pattern in &wanted.any_of {
            let path = pattern.path();
            if pattern.is_glob() {
                let found = self.host.glob(path)?;
                if !found.is_empty() {
                    return Ok(found);
                }
                reasons.push(LookupError::Missing { at: path.clone() });
            } else if let Some(reason) = self.why_not(path)? {
                reasons.push(reason);
            } else {
                return Ok(vec![path.clone()]);
            }
        }
        let paths: Vec<_> = wanted
            .any_of
            .iter()
            .map(|pattern| pattern.path().clone())
            .collect();
        self.none_of(&paths, &reasons, wanted.optional)?;
        Ok(vec![])
    }

    /// The files that a pattern without alternatives stands for.
    fn matches_of_one(
        &mut self,
        pattern: &HostPath,
        optional: bool,
    ) -> ExpandResult<Vec<HostPath>> {
        let found = self.host.glob(pattern)?;
        if found.is_empty() {
            let nothing = format!("nothing on this host matches {pattern}");
            if !optional {
                let error = Error::failed(nothing).hint(MAY_DO_WITHOUT);
                return Err(ExpandError::Absent(error));
            }
            let note = format!("{nothing}; skipped, because it is optional");
            self.out.notes.push(note);
        }
        Ok(found)
    }

    /// The first of `paths` that exists. `None`: none does, and that is noted.
    pub(super) fn first(
        &mut self,
        paths: &[HostPath],
        optional: bool,
    ) -> ExpandResult<Option<HostPath>> {
        let mut reasons = vec![];
        for path in paths {
            match self.why_not(path)? {
                None => return Ok(Some(path.clone())),
                Some(reason) => reasons.push(reason),
            }
        }
        self.none_of(paths, &reasons, optional)?;
        Ok(None)
    }

    /// Why `path` is not there; `None`: it is.
    ///
    /// Errors: it is unknown.
    fn why_not(&self, path: &HostPath) -> ExpandResult<Option<LookupError>> {
        match self.host.walk(path) {
            Ok(_) => Ok(None),
            Err(error) if error.is_unknown() => Err(self.missing(path, &error)),
            Err(error) => Ok(Some(error)),
        }
    }

    /// A note that none of `paths` is there, or, unless it is optional, an error.
    pub(super) fn none_of(
        &mut self,
        paths: &[HostPath],
        reasons: &[LookupError],
        optional: bool,
    ) -> ExpandResult<()> {
        let names: Vec<_> = paths.iter().map(ToString::to_string).collect();
        let all = names.join(", ");
        match (paths, reasons) {
            ([_], [reason]) if optional => {
                let note = format!("{reason}; skipped, because it is optional");
                self.out.notes.push(note);
            }
            _ if optional => self.out.notes.push(format!(
                "none of {all} is on this host; skipped, because they are optional"
            )),
            ([path], [reason]) => return Err(self.missing(path, reason)),
            _ => {
                let error = Error::failed(format!("none of these is on this host: {all}"));
                return Err(ExpandError::Absent(
                    error.hint("name the file that this host has, or say `optional: true`"),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn missing(&self, path: &HostPath, reason: &LookupError) -> ExpandError {
        let error = reason.error(format!("cannot find {path}"));
        match reason {
            LookupError::Missing { at } => ExpandError::Absent(match self.near(at) {
                Some(near) => {
                    error.hint(format!("did you mean {near}? Otherwise, {MAY_DO_WITHOUT}"))
                }
                None => error.hint(MAY_DO_WITHOUT),
            }),
            LookupError::Strange { .. } => ExpandError::Failed(error.hint(
                "find out who made that link; \
                 to mount a directory of that user, name its path without the link",
            )),
            _ if reason.is_missing() => ExpandError::Absent(error.hint(MAY_DO_WITHOUT)),
            _ => ExpandError::Failed(error),
        }
    }

    /// The file beside `missing` with almost the same name.
    fn near(&self, missing: &HostPath) -> Option<HostPath> {
        let directory = missing.parent()?;
        let names = self.host.read_dir(&directory).ok()?;
        let known = names.iter().filter_map(|name| name.to_str());
        let near = nearest(missing.file_name()?.to_str()?, known)?;
        directory.join(near).ok()
    }
}

pub(super) fn absolute(base: &str, name: &str) -> ExpandResult<HostPath> {
    HostPath::new(format!("{base}/{name}"))
        .map_err(|why| Error::usage(format!("{base}/{name}: {why}")).into())
}
