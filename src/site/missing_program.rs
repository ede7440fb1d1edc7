//! Which line of a manifest brings a program that is not in a jail.

use std::ffi::OsStr;
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Context;
use crate::base::{HostPath, JailPath, SEARCH_PATH, lexical};
use crate::resolve::{Desired, Host, LookupError, ProgramLines, interpreter_of, without_version};

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
    match line_of(context, places(program).filter_map(host_path)) {
        Some(line) => format!("`{line}` in the manifest brings it"),
        None => format!("install {} on the host first", program.display()),
    }
}

/// The line that brings the host's program that is looked for at `places`; `None`: there is none.
fn line_of(context: &Context, places: impl Iterator<Item = HostPath>) -> Option<String> {
    let resolver = context.resolver().ok()?;
    let lines = ProgramLines::new(&context.host, &resolver, &context.presets);
    Some(lines.line(&places.collect::<Vec<_>>())?.to_string())
}

fn host_path(path: PathBuf) -> Option<HostPath> {
    HostPath::new(path).ok()
}

/// The remedy for the program at `place` in the root, if that is a link to nothing inside.
pub(crate) fn link(context: &Context, desired: &Desired, place: &Path) -> Option<String> {
    let end = end_of_link(desired, &HostPath::new(place).ok()?)?;
    let leads = format!("{} is a link to {end}", place.display());
    Some(match line_of(context, iter::once(end.clone())) {
        Some(line) => format!("{leads}: `{line}` in the manifest brings it"),
        None => format!("{leads}, which this host does not have either: install it there"),
    })
}

/// Where the link at `path` inside ends, if there is nothing.
fn end_of_link(desired: &Desired, path: &HostPath) -> Option<HostPath> {
    let jail = Host::at(desired.root.as_path());
    match jail.walk(path) {
        Err(LookupError::Dangling { link, destination }) => {
            let directory = link.parent().unwrap_or_else(HostPath::slash);
            HostPath::new(lexical(directory.as_path(), &destination)).ok()
        }
        _ => None,
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
    let place = place.display();
    let wanted = end_of_link(desired, &interpreter).unwrap_or_else(|| interpreter.clone());
    let needs = if wanted == interpreter {
        format!("{place} needs {interpreter}")
    } else {
        format!("{place} needs {interpreter}, a link to {wanted}")
    };
    if !is_there(&context.host, &wanted) {
        return Some(format!(
            "{needs}, which this host does not have either: install it on the host, or correct \
             {place}"
        ));
    }
    let name = wanted.file_name().unwrap_or_default();
    let line = if name.to_string_lossy().contains(".so") {
        format!("libraries: [{wanted}]")
    } else {
        line_of(context, iter::once(wanted))?
    };
    Some(format!("{needs}: `{line}` in the manifest brings it"))
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
