use std::cell::Cell;
use std::path::PathBuf;

use super::*;
use crate::Result;

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
    let included = |pattern: &str| match pattern {
        "d/*.conf" => Ok(vec![
            file("d/1.conf", "Match User alice\nChrootDirectory /srv/one\n"),
            file("d/2.conf", "ChrootDirectory /srv/all\nInclude empty/*\n"),
        ]),
        "in-match" => Ok(vec![file(
            "in-match",
            "ChrootDirectory /srv/in\nMatch Group=sftp\nChrootDirectory /srv/both/%u\n",
        )]),
        "empty/*" => Ok(vec![]),
        _ => Err(crate::Error::failed("cannot read x")),
    };
    read_with(text, &included)
}

/// With included files by their patterns.
fn read_with(text: &str, included: &dyn Fn(&str) -> Result<Vec<IncludedFile>>) -> DaemonSites {
    let named = |name: &str| (name != "nobody-here").then(|| login(name));
    let of_group = |group: &str| {
        if group == "sftp" {
            vec![login("a"), login("b")]
        } else {
            vec![]
        }
    };
    let host = SshdHost {
        user: &named,
        users_of_group: &of_group,
        included,
    };
    read(Path::new("sshd_config"), text, &host, &Units::default())
}

fn roots(read: &DaemonSites) -> Vec<(String, Vec<&str>)> {
    let users = |site: &Draft| site.users.len();
    assert!(read.sites.iter().all(|site| users(site) < 9));
    let of = |site: &'_ Draft| site.root().unwrap().to_string();
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
    assert!(read.sites[1].presets.contains(&"sftp".to_owned()) && read.sites[3].remarks.len() == 1);
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
    assert_eq!(
        read.warnings,
        ["sshd_config:6: Include none: cannot read x"]
    );
}

#[test]
fn files_that_include_each_other_are_read_as_deep_as_sshd_does() {
    let count = Cell::new(0);
    let included = |pattern: &str| {
        count.set(count.get() + 1);
        let both = "ChrootDirectory /srv/circle\nInclude a b\n";
        Ok(vec![file(pattern, both)])
    };
    let text = "Include a b\nMatch User alice\nChrootDirectory /srv/alice\nInclude a\n";
    let read = read_with(text, &included);
    assert_eq!(count.get(), 17, "the last one is not included");
    assert_eq!(
        roots(&read),
        [
            ("/srv/circle".to_owned(), vec![]),
            ("/srv/alice".to_owned(), vec!["alice"]),
        ]
    );
    assert_eq!(
        read.warnings,
        [
            "a:2: sshd refuses this configuration: files include each other more than 16 deep; \
             the files of this Include and of all later ones are left out"
        ]
    );
}

#[test]
fn the_number_of_included_files_is_limited() {
    // Each file includes the one below it, down to the last one, which sshd still reads.
    let (count, last) = (Cell::new(0), Cell::new(0));
    let included = |pattern: &str| {
        count.set(count.get() + 1);
        let depth: usize = pattern.parse().unwrap();
        let text = if depth == 16 {
            last.set(last.get() + 1);
            "ChrootDirectory /srv/x\n".to_owned()
        } else {
            format!("Include {0} {0}\n", depth + 1)
        };
        Ok(vec![file(pattern, &text)])
    };
    let read = read_with("Include 1\n", &included);
    assert_eq!(count.get(), 10_001);
    assert!(last.get() > 1000);
    assert_eq!(roots(&read), [("/srv/x".to_owned(), vec![])]);
    assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
    assert!(
        read.warnings[0].contains(": import reads no more than 10000 included files; "),
        "{:?}",
        read.warnings
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
    let read = read_text(
        "Match Group none User a\nChrootDirectory /srv/%%x\nMatch User nobody-here\n\
         ChrootDirectory /srv/%u\n",
    );
    assert_eq!(roots(&read), [("/srv/%x".to_owned(), vec![])]);
    assert!(
        read.sites[0].remarks[0].contains("no user of this host"),
        "{read:?}"
    );
    assert!(
        read.warnings[0].contains("no user of this host"),
        "{read:?}"
    );
    assert!(read_text("Port 22\n").warnings[0].contains("it has no ChrootDirectory"));
}
