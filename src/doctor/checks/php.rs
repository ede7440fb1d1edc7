//! What PHP itself needs to be set: directories to write to, its cache of scripts, a web root that
//! is not the jail's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Exam;
use crate::base::quote::word;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Directories, WebRoot};
use crate::doctor::pool_user::PoolUser;

/// Where Debian's PHP keeps sessions when nothing is set.
const DEBIANS_SESSIONS: &str = "/var/lib/php/sessions";

/// Configurations of web servers.
const WEB_SERVERS: [&str; 5] = [
    "/etc/nginx/sites-enabled/*",
    "/etc/nginx/conf.d/*.conf",
    "/etc/apache2/sites-enabled/*",
    "/etc/httpd/conf.d/*.conf",
    "/etc/nginx/nginx.conf",
];

const NO_POOL: &str = "no PHP-FPM pool has this chroot";

pub(super) fn directories(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if exam.patient.pool_users.is_empty() {
        return Ok(CheckOutcome::not_needed(NO_POOL));
    }
    let (mut problems, mut good) = (vec![], BTreeSet::new());
    // Root may write anywhere, and nothing is tried as root.
    for tenant in exam
        .patient
        .pool_users
        .iter()
        .filter(|tenant| !tenant.who.is_root())
    {
        let wanted = wanted(tenant);
        let paths: Vec<_> = wanted.iter().map(|(path, _)| path.clone()).collect();
        let troubles = exam.ask_as(&tenant.who, Directories(paths))?;
        for ((path, what), trouble) in wanted.iter().zip(troubles) {
            let shown = path.display();
            let Some(trouble) = trouble else {
                good.insert(shown.to_string());
                continue;
            };
            let text = format!(
                "{shown} for {what}, as {}: {}",
                tenant.who.name, trouble.text
            );
            problems.push(Problem::new(text, make(exam, path)));
        }
    }
    let good: Vec<_> = good.into_iter().collect();
    Ok(CheckOutcome::of(
        problems,
        format!("{} can be written to", good.join(", ")),
    ))
}

/// Sessions of one user are not for another one to list; `/tmp` is everybody's. Whoever owns a
/// directory on the way can put a link there, which root shall not follow.
fn make(exam: &Exam<'_>, path: &Path) -> Remedy {
    let mode = if path.ends_with("tmp") {
        "1777"
    } else {
        "1733"
    };
    let root = exam.patient.desired.root.as_path();
    let path = root.join(path.strip_prefix("/").unwrap_or(path));
    let way = path.ancestors().take_while(|above| above.starts_with(root));
    let owners = way.filter_map(|above| above.symlink_metadata().ok());
    let owner = owners.filter(|owner| owner.uid() != 0).last();
    let owner = owner.map(|owner| {
        format!(
            "setpriv --reuid={} --regid={} --clear-groups ",
            owner.uid(),
            owner.gid()
        )
    });
    let command = format!("install -d -m {mode} {}", word(&path.to_string_lossy()));
    Remedy::act(owner.unwrap_or_default() + &command)
}

/// The directories that PHP writes to, each once, with what it does there.
fn wanted(tenant: &PoolUser) -> Vec<(PathBuf, &'static str)> {
    let settings = &tenant.settings;
    let temporary = tenant.temporary_directory();
    let mut wanted = vec![(temporary, "temporary files")];
    if settings.flag("file_uploads") != Some(false) {
        wanted.push((
            settings.get("upload_tmp_dir").unwrap_or(temporary),
            "uploads",
        ));
    }
    if settings
        .get("session.save_handler")
        .is_none_or(|handler| handler == "files")
    {
        // "N;MODE;/path"
        let set = settings
            .get("session.save_path")
            .and_then(|path| path.rsplit(';').next());
        let debian = Path::new(DEBIANS_SESSIONS)
            .is_dir()
            .then_some(DEBIANS_SESSIONS);
        wanted.push((set.or(debian).unwrap_or(temporary), "sessions"));
    }
    let mut known = BTreeSet::new();
    wanted.retain(|(path, _)| known.insert(*path));
    wanted
        .into_iter()
        .map(|(path, what)| (PathBuf::from(path), what))
        .collect()
}

/// `OPcache` knows scripts by their paths, which sites in different roots share.
pub(super) fn opcache(exam: &Exam<'_>) -> CheckOutcome {
    let loaded = |tenant: &&PoolUser| {
        let settings = &tenant.settings;
        settings
            .flag("opcache.enable")
            .unwrap_or_else(|| settings.loads("opcache"))
    };
    let pool_users: Vec<_> = exam.patient.pool_users.iter().filter(loaded).collect();
    if pool_users.is_empty() {
        let why = if exam.patient.pool_users.is_empty() {
            NO_POOL
        } else {
            "OPcache is not loaded"
        };
        return CheckOutcome::not_needed(why);
    }
    let mut problems = vec![];
    for tenant in pool_users {
        if tenant.others.is_empty() || tenant.settings.flag("opcache.validate_root") == Some(true) {
            continue;
        }
        let others = tenant.others.join(", ");
        let text = format!(
            "opcache.validate_root is off: scripts of the same path in pool {others} get mixed up"
        );
        let file = tenant
            .settings
            .file
            .as_ref()
            .map_or("php.ini".to_owned(), |file| file.display().to_string());
        let remedy = format!("`opcache.validate_root = 1` in {file}, then restart PHP-FPM");
        problems.push(Problem::new(text, Remedy::act(remedy)));
    }
    let alone = exam
        .patient
        .pool_users
        .iter()
        .all(|tenant| tenant.others.is_empty());
    CheckOutcome::of(
        problems,
        if alone {
            "no pool with another root shares it"
        } else {
            "opcache.validate_root is on"
        },
    )
}

/// A web server whose root is the jail's serves `/etc` and all other mounts to everybody.
pub(super) fn web_root(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if exam.patient.pool_users.is_empty() {
        return Ok(CheckOutcome::not_needed(NO_POOL));
    }
    let root = exam.patient.desired.root.as_path();
    let mut signs: Vec<String> = exam
        .ask(WebRoot)?
        .into_iter()
        .map(|file| format!("{file} is there"))
        .collect();
    let by_php = exam
        .patient
        .pool_users
        .iter()
        .any(|tenant| tenant.settings.get("doc_root") == Some("/"));
    signs.extend(by_php.then(|| "doc_root is /".to_owned()));
    signs.extend(served_by(root).map(|file| format!("{} names it", file.display())));
    let problem = (!signs.is_empty()).then(|| {
        let text = format!(
            "the jail's root seems to be the web root, with /etc in it: {}",
            signs.join(", ")
        );
        let remedy = format!(
            "move the site's files to {}/htdocs, and name that in the web server",
            root.display()
        );
        Problem::new(text, Remedy::act(remedy))
    });
    Ok(CheckOutcome::of(
        problem.into_iter().collect(),
        "the jail's root is not the web root, as far as can be seen",
    ))
}

/// The web server's configuration that has `root` for the root of a site.
fn served_by(root: &Path) -> Option<PathBuf> {
    let files = WEB_SERVERS
        .iter()
        .filter_map(|pattern| glob::glob(pattern).ok())
        .flatten()
        .flatten();
    files.into_iter().find(|file| {
        let text = fs::read(file).unwrap_or_default();
        String::from_utf8_lossy(&text)
            .lines()
            .any(|line| web_root_of(line).is_some_and(|path| path == root))
    })
}

/// `root /srv/www/site1;` of nginx, `DocumentRoot "/srv/www/site1"` of Apache.
fn web_root_of(line: &str) -> Option<&Path> {
    let (key, value) = line.trim().split_once(char::is_whitespace)?;
    let is_root = key == "root" || key.eq_ignore_ascii_case("DocumentRoot");
    let value = value.split(';').next()?.trim().trim_matches(['"', '\'']);
    is_root.then(|| Path::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_roots() {
        let root = |line| web_root_of(line).map(|path| path.display().to_string());
        assert_eq!(root("    root /srv/www/a/;"), Some("/srv/www/a/".into()));
        assert_eq!(
            root("\tDocumentRoot \"/srv/www/a\""),
            Some("/srv/www/a".into())
        );
        assert_eq!(root("# root /srv/www/a;"), None);
        assert_eq!(
            web_root_of("root /srv/www/a/;"),
            Some(Path::new("/srv/www/a"))
        );
    }
}
