//! Templates of sites: what a file `NAME@.yaml` says about each of its instances.

use std::ffi::OsStr;

use mountjail::base::SiteName;
use mountjail::manifest::{Diagnostics, Manifest, Presets, Request, SourceFile, instances, parse};

fn read(site: &str, file: &str, text: &str) -> Result<Manifest, Diagnostics> {
    let (site, file) = (SiteName::new(site).unwrap(), SourceFile::File(file.into()));
    parse(site, file, text, &Presets::built_in())
}

fn ok(site: &str, file: &str, text: &str) -> Manifest {
    read(site, file, text).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))
}

/// The one mistake of a template: its place, its key, and the whole rendering.
#[track_caller]
fn wrong(text: &str, position: (usize, usize), key: &str, words: &[&str]) {
    let mistakes = read("c@alice", "c@.yaml", text).expect_err(text);
    let shown = mistakes.render(false);
    assert_eq!(mistakes.count(), 1, "{shown}");
    let one = mistakes.iter().next().unwrap();
    assert_eq!(
        (one.position(), one.key()),
        (Some(position), key),
        "{shown}"
    );
    for word in words {
        assert!(shown.contains(word), "{word:?} is not in\n{shown}");
    }
}

#[test]
fn the_instances_name_is_in_every_value() {
    let manifest = ok(
        "c@alice",
        "c@.yaml",
        "root: /srv/%i/www\ninstances: [alice, bob]\nusers: [\"%i\", www-%i]\netc: [\"%i.conf\"]\n\
         mounts:\n- { source: \"/data/%i\", target: \"/100%%/%i\" }\n\
         services: [\"php@%i.service\"]\n",
    );
    assert_eq!(manifest.root.to_string(), "/srv/alice/www");
    assert_eq!(manifest.services, ["php@alice.service"]);
    let texts: Vec<_> = manifest
        .entries
        .iter()
        .map(|entry| entry.origin.text.clone())
        .collect();
    assert_eq!(texts, ["alice", "www-alice", "alice.conf", "/data/alice"]);
    let Request::Mount(mount) = &manifest.entries[3].request else {
        panic!()
    };
    assert_eq!(mount.target.as_ref().unwrap().to_string(), "/100%/alice");
    assert_eq!(manifest.instances.unwrap().names, ["alice", "bob"]);
}

#[test]
fn a_percent_sign_elsewhere_is_itself() {
    for (site, file) in [
        ("c", "c.yaml"),
        ("c@alice", "c@alice.yaml"),
        ("c@a", "d@.yaml"),
    ] {
        let manifest = ok(site, file, "root: /srv/%i\nmounts: [\"/100%\", /%%]\n");
        assert_eq!(manifest.root.to_string(), "/srv/%i");
        assert_eq!(manifest.entries[0].origin.text, "/100%");
        assert_eq!(manifest.entries[1].origin.text, "/%%");
        assert_eq!(manifest.instances, None);
    }
}

#[test]
fn each_mistake_has_its_place_and_its_words() {
    let text = |rest: &str| format!("root: /srv/%i\n{rest}\n");
    wrong(
        &text("instances: [a]\nmounts: [/a, /b/%n/%i]"),
        (3, 14),
        "mounts[1]",
        &[
            "no specifier `%n`",
            "`%i` for the instance's name",
            "`%%` for a percent sign",
        ],
    );
    wrong(
        &text("instances: [a]\nmounts: [{ source: /100% }]"),
        (3, 20),
        "mounts[0].source",
        &["not a whole specifier"],
    );
    wrong(
        &text("users: [a]"),
        (1, 1),
        "",
        &["`instances` is missing", "/srv/customers/*"],
    );
    wrong(
        "instances: [a]\n",
        (1, 1),
        "",
        &["`root` is missing", "/%i"],
    );
    wrong(
        "root: /srv/c/\ninstances: [a]\n",
        (1, 7),
        "root",
        &["the same root", "write `/srv/c/%i`"],
    );
    wrong(
        "root: /srv/%%i\ninstances: [a]\n",
        (1, 7),
        "root",
        &["the same root"],
    );
    for (value, column, key, words) in [
        ("alice", 12, "instances", "`[alice]`"),
        (
            "[a, 'b c']",
            16,
            "instances[1]",
            "an instance's name has letters",
        ),
        ("[.a]", 13, "instances[0]", "begins with a letter or digit"),
        ("[a, 7]", 16, "instances[1]", "quote it"),
        ("['c-*']", 13, "instances[0]", "a pattern begins with `/`"),
        ("['%i']", 13, "instances[0]", "`%i` has no meaning here"),
        ("/srv", 12, "instances", "must have one `*`"),
        ("/srv/*/*", 12, "instances", "must have one `*`"),
        ("['/srv/[ab]*']", 13, "instances[0]", "only `*` is allowed"),
        ("/srv/../*", 12, "instances", "`..`"),
    ] {
        wrong(
            &text(&format!("instances: {value}")),
            (2, column),
            key,
            &[words],
        );
    }
    // The mistake is seen in what the value is for this instance.
    let long = "x".repeat(33);
    let name = format!("c@{long}");
    let mistakes = read(&name, "c@.yaml", &text("instances: [a]\nusers: [\"%i\"]"));
    let shown = mistakes.unwrap_err().render(false);
    assert!(
        shown.contains("at most 32") && shown.contains(&long),
        "{shown}"
    );
}

#[test]
fn only_templates_have_instances() {
    for (site, file) in [("c", "c.yaml"), ("c@alice", "c@alice.yaml")] {
        let wrong = read(site, file, "root: /srv/c\ninstances: [a]\n").unwrap_err();
        let shown = wrong.render(false);
        assert!(
            shown.contains("unknown key `instances`") && shown.contains("name the file NAME@.yaml"),
            "{shown}"
        );
        assert_eq!(wrong.iter().next().unwrap().position(), Some((2, 1)));
    }
}

#[test]
fn instances_are_known_whatever_else_is_wrong() {
    let file = SourceFile::File("c@.yaml".into());
    let (found, mistakes) = instances(&file, "rot: x\ninstances: [a, /srv/c-*/www, 'b c']\n");
    let found = found.unwrap();
    assert_eq!(found.names, ["a"]);
    assert_eq!(
        found.patterns[0].instance(OsStr::new("c-x")),
        Some(OsStr::new("x"))
    );
    assert_eq!(mistakes.unwrap().count(), 3, "rot, the root, `b c`");

    assert_eq!(instances(&file, "root: /srv/%i\n").0, None);
    assert_eq!(instances(&file, "root: [\n").0, None);
    let sound = instances(&file, "root: /srv/%i\nusers: [\"%i\"]\ninstances: []\n");
    assert_eq!(
        (sound.0.map(|found| found.names.len()), sound.1),
        (Some(0), None)
    );
}

#[test]
fn specifiers_cannot_make_a_file_grow_without_bound() {
    let many = "%i".repeat(1000);
    let users = format!("[{}]", vec![format!("\"/{many}\""); 500].join(", "));
    let name = format!("c@{}", "x".repeat(190));
    let text = format!("root: /srv/%i\ninstances: [a]\nmounts: {users}\n");
    let shown = read(&name, "c@.yaml", &text).unwrap_err().render(false);
    assert!(shown.contains("grows too large"), "{shown}");
}
