//! `ChrootDirectory` of `sshd_config(5)`, for everybody and in `Match` blocks.

use std::path::{Path, PathBuf};

use super::{DaemonSites, FileLine, Needs};
use crate::Result;
use crate::observe::Units;

/// How deep sshd lets files include each other.
const MAX_DEPTH: usize = 16;

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

/// What a configuration refers to on this host.
pub(in crate::import) struct SshdHost<'h> {
    /// The user of a name.
    pub user: &'h dyn Fn(&str) -> Option<Login>,
    /// The users of a group.
    pub users_of_group: &'h dyn Fn(&str) -> Vec<Login>,
    /// The files that match a pattern of `Include`, in the order in which sshd reads them.
    pub included: &'h dyn Fn(&str) -> Result<Vec<IncludedFile>>,
}

/// A file and its text.
pub(in crate::import) type IncludedFile = (PathBuf, String);

/// A `Match` block, or what is in none.
#[derive(Clone, Default)]
struct MatchBlock {
    /// Names and patterns, each after its keyword. Empty: the block applies to everybody.
    criteria: Vec<String>,
    /// The first `ChrootDirectory`, which counts.
    root: Option<RootLine>,
    sftp: bool,
}

/// A `ChrootDirectory` line.
#[derive(Clone)]
struct RootLine {
    file: PathBuf,
    line: usize,
    root: String,
}

/// Whether a line is one of `sshd_config`.
pub(in crate::import) fn looks_like(line: &str) -> bool {
    words(line)
        .first()
        .is_some_and(|word| KEYWORDS.contains(&word.to_ascii_lowercase().as_str()))
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
        let named = users(&block.criteria, host);
        let mut users = named.clone();
        users.retain(|user| !settled.contains(user));
        if always_applies(&block.criteria) {
            settled.extend(users.iter().cloned());
        }
        let is_settled = users.is_empty() && !named.is_empty();
        if !is_settled && !line.root.eq_ignore_ascii_case("none") {
            add_sites(&mut read, line, block, &users, units);
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
fn add_sites(
    read: &mut DaemonSites,
    line: &RootLine,
    block: &MatchBlock,
    users: &[Login],
    units: &Units,
) {
    let RootLine { file, line, root } = line;
    let place = FileLine { file, line: *line };
    if !root.contains('%') {
        add_site(read, place, root, block, users, units);
    } else if users.is_empty() {
        read.warnings.push(format!(
            "{place}: ChrootDirectory {root}: the file does not tell for which users; write a \
             manifest for each"
        ));
    } else {
        for user in users {
            let root = expand(root, user);
            add_site(read, place, &root, block, std::slice::from_ref(user), units);
        }
    }
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

/// The blocks of a file and of those that it includes.
struct Blocks<'h> {
    host: &'h SshdHost<'h>,
    all: Vec<MatchBlock>,
    /// The block that a line belongs to.
    current: usize,
    depth: usize,
    warnings: Vec<String>,
}

impl<'h> Blocks<'h> {
    fn new(host: &'h SshdHost<'h>) -> Self {
        Self {
            host,
            all: vec![MatchBlock::default()],
            current: 0,
            depth: 0,
            warnings: vec![],
        }
    }

    /// Adds the lines of a file. Its `Match` blocks end with it, and apply within the block that it
    /// is included in.
    fn file(&mut self, file: &Path, text: &str) {
        let within = self.current;
        for (line, nth) in text.lines().zip(1..) {
            let mut words = words(line).into_iter();
            let Some(keyword) = words.next() else {
                continue;
            };
            let place = FileLine { file, line: nth };
            match keyword.to_ascii_lowercase().as_str() {
                "match" => self.begin(within, criteria(words)),
                "include" => words.for_each(|pattern| self.include(place, &pattern)),
                "chrootdirectory" => {
                    let line = words.next().map(|root| RootLine {
                        file: file.to_owned(),
                        line: nth,
                        root,
                    });
                    let block = &mut self.all[self.current];
                    block.root = block.root.take().or(line);
                }
                "forcecommand" => {
                    let is_sftp = words.next().is_some_and(|word| word == "internal-sftp");
                    self.all[self.current].sftp |= is_sftp;
                }
                _ => {}
            }
        }
        self.current = within;
    }

    fn begin(&mut self, within: usize, criteria: Vec<String>) {
        self.current = self.all.len();
        self.all.push(MatchBlock {
            criteria: [self.all[within].criteria.clone(), criteria].concat(),
            ..MatchBlock::default()
        });
    }

    fn include(&mut self, place: FileLine<'_>, pattern: &str) {
        if self.depth == MAX_DEPTH {
            self.warnings.push(format!(
                "{place}: files include each other more than {MAX_DEPTH} deep, which sshd refuses"
            ));
            return;
        }
        match (self.host.included)(pattern) {
            Ok(files) => {
                self.depth += 1;
                for (file, text) in files {
                    self.file(&file, &text);
                }
                self.depth -= 1;
            }
            Err(error) => self
                .warnings
                .push(format!("{place}: Include {pattern}: {error}")),
        }
    }
}

/// The criteria of a `Match` line, each as two words. `all` is none.
fn criteria(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut criteria: Vec<String> = vec![];
    for word in words {
        match word.split_once('=') {
            Some((keyword, value)) if criteria.len().is_multiple_of(2) => {
                criteria.extend([keyword.to_owned(), value.to_owned()]);
            }
            _ if word.eq_ignore_ascii_case("all") && criteria.len().is_multiple_of(2) => {}
            _ => criteria.push(word),
        }
    }
    criteria
}

/// The users that all criteria apply to, as far as these tell: `User a,b`, `Group g`. Empty: they
/// do not tell.
fn users(criteria: &[String], host: &SshdHost<'_>) -> Vec<Login> {
    let mut found: Option<Vec<Login>> = None;
    let mut excluded = vec![];
    for pair in criteria.chunks(2) {
        let [criterion, list] = pair else { continue };
        let of_name = |name: &str| match criterion.to_ascii_lowercase().as_str() {
            "user" => (host.user)(name).into_iter().collect(),
            "group" => (host.users_of_group)(name),
            _ => vec![],
        };

        let (not, names): (Vec<_>, Vec<_>) =
            list.split(',').partition(|name| name.starts_with('!'));
        excluded.extend(not.into_iter().flat_map(|name| of_name(&name[1..])));
        let tells = ["user", "group"].contains(&criterion.to_ascii_lowercase().as_str());
        if !tells || names.iter().any(|name| name.contains(['*', '?'])) {
            continue;
        }
        let users: Vec<_> = names.into_iter().flat_map(of_name).collect();
        found = Some(match found {
            Some(before) => before
                .into_iter()
                .filter(|user| users.contains(user))
                .collect(),
            None => users,
        });
    }
    let mut found = found.unwrap_or_default();
    found.retain(|user| !excluded.contains(user));
    found
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

    fn file(name: &str, text: &str) -> IncludedFile {
        (PathBuf::from(name), text.to_owned())
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
        let included = |pattern: &str| match pattern {
            "d/*.conf" => Ok(vec![
                file("d/1.conf", "Match User alice\nChrootDirectory /srv/one\n"),
                file("d/2.conf", "ChrootDirectory /srv/all\nInclude endless\n"),
            ]),
            "endless" => Ok(vec![file("endless", "Include endless\n")]),
            "in-match" => Ok(vec![file(
                "in-match",
                "ChrootDirectory /srv/in\nMatch Group=sftp\nChrootDirectory /srv/both/%u\n",
            )]),
            _ => Err(crate::Error::failed("cannot read x")),
        };
        let host = SshdHost {
            user: &named,
            users_of_group: &of_group,
            included: &included,
        };
        read(Path::new("sshd_config"), text, &host, &Units::default())
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
    fn included_files_are_read_in_their_place() {
        let read = read_text(
            "Include d/*.conf\nChrootDirectory /later/counts/not\nMatch User a,c\n\
             Include in-match\nChrootDirectory /later/counts/not\nInclude none\n",
        );
        let names = |names: &[&'static str]| names.to_vec();
        assert_eq!(
            roots(&read),
            [
                ("/srv/all".to_owned(), names(&[])),
                ("/srv/one".to_owned(), names(&["alice"])),
                ("/srv/in".to_owned(), names(&["a", "c"])),
            ]
        );
        assert_eq!(read.sites[1].place, "d/1.conf:2");
        assert_eq!(read.warnings.len(), 2, "{:?}", read.warnings);
        assert!(read.warnings[0].contains("more than 16 deep"));
        assert_eq!(
            read.warnings[1],
            "sshd_config:6: Include none: cannot read x"
        );
    }

    #[test]
    fn all_criteria_of_a_block_count() {
        for (criteria, expected) in [
            ("User a,c Group sftp", vec!["a"]),
            ("Group sftp User !a,*", vec!["b"]),
            ("User=b", vec!["b"]),
            ("User all", vec!["all"]),
            ("Group sftp Address 10.0.0.0/8", vec!["a", "b"]),
        ] {
            let read = read_text(&format!("Match {criteria}\nChrootDirectory /srv/x\n"));
            assert_eq!(
                roots(&read),
                [("/srv/x".to_owned(), expected)],
                "{criteria}"
            );
        }
    }

    #[test]
    fn the_first_block_of_a_user_counts() {
        let read = read_text(
            "Match User a Address 10.0.0.0/8\nChrootDirectory /srv/inside\n\
             Match User a Group other*\nChrootDirectory /srv/inside\n\
             Match User a\nChrootDirectory /srv/a\n\
             Match User c\nChrootDirectory none\n\
             Match Group sftp\nChrootDirectory /srv/b\n\
             Match User a,b,c\nChrootDirectory /srv/c\n\
             Match User d,a\nChrootDirectory /srv/d\n",
        );
        let names = |names: &[&'static str]| names.to_vec();
        assert_eq!(
            roots(&read),
            [
                ("/srv/inside".to_owned(), names(&["a"])),
                ("/srv/a".to_owned(), names(&["a"])),
                ("/srv/b".to_owned(), names(&["b"])),
                ("/srv/d".to_owned(), names(&["d"])),
            ]
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
