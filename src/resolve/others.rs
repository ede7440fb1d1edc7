//! Who besides root can decide what a name in a directory leads to.
//!
//! Users who can write to a directory can put other things in it, and move things there that
//! somebody else made: a link keeps its owner wherever it is moved. So the users who control a name
//! are those who can write to its directory or to one above it, whoever made the entry itself.

use std::fmt;
use std::path::Path;

use crate::base::HostPath;
use crate::base::quote::shell_word;
use crate::sys::{FileKind, Stat, is_roots};

const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;
/// By all, or by its group, whose bits are the mask of an access list if there is one (`acl(5)`).
pub(super) const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Users besides root who can put something else at a path, or write to what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Others {
    /// The directory or file that they can write.
    pub at: HostPath,
    /// The one such user; `None`: there may be several.
    pub user: Option<u32>,
    /// The owner of `at`, if that is why.
    owner: Option<u32>,
}

impl Others {
    pub(super) fn owner(at: &HostPath, uid: u32) -> Option<Self> {
        (!is_roots(uid)).then(|| Self {
            at: at.clone(),
            user: Some(uid),
            owner: Some(uid),
        })
    }

    /// The users of both: two different ones are several.
    pub(super) fn merged_with(self, other: &Self) -> Self {
        let user = self.user.filter(|_| self.user == other.user);
        Self { user, ..self }
    }

    pub(super) fn anybody(at: &HostPath) -> Self {
        Self {
            at: at.clone(),
            user: None,
            owner: None,
        }
    }

    /// As its text, in a sentence about `file`: `it belongs to user 1000`.
    pub(crate) fn about(&self, file: &Path) -> String {
        if self.at.as_path() == file {
            self.clause(&"it")
        } else {
            self.to_string()
        }
    }

    fn clause(&self, at: &dyn fmt::Display) -> String {
        match self.owner {
            Some(uid) => format!("{at} belongs to user {uid}"),
            None => format!("{at} can be written by others than root"),
        }
    }

    /// The command after which only root can.
    pub(crate) fn remedy(&self) -> String {
        let at = self.at.to_string();
        let at = shell_word(&at);
        match self.owner {
            Some(_) => format!("chown root {at} && chmod go-w {at}"),
            None => format!("chmod go-w {at}"),
        }
    }
}

/// A clause: `/home/alice belongs to user 1000`.
impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.clause(&self.at))
    }
}

/// The users of both, or those of the one that is there.
pub(super) fn merge(one: Option<Others>, other: Option<Others>) -> Option<Others> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.merged_with(&other)),
        (one, other) => one.or(other),
    }
}

/// Who can put something else in the place of `entry`, which is `name` in the directory `at`.
pub(super) fn on_entry(
    at: &HostPath,
    directory: &Stat,
    name: &HostPath,
    entry: &Stat,
) -> Option<Others> {
    let link = entry.kind == FileKind::Symlink;
    if directory.mode & WRITABLE_BY_OTHERS == 0 {
        let owner = Others::owner(at, directory.uid);
        if owner.is_none() && link {
            // The link counts as its owner's, even if root moved it there.
            return Others::owner(name, entry.uid);
        }
        return owner;
    }
    // Nobody else can remove the entry; but anybody may have moved a link of root's there.
    if directory.mode & STICKY != 0 && !link {
        return merge(
            Others::owner(at, directory.uid),
            Others::owner(name, entry.uid),
        );
    }
    // The group of a user's directory can add entries, so the owner is not the only one.
    let own = directory.mode & WRITABLE_BY_ALL == 0 && directory.uid == entry.uid;
    Others::owner(at, directory.uid)
        .filter(|_| own)
        .or_else(|| Some(Others::anybody(at)))
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
            gid: uid,
            size: 0,
            mount_id: None,
            mount_id_is_unique: false,
            mount_root: None,
            born: None,
        }
    }

    #[test]
    fn a_name_is_controlled_by_those_who_can_write_to_its_directory() {
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
