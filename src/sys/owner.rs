//! Which users count as root, and the rights of a file in words.

use std::fs;
use std::sync::OnceLock;

use nix::unistd::{Gid, Group, Uid, User};

/// Whether a file with the owner `uid` belongs to root: to user 0 or, in a user namespace, to the
/// user that stands for all unmapped users (`user_namespaces(7)`). The root of the host is shown as
/// that user, and no user in the namespace is.
pub fn is_roots(uid: u32) -> bool {
    uid == 0 || unmapped_user().is_some_and(|unmapped| unmapped == uid)
}

/// Whether this process is root and may look everywhere. The root of a user namespace may not:
/// files of others can be closed to it.
pub fn may_look_everywhere() -> bool {
    nix::unistd::geteuid().is_root() && unmapped_user().is_none()
}

fn unmapped_user() -> Option<u32> {
    static UNMAPPED_USER: OnceLock<Option<u32>> = OnceLock::new();
    *UNMAPPED_USER.get_or_init(read_unmapped_user)
}

/// Whether the user namespace of this process maps all users. `None`: that is unknown.
pub fn maps_all_users() -> Option<bool> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    Some(map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// The user id that stands for all unmapped users. `None`: all users are mapped, or it is unknown.
fn read_unmapped_user() -> Option<u32> {
    if maps_all_users()? {
        return None;
    }

    let overflow_uid = fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?;
    overflow_uid.trim().parse().ok()
}

/// `of mode 0700, root:root`: the rights of a file, by the names of its user and group. Bits of its
/// type do not count.
pub fn mode_in_words(mode: u32, uid: u32, gid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    let group = group.map_or_else(|| gid.to_string(), |group| group.name);
    format!("of mode {:04o}, {user}:{group}", mode & 0o7777)
}
