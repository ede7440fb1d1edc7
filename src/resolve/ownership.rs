//! Who besides root controls the paths of the host, and the links on them.

use super::host::Host;
use super::lookup_error::{LookupError, found};
use super::others::{Others, WRITABLE_BY_OTHERS, merge, on_entry};
use super::walk::Walk;
use crate::base::HostPath;
use crate::sys::{FileKind, Stat};

impl Host {
    /// Who besides root can put something else at `real`, whose path has no links.
    ///
    /// Errors: a directory on the way cannot be looked at.
    pub(super) fn others_on_name(&self, real: &HostPath) -> Result<Option<Others>, LookupError> {
        let all = self.others_on_each_name(real)?;
        Ok(all.into_iter().reduce(|one, other| one.merged_with(&other)))
    }

    /// As [`Host::others_on_name`], for each directory separately, innermost first.
    pub(super) fn others_on_each_name(&self, real: &HostPath) -> Result<Vec<Others>, LookupError> {
        let Some(directory) = real.parent() else {
            return Ok(vec![]);
        };
        let (above, entry) = (self.known(&directory)?, self.known(real)?);
        let mut others = Vec::from_iter(on_entry(&directory, &above, real, &entry));
        others.extend(self.others_on_directory(&directory)?);
        Ok(others)
    }

    /// As [`Host::others_on_each_name`], for a directory, in which there may be many names.
    fn others_on_directory(&self, directory: &HostPath) -> Result<Vec<Others>, LookupError> {
        if let Some(known) = self.known_others(directory) {
            return Ok(known);
        }
        let others = self.others_on_each_name(directory)?;
        self.remember_others(directory, &others);
        Ok(others)
    }

    /// Who besides root can put something else on the way to `path`, up to the first name that is
    /// missing or a link.
    ///
    /// Errors: what is on the way cannot be looked at.
    pub fn others_on_way(&self, path: &HostPath) -> Result<Option<Others>, LookupError> {
        let mut name = HostPath::slash();
        for component in path.as_path().iter().skip(1) {
            let next = name.join(component).unwrap_or_else(|_| path.clone());
            let Some(stat) = found(self.known(&next))? else {
                break;
            };
            name = next;
            if stat.kind == FileKind::Symlink {
                break;
            }
        }
        self.others_on_name(&name)
    }

    /// Who besides root can make `path` lead elsewhere, or write to what it leads to.
    ///
    /// Errors: it leads nowhere, or something on the way cannot be looked at.
    pub fn others(&self, path: &HostPath) -> Result<Option<Others>, LookupError> {
        self.others_on_walk(&self.walk(path)?)
    }

    /// As [`Host::others`], for a path that was walked.
    pub(super) fn others_on_walk(&self, walk: &Walk) -> Result<Option<Others>, LookupError> {
        let mut others = self.others_on_name(&walk.real)?;
        for link in &walk.links {
            others = merge(others, self.others_on_name(&link.path)?);
        }
        let itself =
            if walk.stat.mode & WRITABLE_BY_OTHERS == 0 || walk.stat.kind == FileKind::Symlink {
                Others::owner(&walk.real, walk.stat.uid)
            } else {
                Some(Others::anybody(&walk.real))
            };
        Ok(merge(others, itself))
    }

    /// Refuses a walk through a link that users besides root control, unless it is one user who
    /// owns what it leads to, as Apache's `SymLinksIfOwnerMatch` does: nobody must be able to have
    /// files of others mounted by putting a link somewhere.
    pub(super) fn refuse_strange_links(&self, walk: &Walk) -> Result<(), LookupError> {
        for link in &walk.links {
            let others = self.others_on_name(&link.path)?;
            if let Some(others) = others
                && others.user != Some(walk.stat.uid)
            {
                return Err(LookupError::Strange {
                    link: link.path.clone(),
                    others,
                    to: walk.real.clone(),
                });
            }
        }
        Ok(())
    }

    /// As [`Host::walk`]; refuses links that other users control.
    pub(crate) fn walk_strictly(&self, path: &HostPath) -> Result<Walk, LookupError> {
        let walk = self.walk(path)?;
        self.refuse_strange_links(&walk).map(|()| walk)
    }

    fn known(&self, real: &HostPath) -> Result<Stat, LookupError> {
        self.entry(real).map(|entry| entry.stat)
    }

    /// Whether everybody on the host may read what was walked to, and enter the directories above.
    pub(super) fn everybody_may_read(&self, walk: &Walk) -> Result<bool, LookupError> {
        if walk.stat.mode & 0o004 == 0 {
            return Ok(false);
        }
        for directory in walk.real.ancestors().skip(1) {
            if self.stat(&directory)?.mode & 0o001 == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
