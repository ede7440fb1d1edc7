//! The bind lines of a file in the format of fstab(5): pure.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use super::mount_options::{OptionMeaning, PROPAGATIONS, flag_of, meaning_of};
use crate::base::HostPath;
use crate::base::text::unescape_octal;
use crate::render::fstab::{FstabBlock, outside_lines};
use crate::{Error, Result};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FstabFile {
    /// Bind mounts, in the file's order.
    pub binds: Vec<Bind>,
    /// Lines that mount something else.
    pub others: Vec<OtherMount>,
    /// How many lines mountjail itself wrote.
    pub ours: usize,
    /// Lines that are not mounted at boot: sentences.
    pub remarks: Vec<String>,
    /// Lines that mount(8) also ignores, or that do something else than they seem to: sentences.
    pub odd: Vec<String>,
}

/// A line that mounts a file system, not a directory of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherMount {
    /// `FILE:LINE`
    pub place: String,
    /// The first field.
    pub source: String,
    /// The second field; `None`: it is not a path, as for swap.
    pub target: Option<HostPath>,
    /// The third field: the type of the file system.
    pub fstype: String,
    /// The fourth field's options.
    pub options: Vec<String>,
}

/// The bind mount of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // the options of mount(8)
pub(crate) struct Bind {
    /// `FILE:LINE`
    pub place: String,
    /// The first field: what is mounted.
    pub source: HostPath,
    /// The second field: where it is mounted.
    pub target: HostPath,
    /// `rbind`
    pub recursive: bool,
    pub read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    /// The boot goes on without it.
    pub optional: bool,
    /// Options that say when systemd mounts it, such as `x-systemd.requires=a.service`.
    pub order: Vec<String>,
    /// Options that a manifest lacks, without which the site sees no more.
    pub lost: Vec<String>,
    /// Options that a manifest lacks, and without which the site might see more.
    pub foreign: Vec<String>,
    /// Why the target leads nowhere that can be trusted, if that was found.
    pub astray: Option<String>,
}

/// The kinds of sources that the first field can have, by their beginnings.
const SOURCES: [&[u8]; 7] = [
    b"/",
    b"UUID=",
    b"LABEL=",
    b"PARTUUID=",
    b"PARTLABEL=",
    b"ID=",
    b"//",
];

/// Words in the first field for file systems without a device.
const NO_SOURCES: [&[u8]; 6] = [b"none", b"proc", b"sysfs", b"tmpfs", b"devpts", b"overlay"];

/// Whether this line, of a file of unknown format, could be one of fstab(5): the first field is a
/// source, and the second one a mount point.
pub(super) fn looks_like(line: &[u8]) -> bool {
    let fields = fields(line);
    let [source, target, ..] = fields.as_slice() else {
        return false;
    };
    let is_source = SOURCES.iter().any(|begin| source.starts_with(begin))
        || NO_SOURCES.contains(source)
        || source.windows(2).any(|two| two == b":/");
    let is_target = target.starts_with(b"/") || *target == b"none" || *target == b"swap";
    is_source && is_target
}

impl OtherMount {
    /// Whether it was meant to be a bind mount: mount(8) knows no such type of a file system, and
    /// nothing else that the options ask for needs none.
    pub(super) fn lacks_bind(&self) -> bool {
        let needs_no_type = |option: &String| {
            option == "move" || option == "remount" || PROPAGATIONS.contains(&option.as_str())
        };
        self.source.starts_with('/')
            && ["none", "bind", "rbind"].contains(&self.fstype.as_str())
            && !self.options.iter().any(needs_no_type)
    }
}

/// The path that a field of a line stands for; or why there is none.
pub(super) type PathOf<'p> = &'p dyn Fn(&Path) -> Result<HostPath, String>;

/// The bind lines of `text`, except those that mountjail manages. `path_of`: what paths lead to
/// that have a `..`.
///
/// Lines that are not in the format of fstab(5) are reported and ignored. Errors: a marker of
/// mountjail's own block is missing.
pub(crate) fn read(file: &Path, text: &[u8], path_of: PathOf<'_>) -> Result<FstabFile, Vec<Error>> {
    FstabBlock::read(text).map_err(|wrong| {
        let failed = Error::failed(format!("{}: {wrong}", file.display()));
        let hint = "remove the odd marker, or write the block again with \
                    `mountjail fstab --install`";
        vec![failed.hint(hint)]
    })?;

    let mut fstab = FstabFile::default();
    let mut outside = 0;
    for (nth, line) in outside_lines(text) {
        if !is_entry(line) {
            continue;
        }
        outside += 1;
        let place = format!("{}:{nth}", file.display());
        if let Err(why) = fstab.add(&place, line, path_of) {
            let line = String::from_utf8_lossy(line.trim_ascii());
            fstab.odd.push(format!("{place}: `{line}`: {why}; ignored"));
        }
    }

    let all = text.split(|byte| *byte == b'\n');
    fstab.ours = all.filter(|line| is_entry(line)).count() - outside;
    Ok(fstab)
}

/// Whether a line is neither empty nor a comment.
fn is_entry(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    !line.is_empty() && !line.starts_with(b"#")
}

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty())
        .collect()
}

/// The options in the fourth field. A comma within double quotes is part of an option, as for
/// mount(8).
fn options_in(field: &[u8]) -> Vec<&[u8]> {
    let mut is_quoted = false;
    let is_end = |byte: &u8| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    };
    field.split(is_end).collect()
}

/// The options of a line.
struct FstabOptions<'l>(Vec<&'l [u8]>);

impl FstabOptions<'_> {
    fn has(&self, option: &str) -> bool {
        self.0.contains(&option.as_bytes())
    }

    fn in_words(&self) -> Vec<String> {
        let words = self.0.iter().map(|option| String::from_utf8_lossy(option));
        words.map(Cow::into_owned).collect()
    }
}

impl FstabFile {
    fn add(&mut self, place: &str, line: &[u8], path_of: PathOf<'_>) -> Result<(), String> {
        let fields = fields(line);
        let [source, target, fstype, rest @ ..] = fields.as_slice() else {
            let why = "it has fewer fields than fstab(5) needs: source, target, type and options";
            return Err(why.to_owned());
        };
        check_numbers(rest.get(1..).unwrap_or_default())?;
        let options = match rest.first() {
            Some(options) => options_in(options),
            None => vec![],
        };
        let options = FstabOptions(options);
        let path = |field: &[u8]| path_in(&unescape_octal(field), path_of);

        if !options.has("bind") && !options.has("rbind") {
            let target = path(target).ok();
            if options.has("remount")
                && let Some(target) = &target
                && self.binds.iter().any(|bind| bind.target == *target)
            {
                return self.remount_all(place, target, &options);
            }
            self.others.push(OtherMount {
                place: place.to_owned(),
                source: unescape_octal(source).to_string_lossy().into_owned(),
                target,
                fstype: String::from_utf8_lossy(fstype).into_owned(),
                options: options.in_words(),
            });
            return Ok(());
        }
        if options.has("noauto") && !options.has("x-systemd.automount") {
            self.remarks.push(format!(
                "{place}: `noauto`: it is not mounted at boot; not imported"
            ));
            return Ok(());
        }
        let target = path(target)?;
        if options.has("remount") {
            // The source does not matter: it may be `none`, or the one that is mounted.
            return self.remount(&target, &options);
        }

        let mut bind = Bind {
            place: place.to_owned(),
            source: path(source)?,
            target,
            recursive: options.has("rbind"),
            read_only: false,
            nosuid: false,
            nodev: false,
            noexec: false,
            optional: false,
            order: vec![],
            lost: vec![],
            foreign: vec![],
            astray: None,
        };
        bind.apply(&options)?;
        self.binds.push(bind);
        Ok(())
    }

    /// `remount,bind,ro`, by which older systems make the bind mount of an earlier line read-only.
    fn remount(&mut self, target: &HostPath, options: &FstabOptions<'_>) -> Result<(), String> {
        let earlier = self.binds.iter_mut().rfind(|bind| bind.target == *target);
        match earlier {
            Some(bind) => bind.apply(options),
            None => Err("no line before it mounts what it remounts".to_owned()),
        }
    }

    /// `remount,ro` without `bind`, of what an earlier line mounts.
    fn remount_all(
        &mut self,
        place: &str,
        target: &HostPath,
        options: &FstabOptions<'_>,
    ) -> Result<(), String> {
        self.odd.push(format!(
            "{place}: `remount` without `bind` changes the whole file system that {target} shows, \
             not only what is mounted there; imported as `remount,bind`: remove the line from \
             fstab together with the one that it remounts"
        ));
        self.remount(target, options)
    }
}

/// Checks the fifth and sixth fields, which a blank in a path shifts.
fn check_numbers(fields: &[&[u8]]) -> Result<(), String> {
    for field in fields.iter().take(2) {
        if field.starts_with(b"#") {
            break;
        }
        if !field.iter().all(u8::is_ascii_digit) {
            return Err(format!(
                "`{}` is not a number: a blank in a path is written as \\040",
                String::from_utf8_lossy(field)
            ));
        }
    }
    Ok(())
}

impl Bind {
    /// Errors: a subdirectory of the source is not a path.
    fn apply(&mut self, options: &FstabOptions<'_>) -> Result<(), String> {
        for option in options.in_words() {
            match meaning_of(&option) {
                OptionMeaning::Plain => {
                    self.set(flag_of(&option));
                }
                OptionMeaning::Order => self.order.push(option),
                OptionMeaning::Lost => self.lost.push(option),
                OptionMeaning::Foreign => self.foreign.push(option),
                OptionMeaning::Subdirectory(name) => {
                    let path = self.source.as_path().join(name.trim_start_matches('/'));
                    self.source = host_path(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Of contradictory options the last one counts, as for mount(8).
    fn set(&mut self, flag: &str) {
        match flag {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "nosuid" => self.nosuid = true,
            "suid" => self.nosuid = false,
            "nodev" => self.nodev = true,
            "dev" => self.nodev = false,
            "noexec" => self.noexec = true,
            "exec" => self.noexec = false,
            "nofail" | "failok" | "nobootwait" | "optional" => self.optional = true,
            "user" | "users" => (self.nosuid, self.nodev, self.noexec) = (true, true, true),
            "owner" | "group" => (self.nosuid, self.nodev) = (true, true),
            "defaults" => {
                (self.read_only, self.nosuid, self.nodev, self.noexec) =
                    (false, false, false, false);
            }
            _ => {}
        }
    }
}

/// The path that a field names.
fn path_in(path: &PathBuf, path_of: PathOf<'_>) -> Result<HostPath, String> {
    if path.is_absolute() && path.components().any(|part| part == Component::ParentDir) {
        return path_of(path).map_err(|why| format!("the path {}: {why}", path.display()));
    }
    host_path(path)
}

fn host_path(path: &PathBuf) -> Result<HostPath, String> {
    if path.to_str().is_none() {
        let path = path.display();
        return Err(format!(
            "the path {path} is not UTF-8, as a manifest has to be"
        ));
    }
    HostPath::new(path).map_err(|why| format!("the path {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<FstabFile, Vec<Error>> {
        read(Path::new("fstab"), text.as_bytes(), &|_| {
            Err("it is nowhere".to_owned())
        })
    }

    #[test]
    fn bind_lines_are_read_and_others_counted() {
        let fstab = read_text(
            "# a comment\n\nUUID=1-2 / ext4 errors=remount-ro 0 1\nnone /tmp tmpfs\n\
             /etc/hosts\t/srv/a/etc/hosts  none bind,ro,nosuid 0 0\n\
             /a\\040b /srv/a/in\\011side auto defaults,rbind # why\n\
             # BEGIN mountjail\n# a: /srv/a\n/etc/x /srv/a/etc/x none bind,ro 0 0\n# END \
             mountjail\n\
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
            fstab.binds[0].order,
            ["x-systemd.automount", "x-systemd.after=b.mount"]
        );
        assert!(fstab.binds[0].optional);
        let fstab = read_text("/a /r/a none bind,nobootwait,usrquota,showthrough\n").unwrap();
        assert!(fstab.binds[0].optional && fstab.binds[0].foreign.is_empty());
        let fstab = read_text("/a /r/a none bind,ro=vfs,noexec=recursive,_netdev\n").unwrap();
        let [bind] = fstab.binds.as_slice() else {
            panic!("{fstab:?}")
        };
        assert!(bind.read_only && bind.noexec && !bind.optional && bind.foreign.is_empty());
        assert_eq!(bind.order, ["_netdev"]);
    }

    #[test]
    fn no_option_is_dropped_in_silence() {
        let fstab = read_text(
            "/a /r/a none bind,ro,X-mount.subdir=b/c,X-mount.mkdir=0755,slave,noatime\n\
             /a /r/b none bind,nosymfollow,X-mount.idmap=b:0:1000:1\n\
             /a /r/c none bind,X-mount.subdir=../etc\n\
             /a /r/d none bind\nnone /r/d none remount,bind,nosymfollow\n",
        )
        .unwrap();
        let [subdirectory, foreign, remounted] = fstab.binds.as_slice() else {
            panic!("{fstab:?}")
        };
        assert_eq!(subdirectory.source.to_string(), "/a/b/c");
        assert_eq!(subdirectory.lost, ["slave", "noatime"]);
        assert!(subdirectory.order.is_empty() && subdirectory.foreign.is_empty());
        assert_eq!(foreign.foreign, ["nosymfollow", "X-mount.idmap=b:0:1000:1"]);
        assert_eq!(remounted.foreign, ["nosymfollow"]);
        assert!(fstab.odd[0].contains("contains `..`"), "{fstab:?}");
    }

    #[test]
    fn a_comma_within_quotes_is_part_of_an_option() {
        let fstab = read_text(
            "/a /r/a none bind,x-systemd.requires-mounts-for=\"/a,b\",ro\n\
             /a /r/b none bind,context=\"u:r:t:s0:c1,c2\",ro\n",
        )
        .unwrap();
        let [ordered, labelled] = fstab.binds.as_slice() else {
            panic!("{fstab:?}")
        };
        let order = ["x-systemd.requires-mounts-for=\"/a,b\""];
        assert!(ordered.order == order && ordered.foreign.is_empty() && ordered.read_only);
        assert_eq!(labelled.foreign, ["context=\"u:r:t:s0:c1,c2\""]);
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
        let text = read_text(
            "/a /b\nsrv/x /b none bind\n/a b /c none bind 0 0\n/a /b none bind x\n\
             /a /b none remount,bind,ro\n/a /b/../c none bind",
        )
        .unwrap()
        .odd;
        let expected = [
            "fstab:1: `/a /b`: it has fewer fields than fstab(5) needs: source, target, type and \
             options; ignored",
            "fstab:2: `srv/x /b none bind`: the path srv/x: it is not absolute; ignored",
            "fstab:3: `/a b /c none bind 0 0`: `bind` is not a number: a blank in a path is \
             written \
             as \\040; ignored",
            "fstab:4: `/a /b none bind x`: `x` is not a number: a blank in a path is written as \
             \\040; ignored",
            "fstab:5: `/a /b none remount,bind,ro`: no line before it mounts what it remounts; \
             ignored",
            "fstab:6: `/a /b/../c none bind`: the path /b/../c: it is nowhere; ignored",
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
