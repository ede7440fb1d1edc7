//! Programs with arbitrary ELF headers: elf(5).

use std::fs;
use std::path::Path;

const HEADER: usize = 64;
const SEGMENT: u64 = 56;

/// A 64-bit program for the machine of the program `like`, with this interpreter, these needed
/// libraries, and this path to find them.
pub fn program(like: &Path, interpreter: Option<&str>, needed: &[&str], path: &str) -> Vec<u8> {
    let model = fs::read(like).unwrap();
    let interpreter = interpreter.map(|interpreter| [interpreter.as_bytes(), b"\0"].concat());
    let count = if interpreter.is_some() { 3 } else { 2 };
    let texts = HEADER as u64 + u64::from(count) * SEGMENT;
    // One table of texts: an empty one, the path, the libraries, and behind it the interpreter.
    let mut table = vec![0];
    let mut entries = vec![];
    for (tag, text) in needed.iter().map(|name| (1, *name)).chain([(29, path)]) {
        entries.push([tag, table.len() as u64]); // DT_NEEDED, DT_RUNPATH
        table.extend([text.as_bytes(), b"\0"].concat());
    }
    entries.extend([[5, texts], [10, table.len() as u64], [0, 0]]); // DT_STRTAB, DT_STRSZ, DT_NULL
    let named = texts + table.len() as u64;
    table.extend(interpreter.iter().flatten());
    while table.len() % 8 != 0 {
        table.push(0);
    }
    let dynamic = texts + table.len() as u64;
    let end = dynamic + entries.len() as u64 * 16;
    let mut segments = vec![[1, 0, end], [2, dynamic, end - dynamic]]; // PT_LOAD, PT_DYNAMIC
    segments.extend(
        interpreter
            .as_ref()
            .map(|text| [3, named, text.len() as u64]),
    ); // PT_INTERP
    let words = |words: &[u64]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let mut bytes = model[..HEADER].to_vec(); // class, machine and version
    bytes[16..18].copy_from_slice(&3u16.to_le_bytes()); // ET_DYN
    // no entry, the segments, no sections
    bytes[24..48].copy_from_slice(&words(&[0, HEADER as u64, 0]));
    bytes[54..64].copy_from_slice(&[56, 0, count, 0, 64, 0, 0, 0, 0, 0]);
    for [kind, offset, size] in segments {
        bytes.extend(words(&[
            kind | 5 << 32,
            offset,
            offset,
            offset,
            size,
            size,
            8,
        ])); // readable, executable
    }
    bytes.extend(table);
    bytes.extend(words(&entries.concat()));
    bytes
}
