//! Which sites have lines in a file like fstab(5).

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::Mutex;

use crate::base::sync::lock;
use crate::base::{HostPath, SiteName};
use crate::render::fstab::FstabBlock;

/// Which sites have lines in which files; each file is read once.
#[derive(Default)]
pub(crate) struct FstabLines(Mutex<HashMap<HostPath, Option<BTreeSet<SiteName>>>>);

impl FstabLines {
    /// `fstab`, the file that was recorded for `site`, if it still has lines for it, which need
    /// what was made. A file that cannot be parsed may have some; one that does not exist has none.
    pub(crate) fn file_of<'f>(
        &self,
        site: &SiteName,
        fstab: Option<&'f HostPath>,
    ) -> Option<&'f HostPath> {
        let file = fstab?;
        let mut known = lock(&self.0);
        let sites = known
            .entry(file.clone())
            .or_insert_with(|| match fs::read(file) {
                Ok(text) => FstabBlock::read(&text)
                    .ok()
                    .map(|block| block.sites().cloned().collect()),
                Err(_) => Some(BTreeSet::new()),
            });
        sites
            .as_ref()
            .is_none_or(|sites| sites.contains(site))
            .then_some(file)
    }
}
