//! Promise: a running watcher follows the defaults of all sites, and the instances of templates, as
//! it follows manifests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::support::{Sandbox, Watcher, line, mounts_below, on_shared_root, soon, soon_reads};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let all: [(&str, fn()); 4] = [
        ("the defaults of all sites are followed", defaults),
        ("directories that are instances come and go", instances),
        (
            "a manifest of its own comes before the template, and goes",
            overridden,
        ),
        ("directories below the star are followed", below),
    ];
    all.into_iter()
        .map(|(name, body)| on_shared_root(name, body))
        .collect()
}

fn defaults() {
    let sandbox = Sandbox::new();
    let (own, common) = (
        sandbox.file("host/own", "own"),
        sandbox.file("host/common", "common"),
    );
    let sites =
        ["a", "b"].map(|site| sandbox.site(site, &format!("mounts:\n{}", line(&own, "/own"))));
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);

    let good = format!("mounts:\n{}", line(&common, "/common"));
    let file = sandbox.file("config/defaults.yaml", &good);
    for root in &sites {
        soon_reads(&root.join("common"), "common");
    }
    // A mistake is reported once, and changes nothing.
    fs::write(&file, format!("{good}rot: 1\n")).unwrap();
    watcher.says("unknown key `rot`");
    watcher.says("it has the mistakes shown above, too");
    assert_eq!(
        watcher.said().matches("unknown key `rot`").count(),
        1,
        "{}",
        watcher.said()
    );
    assert_eq!(mounts_below(&sites[0]).len(), 2);
    fs::write(&file, &good).unwrap();
    watcher.says("in sync again");

    fs::remove_file(&file).unwrap();
    for root in &sites {
        soon("the mount goes", || match mounts_below(root).len() {
            1 => Ok(()),
            count => Err(format!("{count} mounts")),
        });
    }
    // Its placeholder goes after it.
    soon("the sites are in sync", || {
        let ran = sandbox.run(&["status"]);
        if ran.code == 0 {
            return Ok(());
        }
        Err(ran.to_string())
    });
    watcher.end();
}

/// The template `c@`, whose instances are the directories `pattern`, with roots elsewhere.
fn template(sandbox: &Sandbox, pattern: &str) -> PathBuf {
    let source = sandbox.file("host/conf", "template");
    sandbox.manifest(
        "c@",
        format!(
            "root: {}/%i\ninstances: {}\nmounts:\n{}",
            sandbox.directory("roots").display(),
            sandbox.path(pattern).display(),
            line(&source, "/conf")
        ),
    );
    source
}

fn instance(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.directory(format!("customers/{name}"));
    sandbox.directory(format!("roots/{name}"))
}

fn instances() {
    let sandbox = Sandbox::new();
    let source = template(&sandbox, "customers/*");
    instance(&sandbox, "a");
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);

    // A new one is known at once, and kept right as soon as it is up.
    let new = instance(&sandbox, "new").join("conf");
    sandbox.ok(&["up", "c@new"]);
    soon_reads(&new, "template");
    fs::rename(sandbox.file("host/conf.new", "two"), &source).unwrap();
    soon_reads(&new, "two");

    // One that is gone is left as it is.
    fs::remove_dir(sandbox.path("customers/new")).unwrap();
    watcher.says("has no instance new any more: its mounts stay, but are no longer kept in sync");
    fs::rename(sandbox.file("host/conf.new", "three"), &source).unwrap();
    soon_reads(&sandbox.path("roots/a/conf"), "three");
    assert_eq!(mounts_below(&new).len(), 1);
    sandbox.directory("customers/new");
    soon_reads(&new, "three");
    watcher.says("c@new: in sync again");

    // A link in its place counts as gone, and is reported.
    fs::remove_dir(sandbox.path("customers/new")).unwrap();
    symlink("/etc", sandbox.path("customers/new")).unwrap();
    watcher.says("links are not followed here: new");
    watcher.says_times("has no instance new any more", 2);

    // An odd name is reported once, whatever else happens there.
    sandbox.directory("customers/a b");
    watcher.says("their names cannot be a site's: 'a b'");
    instance(&sandbox, "more");
    sandbox.ok(&["up", "c@more"]);
    soon_reads(&sandbox.path("roots/more/conf"), "three");
    assert_eq!(
        watcher.said().matches("'a b'").count(),
        1,
        "{}",
        watcher.said()
    );

    // A line in the template is a line for all.
    let other = sandbox.file("host/other", "other");
    let text = fs::read_to_string(sandbox.path("config/sites/c@.yaml")).unwrap();
    sandbox.manifest("c@", format!("{text}{}", line(&other, "/other")));
    for name in ["a", "more"] {
        soon_reads(&sandbox.path(format!("roots/{name}/other")), "other");
    }
    watcher.end();
}

fn overridden() {
    let sandbox = Sandbox::new();
    template(&sandbox, "customers/*");
    let root = instance(&sandbox, "a");
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    let own = sandbox.file("host/own", "own");
    let manifest = sandbox.manifest(
        "c@a",
        format!("root: {}\nmounts:\n{}", root.display(), line(&own, "/conf")),
    );
    soon_reads(&root.join("conf"), "own");
    fs::remove_file(manifest).unwrap();
    soon_reads(&root.join("conf"), "template");
    watcher.end();
}

fn below() {
    let sandbox = Sandbox::new();
    let source = template(&sandbox, "customers/*/www/html");
    instance(&sandbox, "a/www/html");
    sandbox.directory("roots/a");
    sandbox.directory("roots/b");
    sandbox.directory("customers/b");
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    sandbox.directory("customers/b/www");
    sandbox.directory("customers/b/www/html");
    sandbox.ok(&["up", "c@b"]);
    fs::rename(sandbox.file("host/conf.new", "two"), &source).unwrap();
    soon_reads(&sandbox.path("roots/b/conf"), "two");
    fs::rename(
        sandbox.path("customers/b/www"),
        sandbox.path("customers/b/old"),
    )
    .unwrap();
    watcher.says("has no instance b any more");
    watcher.end();
}
