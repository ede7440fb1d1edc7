//! Promise: the schema that editors use takes what mountjail takes, and refuses what a schema can
//! tell.

use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use mountjail::base::SiteName;
use mountjail::manifest::{
    Presets, SourceFile, defaults_schema, parse, preset_schema, site_schema, template_schema,
};
use serde_json::Value;

fn validator(schema: &Value) -> Validator {
    jsonschema::draft7::meta::validate(schema)
        .unwrap_or_else(|error| panic!("not a schema: {error}"));
    jsonschema::draft7::new(schema).unwrap()
}

fn mistakes(validator: &Validator, yaml: &str) -> Vec<String> {
    let value: Value = serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"));
    validator
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn every_example_and_preset_is_valid() {
    for (directory, schema, least) in [
        ("manifests/sites", site_schema(), 2),
        ("manifests/presets", preset_schema(), 21),
    ] {
        let (validator, files) = (validator(&schema), files(directory));
        assert!(files.len() >= least);
        for file in files {
            let found = mistakes(&validator, &fs::read_to_string(&file).unwrap());
            assert!(found.is_empty(), "{}: {found:?}", file.display());
        }
    }
}

#[test]
fn the_manifests_of_the_book_are_valid() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = glob::glob(top.join("docs/**/*.md").to_str().unwrap()).unwrap();
    let pages = pages.map(Result::unwrap).chain([top.join("README.md")]);
    let (mut examples, mut wrong) = (0, Vec::new());
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let name = page.strip_prefix(top).unwrap().display().to_string();
        if name == "docs/reference/presets.md" {
            continue; // has the built-in presets without their descriptions
        }
        for rest in text.split("```yaml\n").skip(1) {
            let example = rest.split("```").next().unwrap();
            examples += 1;
            let schema = schema_of(example);
            for mistake in mistakes(&validator(&schema), example) {
                wrong.push(format!("{name}: {mistake}"));
            }
        }
    }
    assert!(examples >= 15, "{examples}");
    // One page shows what a mistake looks like.
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    assert!(
        wrong[0].starts_with("docs/guide/manifest.md: "),
        "{wrong:?}"
    );
}

/// The schema of an example of the book.
fn schema_of(example: &str) -> Value {
    if example.contains("description:") {
        preset_schema()
    } else if example.contains("instances:") {
        template_schema()
    } else if example.contains("root:") {
        site_schema()
    } else {
        defaults_schema()
    }
}

/// Lines of manifests, right ones and wrong ones.
const LINES: &[&str] = &[
    "presets: [dns]",
    "presets: dns",
    "presets: [3]",
    "presets: ['']",
    "devices: [null, 'null', zero, { name: null, optional: true }]",
    "devices: [/dev/null]",
    "devices: [{ any_of: [a, b], optional: yes }]",
    "devices: [{ any_of: [a, b], optional: true }]",
    "devices: [{ any_of: [] }]",
    "devices: [{ name: a, any_of: [b] }]",
    "devices: [{ optional: true }]",
    "devices: [{ path: zero }]",
    "devices: null",
    "etc: [hosts, ssl/certs, { any_of: [pki, ssl] }]",
    "etc: [/etc/hosts]",
    "etc: ['*.conf']",
    "programs: [/bin/sh, { path: '/usr/bin/*', optional: true }]",
    "programs: [sh]",
    "programs: [/bin/../sh]",
    "programs: [/bin/..]",
    "programs: [/bin/..sh, /bin/sh..]",
    "programs: [{ name: /bin/sh }]",
    "libraries: [/usr/lib/*/x.so]",
    "users: [www-data, site1.example, _a, host$]",
    "users: ['a b']",
    "users: [-a]",
    "nss: [hosts, passwd]",
    "nss: [host]",
    "nss: [{ name: hosts }]",
    "mounts: [/usr/share, { source: /a, target: /b, access: read-write, recursive: true, \
     optional: true }]",
    "mounts: [{ source: /a, executable: true, devices: false, setuid: true }]",
    "mounts: [{ any_of: [/a, /b], target: /c }]",
    "mounts: [{ target: /b }]",
    "mounts: [{ source: a }]",
    "mounts: [{ source: /a, target: b }]",
    "mounts: [{ source: /a, access: rw }]",
    "mounts: [{ source: /a, optional: 'true' }]",
    "mounts: [{ source: /a, mode: ro }]",
    "mounts: [{ source: /a, any_of: [/b] }]",
    "mounts: [[/a]]",
    "mounts: { source: /a }",
    "mounts: [{ source: '/a[1]', literal: true, target: /b }]",
    "directories: [/a, { path: /b, user: www-data, mode: '0750' }]",
    "directories: [a]",
    "directories: [{ path: /a, mode: rwx }]",
    "tmpfs: [/t, { target: /t/u, size: 64M }]",
    "tmpfs: [{ target: /t, size: 50% }]",
    "proc: true",
    "proc: 1",
    "programs: ['rs*']",
    "services: [php8.2-fpm.service, 'a@b.socket']",
    "services: [php fpm.service]",
    "services: [php-fpm]",
    "users: ['%i']",
    "services: ['a@%i.service']",
    "scope: host",
    "scope: services\nservices: [a.service]",
    "scope: service",
    "scope: [host]",
    "instances: [a]",
    "preset: [dns]",
    "description: x",
];

/// The schema takes and refuses the same texts as the parser.
#[test]
fn the_schema_agrees_with_the_parser() {
    let validator = validator(&site_schema());
    let presets = Presets::built_in();
    let long = format!("users: [{}]", "a".repeat(33));
    let lines = LINES.iter().copied().chain([long.as_str()]);
    let mut taken = 0;
    for line in lines.clone() {
        let text = format!("root: /srv/s\n{line}\n");
        let parsed = parse(
            SiteName::new("s").unwrap(),
            SourceFile::File("s.yaml".into()),
            &text,
            &presets,
        );
        let found = mistakes(&validator, &text);
        match &parsed {
            Ok(_) => assert!(
                found.is_empty(),
                "the parser takes it, the schema does not: {line}: {found:?}"
            ),
            Err(wrong) => {
                assert!(
                    !found.is_empty(),
                    "the schema takes what is wrong: {line}\n{}",
                    wrong.render(false)
                );
            }
        }
        taken += usize::from(parsed.is_ok());
    }
    assert_eq!(
        (taken, lines.count()),
        (20, 63),
        "as many right ones and wrong ones as were written"
    );
    for text in [
        "presets: [dns]",
        "root: srv",
        "root: null",
        "root: /srv/../x",
        "[]",
    ] {
        assert!(!mistakes(&validator, text).is_empty(), "{text}");
    }
}

/// The same for templates of sites and for the defaults of all sites.
#[test]
fn the_schemas_of_templates_and_defaults_agree_with_the_parser() {
    let (of_template, of_defaults) = (validator(&template_schema()), validator(&defaults_schema()));
    let takes_template = |text: &str| {
        let (site, file) = (SiteName::new("s@i").unwrap(), "s@.yaml".into());
        parse(site, SourceFile::File(file), text, &Presets::built_in()).is_ok()
    };
    for (text, right) in [
        ("root: /srv/%i\ninstances: [a, b.example]", true),
        ("root: /srv/%i\ninstances: /srv/*", true),
        (
            "root: /srv/%i\ninstances: [a, /srv/c-*/www]\nusers: ['%i', 'c-%i', a]",
            true,
        ),
        (
            "root: /srv/%i\ninstances: []\nservices: ['php@%i.service']",
            true,
        ),
        (
            "root: /srv/%i\ninstances: [a]\nmounts: ['/data/%i/100%%']\nscope: host",
            true,
        ),
        ("root: /srv/%i", false),
        ("instances: [a]", false),
        ("root: /srv/s\ninstances: [a]", false),
        ("root: '%i'\ninstances: [a]", false),
        ("root: /srv/%i\ninstances: a", false),
        ("root: /srv/%i\ninstances: ['a b']", false),
        ("root: /srv/%i\ninstances: [.a]", false),
        ("root: /srv/%i\ninstances: /srv", false),
        ("root: /srv/%i\ninstances: /srv/*/*", false),
        ("root: /srv/%i\ninstances: ['/srv/[ab]*']", false),
        ("root: /srv/%i\ninstances: [a]\nusers: ['a b']", false),
    ] {
        assert_eq!(takes_template(text), right, "{text}");
        assert_eq!(mistakes(&of_template, text).is_empty(), right, "{text}");
    }
    for (text, right) in [
        ("# nothing yet", true),
        ("{}", true),
        ("scope: services\npresets: [dns]", true),
        ("etc: [hosts]\nservices: [a.service]", true),
        ("root: /srv/s", false),
        ("description: x", false),
        ("instances: [a]", false),
        ("scope: jail", false),
        ("[]", false),
    ] {
        let mut presets = Presets::built_in();
        presets.set_defaults(SourceFile::File("defaults.yaml".into()), text.to_owned());
        assert_eq!(presets.mistakes_in_defaults().is_none(), right, "{text}");
        assert_eq!(mistakes(&of_defaults, text).is_empty(), right, "{text}");
    }
}
