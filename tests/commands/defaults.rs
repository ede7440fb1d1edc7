//! Promise: `defaults.yaml` is merged under every site, its items say that they come from there,
//! and its mistakes are shown once and do not keep sites from being taken down.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{Ran, Sandbox, line, mounts_below, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    trials([
        ("every site has the defaults", merged),
        ("mistakes in the defaults are shown once", mistakes),
        (
            "defaults that cannot be used are an error of each site",
            unusable,
        ),
        (
            "services of the defaults are ordered after every site",
            services,
        ),
        (
            "the scope `services` is refused, not mounted on the host",
            scope,
        ),
    ])
}

/// Two sites with one line each, and defaults with another one.
fn two_sites() -> Sandbox {
    let sandbox = Sandbox::new();
    let (own, common) = (sandbox.file("own", "own"), sandbox.file("common", "common"));
    for site in ["a", "b"] {
        sandbox.site(site, &format!("mounts:\n{}", line(&own, "/own")));
    }
    defaults(&sandbox, &format!("mounts:\n{}", line(&common, "/common")));
    sandbox
}

fn defaults(sandbox: &Sandbox, text: &str) {
    sandbox.file("config/defaults.yaml", text);
}

fn merged() {
    let sandbox = two_sites();
    sandbox.preset("more", "description: more\netc: [hosts]\n");
    let common = fs::read_to_string(sandbox.path("config/defaults.yaml")).unwrap();
    defaults(&sandbox, &format!("{common}presets: [more]\n"));
    let file = sandbox.path("config/defaults.yaml");
    sandbox
        .ok(&["check"])
        .prints("a: ok, 3 mounts")
        .prints("b: ok, 3 mounts");
    sandbox.run(&["plan", "a"]).exits(3).prints("/common");
    sandbox.ok(&["up", "--all"]);
    for site in ["a", "b"] {
        let root = sandbox.root(site);
        assert_eq!(fs::read_to_string(root.join("common")).unwrap(), "common");
        assert_eq!(fs::read_to_string(root.join("own")).unwrap(), "own");
        assert_eq!(mounts_below(&root).len(), 3);
    }
    sandbox.ok(&["fstab", "a"]).prints("/common");

    let why = sandbox.ok(&["why", "a", "/common"]);
    why.prints(&format!("{}: mounts[0]", file.display()));
    sandbox
        .ok(&["why", "a", "/etc/hosts"])
        .prints("etc[0] (hosts) of preset more, included by defaults.yaml");
    let json = sandbox.ok(&["why", "--json", "a", "/common"]).json();
    assert_eq!(json["reasons"][0]["defaults"], true, "{json}");
    let json = sandbox.ok(&["why", "--json", "a", "/own"]).json();
    assert_eq!(json["reasons"][0]["defaults"], false, "{json}");

    // Without the file there are no defaults.
    fs::remove_file(file).unwrap();
    sandbox.ok(&["up", "--all"]);
    assert_eq!(mounts_below(&sandbox.root("a")).len(), 1);
}

fn mistakes() {
    let sandbox = two_sites();
    sandbox.ok(&["up", "--all"]);
    defaults(&sandbox, "# all sites\nmuonts: [/x]\n");
    let file = sandbox.path("config/defaults.yaml");
    let place = format!("{}:2:1", file.display());
    for arguments in [&["up", "--all"][..], &["check"], &["status"]] {
        let ran = sandbox.run(arguments).exits(2);
        assert_eq!(ran.stderr.matches(&place).count(), 1, "{}", ran.stderr);
        ran.says("did you mean `mounts`?")
            .says("b: it has the mistakes shown above, too");
    }
    sandbox.run(&["status", "a"]).exits(2).prints(&place);
    assert_eq!(mounts_below(&sandbox.root("a")).len(), 2, "left as it was");

    // Mistakes of a site's own are shown besides.
    sandbox.manifest("b", "rot: /x\n");
    let ran = sandbox.run(&["check"]).exits(2).says("unknown key `rot`");
    assert_eq!(ran.stderr.matches(&place).count(), 1, "{}", ran.stderr);

    sandbox.ok(&["down", "--all"]);
    assert_eq!(mounts_below(&sandbox.root("a")).len(), 0);
    assert_eq!(mounts_below(&sandbox.root("b")).len(), 0);

    // They are also shown where there are no sites.
    for site in ["a", "b"] {
        fs::remove_file(sandbox.path(format!("config/sites/{site}.yaml"))).unwrap();
    }
    sandbox.run(&["check"]).exits(2).says(&place);
}

fn unusable() {
    let sandbox = two_sites();
    let file = sandbox.path("config/defaults.yaml");
    let fails = |arguments: &[&str], code: i32, words: &[&str]| -> Ran {
        let mut ran = sandbox.run(arguments).exits(code);
        for word in words {
            ran = ran.says(word);
        }
        ran
    };
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let shown = file.display().to_string();
    fails(
        &["up", "a"],
        2,
        &["defaults", "cannot be read", &shown, "make it root's alone"],
    );
    sandbox.ok(&["check", "a"]); // it acts on nothing
    fs::remove_file(&file).unwrap();
    symlink("nowhere", &file).unwrap();
    fails(&["up", "a"], 2, &["cannot be read", &shown, "No such file"]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fails(&["up", "a"], 2, &["cannot be read", "not a regular file"]);
    assert_eq!(mounts_below(&sandbox.root("a")).len(), 0);
}

fn services() {
    let sandbox = two_sites();
    defaults(&sandbox, "services: [all.service]\n");
    let units = sandbox.directory("units");
    sandbox.file("units/all.service", "[Service]\nExecStart=/bin/true\n");
    let units = units.to_str().unwrap();
    sandbox
        .ok(&["units", "--all", "--dir", units])
        .prints("all.service.d/50-mountjail.conf")
        .says("a: mounted before all.service")
        .says("b: mounted before all.service");

    // What is wrong with one of them is to be mended there.
    defaults(&sandbox, "services: [missing.service]\n");
    sandbox
        .run(&["units", "a", "--dir", units])
        .exits(1)
        .says("this host has no unit missing.service")
        .says(&format!(
            "correct `services` in {}",
            sandbox.path("config/defaults.yaml").display()
        ));
}

fn scope() {
    let sandbox = two_sites();
    let text = fs::read_to_string(sandbox.path("config/sites/a.yaml")).unwrap();
    sandbox.manifest(
        "a",
        format!("{text}scope: services\nservices: [x.service]\n"),
    );
    sandbox.ok(&["check"]);
    sandbox
        .ok(&["up", "--all"])
        .says("a: comes up with x.service, which does not run");
    assert_eq!(mounts_below(&sandbox.root("a")).len(), 0);
    assert_eq!(mounts_below(&sandbox.root("b")).len(), 2);

    // A site that is up goes down all the same.
    sandbox.manifest("a", &text);
    sandbox.ok(&["up", "a"]);
    sandbox.manifest(
        "a",
        format!("{text}scope: services\nservices: [x.service]\n"),
    );
    sandbox.ok(&["down", "a"]);
    assert_eq!(mounts_below(&sandbox.root("a")).len(), 0);
}
