//! JSON for programs: stable keys; paths are text, with replacement characters if they are not
//! UTF-8.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::fstab::FstabLine;
use crate::base::{Error, ErrorCode, JailPath, SiteName};
use crate::manifest::Diagnostic;
use crate::observe::{Inside, Outdated};
use crate::plan::{GraftChange, MountState, Plan, Step};
use crate::resolve::{
    Below, Desired, Explanation, FileKind, Link, Mount, Ownership, Reason, ResolvedPreset,
};

/// The version of the keys; it grows when one changes its meaning or is removed.
pub(super) const VERSION: u32 = 1;

/// The text that a command prints: the object, with its version.
pub(crate) fn document(mut object: Value) -> String {
    object["version"] = json!(VERSION);
    format!("{object:#}\n")
}

/// `{code, site, path, reason, remedy}`
pub(crate) fn error(site: Option<&SiteName>, error: &Error) -> Value {
    json!({
        "code": error.code(),
        "site": site,
        "path": error.path().map(|path| path.to_string_lossy()),
        "reason": error.to_string(),
        "remedy": error.hint_text(),
    })
}

/// As [`error`], with the place in the file: `{…, line, column, key}`
pub(crate) fn mistake(site: Option<&SiteName>, mistake: &Diagnostic) -> Value {
    let (line, column) = mistake.position().unzip();
    json!({
        "code": ErrorCode::Manifest,
        "site": site,
        "path": mistake.file().to_string(),
        "line": line,
        "column": column,
        "key": mistake.key(),
        "reason": mistake.message(),
        "remedy": mistake.hint(),
    })
}

/// `{site, root, steps: [{step, …}], conflicts: […]}`
pub(crate) fn plan(plan: &Plan) -> Value {
    let mut conflicts = vec![];
    for conflict in &plan.conflicts {
        conflicts.push(error(Some(&plan.site), conflict));
    }
    let steps: Vec<_> = plan.steps.iter().map(step).collect();
    json!({ "site": plan.site, "root": plan.root, "steps": steps, "conflicts": conflicts })
}

/// `{site, ok, root, mounts, links, notes: [{text, line}], warnings: […]}`
pub(crate) fn checked(desired: &Desired) -> Value {
    let mut notes = vec![];
    for note in &desired.notes {
        notes.push(json!({ "text": note.text, "line": note.origin.to_string() }));
    }
    json!({
        "site": desired.site,
        "ok": true,
        "root": desired.root,
        "mounts": desired.mounts.len(),
        "links": desired.links.len(),
        "notes": notes,
        "warnings": desired.warnings,
    })
}

/// `{site, root, lines: [{source, target, options}]}`
pub(crate) fn fstab(desired: &Desired, lines: &[FstabLine]) -> Value {
    let mut list = vec![];
    for line in lines {
        list.push(json!({
            "source": line.what().to_string_lossy(),
            "target": line.target,
            "options": line.options.join(","),
        }));
    }
    json!({ "site": desired.site, "root": desired.root, "lines": list })
}

/// The lines of an fstab(5) as text.
pub(crate) fn fstab_text(lines: &[Vec<u8>]) -> Vec<String> {
    lines
        .iter()
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect()
}

fn step(step: &Step) -> Value {
    let (name, more) = match step {
        Step::WriteFile(file) => ("write-file", json!({ "path": file.path })),
        Step::Detach { target, source, .. } => {
            ("detach", json!({ "target": target, "source": source }))
        }
        Step::DetachStray(stray) => {
            let moved_to = stray.point.as_ref().map(|point| point.to_string_lossy());
            (
                "detach",
                json!({ "target": stray.target, "moved_to": moved_to }),
            )
        }
        Step::DetachCovered { target, .. } => ("detach-covered", json!({ "target": target })),
        Step::RemovePlaceholder { path, .. } => ("remove-placeholder", json!({ "path": path })),
        Step::RemoveLink { path, destination } => ("remove-link", link_at(path, destination)),
        Step::RemoveFile(path) => ("remove-file", json!({ "path": path })),
        Step::CreatePlaceholder { path, kind } => {
            let is_directory = *kind == FileKind::Directory;
            let kind = if is_directory { "directory" } else { "file" };
            ("create-placeholder", json!({ "path": path, "kind": kind }))
        }
        Step::CreateDirectory { path, owner } => ("create-directory", directory(path, owner)),
        Step::CreateLink { path, destination } => ("create-link", link_at(path, destination)),
        Step::Refresh { graft, change } => ("refresh", graft_on(&graft.mount.target, change)),
        Step::Attach { mount, graft, .. } => match graft {
            Some(change) => ("graft", graft_on(&mount.target, change)),
            None => ("attach", with(files_of(step), mount_of(mount))),
        },
        Step::Swap {
            mount,
            graft,
            because,
            ..
        } => {
            let because = json!({ "because": because });
            match graft {
                Some(change) => ("swap-graft", graft_on(&mount.target, change)),
                None => ("swap", with(with(because, files_of(step)), mount_of(mount))),
            }
        }
    };
    with(json!({ "step": name }), more)
}

/// Whether the files of a tmpfs that goes are in the new one.
fn files_of(step: &Step) -> Value {
    match step.keeps_files() {
        Some(keeps) => json!({ "with_files": keeps }),
        None => json!({}),
    }
}

fn link_at(path: &JailPath, destination: &Path) -> Value {
    json!({ "path": path, "text": destination.to_string_lossy() })
}

fn directory(path: &JailPath, owner: &Ownership) -> Value {
    let Ownership { uid, gid, mode } = owner;
    json!({ "path": path, "uid": uid, "gid": gid, "mode": format!("{mode:04o}") })
}

fn graft_on(target: &JailPath, change: &GraftChange) -> Value {
    with(json!({ "target": target }), change_of(change))
}

fn mount_of(mount: &Mount) -> Value {
    let mut value = json!({
        "target": mount.target, "source": mount.source_name(),
        "options": mount.attributes.to_string(), "recursive": mount.recursive,
    });
    if let Some(file_system) = mount.file_system {
        value["file_system"] = json!(file_system.to_string());
    }
    value
}

fn change_of(change: &GraftChange) -> Value {
    json!({
        "attach": mounts_of(&change.attach),
        "swap": mounts_of(&change.swap),
        "detach": change.detach,
    })
}

fn mounts_of(mounts: &[Arc<Mount>]) -> Vec<Value> {
    mounts.iter().map(|mount| mount_of(mount)).collect()
}

fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

/// `{site, root, state, reasons, mounts: [{target, source, state, detail, options}], outdated:
/// [{unit, pids, name, files, more_files, hint}], processes_not_looked_at}`
pub(crate) fn status(plan: &Plan, inside: &Inside) -> Value {
    let mounts: Vec<_> = plan.states.iter().map(state).collect();
    let outdated: Vec<_> = inside.outdated.iter().map(old).collect();
    json!({
        "site": plan.site,
        "root": plan.root,
        "state": plan.site_state(),
        "reasons": plan.reasons(),
        "mounts": mounts,
        "outdated": outdated,
        "processes_not_looked_at": inside.not_looked_at,
    })
}

fn old(outdated: &Outdated) -> Value {
    let mut pids = vec![];
    for process in &outdated.processes {
        pids.push(process.pid);
    }
    let (name, unit, hint) = match outdated.processes.first() {
        Some(process) => (
            Some(&process.name),
            process.unit.as_ref(),
            Some(process.restart()),
        ),
        None => (None, None, None),
    };
    json!({
        "name": name,
        "unit": unit,
        "pids": pids,
        "files": outdated.files,
        "more_files": outdated.more,
        "hint": hint,
    })
}

fn state(state: &MountState) -> Value {
    json!({
        "target": state.target,
        "source": state.source,
        "state": state.state,
        "detail": state.detail,
        "options": state.mount.as_ref().map(|mount| mount.attributes.to_string()),
    })
}

/// `{mounts: […], links: […], directories: […], notes: […]}`
pub(crate) fn preset(resolved: &ResolvedPreset) -> Value {
    let mounts = mounts_of(&resolved.mounts);
    let links: Vec<_> = resolved.links.iter().map(link).collect();
    let directories: Vec<_> = resolved.directories.iter().map(|own| &own.path).collect();
    let notes: Vec<_> = resolved.notes.iter().map(|note| &note.text).collect();
    json!({
        "mounts": mounts, "links": links, "directories": directories, "notes": notes,
    })
}

fn link(link: &Link) -> Value {
    json!({ "path": link.path, "text": link.destination.to_string_lossy() })
}

/// `{path, leads_to, link, mount, reasons: [{line, file, key, presets, chain}]}`
pub(crate) fn why(path: &JailPath, answer: &Explanation<'_>) -> Value {
    let reasons = if let Some(mount) = answer.mount {
        mount.reasons.as_slice()
    } else if let Some(own) = answer.directory {
        own.reasons.as_slice()
    } else if let Some(link) = answer.link {
        link.reasons.as_slice()
    } else {
        &[]
    };
    let reasons: Vec<_> = reasons.iter().map(reason).collect();
    json!({
        "path": path, "leads_to": answer.leads_to, "link": answer.link.map(link),
        "mount": answer.mount.map(mount_of),
        "directory": answer.directory.map(|own| own.owner.to_string()), "reasons": reasons,
    })
}

/// `{path, leads_to, below: [{line, paths}]}`
pub(crate) fn below(path: &JailPath, leads_to: &JailPath, lines: &[Below<'_>]) -> Value {
    let mut list = vec![];
    for below in lines {
        list.push(json!({ "line": below.origin.to_string(), "paths": below.paths }));
    }
    json!({ "path": path, "leads_to": leads_to, "below": list })
}

fn reason(reason: &Reason) -> Value {
    let chain: Vec<_> = reason.chain.iter().map(ToString::to_string).collect();
    let origin = &reason.origin;
    json!({
        "line": origin.to_string(),
        "file": origin.file.to_string(),
        "key": origin.key,
        "presets": origin.presets,
        "defaults": origin.defaults,
        "chain": chain,
    })
}
