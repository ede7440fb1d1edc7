//! One line of a manifest for what a trace found.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::{HostPath, JailPath};
use crate::manifest::{Addition, DirectoryOwner, Pattern};
use crate::resolve::ProgramLine;
use crate::trace::on_host::{MissKind, MissOnHost, TemporaryDirectory};

pub(super) fn addition(key: &'static str, name: String) -> Addition {
    Addition {
        key,
        name,
        optional: false,
        executable: false,
        owner: None,
    }
}

/// The line that brings a program.
pub(super) fn of_program(line: &ProgramLine) -> Addition {
    match line {
        ProgramLine::Preset(name) => addition("presets", name.clone()),
        ProgramLine::Program(path) => addition("programs", pattern(path.as_path())),
    }
}

/// The line that makes a directory of the site's own, as the host's.
pub(super) fn own_directory(
    scratch: &TemporaryDirectory,
    names: &BTreeMap<u32, String>,
) -> Addition {
    let user = scratch.user.map(|id| match names.get(&id) {
        Some(name) => name.clone(),
        None => id.to_string(),
    });
    let mode = scratch.mode;
    let name = scratch.path.to_string();
    Addition {
        owner: Some(DirectoryOwner { user, mode }),
        ..addition("directories", name)
    }
}

/// The line that brings only this path.
pub(super) fn own_line(found: &MissOnHost) -> Addition {
    let path = &found.miss.path;
    match found.kind {
        MissKind::Program => addition("programs", pattern(path.as_path())),
        MissKind::Library => addition("libraries", pattern(path.as_path())),
        // Its directory: a bound socket is dead once its daemon restarts.
        MissKind::Socket => mount_of(&path.parent().unwrap_or_else(JailPath::slash)),
        MissKind::Device => match name_below("/dev", path) {
            Some(name) => addition("devices", name),
            None => addition("mounts", pattern(path.as_path())),
        },
        MissKind::Directory | MissKind::Data => match name_below("/etc", path) {
            Some(name) if !name.contains(['*', '?']) => addition("etc", name),
            _ => mount_of(path),
        },
    }
}

fn name_below(directory: &str, path: &JailPath) -> Option<String> {
    let name = path.as_path().strip_prefix(directory).ok()?;
    Some(name.display().to_string())
}

/// The line that brings a whole directory of a package.
pub(super) fn line_of_data(directory: &HostPath) -> Addition {
    match directory.as_path().strip_prefix("/etc") {
        Ok(name) => addition("etc", name.display().to_string()),
        _ => addition("mounts", pattern(directory.as_path())),
    }
}

/// The lines that bring a whole directory with objects, and the libraries that these need.
pub(super) fn lines_of_objects(directory: &HostPath) -> Vec<Addition> {
    let whole = pattern(directory.as_path());
    let objects = format!("{whole}/**/*.so");
    let mount = Addition {
        executable: true,
        ..addition("mounts", whole)
    };
    vec![mount, addition("libraries", objects)]
}

/// Optional on `/run`: what is there exists only once its daemon has started, which may be after
/// the site came up.
pub(super) fn mount_of(path: &JailPath) -> Addition {
    Addition {
        optional: is_on_run(path),
        ..addition("mounts", pattern(path.as_path()))
    }
}

/// The path, escaped for a key that takes patterns.
pub(super) fn pattern(path: &Path) -> String {
    let text = path.display().to_string();
    let is_glob = HostPath::new(path).is_ok_and(|path| Pattern::new(path).is_glob());
    if is_glob {
        glob::Pattern::escape(&text)
    } else {
        text
    }
}

pub(super) fn is_on_run(path: &JailPath) -> bool {
    path.as_path().starts_with("/run") || path.as_path().starts_with("/var/run")
}
