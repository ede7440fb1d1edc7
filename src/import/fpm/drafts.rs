//! Pools → sites, one per chroot, with what an administrator should know at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};

use super::needs;
use super::pool::Pool;
use crate::base::HostPath;
use crate::import::draft::{Draft, DraftItem, DraftKind};
use crate::import::logins;
use crate::import::php::PhpSettings;
use crate::import::real::{real, without_parents};
use crate::import::site_names::as_site_name;
use crate::resolve::{Host, LookupError, refuse_system};
use crate::{Error, Result};

/// The sites of these pools, one per chroot, with the users and services of all its pools; and what
/// is wrong with the pools that cannot be imported.
pub(crate) fn drafts(pools: &[Pool]) -> (Vec<Draft>, Vec<Error>) {
    let host = Host::new();
    let mut drafts = vec![];
    let mut errors = vec![];

    for pool in pools {
        let Some(chroot) = pool.chroot() else {
            continue;
        };
        match root_of(&host, chroot) {
            Ok(root) => {
                let draft = draft_at(&mut drafts, pool, &root);
                draft.remarks.extend(root_remark(pool, chroot, &root));
                add(draft, &root, pool);
            }
            Err(error) => {
                let (place, name) = (pool.place(), &pool.name);
                errors.push(error.context(format_args!("{place}: pool {name}")));
            }
        }
    }
    for draft in &mut drafts {
        // A pool may be one of several masters.
        let mut known = BTreeSet::new();
        let (found, remarks) = (&mut draft.found, &mut draft.remarks);
        found.retain(|sentence| known.insert(sentence.clone()));
        remarks.retain(|sentence| known.insert(sentence.clone()));
    }
    (drafts, errors)
}

/// The directory that the kernel takes for a chroot. A link on the way that others than root can
/// change is not followed: its owner must not choose whose root becomes a site.
fn root_of(host: &Host, chroot: &str) -> Result<HostPath> {
    let what = format!("chroot = {chroot}");
    let root = match real(host, Path::new(chroot)) {
        Ok(root) => root,
        Err(LookupError::Missing { .. } | LookupError::Dangling { .. }) => {
            without_parents(host, Path::new(chroot)).map_err(|error| error.error(&*what))?
        }
        Err(error) => return Err(error.error(what)),
    };
    match refuse_system(&root) {
        Ok(()) => Ok(root),
        Err(why) => Err(Error::failed(what).because_of(why)),
    }
}

/// Remarks about the root.
fn root_remark(pool: &Pool, chroot: &str, root: &HostPath) -> Option<String> {
    let name = &pool.name;
    if !root.as_path().is_dir() {
        return Some(format!(
            "The root {root} of the pool {name} is not there: `mountjail up --create` makes it."
        ));
    }
    if root.as_path() == Path::new(chroot) {
        return None;
    }
    Some(format!(
        "The chroot {chroot} of the pool {name} leads to {root}."
    ))
}

/// The draft of the site with this root, which is added if there is none yet.
fn draft_at<'d>(drafts: &'d mut Vec<Draft>, pool: &Pool, root: &HostPath) -> &'d mut Draft {
    let known = drafts.iter().position(|draft| draft.root() == Some(root));
    let at = known.unwrap_or(drafts.len());
    if known.is_none() {
        drafts.push(new_draft(pool, root));
    }
    &mut drafts[at]
}

fn new_draft(pool: &Pool, root: &HostPath) -> Draft {
    let mut draft = Draft::new(as_site_name(&pool.name), DraftKind::Site(root.clone()));
    if draft.name != pool.name {
        draft.remarks.push(format!(
            "The pool {} becomes the site {}, because a site's file cannot have its name.",
            pool.name, draft.name
        ));
    }
    draft.place = pool.place();
    draft.presets.push("php-fpm".to_owned());
    draft
}

fn add(draft: &mut Draft, root: &HostPath, pool: &Pool) {
    let name = &pool.name;
    let file = pool.file.display();
    draft.found.push(format!("The pool {name} of {file}."));
    draft.services.extend(pool.unit.clone());

    if let Some(user) = pool.get("user") {
        match logins::name_of(user).map(DraftItem::new) {
            Some(user) if !draft.users.contains(&user) => {
                draft.users.push(user);
                draft.users.sort_by(|a, b| a.any_of.cmp(&b.any_of));
            }
            Some(_) => {}
            None => draft.remarks.push(format!(
                "The pool {name} runs as the user with the id {user}, which has no name on this \
                 host."
            )),
        }
    }
    draft.remarks.extend(account_remarks(pool));
    for why in pool.refusals() {
        let remark = format!("PHP-FPM does not start with the pool {name}: {why}.");
        draft.remarks.push(remark);
    }
    if let Some(user) = namesake_of_group(pool)
        && !draft.users.contains(&user)
    {
        draft.users.push(user);
    }
    needs::add(draft, root, pool);
    let of_environment = environment_remarks(draft, root, pool);
    draft.remarks.extend(of_environment);
    draft.remarks.extend(outside_remarks(root, pool));
    if let Some(listen) = pool.get("listen")
        && Path::new(listen).starts_with(root)
    {
        draft.remarks.push(format!(
            "The socket {listen} of the pool {name} is inside the root: the site's owner can \
             replace \
             it."
        ));
    }
}

/// The variables of the pool's environment that name a path of the host which the site does not
/// have.
fn environment_remarks(draft: &Draft, root: &HostPath, pool: &Pool) -> Vec<String> {
    let mut variables = pool.php_values("env");
    variables.sort_unstable();
    let mut remarks = vec![];
    for (name, value) in variables {
        if name != "PATH" && is_missing(draft, root, Path::new(&value)) {
            remarks.push(format!(
                "The pool {} sets {name} to {value}, which the site does not have: add it to \
                 `mounts` if its scripts use it.",
                pool.name
            ));
        }
    }
    remarks
}

/// The settings and variables of the pool that name the root's own files by their paths on the
/// host, which lead elsewhere inside.
fn outside_remarks(root: &HostPath, pool: &Pool) -> Vec<String> {
    let mut remarks = vec![];
    for kind in ["php_value", "php_admin_value", "env"] {
        let mut values = pool.php_values(kind);
        values.sort_unstable();
        for (name, value) in values {
            let mut paths = value.split([':', ';']).map(Path::new);
            let outside = paths.find_map(|path| Some((path, inside(root, path)?)));
            let Some((path, inside)) = outside else {
                continue;
            };
            remarks.push(format!(
                "{kind}[{name}] of the pool {} names {}, a path of the host: inside, that file is \
                 {}.",
                pool.name,
                path.display(),
                inside.display()
            ));
        }
    }
    remarks
}

/// The path inside of a file in the root, if the root has nothing at the host's path.
fn inside(root: &HostPath, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(root.as_path()).ok()?;
    let same = root.as_path().join(path.strip_prefix("/").ok()?);
    same.symlink_metadata()
        .is_err()
        .then(|| Path::new("/").join(below))
}

/// Whether the host has `path`, and the site neither has nor gets it.
fn is_missing(draft: &Draft, root: &HostPath, path: &Path) -> bool {
    let Ok(below) = path.strip_prefix("/") else {
        return false;
    };
    for own in &draft.directories {
        if Path::new(&own.path) == path {
            return false;
        }
    }
    let inside = root.as_path().join(below);
    path.exists() && inside.symlink_metadata().is_err()
}

/// Remarks about a pool's user and group on this host.
fn account_remarks(pool: &Pool) -> Vec<String> {
    let name = &pool.name;
    let mut remarks = vec![];

    let mut account = None;
    if let Some(user) = pool.get("user").filter(is_name) {
        account = User::from_name(user).ok().flatten();
        if account.is_none() {
            remarks.push(format!(
                "The pool {name} runs as the user {user}, whom this host does not have."
            ));
        }
    }

    let Some(group_name) = pool.get("group").filter(is_name) else {
        return remarks;
    };
    let Some(group) = Group::from_name(group_name).ok().flatten() else {
        remarks.push(format!(
            "The pool {name} runs with the group {group_name}, which this host does not have."
        ));
        return remarks;
    };
    let is_users = match account {
        Some(user) => user.gid == group.gid || group.mem.contains(&user.name),
        None => false,
    };
    let has_name = is_users || namesake_of_group(pool).is_some();
    if !has_name && group.gid.as_raw() != 0 {
        remarks.push(format!(
            "The pool {name} runs with the group {group_name}, which its user is not a member of: \
             inside, the group only has a name if `users` has a member of it."
        ));
    }
    remarks
}

/// The user whose own group is that of the pool and has the same name: it gives the group a name
/// inside.
fn namesake_of_group(pool: &Pool) -> Option<DraftItem> {
    let name = pool.get("group").filter(is_name)?;
    let group = Group::from_name(name).ok().flatten()?;
    let user = User::from_name(name).ok().flatten()?;
    if user.gid != group.gid || group.gid.as_raw() == 0 {
        return None;
    }
    Some(DraftItem::new(name))
}

/// Whether a user or group is given by name, not by id.
fn is_name(text: &&str) -> bool {
    text.parse::<u32>().is_err()
}

/// The warning about pools with different roots that share their master's cache of scripts.
/// `pools`: those of one master.
pub(crate) fn shared_cache(pools: &[Pool]) -> Option<String> {
    let mut roots = BTreeSet::new();
    for pool in pools {
        roots.insert(pool.chroot().unwrap_or("/"));
    }
    if roots.len() < 2 {
        return None;
    }

    let jailed = pools.iter().find(|pool| pool.chroot().is_some())?;
    let settings = PhpSettings::new(jailed);
    if !settings.has_opcache() || settings.flag("opcache.validate_root") == Some(true) {
        return None;
    }
    let file = match &settings.file {
        Some(file) => file.display().to_string(),
        None => "php.ini".to_owned(),
    };
    Some(format!(
        "opcache.validate_root is off: PHP-FPM serves one site's scripts in another if their paths \
         inside are equal; set `opcache.validate_root = 1` in {file}, and restart PHP-FPM"
    ))
}
