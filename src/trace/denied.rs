//! Why a path inside was denied to a program.

use nix::unistd::{Uid, User};

use super::miss::Miss;
use crate::base::JailPath;
use crate::resolve::{Desired, FileKind};
use crate::sys::{self, Stat, mode_in_words};

/// The place that denied `miss` to the program which looked it up: the first directory on the way
/// that its user may not enter, else the file itself.
pub(super) fn why_denied(desired: &Desired, miss: &Miss) -> String {
    let user = miss.users.first().copied();
    let name = match user {
        Some(user) => user_name(user).unwrap_or_else(|| format!("user {user}")),
        None => "the program".to_owned(),
    };
    let mut way = miss.path.directories_above();
    way.push(miss.path.clone());
    for at in way {
        let Some(stat) = stat_inside(desired, &at) else {
            break;
        };
        let is_directory = stat.kind == FileKind::Directory;
        let mode = mode_in_words(stat.mode, stat.uid, stat.gid);
        let at = desired.root.inside(&at);
        if is_directory
            && let Some(user) = user
            && !may_enter(&stat, user)
        {
            return format!("{name} may not enter {at}, which is {mode}");
        }
        if !is_directory {
            return format!("{name} may not use {at}, which is {mode}");
        }
    }
    format!("{name} may not use it: an access list, a capability or a security module denies it")
}

/// The name of a user of the host.
pub(super) fn user_name(id: u32) -> Option<String> {
    let user = User::from_uid(Uid::from_raw(id)).ok()??;
    Some(user.name)
}

/// Whether the user may enter the directory, as its owner or as one of all. Members of its group
/// are not known here, so the group's bit counts for each.
fn may_enter(directory: &Stat, user: u32) -> bool {
    let bits = if user == 0 || user == directory.uid {
        0o100
    } else {
        0o011
    };
    directory.mode & bits != 0
}

fn stat_inside(desired: &Desired, path: &JailPath) -> Option<Stat> {
    let root = sys::open_host(desired.root.as_path(), libc::O_PATH).ok()?;
    let file = sys::open_beneath(&root, path.relative(), libc::O_PATH).ok()?;
    sys::stat_fd(&file).ok()
}
