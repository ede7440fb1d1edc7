//! The units of mounts.

use std::path::Path;

/// The types of network file systems, as in systemd's `fstype_is_network()`.
const NETWORK_TYPES: [&str; 20] = [
    "afs",
    "ceph",
    "cifs",
    "smb3",
    "smbfs",
    "sshfs",
    "ncpfs",
    "ncp",
    "nfs",
    "nfs4",
    "gfs",
    "gfs2",
    "glusterfs",
    "pvfs2",
    "ocfs2",
    "lustre",
    "davfs",
    "9p",
    "curlftpfs",
    "s3fs",
];

/// Whether mount(8) and systemd treat file systems of this type as network file systems.
pub fn is_network_type(kind: &str) -> bool {
    let kind = kind.strip_prefix("fuse.").unwrap_or(kind);
    NETWORK_TYPES.contains(&kind)
}

/// The mount units that may hold `path`: `srv.mount` and `srv-www.mount` for `/srv/www`.
pub fn mounts_of(path: &Path) -> Vec<String> {
    let below_slash = path.ancestors().filter(|above| above.parent().is_some());
    below_slash.filter_map(mount_unit).collect()
}

/// The unit of a mount point, as `systemd-escape --path --suffix=mount` gives it.
fn mount_unit(path: &Path) -> Option<String> {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let path = path.as_os_str().as_bytes();
    let mut name = String::new();
    for (at, byte) in path.strip_prefix(b"/")?.iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at > 0 => name.push('.'),
            byte if byte.is_ascii_alphanumeric() || b":_".contains(byte) => {
                name.push(char::from(*byte));
            }
            byte => write!(name, "\\x{byte:02x}").ok()?,
        }
    }
    Some(format!("{name}.mount"))
}
