//! In whose hands a path is: who besides root can decide what it leads to.
//!
//! Whoever can write in a directory can put other things in it, and move things there that somebody
//! else made: a link keeps its owner wherever it is moved. So a name is in the hands of those who
//! can write in its directory, or in one above, whoever made what stands there.

use std::fmt;

use super::desired::FileKind;
use super::host::Host;
use super::walk::{LookupError, Walk, found};
use crate::base::HostPath;
use crate::base::quote::word;
use crate::sys::{Stat, is_roots};

const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;
/// By its group as well, whose bits are the mask of an access list, if there is one (`acl(5)`).
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Somebody besides root who can put something else at a path, or write in what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Others {
    /// The directory or file that they can write.
    pub at: HostPath,
    /// The one user who can; `None`: there may be several.
    pub user: Option<u32>,
    /// They can because it belongs to this user.
    owner: Option<u32>,
}

impl Others {
    fn owner(at: &HostPath, uid: u32) -> Option<Self> {
        (!is_roots(uid)).then(|| Self {
            at: at.clone(),
            user: Some(uid),
            owner: Some(uid),
        })
    }

    fn anybody(at: &HostPath) -> Self {
        Self {
            at: at.clone(),
            user: None,
            owner: None,
        }
    }

    /// What makes it root's alone, as a command.
    pub fn remedy(&self) -> String {
        let at = self.at.to_string();
        let at = word(&at);
        match self.owner {
            Some(_) => format!("chown root {at} && chmod go-w {at}"),
            None => format!("chmod go-w {at}"),
        }
    }
}

/// A clause: `/home/alice belongs to user 1000`.
impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            Some(uid) => write!(f, "{} belongs to user {uid}", self.at),
            None => write!(f, "{} can be written by others than root", self.at),
        }
    }
}

/// Both: two users are several.
pub(super) fn and(one: Others, other: &Others) -> Others {
    let user = one.user.filter(|_| one.user == other.user);
    Others { user, ..one }
}

fn either(one: Option<Others>, other: Option<Others>) -> Option<Others> {
    match (one, other) {
        (Some(one), Some(other)) => Some(and(one, &other)),
        (one, other) => one.or(other),
    }
}

/// Who can put something else in the place of `entry`, which is `name` in the directory `at`.
fn on_entry(at: &HostPath, directory: &Stat, name: &HostPath, entry: &Stat) -> Option<Others> {
    let link = entry.kind == FileKind::Symlink;
    if directory.mode & WRITABLE_BY_OTHERS == 0 {
        let owner = Others::owner(at, directory.uid);
        // In a directory of root's alone it is the one who made it, or root who moved it there.
        return owner.or_else(|| Others::owner(name, entry.uid).filter(|_| link));
    }
    // What is there nobody else can take away; but a link of root's anybody may have moved there.
    if directory.mode & STICKY != 0 && !link {
        return either(
            Others::owner(at, directory.uid),
            Others::owner(name, entry.uid),
        );
    }
    // The group of a user's directory may add to it, and is not trusted with it.
    let own = directory.mode & WRITABLE_BY_ALL == 0 && directory.uid == entry.uid;
    Others::owner(at, directory.uid)
        .filter(|_| own)
        .or_else(|| Some(Others::anybody(at)))
}

impl Host {
    /// Who besides root can put something else at `real`, on the way to which is no link.
    ///
    /// Errors: a directory on the way cannot be looked at.
    pub(super) fn others_on_name(&self, real: &HostPath) -> Result<Option<Others>, LookupError> {
        Ok(self
            .others_on_each_name(real)?
            .into_iter()
            .reduce(|one, other| and(one, &other)))
    }

    /// As [`Host::others_on_name`], by each directory, the innermost first.
    pub(super) fn others_on_each_name(&self, real: &HostPath) -> Result<Vec<Others>, LookupError> {
        let mut others = vec![];
        let mut name = real.clone();
        while let Some(directory) = name.parent() {
            let (above, entry) = (self.known(&directory)?, self.known(&name)?);
            others.extend(on_entry(&directory, &above, &name, &entry));
            name = directory;
        }
        Ok(others)
    }

    /// Who besides root can put something else on the way to `path`, as far as there is something
    /// and no link.
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

    /// Who besides root can make `path` lead elsewhere, or write in what it leads to.
    ///
    /// Errors: it leads nowhere, or something on the way cannot be looked at.
    pub fn others(&self, path: &HostPath) -> Result<Option<Others>, LookupError> {
        self.others_on_walk(&self.walk(path)?)
    }

    /// As [`Host::others`], of what was walked.
    pub(super) fn others_on_walk(&self, walk: &Walk) -> Result<Option<Others>, LookupError> {
        let mut others = self.others_on_name(&walk.real)?;
        for link in &walk.links {
            others = either(others, self.others_on_name(&link.path)?);
        }
        let itself =
            if walk.stat.mode & WRITABLE_BY_OTHERS == 0 || walk.stat.kind == FileKind::Symlink {
                Others::owner(&walk.real, walk.stat.uid)
            } else {
                Some(Others::anybody(&walk.real))
            };
        Ok(either(others, itself))
    }

    /// Refuses a walk by a link that is in others' hands than root's, unless it is in those of one
    /// user who owns what it leads to, as Apache's `SymLinksIfOwnerMatch` does: whoever can put
    /// links somewhere must not have files of others mounted.
    pub(super) fn refuse_strange_links(&self, walk: &Walk) -> Result<(), LookupError> {
        for link in &walk.links {
            let others = self.others_on_name(&link.path)?;
            if let Some(others) = others.filter(|others| others.user != Some(walk.stat.uid)) {
                return Err(LookupError::Strange {
                    link: link.path.clone(),
                    others,
                    to: walk.real.clone(),
                });
            }
        }
        Ok(())
    }

    /// As [`Host::walk`]; refuses links that are in others' hands.
    pub fn walk_strictly(&self, path: &HostPath) -> Result<Walk, LookupError> {
        let walk = self.walk(path)?;
        self.refuse_strange_links(&walk).map(|()| walk)
    }

    fn known(&self, real: &HostPath) -> Result<Stat, LookupError> {
        let node = self.node(real.as_path());
        node.map(|node| node.stat)
            .map_err(|errno| LookupError::Unreadable {
                at: real.clone(),
                errno,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::FileId;

    fn stat(kind: FileKind, uid: u32, mode: u32) -> Stat {
        Stat {
            file: FileId { dev: 1, ino: 1 },
            kind,
            mode,
            uid,
            size: 0,
            mount_id: None,
            mount_id_is_unique: false,
            mount_root: None,
            born: None,
        }
    }

    #[test]
    fn a_name_is_in_the_hands_of_those_who_can_write_its_directory() {
        let (at, name) = (HostPath::new("/d").unwrap(), HostPath::new("/d/x").unwrap());
        let (link, directory) = (FileKind::Symlink, FileKind::Directory);
        let root = Ok(None);
        let user = |uid| Ok(Some(uid));
        let several = Err(());
        for (holder, mode, kind, owner, expected) in [
            (0, 0o755, link, 0, root),
            (0, 0o755, directory, 1000, root),
            (0, 0o755, link, 1000, user(1000)),
            (1000, 0o755, link, 0, user(1000)),
            (1000, 0o755, link, 1001, user(1000)),
            (1000, 0o755, directory, 0, user(1000)),
            (1000, 0o775, link, 1000, user(1000)),
            (1000, 0o775, link, 0, several),
            (1000, 0o777, link, 1000, several),
            (0, 0o775, link, 0, several),
            (0, 0o2775, directory, 0, several),
            (0, 0o1777, link, 0, several),
            (0, 0o1777, directory, 0, root),
            (0, 0o1777, directory, 1000, user(1000)),
            (1000, 0o1777, directory, 0, user(1000)),
        ] {
            let found = on_entry(
                &at,
                &stat(directory, holder, mode),
                &name,
                &stat(kind, owner, 0o777),
            );
            let found = found.map_or(Ok(None), |others| others.user.map(Some).ok_or(()));
            assert_eq!(
                found, expected,
                "{kind} of {owner} in a directory of {holder}, {mode:o}"
            );
        }
    }
}
