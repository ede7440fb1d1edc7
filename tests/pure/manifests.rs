//! The grammar: what is accepted, and for every kind of mistake the place, the words and the
//! nearest spelling.

use std::path::Path;

use mountjail::base::SiteName;
use mountjail::manifest::{
    Access, Diagnostics, Manifest, Presets, Request, Scope, SourceFile, decode, parse, root_of,
};

fn read_with(text: &str, presets: &Presets) -> Result<Manifest, Diagnostics> {
    parse(
        SiteName::new("s").unwrap(),
        SourceFile::File("s.yaml".into()),
        text,
        presets,
    )
}

fn read(text: &str) -> Result<Manifest, Diagnostics> {
    read_with(text, &Presets::built_in())
}

fn ok(text: &str) -> Manifest {
    read(text).unwrap_or_else(|wrong| panic!("{text}\n{}", wrong.render(false)))
}

type Mistake = (Option<(usize, usize)>, String, String);

/// The first mistake in `text`: line and column, key, and the whole message.
fn wrong(text: &str) -> Vec<Mistake> {
    let diagnostics = read(text).expect_err(text);
    let all = diagnostics.render(false);
    assert_eq!(diagnostics.count(), diagnostics.iter().count());
    diagnostics
        .iter()
        .map(|one| (one.position(), one.key().to_owned(), all.clone()))
        .collect()
}

#[track_caller]
fn one(text: &str, position: (usize, usize), key: &str, words: &[&str]) {
    let found = wrong(text);
    assert_eq!(found.len(), 1, "{text}\n{}", found[0].2);
    assert_eq!(
        (found[0].0, found[0].1.as_str()),
        (Some(position), key),
        "{}",
        found[0].2
    );
    for word in words {
        assert!(
            found[0].2.contains(word),
            "{word:?} is not in\n{}",
            found[0].2
        );
    }
}

#[test]
fn everything_that_the_grammar_has_is_understood() {
    let manifest = ok("root: /srv//www/./s/\ndevices: [null, zero]\n\
         etc: [hosts, {name: gai.conf, optional: true}]\n\
        programs: [/bin/sh, {any_of: [/a, /b]}]\nlibraries: [/usr/lib/*.so]\nusers: [www-data]\n\
        nss: [hosts]\n\
        mounts:\n  - /usr/share/fonts\n  - source: /a b\n    target: /t\n    access: \
        read-write\n    recursive: true\n\
        \x20   executable: true\n    devices: false\n    setuid: false\n\
        directories: [/a, {path: /b, user: www-data, group: adm, mode: \"0750\"}]\n\
        tmpfs: [/tmp, {target: /run, size: 64M, mode: \"755\"}]\nproc: true\n\
        services: [php8.2-fpm.service]\n");
    assert_eq!(manifest.root.to_string(), "/srv/www/s");
    assert_eq!(manifest.services, ["php8.2-fpm.service"]);
    assert_eq!(manifest.entries.len(), 16);
    let Request::Directory(directory) = &manifest.entries[12].request else {
        panic!()
    };
    assert_eq!(
        (directory.user.as_deref(), directory.mode),
        (Some("www-data"), 0o750)
    );
    let Request::FileSystem(_, tmpfs) = &manifest.entries[14].request else {
        panic!()
    };
    assert_eq!(tmpfs.to_string(), "tmpfs,size=64M,mode=0755");
    let Request::Mount(mount) = &manifest.entries[10].request else {
        panic!()
    };
    assert_eq!(mount.target.as_ref().unwrap().to_string(), "/t");
    assert!(mount.access == Access::ReadWrite && mount.recursive && mount.executable == Some(true));
    let Request::Device(device) = &manifest.entries[0].request else {
        panic!()
    };
    assert_eq!(device.any_of, ["null"], "a YAML null is the device");
}

#[test]
fn what_a_site_has_for_itself_is_checked() {
    for (line, key, said) in [
        ("directories: [tmp]", "directories[0]", "not absolute"),
        ("directories: [/]", "directories[0]", "the root itself"),
        (
            "directories: [{ mode: \"1777\" }]",
            "directories[0]",
            "no `path`",
        ),
        (
            "directories: [{ path: /a, mode: 1777 }]",
            "directories[0].mode",
            "not a text",
        ),
        (
            "directories: [{ path: /a, mode: u+s }]",
            "directories[0].mode",
            "not a mode",
        ),
        (
            "directories: [{ path: /a, user: 33 }]",
            "directories[0].user",
            "not a text",
        ),
        (
            "tmpfs: [{ target: /a, size: 50% }]",
            "tmpfs[0].size",
            "not a size",
        ),
        (
            "tmpfs: [{ target: /a, size: 0 }]",
            "tmpfs[0].size",
            "not a size",
        ),
        ("proc: yes please", "proc", "neither true nor false"),
        ("programs: ['rs*']", "programs[0]", "not a pattern"),
        (
            "mounts: [{ source: '/a[1]', target: /b }]",
            "mounts[0].target",
            "no single target",
        ),
    ] {
        let text = format!("root: /srv/s\n{line}\n");
        let wrong = parse(
            SiteName::new("s").unwrap(),
            SourceFile::File("s.yaml".into()),
            &text,
            &Presets::built_in(),
        );
        let wrong = wrong.err().unwrap_or_else(|| panic!("{line} is accepted"));
        let shown = wrong.render(false);
        assert!(
            shown.contains(said) && shown.contains(key),
            "{line}\n{shown}"
        );
    }
    ok(
        "root: /srv/s\nprograms: [rsync]\nlibraries: [libgcc_s.so.1]\nproc: false\n\
        mounts: [{ source: '/a[1]', literal: true, target: /b }]\n",
    );
}

#[test]
fn a_scope_is_host_or_services() {
    assert_eq!(ok("root: /srv/s\n").scope, Scope::Host);
    assert_eq!(ok("root: /srv/s\nscope: host\n").scope, Scope::Host);
    let with_service = "root: /srv/s\nscope: services\nservices: [a.service]\n";
    assert_eq!(ok(with_service).scope, Scope::Services);

    one(
        "root: /srv/s\nscope: service\nservices: [a.service]\n",
        (2, 8),
        "scope",
        &[
            "no such scope",
            "found `service`",
            "did you mean `services`?",
        ],
    );
    one(
        "root: /srv/s\nscope: [host]\n",
        (2, 8),
        "scope",
        &["a list"],
    );
    for services in ["", "services: []\n"] {
        one(
            &format!("root: /srv/s\nscope: services\n{services}"),
            (2, 8),
            "scope",
            &[
                "needs services",
                "as in `services: [php8.2-fpm.service]`",
                "`scope: host`",
            ],
        );
    }
    // Mistakes in the services are reported by themselves.
    one(
        "root: /srv/s\nscope: services\nservices: [php-fpm]\n",
        (3, 12),
        "services[0]",
        &["php-fpm.service"],
    );
}

#[test]
fn each_mistake_has_its_place_and_its_words() {
    one(
        "rot: /srv/s\nroot: /srv/s\n",
        (1, 1),
        "rot",
        &["unknown key", "did you mean `root`?", "s.yaml:1:1"],
    );
    one(
        "root: /srv/s\nmounts:\n- source: /a\n  tagret: /b\n",
        (4, 3),
        "mounts[0].tagret",
        &["`target`"],
    );
    one("root: srv\n", (1, 7), "root", &["not absolute"]);
    one("root: /srv/../etc\n", (1, 7), "root", &["`..`"]);
    one("root: \"\"\n", (1, 7), "root", &["empty"]);
    one("root: \"/a\\0b\"\n", (1, 7), "root", &["NUL"]);
    one("root: 7\n", (1, 7), "root", &["number", "expected"]);
    one("root: /srv/s\nroot: /srv/t\n", (2, 1), "root", &["twice"]);
    one(
        "root: /srv/s\netc: hosts\n",
        (2, 6),
        "etc",
        &["not a list", "`[hosts]`"],
    );
    one(
        "root: /srv/s\netc: [/etc/hosts]\n",
        (2, 7),
        "etc[0]",
        &["write `hosts`"],
    );
    one(
        "root: /srv/s\netc: [\"*.conf\"]\n",
        (2, 7),
        "etc[0]",
        &["patterns", "mounts"],
    );
    one(
        "root: /srv/s\ndevices: [urandm]\n",
        (2, 11),
        "devices[0]",
        &["did you mean `urandom`?"],
    );
    one(
        "root: /srv/s\ndevices: [~]\n",
        (2, 11),
        "devices[0]",
        &["expected"],
    );
    one(
        "root: /srv/s\npresets: [tsl]\n",
        (2, 11),
        "presets[0]",
        &["no preset", "`tls`"],
    );
}

#[test]
fn each_mistake_in_a_mount_has_its_place_and_its_words() {
    one(
        "root: /srv/s\nnss: [host]\n",
        (2, 7),
        "nss[0]",
        &["`hosts`"],
    );
    one(
        "root: /srv/s\nusers: [\"a:b\"]\n",
        (2, 9),
        "users[0]",
        &["login name"],
    );
    one(
        "root: /srv/s\nservices: [php-fpm]\n",
        (2, 12),
        "services[0]",
        &["php-fpm.service"],
    );
    one(
        "root: /srv/s\nmounts: [{target: /x}]\n",
        (2, 10),
        "mounts[0]",
        &["`source`"],
    );
    one(
        "root: /srv/s\nmounts: [{source: /a, any_of: [/b]}]\n",
        (2, 31),
        "mounts[0].any_of",
        &["exclude"],
    );
    one(
        "root: /srv/s\nmounts: [{source: /a, access: rw}]\n",
        (2, 31),
        "mounts[0].access",
        &["read-write"],
    );
    one(
        "root: /srv/s\nmounts: [{source: /a, optional: yes}]\n",
        (2, 33),
        "mounts[0].optional",
        &["true"],
    );
    one(
        "root: /srv/s\nmounts: [{source: /a*, target: /x}]\n",
        (2, 32),
        "mounts[0].target",
        &["pattern"],
    );
    one(
        "root: /srv/s\nmounts: [/]\n",
        (2, 10),
        "mounts[0]",
        &["cover"],
    );
    one("etc: [hosts]\n", (1, 1), "", &["`root` is missing"]);
}

#[test]
fn all_mistakes_of_a_file_come_at_once() {
    let found = wrong(
        "rooot: /srv\netc: [/etc/hosts, \"\"]\nmounts: [x, {source: /a, acess: no}]\n\
         presets: [nope]\n",
    );
    let positions: Vec<_> = found
        .iter()
        .filter_map(|(position, ..)| *position)
        .collect();
    assert!(found.len() >= 6, "{}", found[0].2);
    let mut sorted = positions.clone();
    sorted.sort_unstable();
    assert_eq!(positions, sorted, "in the order of the file");
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    for (text, line) in [
        ("root: [\n", 2),
        ("root: /a\n\tetc: []\n", 2),
        ("root: 'x\n", 2),
        ("a: b: c\n", 1),
    ] {
        let found = wrong(text);
        assert!(
            found[0].0.is_some_and(|(at, _)| at <= line),
            "{text:?}: {}",
            found[0].2
        );
    }
    for text in ["", "---\n", "# nothing\n"] {
        assert!(wrong(text)[0].2.contains("empty"));
    }
    assert!(wrong("- a\n")[0].2.contains("not a mapping"));
    assert!(
        wrong("root: /a\n---\nroot: /b\n")[0].2.contains("document"),
        "{}",
        wrong("root: /a\n---\nroot: /b\n")[0].2
    );
    assert!(
        decode(
            &SourceFile::File("s.yaml".into()),
            b"root: /a\n\xff\n".to_vec()
        )
        .is_err()
    );
}

#[test]
fn a_file_made_to_exhaust_is_refused_and_not_obeyed() {
    let bomb: String = (1..20).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        format!(
            "{text}a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}]\n",
            m = n - 1
        )
    });
    let huge = format!("root: /a\n# {}\n", "x".repeat(2 << 20));
    let deep = format!("root: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let deep_block = (0..2000)
        .map(|n| " ".repeat(n) + "a:\n")
        .collect::<Vec<_>>()
        .concat();
    for text in [bomb, huge, deep, deep_block] {
        assert!(!wrong(&text).is_empty());
    }
}

#[test]
fn presets_include_each_other_once_and_never_in_a_circle() {
    let mut presets = Presets::built_in();
    let mut add = |name: &str, text: &str| {
        presets.add(
            name,
            SourceFile::File(format!("{name}.yaml").into()),
            text.to_owned(),
        );
    };
    add("a", "description: a\npresets: [b, c]\netc: [a]\n");
    add("b", "description: b\npresets: [c]\netc: [b]\n");
    add("c", "description: c\netc: [c]\n");
    add("x", "description: x\npresets: [y]\n");
    add("y", "description: y\npresets: [x]\n");
    add("bad", "description: bad\netc: [/etc/hosts]\nroot: /a\n");
    add("dns", "description: mine\netc: [mine]\n");
    let manifest = read_with("root: /srv/s\netc: [own]\npresets: [a, b]\n", &presets).unwrap();
    let lines: Vec<_> = manifest
        .entries
        .iter()
        .map(|entry| entry.origin.to_string())
        .collect();
    assert_eq!(
        lines,
        [
            "s.yaml: etc[0] (own)",
            "etc[0] (a) of preset a",
            "etc[0] (b) of preset b, included by a",
            "etc[0] (c) of preset c, included by b, included by a",
        ]
    );
    let circle = read_with("root: /srv/s\npresets: [x]\n", &presets)
        .unwrap_err()
        .render(false);
    assert!(
        circle.contains("x -> y -> x") && circle.contains("y.yaml:2:"),
        "{circle}"
    );
    let bad = read_with("root: /srv/s\npresets: [bad]\n", &presets).unwrap_err();
    assert_eq!(bad.count(), 2, "{}", bad.render(false));
    assert!(bad.render(false).contains("bad.yaml:2:7"));
    assert_eq!(
        presets.description("dns"),
        Some("mine"),
        "a file goes before the built-in one"
    );
    assert_eq!(
        read_with("root: /srv/s\npresets: [dns]\n", &presets)
            .unwrap()
            .entries
            .len(),
        1
    );
}

#[test]
fn every_built_in_preset_is_sound() {
    let presets = Presets::built_in();
    assert_eq!(presets.names().count(), 43);
    for name in presets.names() {
        let entries = presets
            .entries(name)
            .unwrap()
            .unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
        assert!(
            !entries.is_empty()
                && presets
                    .description(name)
                    .is_some_and(|text| text.len() > 10),
            "{name}"
        );
    }
}

#[test]
fn the_examples_that_are_shipped_are_sound() {
    for name in ["demo", "example"] {
        let text = std::fs::read_to_string(format!("manifests/sites/{name}.yaml")).unwrap();
        ok(&text);
    }
}

#[test]
fn a_root_is_found_whatever_else_is_wrong() {
    let root = |name: &str, file: &str, text: &str| {
        let site = SiteName::new(name).unwrap();
        root_of(&site, Path::new(file), text).map(|root| root.to_string())
    };
    let of_site = |text| root("s@a", "s@a.yaml", text);
    assert_eq!(
        of_site("ect: []\nroot: /srv/s\n").as_deref(),
        Some("/srv/s")
    );
    assert_eq!(of_site("root: /srv/%i\n").as_deref(), Some("/srv/%i"));
    assert_eq!(of_site("root: [\n"), None);

    let of_template = |text| root("s@a", "s@.yaml", text);
    for text in ["root: /srv/%i/%%\n", "ect: []\nroot: /srv/%i/%%\n"] {
        assert_eq!(of_template(text).as_deref(), Some("/srv/a/%"), "{text}");
    }
    assert_eq!(of_template("root: /srv/%x\n").as_deref(), Some("/srv/%x"));
}
