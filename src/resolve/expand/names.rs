//! The files of this host that names, paths and patterns stand for, and the errors where there are
//! none.

use super::expander::{ExpandError, ExpandResult, Expander, MAY_DO_WITHOUT};
use crate::Error;
use crate::base::text::nearest;
use crate::base::{HostPath, SEARCH_PATH};
use crate::manifest::{CodeName, Pattern, Wanted};
use crate::resolve::desired::FileKind;
use crate::resolve::lookup_error::{LookupError, found};

impl Expander<'_> {
    /// The files of the first alternative that has any. `by_name` returns all paths by which a
    /// process finds a file of that name.
    pub(super) fn code_files(
        &mut self,
        wanted: &Wanted<CodeName>,
        by_name: fn(&Self, &str) -> ExpandResult<Vec<HostPath>>,
    ) -> ExpandResult<Vec<HostPath>> {
        if let Some(any_of) = only_paths(&wanted.any_of) {
            return self.matches(&any_of, wanted.optional);
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
            if let Some(walk) = self.found(&path, found(self.host.walk(&path)))?
                && walk.stat.kind == FileKind::File
                && walk.stat.mode & 0o111 != 0
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

    /// The files of the first alternative that has any.
    pub(super) fn matches(
        &mut self,
        any_of: &[&Pattern],
        optional: bool,
    ) -> ExpandResult<Vec<HostPath>> {
        if let [pattern] = any_of
            && pattern.is_glob()
        {
            return self.matches_of_one(pattern.path(), optional);
        }

        let mut reasons = vec![];
        for pattern in any_of {
            let path = pattern.path();
            if pattern.is_glob() {
                let found = self.host.glob(path)?;
                if !found.is_empty() {
                    return Ok(found);
                }
                reasons.push(LookupError::missing(path));
            } else if let Some(reason) = self.why_not(path)? {
                reasons.push(reason);
            } else {
                return Ok(vec![path.clone()]);
            }
        }
        let paths: Vec<_> = any_of.iter().map(|pattern| pattern.path()).collect();
        self.none_of(&paths, &reasons, optional)?;
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
    pub(super) fn first<'p>(
        &mut self,
        paths: &'p [HostPath],
        optional: bool,
    ) -> ExpandResult<Option<&'p HostPath>> {
        let mut reasons = vec![];
        for path in paths {
            match self.why_not(path)? {
                None => return Ok(Some(path)),
                Some(reason) => reasons.push(reason),
            }
        }
        let paths: Vec<_> = paths.iter().collect();
        self.none_of(&paths, &reasons, optional)?;
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
        paths: &[&HostPath],
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

    /// The result of a look-up of `path`, with the error of a line.
    pub(super) fn found<T>(
        &self,
        path: &HostPath,
        result: Result<T, LookupError>,
    ) -> ExpandResult<T> {
        result.map_err(|error| self.missing(path, &error))
    }

    fn missing(&self, path: &HostPath, reason: &LookupError) -> ExpandError {
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

/// The patterns, if there are no names among them.
fn only_paths(names: &[CodeName]) -> Option<Vec<&Pattern>> {
    let mut paths = vec![];
    for name in names {
        match name {
            CodeName::Path(pattern) => paths.push(pattern),
            CodeName::Name(_) => return None,
        }
    }
    Some(paths)
}

pub(super) fn absolute(base: &str, name: &str) -> ExpandResult<HostPath> {
    HostPath::new(format!("{base}/{name}"))
        .map_err(|why| Error::usage(format!("{base}/{name}: {why}")).into())
}
