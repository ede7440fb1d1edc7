//! Lines of fstab(5) that mount a file system of the jail's own: proc and tmpfs.

use super::draft::{Draft, DraftTmpfs, is_mode};
use super::fstab::OtherMount;
use super::mount_options::{OptionMeaning, meaning_of, remark_on_order};
use crate::base::quote::shell_path;
use crate::base::{HostPath, bytes};

/// Options of tmpfs(5).
const TMPFS: [&str; 11] = [
    "gid",
    "huge",
    "inode32",
    "inode64",
    "mode",
    "mpol",
    "noswap",
    "nr_blocks",
    "nr_inodes",
    "size",
    "uid",
];

/// Adds the line to the draft of the jail at `root`, if a manifest can ask for what it mounts.
/// Returns whether it can.
pub(super) fn add(draft: &mut Draft, root: &HostPath, mount: &OtherMount) -> bool {
    let OtherMount {
        place,
        fstype,
        options,
        target: Some(target),
        ..
    } = mount
    else {
        return false;
    };
    let Some(below) = target.below(root) else {
        return false;
    };
    let target = format!("/{}", below.display());
    if is_for_later(mount) || !options.iter().all(|option| is_expressed(fstype, option)) {
        return false;
    }
    match fstype.as_str() {
        "proc" if target == "/proc" => {
            draft.proc = true;
            let read_only = "read-only, hidepid=invisible, nosuid, nodev, noexec";
            draft.remarks.push(format!(
                "{place}: proc on {target} is `proc: true`: {read_only}. `mountjail up` replaces \
                 what the line mounted; remove the line from fstab."
            ));
        }
        // A mount on a mount of /dev has to come after it.
        "tmpfs" if !target.starts_with("/dev/") && !has(mount, "ro") && target != "/" => {
            let tmpfs = tmpfs(draft, target, mount);
            draft.tmpfs.push(tmpfs);
        }
        _ => return false,
    }
    let is_order = |option: &&String| meaning_of(option) == OptionMeaning::Order;
    let order: Vec<_> = options.iter().filter(is_order).cloned().collect();
    draft.remarks.extend(remark_on_order(place, &order));
    true
}

fn tmpfs(draft: &mut Draft, target: String, mount: &OtherMount) -> DraftTmpfs {
    let place = &mount.place;
    let mut remark = format!("{place}: tmpfs on {target} is `tmpfs`, nosuid, nodev, noexec");
    let mut left = vec![];
    let (mut size, mut mode) = (None, None);
    for option in &mount.options {
        match option.split_once('=') {
            Some(("size", value)) if bytes(value).is_some() => size = Some(value.to_owned()),
            Some(("mode", value)) if is_mode(value) => mode = Some(format!("{value:0>4}")),
            Some((name, _)) if name.starts_with("x-") || name.starts_with("X-") => {}
            Some(_) => left.push(option.clone()),
            None => {}
        }
    }
    if !left.is_empty() {
        let left = left.join(", ");
        remark = format!("{remark}; without {left}, which a manifest has no key for");
    }
    let flags = ["nosuid", "nodev", "noexec"];
    if let Some(mounted) = &mount.target
        && !flags.iter().all(|flag| has(mount, flag))
    {
        let path = shell_path(mounted.as_path());
        remark = format!(
            "{remark}; if the line has mounted it, give it these options first: \
             `mount -o remount,bind,rw,nosuid,nodev,noexec {path}`"
        );
    }
    draft.remarks.push(format!("{remark}."));
    DraftTmpfs { target, size, mode }
}

/// Whether a manifest mounts the file system without this option, and shows no more for that.
fn is_expressed(fstype: &str, option: &str) -> bool {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    match (fstype, name) {
        ("proc", "hidepid") => ["0", "1", "2", "off", "noaccess", "invisible"].contains(&value),
        ("proc", "gid") => true,
        ("tmpfs", _) if TMPFS.contains(&name) => true,
        _ => !matches!(
            meaning_of(option),
            OptionMeaning::Foreign | OptionMeaning::Subdirectory(_)
        ),
    }
}

/// Whether it is not mounted at boot.
fn is_for_later(mount: &OtherMount) -> bool {
    has(mount, "noauto") && !has(mount, "x-systemd.automount")
}

fn has(mount: &OtherMount, option: &str) -> bool {
    mount.options.iter().any(|known| known == option)
}
