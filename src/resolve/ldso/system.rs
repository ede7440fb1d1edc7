//! The parts that are compiled into a dynamic loader or given by the machine: default directories,
//! `$LIB`, `$PLATFORM`, the ABI's number in the cache, the CPU's glibc-hwcaps subdirectories.
//!
//! In: the loader's own file, as bytes. Out: values. It is read, never executed.

use elf::abi;

use super::elf::Abi;

/// The family of a dynamic loader: each searches in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Glibc,
    Musl,
}

impl Family {
    /// By the interpreter's file name, which musl fixes: `ld-musl-x86_64.so.1`.
    pub(super) fn of(interpreter_name: &[u8]) -> Self {
        if interpreter_name.starts_with(b"ld-musl-") {
            Self::Musl
        } else {
            Self::Glibc
        }
    }
}

/// Whether `name` is that of a dynamic loader, which is in every process from the beginning.
pub(super) fn is_loader_name(name: &[u8]) -> bool {
    let exact: [&[u8]; 4] = [b"ld.so.1", b"ld64.so.1", b"ld64.so.2", b"ld.so"];
    exact.contains(&name) || name.starts_with(b"ld-linux") || name.starts_with(b"ld-musl-")
}

/// glibc's default directories in the loader's file: `SYSTEM_DIRS`, a sequence of directories that
/// end in `/`, each followed by a NUL. `None`: the file has no such sequence.
pub(super) fn default_directories(loader: &[u8]) -> Option<Vec<String>> {
    let texts: Vec<_> = loader.split(|byte| *byte == 0).map(directory).collect();
    let runs = texts.split(Option::is_none);
    // The longest sequence, and of equals the first: other such texts stand alone.
    let longest = runs.rev().max_by_key(|run| run.len())?;
    (!longest.is_empty()).then(|| longest.iter().flatten().cloned().collect())
}

/// `/lib/x86_64-linux-gnu/` and the like; the slash at the end distinguishes it from other paths in
/// the file.
fn directory(text: &[u8]) -> Option<String> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte);
    let shape =
        text.len() > 2 && text.len() < 256 && text.starts_with(b"/") && text.ends_with(b"/");
    if !shape || !text.iter().all(plain) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    text.split('/')
        .any(|name| name.starts_with("lib"))
        .then(|| text.trim_end_matches('/').to_owned())
}

/// The default directories if the loader's file has none: all that distributions use.
pub(super) fn usual_directories(process: Abi) -> Vec<String> {
    let mut directories = Vec::new();
    if let Some(triplet) = triplet(process) {
        directories.extend([format!("/lib/{triplet}"), format!("/usr/lib/{triplet}")]);
    }
    if process.wide {
        directories.extend(["/lib64".into(), "/usr/lib64".into()]);
    }
    directories.extend(["/lib".into(), "/usr/lib".into()]);
    directories
}

fn triplet(process: Abi) -> Option<&'static str> {
    Some(match (process.machine, process.wide) {
        (abi::EM_X86_64, true) => "x86_64-linux-gnu",
        (abi::EM_X86_64, false) => "x86_64-linux-gnux32",
        (abi::EM_386, _) => "i386-linux-gnu",
        (abi::EM_AARCH64, _) => "aarch64-linux-gnu",
        (abi::EM_ARM, _) => "arm-linux-gnueabihf",
        (abi::EM_RISCV, true) => "riscv64-linux-gnu",
        (abi::EM_PPC64, true) => "powerpc64le-linux-gnu",
        (abi::EM_S390, true) => "s390x-linux-gnu",
        _ => return None,
    })
}

/// `$LIB`: the directory of glibc's own libraries, which is the first default one, without its
/// prefix.
pub(super) fn lib_token(default_directories: &[String]) -> &str {
    let first = default_directories.first().map_or("lib", String::as_str);
    let short = first
        .strip_prefix("/usr/")
        .or_else(|| first.strip_prefix('/'))
        .unwrap_or(first);
    if short.starts_with("lib") {
        short
    } else {
        short.rsplit('/').next().unwrap_or("lib")
    }
}

/// `$PLATFORM`: the value of `AT_PLATFORM` in the auxiliary vector.
pub(super) fn platform_token(process: Abi) -> &'static str {
    match process.machine {
        abi::EM_X86_64 => "x86_64",
        abi::EM_386 => "i686",
        abi::EM_AARCH64 => "aarch64",
        abi::EM_ARM => "v7l",
        abi::EM_PPC64 => "power8",
        abi::EM_S390 => "z13",
        _ => "",
    }
}

/// The flags that the entries of this ABI have in the cache: `_DL_CACHE_DEFAULT_ID` of glibc's
/// ports.
pub(super) fn cache_flags(process: Abi) -> u32 {
    const ELF_LIBC6: u32 = 3;
    const ARM_HARD_FLOAT: u32 = 0x400;
    const RISCV_FLOAT: u32 = 0x6;
    let required = match (process.machine, process.wide) {
        (abi::EM_X86_64, true) => 0x0300,
        (abi::EM_S390, true) => 0x0400,
        (abi::EM_PPC64, true) => 0x0500,
        (abi::EM_X86_64, false) => 0x0800,
        (abi::EM_ARM, _) if process.flags & ARM_HARD_FLOAT != 0 => 0x0900,
        (abi::EM_AARCH64, true) => 0x0a00,
        (abi::EM_ARM, _) => 0x0b00,
        (abi::EM_RISCV, true) if process.flags & RISCV_FLOAT == 0 => 0x0f00,
        (abi::EM_RISCV, true) => 0x1000,
        _ => 0,
    };
    required | ELF_LIBC6
}

/// The subdirectories of `glibc-hwcaps` that this CPU can run, best first.
pub(super) fn hwcaps(process: Abi) -> Vec<&'static str> {
    if process.machine != abi::EM_X86_64 || !process.wide {
        return Vec::new();
    }
    let mut have = vec![];
    for (name, has) in ["x86-64-v2", "x86-64-v3", "x86-64-v4"]
        .into_iter()
        .zip(levels())
    {
        if !has {
            break;
        }
        have.insert(0, name);
    }
    have
}

/// Whether the CPU has the features that each level of the x86-64 psABI adds, as in
/// `dl_hwcaps_subdirs.c` of glibc.
#[cfg(target_arch = "x86_64")]
fn levels() -> [bool; 3] {
    macro_rules! all {
        ($($feature:tt),*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    [
        all!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"),
        all!(
            "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe"
        ),
        all!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn levels() -> [bool; 3] {
    [false; 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_directories_are_read_out_of_the_loader() {
        let before = b"\x7fELF\0\0/usr/lib/locale/\0/var/tmp/\0x/lib/\0".as_slice();
        let directories = b"/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0";
        let debian = &[before, directories, b"\0/proc/self/lib/x/\0"].concat();
        let found = default_directories(debian).unwrap();
        assert_eq!(
            found,
            [
                "/lib/x86_64-linux-gnu",
                "/usr/lib/x86_64-linux-gnu",
                "/lib",
                "/usr/lib"
            ]
        );
        assert_eq!(lib_token(&found), "lib/x86_64-linux-gnu");
        assert_eq!(default_directories(b"\0/var/tmp/\0nothing\0"), None);
    }

    #[test]
    fn lib_token_follows_each_distribution() {
        for (first, token) in [
            ("/lib64", "lib64"),
            ("/usr/lib", "lib"),
            ("/usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu"),
            ("/nix/store/abc-glibc-2.40/lib", "lib"),
        ] {
            assert_eq!(lib_token(&[first.to_owned()]), token);
        }
    }
}
