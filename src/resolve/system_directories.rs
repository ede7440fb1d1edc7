//! The directories in which no jail can be.

/// Directories that hold the system, and those in which sites are kept.
pub(super) const SYSTEM: [&str; 29] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/mail",
    "/var/spool",
    "/var/tmp",
];

/// Directories below which no jail can be.
pub(super) const SYSTEM_BELOW: [&str; 21] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/run/mountjail",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/libx32",
    "/usr/sbin",
    "/usr/share",
    "/var/lib/mountjail",
];

/// The directories that hold the system, each once, with whether no jail can be below it.
pub(super) fn system_directories() -> impl Iterator<Item = (&'static str, bool)> {
    let whole = SYSTEM_BELOW.iter().map(|system| (*system, true));
    let others = SYSTEM
        .iter()
        .filter(|system| !SYSTEM_BELOW.contains(system));
    whole.chain(others.map(|system| (*system, false)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_directory_is_looked_at_once() {
        let all: Vec<_> = system_directories().map(|(path, _)| path).collect();
        let each: BTreeSet<_> = SYSTEM.iter().chain(&SYSTEM_BELOW).copied().collect();
        assert_eq!(all.len(), each.len());
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), each);
        assert!(system_directories().any(|of| of == ("/etc", true)));
        assert!(system_directories().any(|of| of == ("/home", false)));
    }
}
