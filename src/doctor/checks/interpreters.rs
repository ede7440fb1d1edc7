//! Interpreters of languages, which need more files than the libraries that the loader opens.

use std::collections::BTreeSet;

use super::code::is_inside;
use super::extensions;
use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Interpreters, is_interpreter};
use crate::resolve::FileKind;

pub(super) fn interpreters(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let programs = programs(exam);
    if programs.is_empty() {
        return Ok(CheckOutcome::not_needed(
            "no interpreter that mountjail knows is inside",
        ));
    }
    let answers = exam.ask(Interpreters(programs.clone()))?;
    let (mut problems, mut good) = (vec![], vec![]);
    for (program, failure) in programs.into_iter().zip(answers) {
        match failure {
            Some(_) if fails_on_host(exam, &program)? => {}
            Some(why) => {
                let text = format!("{program} does not work: {why}");
                problems.push(Problem::new(text, bring(exam, &program, &why)));
            }
            None => good.push(program.to_string()),
        }
    }
    if problems.is_empty() && good.is_empty() {
        let why = "the interpreters that are inside do not work on the host either";
        return Ok(CheckOutcome::could_not_check(why));
    }
    let good = format!("{} can be started", good.join(", "));
    Ok(CheckOutcome::judge(problems, good))
}

/// The interpreters that are inside: those that are mounted, and those at a path that a preset
/// names.
fn programs(exam: &Exam<'_>) -> Vec<HostPath> {
    let root = &exam.site.desired.root;
    let mut programs = BTreeSet::new();
    for mount in &exam.site.desired.mounts {
        if mount.kind == FileKind::File && !mount.attributes.noexec {
            programs.insert(mount.target.on_host());
        }
    }
    for program in exam.site.program_lines.programs() {
        if is_inside(root, program) {
            programs.insert(program.clone());
        }
    }
    programs.retain(|program| is_interpreter(program.as_path()));
    programs.into_iter().collect()
}

/// Whether the host's own interpreter at the same path fails as well.
fn fails_on_host(exam: &Exam<'_>, program: &HostPath) -> Result<bool, NoAnswer> {
    if !exam.on_host(program.as_path()) {
        return Ok(false);
    }
    let answers = exam.ask_on_host(Interpreters(vec![program.clone()]))?;
    Ok(answers.iter().any(Option::is_some))
}

/// The preset of the extension of PHP that fails, or of the interpreter.
fn bring(exam: &Exam<'_>, program: &HostPath, why: &str) -> Remedy {
    if !exam.is_as_it_should_be() {
        return exam.up();
    }
    let of_extension = why.split(':').next().and_then(extensions::preset_of);
    let preset = match of_extension {
        Some(preset) => Some(preset.to_owned()),
        None => exam.site.program_lines.preset_of(program),
    };
    match preset {
        Some(preset) if !exam.presets.contains(preset.as_str()) => Remedy::preset(&preset),
        _ => Remedy::act(format!(
            "see what it misses: `mountjail trace {} -- {program}`",
            exam.site.desired.site
        )),
    }
}
