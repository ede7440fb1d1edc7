//! File systems that a site has for itself: they are made anew, and show nothing of the host's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::MountAttributes;

/// The mode of a tmpfs whose line names none, which is also the kernel's.
pub const STICKY: u32 = 0o1777;

/// A file system of the site's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    /// proc(5) of this PID namespace, in which users see their own processes alone.
    Proc,
    /// proc(5) in which users see all processes. Only others mount it.
    OpenProc,
    /// tmpfs(5).
    Tmpfs {
        /// Its size in bytes; `None`: half of the memory, as the kernel has it.
        size: Option<u64>,
        /// The mode of its root directory.
        mode: u32,
    },
}

impl FileSystem {
    /// The name of its type, which is also the source that mount(8) shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proc | Self::OpenProc => "proc",
            Self::Tmpfs { .. } => "tmpfs",
        }
    }

    /// The attributes that its mount gets.
    pub fn attributes(self) -> MountAttributes {
        MountAttributes {
            read_only: self == Self::Proc,
            ..MountAttributes::DATA
        }
    }

    /// Its options besides the attributes, with their values.
    pub fn options(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Proc => vec![("hidepid", "invisible".to_owned())],
            Self::OpenProc => vec![],
            Self::Tmpfs { size, mode } => {
                let mut options = vec![];
                if let Some(size) = size {
                    options.push(("size", size_in_words(size)));
                }
                options.push(("mode", format!("{mode:04o}")));
                options
            }
        }
    }

    /// The kind of a mount with `options`, which the kernel shows of the file system `name`
    /// (`proc_pid_mountinfo(5)`). `None`: it is nothing that a site could have.
    pub fn shown(name: &str, options: &str) -> Option<Self> {
        match name {
            // Before Linux 5.8 it is a number.
            "proc" => Some(match value_of(options, "hidepid") {
                Some("invisible" | "2") => Self::Proc,
                _ => Self::OpenProc,
            }),
            "tmpfs" => Some(Self::Tmpfs {
                size: value_of(options, "size").and_then(bytes),
                mode: match value_of(options, "mode") {
                    Some(mode) => u32::from_str_radix(mode, 8).ok()?,
                    None => STICKY,
                },
            }),
            _ => None,
        }
    }

    /// Whether it can become `wanted` by a remount, with its files. The mode of a tmpfs is that of
    /// its root directory, and a remount does not change it.
    pub fn can_become(self, wanted: Self) -> bool {
        match (self, wanted) {
            (Self::Tmpfs { mode: is, .. }, Self::Tmpfs { mode, .. }) => is == mode,
            _ => false,
        }
    }

    /// The options of a remount that makes it this one.
    pub fn remount_options(self) -> String {
        match self {
            Self::Tmpfs { size: None, .. } => "size=50%".to_owned(),
            Self::Tmpfs {
                size: Some(size), ..
            } => format!("size={}", size_in_words(size)),
            Self::Proc | Self::OpenProc => String::new(),
        }
    }

    /// Whether another one of its kind has the same contents.
    pub fn can_be_replaced(self) -> bool {
        matches!(self, Self::Proc | Self::OpenProc)
    }

    /// Whether `shown`, as the kernel shows it, is this one. The kernel rounds sizes up to pages,
    /// and does not show the one that it takes by itself.
    pub fn is(self, shown: Self) -> bool {
        match (self, shown) {
            (Self::Proc, Self::Proc) => true,
            (
                Self::Tmpfs { size, mode },
                Self::Tmpfs {
                    size: has,
                    mode: is,
                },
            ) => {
                const LARGEST_PAGE: u64 = 64 << 10;
                let fits = match (size, has) {
                    (Some(size), Some(has)) => {
                        (size..size.saturating_add(LARGEST_PAGE)).contains(&has)
                    }
                    _ => true,
                };
                mode == is && fits
            }
            _ => false,
        }
    }
}

impl fmt::Display for FileSystem {
    /// `tmpfs,size=64M,mode=1777`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        for (name, value) in self.options() {
            write!(f, ",{name}={value}")?;
        }
        Ok(())
    }
}

/// The value of one of `options`, which commas separate.
fn value_of<'o>(options: &'o str, wanted: &str) -> Option<&'o str> {
    for option in options.split(',') {
        if let Some((name, value)) = option.split_once('=')
            && name == wanted
        {
            return Some(value);
        }
    }
    None
}

/// A size as tmpfs(5) takes it: a number of bytes, or one with `k`, `m` or `g`. `None`: it is
/// something else, or not positive.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

fn size_in_words(bytes: u64) -> String {
    for (shift, unit) in [(30, "G"), (20, "M"), (10, "k")] {
        if bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_as_tmpfs_has_them() {
        for (text, expected) in [
            ("64M", Some(64 << 20)),
            ("1g", Some(1 << 30)),
            ("65536k", Some(64 << 20)),
            ("4097", Some(4097)),
            ("0", None),
            ("50%", None),
            ("M", None),
            ("1T", None),
            ("18446744073709551615k", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        for text in ["64M", "1G", "3k", "4097"] {
            assert_eq!(bytes(text).map(size_in_words).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_the_kernel_shows_is_recognised() {
        let wanted = FileSystem::Tmpfs {
            size: Some(4097),
            mode: STICKY,
        };
        let shown = |options| FileSystem::shown("tmpfs", options).unwrap();
        assert!(wanted.is(shown("rw,size=8k,inode64")));
        assert!(!wanted.is(shown("rw,size=8k,mode=755")));
        assert!(!wanted.is(shown("rw,size=1024k")));
        assert!(
            wanted.is(shown("rw")),
            "a size that the kernel does not show"
        );
        for (options, is_it) in [
            ("rw,hidepid=invisible", true),
            ("rw,hidepid=2", true),
            ("rw", false),
        ] {
            let shown = FileSystem::shown("proc", options).unwrap();
            assert_eq!(FileSystem::Proc.is(shown), is_it, "{options}");
        }
        assert_eq!(FileSystem::shown("ext4", "rw"), None);
    }
}
