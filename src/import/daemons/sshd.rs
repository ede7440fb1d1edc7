//! `ChrootDirectory` of `sshd_config(5)`, for all and in `Match` blocks.

use std::path::Path;

use super::{DaemonSites, FileLine, add};
use crate::observe::Units;

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

/// A login with what the tokens of `ChrootDirectory` stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::import) struct Login {
    pub name: String,
    pub uid: u32,
    pub home: String,
}

/// The logins of this host: by name, and those of a group.
pub(in crate::import) struct Logins<'l> {
    pub named: &'l dyn Fn(&str) -> Option<Login>,
    pub of_group: &'l dyn Fn(&str) -> Vec<Login>,
}

/// What a `Match` block, or the part before the first, says.
#[derive(Default)]
struct MatchBlock {
    /// The criteria; empty: it is about everybody.
    criteria: Vec<String>,
    /// The line and the value of `ChrootDirectory`: the first counts.
    root: Option<(usize, String)>,
    sftp: bool,
}

/// Whether a line is one of `sshd_config`.
pub(in crate::import) fn looks_like(line: &str) -> bool {
    words(line)
        .first()
        .is_some_and(|word| KEYWORDS.contains(&word.to_ascii_lowercase().as_str()))
}

/// The sites of a file.
pub(in crate::import) fn read(
    file: &Path,
    text: &str,
    logins: &Logins<'_>,
    units: &Units,
) -> DaemonSites {
    let mut read = DaemonSites::default();
    for block in blocks(text) {
        let Some((line, root)) = block
            .root
            .as_ref()
            .filter(|(_, root)| !root.eq_ignore_ascii_case("none"))
        else {
            continue;
        };
        let place = FileLine { file, line: *line };
        let users = users(&block.criteria, logins);
        let each = |what: &str| {
            format!("{place}: ChrootDirectory {root}: {what}; write a manifest for each")
        };
        if !root.contains('%') {
            site(&mut read, place, root, &block, &users, units);
        } else if users.is_empty() {
            read.warnings
                .push(each("whom it is for is not known from the file alone"));
        }
        for login in users.iter().filter(|_| root.contains('%')) {
            let own = put_in(root, login);
            site(
                &mut read,
                place,
                &own,
                &block,
                std::slice::from_ref(login),
                units,
            );
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

fn site(
    read: &mut DaemonSites,
    place: FileLine<'_>,
    root: &str,
    block: &MatchBlock,
    users: &[Login],
    units: &Units,
) {
    let for_whom = if block.criteria.is_empty() {
        String::new()
    } else {
        format!(" for {}", block.criteria.join(" "))
    };
    let Some(draft) = read.site(place, &format!("The ChrootDirectory{for_whom}"), root) else {
        return;
    };
    let presets: &[&str] = if block.sftp {
        &["sftp", "syslog", "timezone"]
    } else {
        &["ssh-shell", "shell", "timezone"]
    };
    let names: Vec<_> = users.iter().map(|user| user.name.as_str()).collect();
    add(
        draft,
        presets,
        &names,
        &["ssh.service", "sshd.service"],
        units,
    );
    if names.is_empty() {
        draft.remarks.push(format!(
            "{place}: whom it is for is not known: name the logins under `users`."
        ));
    }
}

/// The words of a line, which blanks or one `=` separate; `"…"` is one.
fn words(line: &str) -> Vec<String> {
    let line = line.trim();
    if line.starts_with('#') {
        return vec![];
    }
    let (keyword, rest) = line
        .split_once(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or((line, ""));
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=');
    let rest = rest.split(" #").next().unwrap_or_default();
    [keyword.to_owned()]
        .into_iter()
        .chain(crate::import::unit_file::words(rest))
        .filter(|word| !word.is_empty())
        .collect()
}

fn blocks(text: &str) -> Vec<MatchBlock> {
    let mut blocks = vec![MatchBlock::default()];
    for (line, nth) in text.lines().zip(1..) {
        let mut words = words(line).into_iter();
        let Some(keyword) = words.next() else {
            continue;
        };
        let last = blocks.len() - 1;
        match keyword.to_ascii_lowercase().as_str() {
            "match" => {
                let criteria: Vec<_> = words
                    .filter(|word| !word.eq_ignore_ascii_case("all"))
                    .collect();
                blocks.push(MatchBlock {
                    criteria,
                    ..MatchBlock::default()
                });
            }
            "chrootdirectory" if blocks[last].root.is_none() => {
                blocks[last].root = words.next().map(|root| (nth, root));
            }
            "forcecommand" => {
                blocks[last].sftp |= words.next().is_some_and(|word| word == "internal-sftp");
            }
            _ => {}
        }
    }
    blocks
}

/// Whom a block is for, as far as its criteria tell: `User a,b`, `Group g`.
fn users(criteria: &[String], logins: &Logins<'_>) -> Vec<Login> {
    let mut found = vec![];
    for pair in criteria.chunks(2) {
        let [criterion, list] = pair else { continue };
        let names = list
            .split(',')
            .filter(|name| !name.contains(['*', '?', '!']));
        match criterion.to_ascii_lowercase().as_str() {
            "user" => found.extend(names.filter_map(logins.named)),
            "group" => found.extend(names.flat_map(logins.of_group)),
            _ => {}
        }
    }
    found
}

fn put_in(root: &str, login: &Login) -> String {
    let (mut text, mut chars) = (String::new(), root.chars());
    while let Some(c) = chars.next() {
        match (c, (c == '%').then(|| chars.next()).flatten()) {
            ('%', Some('u')) => text.push_str(&login.name),
            ('%', Some('h')) => text.push_str(&login.home),
            ('%', Some('U')) => text.push_str(&login.uid.to_string()),
            ('%', Some('%')) => text.push('%'),
            ('%', Some(other)) => text.extend(['%', other]),
            (c, _) => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(name: &str) -> Login {
        Login {
            name: name.to_owned(),
            uid: 1000,
            home: format!("/home/{name}"),
        }
    }

    fn read_text(text: &str) -> DaemonSites {
        let named = |name: &str| (name != "nobody-here").then(|| login(name));
        let of_group = |group: &str| {
            if group == "sftp" {
                vec![login("a"), login("b")]
            } else {
                vec![]
            }
        };
        let logins = Logins {
            named: &named,
            of_group: &of_group,
        };
        read(Path::new("sshd_config"), text, &logins, &Units::default())
    }

    fn roots(read: &DaemonSites) -> Vec<(String, Vec<&str>)> {
        let users = |site: &crate::import::Draft| site.users.len();
        assert!(read.sites.iter().all(|site| users(site) < 9));
        let of = |site: &'_ crate::import::Draft| site.root().unwrap().to_string();
        read.sites
            .iter()
            .map(|site| {
                (
                    of(site),
                    site.users
                        .iter()
                        .map(|user| user.any_of[0].as_str())
                        .collect(),
                )
            })
            .collect()
    }

    #[test]
    fn blocks_have_their_own_roots() {
        let read = read_text(
            "Port 22\nSubsystem sftp internal-sftp\nMatch User alice,bob,nobody-here\n  ChrootDirectory=\"/srv/shell\"\n\
             ChrootDirectory /second/counts/not\nMatch Group sftp\n\tForceCommand internal-sftp -l INFO\n\
             chrootdirectory %h/jail%%\nMatch Address 10.0.0.0/8\n  ChrootDirectory /srv/all\nMatch all\n ChrootDirectory none\n",
        );
        assert_eq!(
            roots(&read),
            [
                ("/srv/shell".to_owned(), vec!["alice", "bob"]),
                ("/home/a/jail%".to_owned(), vec!["a"]),
                ("/home/b/jail%".to_owned(), vec!["b"]),
                ("/srv/all".to_owned(), vec![]),
            ]
        );
        assert!(
            read.sites[1].presets.contains(&"sftp".to_owned()) && read.sites[3].remarks.len() == 1
        );
        assert!(
            read.sites[0].found[0]
                .starts_with("The ChrootDirectory for User alice,bob,nobody-here of sshd_config:4")
        );
    }

    #[test]
    fn what_cannot_be_known_is_named() {
        assert_eq!(read_text("ChrootDirectory /srv/%u\n").warnings.len(), 1);
        assert_eq!(
            read_text("Match User *\nChrootDirectory %h\n")
                .warnings
                .len(),
            1
        );
        assert!(read_text("Port 22\n").warnings[0].contains("it has no ChrootDirectory"));
    }
}
