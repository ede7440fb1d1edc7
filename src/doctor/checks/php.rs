//! PHP's own needs: directories to write to, a cache of scripts that tells roots apart, a web root
//! that is not the jail's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::quote::shell_path;
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{PathUse, Usable, WebRoot};
use crate::import::fpm::{Written, mode_of_written, written_by};

/// Configurations of web servers.
const WEB_SERVERS: [&str; 5] = [
    "/etc/nginx/sites-enabled/*",
    "/etc/nginx/conf.d/*.conf",
    "/etc/apache2/sites-enabled/*",
    "/etc/httpd/conf.d/*.conf",
    "/etc/nginx/nginx.conf",
];

pub(super) const NO_POOL: &str = "no PHP-FPM pool has this chroot";

pub(super) fn directories(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if exam.site.pool_users.is_empty() {
        return Ok(CheckOutcome::not_needed(NO_POOL));
    }

    let (mut problems, mut good) = (vec![], BTreeSet::new());
    for pool_user in exam.site.pool_users {
        // Root may write anywhere, and nothing is tried as root.
        if pool_user.user.is_root() {
            continue;
        }
        let user = &pool_user.user;
        let written = written_by(&pool_user.pool, &pool_user.settings);
        let mut questions = vec![];
        for place in &written {
            let needed = if place.is_file {
                PathUse::Append
            } else {
                PathUse::WriteIn
            };
            questions.push((place.path.clone(), needed));
        }
        let errors = exam.ask_as(user, Usable(questions))?;
        for (place, error) in written.iter().zip(errors) {
            let shown = place.path.display();
            match error {
                None => drop(good.insert(shown.to_string())),
                Some(error) => {
                    let (what_for, name) = (place.what_for, &user.name);
                    let text = format!("{shown} for {what_for}, as {name}: {error}");
                    problems.push(Problem::new(text, let_write(exam, name, place)));
                }
            }
        }
    }

    let good: Vec<_> = good.into_iter().collect();
    let good = format!("{} can be written to", good.join(", "));
    Ok(CheckOutcome::judge(problems, good))
}

/// The remedy that lets the user write there.
fn let_write(exam: &Exam<'_>, user: &str, place: &Written) -> Remedy {
    let root = exam.site.desired.root.as_path();
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let file = inside(&place.path);
    if place.is_file && file.is_file() {
        let command = format!("setfacl -m u:{user}:rw {}", shell_path(&file));
        return Remedy::act(by_owner(root, &file, command));
    }
    let directory = place.directory();
    if place.is_file && directory == Path::new("/") {
        let setting = place.what_for;
        return Remedy::act(format!(
            "name a file in a directory in `{setting}`, such as /var/log/php/{setting}: others \
             than root do not write to /"
        ));
    }
    let mode = mode_of_written(directory);
    let directory = inside(directory);
    let command = format!("install -d -m {mode} {}", shell_path(&directory));
    Remedy::act(by_owner(root, &directory, command))
}

/// The command, run by the owner of what is on the way to `path`.
fn by_owner(root: &Path, path: &Path, command: String) -> String {
    match owner_on_the_way(root, path) {
        Some((uid, gid)) => {
            format!("setpriv --reuid={uid} --regid={gid} --clear-groups {command}")
        }
        None => command,
    }
}

/// The user and group, other than root, of the topmost directory from `root` to `path` that is not
/// root's. Its owner can put a link there, which root must not follow.
fn owner_on_the_way(root: &Path, path: &Path) -> Option<(u32, u32)> {
    let mut owner = None;
    for above in path.ancestors().take_while(|above| above.starts_with(root)) {
        if let Ok(metadata) = above.symlink_metadata()
            && metadata.uid() != 0
        {
            owner = Some((metadata.uid(), metadata.gid()));
        }
    }
    owner
}

/// `OPcache` knows scripts by their paths, which sites in different roots share.
pub(super) fn opcache(exam: &Exam<'_>) -> CheckOutcome {
    if exam.site.pool_users.is_empty() {
        return CheckOutcome::not_needed(NO_POOL);
    }
    let mut pool_users = exam.site.pool_users.iter();
    if !pool_users.any(|pool_user| pool_user.settings.has_opcache()) {
        return CheckOutcome::not_needed("OPcache is not loaded");
    }

    let mut problems = vec![];
    for pool_user in exam.site.pool_users {
        let settings = &pool_user.settings;
        let is_safe = settings.flag("opcache.validate_root") == Some(true);
        if !settings.has_opcache() || pool_user.others.is_empty() || is_safe {
            continue;
        }
        let text = format!(
            "opcache.validate_root is off: scripts are mixed up with those of the same path in \
             pool {}",
            pool_user.others.join(", ")
        );
        let file = match &settings.file {
            Some(file) => file.display().to_string(),
            None => "php.ini".to_owned(),
        };
        let remedy = format!("set `opcache.validate_root = 1` in {file}, then restart PHP-FPM");
        problems.push(Problem::new(text, Remedy::act(remedy)));
    }

    let mut pool_users = exam.site.pool_users.iter();
    let good = if pool_users.all(|pool_user| pool_user.others.is_empty()) {
        "no pool with another root shares it"
    } else {
        "opcache.validate_root is on"
    };
    CheckOutcome::judge(problems, good)
}

/// A web server whose document root is the jail's root serves `/etc` and all other mounts to
/// everybody.
pub(super) fn web_root(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if exam.site.pool_users.is_empty() {
        return Ok(CheckOutcome::not_needed(NO_POOL));
    }

    let root = exam.site.desired.root.as_path();
    let mut signs = vec![];
    for file in exam.ask(WebRoot)? {
        signs.push(format!("{file} is there"));
    }
    let mut pool_users = exam.site.pool_users.iter();
    if pool_users.any(|pool_user| pool_user.settings.get("doc_root") == Some("/")) {
        signs.push("doc_root is /".to_owned());
    }
    if let Some(file) = served_by(root) {
        signs.push(format!("{} names it", file.display()));
    }

    if signs.is_empty() {
        let text = "the jail's root is not the web root, as far as can be seen";
        return Ok(CheckOutcome::ok(text));
    }
    let signs = signs.join(", ");
    let root = root.display();
    Ok(CheckOutcome::failed(Problem::new(
        format!("the jail's root, with /etc in it, seems to be the web root: {signs}"),
        Remedy::act(format!(
            "move the site's files to {root}/htdocs, and name that directory in the web server's \
             configuration"
        )),
    )))
}

/// The web server's file that has `root` as the document root of a site.
fn served_by(root: &Path) -> Option<PathBuf> {
    for pattern in WEB_SERVERS {
        for file in glob::glob(pattern).ok()?.flatten() {
            let text = fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if text.lines().any(|line| web_root_of(line) == Some(root)) {
                return Some(file);
            }
        }
    }
    None
}

/// `root /srv/www/site1;` of nginx, `DocumentRoot "/srv/www/site1"` of Apache.
fn web_root_of(line: &str) -> Option<&Path> {
    let (key, value) = line.trim().split_once(char::is_whitespace)?;
    let is_root = key == "root" || key.eq_ignore_ascii_case("DocumentRoot");
    let value = value.split(';').next()?.trim().trim_matches(['"', '\'']);
    if !is_root {
        return None;
    }
    Some(Path::new(value))
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
