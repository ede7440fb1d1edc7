//! `/proc/PID/mountinfo`, as `proc_pid_mountinfo(5)` describes it.

use std::fs;
use std::path::PathBuf;

use crate::Result;
use crate::base::text::unescape_octal;
use crate::base::{ErrorContext, MountAttributes};
use crate::sys::{self, StatMount};

/// The table of this thread's mount namespace. `/proc/self` has that of the first thread.
pub(super) const OWN_TABLE: &str = "/proc/thread-self/mountinfo";

/// The text of [`OWN_TABLE`].
pub(super) fn own_text() -> Result<Vec<u8>> {
    let text = fs::read(OWN_TABLE).context(format_args!("cannot read the mount table {OWN_TABLE}"));
    text.map_err(|error| error.hint("is /proc mounted?"))
}

/// The number of mounts in this thread's mount namespace.
pub(crate) fn count() -> Result<usize> {
    Ok(own_text()?.split_inclusive(|byte| *byte == b'\n').count())
}

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's id, reused after an unmount.
    pub id: u64,
    /// Its unique ID, which is never reused. The lines of mountinfo do not have it.
    pub unique_id: Option<u64>,
    /// The mount it is mounted on.
    pub parent: u64,
    /// The device of its file system, which is not `st_dev` on btrfs.
    pub device: u64,
    /// Its file system is provided by a process (FUSE), which may show whatever it likes.
    pub fuse: bool,
    /// The path within its file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted, as seen from the process's root.
    pub point: PathBuf,
    /// Its own attributes, not those of its file system.
    pub attributes: MountAttributes,
    /// The peer group that it is in, if it is shared (`mount_namespaces(7)`).
    pub peer_group: Option<u64>,
    /// The peer group that it is a slave of.
    pub master: Option<u64>,
}

impl MountInfo {
    /// Whether it still exists; `false` if it has no unique ID, because then that is unknown.
    pub(super) fn exists(&self) -> bool {
        self.unique_id.is_some_and(sys::mount_exists)
    }

    /// The result of `statmount(2)` for the mount with this unique ID.
    pub(super) fn from_statmount(unique_id: u64, mount: StatMount) -> Self {
        Self {
            id: mount.id,
            unique_id: Some(unique_id),
            parent: mount.parent_in_mountinfo,
            device: mount.device,
            fuse: mount.fuse,
            root: mount.root,
            point: mount.point,
            attributes: MountAttributes::from_statmount(mount.attributes),
            peer_group: mount.peer_group,
            master: mount.master,
        }
    }
}

/// All lines of a mountinfo file, in its order.
///
/// Errors: the number of the first line that is malformed, counted from 1.
pub fn parse(text: &[u8]) -> Result<Vec<MountInfo>, usize> {
    let mut mounts = vec![];
    for (nth, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        match parse_whole(line) {
            Some(line) => mounts.push(line.mount),
            None => return Err(nth + 1),
        }
    }
    Ok(mounts)
}

/// A line, with its fields about the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub mount: MountInfo,
    /// The file system's type, with its subtype: `ext4`, `fuse.sshfs`.
    pub kind: String,
    /// What was given to mount(2) as the source.
    pub source: String,
    /// The options of the file system.
    pub options: String,
}

/// All lines of a mountinfo file except malformed ones.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = Line> {
    text.split(|byte| *byte == b'\n').filter_map(parse_whole)
}

/// Parses `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`. After the sixth field
/// comes any number of optional fields, ended by a lone `-`.
fn parse_whole(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = device(fields.next()?)?;
    let root = unescape_octal(fields.next()?);
    let point = unescape_octal(fields.next()?);
    let attributes = attributes(fields.next()?);

    let (mut peer_group, mut master) = (None, None);
    loop {
        let field = fields.next()?;
        if field == b"-" {
            break;
        }
        if let Some(group) = field.strip_prefix(b"shared:") {
            peer_group = peer_group.or(number(group));
        } else if let Some(group) = field.strip_prefix(b"master:") {
            master = master.or(number(group));
        }
    }

    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let fuse = kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.");
    let mount = MountInfo {
        id,
        unique_id: None,
        parent,
        device,
        fuse,
        root,
        point,
        attributes,
        peer_group,
        master,
    };
    Some(Line {
        mount,
        kind,
        source: text(fields.next()),
        options: text(fields.next()),
    })
}

fn text(field: Option<&[u8]>) -> String {
    String::from_utf8_lossy(field.unwrap_or_default()).into_owned()
}

/// Parses `98:0`.
fn device(field: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn attributes(field: &[u8]) -> MountAttributes {
    let mut attributes = MountAttributes::OPEN;
    for option in field.split(|byte| *byte == b',') {
        match option {
            b"ro" => attributes.read_only = true,
            b"nosuid" => attributes.nosuid = true,
            b"nodev" => attributes.nodev = true,
            b"noexec" => attributes.noexec = true,
            _ => {}
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_line_is_read_whatever_optional_fields_it_has() {
        for optional in [
            "",
            "shared:1 ",
            "master:1 propagate_from:2 unbindable ",
            "new:- ",
        ] {
            let text = format!(
                "36 35 98:0 /mnt1 /mnt2 ro,nosuid,relatime {optional}- ext3 /dev/root rw,nodev\n"
            );
            let found = parse(text.as_bytes()).unwrap();
            let attributes = MountAttributes {
                read_only: true,
                nosuid: true,
                nodev: false,
                noexec: false,
            };
            let expected = MountInfo {
                id: 36,
                unique_id: None,
                parent: 35,
                device: libc::makedev(98, 0),
                fuse: false,
                root: "/mnt1".into(),
                point: "/mnt2".into(),
                attributes,
                peer_group: optional.starts_with("shared").then_some(1),
                master: optional.starts_with("master").then_some(1),
            };
            assert_eq!(found, [expected], "{optional}");
        }
    }

    #[test]
    fn escapes_and_bytes_that_are_not_text_survive() {
        let text = b"1 1 0:1 /a\\040b\\134040\\012\\043 /\xff\\011\\9\\ rw - tmpfs a\\040b rw\n";
        let found = &parse(text).unwrap()[0];
        assert_eq!(found.root.as_os_str().as_bytes(), b"/a b\\040\n#");
        assert_eq!(found.point.as_os_str().as_bytes(), b"/\xff\t\\9\\");
    }

    #[test]
    fn a_malformed_line_is_refused_by_number() {
        let good = "1 1 0:1 / / rw - tmpfs none rw\n";
        for bad in [
            "x",
            "1 1 0:1 / /",
            "1 1 0:1 / / rw shared:1",
            "1 x 0:1 / / rw - a b c",
            "1 1 01 / / rw - a b c",
            "1 1 0:x / / rw - a b c",
        ] {
            assert_eq!(
                parse(format!("{good}\n{bad}\n").as_bytes()),
                Err(3),
                "{bad}"
            );
        }
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn this_kernels_own_table_is_read() {
        let table = parse(&own_text().unwrap()).unwrap();
        assert!(table.iter().any(|line| line.point == *"/"));
    }
}
