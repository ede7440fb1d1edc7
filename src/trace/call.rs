//! The system calls that look up paths, and the meaning of their arguments. Pure.
//!
//! The numbers are the machine's own. Newer architectures lack some of the older calls.

use super::miss::LookupFailure;

/// `AUDIT_ARCH_*` (linux/audit.h) of the programs whose calls are understood.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

/// The bit that marks calls of the x32 ABI. It shares x86-64's architecture, but not its numbers.
#[cfg(target_arch = "x86_64")]
const OTHER_ABI: u64 = 0x4000_0000;
#[cfg(not(target_arch = "x86_64"))]
const OTHER_ABI: u64 = 0;

/// A system call that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathCall {
    pub kind: &'static PathCallKind,
    pub arguments: [u64; 6],
}

/// How a call takes a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathCallKind {
    number: libc::c_long,
    pub name: &'static str,
    pub path: PathAt,
    pub flags: Flags,
}

/// Where the path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathAt {
    /// The argument points to it; a relative path begins at the working directory.
    Text(usize),
    /// The second argument points to it; a relative path begins at the directory that the first one
    /// is.
    Beside,
    /// The second argument points to it; a relative path begins at the working directory.
    Second,
    /// An open file, the descriptor in this argument.
    Descriptor(usize),
    /// In the `sockaddr` that the argument points to; the next argument is its length.
    Address(usize),
    /// In the `sockaddr` of the first `msghdr` that the argument points to.
    Message(usize),
}

/// Where a call says whether it is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// It never is.
    None,
    /// It always is.
    Always,
    /// `O_*` in this argument.
    Open(usize),
    /// In the `open_how` that this argument points to.
    How(usize),
}

const fn kind(
    number: libc::c_long,
    name: &'static str,
    path: PathAt,
    flags: Flags,
) -> PathCallKind {
    PathCallKind {
        number,
        name,
        path,
        flags,
    }
}

#[cfg(target_pointer_width = "64")]
const FSTATAT: libc::c_long = libc::SYS_newfstatat;
#[cfg(not(target_pointer_width = "64"))]
const FSTATAT: libc::c_long = libc::SYS_fstatat64;

/// mmap(2), which looks up no path, but fails for a file on a mount with `noexec`.
const MAP: &str = "map";

const KINDS: &[PathCallKind] = &[
    kind(libc::SYS_openat, "open", PathAt::Beside, Flags::Open(2)),
    kind(libc::SYS_openat2, "open", PathAt::Beside, Flags::How(2)),
    kind(FSTATAT, "stat", PathAt::Beside, Flags::None),
    kind(libc::SYS_statx, "stat", PathAt::Beside, Flags::None),
    kind(libc::SYS_faccessat, "access", PathAt::Beside, Flags::None),
    kind(libc::SYS_faccessat2, "access", PathAt::Beside, Flags::None),
    kind(
        libc::SYS_readlinkat,
        "readlink",
        PathAt::Beside,
        Flags::None,
    ),
    kind(libc::SYS_execve, "exec", PathAt::Text(0), Flags::None),
    kind(libc::SYS_execveat, "exec", PathAt::Beside, Flags::None),
    kind(
        libc::SYS_connect,
        "connect",
        PathAt::Address(1),
        Flags::None,
    ),
    kind(libc::SYS_sendto, "connect", PathAt::Address(4), Flags::None),
    kind(
        libc::SYS_sendmsg,
        "connect",
        PathAt::Message(1),
        Flags::None,
    ),
    kind(
        libc::SYS_sendmmsg,
        "connect",
        PathAt::Message(1),
        Flags::None,
    ),
    kind(libc::SYS_bind, "bind", PathAt::Address(1), Flags::Always),
    kind(libc::SYS_mkdirat, "mkdir", PathAt::Beside, Flags::Always),
    kind(libc::SYS_mmap, MAP, PathAt::Descriptor(4), Flags::None),
    kind(libc::SYS_chdir, "chdir", PathAt::Text(0), Flags::None),
    kind(libc::SYS_statfs, "stat", PathAt::Text(0), Flags::None),
    kind(libc::SYS_getxattr, "stat", PathAt::Text(0), Flags::None),
    kind(libc::SYS_lgetxattr, "stat", PathAt::Text(0), Flags::None),
    kind(
        libc::SYS_inotify_add_watch,
        "watch",
        PathAt::Second,
        Flags::None,
    ),
];

/// Newer architectures only have the forms of these with a directory.
#[cfg(target_arch = "x86_64")]
const OLDER: &[PathCallKind] = &[
    kind(libc::SYS_open, "open", PathAt::Text(0), Flags::Open(1)),
    kind(libc::SYS_creat, "open", PathAt::Text(0), Flags::Always),
    kind(libc::SYS_mkdir, "mkdir", PathAt::Text(0), Flags::Always),
    kind(libc::SYS_stat, "stat", PathAt::Text(0), Flags::None),
    kind(libc::SYS_lstat, "stat", PathAt::Text(0), Flags::None),
    kind(libc::SYS_access, "access", PathAt::Text(0), Flags::None),
    kind(libc::SYS_readlink, "readlink", PathAt::Text(0), Flags::None),
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[PathCallKind] = &[];

/// Whether calls of this machine's programs are understood.
pub(super) fn is_known_machine() -> bool {
    ARCHITECTURE != 0
}

/// Whether the numbers here are those of the call `number` of the architecture `arch`.
pub(super) fn is_understood(arch: u32, number: u64) -> bool {
    arch == ARCHITECTURE && number & OTHER_ABI == 0
}

impl PathCall {
    /// The call of this number, if it looks up a path.
    pub(super) fn new(number: u64, arguments: [u64; 6]) -> Option<Self> {
        let number = libc::c_long::try_from(number).ok()?;
        let kind = KINDS
            .iter()
            .chain(OLDER)
            .find(|kind| kind.number == number)?;
        Some(Self { kind, arguments })
    }

    /// The fault of the path of a call that fails with this errno. `None`: the call did not
    /// look it up in vain.
    pub(super) fn failure(&self, errno: i32) -> Option<LookupFailure> {
        let executes = self.arguments[2] & u64::from(libc::PROT_EXEC.unsigned_abs()) != 0;
        match (self.kind.name, errno) {
            (MAP, libc::EPERM) if executes => Some(LookupFailure::NotExecutable),
            (MAP, _) => None,
            ("exec", libc::EACCES) => Some(LookupFailure::NotExecutable),
            (_, libc::ENOENT | libc::ENOTDIR) => Some(LookupFailure::Absent),
            (_, libc::EACCES) => Some(LookupFailure::Denied),
            (_, libc::EROFS) if self.kind.flags != Flags::None => Some(LookupFailure::ReadOnly),
            _ => None,
        }
    }

    /// The argument as a descriptor: an int, whatever the upper half of the register holds.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn descriptor(&self, nth: usize) -> i32 {
        self.arguments[nth] as i32
    }
}

/// Whether `open` with these flags is to write.
pub(super) fn writes(flags: u64) -> bool {
    // Not O_ACCMODE, which includes O_PATH in musl.
    let accesses = u64::from((libc::O_WRONLY | libc::O_RDWR).unsigned_abs());
    let creates = u64::from((libc::O_CREAT | libc::O_TRUNC).unsigned_abs());
    flags & accesses != u64::from(libc::O_RDONLY.unsigned_abs()) || flags & creates != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_numbers() {
        let number = u64::try_from(libc::SYS_openat).unwrap();
        let call = PathCall::new(number, [0xffff_ffff_ffff_ff9c, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!(
            (call.kind.name, call.kind.path, call.descriptor(0)),
            ("open", PathAt::Beside, libc::AT_FDCWD)
        );
        // The upper half of a register is not part of an int.
        let call = PathCall::new(number, [0xffff_ff9c, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!(call.descriptor(0), libc::AT_FDCWD);
        assert_eq!(
            PathCall::new(u64::try_from(libc::SYS_getpid).unwrap(), [0; 6]),
            None
        );
        assert_eq!(PathCall::new(u64::MAX, [0; 6]), None);
    }

    #[test]
    fn no_number_stands_twice() {
        let mut numbers: Vec<_> = KINDS.iter().chain(OLDER).map(|kind| kind.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), KINDS.len() + OLDER.len());
    }

    #[test]
    fn other_programs_are_not_misread() {
        assert!(is_known_machine() && is_understood(ARCHITECTURE, 2));
        assert!(!is_understood(0x4000_0003, 5), "i386");
        #[cfg(target_arch = "x86_64")]
        assert!(!is_understood(ARCHITECTURE, 0x4000_0002), "x32");
    }

    #[test]
    fn writing_is_by_the_flags() {
        let flags = |flags: i32| writes(u64::try_from(flags).unwrap());
        assert!(!flags(
            libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECTORY | libc::O_PATH
        ));
        assert!(
            flags(libc::O_WRONLY) && flags(libc::O_RDWR) && flags(libc::O_RDONLY | libc::O_CREAT)
        );
    }
}
