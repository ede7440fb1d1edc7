//! Text functions of the C library that open modules and data on demand: iconv and locales.

use std::ffi::CStr;
use std::io;
use std::ptr;

/// `LC_ALL_MASK` of glibc. musl has the first six of these categories, in the same order, and
/// ignores the others.
const ALL_CATEGORIES: libc::c_int = 0x1fbf;

/// Converts `text` between two character sets: `iconv_open(3)`, `iconv(3)`.
///
/// Errors: EINVAL if the conversion is not available, most likely because a gconv module is
/// missing; EILSEQ if `text` is not in the character set `from`; E2BIG if the result is longer than
/// `iconv` ever makes it for such a text.
pub fn iconv(to: &CStr, from: &CStr, text: &[u8]) -> io::Result<Vec<u8>> {
    // SAFETY: both names are NUL-terminated and live across the call.
    let descriptor = unsafe { libc::iconv_open(to.as_ptr(), from.as_ptr()) };
    if descriptor as isize == -1 {
        return Err(io::Error::last_os_error());
    }

    let mut input = text.to_vec();
    let mut output = vec![0u8; text.len() * 4 + 16];
    let (mut source, mut source_left) = (input.as_mut_ptr().cast::<libc::c_char>(), input.len());
    let (mut target, mut target_left) = (output.as_mut_ptr().cast::<libc::c_char>(), output.len());
    // SAFETY: `descriptor` is open. Each pointer is to a buffer with as many bytes left as the
    // length beside it, and both buffers outlive the call.
    let converted = unsafe {
        libc::iconv(
            descriptor,
            &raw mut source,
            &raw mut source_left,
            &raw mut target,
            &raw mut target_left,
        )
    };
    let error = io::Error::last_os_error();

    // SAFETY: `descriptor` is open and is not used afterwards.
    unsafe { libc::iconv_close(descriptor) };
    if converted == usize::MAX {
        return Err(error);
    }
    output.truncate(output.len() - target_left);
    Ok(output)
}

/// Checks that the locale `name` can be loaded in all its categories: `newlocale(3)`.
///
/// Errors: ENOENT if its data is missing. With musl this never happens, because musl does not need
/// the data.
pub fn load_locale(name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is NUL-terminated and lives across the call; a null base asks for a new
    // locale.
    let locale = unsafe { libc::newlocale(ALL_CATEGORIES, name.as_ptr(), ptr::null_mut()) };
    if locale.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `locale` was just returned by newlocale, and nothing else uses it.
    unsafe { libc::freelocale(locale) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions() {
        assert_eq!(
            iconv(c"UTF-16BE", c"UTF-8", "aß".as_bytes()).unwrap(),
            [0, b'a', 0, 0xdf]
        );
        assert_eq!(
            iconv(c"NO-SUCH-SET", c"UTF-8", b"a")
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EINVAL)
        );
        assert_eq!(
            iconv(c"UTF-16BE", c"UTF-8", b"\xff")
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EILSEQ)
        );
    }

    #[test]
    fn locales() {
        assert!(load_locale(c"C").is_ok());
        let missing = load_locale(c"xx_XX.none").map_err(|error| error.raw_os_error());
        assert_eq!(
            missing,
            if crate::sys::MUSL {
                Ok(())
            } else {
                Err(Some(libc::ENOENT))
            }
        );
    }
}
