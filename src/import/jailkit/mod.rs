//! The sections of jailkit's `jk_init.ini` → presets.
//!
//! jailkit copies the files that a section lists, and skips those that the host lacks. So
//! everything here is optional.

mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::paths::{add_path, found, push, push_mount};
use super::circles::{Inclusion, circular};
use super::draft::{Draft, DraftDirectory, DraftKind, DraftMount};
use super::ini;
use crate::Error;
use crate::base::{JailPath, SiteName};
use crate::manifest::Presets;

/// Keys with paths. All but the first are its older names.
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JailkitSection {
    file: PathBuf,
    section: ini::IniSection,
}

/// Whether a line, of a file of unknown format, is one that only jailkit has.
pub(super) fn looks_like(line: &str) -> bool {
    match line.split_once(['=', ':']) {
        Some((key, _)) => KEYS.contains(&key.trim().to_lowercase().as_str()),
        None => false,
    }
}

/// The sections of a file that have no mistakes, and the mistakes, with file and line.
pub(crate) fn read(file: &Path, text: &[u8]) -> (Vec<JailkitSection>, Vec<Error>) {
    let ini = ini::read(file, text, &KEYS);
    let mut sections = vec![];
    for section in ini.sections {
        let file = file.to_owned();
        sections.push(JailkitSection { file, section });
    }
    (sections, ini.errors)
}

/// A preset for each section. Of two files with a section of the same name the first one counts,
/// and the other one is an error.
///
/// No preset gets the name of a built-in one of `presets`, which it would replace.
pub(crate) fn drafts(sections: &[JailkitSection], presets: &Presets) -> (Vec<Draft>, Vec<Error>) {
    let (sections, errors) = first_of_each_name(sections);
    let names = preset_names(&sections, presets);
    let mut inclusions = vec![];
    for section in &sections {
        for included in section.list("includesections") {
            inclusions.push((section.name(), included));
        }
    }
    let circular = circular(&inclusions);
    let mut drafts = vec![];
    for section in &sections {
        drafts.push(section.draft(&names, &circular));
    }
    (drafts, errors)
}

fn first_of_each_name(sections: &[JailkitSection]) -> (Vec<&JailkitSection>, Vec<Error>) {
    let mut firsts: Vec<&JailkitSection> = vec![];
    let mut errors = vec![];
    for section in sections {
        let name = section.name();
        let Some(first) = firsts.iter().find(|first| first.name() == name) else {
            firsts.push(section);
            continue;
        };
        let (place, first) = (section.own_place(), first.own_place());
        let why = format!("{place}: the section [{name}] is already in {first}");
        errors.push(Error::failed(why).hint("import one of the two, or rename its section"));
    }
    (firsts, errors)
}

/// The name of the preset for each section.
fn preset_names(sections: &[&JailkitSection], presets: &Presets) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let mut others = BTreeSet::new();
    for name in sections.iter().map(|section| section.name()) {
        if SiteName::new(name).is_ok() && !presets.is_built_in(name) {
            names.insert(name.to_owned(), name.to_owned());
            taken.insert(name.to_owned());
        } else {
            others.insert(name);
        }
    }
    for name in others {
        let base = format!(
            "jk-{}",
            name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        );
        let mut new = base.clone();
        let mut number = 2;
        while presets.is_built_in(&new) || taken.contains(&new) {
            new = format!("{base}-{number}");
            number += 1;
        }
        taken.insert(new.clone());
        names.insert(name.to_owned(), new);
    }
    names
}

impl JailkitSection {
    fn name(&self) -> &str {
        &self.section.name
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.file.display())
    }

    fn own_place(&self) -> String {
        self.place(self.section.line)
    }

    /// The items of a list.
    fn list(&self, key: &str) -> Vec<&str> {
        let Some(value) = self.section.get(key) else {
            return vec![];
        };
        let items = value.text.split([',', '\n']).map(str::trim);
        items.filter(|item| !item.is_empty()).collect()
    }

    fn is_set(&self, key: &str) -> bool {
        let off = ["", "0", "no", "off", "false"];
        match self.section.get(key) {
            Some(value) => !off.contains(&value.text.to_lowercase().as_str()),
            None => false,
        }
    }

    fn draft(&self, names: &BTreeMap<String, String>, circular: &BTreeSet<Inclusion<'_>>) -> Draft {
        let mut draft = Draft::new(
            names[self.name()].clone(),
            DraftKind::Preset(self.description()),
        );
        draft.found.push(format!(
            "The section [{}] of {}. Files that a host lacks are skipped.",
            self.name(),
            self.own_place()
        ));
        draft.place = self.own_place();
        draft.renamed = self.renamed(&draft.name);
        draft.remarks.extend(draft.renamed.clone());

        self.includes(&mut draft, names, circular);
        for key in PATHS {
            for path in self.list(key) {
                add_path(&mut draft, path);
            }
        }
        self.owned_paths(&mut draft);
        self.setuid_paths(&mut draft);
        self.devices(&mut draft);
        self.accounts(&mut draft);
        self.remark_the_rest(&mut draft);
        draft.remarks.dedup();
        draft
    }

    fn description(&self) -> String {
        match self.section.get("comment") {
            Some(comment) if !comment.text.is_empty() => comment.text.replace('\n', " "),
            _ => format!("files of jailkit's section [{}]", self.name()),
        }
    }

    /// Why the preset has another name than the section.
    fn renamed(&self, name: &str) -> Option<String> {
        if name == self.name() {
            return None;
        }
        let because = match SiteName::new(self.name()) {
            Ok(_) => "a built-in preset has that name",
            Err(_) => "a preset's file cannot have that name",
        };
        let section = self.name();
        Some(format!(
            "[{section}] becomes the preset {name}, because {because}"
        ))
    }

    /// Adds a remark about a key.
    fn remark(&self, draft: &mut Draft, key: &str, text: &str) {
        let line = match self.section.get(key) {
            Some(value) => value.line,
            None => self.section.line,
        };
        let place = self.place(line);
        draft.remarks.push(format!("{place}: `{key}`: {text}"));
    }

    fn includes(
        &self,
        draft: &mut Draft,
        names: &BTreeMap<String, String>,
        circular: &BTreeSet<Inclusion<'_>>,
    ) {
        for name in self.list("includesections") {
            if circular.contains(&(self.name(), name)) {
                let text = format!("[{name}] includes this section, in a circle; left out");
                self.remark(draft, "includesections", &text);
                continue;
            }
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

    fn owned_paths(&self, draft: &mut Draft) {
        let owned = self.list("paths_w_owner");
        for path in &owned {
            add_path(draft, path);
        }
        if !owned.is_empty() {
            let text = format!(
                "{}: owner and mode are the host's, since it is the host's file; if the site has \
                 to \
                 write to it, name it in the site's `mounts` with `access: read-write`",
                owned.join(", ")
            );
            self.remark(draft, "paths_w_owner", &text);
        }
    }

    fn setuid_paths(&self, draft: &mut Draft) {
        let setuid = self.list("paths_w_setuid");
        for path in &setuid {
            for program in found(path) {
                let program = program.to_string_lossy();
                // As a program, for the libraries that it needs.
                push(&mut draft.programs, &program);
                let mount = DraftMount {
                    executable: true,
                    setuid: true,
                    ..DraftMount::new(program)
                };
                push_mount(draft, mount);
            }
        }
        if !setuid.is_empty() {
            let text = format!(
                "{}: setuid bits are effective in the jail, as with jailkit",
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
                    DraftMount {
                        devices: true,
                        ..DraftMount::new(path)
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
            // Both are generated from `users`.
            let generated = ["passwd", "group"];
            draft
                .etc
                .retain(|item| !generated.contains(&item.any_of[0].as_str()));
        }
        let mut groups = self.list("groups");
        groups.retain(|group| !users.contains(group));
        if !groups.is_empty() {
            let text = format!(
                "{}: a manifest cannot name groups; the groups of `users`, and root's, are there \
                 anyway",
                groups.join(", ")
            );
            self.remark(draft, "groups", &text);
        }
    }

    /// Remarks on what a manifest cannot express.
    fn remark_the_rest(&self, draft: &mut Draft) {
        for path in self.list("emptydirs") {
            if let Ok(directory) = JailPath::new(path)
                && directory != JailPath::slash()
            {
                draft.directories.push(DraftDirectory {
                    path: path.to_owned(),
                    mode: "0755".to_owned(), // as jk_init makes them
                });
            } else {
                let text = format!("{path} is not the path of a directory inside; left out");
                self.remark(draft, "emptydirs", &text);
            }
        }
        if self.is_set("need_proc") {
            draft.proc = true;
        }
        for value in &self.section.values {
            if !KEYS.contains(&value.key.as_str()) {
                self.remark(draft, &value.key, "jailkit has no such key; left out");
            }
        }
    }
}
