//! The records of templates, each of which many sites need. They are read again only when they were
//! replaced.

use std::path::Path;
use std::sync::Arc;

use super::read_cache::ReadCache;
use super::record::{BootId, BootRecord, Contents, RecordedMount, Unreadable};
use super::record_file::{Version, WITHOUT_TEMPLATE_RECORD, record_bytes, refuse_newer};
use crate::base::{Result, SiteName};
use crate::sys::FileId;

/// What the record of a template tells about grafts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownTemplate {
    boot: BootId,
    pub contents: Option<Contents>,
    /// Its mounts, sorted by target.
    pub members: Arc<[RecordedMount]>,
}

/// The records that were read, by their templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TemplateCache(ReadCache<ReadRecord>);

/// A record that was read.
struct ReadRecord {
    version: Version,
    /// `None`: it could not be used.
    known: Option<Arc<KnownTemplate>>,
}

impl TemplateCache {
    /// The facts in the record of `template` at `path`, if it is one of this boot.
    ///
    /// Errors: it cannot be read now, or not by this mountjail. One that is damaged counts as lost.
    pub(super) fn get(
        &self,
        template: &SiteName,
        path: &Path,
        boot: &BootId,
    ) -> Result<Option<Arc<KnownTemplate>>> {
        let Some(version) = Version::at(path)? else {
            return Ok(None);
        };
        let of_boot = |known: &Arc<KnownTemplate>| known.boot == *boot;
        if let Some(read) = self.0.lock().get(template)
            && read.version == version
        {
            return Ok(read.known.clone().filter(of_boot));
        }
        let known = read(path)?.map(Arc::new);
        let read = ReadRecord {
            version,
            known: known.clone(),
        };
        self.0.lock().insert(template.clone(), read);
        Ok(known.filter(of_boot))
    }
}

fn read(path: &Path) -> Result<Option<KnownTemplate>> {
    let Some(bytes) = record_bytes(path)? else {
        return Ok(None);
    };
    match BootRecord::parse(&bytes) {
        Ok(record) => Ok(Some(KnownTemplate::new(record))),
        Err(Unreadable::Newer(version)) => {
            refuse_newer(&[(path, Some(version))], WITHOUT_TEMPLATE_RECORD).map(|()| None)
        }
        Err(Unreadable::Damaged(_)) => Ok(None),
    }
}

impl KnownTemplate {
    pub(super) fn new(record: BootRecord) -> Self {
        let mut members = record.mounts;
        members.sort_by(|a, b| a.target.cmp(&b.target));
        Self {
            boot: record.boot,
            contents: record.contents,
            members: members.into(),
        }
    }

    /// Whether `directory` is the one that its grafts show.
    pub(super) fn shows(&self, directory: FileId) -> bool {
        let contents = self.contents.as_ref();
        contents.is_some_and(|contents| contents.directory == Some(directory))
    }
}
