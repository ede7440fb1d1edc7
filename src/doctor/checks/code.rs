//! Programs and libraries: each finds in the jail what it needs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::quote::shell_word;
use crate::base::text::{few, plural};
use crate::base::{HostPath, JailPath, SEARCH_PATH};
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::CheckLibraries;
use crate::manifest::yaml_scalar;
use crate::resolve::ldso::Loader;
use crate::resolve::{FileKind, Mount, WITHOUT_PROC, remount_for_execution};
use crate::sys::mode_in_words;

/// The programs that PHP is most often built for, to send mail.
pub(super) const SENDMAIL: [&str; 2] = ["/usr/sbin/sendmail", "/usr/lib/sendmail"];

/// A mailer that PHP can be told to start in place of these.
const MSMTP: &str = "/usr/bin/msmtp";

/// How many programs are named.
const SHOWN: usize = 5;

/// If this many files of one directory are missing, the directory is advised.
const MANY: usize = 5;

pub(super) fn libraries(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let checked = exam.ask(CheckLibraries {
        places: places(exam),
        programs: named_programs(exam),
    })?;

    let mut problems: Vec<Problem> = vec![];
    for (path, text) in &checked.broken {
        // By two names, such as /bin and /usr/bin, it is one problem.
        if problems.iter().all(|problem| &problem.text != text) {
            problems.push(Problem::with(text, remedies(exam, path)));
        }
    }
    for program in &checked.without_proc {
        let text = format!("{program} {WITHOUT_PROC}");
        problems.push(Problem::new(text, exam.proc()));
    }
    for path in &checked.not_executable {
        problems.extend(not_executable(exam, path));
    }

    problems.extend(on_noexec(exam, &checked.on_noexec));

    let counts = match (checked.programs, checked.libraries) {
        (0, 0) if problems.is_empty() => {
            return Ok(CheckOutcome::not_needed(
                "no program and no library is inside",
            ));
        }
        (programs, 0) => plural(programs, "program"),
        (0, libraries) => libraries_count(libraries),
        (programs, libraries) => {
            format!(
                "{} and {}",
                plural(programs, "program"),
                libraries_count(libraries)
            )
        }
    };
    Ok(CheckOutcome::judge(
        problems,
        format!("nothing is missing for {counts}"),
    ))
}

/// The programs that lines under `programs:` name.
fn named_programs(exam: &Exam<'_>) -> Vec<PathBuf> {
    let mut programs = vec![];
    for mount in &exam.site.desired.mounts {
        if mount.kind == FileKind::File && is_named_as_program(mount) {
            programs.push(mount.target.as_path().to_owned());
        }
    }
    programs
}

fn is_named_as_program(mount: &Mount) -> bool {
    for reason in &mount.reasons {
        if reason.chain.is_empty() && reason.origin.key.starts_with("programs") {
            return true;
        }
    }
    false
}

/// A program that the user may not execute, with what lets him.
fn not_executable(exam: &Exam<'_>, path: &Path) -> Option<Problem> {
    let mount = exam.mount_of(path)?;
    let (source, user) = (&mount.source, &exam.site.user.name);
    if mount.attributes.noexec {
        let line = format!("mounts: [{{ source: {source}, executable: true }}]");
        return Some(Problem::new(
            format!(
                "{} cannot be executed: it is mounted noexec",
                path.display()
            ),
            Remedy::ManifestLine(line),
        ));
    }
    let found = fs::metadata(source.as_path()).ok()?;
    let mode = mode_in_words(found.mode(), found.uid(), found.gid());
    let file = shell_word(&source.to_string()).into_owned();
    Some(Problem::new(
        format!(
            "{} cannot be executed by {user}: it is {mode}",
            path.display()
        ),
        Remedy::act(if found.mode() & 0o111 == 0 {
            format!("chmod a+x {file}")
        } else {
            format!("setfacl -m u:{user}:rx {file}")
        }),
    ))
}

/// The root's own programs that cannot be executed because of a mount of the host.
fn on_noexec(exam: &Exam<'_>, programs: &[HostPath]) -> Option<Problem> {
    let root = &exam.site.desired.root;
    let is_own = |program: &&HostPath| exam.mount_of(program.as_path()).is_none();
    let programs: Vec<_> = programs.iter().filter(is_own).collect();
    let first = JailPath::new(programs.first()?.as_path()).ok()?;
    let point = exam.host.without_execution(&root.inside(&first))?;
    let programs = few(programs, SHOWN);
    let text = format!("{programs} cannot be executed: {point} is mounted noexec");
    Some(Problem::new(
        text,
        Remedy::act(remount_for_execution(&point)),
    ))
}

fn libraries_count(count: usize) -> String {
    format!(
        "{count} {}",
        if count == 1 { "library" } else { "libraries" }
    )
}

/// Where to look for programs and libraries inside.
fn places(exam: &Exam<'_>) -> Vec<PathBuf> {
    let mut places = vec![];
    for mount in &exam.site.desired.mounts {
        let may_have_code = matches!(mount.kind, FileKind::File | FileKind::Directory);
        if may_have_code && !mount.attributes.noexec {
            places.push(mount.target.as_path().to_owned());
        }
    }
    // Copies of programs, which nobody mounted and which get old.
    places.extend(SEARCH_PATH.map(PathBuf::from));
    places
}

/// The remedy for a program or library at `path` that lacks something. One that the manifest mounts
/// needs to be listed under `programs` or `libraries`; of a copy, only what it lacks is brought.
pub(super) fn remedies(exam: &Exam<'_>, path: &HostPath) -> Vec<Remedy> {
    if exam.mount_of(path.as_path()).is_some() {
        return vec![list(exam, path)];
    }

    if exam.on_host(path.as_path()) {
        let copy = shell_word(&format!("{}{path}", exam.site.desired.root)).into_owned();
        return vec![
            Remedy::act(format!(
                "mv {copy} {copy}.old: the host has the file, too, and this line brings the \
                 host's own"
            )),
            own_line(path),
        ];
    }
    let missing = match JailPath::new(path.as_path()) {
        Ok(path) => missing(exam, &path),
        Err(_) => vec![],
    };
    if missing.is_empty() {
        // Not ldd(1): it runs the program.
        let file = format!("{}{path}", exam.site.desired.root);
        return vec![Remedy::act(format!(
            "remove it, or bring what it needs: `readelf -d {}` lists its libraries",
            shell_word(&file)
        ))];
    }
    lines_for(missing)
}

/// The line that brings the host's program or sendmail at `path`.
fn own_line(path: &HostPath) -> Remedy {
    if is_sendmail(path) {
        return Remedy::preset("mail");
    }
    Remedy::line("programs", path.to_string())
}

fn is_sendmail(path: &HostPath) -> bool {
    SENDMAIL
        .iter()
        .any(|sendmail| path.as_path() == Path::new(sendmail))
}

/// Whether the preset mail brings this program, for those who send mail.
pub(super) fn is_mailer(path: &HostPath) -> bool {
    is_sendmail(path) || path.as_path() == Path::new(MSMTP)
}

/// The lines for missing files: directories in place of many files.
fn lines_for(missing: Vec<HostPath>) -> Vec<Remedy> {
    let mut by_directory: BTreeMap<Option<HostPath>, Vec<HostPath>> = BTreeMap::new();
    for path in missing {
        by_directory.entry(path.parent()).or_default().push(path);
    }
    let (mut few, mut remedies) = (vec![], vec![]);
    for (directory, files) in by_directory {
        match directory {
            Some(directory) if files.len() >= MANY => {
                let directory = yaml_scalar(&directory.to_string());
                remedies.push(Remedy::ManifestLine(format!(
                    "mounts: [{{ source: {directory}, executable: true }}]"
                )));
            }
            _ => few.extend(files.iter().map(ToString::to_string)),
        }
    }
    if !few.is_empty() {
        let (key, items) = ("libraries", few);
        remedies.insert(0, Remedy::Manifest { key, items });
    }
    remedies
}

/// The line that lists a mounted program or library; if it is listed already, the site only has to
/// be brought up.
fn list(exam: &Exam<'_>, path: &HostPath) -> Remedy {
    let key = if path.to_string().contains(".so") {
        "libraries"
    } else {
        "programs"
    };
    let is_listed = exam.site.desired.mounts.iter().any(|mount| {
        let mut reasons = mount.reasons.iter();
        mount.target.as_path() == path.as_path()
            && reasons.any(|reason| reason.origin.key.starts_with(key))
    });
    if is_listed && !exam.is_as_it_should_be() {
        exam.up()
    } else if is_listed {
        let site = &exam.site.desired.site;
        Remedy::act(format!(
            "see what it misses: `mountjail trace {site} -- {path}`"
        ))
    } else {
        Remedy::line(key, path.to_string())
    }
}

/// The files that the host would load for a program in the root and that are not inside.
fn missing(exam: &Exam<'_>, path: &JailPath) -> Vec<HostPath> {
    let root = &exam.site.desired.root;
    let closure = Loader::read(exam.host).and_then(|loader| loader.closure(&root.inside(path)));
    let Ok(closure) = closure else {
        return vec![];
    };

    let mut missing = vec![];
    for library in closure.libraries {
        missing.push(library.path);
    }
    missing.extend(closure.interpreter);
    for script in closure.script_interpreters {
        missing.push(script.path);
    }
    missing.retain(|path| !is_inside(root, path));
    missing
}

pub(super) fn is_inside(root: &HostPath, path: &HostPath) -> bool {
    match JailPath::new(path.as_path()) {
        Ok(path) => root.inside(&path).as_path().symlink_metadata().is_ok(),
        Err(_) => false,
    }
}
