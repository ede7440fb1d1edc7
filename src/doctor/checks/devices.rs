//! Devices: they are there, they are the right ones, and they can be used.

use std::path::Path;

use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Devices, InsideError};
use crate::resolve::FileKind;

/// The devices that PHP and its libraries open.
const OF_PHP: [&str; 4] = ["null", "zero", "random", "urandom"];

pub(super) fn devices(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let names = needed(exam);
    if names.is_empty() {
        return Ok(CheckOutcome::not_needed("the manifest brings no device"));
    }

    let mut problems = vec![];
    let errors = exam.ask(Devices(names.clone()))?;
    for (name, error) in names.iter().zip(errors) {
        if let Some(error) = error {
            let why = exam.explained(&Path::new("/dev").join(name), &error);
            let text = format!("/dev/{name}: {why}");
            problems.push(Problem::new(text, remedy(exam, name, &error)));
        }
    }
    Ok(CheckOutcome::judge(problems, names.join(", ")))
}

/// The names below `/dev`.
fn needed(exam: &Exam<'_>) -> Vec<String> {
    let mut names = vec![];
    if exam.is_php() {
        names.extend(OF_PHP.map(str::to_owned));
    }
    for mount in &exam.site.desired.mounts {
        let path = mount.target.as_path();
        if mount.kind == FileKind::Device
            && let Ok(name) = path.strip_prefix("/dev")
        {
            let name = name.display().to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn remedy(exam: &Exam<'_>, name: &str, error: &InsideError) -> Remedy {
    let path = Path::new("/dev").join(name);
    match exam.mount_of(&path) {
        Some(mount) if mount.attributes.nodev => Remedy::act(format!(
            "devices on this file system do not work on the host either: see `mountjail check {}`",
            exam.site.desired.site
        )),
        None if !error.is_missing() => {
            let root = &exam.site.desired.root;
            Remedy::act(format!("remove {root}{}", path.display()))
        }
        _ => exam.bring(&path, Remedy::line("devices", name)),
    }
}
