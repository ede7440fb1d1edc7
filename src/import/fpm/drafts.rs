//! Pools → sites, one a chroot, with what an administrator should know at once.

use std::path::{Component, Path};

use nix::unistd::{Group, User};

use super::Pool;
use crate::base::HostPath;
use crate::import::draft::{Draft, DraftItem, DraftKind};
use crate::import::php::PhpSettings;
use crate::resolve::{Host, LookupError, refuse_system};
use crate::{Error, Result};

/// The sites of these pools: one a chroot, with the users and services of all its pools. And what
/// is wrong with those that no manifest can say.
pub(crate) fn drafts(pools: &[Pool]) -> (Vec<Draft>, Vec<Error>) {
    let host = Host::new();
    let (mut drafts, mut errors) = (vec![], vec![]);
    for pool in pools.iter().filter(|pool| pool.chroot().is_some()) {
        match root_of(&host, pool) {
            Ok((root, remark)) => {
                let draft = draft_at(&mut drafts, pool, &root);
                draft.remarks.extend(remark);
                add(draft, &root, pool);
            }
            Err(error) => errors.push(error),
        }
    }
    (drafts, errors)
}

/// The directory that the kernel takes for a pool's chroot, and what is odd about its name. A link
/// on the way that is in the hands of others than root is not followed: its owner must not choose
/// whose root becomes a site.
fn root_of(host: &Host, pool: &Pool) -> Result<(HostPath, Option<String>)> {
    let chroot = pool.chroot().unwrap_or_default();
    let cannot = || {
        Error::failed(format!(
            "{}: pool {}: chroot = {chroot}",
            pool.place(),
            pool.name
        ))
    };
    let root = match real(host, Path::new(&chroot)) {
        Err(LookupError::Missing { .. } | LookupError::Dangling { .. }) => HostPath::new(&chroot),
        Err(error) => return Err(error.error(cannot().to_string())),
        Ok(real) => Ok(real),
    };
    let root = root.map_err(|why| cannot().because_of(why))?;
    refuse_system(&root).map_err(|why| cannot().because_of(why))?;
    let as_named = HostPath::new(&chroot).is_ok_and(|named| named == root);
    let remark = if root.as_path().is_dir() {
        (!as_named).then(|| {
            format!(
                "The chroot {chroot} of the pool {} leads to {root}.",
                pool.name
            )
        })
    } else {
        Some(format!(
            "The root {root} of the pool {} is not there: `mountjail up --create` makes it.",
            pool.name
        ))
    };
    Ok((root, remark))
}

/// Where `path` leads, as `path_resolution(7)` has it, `..` included.
fn real(host: &Host, path: &Path) -> Result<HostPath, LookupError> {
    let mut at = HostPath::slash();
    for component in path.components() {
        at = match component {
            Component::Normal(name) => match at.join(name) {
                Ok(next) => host.walk_strictly(&next)?.real,
                Err(_) => return Err(LookupError::Missing { at }),
            },
            Component::ParentDir => at.parent().unwrap_or(at),
            _ => at,
        };
    }
    Ok(at)
}

fn draft_at<'d>(drafts: &'d mut Vec<Draft>, pool: &Pool, root: &HostPath) -> &'d mut Draft {
    let nth = drafts
        .iter()
        .position(|draft| draft.root() == Some(root))
        .unwrap_or_else(|| {
            let draft = Draft::new(pool.name.clone(), DraftKind::Site(root.clone()));
            drafts.push(Draft {
                place: pool.place(),
                presets: vec!["php-fpm".to_owned()],
                ..draft
            });
            drafts.len() - 1
        });
    &mut drafts[nth]
}

fn add(draft: &mut Draft, root: &HostPath, pool: &Pool) {
    draft.found.push(format!(
        "The pool {} of {}.",
        pool.name,
        pool.file.display()
    ));
    draft.services.extend(pool.unit.clone());
    match pool.get("user") {
        Some(user) if user.bytes().all(|byte| byte.is_ascii_digit()) => draft.remarks.push(format!(
            "The pool {} runs as the user with the id {user}: name that user under `users`, if it has a name.",
            pool.name
        )),
        Some(user) if draft.users.iter().all(|known| known.any_of != [user]) => {
            draft.users.push(DraftItem::new(user));
            draft.users.sort_by(|a, b| a.any_of.cmp(&b.any_of));
        }
        _ => {}
    }
    draft.remarks.extend(accounts(pool));
    if let Some(listen) = pool.get("listen")
        && Path::new(listen).starts_with(root)
    {
        draft.remarks.push(format!(
            "The socket {listen} of the pool {} is inside the root: the site's owner can replace it.",
            pool.name
        ));
    }
}

/// What is odd about a pool's user and group on this host.
fn accounts(pool: &Pool) -> Vec<String> {
    let mut remarks = vec![];
    let name = &pool.name;
    let user = pool.get("user").filter(|user| user.parse::<u32>().is_err());
    let account = user.and_then(|user| User::from_name(user).ok().flatten());
    if let (Some(user), None) = (user, &account) {
        remarks.push(format!(
            "The pool {name} runs as the user {user}, whom this host does not have."
        ));
    }
    let Some(group) = pool
        .get("group")
        .filter(|group| group.parse::<u32>().is_err())
    else {
        return remarks;
    };
    match Group::from_name(group).ok().flatten() {
        None => remarks.push(format!(
            "The pool {name} runs with the group {group}, which this host does not have."
        )),
        Some(found) => {
            let of_user =
                account.is_some_and(|user| user.gid == found.gid || found.mem.contains(&user.name));
            if !of_user && found.gid.as_raw() != 0 {
                remarks.push(format!(
                    "The pool {name} runs with the group {group}, which its user is not in: inside, the group has a name \
                     only if `users` has a user of it."
                ));
            }
        }
    }
    remarks
}

/// What a master does to pools with different roots that share its cache of scripts. `pools` are
/// those of one master.
pub(crate) fn shared_cache(pools: &[Pool]) -> Option<String> {
    let mut roots: Vec<_> = pools
        .iter()
        .map(|pool| pool.chroot().unwrap_or_else(|| "/".to_owned()))
        .collect();
    roots.sort();
    roots.dedup();
    let jailed = pools
        .iter()
        .find(|pool| pool.chroot().is_some())
        .filter(|_| roots.len() > 1)?;
    let settings = PhpSettings::new(jailed);
    let mixed = settings.loads("opcache")
        && settings.flag("opcache.enable") != Some(false)
        && settings.flag("opcache.validate_root") != Some(true);
    let file = settings
        .file
        .as_ref()
        .map_or("php.ini".to_owned(), |file| file.display().to_string());
    mixed.then(|| {
        format!(
            "opcache.validate_root is off: PHP-FPM serves one site's scripts in another, where their paths inside are \
             equal; set `opcache.validate_root = 1` in {file}, and restart PHP-FPM"
        )
    })
}
