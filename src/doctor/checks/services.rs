//! The units of the site's services: they run, they find their programs in their root, and sshd
//! accepts it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use crate::base::HostPath;
use crate::base::quote::shell_word;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::Exist;
use crate::import::unit_file::{self, UnitFile};
use crate::import::words::words;
use crate::site::systemctl;
use crate::sys::FileId;

/// The properties of a unit that tell how it is.
const STATE: [&str; 5] = [
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "LoadState",
];

/// The meaning of the exit codes that come from systemd itself (systemd.exec(5)).
const EXIT_CODES: [(&str, &str); 5] = [
    ("200", "CHDIR: WorkingDirectory= is not in the root"),
    ("203", "EXEC: its program cannot be run in the root"),
    ("210", "CHROOT: the root cannot be entered"),
    ("217", "USER: its User= does not exist"),
    ("226", "NAMESPACE: its mount namespace cannot be made"),
];

pub(super) fn services(exam: &Exam<'_>) -> CheckOutcome {
    let services = &exam.site.manifest.services;
    if services.is_empty() {
        return CheckOutcome::not_needed("the manifest names no service");
    }

    let (mut problems, mut good, mut untried) = (vec![], vec![], vec![]);
    for name in services {
        let unit = unit_file::named(name);
        let mut own = vec![];
        if let Some(unit) = &unit {
            own.extend(in_root_directory(exam, unit));
            good.extend(made_at_start(exam, unit));
        }
        if is_sshd(name) {
            own.extend(refused_by_sshd(exam));
        }
        match state(name, own.is_empty()) {
            UnitState::Runs => good.push(format!("{name} runs")),
            UnitState::Unknown if unit.is_some() => good.push(format!("{name} is there")),
            UnitState::Unknown => untried.push(format!("there is no unit file of {name} here")),
            UnitState::Rests(why) => untried.push(format!("{name} is {why}")),
            UnitState::Failed(problem) => own.insert(0, problem),
        }
        problems.extend(own);
    }
    let untried = untried.join("; ");
    if good.is_empty() && problems.is_empty() {
        return CheckOutcome::could_not_check(untried);
    }
    let outcome = CheckOutcome::judge(problems, good.join("; "));
    if untried.is_empty() {
        return outcome;
    }
    outcome.unless(Some(&untried))
}

enum UnitState {
    Runs,
    /// It is not started, and why.
    Rests(String),
    Failed(Problem),
    /// No system manager knows.
    Unknown,
}

/// `look_further`: nothing else is known that explains a failure.
fn state(name: &str, look_further: bool) -> UnitState {
    if !systemctl::is_running() {
        return UnitState::Unknown;
    }
    let known = systemctl::properties(name, &STATE);
    let get = |key| known.get(key).map_or("", String::as_str);
    if get("LoadState") == "not-found" {
        return UnitState::Failed(Problem::new(
            format!("there is no unit {name}"),
            Remedy::act("correct its name under `services`: `systemctl list-unit-files` has it"),
        ));
    }
    match (get("ActiveState"), get("SubState")) {
        ("active" | "reloading", _) => UnitState::Runs,
        ("failed", _) | ("activating", "auto-restart") => {
            let remedies = if look_further {
                vec![Remedy::act(format!("journalctl -b -n 20 -u {name}"))]
            } else {
                vec![]
            };
            let why = why_failed(get("ExecMainStatus"), get("Result"));
            let text = format!("{name} has failed ({why})");
            UnitState::Failed(Problem::with(text, remedies))
        }
        ("", _) => UnitState::Unknown,
        (other, _) => UnitState::Rests(format!("{other}, not running")),
    }
}

/// What the exit code `status` of a unit means; `result` is systemd's word for it.
fn why_failed(status: &str, result: &str) -> String {
    match EXIT_CODES.iter().find(|(code, _)| *code == status) {
        Some((code, meaning)) => format!("{code}/{meaning}"),
        None => format!("{result}, status {status}"),
    }
}

/// The problems of a unit that has this root as its `RootDirectory=`.
fn in_root_directory(exam: &Exam<'_>, unit: &UnitFile) -> Vec<Problem> {
    match unit.get("Service", "RootDirectory") {
        Some(line) if is_root(exam, &line.value) => {}
        _ => return vec![],
    }

    let mut problems = vec![];
    let mut programs = vec![];
    for command in unit.commands() {
        programs.extend(command.first().map(PathBuf::from));
    }
    for program in missing(exam, programs) {
        let shown = program.display();
        let text = format!("ExecStart= of {}: {shown} is not inside", unit.name);
        let line = Remedy::line("programs", shown.to_string());
        problems.push(Problem::new(text, exam.bring(&program, line)));
    }
    let mut directories = vec![];
    if let Some(line) = unit.get("Service", "WorkingDirectory") {
        directories.push(PathBuf::from(&line.value));
    }
    for directory in missing(exam, directories) {
        let shown = directory.display();
        let text = format!("WorkingDirectory= of {}: {shown} is not inside", unit.name);
        let there = format!("{}{shown}", exam.site.desired.root);
        let remedy = match exam.denied(&directory) {
            Some(at) => exam.opened(&at),
            None => Remedy::act(format!("install -d {}", shell_word(&there))),
        };
        problems.push(Problem::new(text, remedy));
    }
    problems
}

/// Those of the absolute paths that are not inside. There are none if nobody can look.
fn missing(exam: &Exam<'_>, mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.retain(|path| path.is_absolute());
    let are_there = exam.ask(Exist(paths.clone())).unwrap_or_default();
    let mut missing = vec![];
    for (path, is_there) in paths.into_iter().zip(are_there) {
        if !is_there {
            missing.push(path);
        }
    }
    missing
}

fn is_root(exam: &Exam<'_>, path: &str) -> bool {
    let root = exam.site.desired.root.as_path();
    if Path::new(path) == root {
        return true;
    }
    match (fs::metadata(path), fs::metadata(root)) {
        (Ok(found), Ok(root)) => FileId::of(&found) == FileId::of(&root),
        _ => false,
    }
}

/// The bound directories that the unit makes anew at each start: their mounts get stale then.
fn made_at_start(exam: &Exam<'_>, unit: &UnitFile) -> Option<String> {
    if let Some(preserved) = unit.get("Service", "RuntimeDirectoryPreserve")
        && preserved.value != "no"
    {
        return None;
    }
    let mut made = vec![];
    for line in unit.list("Service", "RuntimeDirectory") {
        for name in words(&line.value) {
            let directory = Path::new("/run").join(name);
            let mut mounts = exam.site.desired.mounts.iter();
            if mounts.any(|mount| mount.source.as_path().starts_with(&directory)) {
                made.push(directory.display().to_string());
            }
        }
    }
    if made.is_empty() {
        return None;
    }
    Some(format!(
        "{} makes {} anew at each start, which `mountjail watch` follows",
        unit.name,
        made.join(", ")
    ))
}

/// `ssh.service` of Debian, `sshd.service` of others.
fn is_sshd(unit: &str) -> bool {
    let name = unit.split(['.', '@']).next();
    matches!(name, Some("ssh" | "sshd"))
}

/// sshd(8) enters no root that somebody else than root could change, nor one in such a directory.
fn refused_by_sshd(exam: &Exam<'_>) -> Vec<Problem> {
    let root = &exam.site.desired.root;
    let mut problems = vec![];
    for directory in root.ancestors() {
        if let Ok(found) = fs::metadata(&directory) {
            // Directories above the root are not the site's, and others may rely on them.
            let remedy = |command: &str| {
                Remedy::act(if directory == *root {
                    format!("{command} {}", shell_word(&directory.to_string()))
                } else {
                    format!(
                        "move the site to where only root can change the way, such as \
                         `root: /srv/{}`",
                        exam.site.desired.site
                    )
                })
            };
            problems.extend(refused_directory(&directory, &found, remedy));
        }
    }
    problems
}

/// Why sshd(8) does not take `directory`. `remedy`: with a command, for the root itself.
fn refused_directory(
    directory: &HostPath,
    found: &fs::Metadata,
    remedy: impl Fn(&str) -> Remedy,
) -> Vec<Problem> {
    let mut problems = vec![];
    if found.uid() != 0 {
        let owner = match User::from_uid(Uid::from_raw(found.uid())) {
            Ok(Some(user)) => user.name,
            _ => found.uid().to_string(),
        };
        let text = format!("{directory} is {owner}'s: sshd refuses such a ChrootDirectory");
        problems.push(Problem::new(text, remedy("chown root")));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let text = format!(
            "{directory} is of mode {mode:04o}: sshd refuses a ChrootDirectory that others can \
             write to"
        );
        problems.push(Problem::new(text, remedy("chmod go-w")));
    }
    problems
}
