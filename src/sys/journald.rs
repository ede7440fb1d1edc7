//! The journal's native protocol: systemd's `JOURNAL_NATIVE_PROTOCOL`.

use std::io;
use std::os::unix::net::UnixDatagram;

const SOCKET: &str = "/run/systemd/journal/socket";

/// Sends an entry with these fields to the journal; a name may be there more than once.
///
/// Errors: no journal listens, or the entry is too long for a datagram.
pub fn send_to_journal(fields: &[(&str, &str)]) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to(&entry(fields), SOCKET)?;
    Ok(())
}

/// Each field is its name, a line's end, the length of its value, the value, and a line's end.
fn entry(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut entry = vec![];
    for (name, value) in fields {
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_value_may_have_several_lines() {
        assert_eq!(
            super::entry(&[("A", "1\nB=2"), ("A", "")]),
            b"A\n\x05\0\0\0\0\0\0\x001\nB=2\nA\n\0\0\0\0\0\0\0\0\n"
        );
    }
}
