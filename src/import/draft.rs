//! A manifest or preset that is being put together, and its text.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::base::HostPath;
use crate::base::quote::printable;
use crate::manifest::{Pattern, yaml_scalar};

/// How wide a list on one line may be.
const WIDTH: usize = 100;

/// A site or a preset, as its manifest will have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    /// Not yet checked.
    pub name: String,
    pub kind: DraftKind,
    /// `FILE:LINE` of what it is made of, or of the first line of that.
    pub place: String,
    /// Why its name is not the one that it has there.
    pub renamed: Option<String>,
    pub presets: Vec<String>,
    /// Names below `/dev`.
    pub devices: Vec<DraftItem>,
    /// Names below `/etc`.
    pub etc: Vec<DraftItem>,
    pub programs: Vec<DraftItem>,
    pub libraries: Vec<DraftItem>,
    pub users: Vec<DraftItem>,
    pub nss: Vec<String>,
    pub mounts: Vec<DraftMount>,
    pub directories: Vec<DraftDirectory>,
    pub tmpfs: Vec<DraftTmpfs>,
    pub proc: bool,
    pub services: BTreeSet<String>,
    /// Its mounts exist for its services alone.
    pub for_services: bool,
    /// Its origins: sentences.
    pub found: Vec<String>,
    /// Warnings for the administrator: sentences.
    pub remarks: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DraftKind {
    /// A site, with its root.
    Site(HostPath),
    /// A preset, with its description.
    Preset(String),
}

/// An item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DraftItem {
    /// Alternatives; mostly one.
    pub any_of: Vec<String>,
    /// A host may lack it.
    pub optional: bool,
}

/// An item of `mounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // the manifest's own keys
pub(crate) struct DraftMount {
    /// A path or a pattern.
    pub source: String,
    /// The path inside, if it is not the same.
    pub target: Option<String>,
    /// `access: read-write`
    pub writable: bool,
    pub recursive: bool,
    pub optional: bool,
    pub executable: bool,
    pub devices: bool,
    pub setuid: bool,
    /// No character of the source stands for others.
    pub literal: bool,
}

/// An item of `directories`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DraftDirectory {
    /// The path inside.
    pub path: String,
    /// The mode, in octal digits.
    pub mode: String,
}

impl DraftDirectory {
    fn to_yaml(&self) -> String {
        let path = yaml_scalar(&self.path);
        format!("{{ path: {path}, mode: \"{}\" }}", self.mode)
    }
}

/// An item of `tmpfs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DraftTmpfs {
    /// The mount point inside.
    pub target: String,
    /// As tmpfs(5) takes it.
    pub size: Option<String>,
    /// The mode, in octal digits.
    pub mode: Option<String>,
}

impl DraftTmpfs {
    fn to_yaml(&self) -> String {
        let target = yaml_scalar(&self.target);
        let mut keys = String::new();
        for (key, value) in [("size", &self.size), ("mode", &self.mode)] {
            if let Some(value) = value {
                let _ = write!(keys, ", {key}: \"{value}\"");
            }
        }
        if keys.is_empty() {
            target
        } else {
            format!("{{ target: {target}{keys} }}")
        }
    }
}

impl DraftItem {
    /// An item that the host must have.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            any_of: vec![name.into()],
            optional: false,
        }
    }

    /// An item that a host may lack.
    pub(crate) fn optional(name: impl Into<String>) -> Self {
        Self {
            optional: true,
            ..Self::new(name)
        }
    }

    /// `key`: the manifest's key for the name, if the item is written as a mapping.
    fn to_yaml(&self, key: &str) -> String {
        let name = match self.any_of.as_slice() {
            [name] if !self.optional => return yaml_scalar(name),
            [name] => format!("{key}: {}", yaml_scalar(name)),
            names => {
                let names: Vec<_> = names.iter().map(|name| yaml_scalar(name)).collect();
                format!("any_of: [{}]", names.join(", "))
            }
        };
        let optional = if self.optional {
            ", optional: true"
        } else {
            ""
        };
        format!("{{ {name}{optional} }}")
    }
}

impl DraftMount {
    /// `source` at the same path, read-only.
    pub(crate) fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            ..Self::default()
        }
    }

    /// The file or directory `source`, in whose name no character stands for others.
    pub(crate) fn of_path(source: impl Into<String>) -> Self {
        let source = source.into();
        let literal = HostPath::new(&source).is_ok_and(|path| Pattern::new(path).is_glob());
        Self {
            literal,
            ..Self::new(source)
        }
    }

    fn to_yaml(&self) -> String {
        let source = yaml_scalar(&self.source);
        let mut keys = String::new();
        if let Some(target) = &self.target {
            keys = format!(", target: {}", yaml_scalar(target));
        }
        for (is_set, key) in [
            (self.writable, ", access: read-write"),
            (self.recursive, ", recursive: true"),
            (self.executable, ", executable: true"),
            (self.devices, ", devices: true"),
            (self.setuid, ", setuid: true"),
            (self.optional, ", optional: true"),
            (self.literal, ", literal: true"),
        ] {
            if is_set {
                keys.push_str(key);
            }
        }

        if keys.is_empty() {
            source
        } else {
            format!("{{ source: {source}{keys} }}")
        }
    }
}

impl Draft {
    /// A draft that asks for nothing.
    pub(crate) fn new(name: impl Into<String>, kind: DraftKind) -> Self {
        Self {
            name: name.into(),
            kind,
            place: String::new(),
            renamed: None,
            presets: vec![],
            devices: vec![],
            etc: vec![],
            programs: vec![],
            libraries: vec![],
            users: vec![],
            nss: vec![],
            mounts: vec![],
            directories: vec![],
            tmpfs: vec![],
            proc: false,
            services: BTreeSet::new(),
            for_services: false,
            found: vec![],
            remarks: vec![],
        }
    }

    /// The root, if it is a site.
    pub(crate) fn root(&self) -> Option<&HostPath> {
        match &self.kind {
            DraftKind::Site(root) => Some(root),
            DraftKind::Preset(_) => None,
        }
    }

    /// Adds what another draft of the same root asks for.
    pub(crate) fn merge(&mut self, other: Self) {
        add_new(&mut self.presets, other.presets);
        add_new(&mut self.devices, other.devices);
        add_new(&mut self.etc, other.etc);
        add_new(&mut self.programs, other.programs);
        add_new(&mut self.libraries, other.libraries);
        add_new(&mut self.users, other.users);
        add_new(&mut self.nss, other.nss);
        add_new(&mut self.mounts, other.mounts);
        add_new(&mut self.directories, other.directories);
        add_new(&mut self.tmpfs, other.tmpfs);
        self.proc |= other.proc;
        add_new(&mut self.found, other.found);
        add_new(&mut self.remarks, other.remarks);
        self.services.extend(other.services);
    }

    /// The manifest's text.
    pub(crate) fn to_yaml(&self) -> String {
        let mut text = String::new();
        for remark in self.found.iter().chain(&self.remarks) {
            let _ = writeln!(text, "# {}", printable(remark));
        }
        let _ = match &self.kind {
            DraftKind::Site(root) => writeln!(text, "root: {}", yaml_scalar(&root.to_string())),
            DraftKind::Preset(description) => {
                writeln!(text, "description: {}", yaml_scalar(description))
            }
        };

        if self.for_services {
            text.push_str("scope: services\n");
        }
        let mut list = |key, items: Vec<String>| text.push_str(&list_of(key, &items));
        list("presets", scalars(&self.presets));
        list("devices", items("name", &self.devices));
        list("etc", items("name", &self.etc));
        list("programs", items("path", &self.programs));
        list("libraries", items("path", &self.libraries));
        list("users", items("name", &self.users));
        list("nss", scalars(&self.nss));
        list(
            "mounts",
            self.mounts.iter().map(DraftMount::to_yaml).collect(),
        );
        list(
            "directories",
            self.directories
                .iter()
                .map(DraftDirectory::to_yaml)
                .collect(),
        );
        list(
            "tmpfs",
            self.tmpfs.iter().map(DraftTmpfs::to_yaml).collect(),
        );
        if self.proc {
            text.push_str("proc: true\n");
        }
        text.push_str(&list_of("services", &scalars(&self.services)));
        text
    }
}

fn scalars<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    names.into_iter().map(|name| yaml_scalar(name)).collect()
}

fn items(key: &str, items: &[DraftItem]) -> Vec<String> {
    items.iter().map(|item| item.to_yaml(key)).collect()
}

/// A list of the manifest: short and simple items on one line, others on a line each.
fn list_of(key: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let line = format!("{key}: [{}]\n", items.join(", "));
    let is_simple = key != "mounts" && items.iter().all(|item| !item.starts_with('{'));
    if is_simple && line.len() <= WIDTH {
        return line;
    }
    format!("{key}:\n  - {}\n", items.join("\n  - "))
}

/// Whether `value` is a mode of chmod(1) in octal digits.
pub(super) fn is_mode(value: &str) -> bool {
    (1..=4).contains(&value.len()) && value.bytes().all(|byte| (b'0'..=b'7').contains(&byte))
}

/// Adds those of `more` that are not known: a pool may be named by its own file and by
/// php-fpm.conf, and a line by several files.
pub(super) fn add_new<T: PartialEq>(known: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    for one in more {
        if !known.contains(&one) {
            known.push(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SiteName;
    use crate::manifest::{Presets, Request, SourceFile, parse};

    fn read(draft: &Draft) -> crate::manifest::Manifest {
        let text = draft.to_yaml();
        let site = SiteName::new("s").unwrap();
        parse(
            site,
            SourceFile::File("s.yaml".into()),
            &text,
            &Presets::built_in(),
        )
        .unwrap_or_else(|wrong| panic!("{text}\n{}", wrong.render(false)))
    }

    fn site(root: &str) -> Draft {
        Draft::new("s", DraftKind::Site(HostPath::new(root).unwrap()))
    }

    #[test]
    fn the_text_is_a_manifest_whatever_the_names_are() {
        for name in ["www-data", "no", "null", "0x10", "host$", "a.b"] {
            let draft = Draft {
                presets: vec!["php-fpm".into()],
                users: vec![DraftItem::new(name)],
                services: ["php8.2-fpm.service".to_owned()].into(),
                for_services: true,
                remarks: vec!["found\nroot: /in/a/remark".into()],
                ..site("/srv/a b: #c")
            };
            let manifest = read(&draft);
            assert_eq!(
                (Some(&manifest.root), manifest.services.len()),
                (draft.root(), 1)
            );
            assert_eq!(manifest.scope, crate::manifest::Scope::Services);
        }
    }

    #[test]
    fn every_key_says_what_it_should() {
        let mut mount = DraftMount::new("/srv/a, b");
        mount.target = Some("/{in}".into());
        (mount.writable, mount.recursive, mount.optional) = (true, true, true);
        (mount.executable, mount.devices, mount.setuid) = (true, true, true);
        let several = DraftItem {
            any_of: vec!["/usr/bin/x".into(), "/bin/[".into()],
            optional: true,
        };
        let draft = Draft {
            devices: vec![DraftItem::new("null"), DraftItem::optional("log")],
            programs: vec![several],
            mounts: vec![mount, DraftMount::new("/usr/share/x*")],
            ..site("/srv/a")
        };
        let entries = read(&draft).entries;
        let Request::Program(program) = &entries[2].request else {
            panic!("{entries:?}")
        };
        assert_eq!((program.any_of.len(), program.optional), (2, true));
        let Request::Mount(mount) = &entries[3].request else {
            panic!("{entries:?}")
        };
        assert_eq!(mount.target.as_ref().unwrap().to_string(), "/{in}");
        assert!(mount.recursive && mount.sources.optional && mount.setuid == Some(true));
        assert_eq!((mount.executable, mount.devices), (Some(true), Some(true)));
        assert!(matches!(mount.access, crate::manifest::Access::ReadWrite));
    }
}
