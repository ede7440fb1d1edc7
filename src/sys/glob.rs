//! glob(3).

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

/// The files that match `pattern`, in glob(3)'s order. Directories are left out.
///
/// Errors: a directory on the way cannot be read.
pub fn files_matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let pattern = CString::new(pattern.as_os_str().as_bytes())?;
    // SAFETY: all zeros are a valid `glob_t`, as one that glob(3) has not filled yet.
    let mut found: libc::glob_t = unsafe { std::mem::zeroed() };
    let flags = libc::GLOB_ERR | libc::GLOB_MARK;
    // SAFETY: the pattern ends with a zero byte, and `found` lives until it is freed below.
    let glob = || unsafe { libc::glob(pattern.as_ptr(), flags, None, &raw mut found) };
    let (answer, error) = with_utf8(glob);

    let mut files = vec![];
    for nth in 0..found.gl_pathc {
        // SAFETY: glob(3) has filled as many paths, each of which ends with a zero byte.
        let path = unsafe { CStr::from_ptr(*found.gl_pathv.add(nth)) };
        if !path.to_bytes().ends_with(b"/") {
            files.push(PathBuf::from(OsStr::from_bytes(path.to_bytes())));
        }
    }
    // SAFETY: `found` is from glob(3), which also allows this after it failed.
    unsafe { libc::globfree(&raw mut found) };
    match answer {
        0 | libc::GLOB_NOMATCH => Ok(files),
        libc::GLOB_NOSPACE => Err(io::ErrorKind::OutOfMemory.into()),
        _ => Err(error),
    }
}

/// What `call` returns on this thread with the characters of UTF-8, if there is such a locale, and
/// the error then: newlocale(3), uselocale(3).
fn with_utf8<T>(call: impl FnOnce() -> T) -> (T, io::Error) {
    let name = c"C.UTF-8".as_ptr();
    // SAFETY: the name ends with a zero byte; a null base asks for a new locale.
    let utf8 = unsafe { libc::newlocale(libc::LC_CTYPE_MASK, name, ptr::null_mut()) };
    // SAFETY: `utf8` was just made, or is null, which changes nothing.
    let before = unsafe { libc::uselocale(utf8) };
    let result = (call(), io::Error::last_os_error());
    if !utf8.is_null() {
        // SAFETY: `before` was this thread's locale, and nothing else uses `utf8`.
        unsafe {
            libc::uselocale(before);
            libc::freelocale(utf8);
        }
    }
    result
}
