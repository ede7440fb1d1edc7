//! Code that PHP's settings name, which each request reads: `auto_prepend_file`, `include_path`.

use std::path::{Path, PathBuf};

use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{Problem, Remedy};
use crate::doctor::inside::{PathUse, Usable};
use crate::import::fpm::{Included, included_by};

/// What of it the pools' PHP cannot read inside.
pub(super) fn problems(exam: &Exam<'_>) -> Result<Vec<Problem>, NoAnswer> {
    let mut problems = vec![];
    for pool_user in exam.site.pool_users {
        // Nothing is tried as root.
        if pool_user.user.is_root() {
            continue;
        }
        let included = included_by(&pool_user.settings);
        let paths = included
            .iter()
            .map(|code| (PathBuf::from(&code.path), PathUse::Read))
            .collect();
        let errors = exam.ask_as(&pool_user.user, Usable(paths))?;
        for (code, error) in included.iter().zip(errors) {
            let Some(error) = error else {
                continue;
            };
            let Included { path, setting, .. } = code;
            let path = Path::new(path);
            // A list of directories often has some that are nowhere.
            if !code.is_needed && error.is_missing() && !exam.on_host(path) {
                continue;
            }
            let why = exam.explained(path, &error);
            let text = format!("{}, which {setting} names: {why}", path.display());
            problems.push(Problem::new(text, bring(exam, code)));
        }
    }
    Ok(problems)
}

fn bring(exam: &Exam<'_>, code: &Included) -> Remedy {
    let Included { path, setting, .. } = code;
    let at = Path::new(path);
    if exam.denied(at).is_none() && !exam.on_host(at) && exam.mount_of(at).is_none() {
        return Remedy::act(format!(
            "correct `{setting}`, or put the file there: this host has no {path} either"
        ));
    }
    exam.bring(at, Remedy::line("mounts", path))
}
