//! Programs and libraries: whatever is in the jail finds there what it needs.

use std::path::{Path, PathBuf};

use super::Exam;
use crate::base::quote::word;
use crate::base::{HostPath, JailPath, SEARCH_PATH};
use crate::doctor::ask::Silence;
use crate::doctor::finding::{Outcome, Problem, Remedy};
use crate::doctor::inside::Libraries;
use crate::resolve::FileKind;
use crate::resolve::ldso::Loader;

pub(super) fn libraries(exam: &Exam<'_>) -> Result<Outcome, Silence> {
    let mounts = exam.patient.desired.mounts.iter().filter(|mount| {
        !mount.options.noexec && matches!(mount.kind, FileKind::File | FileKind::Directory)
    });
    let mut places: Vec<PathBuf> = mounts
        .map(|mount| mount.target.as_path().to_owned())
        .collect();
    // Copies of programs, which nobody mounted and which get old.
    places.extend(SEARCH_PATH.map(PathBuf::from));
    let checked = exam.ask(Libraries(places))?;
    let mut problems: Vec<Problem> = vec![];
    for (path, text) in &checked.broken {
        // By two names, such as /bin and /usr/bin, it is one problem.
        if problems.iter().all(|problem| &problem.text != text) {
            problems.push(Problem::new(text, bring(exam, path)));
        }
    }
    if problems.is_empty() && checked.programs + checked.libraries == 0 {
        return Ok(Outcome::not_needed("no program and no library is inside"));
    }
    let counts = [
        (checked.programs, "programs"),
        (checked.libraries, "libraries"),
    ];
    let counts: Vec<_> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    Ok(Outcome::of(
        problems,
        format!("{} find all that they need", counts.join(" and ")),
    ))
}

/// A program that the manifest mounts needs to be listed as one; of a copy, what it lacks is
/// brought.
pub(super) fn bring(exam: &Exam<'_>, path: &HostPath) -> Remedy {
    let key = if path.to_string().contains(".so") {
        "libraries"
    } else {
        "programs"
    };
    if exam.mount_of(path.as_path()).is_some() {
        let listed = exam.patient.desired.mounts.iter().any(|mount| {
            mount.target.as_path() == path.as_path()
                && mount
                    .reasons
                    .iter()
                    .any(|reason| reason.origin.key.starts_with(key))
        });
        return if listed {
            exam.up()
        } else {
            Remedy::line(key, path.to_string())
        };
    }
    let missing = JailPath::new(path.as_path())
        .map(|path| missing(exam, &path))
        .unwrap_or_default();
    if missing.is_empty() {
        // Not ldd(1): it runs the program.
        let file = format!("{}{path}", exam.patient.desired.root);
        return Remedy::act(format!(
            "take it away, or bring what it needs: `readelf -d {}` names its libraries",
            word(&file)
        ));
    }
    Remedy::Manifest {
        key: "libraries",
        items: missing,
    }
}

/// What the host would load for a program in the root, as far as it is not inside.
fn missing(exam: &Exam<'_>, path: &JailPath) -> Vec<String> {
    let root = &exam.patient.desired.root;
    let closure = Loader::read(exam.host).and_then(|loader| loader.closure(&root.inside(path)));
    let Ok(closure) = closure else { return vec![] };
    let needed = closure.libraries.into_iter().map(|library| library.path);
    let needed = needed
        .chain(closure.interpreter)
        .chain(closure.script_interpreters.into_iter().map(|s| s.path));
    let inside = |path: &HostPath| {
        let inside = JailPath::new(path.as_path()).map(|path| root.inside(&path));
        inside.is_ok_and(|inside| Path::new(inside.as_path()).symlink_metadata().is_ok())
    };
    needed
        .filter(|path| !inside(path))
        .map(|path| path.to_string())
        .collect()
}
