//! The bind lines of a file in the format of fstab(5): pure.

use std::path::{Path, PathBuf};

use crate::base::HostPath;
use crate::base::text::unescape_octal;
use crate::render::fstab::{FstabBlock, outside_lines};
use crate::{Error, Result};

/// What a file has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fstab {
    /// Bind mounts, in the file's order.
    pub binds: Vec<Bind>,
    /// Lines that mount something else.
    pub others: Vec<Other>,
    /// How many lines mountjail itself wrote.
    pub ours: usize,
    /// What is no mount at boot: sentences.
    pub remarks: Vec<String>,
    /// Lines that mount(8) passes over as well, with the reason: sentences.
    pub odd: Vec<String>,
}

/// A line that mounts a file system, and no directory of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// `FILE:LINE`, for messages.
    pub place: String,
    /// The second field; `None`: it is no path, as for swap.
    pub target: Option<HostPath>,
    /// The third field.
    pub fstype: String,
}

/// One bind mount as the line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // the options of mount(8)
pub struct Bind {
    /// `FILE:LINE`, for messages.
    pub place: String,
    /// The first field.
    pub source: HostPath,
    /// The second field.
    pub target: HostPath,
    /// `rbind`.
    pub recursive: bool,
    /// `ro`.
    pub read_only: bool,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// `noexec`.
    pub noexec: bool,
    /// `MountAttributes` that neither the kernel nor a manifest knows, such as
    /// `x-systemd.requires=a.service`.
    pub userspace: Vec<String>,
}

/// Whether this line, of a file that is not known yet, could be one of fstab(5): what is mounted is
/// named as such, and the second field is a mount point.
pub(super) fn looks_like(line: &[u8]) -> bool {
    let fields = fields(line);
    let [source, target, ..] = fields.as_slice() else {
        return false;
    };
    let is_tag = |tag: &&[u8]| source.starts_with(tag);
    let tags: [&[u8]; 7] = [
        b"/",
        b"UUID=",
        b"LABEL=",
        b"PARTUUID=",
        b"PARTLABEL=",
        b"ID=",
        b"//",
    ];
    let is_source = tags.iter().any(is_tag)
        || source.windows(2).any(|two| two == b":/")
        || [
            &b"none"[..],
            b"proc",
            b"sysfs",
            b"tmpfs",
            b"devpts",
            b"overlay",
        ]
        .contains(source);
    is_source && (target.starts_with(b"/") || [&b"none"[..], b"swap"].contains(target))
}

/// The bind lines of `text`, but those that mountjail manages.
///
/// Lines that are none of fstab(5) are named, and passed over. Errors: mountjail's own block is not
/// whole.
pub fn read(file: &Path, text: &[u8]) -> Result<Fstab, Vec<Error>> {
    FstabBlock::read(text).map_err(|wrong| {
        let failed = Error::failed(format!("{}: {wrong}", file.display()));
        vec![failed.hint(
            "take the odd marker out, or write the block anew with `mountjail fstab --install`",
        )]
    })?;
    let mut fstab = Fstab {
        ours: lines_inside(text),
        ..Fstab::default()
    };
    for (nth, line) in outside_lines(text) {
        if line.trim_ascii().is_empty() || line.trim_ascii_start().starts_with(b"#") {
            continue;
        }
        let place = format!("{}:{nth}", file.display());
        if let Err(why) = fstab.add(&place, line) {
            let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            fstab
                .odd
                .push(format!("{place}: `{line}`: {why}; passed over"));
        }
    }
    Ok(fstab)
}

/// How many lines of mounts are in mountjail's own block.
fn lines_inside(text: &[u8]) -> usize {
    let mounts =
        |line: &&[u8]| !line.trim_ascii().is_empty() && !line.trim_ascii_start().starts_with(b"#");
    let all = text.split(|byte| *byte == b'\n').filter(mounts).count();
    all - outside_lines(text)
        .map(|(_, line)| line)
        .filter(mounts)
        .count()
}

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty())
        .collect()
}

impl Fstab {
    fn add(&mut self, place: &str, line: &[u8]) -> Result<(), String> {
        let fields = fields(line);
        let [source, target, fstype, rest @ ..] = fields.as_slice() else {
            return Err(
                "it has fewer fields than fstab(5) needs: what, where, type and options".to_owned(),
            );
        };
        let numbers = rest.get(1..).unwrap_or_default();
        let is_number = |field: &&[u8]| field.iter().all(u8::is_ascii_digit);
        let numbers = numbers.iter().take_while(|field| !field.starts_with(b"#"));
        if let Some(odd) = numbers.clone().take(2).find(|field| !is_number(field)) {
            return Err(format!(
                "{} is no number: a blank in a path is written \\040",
                shown(odd)
            ));
        }
        let options: Vec<_> = rest
            .first()
            .map(|field| field.split(|byte| *byte == b',').collect())
            .unwrap_or_default();
        let has = |name: &str| options.contains(&name.as_bytes());
        if !has("bind") && !has("rbind") {
            let target = host_path(&unescape_octal(target)).ok();
            let fstype = String::from_utf8_lossy(fstype).into_owned();
            self.others.push(Other {
                place: place.to_owned(),
                target,
                fstype,
            });
            return Ok(());
        }
        if has("noauto") && !has("x-systemd.automount") {
            self.remarks.push(format!(
                "{place}: `noauto`: it is not mounted at boot; not imported"
            ));
            return Ok(());
        }
        let target = host_path(&unescape_octal(target))?;
        if has("remount") {
            // Its source counts for nothing: `none` as well as the one that is mounted.
            return self.remount(&target, &options);
        }
        let userspace = options.iter().filter(|option| is_userspace(option));
        let mut bind = Bind {
            place: place.to_owned(),
            source: host_path(&unescape_octal(source))?,
            target,
            recursive: has("rbind"),
            read_only: false,
            nosuid: false,
            nodev: false,
            noexec: false,
            userspace: userspace
                .map(|option| String::from_utf8_lossy(option).into_owned())
                .collect(),
        };
        bind.apply(&options);
        self.binds.push(bind);
        Ok(())
    }

    /// `remount,bind,ro`, by which older systems make the bind of the line before read-only.
    fn remount(&mut self, target: &HostPath, options: &[&[u8]]) -> Result<(), String> {
        let bind = self
            .binds
            .iter_mut()
            .rev()
            .find(|bind| bind.target == *target);
        match bind {
            Some(bind) => bind.apply(options),
            None => return Err("it remounts what no line before it mounts".to_owned()),
        }
        Ok(())
    }
}

impl Bind {
    /// What the options say, the last one first, as mount(8) takes them.
    fn apply(&mut self, options: &[&[u8]]) {
        for option in options {
            // Since 2.38, mount(8) has flags for all that is mounted below as well.
            match option.strip_suffix(b"=recursive").unwrap_or(option) {
                b"ro" => self.read_only = true,
                b"rw" => self.read_only = false,
                b"nosuid" => self.nosuid = true,
                b"suid" => self.nosuid = false,
                b"nodev" => self.nodev = true,
                b"dev" => self.nodev = false,
                b"noexec" => self.noexec = true,
                b"exec" => self.noexec = false,
                b"user" | b"users" => (self.nosuid, self.nodev, self.noexec) = (true, true, true),
                b"owner" | b"group" => (self.nosuid, self.nodev) = (true, true),
                b"defaults" => {
                    (self.read_only, self.nosuid, self.nodev, self.noexec) =
                        (false, false, false, false);
                }
                _ => {}
            }
        }
    }
}

/// Whether an option is for systemd or mount(8) itself; `x-gvfs-*` and its like are for desktops.
fn is_userspace(option: &[u8]) -> bool {
    let known: [&[u8]; 4] = [b"x-systemd.", b"X-mount.", b"x-mount.", b"x-initrd."];
    known.iter().any(|known| option.starts_with(known))
        && option != b"X-mount.mkdir"
        && option != b"x-mount.mkdir"
}

fn shown(field: &[u8]) -> String {
    format!("`{}`", String::from_utf8_lossy(field))
}

fn host_path(path: &PathBuf) -> Result<HostPath, String> {
    if path.to_str().is_none() {
        return Err(format!(
            "the path {} is not UTF-8, which a manifest is",
            path.display()
        ));
    }
    HostPath::new(path).map_err(|why| format!("the path {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Fstab, Vec<Error>> {
        read(Path::new("fstab"), text.as_bytes())
    }

    #[test]
    fn bind_lines_are_read_and_others_counted() {
        let fstab = read_text(
            "# a comment\n\nUUID=1-2 / ext4 errors=remount-ro 0 1\nnone /tmp tmpfs\n\
             /etc/hosts\t/srv/a/etc/hosts  none bind,ro,nosuid 0 0\n\
             /a\\040b /srv/a/in\\011side auto defaults,rbind # why\n\
             # BEGIN mountjail\n# a: /srv/a\n/etc/x /srv/a/etc/x none bind,ro 0 0\n# END mountjail\n\
             /x /y none noauto,bind",
        )
        .unwrap();
        assert_eq!(
            (fstab.others.len(), fstab.ours, fstab.remarks.len()),
            (2, 1, 1)
        );
        let [hosts, blank] = fstab.binds.as_slice() else {
            panic!("{fstab:?}")
        };
        assert_eq!(
            (hosts.place.as_str(), hosts.target.to_string()),
            ("fstab:5", "/srv/a/etc/hosts".into())
        );
        assert!(hosts.read_only && hosts.nosuid && !hosts.noexec && !hosts.recursive);
        assert_eq!(
            (blank.source.to_string(), blank.target.to_string()),
            ("/a b".into(), "/srv/a/in\tside".into())
        );
        assert!(!blank.read_only && blank.recursive);
    }

    #[test]
    fn a_remount_changes_the_line_before() {
        let fstab =
            read_text("/a /r/a none bind 0 0\n/a /r/a none remount,bind,ro,noexec 0 0\n").unwrap();
        let [bind] = fstab.binds.as_slice() else {
            panic!("{fstab:?}")
        };
        assert!(bind.read_only && bind.noexec && !bind.nodev);
    }

    #[test]
    fn a_remount_has_any_source_and_flags_may_be_recursive() {
        let fstab = read_text(
            "/a /r/a none bind\nnone /r/a none remount,bind,ro=recursive,nosuid=recursive\n",
        )
        .unwrap();
        assert!(
            fstab.odd.is_empty() && fstab.binds[0].read_only && fstab.binds[0].nosuid,
            "{fstab:?}"
        );
        let fstab = read_text(
            "/a /r/a none noauto,bind,x-systemd.automount,x-systemd.after=b.mount,nofail\n",
        )
        .unwrap();
        assert_eq!(
            fstab.binds[0].userspace,
            ["x-systemd.automount", "x-systemd.after=b.mount"]
        );
    }

    #[test]
    fn the_last_option_counts() {
        let of = |options: &str| {
            read_text(&format!("/a /r/a none {options} 0 0\n"))
                .unwrap()
                .binds[0]
                .clone()
        };
        assert!(
            !of("bind,ro,rw").read_only
                && of("rw,bind,ro").read_only
                && !of("ro,defaults,bind").read_only
        );
        let user = of("bind,user,exec");
        assert!(user.nosuid && user.nodev && !user.noexec);
    }

    #[test]
    fn every_broken_line_is_named() {
        let text = read_text("/a /b\nsrv/x /b none bind\n/a b /c none bind 0 0\n/a /b none bind x\n/a /b none remount,bind,ro\n/a /b/../c none bind")
            .unwrap()
            .odd;
        let expected = [
            "fstab:1: `/a /b`: it has fewer fields than fstab(5) needs: what, where, type and options; passed over",
            "fstab:2: `srv/x /b none bind`: the path srv/x: it is not absolute; passed over",
            "fstab:3: `/a b /c none bind 0 0`: `bind` is no number: a blank in a path is written \\040; passed over",
            "fstab:4: `/a /b none bind x`: `x` is no number: a blank in a path is written \\040; passed over",
            "fstab:5: `/a /b none remount,bind,ro`: it remounts what no line before it mounts; passed over",
            "fstab:6: `/a /b/../c none bind`: the path /b/../c: it contains `..`; passed over",
        ];
        assert_eq!(text, expected);
        let marker = read_text("# BEGIN mountjail\n/a /b none bind\n").unwrap_err();
        assert!(
            marker[0]
                .to_string()
                .starts_with("fstab: line 1 begins mountjail's block"),
            "{marker:?}"
        );
    }
}
