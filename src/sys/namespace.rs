//! Mount namespaces (`mount_namespaces(7)`). A namespace belongs to a thread, so each function acts
//! on the calling thread alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Pid, chdir, chroot, fchdir, gettid, pivot_root};

use super::open::open_host;
use super::result::new_descriptor;

/// `NSFS_MAGIC` in linux/magic.h.
const NSFS_MAGIC: libc::c_long = 0x6e73_6673;

// linux/pidfd.h
const PIDFD_THREAD: libc::c_int = libc::O_EXCL;
const PIDFD_GET_MNT_NAMESPACE: libc::Ioctl = 0xff03;

/// Does `work` on a thread of its own, which ends with it.
///
/// Errors: those of `work`, and EAGAIN if there cannot be another thread.
pub fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Opens the mount namespace of this thread.
pub fn mount_namespace() -> io::Result<OwnedFd> {
    namespace_of_pidfd().or_else(|_| File::open("/proc/thread-self/ns/mnt").map(OwnedFd::from))
}

/// As [`mount_namespace`], without `/proc` (Linux 6.11). The kernel has to
/// forget a thread's lookups below `/proc/thread-self` when the thread ends. If that takes a while,
/// a process that waits for this one spins as long: often for milliseconds.
fn namespace_of_pidfd() -> io::Result<OwnedFd> {
    let own = gettid().as_raw();
    // SAFETY: there are no pointers. It returns a new descriptor.
    let thread = unsafe { new_descriptor(libc::syscall(libc::SYS_pidfd_open, own, PIDFD_THREAD)) }?;
    // SAFETY: the request takes no argument. It returns a new descriptor.
    unsafe { new_descriptor(libc::ioctl(thread.as_raw_fd(), PIDFD_GET_MNT_NAMESPACE, 0)) }
}

/// Opens the namespace that is pinned by a bind mount on `path`. `None`: none is.
pub fn pinned_namespace(path: &Path) -> io::Result<Option<OwnedFd>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => OwnedFd::from(result?),
    };
    let is_pinned = fstatfs(&file)?.filesystem_type().0 == NSFS_MAGIC;
    Ok(is_pinned.then_some(file))
}

/// Moves this thread into the mount namespace. Its root and working directory become those of the
/// namespace.
pub fn enter_mount_namespace(namespace: impl AsFd) -> io::Result<()> {
    unshare(CloneFlags::CLONE_FS)?; // setns(2) refuses threads that share their root directory
    Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?)
}

/// Moves this thread into a new mount namespace, a private copy of its old one.
pub fn new_mount_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(
        None::<&str>,
        "/",
        None::<&str>,
        private,
        None::<&str>,
    )?)
}

/// Moves this thread into the mount namespace, as [`enter_mount_namespace`], to the directory
/// `root` of it.
pub fn enter_root(namespace: impl AsFd, root: impl AsFd) -> io::Result<()> {
    enter_mount_namespace(namespace)?;
    fchdir(root)?;
    Ok(chroot(".")?)
}

/// Makes the mount at `root` the root of the mount namespace, and detaches all others, also those
/// that are outside of the root directory of this process.
pub fn change_root(root: &Path) -> io::Result<()> {
    let root = open_host(root, libc::O_PATH | libc::O_DIRECTORY)?;
    enter_mount_namespace(mount_namespace()?)?; // at its root
    fchdir(root)?;
    pivot_root(".", ".")?; // the old root is on top of the new one now: pivot_root(2)
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

/// The processors that this thread may run on, by their numbers.
pub fn usable_processors() -> io::Result<Vec<usize>> {
    let usable = sched_getaffinity(Pid::from_raw(0))?;
    let all = 0..CpuSet::count();
    Ok(all.filter(|nth| usable.is_set(*nth) == Ok(true)).collect())
}

/// Makes this thread run on that processor alone.
pub fn run_on(processor: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
}
