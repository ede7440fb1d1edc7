//! Paths of a section → the lines of a draft, each under the key for what the path is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::base::SEARCH_PATH;
use crate::import::draft::{Draft, DraftItem, DraftMount};
use crate::import::source_properties::{
    SourceKind, SourceProperties, is_object_name, objects_below,
};

/// The directories of programs, libraries and modules. A missing file there is most likely one.
const CODE: [&str; 6] = [
    "/lib",
    "/lib64",
    "/opt",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
];

/// How many programs and libraries of a bound directory are listed, for the libraries that they
/// need.
const MAX_OBJECTS: usize = 50;

/// Adds a path, a pattern or a program's name under the key for it.
pub(super) fn add_path(draft: &mut Draft, text: &str) {
    if !text.starts_with('/') {
        return add_program(draft, text);
    }
    let paths = found(text);
    let classes: BTreeSet<_> = paths.iter().map(|path| PathClass::of(path)).collect();
    let only = if classes.len() == 1 {
        classes.first()
    } else {
        None
    };
    match only {
        // A pattern for paths of one class stays a pattern.
        Some(class) if *class != PathClass::Directory => class.add(draft, text),
        _ => {
            for path in &paths {
                PathClass::of(path).add(draft, &path.to_string_lossy());
            }
        }
    }
}

/// The paths on this host that `text` stands for; without any, `text` itself.
pub(super) fn found(text: &str) -> Vec<PathBuf> {
    let paths: Vec<_> = glob::glob(text).into_iter().flatten().flatten().collect();
    if paths.is_empty() || Path::new(text).exists() {
        vec![text.into()]
    } else {
        paths
    }
}

/// Adds a program that is looked up in `PATH`: where this host has it, otherwise wherever a host
/// may have it.
fn add_program(draft: &mut Draft, name: &str) {
    let places = SEARCH_PATH.map(|directory| format!("{directory}/{name}"));
    match places.iter().find(|place| Path::new(place).exists()) {
        Some(place) => add_path(draft, place),
        None => draft.programs.push(DraftItem {
            any_of: places.to_vec(),
            optional: true,
        }),
    }
}

/// The class of a path, which decides under which key it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathClass {
    Program,
    Library,
    Etc,
    Device,
    Directory,
    Executable,
    Data,
}

impl PathClass {
    /// By its properties or, if this host lacks it, by its name.
    fn of(path: &Path) -> Self {
        let programs = ["bin", "sbin", "libexec"].map(Some);
        let place = path
            .parent()
            .and_then(|parent| parent.file_name()?.to_str());
        let etc = path.starts_with("/etc");
        match SourceKind::of(path) {
            SourceKind::Program => Self::Program,
            SourceKind::Library => Self::Library,
            SourceKind::Device if path.starts_with("/dev") => Self::Device,
            SourceKind::Missing if is_object_name(path) => Self::Library,
            SourceKind::Missing if programs.contains(&place) => Self::Program,
            SourceKind::File | SourceKind::Missing if etc => Self::Etc,
            SourceKind::Missing if CODE.iter().any(|directory| path.starts_with(directory)) => {
                Self::Executable
            }
            SourceKind::Directory if etc && !SourceProperties::of(path).code => Self::Etc,
            SourceKind::Directory => Self::Directory,
            SourceKind::File | SourceKind::Device if SourceProperties::of(path).code => {
                Self::Executable
            }
            _ => Self::Data,
        }
    }

    fn add(self, draft: &mut Draft, text: &str) {
        let is_pattern = text.contains(['*', '?', '[']);
        match self {
            Self::Program => push(&mut draft.programs, text),
            Self::Library => push(&mut draft.libraries, text),
            Self::Device => push(&mut draft.devices, text.trim_start_matches("/dev/")),
            Self::Directory => add_directory(draft, text),
            Self::Etc => match text.strip_prefix("/etc/") {
                Some(name) if !is_pattern && !name.is_empty() => push(&mut draft.etc, name),
                _ => push_mount(draft, DraftMount::new(text)),
            },
            Self::Executable => push_mount(
                draft,
                DraftMount {
                    executable: true,
                    ..DraftMount::new(text)
                },
            ),
            Self::Data => push_mount(draft, DraftMount::new(text)),
        }
    }
}

/// Adds a directory, with the libraries that programs in it need.
fn add_directory(draft: &mut Draft, text: &str) {
    let properties = SourceProperties::of(Path::new(text));
    push_mount(
        draft,
        DraftMount {
            executable: properties.code,
            ..DraftMount::new(text)
        },
    );
    match objects_below(Path::new(text), MAX_OBJECTS) {
        Some(objects) => {
            for object in objects {
                push(&mut draft.libraries, &object.to_string_lossy());
            }
        }
        None => draft.remarks.push(format!(
            "{text} has more than {MAX_OBJECTS} programs and libraries: name those that need \
             libraries from elsewhere under `libraries`."
        )),
    }
}

pub(super) fn push(items: &mut Vec<DraftItem>, name: &str) {
    let item = DraftItem::optional(name);
    if !items.contains(&item) {
        items.push(item);
    }
}

/// Adds a mount of what a host may lack.
pub(super) fn push_mount(draft: &mut Draft, mount: DraftMount) {
    let mount = DraftMount {
        optional: true,
        ..mount
    };
    if !draft.mounts.contains(&mount) {
        draft.mounts.push(mount);
    }
}
