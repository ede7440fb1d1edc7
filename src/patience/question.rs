//! The cause for which a thread of this process waits in the kernel, found out without asking a
//! file system: from the arguments of its system call, the links in `/proc/self/fd`, and the text
//! of the mount table.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::base::text::unescape_octal;
use crate::sys::proc;

/// The longest path that the kernel accepts.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// Less than a page.
const PIECE: usize = 256;

/// A system call that a thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingCall {
    pub number: libc::c_long,
    arguments: [u64; 6],
}

/// The system call in which the thread sleeps; `None`: it does not sleep, or this is not known.
pub(super) fn call(thread: Pid) -> Option<PendingCall> {
    parse(&fs::read_to_string(proc::of_own_thread(thread.as_raw()).join("syscall")).ok()?)
}

/// `332 0xffffff9c 0x7ffe… …`: number, six arguments, stack pointer, program counter; or `running`.
fn parse(text: &str) -> Option<PendingCall> {
    let mut fields = text.split_ascii_whitespace();
    let number: libc::c_long = fields.next()?.parse().ok()?;
    if number < 0 {
        return None;
    }
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some(PendingCall { number, arguments })
}

/// How a system call names its file: the positions of the arguments.
enum NamedBy {
    /// A directory's descriptor and a path from there.
    At(usize, usize),
    Path(usize),
    Descriptor(usize),
}

/// The calls by which this program asks file systems, without those that wait for something else by
/// design.
fn names(number: libc::c_long) -> Option<NamedBy> {
    Some(match number {
        libc::SYS_statx
        | libc::SYS_newfstatat
        | libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_readlinkat
        | libc::SYS_faccessat
        | libc::SYS_faccessat2
        | libc::SYS_mkdirat
        | libc::SYS_mknodat
        | libc::SYS_unlinkat
        | libc::SYS_fchmodat
        | libc::SYS_fchownat
        | libc::SYS_utimensat
        | libc::SYS_renameat2
        | libc::SYS_open_tree
        | libc::SYS_mount_setattr => NamedBy::At(0, 1),
        libc::SYS_symlinkat => NamedBy::At(1, 2),
        libc::SYS_move_mount => NamedBy::At(2, 3),
        libc::SYS_fanotify_mark => NamedBy::At(3, 4),
        libc::SYS_mount | libc::SYS_inotify_add_watch => NamedBy::Path(1),
        libc::SYS_statfs
        | libc::SYS_chdir
        | libc::SYS_chroot
        | libc::SYS_umount2
        | libc::SYS_getxattr
        | libc::SYS_lgetxattr
        | libc::SYS_listxattr
        | libc::SYS_execve => NamedBy::Path(0),
        libc::SYS_fstat
        | libc::SYS_fstatfs
        | libc::SYS_getdents64
        | libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_readv
        | libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_writev
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_close
        | libc::SYS_fchdir
        | libc::SYS_fchmod
        | libc::SYS_fchown
        | libc::SYS_ftruncate
        | libc::SYS_fgetxattr => NamedBy::Descriptor(0),
        other => return older_names(other),
    })
}

/// Calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
fn older_names(number: libc::c_long) -> Option<NamedBy> {
    match number {
        libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_open
        | libc::SYS_readlink
        | libc::SYS_access
        | libc::SYS_mkdir
        | libc::SYS_rmdir
        | libc::SYS_unlink
        | libc::SYS_rename
        | libc::SYS_chmod
        | libc::SYS_chown => Some(NamedBy::Path(0)),
        libc::SYS_getdents => Some(NamedBy::Descriptor(0)),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn older_names(_number: libc::c_long) -> Option<NamedBy> {
    None
}

/// The path about which the thread asks a file system; `None`: it waits for something else.
pub(crate) fn asked_by(thread: Pid) -> Option<PathBuf> {
    let PendingCall { number, arguments } = call(thread)?;
    let path = match names(number)? {
        NamedBy::Descriptor(fd) => of_descriptor(arguments[fd])?,
        NamedBy::Path(path) => text_at(arguments[path])?,
        NamedBy::At(directory, path) => {
            // With AT_EMPTY_PATH there may be none.
            let path = text_at(arguments[path]).unwrap_or_default();
            if path.is_absolute() {
                path
            } else {
                let mut name = of_descriptor(arguments[directory]).unwrap_or_default();
                if !path.as_os_str().is_empty() {
                    name.push(path);
                }
                name
            }
        }
    };
    let path = match descriptor_in(&path) {
        Some(descriptor) => of_descriptor(descriptor)?,
        None => path,
    };
    // Pipes, sockets and terminals have no server.
    let of_the_kernel = ["/dev", "/proc", "/sys"]
        .iter()
        .any(|kernels| path.starts_with(kernels));
    (path.is_absolute() && !of_the_kernel).then_some(path)
}

/// The descriptor of a path through one.
fn descriptor_in(path: &Path) -> Option<u64> {
    let descriptor = path.strip_prefix("/proc/self/fd").ok()?;
    descriptor.to_str()?.parse().ok()
}

/// The path of an open file, which the kernel knows without asking.
fn of_descriptor(fd: u64) -> Option<PathBuf> {
    #[allow(clippy::cast_possible_truncation)] // an int in a register
    let fd = fd as i32;
    proc::name_of_descriptor(fd).ok()
}

/// The text at an address of this process's memory that another thread has passed to the kernel.
fn text_at(address: u64) -> Option<PathBuf> {
    if address == 0 {
        return None;
    }
    let (memory, mut text) = (File::open("/proc/self/mem").ok()?, vec![]);
    while text.len() < PATH_MAX {
        // Not beyond the page: the next one may not be mapped.
        let at = address + text.len() as u64;
        let mut piece = [0; PIECE];
        let room = PIECE - usize::try_from(at).ok()? % PIECE;
        memory.read_exact_at(&mut piece[..room], at).ok()?;
        let end = piece[..room].iter().position(|byte| *byte == 0);
        text.extend_from_slice(&piece[..end.unwrap_or(room)]);
        if end.is_some() {
            return Some(PathBuf::from(OsString::from_vec(text)));
        }
    }
    None
}

/// The mount point and the type of the file system that `path` lies on, by its text. If mounts on
/// the way have a server, it is the last one of these.
pub(super) fn mount_of(path: &Path) -> Option<(PathBuf, String)> {
    find(&fs::read("/proc/self/mountinfo").ok()?, path)
}

fn find(table: &[u8], path: &Path) -> Option<(PathBuf, String)> {
    // Those with a server count more than the others, and among these the deepest.
    let mut best: Option<((bool, usize), (PathBuf, String))> = None;
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let Some(point) = fields.nth(4).map(unescape_octal) else {
            continue;
        };
        if !path.starts_with(&point) {
            continue;
        }
        let Some(kind) = fields.skip_while(|field| *field != b"-").nth(1) else {
            continue;
        };
        let kind = String::from_utf8_lossy(kind).into_owned();
        let rank = (has_server(&kind), point.as_os_str().len());
        match &best {
            Some((known, _)) if *known > rank => {}
            _ => best = Some((rank, (point, kind))),
        }
    }
    let (_, found) = best?;
    Some(found)
}

/// Whether `path` lies on a file system that has a server, by its text.
pub(super) fn is_on_a_server(path: &Path) -> bool {
    match mount_of(path) {
        Some((_, kind)) => has_server(&kind),
        None => false,
    }
}

/// Whether a file system of this type has a server: another process or machine.
fn has_server(kind: &str) -> bool {
    const KINDS: [&str; 23] = [
        "9p",
        "afs",
        "autofs",
        "ceph",
        "cifs",
        "coda",
        "fuse",
        "fuseblk",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "prl_fs",
        "pvfs2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
    ];
    kind.starts_with("fuse.") || KINDS.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_is_in() {
        let found = parse("332 0xffffff9c 0x10 0x2 0x3 0x4 0x5 0x7ffe 0x7f\n").unwrap();
        assert_eq!(
            (found.number, found.arguments),
            (332, [0xffff_ff9c, 0x10, 2, 3, 4, 5])
        );
        assert_eq!(
            (parse("running\n"), parse("-1 0x7ffe 0x7f\n"), parse("")),
            (None, None, None)
        );
    }

    #[test]
    fn text_is_found_in_this_process() {
        let text = format!("/srv/{}\0", "long/".repeat(200));
        assert_eq!(
            text_at(text.as_ptr() as u64).unwrap().as_os_str().len(),
            text.len() - 1
        );
        assert_eq!((text_at(0), text_at(8)), (None, None));
    }

    #[test]
    fn a_read_of_a_pipe_asks_no_file_system_and_one_of_a_file_does() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (read, write) = std::io::pipe().unwrap();
        let seen = |wait: Box<dyn FnOnce() + Send>| {
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                tell.send(nix::unistd::gettid()).unwrap();
                wait();
            });
            let (thread, start) = (told.recv().unwrap(), std::time::Instant::now());
            let waits =
                |call: PendingCall| [libc::SYS_read, libc::SYS_openat].contains(&call.number);
            while !call(thread).is_some_and(waits) {
                assert!(start.elapsed().as_secs() < 30);
                std::thread::yield_now();
            }
            asked_by(thread)
        };
        assert_eq!(
            seen(Box::new(move || drop(std::io::Read::read(
                &mut &read,
                &mut [0]
            )))),
            None
        );
        let path = fifo.clone();
        // Opening a FIFO waits for its other end, as opening a file waits for a server.
        assert_eq!(
            seen(Box::new(move || drop(File::open(path)))),
            Some(fifo.clone())
        );
        drop(write);
        drop(File::options().write(true).open(fifo));
    }

    #[test]
    fn the_mount_with_a_server_is_named() {
        let table =
            b"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /srv/a\\040b rw - fuse.sshfs x rw\n\
                      3 2 0:1 / /srv/a\\040b/c rw shared:1 - ext4 /dev/a rw\n";
        let at = |path: &str| find(table, Path::new(path)).unwrap();
        assert_eq!(at("/srv/x"), ("/".into(), "ext4".into()));
        assert_eq!(at("/srv/a b/x"), ("/srv/a b".into(), "fuse.sshfs".into()));
        assert_eq!(at("/srv/a b/c/x"), ("/srv/a b".into(), "fuse.sshfs".into()));
    }
}
