//! Users of a site who also run processes outside of its root. Where a jail has a `/proc`, the
//! links `/proc/PID/root` of these lead out of it.

use std::collections::HashMap;

use super::processes::{self, Process};
use crate::base::{FileSystem, HostPath};
use crate::resolve::Desired;
use crate::sys::{self, proc};

/// A warning for each user of the site who runs a process outside of its root, if the site has a
/// `/proc` of its own.
pub fn users_outside(desired: &Desired) -> Vec<String> {
    let has_proc = |fs: Option<FileSystem>| fs == Some(FileSystem::Proc);
    let mut mounts = desired.mounts.iter();
    let users = users(desired);
    if users.is_empty() || !mounts.any(|mount| has_proc(mount.file_system)) {
        return vec![];
    }
    let mut found: Vec<(&String, Process)> = vec![];
    for (pid, proc) in proc::processes() {
        let Some(user) = processes::uid(&proc).and_then(|uid| users.get(&uid)) else {
            continue;
        };
        let is_known = found.iter().any(|(known, _)| *known == user);
        if !is_known && is_outside(pid, &desired.root) {
            found.extend(Process::of(pid).map(|process| (user, process)));
        }
    }
    let warnings = found.iter().map(|(user, process)| {
        format!(
            "{user} runs {process} outside of this root, and the site has /proc: \
             /proc/PID/root of such a process leads out of the jail; give the site a user of its \
             own, or take `proc: true` out"
        )
    });
    warnings.collect()
}

/// The users of the generated passwd besides root, by their IDs.
fn users(desired: &Desired) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    let passwd = desired.files.iter().find(|file| {
        let name = file.path.file_name().unwrap_or_default();
        name.to_string_lossy().ends_with(".passwd")
    });
    let text = passwd.map(|file| String::from_utf8_lossy(&file.contents));
    for line in text.iter().flat_map(|text| text.lines()) {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1))
            && let Ok(uid) = uid.parse()
            && uid != 0
        {
            users.insert(uid, name.to_owned());
        }
    }
    users
}

/// Whether the root directory of the process is another one than `root`.
fn is_outside(pid: u32, root: &HostPath) -> bool {
    let ours = sys::file_known_at(root.as_path()).ok();
    matches!((processes::root_of(pid), ours), (Some(theirs), Some(ours)) if theirs != ours)
}
