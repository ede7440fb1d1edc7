//! Who counts as root.

use std::fs;
use std::sync::OnceLock;

/// Whether a file of the owner `uid` is root's: of user 0, and, in a user namespace, of a user who
/// has no name in it (`user_namespaces(7)`): the host's root is shown as such, and nobody in the
/// namespace is one.
pub fn is_roots(uid: u32) -> bool {
    uid == 0 || nameless().is_some_and(|nameless| nameless == uid)
}

/// Whether this process is root, who may look everywhere: not the root of a user namespace, to whom
/// the files of others can be closed.
pub fn may_look_everywhere() -> bool {
    nix::unistd::geteuid().is_root() && nameless().is_none()
}

fn nameless() -> Option<u32> {
    static NAMELESS: OnceLock<Option<u32>> = OnceLock::new();
    *NAMELESS.get_or_init(read_nameless)
}

/// The user as whom all are shown who have no name here; `None`: all have one, or it cannot be
/// told.
fn read_nameless() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let uid = || {
        fs::read_to_string("/proc/sys/kernel/overflowuid")
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    if whole { None } else { uid() }
}
