//! `ChrootDirectory` of `sshd_config(5)`, for everybody and in `Match` blocks.

mod blocks;
#[cfg(test)]
mod tests;

use std::path::Path;

use self::blocks::{Blocks, ChrootLine, MatchBlock, words};
use super::{DaemonSites, Needs};
use crate::import::draft::Draft;
use crate::import::logins::Login;
use crate::observe::Units;

pub(in crate::import) use blocks::{IncludedFile, SshdHost};

/// Keywords that only `sshd_config` has.
const KEYWORDS: [&str; 14] = [
    "allowgroups",
    "allowusers",
    "authorizedkeysfile",
    "chrootdirectory",
    "forcecommand",
    "hostkey",
    "kbdinteractiveauthentication",
    "match",
    "passwordauthentication",
    "permitrootlogin",
    "pubkeyauthentication",
    "subsystem",
    "usepam",
    "x11forwarding",
];

/// Whether a line is one of `sshd_config`.
pub(in crate::import) fn looks_like(line: &str) -> bool {
    match words(line).first() {
        Some(word) => KEYWORDS.contains(&word.to_ascii_lowercase().as_str()),
        None => false,
    }
}

/// The sites of a file, and of the files that it includes.
pub(in crate::import) fn read(
    file: &Path,
    text: &str,
    host: &SshdHost<'_>,
    units: &Units,
) -> DaemonSites {
    let mut blocks = Blocks::new(host);
    blocks.file(file, text);
    let mut read = DaemonSites {
        warnings: blocks.warnings,
        ..DaemonSites::default()
    };
    // Of the blocks that apply to a user, the first one counts.
    let mut settled: Vec<Login> = vec![];
    for block in &blocks.all {
        let Some(line) = &block.root else { continue };
        let told = users(&block.criteria, host);
        let mut users = told.clone().unwrap_or_default();
        let names_users = !users.is_empty();
        users.retain(|user| !settled.contains(user));
        if always_applies(&block.criteria) {
            settled.extend_from_slice(&users);
        }
        let is_settled = users.is_empty() && names_users;
        if !is_settled && !line.root.eq_ignore_ascii_case("none") {
            let users = told.map(|_| users);
            add_sites(&mut read, line, block, users.as_deref(), units);
        }
    }
    if read == DaemonSites::default() {
        read.warnings.push(format!(
            "{}: it has no ChrootDirectory: nothing to mount",
            file.display()
        ));
    }
    read
}

/// The sites of a `ChrootDirectory`: one, or one per user if its value differs between them.
/// `users`: those of the block; `None`: it does not tell.
fn add_sites(
    read: &mut DaemonSites,
    line: &ChrootLine,
    block: &MatchBlock,
    users: Option<&[Login]>,
    units: &Units,
) {
    let (place, root) = (line.place(), &line.root);
    let nobody = users.is_some_and(<[Login]>::is_empty);
    if !root.replace("%%", "").contains('%') {
        let own = ChrootLine {
            root: root.replace("%%", "%"),
            ..line.clone()
        };
        let why = if nobody {
            "no user of this host is one of those whom it is for"
        } else {
            "the file does not tell for which users it is: name them under `users`"
        };
        let users = users.unwrap_or_default();
        if let Some(draft) = add_site(read, &own, block, users, units)
            && users.is_empty()
        {
            draft.remarks.push(format!("{place}: {why}."));
        }
    } else if nobody {
        read.warnings.push(format!(
            "{place}: ChrootDirectory {root}: no user of this host is one of those whom it is for"
        ));
    } else if let Some(users) = users {
        for user in users {
            let own = ChrootLine {
                root: expand(root, user),
                ..line.clone()
            };
            add_site(read, &own, block, std::slice::from_ref(user), units);
        }
    } else {
        read.warnings.push(format!(
            "{place}: ChrootDirectory {root}: the file does not tell for which users; write a \
             manifest for each"
        ));
    }
}

fn add_site<'r>(
    read: &'r mut DaemonSites,
    line: &ChrootLine,
    block: &MatchBlock,
    users: &[Login],
    units: &Units,
) -> Option<&'r mut Draft> {
    let what = if block.criteria.is_empty() {
        "The ChrootDirectory".to_owned()
    } else {
        format!("The ChrootDirectory for {}", block.criteria.join(" "))
    };
    let place = line.place();
    let draft = read.site(place, &what, &line.root)?;

    let users: Vec<_> = users.iter().map(|user| user.name.as_str()).collect();
    let needs = Needs {
        presets: if block.sftp {
            &["sftp", "syslog", "timezone"]
        } else {
            &["ssh-shell", "shell", "timezone"]
        },
        users: &users,
        services: &["ssh.service", "sshd.service"],
    };
    needs.add_to(draft, units);
    Some(draft)
}

/// The users of the host that all criteria apply to: `User a,b`, `Group g`. `None`: these do not
/// tell.
fn users(criteria: &[String], host: &SshdHost<'_>) -> Option<Vec<Login>> {
    let mut found: Option<Vec<Login>> = None;
    let mut excluded = vec![];
    for pair in criteria.chunks(2) {
        let [criterion, list] = pair else { continue };
        let criterion = criterion.to_ascii_lowercase();
        let (mut users, mut is_pattern) = (vec![], false);
        for name in list.split(',') {
            if let Some(name) = name.strip_prefix('!') {
                excluded.extend(users_of(&criterion, name, host));
            } else {
                is_pattern |= name.contains(['*', '?']);
                users.extend(users_of(&criterion, name, host));
            }
        }
        let tells = criterion == "user" || criterion == "group";
        if !tells || is_pattern {
            continue;
        }
        match &mut found {
            Some(found) => found.retain(|user| users.contains(user)),
            None => found = Some(users),
        }
    }
    let mut found = found?;
    found.retain(|user| !excluded.contains(user));
    Some(found)
}

/// The users that a name in a criterion stands for.
fn users_of(criterion: &str, name: &str, host: &SshdHost<'_>) -> Vec<Login> {
    match criterion {
        "user" => (host.user)(name).into_iter().collect(),
        "group" => (host.users_of_group)(name),
        _ => vec![],
    }
}

/// Whether a block applies to its users wherever they come from.
fn always_applies(criteria: &[String]) -> bool {
    criteria.chunks(2).all(|pair| {
        let [criterion, list] = pair else {
            return false;
        };
        let criterion = criterion.to_ascii_lowercase();
        (criterion == "user" || criterion == "group") && !list.contains(['*', '?'])
    })
}

/// `root` with its tokens replaced.
fn expand(root: &str, login: &Login) -> String {
    let mut text = String::new();
    let mut chars = root.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('u') => text.push_str(&login.name),
            Some('h') => text.push_str(&login.home),
            Some('U') => text.push_str(&login.uid.to_string()),
            Some('%') | None => text.push('%'),
            Some(other) => text.extend(['%', other]),
        }
    }
    text
}
