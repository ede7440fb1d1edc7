//! Devices: there, the right ones, and usable.

use std::path::Path;

use super::Exam;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::Devices;
use crate::resolve::FileKind;

/// What PHP and the libraries that it uses open.
const OF_PHP: [&str; 4] = ["null", "zero", "random", "urandom"];

pub(super) fn devices(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let mut names: Vec<String> = if exam.is_php() {
        OF_PHP.map(str::to_owned).to_vec()
    } else {
        vec![]
    };
    let brought = exam
        .patient
        .desired
        .mounts
        .iter()
        .filter(|mount| mount.kind == FileKind::Device);
    let brought = brought.filter_map(|mount| mount.target.as_path().strip_prefix("/dev").ok());
    for name in brought.map(|name| name.display().to_string()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(CheckOutcome::not_needed("nothing brings a device"));
    }
    let troubles = exam.ask(Devices(names.clone()))?;
    let problem = |(name, trouble): (&String, Option<_>)| {
        let trouble: crate::doctor::inside::InsideError = trouble?;
        let path = Path::new("/dev").join(name);
        let remedy = if exam
            .mount_of(&path)
            .is_some_and(|mount| mount.options.nodev)
        {
            let site = &exam.patient.desired.site;
            Remedy::act(format!(
                "this host does not allow it either: see `mountjail check {site}`"
            ))
        } else if exam.mount_of(&path).is_none() && !trouble.is_missing() {
            Remedy::act(format!(
                "remove {}{}",
                exam.patient.desired.root,
                path.display()
            ))
        } else {
            exam.bring(&path, Remedy::line("devices", name))
        };
        Some(Problem::new(
            format!("{}: {}", path.display(), trouble.text),
            remedy,
        ))
    };
    let problems = names.iter().zip(troubles).filter_map(problem).collect();
    Ok(CheckOutcome::of(problems, names.join(", ")))
}
