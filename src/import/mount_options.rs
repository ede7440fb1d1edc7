//! The meaning of mount(8)'s options for a manifest: pure.

/// The fate of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionMeaning<'o> {
    /// A manifest expresses it, or it has no effect on what a process inside sees and may do.
    Plain,
    /// It says when systemd mounts it.
    Order,
    /// It is left out, and the site sees no more for that.
    Lost,
    /// The subdirectory of the source that is mounted.
    Subdirectory(&'o str),
    /// A manifest has nothing for it, or it is not known.
    Foreign,
}

/// Attributes of the mount, and options that change nothing that a process inside could see: those
/// of a file system have no effect on a bind mount, and some were for mountall(8).
const PLAIN: [&str; 56] = [
    "acl",
    "async",
    "atime",
    "auto",
    "bind",
    "bootwait",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "discard",
    "exec",
    "failok",
    "group",
    "grpquota",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noauto",
    "nobootwait",
    "nodev",
    "noexec",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "optional",
    "owner",
    "private",
    "quota",
    "rbind",
    "relatime",
    "remount",
    "ro",
    "rprivate",
    "rw",
    "showthrough",
    "silent",
    "suid",
    "symfollow",
    "sync",
    "user",
    "user_xattr",
    "users",
    "usrquota",
    "x-mount.mkdir",
    "X-mount.mkdir",
    "X-mount.noloop",
];

/// When access times change, and whether later mounts propagate. mountjail has its own answer.
const LOST: [&str; 9] = [
    "noatime",
    "nodiratime",
    "rshared",
    "rslave",
    "runbindable",
    "shared",
    "slave",
    "strictatime",
    "unbindable",
];

/// The flag of `ro=recursive`, which is also set on the mounts below, and of `ro=vfs` and `ro=fs`,
/// which say whether the mount or its file system has it. For the site all are the flag.
pub(super) fn flag_of(option: &str) -> &str {
    match option.split_once('=') {
        Some((flag, "recursive" | "vfs" | "fs")) => flag,
        _ => option,
    }
}

/// The options that only say whether later mounts propagate.
pub(super) const PROPAGATIONS: [&str; 8] = [
    "private",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "shared",
    "slave",
    "unbindable",
];

pub(super) fn meaning_of(option: &str) -> OptionMeaning<'_> {
    let flag = flag_of(option);
    if option.is_empty() || PLAIN.contains(&flag) {
        return OptionMeaning::Plain;
    }
    if LOST.contains(&flag) {
        return OptionMeaning::Lost;
    }
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    match name {
        "X-mount.subdir" => OptionMeaning::Subdirectory(value),
        // The mount points of a site are made where they are missing.
        "X-mount.mkdir" | "x-mount.mkdir" | "comment" | "user" => OptionMeaning::Plain,
        _ if name.starts_with("X-mount.") || name.starts_with("x-mount.") => OptionMeaning::Foreign,
        "_netdev" => OptionMeaning::Order,
        _ if name.starts_with("x-systemd.") || name.starts_with("x-initrd.") => {
            OptionMeaning::Order
        }
        _ if name.starts_with("x-") || name.starts_with("X-") => OptionMeaning::Plain,
        _ => OptionMeaning::Foreign,
    }
}

/// The remark about the options of a line that say when systemd mounts it.
pub(super) fn remark_on_order(place: &str, order: &[String]) -> Option<String> {
    if order.is_empty() {
        return None;
    }
    Some(format!(
        "{place}: {}: a manifest has no such options; name units under `services`, or order \
         mountjail.service after them.",
        order.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_known_are_foreign() {
        for (option, meaning) in [
            ("ro=recursive", OptionMeaning::Plain),
            ("ro=vfs", OptionMeaning::Plain),
            ("noexec=fs", OptionMeaning::Plain),
            ("ro=other", OptionMeaning::Foreign),
            ("_netdev", OptionMeaning::Order),
            ("X-mount.mkdir=0755", OptionMeaning::Plain),
            ("x-gvfs-hide", OptionMeaning::Plain),
            ("x-systemd.requires=a.service", OptionMeaning::Order),
            ("rslave", OptionMeaning::Lost),
            ("X-mount.subdir=a/b", OptionMeaning::Subdirectory("a/b")),
            ("X-mount.idmap=b:0:1000:1", OptionMeaning::Foreign),
            ("nosymfollow=recursive", OptionMeaning::Foreign),
            ("context=x", OptionMeaning::Foreign),
            ("uid=33", OptionMeaning::Foreign),
            ("nobootwait", OptionMeaning::Plain),
            ("usrquota", OptionMeaning::Plain),
        ] {
            assert_eq!(meaning_of(option), meaning, "{option}");
        }
    }
}
