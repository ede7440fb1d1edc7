//! Which line of a manifest brings a program that is not in a jail.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Context;
use crate::base::{HostPath, JailPath, SEARCH_PATH};
use crate::resolve::{Desired, Host, Mount, interpreter_of};

/// Whether the program is searched in PATH.
pub(crate) fn is_bare(program: &Path) -> bool {
    program.components().count() < 2
}

/// The paths at which the program may be.
pub(crate) fn places(program: &Path) -> impl Iterator<Item = PathBuf> {
    let directories: &[&str] = if is_bare(program) {
        &SEARCH_PATH
    } else {
        &["/"]
    };
    directories
        .iter()
        .map(move |directory| Path::new(directory).join(program))
}

/// The remedy for `program`, which is not in the jail.
pub(crate) fn remedy(context: &Context, desired: &Desired, program: &Path) -> String {
    if let Some(version) = of_a_version(desired, program) {
        return format!("run {version}, which is inside");
    }
    for place in places(program) {
        if let Ok(path) = HostPath::new(place)
            && let Ok(walk) = context.host.walk(&path)
        {
            let line = line_for(context, &path, &walk.real);
            return format!("`{line}` in the manifest brings it");
        }
    }
    format!("install {} on the host first", program.display())
}

/// The line that brings the host's program at `path`, which leads to `real`.
fn line_for(context: &Context, path: &HostPath, real: &HostPath) -> String {
    match preset_for(context, path, real) {
        Some(name) => format!("presets: [{name}]"),
        None => format!("programs: [{path}]"),
    }
}

/// The remedy for the interpreter of the program at `place` inside, if that is not in the jail
/// and the host has no program at `place` whose line would bring it.
pub(crate) fn interpreter(context: &Context, desired: &Desired, place: &Path) -> Option<String> {
    let jail = Host::at(desired.root.as_path());
    let program = HostPath::new(place).ok()?;
    let interpreter = interpreter_of(&jail, &program)?;
    let interpreter = HostPath::new(OsStr::from_bytes(&interpreter)).ok()?;
    if is_there(&jail, &interpreter) || is_there(&context.host, &program) {
        return None;
    }
    if !is_there(&context.host, &interpreter) {
        return Some(format!(
            "{place} needs {interpreter}, which this host does not have either: install it on the \
             host, or correct {place}",
            place = place.display()
        ));
    }
    let name = interpreter.file_name().unwrap_or_default();
    let line = if name.to_string_lossy().contains(".so") {
        format!("libraries: [{interpreter}]")
    } else {
        let real = context.host.walk(&interpreter).ok()?.real;
        line_for(context, &interpreter, &real)
    };
    let place = place.display();
    Some(format!(
        "{place} needs {interpreter}: `{line}` in the manifest brings it"
    ))
}

/// Also for a path that cannot be looked at.
fn is_there(host: &Host, path: &HostPath) -> bool {
    host.is_there(path).unwrap_or(true)
}

/// The program of a version, such as `/usr/bin/php8.2` if `program` is `php`.
fn of_a_version<'d>(desired: &'d Desired, program: &Path) -> Option<&'d JailPath> {
    let name = program.file_name()?.to_str()?;
    for mount in &desired.mounts {
        let other = mount.target.as_path().file_name().and_then(OsStr::to_str);
        if let Some(other) = other
            && !mount.attributes.noexec
            && other != name
            && without_version(other) == name
        {
            return Some(&mount.target);
        }
    }
    None
}

fn without_version(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
}

/// The preset that is named for the program at `path`, which leads to `real`, and that brings it.
fn preset_for(context: &Context, path: &HostPath, real: &HostPath) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let base = without_version(name);
    let resolver = context.resolver().ok()?;
    let named = [
        name.to_owned(),
        base.to_owned(),
        format!("{base}-cli"),
        format!("{base}-client"),
    ];
    for preset in named {
        if let Some(Ok(entries)) = context.presets.entries(&preset)
            && let Ok(brought) = resolver.resolve_preset(&entries)
            && brings_program(&brought.mounts, real)
        {
            return Some(preset);
        }
    }
    None
}

fn brings_program(mounts: &[Arc<Mount>], program: &HostPath) -> bool {
    mounts
        .iter()
        .any(|mount| mount.source == *program && !mount.attributes.noexec)
}
