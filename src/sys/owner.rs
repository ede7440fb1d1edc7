//! Who counts as root.

use std::fs;
use std::sync::OnceLock;

/// Whether a file of the owner `uid` is root's: of user 0, and, in a user namespace, of a user who has no name in it
/// (`user_namespaces(7)`): the host's root is shown as such, and nobody in the namespace is one.
pub fn is_roots(uid: u32) -> bool {
    static NAMELESS: OnceLock<Option<u32>> = OnceLock::new();
    uid == 0 || NAMELESS.get_or_init(nameless).is_some_and(|nameless| nameless == uid)
}

/// The user as whom all are shown who have no name here; `None`: all have one, or it cannot be told.
fn nameless() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let uid = || fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok();
    if whole { None } else { uid() }
}
