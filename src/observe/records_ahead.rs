//! The records of sites that a run looks at before it takes their locks. Once it has the lock of
//! one, they are read again only if they were replaced.

use std::path::Path;

use super::read_cache::ReadCache;
use super::record::{BootRecord, PersistentRecord, Unreadable};
use super::record_file::{Version, record_bytes};
use crate::base::{Result, SiteName};

/// The records of one site, if there are any.
#[derive(Clone)]
pub(super) struct ParsedRecords {
    /// That of its mounts.
    pub record: Option<Result<BootRecord, Unreadable>>,
    /// The one that outlives the boot.
    pub kept: Option<Result<PersistentRecord, Unreadable>>,
}

impl ParsedRecords {
    /// The records in the files `run` and `lib`.
    pub(super) fn read([run, lib]: [&Path; 2]) -> Result<Self> {
        let (record, kept) = (record_bytes(run)?, record_bytes(lib)?);
        Ok(Self {
            record: record.map(|bytes| BootRecord::parse(&bytes)),
            kept: kept.map(|bytes| PersistentRecord::parse(&bytes)),
        })
    }
}

/// The records that were read ahead, each for one more use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordsAhead(ReadCache<ReadAhead>);

struct ReadAhead {
    versions: [Option<Version>; 2],
    parsed: ParsedRecords,
}

impl RecordsAhead {
    /// Reads the records of `site` in `files`, and remembers them.
    pub(super) fn read(&self, site: &SiteName, files: [&Path; 2]) -> Result<ParsedRecords> {
        let versions = versions_of(files)?;
        let parsed = ParsedRecords::read(files)?;
        let ahead = ReadAhead {
            versions,
            parsed: parsed.clone(),
        };
        self.0.lock().insert(site.clone(), ahead);
        Ok(parsed)
    }

    /// The records of `site` that were read ahead, if they are still those in `files`.
    pub(super) fn take(&self, site: &SiteName, files: [&Path; 2]) -> Result<Option<ParsedRecords>> {
        let Some(ahead) = self.0.lock().remove(site) else {
            return Ok(None);
        };
        let is_current = ahead.versions == versions_of(files)?;
        Ok(is_current.then_some(ahead.parsed))
    }
}

fn versions_of([run, lib]: [&Path; 2]) -> Result<[Option<Version>; 2]> {
    Ok([Version::at(run)?, Version::at(lib)?])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::HostPath;
    use crate::observe::{BootId, SiteRecords, StateDir};

    #[test]
    fn records_that_were_replaced_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (state, site) = (StateDir::under(dir.path()), SiteName::new("a").unwrap());
        let boot = BootId("b".into());
        fs::create_dir_all(&state.run).unwrap();
        let write = |root: &str| {
            let root = HostPath::new(root).unwrap();
            let record = serde_json::to_vec(&BootRecord::nothing(boot.clone(), root)).unwrap();
            let new = dir.path().join("new");
            fs::write(&new, record).unwrap();
            fs::rename(new, state.record(&site)).unwrap();
        };
        let root = |records: SiteRecords| records.root().cloned();
        let is = |root: &str| Some(HostPath::new(root).unwrap());

        write("/srv/1");
        assert_eq!(root(state.read_ahead(&site, &boot).unwrap()), is("/srv/1"));
        assert_eq!(root(state.read(&site, &boot).unwrap()), is("/srv/1"));
        state.read_ahead(&site, &boot).unwrap();
        write("/srv/2");
        assert_eq!(root(state.read(&site, &boot).unwrap()), is("/srv/2"));
        state.read_ahead(&site, &boot).unwrap();
        fs::remove_file(state.record(&site)).unwrap();
        assert_eq!(root(state.read(&site, &boot).unwrap()), None);
        state.read_ahead(&site, &boot).unwrap();
        write("/srv/3");
        assert_eq!(root(state.read(&site, &boot).unwrap()), is("/srv/3"));
    }
}
