//! `/etc/ld.so.cache`: bytes → the files that ldconfig found for a name.
//!
//! Format `glibc-ld.so.cache1.1`, alone (the default since glibc 2.32) or behind the older
//! `ld.so-1.7.0` part, in either byte order, with the extension for glibc-hwcaps subdirectories
//! (2.33). Pure: nothing here reads a file. Layout: `sysdeps/generic/dl-cache.h` of glibc.

use std::collections::HashMap;

const OLD_MAGIC: &[u8] = b"ld.so-1.7.0\0";
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const NEW_HEADER: usize = 48;
const NEW_ENTRY: usize = 24;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const TAG_GLIBC_HWCAPS: u32 = 1;
/// Upper bits of an entry's `hwcap` if the lower 32 bits are an index into the extension.
const HWCAP_EXTENSION: u64 = 1 << 20;
const HWCAP_EXTENSION_SHIFT: u32 = 42;

/// The contents of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// By name, in the file's order.
    entries: HashMap<Vec<u8>, Vec<CacheEntry>>,
}

/// One file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// Library type and ABI; `_DL_CACHE_DEFAULT_ID` in glibc.
    pub flags: u32,
    /// The path of the library on the host.
    pub path: Vec<u8>,
    /// The glibc-hwcaps subdirectory that it is in: `x86-64-v3`.
    pub subdirectory: Option<Vec<u8>>,
}

/// Why the bytes are not a cache; the loader then goes on without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCache {
    /// An unknown format.
    #[error("it does not have the format glibc-ld.so.cache1.1")]
    Format,
    /// It ends before its tables do.
    #[error("it is cut off or damaged")]
    Damaged,
}

/// Parses a whole file's bytes.
pub fn parse(file: &[u8]) -> Result<Cache, BadCache> {
    let start = new_part(file).ok_or(BadCache::Format)?;
    let new = &file[start..];
    let order = Order::of(new).ok_or(BadCache::Damaged)?;
    let count = order.u32(new, 20).ok_or(BadCache::Damaged)? as usize;
    let table = NEW_HEADER..NEW_HEADER.saturating_add(count.saturating_mul(NEW_ENTRY));
    let table = new.get(table).ok_or(BadCache::Damaged)?;
    let subdirectories = subdirectories(file, new, order);
    let mut cache = Cache::default();
    for raw in table.chunks_exact(NEW_ENTRY) {
        // The loader, too, passes over an entry that points nowhere.
        if let Some((name, entry)) = entry(new, raw, order, &subdirectories) {
            cache.entries.entry(name).or_default().push(entry);
        }
    }
    Ok(cache)
}

impl Cache {
    /// The file that the loader takes for `name`: of those with `flags`, the best in
    /// `subdirectories` (best first), otherwise the first outside of such.
    pub fn find(&self, name: &[u8], flags: u32, subdirectories: &[&str]) -> Option<&[u8]> {
        let mut best: Option<(usize, &CacheEntry)> = None;
        for entry in self.entries.get(name)? {
            let rank = match &entry.subdirectory {
                Some(wanted) => subdirectories
                    .iter()
                    .position(|have| have.as_bytes() == wanted),
                None => Some(subdirectories.len()),
            };
            if let Some(rank) = rank
                && entry.flags == flags
                && best.is_none_or(|(known, _)| rank < known)
            {
                best = Some((rank, entry));
            }
        }
        best.map(|(_, entry)| entry.path.as_slice())
    }

    /// How many names it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no name at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Where the new format begins: at the beginning, or behind the old one, aligned as on the machine
/// that wrote it.
fn new_part(file: &[u8]) -> Option<usize> {
    if file.starts_with(NEW_MAGIC) {
        return Some(0);
    }
    if !file.starts_with(OLD_MAGIC) {
        return None;
    }
    for order in [Order::Little, Order::Big] {
        let Some(end) = end_of_old_part(file, order) else {
            continue;
        };
        for alignment in [8, 4] {
            let start = end.checked_next_multiple_of(alignment)?;
            let rest = file.get(start..).unwrap_or_default();
            if rest.starts_with(NEW_MAGIC) {
                return Some(start);
            }
        }
    }
    None
}

fn end_of_old_part(file: &[u8], order: Order) -> Option<usize> {
    let count = order.u32(file, 12)? as usize;
    let end = OLD_ENTRY.checked_mul(count)?.checked_add(OLD_HEADER)?;
    (end <= file.len()).then_some(end)
}

fn entry(
    new: &[u8],
    raw: &[u8],
    order: Order,
    subdirectories: &[Option<Vec<u8>>],
) -> Option<(Vec<u8>, CacheEntry)> {
    let name = string(new, order.u32(raw, 4)?)?;
    let path = string(new, order.u32(raw, 8)?)?;
    let hwcap = order.u64(raw, 16)?;
    let subdirectory = match hwcap {
        0 => None,
        _ if hwcap >> HWCAP_EXTENSION_SHIFT == HWCAP_EXTENSION => {
            let index = usize::try_from(hwcap & u64::from(u32::MAX)).ok()?;
            Some(subdirectories.get(index)?.clone()?)
        }
        // A bit mask of AT_HWCAP: legacy subdirectories, which glibc 2.37 dropped.
        _ => return None,
    };
    Some((
        name,
        CacheEntry {
            flags: order.u32(raw, 0)?,
            path,
            subdirectory,
        },
    ))
}

/// The names that entries refer to by index; none without the extension.
fn subdirectories(file: &[u8], new: &[u8], order: Order) -> Vec<Option<Vec<u8>>> {
    let mut names = vec![];
    for raw in hwcaps_section(file, new, order)
        .unwrap_or_default()
        .chunks_exact(4)
    {
        let offset = order.u32(raw, 0);
        names.push(offset.and_then(|offset| string(new, offset)));
    }
    names
}

/// The section of the extension that has the glibc-hwcaps subdirectories. Offsets in the extension
/// count from the file's beginning.
fn hwcaps_section<'f>(file: &'f [u8], new: &[u8], order: Order) -> Option<&'f [u8]> {
    let start = usize::try_from(order.u32(new, 32)?).ok()?;
    let directory = file.get(start..).filter(|_| start != 0)?;
    if order.u32(directory, 0)? != EXTENSION_MAGIC {
        return None;
    }
    let count = order.u32(directory, 4)? as usize;
    let section = directory
        .get(8..)?
        .chunks_exact(16)
        .take(count)
        .find(|section| order.u32(section, 0) == Some(TAG_GLIBC_HWCAPS))?;

    let start = order.u32(section, 8)? as usize;
    let length = order.u32(section, 12)? as usize;
    file.get(start..start.checked_add(length)?)
}

fn string(data: &[u8], offset: u32) -> Option<Vec<u8>> {
    let rest = data.get(usize::try_from(offset).ok()?..)?;
    // A path is at most PATH_MAX long; this bounds the work on a hostile file.
    let end = rest.iter().take(4096).position(|byte| *byte == 0)?;
    Some(rest[..end].to_vec())
}

/// Byte order.
#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// The order of the header's flag (glibc 2.33). Without a flag, the one with which the table
    /// fits into the file.
    fn of(new: &[u8]) -> Option<Self> {
        match new.get(28)? & 3 {
            0 if Self::Little.fits(new) => Some(Self::Little),
            0 if Self::Big.fits(new) => Some(Self::Big),
            2 => Some(Self::Little),
            3 => Some(Self::Big),
            _ => None,
        }
    }

    /// Whether as many entries as the header has in this order fit into the file.
    fn fits(self, new: &[u8]) -> bool {
        match self.u32(new, 20) {
            Some(count) => (count as usize).saturating_mul(NEW_ENTRY) <= new.len(),
            None => false,
        }
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(raw),
            Self::Big => u32::from_be_bytes(raw),
        })
    }

    fn u64(self, bytes: &[u8], at: usize) -> Option<u64> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u64::from_le_bytes(raw),
            Self::Big => u64::from_be_bytes(raw),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A cache with `libz.so.1` plain, in v2 and in v3, and `libi.so.1` for 32 bits alone.
    fn sample(order: Order, old: bool) -> Vec<u8> {
        let u32 = |n: u32| match order {
            Order::Little => n.to_le_bytes(),
            Order::Big => n.to_be_bytes(),
        };
        let u64 = |n: u64| match order {
            Order::Little => n.to_le_bytes(),
            Order::Big => n.to_be_bytes(),
        };
        let texts = [
            "libz.so.1",
            "/v3/libz.so.1",
            "/v2/libz.so.1",
            "/libz.so.1",
            "x86-64-v2",
            "x86-64-v3",
        ];
        let texts = [&texts[..], &["libi.so.1", "/libi.so.1"]].concat();
        let rows: [(u32, usize, usize, u64); 4] = [
            (0x0303, 0, 2, (1 << 62) | (2 << 32)),
            (0x0303, 0, 1, (1 << 62) | (3 << 32) | 1),
            (0x0303, 0, 3, 0),
            (0x0003, 6, 7, 0),
        ];
        let strings_at = NEW_HEADER + rows.len() * NEW_ENTRY;
        let offset = |text: usize| {
            u32::try_from(strings_at + texts[..text].iter().map(|t| t.len() + 1).sum::<usize>())
                .unwrap()
        };
        let mut new = NEW_MAGIC.to_vec();
        new.extend(u32(4));
        new.extend(u32(0));
        new.extend([if matches!(order, Order::Little) { 2 } else { 3 }, 0, 0, 0]);
        new.extend([0; 16]);
        for (flags, name, path, hwcap) in rows {
            new.extend([u32(flags), u32(offset(name)), u32(offset(path)), u32(0)].concat());
            new.extend(u64(hwcap));
        }
        new.extend(
            texts
                .iter()
                .flat_map(|text| [text.as_bytes(), b"\0"].concat()),
        );
        let mut file = Vec::new();
        if old {
            file.extend([OLD_MAGIC, &u32(1), &[7; 12], &[0; 4]].concat());
        }
        new.resize(new.len().next_multiple_of(4), 0);
        let extension = u32::try_from(file.len() + new.len()).unwrap();
        new[32..36].copy_from_slice(&u32(extension));
        new.extend(
            [EXTENSION_MAGIC, 1, TAG_GLIBC_HWCAPS, 0, extension + 24, 8]
                .map(u32)
                .concat(),
        );
        new.extend([u32(offset(4)), u32(offset(5))].concat());
        file.extend(new);
        file
    }

    #[test]
    fn both_byte_orders_and_both_layouts_read_the_same() {
        for (order, old) in [
            (Order::Little, false),
            (Order::Big, false),
            (Order::Little, true),
            (Order::Big, true),
        ] {
            let cache = parse(&sample(order, old)).unwrap();
            assert_eq!(cache.len(), 2);
            assert_eq!(
                cache.find(b"libz.so.1", 0x0303, &[]),
                Some(&b"/libz.so.1"[..])
            );
            assert_eq!(
                cache.find(b"libz.so.1", 0x0303, &["x86-64-v2"]),
                Some(&b"/v2/libz.so.1"[..])
            );
            let best_first = ["x86-64-v4", "x86-64-v3", "x86-64-v2"];
            assert_eq!(
                cache.find(b"libz.so.1", 0x0303, &best_first),
                Some(&b"/v3/libz.so.1"[..])
            );
            assert_eq!(cache.find(b"libi.so.1", 0x0303, &[]), None, "another ABI");
            assert_eq!(
                cache.find(b"libi.so.1", 0x0003, &[]),
                Some(&b"/libi.so.1"[..])
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(parse(b""), Err(BadCache::Format));
        assert_eq!(parse(OLD_MAGIC), Err(BadCache::Format));
        assert_eq!(parse(NEW_MAGIC), Err(BadCache::Damaged));
        let file = sample(Order::Little, false);
        assert_eq!(parse(&file[..NEW_HEADER + 30]), Err(BadCache::Damaged));
        let mut invalid = file;
        invalid[28] = 1;
        assert_eq!(parse(&invalid), Err(BadCache::Damaged));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
            let _ = parse(&[NEW_MAGIC, &bytes].concat());
            let _ = parse(&[OLD_MAGIC, &bytes].concat());
        }

        #[test]
        fn flipped_bits_never_panic(
            old in any::<bool>(), flips in proptest::collection::vec((0usize..320, 0u8..8), 1..8)
        ) {
            let mut bytes = sample(Order::Little, old);
            for (at, bit) in flips {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            let _ = parse(&bytes);
        }
    }
}
