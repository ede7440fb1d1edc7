//! A manifest or preset while it is put together, and its text.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::base::HostPath;
use crate::base::quote::printable;

/// How wide a list in one line may be.
const WIDTH: usize = 100;

/// A site or a preset that was found, as a manifest says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// A name for it, not yet checked.
    pub name: String,
    /// Which of the two it is.
    pub kind: DraftKind,
    /// `FILE:LINE` of what it is made of, or of the first of it.
    pub place: String,
    /// Why it is not called as there.
    pub renamed: Option<String>,
    /// Presets that it needs.
    pub presets: Vec<String>,
    /// Names under `/dev`.
    pub devices: Vec<DraftItem>,
    /// Names under `/etc`.
    pub etc: Vec<DraftItem>,
    /// Executables.
    pub programs: Vec<DraftItem>,
    /// Objects opened at run time.
    pub libraries: Vec<DraftItem>,
    /// Logins that run inside.
    pub users: Vec<DraftItem>,
    /// Databases of nsswitch.conf(5).
    pub nss: Vec<String>,
    /// Everything else.
    pub mounts: Vec<DraftMount>,
    /// Units that run inside.
    pub services: BTreeSet<String>,
    /// What it is made of: sentences.
    pub found: Vec<String>,
    /// What the administrator should look at: sentences.
    pub remarks: Vec<String>,
}

/// What a draft is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftKind {
    /// A site, with the jail's directory.
    Site(HostPath),
    /// A preset, with its description.
    Preset(String),
}

/// One item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftItem {
    /// Alternatives; mostly one.
    pub any_of: Vec<String>,
    /// A host may lack it.
    pub optional: bool,
}

/// One item of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // the manifest's own keys
pub struct DraftMount {
    /// A path, or a pattern.
    pub source: String,
    /// Where inside, if not at the same path.
    pub target: Option<String>,
    /// `access: read-write`.
    pub writable: bool,
    /// Submounts come along.
    pub recursive: bool,
    /// A host may lack it.
    pub optional: bool,
    /// Files in it may be executed.
    pub executable: bool,
    /// Device nodes in it work.
    pub devices: bool,
    /// Setuid bits in it count.
    pub setuid: bool,
}

impl DraftItem {
    /// One that has to be there.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            any_of: vec![name.into()],
            optional: false,
        }
    }

    /// One that a host may lack.
    pub fn optional(name: impl Into<String>) -> Self {
        Self {
            optional: true,
            ..Self::new(name)
        }
    }

    fn to_yaml(&self, key: &str) -> String {
        let (name, alternatives) = match self.any_of.as_slice() {
            [one] if !self.optional => return scalar(one),
            [one] => (format!("{key}: {}", scalar(one)), None),
            several => (String::new(), Some(several)),
        };
        let any_of = alternatives.map(|names| {
            format!(
                "any_of: [{}]",
                names
                    .iter()
                    .map(|name| scalar(name))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        });
        let optional = if self.optional {
            ", optional: true"
        } else {
            ""
        };
        format!("{{ {name}{}{optional} }}", any_of.unwrap_or_default())
    }
}

impl DraftMount {
    /// `source` at the same path, read-only.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            target: None,
            writable: false,
            recursive: false,
            optional: false,
            executable: false,
            devices: false,
            setuid: false,
        }
    }

    fn to_yaml(&self) -> String {
        let mut keys = vec![];
        keys.extend(
            self.target
                .as_ref()
                .map(|target| format!("target: {}", scalar(target))),
        );
        let flags = [
            (self.writable, "access: read-write"),
            (self.recursive, "recursive: true"),
            (self.executable, "executable: true"),
            (self.devices, "devices: true"),
            (self.setuid, "setuid: true"),
            (self.optional, "optional: true"),
        ];
        keys.extend(
            flags
                .into_iter()
                .filter(|(set, _)| *set)
                .map(|(_, key)| key.to_owned()),
        );
        if keys.is_empty() {
            return scalar(&self.source);
        }
        format!(
            "{{ source: {}, {} }}",
            scalar(&self.source),
            keys.join(", ")
        )
    }
}

impl Draft {
    /// One that asks for nothing yet.
    pub fn new(name: impl Into<String>, kind: DraftKind) -> Self {
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
            services: BTreeSet::new(),
            found: vec![],
            remarks: vec![],
        }
    }

    /// The jail's directory, if it is a site.
    pub fn root(&self) -> Option<&HostPath> {
        match &self.kind {
            DraftKind::Site(root) => Some(root),
            DraftKind::Preset(_) => None,
        }
    }

    /// Adds what another draft of the same root asks for.
    pub fn merge(&mut self, other: &Self) {
        fn add<T: PartialEq + Clone>(known: &mut Vec<T>, more: &[T]) {
            for one in more {
                if !known.contains(one) {
                    known.push(one.clone());
                }
            }
        }
        add(&mut self.presets, &other.presets);
        add(&mut self.devices, &other.devices);
        add(&mut self.etc, &other.etc);
        add(&mut self.programs, &other.programs);
        add(&mut self.libraries, &other.libraries);
        add(&mut self.users, &other.users);
        add(&mut self.nss, &other.nss);
        add(&mut self.mounts, &other.mounts);
        add(&mut self.found, &other.found);
        add(&mut self.remarks, &other.remarks);
        self.services.extend(other.services.iter().cloned());
    }

    /// The manifest's text.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        for remark in self.found.iter().chain(&self.remarks) {
            let _ = writeln!(text, "# {}", printable(remark));
        }
        let _ = match &self.kind {
            DraftKind::Site(root) => writeln!(text, "root: {}", scalar(&root.to_string())),
            DraftKind::Preset(description) => {
                writeln!(text, "description: {}", scalar(description))
            }
        };
        let plain =
            |names: &mut dyn Iterator<Item = &String>| names.map(|name| scalar(name)).collect();
        let items = |items: &[DraftItem], key| items.iter().map(|item| item.to_yaml(key)).collect();
        let lists: [(&str, Vec<String>); 9] = [
            ("presets", plain(&mut self.presets.iter())),
            ("devices", items(&self.devices, "name")),
            ("etc", items(&self.etc, "name")),
            ("programs", items(&self.programs, "path")),
            ("libraries", items(&self.libraries, "path")),
            ("users", items(&self.users, "name")),
            ("nss", plain(&mut self.nss.iter())),
            (
                "mounts",
                self.mounts.iter().map(DraftMount::to_yaml).collect(),
            ),
            ("services", plain(&mut self.services.iter())),
        ];
        for (key, items) in lists.into_iter().filter(|(_, items)| !items.is_empty()) {
            text.push_str(&list(key, &items));
        }
        text
    }
}

/// Short and simple items in one line, others one a line.
fn list(key: &str, items: &[String]) -> String {
    let line = format!("{key}: [{}]\n", items.join(", "));
    if line.len() <= WIDTH && items.iter().all(|item| !item.starts_with('{')) && key != "mounts" {
        return line;
    }
    let lines = items.iter().map(|item| format!("  - {item}\n"));
    [format!("{key}:\n")].into_iter().chain(lines).collect()
}

/// A YAML scalar: as it is where it is surely read as that text, else quoted as JSON, which YAML
/// reads as well.
pub(crate) fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-@".contains(c))
        && !["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
            .contains(&&*text.to_lowercase());
    if plain {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
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
                remarks: vec!["found\nroot: /in/a/remark".into()],
                ..site("/srv/a b: #c")
            };
            let manifest = read(&draft);
            assert_eq!(
                (Some(&manifest.root), manifest.services.len()),
                (draft.root(), 1)
            );
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
