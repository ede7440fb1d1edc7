//! The sections of jailkit's `jk_init.ini` → presets.
//!
//! jailkit copies what a section lists, and skips what the host lacks; so everything here is
//! optional.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::draft::{Draft, Item, Kind, Mount};
use super::ini;
use super::look::{What, is_object_name, look, objects_below, what};
use crate::base::SEARCH_PATH;
use crate::base::SiteName;
use crate::manifest::Presets;
use crate::{Error, Result};

/// Keys with paths: the second and those after it are older names of the first.
const PATHS: [&str; 5] = [
    "paths",
    "executables",
    "regularfiles",
    "libraries",
    "directories",
];

/// All keys that `jk_init` knows.
const KEYS: [&str; 15] = [
    "comment",
    "paths",
    "executables",
    "regularfiles",
    "libraries",
    "directories",
    "paths_w_owner",
    "paths_w_setuid",
    "includesections",
    "users",
    "groups",
    "devices",
    "emptydirs",
    "need_logsocket",
    "need_proc",
];

/// Where programs, libraries and modules are, so that what is missing there is likely one.
const CODE: [&str; 6] = [
    "/lib",
    "/lib64",
    "/opt",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
];

/// How many programs and libraries of a bound directory are named, for the libraries that they
/// need.
const OBJECTS: usize = 50;

/// One section of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    file: PathBuf,
    section: ini::Section,
}

/// Whether a line of a file that is not known yet is one that only jailkit has.
pub(super) fn looks_like(line: &str) -> bool {
    line.split_once(['=', ':'])
        .is_some_and(|(key, _)| KEYS.contains(&key.trim().to_lowercase().as_str()))
}

/// The sections of a file.
///
/// Errors: every line that is wrong, with file and line.
pub fn read(file: &Path, text: &[u8]) -> Result<Vec<Section>, Vec<Error>> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let nth = text[..error.valid_up_to()]
            .split(|byte| *byte == b'\n')
            .count();
        vec![Error::failed(format!(
            "{}:{nth}: it is not UTF-8",
            file.display()
        ))]
    })?;
    let sections = ini::read(file, text)?;
    Ok(sections
        .into_iter()
        .map(|section| Section {
            file: file.to_owned(),
            section,
        })
        .collect())
}

/// A preset for each section.
///
/// No name is one of `presets`' built-in ones: a file of that name would take its place. Errors:
/// two files have a section of the same name.
pub fn drafts(sections: &[Section], presets: &Presets) -> Result<Vec<Draft>, Vec<Error>> {
    let names = names(sections, presets)?;
    Ok(sections
        .iter()
        .map(|section| section.draft(&names))
        .collect())
}

/// The name of the preset for each section.
fn names(sections: &[Section], presets: &Presets) -> Result<BTreeMap<String, String>, Vec<Error>> {
    let mut errors = vec![];
    let mut all: BTreeMap<&str, &Section> = BTreeMap::new();
    for section in sections {
        if let Some(first) = all.insert(section.name(), section) {
            errors.push(
                Error::failed(format!(
                    "{}: the section [{}] is in {} already",
                    section.place(section.section.line),
                    section.name(),
                    first.place(first.section.line)
                ))
                .hint("import one of the two, or give it another name"),
            );
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let built_in = |name: &str| presets.is_built_in(name);
    let usable = |name: &str| SiteName::new(name).is_ok() && !built_in(name);
    let mut taken: BTreeSet<String> = all
        .keys()
        .filter(|name| usable(name))
        .map(|name| (*name).to_owned())
        .collect();
    let mut names = BTreeMap::new();
    for name in all.keys() {
        let own = if usable(name) {
            (*name).to_owned()
        } else {
            let word: String = name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
                .collect();
            let first = format!("jk-{word}");
            let more = (2..=all.len() + 2).map(|nth| format!("{first}-{nth}"));
            let free = |name: &String| !built_in(name) && !taken.contains(name);
            [first.clone()]
                .into_iter()
                .chain(more)
                .find(free)
                .unwrap_or(first)
        };
        taken.insert(own.clone());
        names.insert((*name).to_owned(), own);
    }
    Ok(names)
}

impl Section {
    fn name(&self) -> &str {
        &self.section.name
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.file.display())
    }

    /// The items of a list, each with the place of its key.
    fn list(&self, key: &str) -> Vec<&str> {
        let text = self
            .section
            .get(key)
            .map(|value| value.text.as_str())
            .unwrap_or_default();
        text.split([',', '\n'])
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect()
    }

    fn is_set(&self, key: &str) -> bool {
        let off = ["", "0", "no", "off", "false"];
        self.section
            .get(key)
            .is_some_and(|value| !off.contains(&value.text.to_lowercase().as_str()))
    }

    fn draft(&self, names: &BTreeMap<String, String>) -> Draft {
        let comment = self
            .section
            .get("comment")
            .map(|value| value.text.replace('\n', " "));
        let comment = comment.filter(|comment| !comment.is_empty());
        let description =
            comment.unwrap_or_else(|| format!("what jailkit's section [{}] lists", self.name()));
        let mut draft = Draft::new(names[self.name()].clone(), Kind::Preset(description));
        draft.found.push(format!(
            "The section [{}] of {}. What a host lacks is skipped.",
            self.name(),
            self.place(self.section.line)
        ));
        draft.place = self.place(self.section.line);
        draft.renamed = self.renamed(&draft.name);
        draft.remarks.extend(draft.renamed.clone());
        self.includes(&mut draft, names);
        for key in PATHS {
            self.list(key)
                .into_iter()
                .for_each(|path| add_path(&mut draft, path));
        }
        self.owned_and_setuid(&mut draft);
        self.devices(&mut draft);
        self.accounts(&mut draft);
        self.unsayable(&mut draft);
        draft.remarks.dedup();
        draft
    }

    fn renamed(&self, name: &str) -> Option<String> {
        let because = match SiteName::new(self.name()) {
            Ok(_) => "a built-in preset is called so",
            Err(_) => "that is no name of a preset's file",
        };
        let renamed = format!(
            "[{}] becomes the preset {name}, because {because}",
            self.name()
        );
        (name != self.name()).then_some(renamed)
    }

    fn remark(&self, draft: &mut Draft, key: &str, text: &str) {
        let line = self
            .section
            .get(key)
            .map_or(self.section.line, |value| value.line);
        draft
            .remarks
            .push(format!("{}: `{key}`: {text}", self.place(line)));
    }

    fn includes(&self, draft: &mut Draft, names: &BTreeMap<String, String>) {
        for name in self.list("includesections") {
            match names.get(name) {
                Some(own) if !draft.presets.contains(own) => draft.presets.push(own.clone()),
                Some(_) => {}
                None => {
                    let text = format!("there is no section [{name}]; left out");
                    self.remark(draft, "includesections", &text);
                }
            }
        }
        if self.is_set("need_logsocket") {
            draft.presets.push("syslog".to_owned());
        }
    }

    fn owned_and_setuid(&self, draft: &mut Draft) {
        let owned = self.list("paths_w_owner");
        for path in &owned {
            add_path(draft, path);
        }
        if !owned.is_empty() {
            let text = format!(
                "{}: owner and mode are the host's, as it is the host's file; if the site has to write to it, \
                 name it in the site's `mounts` with `access: read-write`",
                owned.join(", ")
            );
            self.remark(draft, "paths_w_owner", &text);
        }
        let setuid = self.list("paths_w_setuid");
        for path in &setuid {
            for program in found(path) {
                let program = program.to_string_lossy();
                // As a program, for the libraries that it needs.
                push(&mut draft.programs, &program);
                let mount = Mount {
                    optional: true,
                    executable: true,
                    setuid: true,
                    ..Mount::new(program)
                };
                push_mount(draft, mount);
            }
        }
        if !setuid.is_empty() {
            let text = format!(
                "{}: setuid bits count in the jail, as jailkit had it",
                setuid.join(", ")
            );
            self.remark(draft, "paths_w_setuid", &text);
        }
    }

    fn devices(&self, draft: &mut Draft) {
        for path in self.list("devices") {
            if let Some(name) = path.strip_prefix("/dev/") {
                push(&mut draft.devices, name);
            } else {
                push_mount(
                    draft,
                    Mount {
                        optional: true,
                        devices: true,
                        ..Mount::new(path)
                    },
                );
            }
        }
    }

    fn accounts(&self, draft: &mut Draft) {
        let users = self.list("users");
        for user in &users {
            push(&mut draft.users, user);
        }
        if !users.is_empty() {
            draft.nss = vec!["passwd".to_owned(), "group".to_owned()];
            // They are made of `users`.
            draft
                .etc
                .retain(|item| !["passwd", "group"].contains(&item.any_of[0].as_str()));
        }
        let groups: Vec<_> = self
            .list("groups")
            .into_iter()
            .filter(|group| !users.contains(group))
            .collect();
        if !groups.is_empty() {
            let text = format!(
                "{}: no manifest can name groups; the groups of `users`, and root's, are there anyway",
                groups.join(", ")
            );
            self.remark(draft, "groups", &text);
        }
    }

    /// Says what no manifest can say.
    fn unsayable(&self, draft: &mut Draft) {
        let empty = self.list("emptydirs");
        if !empty.is_empty() {
            let text = format!(
                "{}: no manifest makes directories; make them in the site's root",
                empty.join(", ")
            );
            self.remark(draft, "emptydirs", &text);
        }
        if self.is_set("need_proc") {
            let text = "no manifest mounts a file system; a line in fstab can: proc ROOT/proc proc nosuid,nodev,noexec";
            self.remark(draft, "need_proc", text);
        }
        for value in self
            .section
            .values
            .iter()
            .filter(|value| !KEYS.contains(&value.key.as_str()))
        {
            self.remark(draft, &value.key, "jailkit has no such key; left out");
        }
    }
}

/// Puts a path, a pattern or a program's name under the key for what it is.
fn add_path(draft: &mut Draft, text: &str) {
    if !text.starts_with('/') {
        return add_program(draft, text);
    }
    let paths = found(text);
    let kinds: BTreeSet<_> = paths.iter().map(|path| Class::of(path)).collect();
    match kinds.first() {
        // A pattern stays one, where it stands for things of one class.
        Some(class) if kinds.len() == 1 && *class != Class::Directory => class.add(draft, text),
        _ => paths
            .iter()
            .for_each(|path| Class::of(path).add(draft, &path.to_string_lossy())),
    }
}

/// What `text` stands for on this host; itself, if that is nothing.
fn found(text: &str) -> Vec<PathBuf> {
    let paths: Vec<_> = glob::glob(text).into_iter().flatten().flatten().collect();
    if paths.is_empty() || Path::new(text).exists() {
        vec![text.into()]
    } else {
        paths
    }
}

/// A program that is looked up in `PATH`: where this host has it, else wherever a host has it.
fn add_program(draft: &mut Draft, name: &str) {
    let places = SEARCH_PATH.map(|directory| format!("{directory}/{name}"));
    match places.iter().find(|place| Path::new(place).exists()) {
        Some(place) => add_path(draft, place),
        None => draft.programs.push(Item {
            any_of: places.to_vec(),
            optional: true,
        }),
    }
}

/// Under which key a path belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Program,
    Library,
    Etc,
    Device,
    Directory,
    Executable,
    Data,
}

impl Class {
    /// By what it is, or, where this host lacks it, by its name.
    fn of(path: &Path) -> Self {
        let programs = ["bin", "sbin", "libexec"].map(Some);
        let place = path
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        let etc = path.starts_with("/etc");
        match what(path) {
            What::Program => Self::Program,
            What::Library => Self::Library,
            What::Device if path.starts_with("/dev") => Self::Device,
            What::Missing if is_object_name(path) => Self::Library,
            What::Missing if programs.contains(&place) => Self::Program,
            What::File | What::Missing if etc => Self::Etc,
            What::Missing if CODE.iter().any(|directory| path.starts_with(directory)) => {
                Self::Executable
            }
            What::Directory if etc && !look(path).code => Self::Etc,
            What::Directory => Self::Directory,
            What::File | What::Device if look(path).code => Self::Executable,
            _ => Self::Data,
        }
    }

    fn add(self, draft: &mut Draft, text: &str) {
        let is_pattern = text.contains(['*', '?', '[']);
        match self {
            Self::Program => push(&mut draft.programs, text),
            Self::Library => push(&mut draft.libraries, text),
            Self::Device => push(&mut draft.devices, text.trim_start_matches("/dev/")),
            Self::Etc if !is_pattern && text.len() > "/etc/".len() => {
                push(&mut draft.etc, &text["/etc/".len()..]);
            }
            Self::Directory => directory(draft, text),
            Self::Executable => {
                push_mount(
                    draft,
                    Mount {
                        optional: true,
                        executable: true,
                        ..Mount::new(text)
                    },
                );
            }
            Self::Etc | Self::Data => push_mount(
                draft,
                Mount {
                    optional: true,
                    ..Mount::new(text)
                },
            ),
        }
    }
}

/// A directory, with the libraries that programs in it need.
fn directory(draft: &mut Draft, text: &str) {
    let look = look(Path::new(text));
    push_mount(
        draft,
        Mount {
            optional: true,
            executable: look.code,
            ..Mount::new(text)
        },
    );
    match objects_below(Path::new(text), OBJECTS) {
        Some(objects) => {
            for object in objects {
                push(&mut draft.libraries, &object.to_string_lossy());
            }
        }
        None => draft.remarks.push(format!(
            "{text} has more than {OBJECTS} programs and libraries: name those that need libraries of elsewhere under \
             `libraries`."
        )),
    }
}

fn push(items: &mut Vec<Item>, name: &str) {
    let item = Item::optional(name);
    if !items.contains(&item) {
        items.push(item);
    }
}

fn push_mount(draft: &mut Draft, mount: Mount) {
    if !draft.mounts.contains(&mount) {
        draft.mounts.push(mount);
    }
}
