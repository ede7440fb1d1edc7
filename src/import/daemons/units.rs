//! systemd's units with a `RootDirectory=` (systemd.exec(5)), or whose program is told a root:
//! `named -t`.

use std::path::Path;

use super::{DaemonSites, FileLine, add};
use crate::import::draft::{DraftItem, DraftMount};
use crate::import::unit_file::{Assignment, UnitFile, words};
use crate::observe::Units;

/// The site of a unit with its drop-ins, called `name`.
pub(in crate::import) fn read(file: &Path, unit: &UnitFile, units: &Units) -> DaemonSites {
    let mut read = DaemonSites::default();
    let Some((line, root)) = root(unit) else {
        read.warnings.push(format!(
            "{}: it has no RootDirectory=: nothing to mount",
            file.display()
        ));
        return read;
    };
    let place = FileLine { file, line };
    if root.contains('%') {
        read.warnings.push(format!(
            "{place}: {root}: it differs from instance to instance; write a manifest for each"
        ));
        return read;
    }
    let users: Vec<_> = unit
        .get("Service", "User")
        .map(|line| line.value.as_str())
        .into_iter()
        .collect();
    let named = users
        .into_iter()
        .filter(|user| !user.contains('%') && user.parse::<u32>().is_err());
    let users: Vec<_> = named.collect();
    let said = format!("The root of {}", unit.name);
    let mut warnings = vec![];
    if let Some(draft) = read.site(place, &said, &root) {
        add(draft, &["base"], &users, &[&unit.name], units);
        draft.services.insert(unit.name.clone());
        for command in unit.commands() {
            let program = command
                .first()
                .filter(|program| Path::new(program).is_file());
            draft.programs.extend(
                program
                    .filter(|_| unit.get("Service", "RootDirectory").is_some())
                    .map(DraftItem::new),
            );
        }
        for (key, writable) in [("BindReadOnlyPaths", false), ("BindPaths", true)] {
            for line in unit.list("Service", key) {
                draft.mounts.extend(binds(line, writable));
                draft.remarks.push(format!(
                    "{}:{}: {key}= stays in the unit; what the manifest mounts as well can be taken out there.",
                    file.display(),
                    line.line
                ));
            }
        }
        for key in ["MountAPIVFS", "PrivateTmp", "TemporaryFileSystem"] {
            if let Some(line) = unit.get("Service", key) {
                let what = format!(
                    "{}:{}: {key}={} stays in the unit",
                    file.display(),
                    line.line,
                    line.value
                );
                warnings.push(format!("{what}: no manifest mounts a file system"));
            }
        }
    }
    read.warnings.extend(warnings);
    read
}

fn root(unit: &UnitFile) -> Option<(usize, String)> {
    if let Some(line) = unit.get("Service", "RootDirectory") {
        return Some((line.line, words(&line.value).into_iter().next()?));
    }
    let line = unit.get("Service", "ExecStart")?.line;
    let command = unit.commands().pop()?;
    let named = Path::new(command.first()?)
        .file_name()
        .is_some_and(|name| name == "named");
    let after = command
        .iter()
        .position(|word| word == "-t")
        .filter(|_| named)?;
    Some((line, command.get(after + 1)?.clone()))
}

/// `-SOURCE:TARGET:norbind`, as often as it is there.
fn binds(line: &Assignment, writable: bool) -> Vec<DraftMount> {
    let mount = |word: String| {
        let (optional, word) = word
            .strip_prefix('-')
            .map_or((false, word.as_str()), |rest| (true, rest));
        let word = word.trim_start_matches('+');
        let mut fields = word.split(':');
        let source = fields.next().unwrap_or_default();
        let target = fields
            .next()
            .filter(|target| !target.is_empty() && *target != source)
            .map(ToOwned::to_owned);
        let recursive = fields.next() != Some("norbind");
        DraftMount {
            target,
            writable,
            optional,
            recursive: recursive && Path::new(source).is_dir(),
            ..DraftMount::new(glob::Pattern::escape(source))
        }
    };
    words(&line.value).into_iter().map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::unit_file;

    fn read_text(text: &str) -> DaemonSites {
        let unit = UnitFile {
            name: "x.service".into(),
            lines: unit_file::read(text),
        };
        read(Path::new("x.service"), &unit, &Units::default())
    }

    #[test]
    fn a_root_directory_with_its_binds() {
        let read = read_text(
            "[Unit]\nDescription=x\n[Service]\nRootDirectory=/srv/x\nUser=www-data\nExecStart=-/bin/true \\\n  -a\n\
             BindReadOnlyPaths=/etc/hosts -/srv/a:/b:norbind\nBindPaths=/no/data\nBindReadOnlyPaths=\n\
             BindReadOnlyPaths=\"/srv/a b\"\nMountAPIVFS=yes\n",
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
            site.services.contains("x.service") && read.warnings.len() == 1,
            "{read:?}"
        );
    }

    #[test]
    fn named_is_told_its_root() {
        let read = read_text(
            "[Service]\nEnvironment=OPTIONS=-t\\s/x\nExecStart=/usr/sbin/named -f -u bind -t /srv/named\n",
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
