//! Why a path inside was denied to a program.

use nix::unistd::{Uid, User};

use super::miss::Miss;
use crate::base::{HostPath, JailPath};
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
    let mut way = vec![JailPath::slash()];
    way.extend(miss.path.directories_above());
    way.push(miss.path.clone());
    let mut last = None;
    for at in way {
        let Some(stat) = stat_inside(desired, &at) else {
            break;
        };
        let (inside, mode) = described(desired, &at, &stat);
        if stat.kind != FileKind::Directory {
            return format!("{name} may not use {inside}, which is {mode}");
        }
        if let Some(user) = user
            && !may(0o1, &stat, user)
        {
            return format!("{name} may not enter {inside}, which is {mode}");
        }
        last = Some((at, stat));
    }
    // All directories may be entered: the last one was to be changed, or read.
    let Some((at, stat)) = last else {
        return format!("{name} may not use it: {OTHERWISE}");
    };
    let (inside, mode) = described(desired, &at, &stat);
    let (verb, bit) = if at == miss.path && !miss.is_written {
        ("read", 0o4)
    } else {
        ("write to", 0o2)
    };
    let otherwise = match user {
        Some(user) if may(bit, &stat, user) => format!(": {OTHERWISE}"),
        _ => String::new(),
    };
    format!("{name} may not {verb} {inside}, which is {mode}{otherwise}")
}

/// Why a path is denied if the mode does not do it.
const OTHERWISE: &str = "an access list, a capability or a security module denies it";

/// The path on the host, and the mode in words.
fn described(desired: &Desired, at: &JailPath, stat: &Stat) -> (HostPath, String) {
    let inside = if *at == JailPath::slash() {
        desired.root.clone()
    } else {
        desired.root.inside(at)
    };
    (inside, mode_in_words(stat.mode, stat.uid, stat.gid))
}

/// The name of a user of the host.
pub(super) fn user_name(id: u32) -> Option<String> {
    let user = User::from_uid(Uid::from_raw(id)).ok()??;
    Some(user.name)
}

/// Whether the user has the right to the directory (`0o1`: to enter it, `0o2`: to write, `0o4`: to
/// read) as its owner or as one of all. Members of its group are not known here, so the group's
/// right counts for each.
fn may(right: u32, directory: &Stat, user: u32) -> bool {
    let bits = if user == 0 || user == directory.uid {
        right << 6
    } else {
        right << 3 | right
    };
    directory.mode & bits != 0
}

fn stat_inside(desired: &Desired, path: &JailPath) -> Option<Stat> {
    let root = sys::open_host(desired.root.as_path(), libc::O_PATH).ok()?;
    let file = sys::open_beneath(&root, path.relative(), libc::O_PATH).ok()?;
    sys::stat_fd(&file).ok()
}
