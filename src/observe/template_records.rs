//! The records of templates, each of which many sites need. They are read again only when they were
//! replaced.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::fcntl::AT_FDCWD;

use super::record::{BootId, BootRecord, Contents, RecordedMount};
use super::record_file::record_bytes;
use crate::base::SiteName;
use crate::base::sync::lock;
use crate::sys::{self, FileId, Stat};

/// What the record of a template tells about grafts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownTemplate {
    boot: BootId,
    pub contents: Option<Contents>,
    /// Its mounts, sorted by target.
    pub members: Arc<[RecordedMount]>,
}

/// The records that were read, by their templates.
#[derive(Clone, Default)]
pub(super) struct TemplateCache(Arc<Mutex<HashMap<SiteName, Read>>>);

/// A record that was read, and which file it was. `None`: it could not be used.
type Read = (Version, Option<Arc<KnownTemplate>>);

/// Tells a file from the one that replaces it.
type Version = (FileId, Option<i64>, u64);

impl TemplateCache {
    /// The facts in the record of `template` at `path`, if it is one of this boot.
    pub(super) fn get(
        &self,
        template: &SiteName,
        path: &Path,
        boot: &BootId,
    ) -> Option<Arc<KnownTemplate>> {
        let Stat {
            file, born, size, ..
        } = sys::stat_at(AT_FDCWD, path).ok()?;
        let version = (file, born, size);
        let of_boot = |known: &Arc<KnownTemplate>| known.boot == *boot;
        if let Some((read, known)) = lock(&self.0).get(template)
            && *read == version
        {
            return known.clone().filter(of_boot);
        }
        let known = read(path).map(Arc::new);
        lock(&self.0).insert(template.clone(), (version, known.clone()));
        known.filter(of_boot)
    }
}

fn read(path: &Path) -> Option<KnownTemplate> {
    let record = BootRecord::parse(&record_bytes(path).ok()??).ok()?;
    let mut members = record.mounts;
    members.sort_by(|a, b| a.target.cmp(&b.target));
    Some(KnownTemplate {
        boot: record.boot,
        contents: record.contents,
        members: members.into(),
    })
}

impl fmt::Debug for TemplateCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TemplateCache").finish_non_exhaustive()
    }
}

/// Where things are does not depend on what was read.
impl PartialEq for TemplateCache {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for TemplateCache {}
