//! systemd's units with a `RootDirectory=` (systemd.exec(5)), or whose command names a root:
//! `named -t`.

use std::path::Path;

use super::{DaemonSites, FileLine, Needs};
use crate::base::{JailPath, bytes};
use crate::import::draft::{Draft, DraftItem, DraftMount, DraftTmpfs, is_mode};
use crate::import::logins;
use crate::import::unit_file::{Assignment, UnitFile};
use crate::import::words::words;
use crate::observe::Units;

/// The site of a unit with its drop-ins.
pub(in crate::import) fn read(file: &Path, unit: &UnitFile, units: &Units) -> DaemonSites {
    let mut read = DaemonSites::default();
    if unit.name == "service" || unit.name.ends_with("-.service") {
        read.warnings.push(format!(
            "{}: it is for several units; name the file of one of them",
            file.display()
        ));
        return read;
    }
    let Some((line, root)) = root(unit) else {
        read.warnings.push(format!(
            "{}: it has no RootDirectory=: nothing to mount",
            file.display()
        ));
        return read;
    };
    let place = place(line);
    if root.contains('%') {
        read.warnings.push(format!(
            "{place}: {root}: it differs from instance to instance; write a manifest for each"
        ));
        return read;
    }
    let Some(draft) = read.site(place, &format!("The root of {}", unit.name), &root) else {
        return read;
    };

    let user = match unit.get("Service", "User") {
        Some(line) if !line.value.contains('%') => logins::name_of(&line.value),
        _ => None,
    };
    let users: Vec<_> = user.iter().map(String::as_str).collect();
    let needs = Needs {
        presets: &["base"],
        users: &users,
        services: &[],
    };
    needs.add_to(draft, units);
    if unit.name.ends_with(".service") {
        draft.services.insert(unit.name.clone());
    } else {
        draft.remarks.push(format!(
            "{place}: the file has no name of a unit: name the unit under `services`."
        ));
    }
    add_programs(draft, unit);
    add_binds(draft, unit);
    add_file_systems(draft, unit);
    read
}

fn place(line: &Assignment) -> FileLine<'_> {
    FileLine {
        file: &line.file,
        line: line.line,
    }
}

/// The root, and the line that names it: `RootDirectory=`, or the option `-t` of named.
fn root(unit: &UnitFile) -> Option<(&Assignment, String)> {
    if let Some(line) = unit.get("Service", "RootDirectory") {
        return Some((line, words(&line.value).into_iter().next()?));
    }
    let line = unit.get("Service", "ExecStart")?;
    let command = unit.commands().pop()?;
    let program = Path::new(command.first()?);
    if program.file_name()? != "named" {
        return None;
    }
    let option = command.iter().position(|word| word == "-t")?;
    Some((line, command.get(option + 1)?.clone()))
}

/// With `RootDirectory=`, systemd looks for the program inside.
fn add_programs(draft: &mut Draft, unit: &UnitFile) {
    if unit.get("Service", "RootDirectory").is_none() {
        return;
    }
    for command in unit.commands() {
        if let Some(program) = command.first()
            && Path::new(program).is_file()
        {
            draft.programs.push(DraftItem::new(program));
        }
    }
}

fn add_binds(draft: &mut Draft, unit: &UnitFile) {
    for (key, writable) in [("BindReadOnlyPaths", false), ("BindPaths", true)] {
        for assignment in unit.list("Service", key) {
            for word in words(&assignment.value) {
                draft.mounts.push(bind(&word, writable));
            }
            let place = place(assignment);
            draft.remarks.push(format!(
                "{place}: {key}= stays in the unit; paths that the manifest also mounts can be \
                 removed there."
            ));
        }
    }
}

/// Adds the file systems of its own that the service has inside.
fn add_file_systems(draft: &mut Draft, unit: &UnitFile) {
    let on = ["1", "yes", "true", "on"];
    if let Some(line) = unit.get("Service", "MountAPIVFS")
        && on.contains(&line.value.to_ascii_lowercase().as_str())
    {
        let place = place(line);
        draft.proc = true;
        draft.remarks.push(format!(
            "{place}: MountAPIVFS= stays in the unit, for /sys, /dev and /run; /proc is `proc: \
             true`, read-only, hidepid=invisible."
        ));
    }
    for line in unit.list("Service", "TemporaryFileSystem") {
        let place = place(line);
        draft.remarks.push(format!(
            "{place}: TemporaryFileSystem= stays in the unit; what the manifest also mounts can \
             be removed there."
        ));
        for word in words(&line.value) {
            match temporary(&word) {
                Some(tmpfs) => draft.tmpfs.push(tmpfs),
                None => draft.remarks.push(format!(
                    "{place}: TemporaryFileSystem={word} has to stay in the unit: a manifest \
                     has no such tmpfs."
                )),
            }
        }
    }
    if let Some(line) = unit.get("Service", "PrivateTmp") {
        let (place, value) = (place(line), &line.value);
        let remark = format!("{place}: PrivateTmp={value} stays in the unit.");
        draft.remarks.push(remark);
    }
}

/// `TARGET:OPTIONS`, of which only the target is required. `None`: a manifest cannot express it.
fn temporary(word: &str) -> Option<DraftTmpfs> {
    let (target, options) = word.split_once(':').unwrap_or((word, ""));
    let is_mounted_first = target.starts_with("/dev/"); // before the mount of /dev
    let path = JailPath::new(target).ok()?;
    if target.contains('%') || is_mounted_first || path == JailPath::slash() {
        return None;
    }
    // As systemd.exec(5) has it.
    let (mut size, mut mode) = (None, "0755".to_owned());
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("size", value)) if bytes(value).is_some() => size = Some(value.to_owned()),
            Some(("mode", value)) if is_mode(value) => mode = format!("{value:0>4}"),
            None if ["", "rw", "nosuid", "nodev", "noexec", "strictatime"].contains(&option) => {}
            _ => return None,
        }
    }
    Some(DraftTmpfs {
        target: target.to_owned(),
        size,
        mode: Some(mode),
    })
}

/// `-SOURCE:TARGET:norbind`, of which only the source is required.
fn bind(word: &str, writable: bool) -> DraftMount {
    let optional = word.starts_with('-');
    let word = word.strip_prefix('-').unwrap_or(word);
    let word = word.trim_start_matches('+');

    let mut fields = word.split(':');
    let source = fields.next().unwrap_or_default();
    let target = fields.next().unwrap_or_default();
    let is_recursive = fields.next() != Some("norbind");

    let has_target = !target.is_empty() && target != source;
    DraftMount {
        target: has_target.then(|| target.to_owned()),
        writable,
        optional,
        recursive: is_recursive && Path::new(source).is_dir(),
        ..DraftMount::of_path(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::unit_file;

    fn read_text(text: &str) -> DaemonSites {
        let unit = UnitFile {
            name: "x.service".into(),
            lines: unit_file::read(Path::new("x.service"), text),
        };
        read(Path::new("x.service"), &unit, &Units::default())
    }

    #[test]
    fn a_root_directory_with_its_binds() {
        let read = read_text(
            "[Unit]\nDescription=x\n[Service]\nRootDirectory=/srv/x\nUser=www-data\n\
             ExecStart=-/bin/true \\\n  -a\n\
             BindReadOnlyPaths=/etc/hosts -/srv/a:/b:norbind\nBindPaths=/no/data\n\
             BindReadOnlyPaths=\n\
             BindReadOnlyPaths=\"/srv/a b\"\nMountAPIVFS=yes\n\
             TemporaryFileSystem=/tmp:size=1M,mode=1777 /run:ro / /var/x\n",
        );
        let [site] = read.sites.as_slice() else {
            panic!("{read:?}")
        };
        assert_eq!(site.root().unwrap().to_string(), "/srv/x");
        assert_eq!(
            (
                site.users[0].any_of[0].as_str(),
                site.programs[0].any_of[0].as_str()
            ),
            ("www-data", "/bin/true")
        );
        let sources: Vec<_> = site
            .mounts
            .iter()
            .map(|mount| (mount.source.as_str(), mount.writable))
            .collect();
        assert_eq!(sources, [("/srv/a b", false), ("/no/data", true)]);
        assert!(
            site.services.contains("x.service") && read.warnings.is_empty() && site.proc,
            "{read:?}"
        );
        let tmpfs = |target: &str, size: Option<&str>, mode: &str| DraftTmpfs {
            target: target.into(),
            size: size.map(Into::into),
            mode: Some(mode.into()),
        };
        assert_eq!(
            site.tmpfs,
            [
                tmpfs("/tmp", Some("1M"), "1777"),
                tmpfs("/var/x", None, "0755")
            ]
        );
        assert!(
            site.remarks
                .iter()
                .any(|text| text.contains("=/run:ro has to stay in the unit")),
            "{site:?}"
        );
    }

    #[test]
    fn named_is_told_its_root() {
        let read = read_text(
            "[Service]\nEnvironment=OPTIONS=-t\\s/x\nExecStart=/usr/sbin/named -f -u bind -t \
             /srv/named\n",
        );
        assert_eq!(read.sites[0].root().unwrap().to_string(), "/srv/named");
        assert_eq!(
            read_text("[Service]\nExecStart=/bin/true -t /srv/x\n")
                .warnings
                .len(),
            1
        );
        assert_eq!(
            read_text("[Service]\nRootDirectory=/srv/%i\n")
                .warnings
                .len(),
            1
        );
    }
}
