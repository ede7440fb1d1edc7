//! The order in which systemd starts units, by their files: systemd.unit(5).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use super::unit_files::{DIRECTORIES, names_in, template, text_of};

/// The targets that every service waits for unless it has `DefaultDependencies=no`:
/// systemd.service(5).
const EARLY_TARGETS: [&str; 2] = ["sysinit.target", "basic.target"];

/// The order in which systemd starts units, as a graph. Orders that only matter for stopping are
/// left out.
///
/// The graph has what the unit files say, and possibly more where systemd decides by what is
/// running. Two units without an order here have none, or one that is in no file.
#[derive(Clone, Debug, Default)]
pub struct Ordering {
    /// Unit → the units that start after it.
    then: BTreeMap<String, BTreeSet<String>>,
    /// The units with `DefaultDependencies=no`.
    early: BTreeSet<String>,
    /// The units that have a file or whose template has one. Templates are not included.
    units: BTreeSet<String>,
    /// Another name of a unit → its own.
    aliases: BTreeMap<String, String>,
}

impl Ordering {
    /// Reads the units of this host, where the directory `first` takes precedence. `more`: further
    /// instances of templates. Drop-ins whose first line is `own` are ignored, because they will be
    /// replaced.
    pub fn read(first: &Path, more: &[String], own: &str) -> Self {
        let directories = [first].into_iter().chain(DIRECTORIES.map(Path::new));
        Files::find(directories, own).ordering(more)
    }

    /// The name by which systemd knows `unit`, which may be an alias.
    pub fn name<'n>(&'n self, unit: &'n str) -> &'n str {
        self.aliases.get(unit).map_or(unit, String::as_str)
    }

    /// Whether the unit has `DefaultDependencies=no`, so that it may start before the local file
    /// systems are mounted.
    pub fn is_early(&self, unit: &str) -> bool {
        self.early.contains(self.name(unit))
    }

    /// Whether the unit has a file.
    pub fn knows(&self, unit: &str) -> bool {
        self.units.contains(self.name(unit))
    }

    /// The chain of units by which `to` starts after `from`, both included.
    pub fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let (from, to) = (self.name(from), self.name(to));
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(unit) = queue.pop_front() {
            if unit == to {
                let mut way = vec![unit.to_owned()];
                let back = std::iter::successors(Some(unit), |unit| before.get(unit).copied());
                way.extend(back.skip(1).map(ToOwned::to_owned));
                way.reverse();
                return Some(way);
            }
            for next in self.then.get(unit).into_iter().flatten() {
                if next != from && !before.contains_key(next.as_str()) {
                    before.insert(next, unit);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Has `then` start after `first`.
    ///
    /// Errors: the chain of units by which `then` already starts before `first`.
    pub fn order(&mut self, first: &str, then: &str) -> Result<(), Vec<String>> {
        if let Some(way) = self.way(then, first) {
            return Err(way);
        }
        self.add(first, then);
        Ok(())
    }

    fn add(&mut self, first: &str, then: &str) {
        let (first, then) = (self.name(first).to_owned(), self.name(then).to_owned());
        self.then.entry(first).or_default().insert(then);
    }
}

/// The files that define units and their dependencies.
#[derive(Default)]
struct Files {
    /// Unit or template → its file.
    fragments: BTreeMap<String, PathBuf>,
    aliases: BTreeMap<String, String>,
    /// `php8.2-fpm.service` for `php8.2-fpm.service.d` → the texts of the files in it.
    drop_ins: BTreeMap<String, Vec<String>>,
    /// Unit → the units in its `.wants` and `.requires` directories.
    wanted: BTreeMap<String, BTreeSet<String>>,
}

impl Files {
    fn find<'d>(directories: impl Iterator<Item = &'d Path>, own: &str) -> Self {
        let mut files = Self::default();
        for directory in directories {
            for name in names_in(directory) {
                let path = directory.join(&name);
                files.add(name, path, own);
            }
        }
        files
    }

    /// Adds the file or directory `name` at `path`. Files found before take precedence.
    fn add(&mut self, name: String, path: PathBuf, own: &str) {
        if let Some(unit) = name.strip_suffix(".d") {
            let drop_ins = self.drop_ins.entry(unit.to_owned()).or_default();
            drop_ins.extend(drop_in_texts(&path, own));
        } else if let Some(unit) = name
            .strip_suffix(".wants")
            .or(name.strip_suffix(".requires"))
        {
            let wanted = self.wanted.entry(unit.to_owned()).or_default();
            wanted.extend(names_in(&path));
        } else if !self.fragments.contains_key(&name) && !self.aliases.contains_key(&name) {
            match alias(&path) {
                Some(other) if other != name => drop(self.aliases.insert(name, other)),
                _ => drop(self.fragments.insert(name, path)),
            }
        }
    }

    fn ordering(self, more: &[String]) -> Ordering {
        let wanted = self.wanted.values().flatten().cloned();
        let mut units: BTreeSet<_> = wanted.chain(self.fragments.keys().cloned()).collect();
        units.extend(more.iter().cloned());
        let mut ordering = Ordering {
            aliases: self.aliases.clone(),
            ..Ordering::default()
        };

        for unit in &units {
            if unit.contains("@.") || self.aliases.contains_key(unit) {
                continue;
            }
            let has_file = |name: &String| self.fragments.contains_key(name);
            if has_file(unit) || template(unit).as_ref().is_some_and(has_file) {
                ordering.units.insert(unit.clone());
            }
            Unit::of(unit, &self.texts(unit)).put_into(&mut ordering, self.wanted.get(unit));
        }
        ordering
    }

    /// The texts of the unit's file and its drop-ins.
    fn texts(&self, unit: &str) -> Vec<String> {
        let template = template(unit);
        let fragment = self
            .fragments
            .get(unit)
            .or_else(|| self.fragments.get(template.as_ref()?));
        let mut texts: Vec<_> = fragment
            .and_then(|path| text_of(path))
            .into_iter()
            .collect();

        let (stem, kind) = unit.rsplit_once('.').unwrap_or((unit, ""));
        let dashes = stem
            .match_indices('-')
            .map(|(at, _)| format!("{}.{kind}", &stem[..=at]));
        let places = [kind.to_owned()]
            .into_iter()
            .chain(dashes)
            .chain(template)
            .chain([unit.to_owned()]);
        texts.extend(
            places
                .filter_map(|place| self.drop_ins.get(&place))
                .flatten()
                .cloned(),
        );
        texts
    }
}

/// The texts of the drop-ins in a directory, except those whose first line is `own`.
fn drop_in_texts(directory: &Path, own: &str) -> Vec<String> {
    let mut texts = vec![];
    for name in names_in(directory) {
        if suffix(&name) != "conf" {
            continue;
        }
        if let Some(text) = text_of(&directory.join(name))
            && text.lines().next() != Some(own)
        {
            texts.push(text);
        }
    }
    texts
}

/// The part of a name after its last dot.
fn suffix(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, suffix)| suffix)
}

/// The unit that a file is an alias of, if it is a link.
fn alias(path: &Path) -> Option<String> {
    let end = fs::read_link(path).ok()?.file_name()?.to_str()?.to_owned();
    (end != "null" && !end.contains("@.")).then_some(end)
}

/// The settings in a unit's files that determine its order.
#[derive(Default)]
struct Unit {
    name: String,
    after: Vec<String>,
    before: Vec<String>,
    /// `Wants=`, `Requires=` and the like.
    needs: Vec<String>,
    /// The unit that a socket, timer or path starts.
    starts: Option<String>,
    paths: Vec<String>,
    no_defaults: bool,
    on_bus: bool,
    /// A file system on the network.
    is_remote: bool,
}

impl Unit {
    fn of(name: &str, texts: &[String]) -> Self {
        let mut unit = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        for text in texts {
            for (section, key, value) in directives(text) {
                unit.take(section, key, &specified(&value, name));
            }
        }
        unit
    }

    fn take(&mut self, section: &str, key: &str, value: &str) {
        let words = || value.split_whitespace().map(ToOwned::to_owned);
        match (section, key) {
            ("Unit", "After") => self.after.extend(words()),
            ("Unit", "Before") => self.before.extend(words()),
            ("Unit", "Wants" | "Requires" | "Requisite" | "BindsTo" | "Upholds") => {
                self.needs.extend(words());
            }
            ("Unit", "RequiresMountsFor" | "WantsMountsFor") => self.paths.extend(words()),
            ("Unit", "DefaultDependencies") => {
                self.no_defaults = ["no", "false", "off", "0"].contains(&value);
            }
            ("Socket", "Service") | ("Timer" | "Path", "Unit") => {
                self.starts = Some(value.to_owned());
            }
            ("Service", "BusName") => self.on_bus = true,
            ("Service", "Type") => self.on_bus |= value == "dbus",
            ("Mount", "Options") => {
                self.is_remote |= value.split(',').any(|option| option == "_netdev");
            }
            ("Mount", "Type") => self.is_remote |= is_network_type(value),
            _ => {}
        }
    }

    /// Adds the order that the unit has by its settings and by its kind. The latter is in the
    /// sections on dependencies of systemd.service(5), systemd.socket(5) and so on.
    fn put_into(&self, ordering: &mut Ordering, wanted: Option<&BTreeSet<String>>) {
        let name = self.name.as_str();
        let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));

        for first in &self.after {
            ordering.add(first, name);
        }
        for then in &self.before {
            ordering.add(name, then);
        }
        for path in &self.paths {
            for mount in mounts_of(Path::new(path)) {
                ordering.add(&mount, name);
            }
        }
        if ["socket", "timer", "path"].contains(&kind) {
            let started = self
                .starts
                .clone()
                .unwrap_or_else(|| format!("{stem}.service"));
            ordering.add(name, &started);
        }
        if self.on_bus {
            ordering.add("dbus.socket", name);
        }

        if self.no_defaults {
            ordering.early.insert(name.to_owned());
            return;
        }
        match kind {
            "service" => {
                for target in EARLY_TARGETS {
                    ordering.add(target, name);
                }
            }
            "socket" | "timer" | "path" => {
                ordering.add("sysinit.target", name);
                ordering.add(name, &format!("{kind}s.target"));
            }
            "target" => {
                for need in self.needs.iter().chain(wanted.into_iter().flatten()) {
                    ordering.add(need, name);
                }
            }
            "mount" if self.is_remote => {
                for target in [
                    "remote-fs-pre.target",
                    "network.target",
                    "network-online.target",
                ] {
                    ordering.add(target, name);
                }
            }
            "mount" => ordering.add("local-fs-pre.target", name),
            _ => {}
        }
    }
}

/// The types of network file systems, as in systemd's `fstype_is_network()`.
const NETWORK_TYPES: [&str; 20] = [
    "afs",
    "ceph",
    "cifs",
    "smb3",
    "smbfs",
    "sshfs",
    "ncpfs",
    "ncp",
    "nfs",
    "nfs4",
    "gfs",
    "gfs2",
    "glusterfs",
    "pvfs2",
    "ocfs2",
    "lustre",
    "davfs",
    "9p",
    "curlftpfs",
    "s3fs",
];

/// Whether mount(8) and systemd treat file systems of this type as network file systems.
pub fn is_network_type(kind: &str) -> bool {
    let kind = kind.strip_prefix("fuse.").unwrap_or(kind);
    NETWORK_TYPES.contains(&kind)
}

/// The mount units that may hold `path`: `srv.mount` and `srv-www.mount` for `/srv/www`.
pub fn mounts_of(path: &Path) -> Vec<String> {
    let below_slash = path.ancestors().filter(|above| above.parent().is_some());
    below_slash.filter_map(mount_unit).collect()
}

/// The unit of a mount point, as `systemd-escape --path --suffix=mount` gives it.
fn mount_unit(path: &Path) -> Option<String> {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let path = path.as_os_str().as_bytes();
    let mut name = String::new();
    for (at, byte) in path.strip_prefix(b"/")?.iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at > 0 => name.push('.'),
            byte if byte.is_ascii_alphanumeric() || b":_".contains(byte) => {
                name.push(char::from(*byte));
            }
            byte => write!(name, "\\x{byte:02x}").ok()?,
        }
    }
    Some(format!("{name}.mount"))
}

/// The section, key and value of each setting in a unit file. A line that ends in a backslash
/// continues on the next one.
fn directives(text: &str) -> Vec<(&str, &str, String)> {
    let (mut section, mut found) = ("", vec![]);
    let mut open: Option<(&str, String)> = None;
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
    {
        let (text, goes_on) = line
            .strip_suffix('\\')
            .map_or((line, false), |text| (text, true));
        if let Some((_, value)) = &mut open {
            value.push(' ');
            value.push_str(text);
        } else if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name;
        } else if let Some((key, value)) = text.split_once('=') {
            open = Some((key.trim_end(), value.trim_start().to_owned()));
        }
        if !goes_on && let Some((key, value)) = open.take() {
            found.push((section, key, value));
        }
    }
    found.extend(open.map(|(key, value)| (section, key, value)));
    found
}

/// The value for the unit `name`, with the specifiers expanded that occur in names of units.
fn specified(value: &str, name: &str) -> String {
    if !value.contains('%') {
        return value.to_owned();
    }
    let (stem, _) = name.rsplit_once('.').unwrap_or((name, ""));
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let specifiers = [
        ("%n", name),
        ("%N", stem),
        ("%p", prefix),
        ("%i", instance),
        ("%I", instance),
    ];
    specifiers
        .iter()
        .fold(value.to_owned(), |value, (specifier, text)| {
            value.replace(specifier, text)
        })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn ordering<const COUNT: usize>(files: [(&str, impl AsRef<[u8]>); COUNT]) -> Ordering {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.as_ref().strip_prefix(b"-> ") {
                Some(end) => std::os::unix::fs::symlink(OsStr::from_bytes(end), path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        Files::find([dir.path()].into_iter(), "# own").ordering(&["in@b.service".to_owned()])
    }

    #[test]
    fn units_are_ordered_by_their_files_drop_ins_and_kinds() {
        let ordering = ordering([
            (
                "a.service",
                "[Unit]\n# After=x\nAfter=b.service \\\n  c.service\n\
                 [Service]\nBefore=no.service\n",
            ),
            (
                "b.service",
                "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n",
            ),
            ("a.service.d/1.conf", "[Unit]\nBefore=d.service\n"),
            (
                "a.service.d/2.conf",
                "# own\n[Unit]\nAfter=mountjail.service\n",
            ),
            ("other.service", "-> a.service"),
            ("masked.service", "-> /dev/null"),
            ("in@.service", "[Unit]\nAfter=%i.service\n"),
            ("s.socket", "[Socket]\nListenStream=1\n"),
            ("t.target", "[Unit]\nWants=d.service\n"),
            ("t.target.wants/e.service", ""),
            ("d.service", "[Unit]\nRequiresMountsFor=/srv/a-b\n"),
            ("m.mount", "[Mount]\nWhat=x\nOptions=rw,_netdev\n"),
            ("n.mount", "[Mount]\nWhat=y\nOptions=rw\n"),
        ]);
        let way = |from, to| ordering.way(from, to).map(|way| way.join(" "));
        assert_eq!(
            way("c.service", "d.service").unwrap(),
            "c.service a.service d.service"
        );
        assert_eq!(
            way("b.service", "t.target").unwrap(),
            "b.service a.service d.service t.target"
        );
        assert_eq!(
            way("c.service", "other.service").unwrap(),
            "c.service a.service"
        );
        assert_eq!(
            way("sysinit.target", "masked.service").unwrap(),
            "sysinit.target masked.service"
        );
        assert_eq!(
            way("b.service", "in@b.service").unwrap(),
            "b.service in@b.service"
        );
        assert_eq!(
            way("s.socket", "sockets.target").unwrap(),
            "s.socket sockets.target"
        );
        assert_eq!(way("s.socket", "s.service").unwrap(), "s.socket s.service");
        assert_eq!(way("e.service", "t.target").unwrap(), "e.service t.target");
        assert_eq!(
            way("srv-a\\x2db.mount", "d.service").unwrap(),
            "srv-a\\x2db.mount d.service"
        );
        assert!(way("network.target", "m.mount").is_some());
        for (from, to) in [
            ("network.target", "n.mount"),
            ("a.service", "c.service"),
            ("mountjail.service", "a.service"),
            ("a.service", "no.service"),
        ] {
            assert_eq!(way(from, to), None, "{from} {to}");
        }
        assert!(ordering.is_early("b.service") && !ordering.is_early("a.service"));
    }

    #[test]
    fn a_unit_in_another_encoding_is_ordered() {
        let ordering = ordering([
            (
                "a.service",
                &b"[Unit]\nDescription=caf\xe9\nAfter=b.service\n"[..],
            ),
            (
                "a.service.d/1.conf",
                b"# d\xe9j\xe0 vu\n[Unit]\nBefore=c.service\n",
            ),
        ]);
        let way = ordering.way("b.service", "c.service").unwrap();
        assert_eq!(way, ["b.service", "a.service", "c.service"]);
    }

    #[test]
    fn what_would_make_a_cycle_is_not_ordered() {
        let mut ordering = ordering([("a.service", "[Unit]\nAfter=b.service\n")]);
        assert_eq!(
            ordering.order("a.service", "b.service").unwrap_err(),
            ["b.service", "a.service"]
        );
        assert_eq!(
            ordering.order("a.service", "a.service").unwrap_err(),
            ["a.service"]
        );
        ordering.order("a.service", "c.service").unwrap();
        assert_eq!(
            ordering.order("c.service", "b.service").unwrap_err(),
            ["b.service", "a.service", "c.service"]
        );
        assert_eq!(
            mounts_of(Path::new("/srv/.a/é")),
            ["srv-.a-\\xc3\\xa9.mount", "srv-.a.mount", "srv.mount"]
        );
    }
}
