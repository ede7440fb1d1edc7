//! A file in a root beside the host's, by their contents.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::judge::Form;
use crate::sys::{self, proc};

/// How much is read at once.
const PIECE: usize = 1 << 16;

/// How much of a file tells its form.
const BEGINNING: usize = 4096;

/// Opens the regular file `file`, which was opened with `O_PATH`, for reading.
pub(super) fn open(file: &OwnedFd) -> io::Result<File> {
    let mut options = File::options();
    let options = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(proc::path_of_descriptor(file))
}

/// Whether the files have the same contents. It reads as far as they agree, and no further than the
/// shorter one, whatever sizes they report.
pub(super) fn are_equal(mine: &OwnedFd, hosts: &Path) -> io::Result<bool> {
    let (mut mine, mut hosts) = (open(mine)?, sys::open_regular(hosts)?);
    let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let read = fill(&mut hosts, &mut b)?;
        if fill(&mut mine, &mut a)? != read || a[..read] != b[..read] {
            return Ok(false);
        }
        if read < PIECE {
            return Ok(true);
        }
    }
}

/// The forms of both files.
pub(super) fn forms(mine: &OwnedFd, hosts: &Path) -> io::Result<(Form, Form)> {
    Ok((form(open(mine)?)?, form(sys::open_regular(hosts)?)?))
}

fn form(mut file: File) -> io::Result<Form> {
    let mut beginning = vec![0; BEGINNING];
    let length = fill(&mut file, &mut beginning)?;
    Ok(Form::of(&beginning[..length]))
}

/// Reads until `buffer` is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Whether no process has the socket any more. A datagram socket is connected to it, of which no
/// process notices anything.
pub(super) fn is_dead_socket(socket: &OwnedFd) -> bool {
    let connected =
        UnixDatagram::unbound().and_then(|client| client.connect(proc::path_of_descriptor(socket)));
    connected.is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::UnixListener;

    fn path_only(path: &Path) -> OwnedFd {
        sys::open_host(path, libc::O_PATH).unwrap()
    }

    #[test]
    fn contents_decide_to_the_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, hosts) = (dir.path().join("mine"), dir.path().join("hosts"));
        let long = vec![b'x'; 2 * PIECE];
        let mut other = long.clone();
        other.push(b'y');
        for (a, b, equal) in [
            (&long[..], &long[..], true),
            (&long, &other, false),
            (&other, &long, false),
            (&other[1..], &long, false),
            (b"", b"", true),
            (b"", b"a", false),
        ] {
            fs::write(&mine, a).unwrap();
            fs::write(&hosts, b).unwrap();
            assert_eq!(are_equal(&path_only(&mine), &hosts).unwrap(), equal);
        }
    }

    #[test]
    fn a_socket_lives_as_long_as_a_process_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (stream, datagram) = (dir.path().join("stream"), dir.path().join("datagram"));
        let listener = UnixListener::bind(&stream).unwrap();
        let receiver = UnixDatagram::bind(&datagram).unwrap();
        let is_dead = |path: &Path| is_dead_socket(&path_only(path));
        assert!(!is_dead(&stream) && !is_dead(&datagram));
        drop((listener, receiver));
        assert!(is_dead(&stream) && is_dead(&datagram));
    }
}
