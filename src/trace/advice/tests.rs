use std::sync::Arc;

use super::*;
use crate::base::{MountAttributes, SiteName};
use crate::manifest::{Origin, SourceFile};
use crate::resolve::{Cause, Reason};
use crate::trace::on_host::TemporaryDirectory;

fn jail(path: &str) -> JailPath {
    JailPath::new(path).unwrap()
}

fn host(path: &str) -> HostPath {
    HostPath::new(path).unwrap()
}

fn found(path: &str, kind: MissKind) -> MissOnHost {
    let miss = Miss {
        lookups: 1,
        programs: BTreeSet::from(["php".to_owned()]),
        users: BTreeSet::from([33]),
        ..Miss::new(jail(path))
    };
    MissOnHost {
        miss,
        real: host(path),
        kind,
        whole_directory: true,
        part_of: vec![],
        scratch: None,
        refusal: None,
    }
}

fn mount(path: &str, kind: FileKind, named: bool) -> Arc<Mount> {
    let origin = Origin {
        file: SourceFile::BuiltIn("x".into()),
        key: "mounts[0]".into(),
        text: path.into(),
        presets: vec![],
        defaults: false,
    };
    let chain = if named {
        vec![]
    } else {
        vec![Cause::LoaderConfiguration]
    };
    Arc::new(Mount {
        file_system: None,
        target: jail(path),
        source: host(path),
        file: None,
        kind,
        attributes: MountAttributes::DATA,
        recursive: false,
        reasons: vec![Reason {
            origin: Arc::new(origin),
            chain,
        }],
    })
}

fn desired(mounts: Vec<Arc<Mount>>) -> Desired {
    Desired {
        mounts,
        ..Desired::nothing(&SiteName::new("s").unwrap(), &host("/srv/s"))
    }
}

/// A preset with these directories, files, programs and dependencies.
fn preset(
    name: &str,
    directories: &[&str],
    files: &[&str],
    programs: &[&str],
    needs: &[&str],
) -> PresetContents {
    let of = |paths: &[&str], kind, named| {
        paths
            .iter()
            .map(|path| mount(path, kind, named))
            .collect::<Vec<_>>()
    };
    let mut mounts = [
        of(directories, FileKind::Directory, true),
        of(files, FileKind::File, true),
        of(programs, FileKind::File, true),
        of(needs, FileKind::File, false),
    ]
    .concat();
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    let programs: BTreeSet<_> = programs.iter().map(|path| host(path)).collect();
    PresetContents {
        preset: name.to_owned(),
        desired: desired(mounts),
        needed_programs: programs.clone(),
        programs,
        is_language: name == "perl",
    }
}

fn presets() -> Vec<PresetContents> {
    let libc = ["/usr/lib/libc.so.6"];
    vec![
        preset("base", &[], &["/dev/null", "/etc/ld.so.cache"], &[], &[]),
        preset(
            "dns",
            &[],
            &["/dev/null", "/etc/hosts", "/etc/ld.so.cache"],
            &[],
            &libc,
        ),
        preset("mysql", &["/run/mysqld"], &[], &[], &[]),
        preset(
            "timezone",
            &["/usr/share/zoneinfo"],
            &["/etc/localtime"],
            &[],
            &[],
        ),
        preset(
            "php-fpm",
            &["/usr/share/zoneinfo"],
            &["/dev/null", "/etc/hosts", "/etc/localtime"],
            &[],
            &libc,
        ),
        preset(
            "git",
            &["/usr/lib/git-core"],
            &["/dev/null"],
            &["/usr/bin/git", "/usr/bin/sh"],
            &libc,
        ),
        preset(
            "shell",
            &[],
            &["/dev/null"],
            &["/usr/bin/cat", "/usr/bin/ls", "/usr/bin/sed", "/usr/bin/sh"],
            &libc,
        ),
        preset(
            "perl",
            &["/usr/share/perl"],
            &[],
            &["/usr/bin/perl5"],
            &libc,
        ),
    ]
}

fn advice(found: Vec<MissOnHost>) -> Advice {
    let users = BTreeMap::from([(33, "www-data".to_owned())]);
    let desired = desired(vec![mount("/etc/fonts", FileKind::Directory, true)]);
    advise(
        found,
        &AdviceContext {
            desired: &desired,
            presets: &presets(),
            users: &users,
            program_lines: &BTreeMap::from([
                (jail("/usr/bin/git"), ProgramLine::Preset("git".to_owned())),
                (jail("/bin/vim"), ProgramLine::Program(host("/usr/bin/vim"))),
            ]),
            account_modules: &BTreeSet::new(),
        },
    )
}

#[track_caller]
fn check(missed: &[(&str, MissKind)], lines: &[&str]) {
    let found = missed
        .iter()
        .map(|(path, kind)| found(path, *kind))
        .collect();
    let advised: Vec<_> = advice(found)
        .lines
        .iter()
        .map(|line| line.addition.to_string())
        .collect();
    assert_eq!(advised, lines);
}

#[test]
fn the_smallest_preset_that_names_a_path_is_advised() {
    check(
        &[("/usr/share/zoneinfo/Europe/Zurich", MissKind::Data)],
        &["presets: [timezone]"],
    );
    check(&[("/etc/hosts", MissKind::Data)], &["presets: [dns]"]);
    check(&[("/dev/null", MissKind::Device)], &["presets: [base]"]);
    check(
        &[("/usr/lib/libc.so.6", MissKind::Library)],
        &["libraries: [/usr/lib/libc.so.6]"],
    );
    check(
        &[("/usr/lib/git-core/git-x", MissKind::Program)],
        &["presets: [git]"],
    );
}

#[test]
fn a_preset_that_another_one_includes_is_not_needed() {
    check(
        &[
            ("/dev/null", MissKind::Device),
            ("/etc/hosts", MissKind::Data),
        ],
        &["presets: [dns]"],
    );
}

#[test]
fn a_program_means_its_preset_only_where_it_is_much_of_it() {
    check(&[("/usr/bin/git", MissKind::Program)], &["presets: [git]"]);
    check(
        &[("/usr/bin/sh", MissKind::Program)],
        &["programs: [/usr/bin/sh]"],
    );
    check(
        &[("/usr/bin/cat", MissKind::Program)],
        &["programs: [/usr/bin/cat]"],
    );
    check(
        &[
            ("/usr/bin/cat", MissKind::Program),
            ("/usr/bin/ls", MissKind::Program),
        ],
        &["presets: [shell]"],
    );
    check(
        &[("/usr/bin/perl", MissKind::Program)],
        &["programs: [/usr/bin/perl]"],
    );
    check(
        &[("/bin/vim", MissKind::Program)],
        &["programs: [/usr/bin/vim]"],
    );
}

/// A preset of a language is for sites that have its interpreter.
#[test]
fn a_language_comes_as_a_whole_where_its_program_is() {
    let mut module = found("/usr/share/perl/5/strict.pm", MissKind::Data);
    module.part_of = vec![(host("/usr/share/perl/5"), false)];
    let users = BTreeMap::new();
    for (target, line) in [
        ("/usr/bin/perl", "presets: [perl]"),
        ("/usr/bin/php", "mounts: [/usr/share/perl/5]"),
    ] {
        let mut program = Arc::unwrap_or_clone(mount(target, FileKind::File, true));
        if target == "/usr/bin/perl" {
            program.source = host("/usr/bin/perl5");
        }
        let context = AdviceContext {
            desired: &desired(vec![Arc::new(program)]),
            presets: &presets(),
            users: &users,
            program_lines: &BTreeMap::new(),
            account_modules: &BTreeSet::new(),
        };
        let advice = advise(vec![module.clone()], &context);
        let advised: Vec<_> = advice
            .lines
            .iter()
            .map(|line| line.addition.to_string())
            .collect();
        assert_eq!(advised, [line]);
    }
}

/// The directories of `PATH` are searched one after the other.
#[test]
fn a_program_has_the_name_by_which_it_is_found_first() {
    let program = |path: &str, real: &str| MissOnHost {
        real: host(real),
        ..found(path, MissKind::Program)
    };
    for (missed, lines) in [
        (
            vec![
                program("/bin/x", "/usr/bin/x"),
                program("/usr/bin/x", "/usr/bin/x"),
                program("/usr/local/bin/x", "/usr/local/bin/x"),
            ],
            &["programs: [/usr/local/bin/x]"][..],
        ),
        (
            vec![
                program("/bin/java", "/usr/lib/jvm/17/bin/java"),
                program("/usr/bin/java", "/usr/lib/jvm/17/bin/java"),
            ],
            &["programs: [/usr/bin/java]"],
        ),
        (
            vec![program("/opt/x", "/opt/x"), program("/opt/b/x", "/opt/b/x")],
            &["programs: [/opt/b/x]", "programs: [/opt/x]"],
        ),
    ] {
        let advice = advice(missed);
        let lines_of = advice.lines.iter();
        let mut advised: Vec<_> = lines_of.map(|line| line.addition.to_string()).collect();
        advised.sort();
        assert_eq!(advised, lines);
    }
}

#[test]
fn each_kind_of_file_has_its_key() {
    for (path, kind, line) in [
        ("/etc/x/y.conf", MissKind::Data, "etc: [x/y.conf]"),
        ("/etc/a*", MissKind::Data, "mounts: [\"/etc/a[*]\"]"),
        (
            "/usr/share/x",
            MissKind::Directory,
            "mounts: [/usr/share/x]",
        ),
        (
            "/usr/share/a[1]",
            MissKind::Data,
            "mounts: [\"/usr/share/a[[]1[]]\"]",
        ),
        ("/dev/zero", MissKind::Device, "devices: [zero]"),
        (
            "/usr/bin/[",
            MissKind::Program,
            "programs: [\"/usr/bin/[\"]",
        ),
        (
            "/usr/lib/x.so",
            MissKind::Library,
            "libraries: [/usr/lib/x.so]",
        ),
        ("/etc/passwd", MissKind::Data, "users: [www-data]"),
    ] {
        check(&[(path, kind)], &[line]);
    }
}

#[test]
fn what_a_daemon_keeps_is_advised_as_a_preset_or_left_to_the_administrator() {
    for path in ["/run/mysqld/mysqld.sock", "/run/mysqld/x"] {
        check(&[(path, MissKind::Socket)], &["presets: [mysql]"]);
        check(&[(path, MissKind::Data)], &["presets: [mysql]"]);
    }
    for (path, kind, line) in [
        (
            "/run/app/x.sock",
            MissKind::Socket,
            "mounts: [{ source: /run/app, optional: true }]",
        ),
        (
            "/var/run/app",
            MissKind::Directory,
            "mounts: [{ source: /var/run/app, optional: true }]",
        ),
        (
            "/run/app/state",
            MissKind::Data,
            "mounts: [{ source: /run/app/state, optional: true }]",
        ),
        (
            "/var/lib/app/x.sock",
            MissKind::Socket,
            "mounts: [/var/lib/app]",
        ),
    ] {
        let advice = advice(vec![found(path, kind)]);
        assert!(advice.lines.is_empty(), "{path}");
        assert_eq!(
            advice.refused[0].1,
            format!("it is a daemon's; if this site is to reach it, add `{line}` by hand")
        );
    }
}

#[test]
fn users_without_a_name_get_the_preset() {
    let mut passwd = found("/etc/passwd", MissKind::Data);
    passwd.miss.users = BTreeSet::from([4711]);
    assert_eq!(
        advice(vec![passwd]).lines[0].addition.to_string(),
        "presets: [users]"
    );
}

#[test]
fn many_of_one_directory_become_one_line() {
    let many = |directory: &str, end: &str, kind| {
        (0..MANY)
            .map(|nth| found(&format!("{directory}/{nth}{end}"), kind))
            .collect::<Vec<_>>()
    };
    let lines = |found| advice(found).lines;
    let data = lines(many("/usr/share/x", ".txt", MissKind::Data));
    assert_eq!(
        (data[0].addition.to_string().as_str(), data[0].misses.len()),
        ("mounts: [/usr/share/x]", MANY)
    );
    assert!(data[0].apart().is_empty());
    let code = lines(many("/usr/lib/php", ".so", MissKind::Library));
    assert_eq!(
        code[0].addition.to_string(),
        "libraries: [\"/usr/lib/php/*.so\"]"
    );
    let apart: Vec<_> = code[0]
        .apart()
        .iter()
        .map(|line| line.addition.to_string())
        .collect();
    assert_eq!(
        (apart.len(), apart[0].as_str()),
        (MANY, "libraries: [/usr/lib/php/0.so]")
    );
    let mut private = many("/usr/share/x", ".txt", MissKind::Data);
    for found in &mut private {
        found.whole_directory = false;
    }
    assert_eq!(lines(private).len(), MANY);
}

#[test]
fn what_is_below_comes_along() {
    check(
        &[
            ("/usr/share/x", MissKind::Directory),
            ("/usr/share/x/a/b", MissKind::Data),
            ("/etc/php", MissKind::Directory),
            ("/etc/php/8/php.ini", MissKind::Data),
            ("/usr/share/xy", MissKind::Data),
        ],
        &[
            "etc: [php]",
            "mounts: [/usr/share/x]",
            "mounts: [/usr/share/xy]",
        ],
    );
}

#[test]
fn a_file_is_brought_by_its_real_name() {
    let mut other = found("/bin/perl", MissKind::Program);
    other.real = host("/usr/bin/perl");
    let lines = advice(vec![
        other.clone(),
        found("/usr/bin/perl", MissKind::Program),
    ])
    .lines;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].addition.to_string(), "programs: [/usr/bin/perl]");
    assert_eq!(
        advice(vec![other]).lines[0].addition.to_string(),
        "programs: [/bin/perl]"
    );
}

#[test]
fn what_is_refused_or_asked_for_already_is_not_advised() {
    let mut shadow = found("/etc/shadow", MissKind::Data);
    shadow.refusal = Some("no".to_owned());
    let mut above = found("/usr/share", MissKind::Directory);
    above.refusal = Some("too much".to_owned());
    let there = found("/etc/fonts/fonts.conf", MissKind::Data);
    let advice = advice(vec![
        shadow,
        above,
        there,
        found("/usr/share/x", MissKind::Data),
    ]);
    let paths = |misses: Vec<&Miss>| {
        misses
            .iter()
            .map(|miss| miss.path.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        paths(advice.refused.iter().map(|(miss, _)| miss).collect()),
        ["/etc/shadow"]
    );
    assert_eq!(
        paths(advice.not_mounted.iter().collect()),
        ["/etc/fonts/fonts.conf"]
    );
    assert_eq!(
        advice.lines.len(),
        1,
        "a directory on the way to something is not news"
    );
}

#[test]
fn the_most_useful_is_first() {
    let mut often = found("/usr/share/a", MissKind::Data);
    often.miss.lookups = 9;
    let zones = ["/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/tzdata.zi"]
        .map(|path| found(path, MissKind::Data));
    let all = [
        vec![found("/usr/bin/perl", MissKind::Program), often],
        zones.to_vec(),
    ]
    .concat();
    let lines: Vec<_> = advice(all)
        .lines
        .iter()
        .map(|line| line.addition.to_string())
        .collect();
    assert_eq!(
        lines,
        [
            "presets: [timezone]",
            "mounts: [/usr/share/a]",
            "programs: [/usr/bin/perl]"
        ]
    );
    assert_eq!(pattern(Path::new("/a")), "/a");
}

#[test]
fn a_site_has_its_own_directories_for_what_programs_make() {
    let scratch = |path: &str, user| {
        let mut found = found(path, MissKind::Directory);
        found.refusal = Some("users other than root can change it".to_owned());
        found.scratch = Some(TemporaryDirectory {
            path: jail(path),
            user,
            mode: 0o750,
        });
        found
    };
    let mut file = found("/var/cache/wiki/a.cdb", MissKind::Data);
    file.refusal = Some("users other than root can change it".to_owned());
    let above = found("/var/cache", MissKind::Directory);
    let mut data = found("/var/lib/mail/index.php", MissKind::Data);
    data.part_of = vec![(host("/var/lib/mail"), false)];
    let advice = advice(vec![
        scratch("/var/cache/wiki", Some(33)),
        file,
        above,
        scratch("/var/lib/mail/temp", None),
        data,
    ]);
    let mut lines: Vec<_> = advice
        .lines
        .iter()
        .map(|line| line.addition.to_string())
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "directories: [{ path: /var/cache/wiki, user: www-data, mode: \"0750\" }]",
            "mounts: [/var/lib/mail]",
        ]
    );
    let refused: Vec<_> = advice
        .refused
        .iter()
        .map(|(miss, why)| (&miss.path, &**why))
        .collect();
    let why = "it would be in /var/lib/mail, which is mounted read-only";
    assert_eq!(refused, [(&jail("/var/lib/mail/temp"), why)]);
}
