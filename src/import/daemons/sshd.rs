//! `ChrootDirectory` of `sshd_config(5)`, for everybody and in `Match` blocks.

use std::path::Path;

use super::{DaemonSites, FileLine, Needs};
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

/// A user, with the values of the tokens of `ChrootDirectory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::import) struct Login {
    pub name: String,
    pub uid: u32,
    pub home: String,
}

/// The users of this host: by name, and those of a group.
pub(in crate::import) struct Logins<'l> {
    pub named: &'l dyn Fn(&str) -> Option<Login>,
    pub of_group: &'l dyn Fn(&str) -> Vec<Login>,
}

/// A `Match` block, or the part before the first one.
#[derive(Default)]
struct MatchBlock {
    /// Empty: the block applies to everybody.
    criteria: Vec<String>,
    /// The line and the value of the first `ChrootDirectory`, which counts.
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
        let Some((line, root)) = &block.root else {
            continue;
        };
        if root.eq_ignore_ascii_case("none") {
            continue;
        }
        let place = FileLine { file, line: *line };
        let users = users(&block.criteria, logins);
        if !root.contains('%') {
            add_site(&mut read, place, root, &block, &users, units);
        } else if users.is_empty() {
            read.warnings.push(format!(
                "{place}: ChrootDirectory {root}: the file does not tell for which users; write a \
                 manifest for each"
            ));
        } else {
            for user in users {
                let root = expand(root, &user);
                add_site(&mut read, place, &root, &block, &[user], units);
            }
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

fn add_site(
    read: &mut DaemonSites,
    place: FileLine<'_>,
    root: &str,
    block: &MatchBlock,
    users: &[Login],
    units: &Units,
) {
    let what = if block.criteria.is_empty() {
        "The ChrootDirectory".to_owned()
    } else {
        format!("The ChrootDirectory for {}", block.criteria.join(" "))
    };
    let Some(draft) = read.site(place, &what, root) else {
        return;
    };

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
    if users.is_empty() {
        draft.remarks.push(format!(
            "{place}: the file does not tell for which users it is: name them under `users`."
        ));
    }
}

/// The words of a line. Blanks or one `=` separate them, and `"…"` is one word.
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

/// The users that a block applies to, as far as its criteria tell: `User a,b`, `Group g`.
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
            "Port 22\nSubsystem sftp internal-sftp\nMatch User alice,bob,nobody-here\n  \
             ChrootDirectory=\"/srv/shell\"\n\
             ChrootDirectory /second/counts/not\nMatch Group sftp\n\tForceCommand internal-sftp \
             -l INFO\n\
             chrootdirectory %h/jail%%\nMatch Address 10.0.0.0/8\n  ChrootDirectory /srv/all\n\
             Match all\n ChrootDirectory none\n",
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
