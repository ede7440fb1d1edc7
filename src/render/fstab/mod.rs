//! The mounts of a site as lines of fstab(5), and the block of such lines in a file.

mod block;

pub(crate) use block::{FstabBlock, outside_lines, outside_targets};

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::systemd;
use crate::base::{FileSystem, HostPath, MountAttributes, SiteName};
use crate::resolve::{Desired, Mount};

/// The file that mount(8) and systemd read.
pub(crate) const FSTAB: &str = "/etc/fstab";

/// One mount as a line of fstab(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FstabLine {
    /// The path that is bound, the first field.
    pub source: HostPath,
    /// A file system of the site's own, which is mounted in place of that.
    pub file_system: Option<FileSystem>,
    /// The second field: the mount point on the host.
    pub target: HostPath,
    /// The fourth field's options, in order.
    pub options: Vec<String>,
}

impl FstabLine {
    /// The first field: the source.
    pub(crate) fn what(&self) -> Cow<'_, Path> {
        match self.file_system {
            Some(file_system) => Cow::Borrowed(Path::new(file_system.name())),
            None => Cow::Borrowed(self.source.as_path()),
        }
    }

    /// The third field: the type.
    fn kind(&self) -> &'static str {
        self.file_system.map_or("none", FileSystem::name)
    }

    /// Adds the options by which systemd mounts it after the makers of its source, and before the
    /// services that need it.
    fn order(&mut self, before: &[String], not_after: &BTreeSet<String>) {
        if self.file_system.is_none() {
            for unit in systemd::makers(&self.source) {
                if !not_after.contains(*unit) {
                    self.options.push(format!("x-systemd.after={unit}"));
                }
            }
        }
        for unit in before {
            self.options.push(format!("x-systemd.before={unit}"));
        }
    }
}

/// The lines that make the same mounts as `up`, parents first.
///
/// `before`: the services that must start after the mounts. `not_after`: the services that make a
/// source but wait for the mounts in turn. `submounts`: the mount points below a source.
/// `container`: systemd runs in a container, where it ignores lines whose source is below `/dev`,
/// systemd-fstab-generator(8). A recursive mount becomes a line per submount, because not every
/// mount(8) makes submounts read-only: util-linux before 2.39 ignores `ro=recursive`.
pub(crate) fn lines(
    desired: &Desired,
    before: &[String],
    not_after: &BTreeSet<String>,
    container: bool,
    submounts: impl Fn(&HostPath) -> Vec<PathBuf>,
) -> Vec<FstabLine> {
    let mut lines = vec![];
    for mount in &desired.mounts {
        let target = desired.root.inside(&mount.target);
        if mount.recursive {
            for point in submounts(&mount.source) {
                if let Some((source, below)) = below(&point, &mount.source)
                    && let Ok(target) = HostPath::new(target.as_path().join(below))
                {
                    lines.push(line(source, target, mount, desired));
                }
            }
        }
        lines.push(line(mount.source.clone(), target, mount, desired));
    }
    for line in &mut lines {
        line.order(before, not_after);
        if container && line.file_system.is_none() && line.source.as_path().starts_with("/dev") {
            line.source = another_way(&line.source);
        }
    }
    lines.sort_by(|a, b| a.target.cmp(&b.target));
    lines
}

/// A path to the same file that does not begin with `/dev`.
fn another_way(source: &HostPath) -> HostPath {
    let below = source
        .as_path()
        .strip_prefix("/")
        .unwrap_or(source.as_path());
    HostPath::new(Path::new("/proc/self/root").join(below)).unwrap_or_else(|_| source.clone())
}

fn below<'p>(point: &'p Path, source: &HostPath) -> Option<(HostPath, &'p Path)> {
    let below = point.strip_prefix(source).ok()?;
    if below.as_os_str().is_empty() {
        return None;
    }
    Some((HostPath::new(point).ok()?, below))
}

fn line(source: HostPath, target: HostPath, mount: &Mount, desired: &Desired) -> FstabLine {
    let mut options = vec![];
    if mount.file_system.is_none() {
        options.push("bind".to_owned());
    }
    options.extend(attributes(mount.attributes).map(str::to_owned));
    for (name, value) in mount.file_system.into_iter().flat_map(FileSystem::options) {
        options.push(format!("{name}={value}"));
    }
    // Otherwise the mount would join its source's peer group, and later mounts of the host would
    // appear in the jail, writable.
    options.push("private".to_owned());
    // A mount that fails at boot must not stop the boot.
    options.push("nofail".to_owned());
    let bound = mount.file_system.is_none().then_some(&source);
    for path in bound.into_iter().chain([&desired.root]) {
        options.extend(plain(path).map(|path| format!("x-systemd.requires-mounts-for={path}")));
    }
    FstabLine {
        source,
        file_system: mount.file_system,
        target,
        options,
    }
}

/// Every attribute by name: mount(8) inherits the others from the source's file system.
fn attributes(attributes: MountAttributes) -> [&'static str; 4] {
    [
        if attributes.read_only { "ro" } else { "rw" },
        if attributes.nosuid { "nosuid" } else { "suid" },
        if attributes.nodev { "nodev" } else { "dev" },
        if attributes.noexec { "noexec" } else { "exec" },
    ]
}

/// A path that can be an option's value as it is. Other paths lose nothing: systemd orders a bind
/// mount after the mounts that its source and its mount point are on anyway, systemd.mount(5).
fn plain(path: &HostPath) -> Option<&str> {
    let text = path.as_path().to_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    text.chars().all(plain).then_some(text)
}

/// The lines of one site with aligned columns, under a comment that names the site.
pub(crate) fn section(site: &SiteName, root: &HostPath, lines: &[FstabLine]) -> Vec<u8> {
    let (mut fields, mut widths) = (vec![], [0, 0]);
    for line in lines {
        let of_line = [&line.what(), line.target.as_path()].map(escaped);
        for (width, field) in widths.iter_mut().zip(&of_line) {
            *width = field.len().max(*width);
        }
        fields.push(of_line);
    }
    let mut text = format!("# {site}: ").into_bytes();
    text.extend(escaped(root.as_path()));
    text.push(b'\n');
    for (line, fields) in lines.iter().zip(fields) {
        for (field, width) in fields.iter().zip(widths) {
            text.extend(field);
            text.resize(text.len() + width - field.len() + 2, b' ');
        }
        let (kind, options) = (line.kind(), line.options.join(","));
        text.extend(format!("{kind:<4}  {options}  0  0\n").bytes());
    }
    text
}

/// A path as it is written in fstab(5), with blanks, backslashes and control characters as octal
/// codes. A `#` stays: it begins a comment only at the beginning of a line.
pub(crate) fn escaped(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut text = vec![];
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).bytes();
            if c == ' ' || c == '\\' || c.is_control() {
                for byte in bytes {
                    text.extend(format!("\\{byte:03o}").into_bytes());
                }
            } else {
                text.extend(bytes);
            }
        }
        text.extend(chunk.invalid());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::text::unescape_octal;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn escapes_are_undone() {
        for text in [
            &b"/a b\tc\nd\\e#f"[..],
            "/\u{e4}/\u{1f5dd}".as_bytes(),
            b"/\xff\xfe",
            b"/\\040",
            b"/\x1b[\xc2\x9b\x7f",
        ] {
            let path = Path::new(std::ffi::OsStr::from_bytes(text));
            let escaped = escaped(path);
            let special = |c: char| c == ' ' || c.is_control();
            assert!(
                !String::from_utf8_lossy(&escaped).contains(special),
                "{escaped:?}"
            );
            assert_eq!(unescape_octal(&escaped), path);
        }
    }

    #[test]
    fn only_plain_paths_become_options() {
        assert_eq!(
            plain(&HostPath::new("/srv/a-b_1.c").unwrap()),
            Some("/srv/a-b_1.c")
        );
        for path in ["/a,b", "/a b", "/a%b", "/a\\b", "/a\"b", "/\u{e4}"] {
            assert_eq!(plain(&HostPath::new(path).unwrap()), None, "{path}");
        }
    }
}
