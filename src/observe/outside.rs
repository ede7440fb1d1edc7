//! Users of a site who also run processes outside of its root. Where a jail has a `/proc`, the
//! links `/proc/PID/root` of these lead out of it.

use std::collections::{HashMap, HashSet};

use super::process::Process;
use super::processes::{root_of, uid};
use crate::base::{FileSystem, HostPath};
use crate::resolve::Desired;
use crate::sys::{self, proc};

/// A warning for each user of the site who runs a process outside of its root, if the site has a
/// `/proc` of its own.
pub fn users_outside(desired: &Desired) -> Vec<String> {
    let mut mounts = desired.mounts.iter();
    let users = users(desired);
    if users.is_empty() || !mounts.any(|mount| mount.file_system == Some(FileSystem::Proc)) {
        return vec![];
    }
    let mut warned = HashSet::new();
    let mut warnings = vec![];
    for (pid, proc) in proc::processes() {
        if let Some(uid) = uid(&proc)
            && let Some(user) = users.get(&uid)
            && !warned.contains(user)
            && is_outside(pid, &desired.root)
            && let Some(process) = Process::of(pid)
        {
            warned.insert(user);
            warnings.push(warning(user, &process));
        }
    }
    warnings
}

fn warning(user: &str, process: &Process) -> String {
    format!(
        "{user} runs {process} outside of this root, and the site has /proc: /proc/PID/root of \
         such a process leads out of the jail; give the site a user of its own, or take \
         `proc: true` out"
    )
}

/// The users of the generated passwd besides root, by their IDs.
fn users(desired: &Desired) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    let mut files = desired.files.iter();
    let Some(passwd) =
        files.find(|file| file.path.as_path().extension() == Some("passwd".as_ref()))
    else {
        return users;
    };
    for line in String::from_utf8_lossy(&passwd.contents).lines() {
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
    matches!((root_of(pid), ours), (Some(theirs), Some(ours)) if theirs != ours)
}
