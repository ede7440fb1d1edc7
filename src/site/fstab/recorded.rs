//! Which sites have lines in a file like fstab(5).

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::sync::Mutex;

use crate::base::sync::lock;
use crate::base::{HostPath, SiteName};
use crate::render::fstab::FstabBlock;

/// Which sites have lines in which files; each file is read once.
#[derive(Default)]
pub(crate) struct FstabLines(Mutex<HashMap<HostPath, Option<BTreeSet<SiteName>>>>);

impl FstabLines {
    /// `fstab`, the file that was recorded for `site`, if it still has lines for it, which need
    /// what was made. A file that cannot be read or parsed may have some; one that does not exist
    /// has none.
    pub(crate) fn file_of<'f>(
        &self,
        site: &SiteName,
        fstab: Option<&'f HostPath>,
    ) -> Option<&'f HostPath> {
        let file = fstab?;
        let mut known = lock(&self.0);
        if !known.contains_key(file) {
            known.insert(file.clone(), sites_in(file));
        }
        match &known[file] {
            Some(sites) if !sites.contains(site) => None,
            _ => Some(file),
        }
    }
}

/// The sites that have lines in `file`; `None`: this is not known.
fn sites_in(file: &HostPath) -> Option<BTreeSet<SiteName>> {
    match fs::read(file) {
        Ok(text) => {
            let block = FstabBlock::read(&text).ok()?;
            Some(block.sites().cloned().collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(BTreeSet::new()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lines_may_mount_on_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| HostPath::new(dir.path().join(name)).unwrap();
        let block = "# BEGIN mountjail\n# a: /srv/a\nx\n# END mountjail\n";
        fs::write(path("fstab"), block).unwrap();
        fs::write(path("damaged"), "# BEGIN mountjail\n").unwrap();
        fs::create_dir(path("unreadable")).unwrap();

        let lines = FstabLines::default();
        let needs = |site: &str, file: &str| {
            let (site, file) = (SiteName::new(site).unwrap(), path(file));
            lines.file_of(&site, Some(&file)).is_some()
        };
        assert!(needs("a", "fstab") && !needs("b", "fstab"));
        assert!(needs("a", "damaged") && needs("a", "unreadable"));
        assert!(!needs("a", "absent"));
        assert_eq!(lines.file_of(&SiteName::new("a").unwrap(), None), None);
    }
}
