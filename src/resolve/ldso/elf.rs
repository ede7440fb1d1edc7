//! The parts of an ELF file that the dynamic loader reads: header, interpreter, dynamic section.
//!
//! In: a file or its bytes, possibly hostile. Out: an [`Object`], or what is wrong with the file.
//! Only the relevant parts are read, each of bounded size, however large the file is.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use elf::abi;
use elf::dynamic::DynamicTable;
use elf::endian::AnyEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::segment::{ProgramHeader, SegmentTable};

const IDENT: usize = 16;
const LARGEST_HEADER: usize = 64;
/// `PATH_MAX`: the kernel's limit for `PT_INTERP`, and ours for any string.
const LONGEST_STRING: usize = 4096;
/// Bytes of the dynamic section that are read; real ones have a few hundred.
const LARGEST_DYNAMIC: u64 = 64 << 10;
/// Names of libraries and search paths in one object, in bytes; real ones have some hundred.
const MOST_TEXT: usize = 64 << 10;
const NODEFLIB: u64 = abi::DF_1_NODEFLIB.unsigned_abs();
const PIE: u64 = abi::DF_1_PIE.unsigned_abs();
const DT_AUXILIARY: i64 = 0x7fff_fffd;
const DT_FILTER: i64 = 0x7fff_ffff;

/// The properties that decide whether a process can load an object: class, byte order and machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Abi {
    /// 64-bit, else 32-bit.
    pub wide: bool,
    /// Big-endian, else little-endian.
    pub big_endian: bool,
    /// `e_machine`.
    pub machine: u16,
    /// `e_flags`, which tells the float ABI on 32-bit ARM and RISC-V.
    pub flags: u32,
}

impl Abi {
    /// Whether an object of ABI `self` fits into a process of ABI `process`; the loader skips the
    /// others.
    pub fn fits(self, process: Self) -> bool {
        (self.wide, self.machine) == (process.wide, process.machine)
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.wide { "64" } else { "32" };
        match (self.machine, self.wide) {
            (abi::EM_X86_64, true) => f.write_str("x86-64"),
            (abi::EM_X86_64, false) => f.write_str("x32"),
            (abi::EM_386, _) => f.write_str("32-bit x86"),
            (abi::EM_AARCH64, _) => f.write_str("64-bit ARM"),
            (abi::EM_ARM, _) => f.write_str("32-bit ARM"),
            (machine, _) => write!(f, "{bits}-bit machine {machine}"),
        }
    }
}

/// The requests of an object to the loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The architecture and ABI of the machine that runs it.
    pub abi: Abi,
    /// `ET_EXEC`, or `ET_DYN` with `DF_1_PIE`: the loader refuses it as a library.
    pub program: bool,
    /// `PT_INTERP`.
    pub interpreter: Option<Vec<u8>>,
    /// It has a dynamic section; without one it is static.
    pub dynamic: bool,
    /// The libraries that it needs, in the order of the dynamic section.
    pub needs: Vec<NeededName>,
    /// `DT_SONAME`.
    pub soname: Option<Vec<u8>>,
    /// `DT_RPATH`.
    pub rpath: Option<Vec<u8>>,
    /// `DT_RUNPATH`.
    pub runpath: Option<Vec<u8>>,
    /// `DF_1_NODEFLIB`: neither the default directories nor what the cache has from them.
    pub no_default_directories: bool,
    /// Bytes of the names in `needs`.
    named: usize,
}

/// One `DT_NEEDED`, `DT_FILTER` or `DT_AUXILIARY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededName {
    /// Its text.
    pub name: Vec<u8>,
    /// `DT_AUXILIARY`: the loader goes on without it.
    pub optional: bool,
}

/// The fault of a file, in the loader's own words where it has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadElf {
    /// It does not begin like an ELF file.
    #[error("it is not an ELF file")]
    NotElf,
    /// It ends before its headers do, or they point outside of it.
    #[error("its {0} is cut off or damaged")]
    Damaged(&'static str),
    /// A version, byte order, OS ABI or type that no Linux loader accepts.
    #[error("its ELF header has an invalid {0}")]
    Invalid(&'static str),
    /// More than any program has.
    #[error("it names libraries with more than {MOST_TEXT} bytes")]
    TooMuch,
    /// The kernel refused to read it, with this errno.
    #[error("cannot read it: {}", nix::errno::Errno::from_raw(*.0).desc())]
    Unreadable(i32),
}

impl From<io::Error> for BadElf {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Bytes that can be read at an offset: a file, or a slice in tests and fuzzers.
pub trait Bytes {
    /// Up to `len` bytes from `offset` on; fewer at the end.
    fn at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

impl Bytes for [u8] {
    fn at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.len());
        Ok(self[start..start.saturating_add(len).min(self.len())].to_vec())
    }
}

impl Bytes for File {
    fn at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if i64::try_from(offset).is_err() {
            return Ok(Vec::new()); // behind the end of any file; pread(2) would fail with EINVAL
        }
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Parses a whole file's bytes.
pub fn parse(bytes: &[u8]) -> Result<Object, BadElf> {
    Object::read(bytes)
}

impl Object {
    /// Reads the relevant parts of `file`.
    pub fn read<B: Bytes + ?Sized>(file: &B) -> Result<Self, BadElf> {
        let header = header(file)?;
        let mut object = Self {
            abi: Abi {
                wide: header.class == Class::ELF64,
                big_endian: header.endianness == AnyEndian::Big,
                machine: header.e_machine,
                flags: header.e_flags,
            },
            program: header.e_type == abi::ET_EXEC,
            interpreter: None,
            dynamic: false,
            needs: Vec::new(),
            soname: None,
            rpath: None,
            runpath: None,
            no_default_directories: false,
            named: 0,
        };
        let segments = segments(file, &header)?;
        if let Some(segment) = segments.iter().find(|s| s.p_type == abi::PT_INTERP) {
            object.interpreter = Some(interpreter(file, segment)?);
        }
        if let Some(segment) = segments.iter().find(|s| s.p_type == abi::PT_DYNAMIC) {
            object.dynamic = true;
            object.read_dynamic(file, &header, segment, &segments)?;
        }
        Ok(object)
    }

    fn read_dynamic<B: Bytes + ?Sized>(
        &mut self,
        file: &B,
        header: &FileHeader<AnyEndian>,
        segment: &ProgramHeader,
        segments: &[ProgramHeader],
    ) -> Result<(), BadElf> {
        if segment.p_filesz > LARGEST_DYNAMIC {
            return Err(BadElf::Damaged("dynamic section"));
        }
        let len =
            usize::try_from(segment.p_filesz).map_err(|_| BadElf::Damaged("dynamic section"))?;
        let bytes = file.at(segment.p_offset, len)?;
        if bytes.len() < len {
            return Err(BadElf::Damaged("dynamic section"));
        }
        let table = DynamicTable::new(header.endianness, header.class, &bytes);
        let entries: Vec<(i64, u64)> = table
            .iter()
            .map(|entry| (entry.d_tag, entry.d_val()))
            .take_while(|(tag, _)| *tag != abi::DT_NULL)
            .collect();
        let strings = Strings::find(file, &entries, segments);
        for (tag, value) in entries {
            self.add_entry(tag, value, &strings)?;
            if self.text() > MOST_TEXT {
                return Err(BadElf::TooMuch);
            }
        }
        if self.runpath.is_some() {
            self.rpath = None; // elf/get-dynamic-info.h: RUNPATH makes the loader forget RPATH
        }
        Ok(())
    }

    /// Bytes of names and search paths.
    pub(super) fn text(&self) -> usize {
        let mut length = self.named;
        for text in [&self.soname, &self.rpath, &self.runpath] {
            length += text.as_ref().map_or(0, Vec::len);
        }
        length
    }

    fn add_entry<B: Bytes + ?Sized>(
        &mut self,
        tag: i64,
        value: u64,
        strings: &Strings<'_, B>,
    ) -> Result<(), BadElf> {
        match tag {
            abi::DT_NEEDED | DT_FILTER | DT_AUXILIARY => {
                let need = NeededName {
                    name: strings.get(value)?,
                    optional: tag == DT_AUXILIARY,
                };
                self.named += need.name.len();
                self.needs.push(need);
            }
            abi::DT_SONAME => self.soname = Some(strings.get(value)?),
            abi::DT_RPATH => self.rpath = Some(strings.get(value)?),
            abi::DT_RUNPATH => self.runpath = Some(strings.get(value)?),
            abi::DT_FLAGS_1 => {
                self.no_default_directories = value & NODEFLIB != 0;
                self.program |= value & PIE != 0;
            }
            _ => {}
        }
        Ok(())
    }
}

fn header<B: Bytes + ?Sized>(file: &B) -> Result<FileHeader<AnyEndian>, BadElf> {
    let bytes = file.at(0, LARGEST_HEADER)?;
    if !bytes.starts_with(&abi::ELFMAGIC) {
        return Err(BadElf::NotElf);
    }
    let (ident, tail) = bytes
        .split_at_checked(IDENT)
        .ok_or(BadElf::Damaged("ELF header"))?;
    let osabi = ident[abi::EI_OSABI];
    if osabi != abi::ELFOSABI_SYSV && osabi != abi::ELFOSABI_GNU {
        return Err(BadElf::Invalid("OS ABI"));
    }
    let parsed =
        parse_ident::<AnyEndian>(ident).map_err(|_| BadElf::Invalid("class or byte order"))?;
    let header = FileHeader::parse_tail(parsed, tail).map_err(|_| BadElf::Damaged("ELF header"))?;
    match header.e_type {
        abi::ET_EXEC | abi::ET_DYN => Ok(header),
        _ => Err(BadElf::Invalid(
            "type; only programs and shared objects can be loaded",
        )),
    }
}

fn segments<B: Bytes + ?Sized>(
    file: &B,
    header: &FileHeader<AnyEndian>,
) -> Result<Vec<ProgramHeader>, BadElf> {
    let size: u16 = if header.class == Class::ELF64 { 56 } else { 32 };
    if header.e_phnum > 0 && header.e_phentsize != size {
        return Err(BadElf::Invalid("program header size"));
    }
    let len = usize::from(header.e_phnum) * usize::from(size);
    let bytes = file.at(header.e_phoff, len)?;
    if bytes.len() < len {
        return Err(BadElf::Damaged("program header table"));
    }
    Ok(SegmentTable::new(header.endianness, header.class, &bytes)
        .iter()
        .collect())
}

fn interpreter<B: Bytes + ?Sized>(file: &B, segment: &ProgramHeader) -> Result<Vec<u8>, BadElf> {
    let damaged = BadElf::Damaged("interpreter's name");
    // fs/binfmt_elf.c: from 2 bytes to PATH_MAX, ending in NUL.
    let len = usize::try_from(segment.p_filesz).unwrap_or(usize::MAX);
    if !(2..=LONGEST_STRING).contains(&len) {
        return Err(damaged);
    }
    until_nul(file.at(segment.p_offset, len)?).ok_or(damaged)
}

fn until_nul(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    bytes.truncate(end);
    Some(bytes)
}

/// The offset in the file of `address`, and how many bytes follow: as in the `PT_LOAD` segment that
/// holds it.
fn place_of(address: u64, segments: &[ProgramHeader]) -> Option<(u64, u64)> {
    for segment in segments {
        if segment.p_type != abi::PT_LOAD {
            continue;
        }
        let Some(into) = address.checked_sub(segment.p_vaddr) else {
            continue;
        };
        if into < segment.p_filesz
            && let Some(offset) = segment.p_offset.checked_add(into)
        {
            return Some((offset, segment.p_filesz - into));
        }
    }
    None
}

/// `DT_STRTAB`, as far as the file has it.
struct Strings<'a, B: Bytes + ?Sized> {
    file: &'a B,
    /// File offset and length.
    place: Option<(u64, u64)>,
}

impl<'a, B: Bytes + ?Sized> Strings<'a, B> {
    fn find(file: &'a B, entries: &[(i64, u64)], segments: &[ProgramHeader]) -> Self {
        let place = Self::place(entries, segments);
        Self { file, place }
    }

    fn place(entries: &[(i64, u64)], segments: &[ProgramHeader]) -> Option<(u64, u64)> {
        let address = last(entries, abi::DT_STRTAB)?;
        let (offset, rest) = place_of(address, segments)?;
        let size = last(entries, abi::DT_STRSZ).unwrap_or(rest);
        Some((offset, size.min(rest)))
    }

    fn get(&self, index: u64) -> Result<Vec<u8>, BadElf> {
        let damaged = BadElf::Damaged("string table");
        let Some((start, len)) = self.place else {
            return Err(damaged);
        };
        let (Some(offset), Some(rest)) = (start.checked_add(index), len.checked_sub(index)) else {
            return Err(damaged);
        };
        for piece in [256, LONGEST_STRING] {
            let len = usize::try_from(rest).unwrap_or(usize::MAX).min(piece);
            if let Some(text) = until_nul(self.file.at(offset, len)?) {
                return Ok(text);
            }
        }
        Err(damaged)
    }
}

/// The value of the last entry with this tag.
fn last(entries: &[(i64, u64)], wanted: i64) -> Option<u64> {
    let mut entries = entries.iter().rev();
    let (_, value) = entries.find(|(tag, _)| *tag == wanted)?;
    Some(*value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// This test's own program: as real as an ELF file gets.
    fn real() -> Vec<u8> {
        let file = File::open("/proc/self/exe").unwrap();
        let object = Object::read(&file).unwrap();
        assert!(object.dynamic && object.needs.is_empty() == cfg!(target_feature = "crt-static"));
        file.at(0, 64 << 10).unwrap()
    }

    #[test]
    fn what_is_no_elf_file_is_told_from_what_is_a_broken_one() {
        assert_eq!(parse(b""), Err(BadElf::NotElf));
        assert_eq!(parse(b"#!/bin/sh\n"), Err(BadElf::NotElf));
        assert_eq!(
            parse(b"\x7fELF\x02\x01\x01"),
            Err(BadElf::Damaged("ELF header"))
        );
        let mut bytes = real();
        bytes[abi::EI_OSABI] = 9;
        assert_eq!(parse(&bytes), Err(BadElf::Invalid("OS ABI")));
        bytes[abi::EI_OSABI] = 0;
        bytes[abi::EI_DATA] = 7;
        assert_eq!(parse(&bytes), Err(BadElf::Invalid("class or byte order")));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused_or_read_but_never_a_panic() {
        let bytes = real();
        for len in (0..2048).chain((2048..bytes.len()).step_by(509)) {
            let _ = parse(&bytes[..len]);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = parse(&bytes);
            let ident = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
            if bytes.len() >= 18 {
                bytes[..8].copy_from_slice(&ident);
                bytes[16] = 3;
                bytes[17] = 0;
                let _ = parse(&bytes);
            }
        }

        #[test]
        fn a_flipped_bit_in_the_headers_never_panics(
            flips in proptest::collection::vec((0usize..2048, 0u8..8), 1..8)
        ) {
            thread_local!(static REAL: Vec<u8> = real());
            let mut bytes = REAL.with(Clone::clone);
            for (at, bit) in flips {
                bytes[at] ^= 1 << bit;
            }
            let _ = parse(&bytes);
        }
    }
}
