//! The defaults of all sites: what a site has of them, and whose mistakes are whose.

use mountjail::base::SiteName;
use mountjail::manifest::{Diagnostics, Manifest, Presets, Request, Scope, SourceFile, parse};

const FILE: &str = "/etc/mountjail/defaults.yaml";

fn presets(defaults: &str) -> Presets {
    let mut presets = Presets::built_in();
    presets.set_defaults(SourceFile::File(FILE.into()), defaults.to_owned());
    presets
}

fn read(defaults: &str, text: &str) -> Result<Manifest, Diagnostics> {
    let file = SourceFile::File("s.yaml".into());
    parse(SiteName::new("s").unwrap(), file, text, &presets(defaults))
}

fn ok(defaults: &str, text: &str) -> Manifest {
    read(defaults, text).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))
}

/// The names of the lines of `etc`, in their order.
fn etc(manifest: &Manifest) -> Vec<&str> {
    let mut names = vec![];
    for entry in &manifest.entries {
        if let Request::Etc(wanted) = &entry.request {
            names.extend(wanted.any_of.iter().map(String::as_str));
        }
    }
    names
}

#[test]
fn lists_are_joined_and_the_site_has_the_last_word() {
    let defaults = "scope: services\netc: [hosts, services]\n\
                    services: [a.service, b.service]\npresets: [timezone]\n";
    let site = ok(defaults, "root: /srv/s\n");
    assert_eq!((site.scope, site.services.len()), (Scope::Services, 2));
    assert_eq!(etc(&site)[..2], ["hosts", "services"]);

    let site = ok(
        defaults,
        "root: /srv/s\nscope: host\netc: [motd]\nservices: [c.service, a.service]\n",
    );
    assert_eq!(site.scope, Scope::Host);
    assert_eq!(etc(&site)[..3], ["hosts", "services", "motd"]);
    assert_eq!(site.services, ["a.service", "b.service", "c.service"]);
    let file = |service| site.file_of_service(service).to_string();
    assert_eq!([file("b.service"), file("c.service")], [FILE, "s.yaml"]);

    let plain = ok("", "root: /srv/s\n");
    assert!(plain.entries.is_empty() && plain.scope == Scope::Host);
    assert_eq!(ok("# nothing yet\n", "root: /srv/s\n"), plain);
}

#[test]
fn a_preset_of_both_comes_once_and_says_where_it_comes_from() {
    let alone = ok("", "root: /srv/s\npresets: [dns, tls]\n");
    let both = ok("presets: [dns]\n", "root: /srv/s\npresets: [dns, tls]\n");
    let requests = |manifest: &Manifest| -> Vec<Request> {
        let entries = manifest.entries.iter();
        entries.map(|entry| entry.request.clone()).collect()
    };
    assert_eq!(requests(&both), requests(&alone));

    let first = &both.entries[0].origin;
    assert!(first.defaults && first.presets == ["dns"]);
    assert!(
        first
            .to_string()
            .ends_with("of preset dns, included by defaults.yaml"),
        "{first}"
    );
    let last = &both.entries.last().unwrap().origin;
    assert!(!last.defaults && last.presets == ["tls"]);

    let own = ok("etc: [hosts]\n", "root: /srv/s\n");
    assert_eq!(
        own.entries[0].origin.to_string(),
        format!("{FILE}: etc[0] (hosts)")
    );
}

#[test]
fn mistakes_are_those_of_the_file_that_has_them() {
    type Place = (String, Option<(usize, usize)>, String);
    let places = |defaults: &str, text: &str| -> Vec<Place> {
        let wrong = read(defaults, text).expect_err(text);
        let places = wrong
            .iter()
            .map(|one| (one.file().to_string(), one.position(), one.key().to_owned()));
        places.collect()
    };
    let place = |file: &str, position, key: &str| (file.to_owned(), position, key.to_owned());

    assert_eq!(
        places(
            "etc: [hosts]\nect: [x]\npresets: [dsn]\n",
            "root: /srv/s\nusres: [a]\n"
        ),
        [
            place("s.yaml", Some((2, 1)), "usres"),
            place(FILE, Some((2, 1)), "ect"),
            place(FILE, Some((3, 11)), "presets[0]"),
        ]
    );
    for (defaults, key) in [
        ("root: /srv/s\n", "root"),
        ("instances: [a]\n", "instances"),
    ] {
        assert_eq!(
            places(defaults, "root: /srv/s\n"),
            [place(FILE, Some((1, 1)), key)]
        );
    }
    assert_eq!(places("etc: [\n", "root: /srv/s\n")[0].0, FILE);

    // What no site can have without its own addition is a mistake of the site.
    assert_eq!(
        places("scope: services\n", "root: /srv/s\n"),
        [place("s.yaml", Some((1, 1)), "")]
    );
    assert_eq!(
        places("", "root: /srv/s\nscope: services\n"),
        [place("s.yaml", Some((2, 8)), "scope")]
    );
    ok("services: [a.service]\n", "root: /srv/s\nscope: services\n");
    ok("scope: services\n", "root: /srv/s\nservices: [a.service]\n");
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_of_each_site() {
    let mut presets = Presets::built_in();
    presets.set_unreadable_defaults(SourceFile::File(FILE.into()), "it is a FIFO".to_owned());
    let file = SourceFile::File("s.yaml".into());
    let wrong = parse(
        SiteName::new("s").unwrap(),
        file,
        "root: /srv/s\n",
        &presets,
    );
    let shown = wrong.unwrap_err().render(false);
    assert!(
        shown.contains(FILE) && shown.contains("it is a FIFO"),
        "{shown}"
    );
}
