//! A failed call of a stopped process → the path that it looked up in the root, as the process sees
//! it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::IoSliceMut;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::call::{self, Flags, PathAt, PathCall};
use super::miss::{FailedLookup, LookupFailure, READLINK};
use super::tracee::directory;
use crate::base::{HostPath, JailPath, follow_links, lexical};
use crate::observe;
use crate::resolve::{Host, interpreter_of};
use crate::sys::FileId;

/// `PATH_MAX`, with the byte that ends the path.
const PATH_MAX: usize = 4096;

/// The smallest size of a page. No single read crosses a multiple of it, since the next page may
/// not be there.
const PAGE: u64 = 4096;

/// How many interpreters (`#!` lines and the loader) one exec may need, one after the other.
const MOST_INTERPRETERS: usize = 6;

/// Whether the process `pid` has the directory `root` as its root.
pub(super) fn is_inside(pid: Pid, root: FileId) -> bool {
    u32::try_from(pid.as_raw()).ok().and_then(observe::root_of) == Some(root)
}

/// The path that `call` looked up in vain. The process `pid` is inside, and is stopped after the
/// call. `None`: nothing, or it has no name inside.
pub(super) fn failed(pid: Pid, call: &PathCall, errno: i32) -> Option<FailedLookup> {
    let failure = call.failure(errno)?;
    if let PathAt::Descriptor(nth) = call.kind.path {
        return Some(FailedLookup {
            path: JailPath::new(open_file(pid, call.descriptor(nth))?).ok()?,
            call: call.kind.name,
            writes: false,
            failure,
        });
    }
    let how = open_how(pid, call);
    let path = looked_up(pid, call, how)?;
    let path = in_vain(pid, call, failure, &path)?;
    let writes = match call.kind.flags {
        Flags::None => false,
        Flags::Always => true,
        Flags::Open(nth) => call::writes(call.arguments[nth]),
        Flags::How(_) => how.is_some_and(|how| call::writes(how.flags)),
    };
    Some(FailedLookup {
        path: JailPath::new(path).ok()?,
        call: call.kind.name,
        writes,
        failure,
    })
}

/// The path that the call looks up, from the root of the process.
fn looked_up(pid: Pid, call: &PathCall, how: Option<OpenHow>) -> Option<PathBuf> {
    let text = text(pid, call)?;
    let begins_at_root = match how {
        Some(how) => how.resolve & libc::RESOLVE_IN_ROOT == 0,
        None => true,
    };
    if text.is_absolute() && begins_at_root {
        return Some(text);
    }
    Some(base(pid, call)?.join(text.strip_prefix("/").unwrap_or(&text)))
}

/// What cannot be used of `path`: it, or what it leads to.
fn in_vain(pid: Pid, call: &PathCall, failure: LookupFailure, path: &Path) -> Option<HostPath> {
    let jail = Host::at(directory(pid).join("root"));
    let path = without_parents(&jail, path)?;
    if failure == LookupFailure::NotExecutable {
        return Some(path);
    }
    match call.kind.name {
        READLINK => Some(path),
        "exec" => Some(end_of_links(pid, not_found_by_exec(&jail, path)?)),
        _ => Some(end_of_links(pid, path)),
    }
}

/// The path inside of an open file.
fn open_file(pid: Pid, descriptor: i32) -> Option<PathBuf> {
    let proc = directory(pid);
    let root = fs::read_link(proc.join("root")).ok()?;
    let file = fs::read_link(proc.join("fd").join(descriptor.to_string())).ok()?;
    Some(Path::new("/").join(file.strip_prefix(root).ok()?))
}

/// Where `path`, which is not there, leads by the links of the root: what is really missing.
fn end_of_links(pid: Pid, path: HostPath) -> HostPath {
    let root = directory(pid).join("root");
    follow_links(path, |at| through_first_link(&root, at))
}

/// `path` with its first link followed; `None`: no link is on the way to what is missing.
fn through_first_link(root: &Path, path: &HostPath) -> Option<HostPath> {
    let mut begin = PathBuf::from("/");
    let mut names = path.as_path().iter().skip(1);
    for name in names.by_ref() {
        let above = begin.clone();
        begin.push(name);
        let there = root.join(begin.strip_prefix("/").ok()?);
        if there.symlink_metadata().ok()?.is_symlink() {
            let end = lexical(&above, &fs::read_link(there).ok()?);
            return HostPath::new(end.join(names.collect::<PathBuf>())).ok();
        }
    }
    None
}

/// The path as given; `None` for an empty path, which stands for an open file.
fn text(pid: Pid, call: &PathCall) -> Option<PathBuf> {
    let bytes = match call.kind.path {
        PathAt::Text(nth) => string(pid, call.arguments[nth])?,
        PathAt::Descriptor(_) => return None,
        PathAt::Beside | PathAt::Second => string(pid, call.arguments[1])?,
        PathAt::Address(nth) => unix_address(pid, call.arguments[nth], call.arguments[nth + 1])?,
        PathAt::Message(nth) => {
            let (at, length) = addressee(pid, call.arguments[nth])?;
            unix_address(pid, at, length)?
        }
    };
    if bytes.is_empty() {
        return None;
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

/// `struct open_how`, without its second field, the mode.
#[derive(Clone, Copy)]
struct OpenHow {
    flags: u64,
    resolve: u64,
}

fn open_how(pid: Pid, call: &PathCall) -> Option<OpenHow> {
    let Flags::How(nth) = call.kind.flags else {
        return None;
    };
    let bytes = read(pid, call.arguments[nth], 24)?;
    let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some(OpenHow {
        flags: word(0)?,
        resolve: word(16)?,
    })
}

/// The directory where a relative path begins, as the process sees it; `None` if it is not inside.
fn base(pid: Pid, call: &PathCall) -> Option<PathBuf> {
    let proc = directory(pid);
    let link = match call.kind.path {
        PathAt::Beside if call.descriptor(0) != libc::AT_FDCWD => {
            proc.join("fd").join(call.descriptor(0).to_string())
        }
        _ => proc.join("cwd"),
    };
    // Both are links to the host's names.
    let root = fs::read_link(proc.join("root")).ok()?;
    let at = fs::read_link(link).ok()?;
    Some(Path::new("/").join(at.strip_prefix(root).ok()?))
}

/// Where the address of a `struct msghdr` is, and its length: the first two fields, as 64-bit
/// machines have them.
fn addressee(pid: Pid, at: u64) -> Option<(u64, u64)> {
    let bytes = read(pid, at, 12)?;
    let (name, length) = bytes.split_at_checked(8)?;
    let length = u32::from_ne_bytes(length.try_into().ok()?);
    Some((u64::from_ne_bytes(name.try_into().ok()?), length.into()))
}

/// The path in a `struct sockaddr_un` (`unix(7)`), which is empty for an abstract name; `None` for
/// another family.
fn unix_address(pid: Pid, at: u64, length: u64) -> Option<Vec<u8>> {
    let length = usize::try_from(length & u64::from(u32::MAX)).ok()?;
    let bytes = read(pid, at, length.min(size_of::<libc::sockaddr_un>()))?;
    let (family, path) = bytes.split_at_checked(2)?;
    if i32::from(u16::from_ne_bytes(family.try_into().ok()?)) != libc::AF_UNIX {
        return None;
    }
    let mut path = path.split(|byte| *byte == 0);
    Some(path.next().unwrap_or_default().to_vec())
}

/// The text that ends in a NUL byte at `at`.
fn string(pid: Pid, at: u64) -> Option<Vec<u8>> {
    let mut text = vec![];
    while text.len() < PATH_MAX {
        let from = at.checked_add(text.len() as u64)?;
        let piece = read(pid, from, usize::try_from(PAGE - from % PAGE).ok()?)?;
        match piece.iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&piece[..end]);
                return Some(text);
            }
            None => text.extend(piece),
        }
    }
    None
}

/// `length` bytes of the memory of `pid`, or as many as can be read.
fn read(pid: Pid, at: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let remote = RemoteIoVec {
        base: usize::try_from(at).ok()?,
        len: length,
    };
    let count = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &[remote]).ok()?;
    bytes.truncate(count);
    (count > 0).then_some(bytes)
}

/// `path` without `..`. As the kernel does, each `..` leads to the parent of the real directory
/// before it, or if that is not there, to the one that the path names.
fn without_parents(jail: &Host, path: &Path) -> Option<HostPath> {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out = match jail.walk(&HostPath::new(&out).ok()?) {
                    Ok(walk) => walk.real.as_path().to_owned(),
                    Err(_) => out,
                };
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    HostPath::new(out).ok()
}

/// The path that an exec did not find: the file, or if that is there, its interpreter or loader,
/// and so on.
fn not_found_by_exec(jail: &Host, path: HostPath) -> Option<HostPath> {
    let mut at = path;
    for _ in 0..MOST_INTERPRETERS {
        if !jail.is_there(&at).unwrap_or(false) {
            return Some(at);
        }
        let interpreter = interpreter_of(jail, &at)?;
        at = without_parents(jail, Path::new(OsStr::from_bytes(&interpreter)))?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Pid {
        Pid::this()
    }

    #[test]
    fn texts_are_read_over_the_ends_of_pages() {
        for length in [0, 1, 100, 4094, 4095] {
            let text = [vec![b'x'; length], vec![0]].concat();
            assert_eq!(
                string(own(), text.as_ptr() as u64),
                Some(vec![b'x'; length])
            );
        }
        let endless = vec![b'x'; 3 * PATH_MAX];
        assert_eq!(
            string(own(), endless.as_ptr() as u64),
            None,
            "longer than a path may be"
        );
        assert_eq!(string(own(), 8), None, "nothing is there");
    }

    #[test]
    fn addresses_of_other_families_are_none() {
        let address = |family: libc::c_int, path: &[u8]| {
            let bytes = [&u16::try_from(family).unwrap().to_ne_bytes()[..], path].concat();
            unix_address(own(), bytes.as_ptr() as u64, bytes.len() as u64)
        };
        assert_eq!(
            address(libc::AF_UNIX, b"/run/x.sock\0rest"),
            Some(b"/run/x.sock".to_vec())
        );
        assert_eq!(
            address(libc::AF_UNIX, b"/run/y.sock"),
            Some(b"/run/y.sock".to_vec())
        );
        assert_eq!(address(libc::AF_UNIX, b"\0abstract"), Some(vec![]));
        assert_eq!(address(libc::AF_INET, b"\x00\x50\x7f\x00\x00\x01"), None);
        assert_eq!(unix_address(own(), 0, 0), None);
    }

    #[test]
    fn parents_are_taken_where_links_lead() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib/ssl")).unwrap();
        std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).unwrap();
        let jail = Host::at(dir.path());
        let normal = |path: &str| without_parents(&jail, Path::new(path)).unwrap().to_string();
        assert_eq!(normal("/lib/../share/x"), "/usr/share/x");
        assert_eq!(normal("//usr/./lib/ssl/../../none"), "/usr/none");
        assert_eq!(normal("/none/../etc/hosts"), "/etc/hosts");
        assert_eq!(normal("/../../etc/hosts"), "/etc/hosts");
    }
}
