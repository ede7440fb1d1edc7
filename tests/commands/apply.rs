//! Promise: `apply` writes a manifest and brings the site up, or leaves both as they were; `remove`
//! leaves nothing; both tell exactly whether they changed anything.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::support::{
    Ran, Running, Sandbox, Watcher, alone, bind, empty_run, mounts_below, overlay, tree, trials,
    unmount, wait_until,
};

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        ("a new site is applied once", new_site),
        ("a manifest comes from a pipe", from_a_pipe),
        ("changes are shown before and after", told),
        ("a dry run warns as the run does", warned),
        ("a failure leaves all as it was", as_before),
        ("the remedies for a new site can be typed", remedies),
        ("a manifest that may not last takes no place", unsynced),
        ("a root is made, and goes if the site fails", roots),
        ("what is above a root that is to be made decides", new_roots),
        ("the manifest's owner, mode and link stay", kept),
        ("a killed run leaves the old manifest", killed),
        ("a full disk is found before a mount", full_disk),
        ("applies and ups of one site at the same time", concurrent),
        ("a site of a template gets a manifest of its own", instances),
        ("a template of sites is not applied", templates),
        ("in the namespaces of services", services),
        ("all namespaces of services or none", services_fail),
        ("nothing is left of a removed site", removed),
        (
            "a site that is removed meanwhile is passed over",
            passed_over,
        ),
        ("a site in use is not removed", in_use),
        ("a site with a broken manifest is removed", broken),
        ("a site that is only recorded is removed", recorded),
        (
            "a site of which something would be left is not removed",
            refused,
        ),
    ]);
    all.push(alone("a site's drop-ins go with it", drop_ins));
    all
}

/// A manifest of the site `name` with one file of the host, which has `text`.
fn manifest(sandbox: &Sandbox, name: &str, text: &str) -> String {
    let source = sandbox.file(format!("host/{text}"), text);
    let (root, source) = (sandbox.root(name), source.display().to_string());
    format!(
        "root: {}\nmounts: [{{ source: {source}, target: /file }}]\n",
        root.display()
    )
}

/// The same in a file `NAME.yaml` beside the configuration.
fn given(sandbox: &Sandbox, name: &str, text: &str) -> PathBuf {
    sandbox.directory(format!("srv/{name}"));
    sandbox.file(format!("given/{name}.yaml"), manifest(sandbox, name, text))
}

fn own(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.config().join(format!("sites/{name}.yaml"))
}

#[track_caller]
fn apply(sandbox: &Sandbox, file: &Path, more: &[&str]) -> Ran {
    let file = file.to_str().unwrap();
    sandbox.run(&[&["apply", "--json", file], more].concat())
}

/// The object of the one site.
#[track_caller]
fn site(ran: &Ran) -> Value {
    let json = ran.json();
    assert_eq!(json["version"], 1, "{ran}");
    json["sites"][0].clone()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn new_site() {
    let sandbox = Sandbox::new();
    fs::remove_dir(sandbox.config().join("sites")).unwrap();
    let file = given(&sandbox, "s", "one");
    let first = site(&apply(&sandbox, &file, &[]).exits(0));
    assert_eq!(first["changed"], true);
    assert_eq!(
        first["manifest"],
        json!({ "file": own(&sandbox, "s"), "changed": true })
    );
    assert_eq!(
        (&first["attached"], &first["mounts"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        fs::read(own(&sandbox, "s")).unwrap(),
        fs::read(&file).unwrap()
    );
    assert_eq!(
        fs::metadata(own(&sandbox, "s")).unwrap().mode() & 0o7777,
        0o644
    );
    assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"one");
    assert_eq!(names(&sandbox.config().join("sites")), ["s.yaml"]);

    let before = fs::metadata(own(&sandbox, "s")).unwrap();
    let second = site(&apply(&sandbox, &file, &[]).exits(0));
    assert_eq!(
        (&second["changed"], &second["applied"]),
        (&json!(false), &json!(true))
    );
    let after = fs::metadata(own(&sandbox, "s")).unwrap();
    assert_eq!(
        (before.ino(), before.mtime_nsec()),
        (after.ino(), after.mtime_nsec())
    );

    // A mount that somebody took off is a change, although the manifest is the same.
    unmount(&sandbox.root("s").join("file"));
    let healed = site(&apply(&sandbox, &file, &[]).exits(0));
    assert_eq!(
        (&healed["changed"], &healed["manifest"]["changed"]),
        (&json!(true), &json!(false))
    );
}

fn from_a_pipe() {
    let sandbox = Sandbox::new();
    sandbox.directory("srv/s");
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command();
        command.args(arguments).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let text = manifest(&sandbox, "s", "one");
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes()); // it may not be read
        child.wait_with_output().unwrap()
    };
    let refused = run(&["apply", "-"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("name the site with --name"), "{said}");
    assert_eq!(run(&["apply", "--name", "s", "-"]).status.code(), Some(0));
    assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"one");

    let line = format!(
        "\"$MOUNTJAIL\" apply --name s --json <(sed s/one/two/ {})",
        own(&sandbox, "s").display()
    );
    sandbox.file("host/two", "two");
    let mut bash = sandbox.command_under(&["bash", "-c", &line]);
    bash.env("MOUNTJAIL", env!("CARGO_BIN_EXE_mountjail"));
    let _ = Ran::of(&mut bash).exits(0);
    assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"two");

    // Mistakes are shown where the text is from.
    let wrong = sandbox.file("wrong.yaml", "root: /srv/s\nmount: [/a]\n");
    let ran = apply(&sandbox, &wrong, &["--name", "s"])
        .exits(2)
        .says("wrong.yaml:2");
    assert!(!ran.stderr.contains("config/sites"), "{ran}");
}

fn told() {
    let sandbox = Sandbox::new();
    let file = given(&sandbox, "s", "one");
    let predicted = site(&apply(&sandbox, &file, &["--dry-run"]).exits(3));
    assert_eq!(
        (&predicted["changed"], &predicted["applied"]),
        (&json!(true), &json!(false))
    );
    assert!(!own(&sandbox, "s").exists() && mounts_below(&sandbox.root("s")).is_empty());
    apply(&sandbox, &file, &[]).exits(0);
    let same = site(&apply(&sandbox, &file, &["--dry-run"]).exits(0));
    assert_eq!(
        (&same["changed"], &same["steps"]),
        (&json!(false), &json!([]))
    );

    let before = fs::read_to_string(own(&sandbox, "s")).unwrap();
    let file = given(&sandbox, "s", "two");
    let after = fs::read_to_string(&file).unwrap();
    for arguments in [&["--diff", "--dry-run"][..], &["--diff"]] {
        let ran = site(&apply(&sandbox, &file, arguments));
        assert_eq!(ran["changed"], true);
        let diff = &ran["diff"];
        assert_eq!(diff["manifest"]["before"], before, "{diff:#}");
        assert_eq!(diff["manifest"]["after"], after, "{diff:#}");
        let line = |text: &str| {
            let source = sandbox.path(format!("host/{text}"));
            format!("{} on /file (ro,nosuid,nodev,noexec)", source.display())
        };
        assert_eq!(diff["mounts"]["after"], json!([line("two")]));
        let old = diff["mounts"]["before"][0].as_str().unwrap();
        assert!(
            old.contains(" on /file (") && old.contains(", wrong-source: "),
            "{old}"
        );
    }
    let none = site(&apply(&sandbox, &file, &["--diff"]).exits(0));
    assert_eq!(
        none["diff"]["mounts"]["before"],
        none["diff"]["mounts"]["after"]
    );

    let file = given(&sandbox, "s", "three");
    let file = file.to_str().unwrap();
    let ran = sandbox
        .run(&["apply", "--dry-run", "--diff", file])
        .exits(3);
    let ran = ran
        .prints("s: 1 step in ")
        .prints("the manifest")
        .prints("--- mounts\n");
    let _ = ran.prints("-mounts: [").prints("+mounts: [");
    let removal = sandbox
        .run(&["remove", "--dry-run", "--diff", "s"])
        .exits(3);
    let _ = removal
        .prints("+++ /dev/null\n")
        .prints("-root: ")
        .prints("  detach ");
}

/// The messages about the manifest are the same, on the host and in services.
fn warned() {
    let sandbox = Sandbox::new();
    for scope in ["", "scope: services\nservices: [a.service]\n"] {
        let lines = "  - { source: /etc, target: /all, access: read-write }\n  \
                     - { source: /no/such/file, optional: true }\n";
        let text = format!(
            "root: {}\n{scope}mounts:\n{lines}",
            sandbox.root("s").display()
        );
        let file = sandbox.file("given/s.yaml", text);
        sandbox.directory("srv/s");
        let about_manifest = |ran: &Ran| {
            let about = ["warning: ", "/no/such/file"];
            let lines = ran.stderr.lines().map(str::to_owned);
            let lines = lines.filter(|line| about.iter().any(|word| line.contains(word)));
            lines.collect::<Vec<_>>()
        };
        let dry = about_manifest(&apply(&sandbox, &file, &["--dry-run"]).exits(3));
        assert!(dry.iter().any(|line| line.contains("/etc")), "{dry:?}");
        let wet = about_manifest(&apply(&sandbox, &file, &[]).exits(0));
        assert_eq!(dry, wet);
        assert_eq!(wet.len(), if scope.is_empty() { 2 } else { 1 }, "{wet:?}");
        let again = about_manifest(&apply(&sandbox, &file, &["--dry-run"]).exits(0));
        assert_eq!(again, about_manifest(&apply(&sandbox, &file, &[]).exits(0)));
        sandbox.ok(&["remove", "s"]);
    }
}

fn remedies() {
    let sandbox = Sandbox::new();
    let file = given(&sandbox, "s", "one");
    let root = sandbox.root("s");
    fs::write(root.join("file"), "one").unwrap();
    let place = own(&sandbox, "s");
    let try_this = format!(
        "write the manifest to {}; then `mountjail adopt s`",
        place.display()
    );
    for more in [&["--dry-run"][..], &[]] {
        let _ = apply(&sandbox, &file, more).exits(1).says(&try_this);
    }
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(&file, &place).unwrap();
    let _ = apply(&sandbox, &file, &[])
        .exits(1)
        .says("try: `mountjail adopt s`");
    sandbox.ok(&["adopt", "s", "--write"]);

    let file = given(&sandbox, "t", "one");
    fs::remove_dir(sandbox.root("t")).unwrap();
    let _ = apply(&sandbox, &file, &[])
        .exits(1)
        .says("let `mountjail apply --create` make it");
    let _ = apply(&sandbox, &file, &["--create"]).exits(0);
}

fn as_before() {
    let sandbox = Sandbox::new();
    let file = given(&sandbox, "s", "one");
    apply(&sandbox, &file, &[]).exits(0);
    let root = sandbox.root("s");
    let mounts = mounts_below(&root);
    let old = fs::read(own(&sandbox, "s")).unwrap();
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/hosts"), "the site's own").unwrap();
    let (with_own, conflict) = (
        tree(&root),
        manifest(&sandbox, "s", "two") + "etc: [hosts]\n",
    );
    for (text, code) in [
        (conflict.as_str(), 1),
        ("root: /srv/nowhere\nmount: [/a]\n", 2),
        ("root: /nowhere\n", 1),
        ("root: /srv/../etc\n", 2),
    ] {
        let file = sandbox.file("given/s.yaml", text);
        for more in [&["--dry-run"][..], &[]] {
            let failed = apply(&sandbox, &file, more).exits(code);
            let failed = site(&failed);
            let why = failed.get("errors").or(failed.get("conflicts"));
            assert!(!why.unwrap().as_array().unwrap().is_empty(), "{failed:#}");
            assert_eq!(fs::read(own(&sandbox, "s")).unwrap(), old);
            assert_eq!(names(&sandbox.config().join("sites")), ["s.yaml"]);
            assert_eq!(mounts_below(&root).len(), mounts.len());
            with_own.assert_same(&tree(&root));
        }
    }
    fs::remove_dir_all(root.join("etc")).unwrap();
    sandbox.ok(&["status", "s"]);

    // The rename itself fails, after everything else worked.
    let file = given(&sandbox, "s", "two");
    let staged = sandbox.config().join("sites/.s.yaml.mountjail");
    let only = ["-P", staged.to_str().unwrap()];
    let mut command = sandbox.command_with_fault("rename,renameat2:error=EIO", &only);
    let ran = Ran::of(command.args(["apply", file.to_str().unwrap()])).exits(1);
    let _ = ran
        .says("error: s: cannot write")
        .says("the site is as it was before");
    assert_eq!(fs::read(own(&sandbox, "s")).unwrap(), old);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"one");
    sandbox.ok(&["status", "s"]);
}

/// The manifest is in its place, but it may not last: the disk fails.
fn unsynced() {
    let sandbox = Sandbox::new();
    let root = sandbox.directory("srv/s");
    let sites = sandbox.config().join("sites");
    let only = ["-P", sites.to_str().unwrap()];
    let fail = |text: &str| {
        let file = given(&sandbox, "s", text);
        let mut command = sandbox.command_with_fault("fsync:error=EIO", &only);
        Ran::of(command.args(["apply", file.to_str().unwrap()]))
            .exits(1)
            .says("cannot write");
    };
    fail("one");
    assert_eq!(names(&sites), [] as [String; 0]);
    assert!(mounts_below(&root).is_empty());

    apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
    let old = fs::read(own(&sandbox, "s")).unwrap();
    fail("two");
    assert_eq!(names(&sites), ["s.yaml"]);
    assert_eq!(fs::read(own(&sandbox, "s")).unwrap(), old);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"one");
}

fn roots() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("given/s.yaml", manifest(&sandbox, "s/deep", "one"));
    apply(&sandbox, &file, &[]).exits(1);
    let predicted = site(&apply(&sandbox, &file, &["--create", "--dry-run"]).exits(3));
    assert_eq!(predicted["new_root"], json!(sandbox.root("s/deep")));
    assert_eq!(predicted["steps"][0]["step"], "create-placeholder");
    assert_eq!(predicted["steps"][1]["target"], "/file", "{predicted:#}");
    assert_eq!(predicted["diff"], Value::Null);
    let failing = manifest(&sandbox, "s/deep", "one") + "etc: [no-such-file]\n";
    let failing = sandbox.file("failing/s.yaml", failing);
    for more in [&["--create", "--dry-run"][..], &["--create"]] {
        let failed = site(&apply(&sandbox, &failing, more).exits(1));
        assert_eq!(
            failed["errors"][0]["path"], "/etc/no-such-file",
            "{failed:#}"
        );
        assert!(!sandbox.root("s").exists() && !own(&sandbox, "s").exists());
    }
    let predicted = site(&apply(&sandbox, &file, &["--create", "--dry-run", "--diff"]).exits(3));
    assert!(!sandbox.root("s").exists());
    let done = site(&apply(&sandbox, &file, &["--create", "--diff"]).exits(0));
    assert_eq!(done["diff"], predicted["diff"]);
    assert_eq!(done["attached"], 1);
    assert_eq!(fs::read(sandbox.root("s/deep/file")).unwrap(), b"one");
}

/// What the directory above says of a root that is to be made.
fn new_roots() {
    let sandbox = Sandbox::new();
    let predict = |root: &Path, code: i32| {
        let text = format!("root: {}\netc: [hosts]\n", root.display());
        let file = sandbox.file("given/s.yaml", text);
        let dry = apply(&sandbox, &file, &["--create", "--dry-run"]).exits(code);
        assert!(!root.exists(), "{dry}");
        dry
    };
    // Another path of a directory of the system.
    let alias = sandbox.directory("alias");
    bind(Path::new("/usr/share"), &alias);
    let _ = predict(&alias.join("no-such/root"), 2).says("is inside /usr/share by another path");
    // A directory of somebody else, and a link.
    let theirs = sandbox.directory("theirs");
    chown(&theirs, Some(1234), None).unwrap();
    predict(&theirs.join("root"), 3);
    symlink(sandbox.directory("srv"), theirs.join("link")).unwrap();
    lchown(theirs.join("link"), Some(1234), None).unwrap();
    let _ = predict(&theirs.join("link/root"), 1).says("name the directory that is meant");
    // A root in the root of another site.
    sandbox.site("other", "etc: [hosts]\n");
    let _ = predict(&sandbox.root("other/inner"), 2).says("(of the site other) overlap");
}

fn kept() {
    let sandbox = Sandbox::new();
    apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
    let (link, file) = (own(&sandbox, "s"), sandbox.path("elsewhere.yaml"));
    fs::rename(&link, &file).unwrap();
    symlink(&file, &link).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&file, Some(0), Some(12)).unwrap();
    apply(&sandbox, &given(&sandbox, "s", "two"), &[]).exits(0);
    let found = fs::metadata(&file).unwrap();
    assert_eq!(
        (found.mode() & 0o7777, found.uid(), found.gid()),
        (0o600, 0, 12)
    );
    assert_eq!(fs::read_link(&link).unwrap(), file);
    assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"two");

    // A manifest that others can write is refused, as by `up`.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    apply(&sandbox, &given(&sandbox, "s", "three"), &[]).exits(1);
    assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"two");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    // Of a link, the link is removed.
    sandbox.ok(&["remove", "s"]);
    assert!(file.exists() && link.symlink_metadata().is_err());
}

/// Killed after the mounts were replaced and before the manifest was.
fn killed() {
    for again in ["up", "apply", "remove"] {
        let sandbox = Sandbox::new();
        apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
        let old = fs::read(own(&sandbox, "s")).unwrap();
        let file = given(&sandbox, "s", "two");
        let staged = sandbox.config().join("sites/.s.yaml.mountjail");
        let only = ["-P", staged.to_str().unwrap()];
        let mut command = sandbox.command_with_fault("rename,renameat2:signal=SIGKILL", &only);
        let _ = Ran::of(command.args(["apply", file.to_str().unwrap()])).exits(137);
        assert!(staged.exists());
        assert_eq!(fs::read(own(&sandbox, "s")).unwrap(), old);
        assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"two");
        sandbox.run(&["status", "s"]).exits(3);
        match again {
            "up" => {
                sandbox.ok(&["up", "s"]);
                assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"one");
                sandbox.ok(&["check"]);
            }
            "apply" => {
                apply(&sandbox, &file, &[]).exits(0);
                assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"two");
                assert_eq!(names(&sandbox.config().join("sites")), ["s.yaml"]);
            }
            _ => {
                sandbox.ok(&["remove", "s"]);
                assert_eq!(names(&sandbox.config().join("sites")), [""; 0]);
            }
        }
        sandbox.run(&["status"]).exits(0);
    }
}

fn full_disk() {
    let sandbox = Sandbox::new();
    apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
    let (sites, old) = (
        sandbox.config().join("sites"),
        fs::read(own(&sandbox, "s")).unwrap(),
    );
    let small = ["-t", "tmpfs", "-o", "size=8k,mode=755", "small"];
    Ran::of(Command::new("mount").args(small).arg(&sites)).exits(0);
    fs::write(own(&sandbox, "s"), &old).unwrap();
    fs::write(sites.join("README"), [b'x'; 4096]).unwrap();
    let failed = apply(&sandbox, &given(&sandbox, "s", "two"), &[]).exits(1);
    let _ = failed.says("No space left on device");
    assert_eq!(fs::read(own(&sandbox, "s")).unwrap(), old);
    assert_eq!(names(&sites), ["README", "s.yaml"]);
    assert_eq!(fs::read(sandbox.root("s").join("file")).unwrap(), b"one");
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["remove", "s"]);
}

fn concurrent() {
    let sandbox = Sandbox::new();
    sandbox.directory("srv/s");
    let texts = ["one", "two", "three"];
    let files =
        texts.map(|text| sandbox.file(format!("given/{text}.yaml"), manifest(&sandbox, "s", text)));
    apply(&sandbox, &files[0], &["--name", "s"]).exits(0);
    std::thread::scope(|scope| {
        for file in &files {
            let apply = || apply(&sandbox, file, &["--name", "s"]).exits(0);
            scope.spawn(move || (0..4).for_each(|_| drop(apply())));
        }
        scope.spawn(|| (0..8).for_each(|_| drop(sandbox.ok(&["up", "--all"]))));
    });
    sandbox.ok(&["status", "s"]);
    let shown = fs::read_to_string(sandbox.root("s").join("file")).unwrap();
    let manifest = fs::read_to_string(own(&sandbox, "s")).unwrap();
    assert!(
        manifest.contains(&format!("host/{shown},")),
        "{shown}: {manifest}"
    );
    assert_eq!(names(&sandbox.config().join("sites")), ["s.yaml"]);
}

fn instances() {
    let sandbox = Sandbox::new();
    sandbox.directory("srv/alice");
    let of_template = sandbox.file("host/template", "template");
    let template = format!(
        "root: {}/%i\ninstances: [alice]\nmounts: [{{ source: {}, target: /file }}]\n",
        sandbox.path("srv").display(),
        of_template.display()
    );
    sandbox.manifest("customer@", template);
    sandbox.ok(&["up", "customer@alice"]);
    let refused = sandbox.run(&["remove", "customer@alice"]).exits(1);
    let _ = refused
        .says("is an instance of")
        .says("take alice out of `instances`");
    assert_eq!(mounts_below(&sandbox.root("alice")).len(), 1);

    let file = sandbox.file(
        "given/customer@alice.yaml",
        manifest(&sandbox, "alice", "own"),
    );
    apply(&sandbox, &file, &[]).exits(0);
    assert_eq!(
        fs::read(sandbox.root("alice").join("file")).unwrap(),
        b"own"
    );
    sandbox.ok(&["status", "customer@alice"]);

    let ran = sandbox.ok(&["remove", "customer@alice"]);
    let _ = ran.says("has the instance alice");
    assert!(mounts_below(&sandbox.root("alice")).is_empty());
    sandbox.ok(&["up", "--all"]);
    assert_eq!(
        fs::read(sandbox.root("alice").join("file")).unwrap(),
        b"template"
    );

    // The template does not have it any more.
    sandbox.manifest("customer@", "root: /srv/%i\ninstances: []\n");
    sandbox.ok(&["remove", "customer@alice"]);
    assert!(mounts_below(&sandbox.root("alice")).is_empty());
}

fn templates() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("given/customer@.yaml", "root: /srv/%i\ninstances: [a]\n");
    apply(&sandbox, &file, &[])
        .exits(2)
        .says("is a template of sites");
    sandbox
        .run(&["remove", "customer@"])
        .exits(2)
        .says("is a template of sites");
    let _ = apply(&sandbox, &file, &["--name", "../x"])
        .exits(2)
        .says("cannot be a site's name");
}

/// A service in a namespace of its own, in which `/file` of the site `s` can be read.
fn service(sandbox: &Sandbox, unit: &str) -> Running {
    let (begun, mut command) = (sandbox.path(format!("begun-{unit}")), sandbox.command());
    let line = format!("echo >{}; exec sleep 1000", begun.display());
    command.args(["run", "--unit", unit, "--", "sh", "-c", &line]);
    Running::start_until(&mut command, |_| begun.exists())
}

fn seen_by(service: &Running, sandbox: &Sandbox) -> Option<String> {
    let file = sandbox.root("s").join("file");
    let path = format!("/proc/{}/root{}", service.pid(), file.display());
    fs::read_to_string(path)
        .ok()
        .filter(|text| !text.is_empty())
}

fn services() {
    let sandbox = Sandbox::new();
    let more = "scope: services\nservices: [a.service]\n";
    sandbox.directory("srv/s");
    let text = |text: &str| sandbox.file("given/s.yaml", manifest(&sandbox, "s", text) + more);
    let ran = site(&apply(&sandbox, &text("one"), &[]).exits(0));
    assert_eq!(
        (&ran["scope"], &ran["places"]),
        (&json!("services"), &json!([]))
    );
    let a = service(&sandbox, "a");
    assert_eq!(seen_by(&a, &sandbox).as_deref(), Some("one"));

    let file = text("two");
    let predicted = site(&apply(&sandbox, &file, &["--dry-run", "--diff"]).exits(3));
    assert_eq!(
        predicted["places"].as_array().unwrap().len(),
        1,
        "{predicted:#}"
    );
    let line = predicted["diff"]["mounts"]["after"][0].as_str().unwrap();
    assert!(
        line.starts_with("a: ") || line.starts_with("a.service: "),
        "{line}"
    );
    let ran = site(&apply(&sandbox, &file, &[]).exits(0));
    assert_eq!(
        (&ran["changed"], &ran["places"][0]["swapped"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(seen_by(&a, &sandbox).as_deref(), Some("two"));
    let ran = site(&apply(&sandbox, &file, &[]).exits(0));
    assert_eq!(ran["changed"], false);

    let ran = site(&sandbox.run(&["remove", "--json", "--lazy", "s"]).exits(0));
    assert_eq!(
        (&ran["removed"], &ran["detached"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(seen_by(&a, &sandbox), None);
    assert!(!own(&sandbox, "s").exists());
}

/// The second of two services cannot have the new mounts: the first one gets the old ones back.
fn services_fail() {
    let sandbox = Sandbox::new();
    let more = "scope: services\nservices: [a.service, b.service]\n";
    let root = sandbox.directory("srv/s");
    let text = |text: &str| sandbox.file("given/s.yaml", manifest(&sandbox, "s", text) + more);
    apply(&sandbox, &text("one"), &[]).exits(0);
    let (a, b) = (service(&sandbox, "a"), service(&sandbox, "b"));
    let old = fs::read(own(&sandbox, "s")).unwrap();
    // Somebody mounts over the file in one namespace, and so it is not mountjail's to replace.
    let line = format!("mount --bind /etc/hostname {}/file", root.display());
    let target = [
        "--target",
        &b.pid().to_string(),
        "--mount",
        "sh",
        "-c",
        &line,
    ]
    .map(String::from);
    Ran::of(Command::new("nsenter").args(target)).exits(0);
    // Also where the old manifest cannot tell how it was: it has mistakes, or is gone.
    let two = text("two");
    let set: [fn(&Sandbox); 3] = [
        |_| (),
        |sandbox| fs::write(own(sandbox, "s"), "xyz: 1\n").unwrap(),
        |sandbox| fs::remove_file(own(sandbox, "s")).unwrap(),
    ];
    for set in set {
        fs::write(own(&sandbox, "s"), &old).unwrap();
        set(&sandbox);
        let before = fs::read(own(&sandbox, "s")).ok();
        apply(&sandbox, &two, &[]).exits(1);
        assert_eq!(seen_by(&a, &sandbox).as_deref(), Some("one"));
        assert_eq!(fs::read(own(&sandbox, "s")).ok(), before);
    }
}

fn removed() {
    let sandbox = Sandbox::new();
    sandbox.site("other", "etc: [hosts]\n");
    sandbox.ok(&["up", "other"]);
    sandbox.ok(&["down", "other"]);
    let root = sandbox.directory("srv/s");
    let before = tree(&root);
    let state = |sandbox: &Sandbox| {
        let files = Ran::of(
            Command::new("find")
                .arg(sandbox.state())
                .args(["-type", "f"]),
        );
        let mut files: Vec<_> = files.stdout.lines().map(str::to_owned).collect();
        files.sort();
        files
    };
    let (records, sites) = (state(&sandbox), names(&sandbox.config().join("sites")));
    let text = manifest(&sandbox, "s", "one") + "presets: [dns]\nusers: [games]\n";
    apply(&sandbox, &sandbox.file("given/s.yaml", text), &[]).exits(0);
    let predicted = site(
        &sandbox
            .run(&["remove", "--json", "--dry-run", "s"])
            .exits(3),
    );
    assert_eq!(
        (&predicted["changed"], &predicted["removed"]),
        (&json!(true), &json!(false))
    );
    let ran = site(&sandbox.ok(&["remove", "--json", "s"]));
    assert_eq!(
        (&ran["changed"], &ran["removed"]),
        (&json!(true), &json!(true))
    );
    before.assert_same(&tree(&root));
    assert_eq!(state(&sandbox), records);
    assert_eq!(names(&sandbox.config().join("sites")), sites);

    // Only records are left of it.
    sandbox.site("bare", "");
    sandbox.ok(&["up", "bare"]);
    fs::remove_file(own(&sandbox, "bare")).unwrap();
    let predicted = sandbox.run(&["remove", "--json", "--dry-run", "bare"]);
    assert_eq!(site(&predicted.exits(3))["changed"], true);
    sandbox.ok(&["remove", "bare"]);

    sandbox
        .run(&["remove", "othr"])
        .exits(2)
        .says("did you mean other?");
    let none = site(&sandbox.ok(&["remove", "--json", "--if-exists", "s"]));
    assert_eq!(
        (&none["changed"], &none["removed"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(state(&sandbox), records);
}

fn passed_over() {
    for command in ["up", "down"] {
        for (how, code) in [("--all", 0), ("site", 2)] {
            let sandbox = Sandbox::new();
            sandbox.site("site", "");
            let lock = sandbox.file("state/run/site.lock", "");
            let held = fs::File::options().write(true).open(&lock).unwrap();
            held.lock().unwrap();

            let mut waiting = Watcher::spawn(sandbox.command().args([command, how]));
            waiting.says("site: waiting for another mountjail");
            fs::remove_file(sandbox.config().join("sites/site.yaml")).unwrap();
            drop(held);
            let ended = waiting.ended();
            assert_eq!(
                ended.code(),
                Some(code),
                "{command} {how}: {}",
                waiting.said()
            );
            if how == "--all" {
                waiting.says("site: it was removed meanwhile");
            } else {
                waiting.says("there is no site site");
            }
        }
    }
}

fn in_use() {
    let sandbox = Sandbox::new();
    apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
    let (root, old) = (sandbox.root("s"), fs::read(own(&sandbox, "s")).unwrap());
    let begun = sandbox.path("begun");
    let line = format!(
        "exec 7<{}; echo >{}; exec sleep 1000",
        root.join("file").display(),
        begun.display()
    );
    let user = Running::start_until(Command::new("sh").args(["-c", &line]), |_| begun.exists());
    for dry in [&["--dry-run"][..], &[]] {
        let ran = sandbox
            .run(&[&["remove", "--json", "s"], dry].concat())
            .exits(1);
        assert_eq!(site(&ran)["removed"], false);
        let _ = ran
            .says("s: in use: /file; nothing was unmounted")
            .says("used by ");
        assert_eq!(mounts_below(&root).len(), 1);
        assert_eq!(fs::read(own(&sandbox, "s")).unwrap(), old);
    }
    drop(user);
    wait_until("nothing uses it", || {
        sandbox.run(&["remove", "s"]).code == 0
    });
    assert!(!own(&sandbox, "s").exists());
}

fn broken() {
    let sandbox = Sandbox::new();
    apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
    for text in [&b"root: [\n"[..], b"", b"\xff\xfe", b"mounts: 3\n"] {
        fs::write(own(&sandbox, "s"), text).unwrap();
        sandbox.run(&["remove", "--dry-run", "s"]).exits(3);
        sandbox.ok(&["remove", "s"]);
        assert!(mounts_below(&sandbox.root("s")).is_empty() && !own(&sandbox, "s").exists());

        // It was not up, either.
        fs::write(own(&sandbox, "s"), text).unwrap();
        let removed = sandbox.ok(&["remove", "s"]);
        if text != b"" {
            removed.says("its manifest does not tell its root");
        }
        assert!(!own(&sandbox, "s").exists());
        apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
    }
    // An apply puts a broken manifest right.
    fs::write(own(&sandbox, "s"), "root: [\n").unwrap();
    apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
    fs::create_dir(own(&sandbox, "d")).unwrap();
    let line = format!("remove {} by hand", own(&sandbox, "d").display());
    sandbox.run(&["remove", "d"]).exits(2).says(&line);
    symlink("nowhere", own(&sandbox, "t")).unwrap();
    sandbox.ok(&["remove", "t"]);
    assert!(own(&sandbox, "t").symlink_metadata().is_err());
}

fn recorded() {
    let sandbox = Sandbox::new();
    apply(&sandbox, &given(&sandbox, "s", "one"), &[]).exits(0);
    fs::remove_file(own(&sandbox, "s")).unwrap();
    let ran = site(&sandbox.ok(&["remove", "--json", "s"]));
    assert_eq!(
        (&ran["changed"], &ran["manifest"]["changed"]),
        (&json!(true), &json!(false))
    );
    assert!(mounts_below(&sandbox.root("s")).is_empty());
    sandbox
        .run(&["remove", "s"])
        .exits(2)
        .says("there is no site s");
}

fn refused() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts]\n");
    fs::create_dir(root.join("etc")).unwrap();
    fs::copy("/etc/hosts", root.join("etc/hosts")).unwrap();
    sandbox.ok(&["adopt", "--write", "s"]);
    sandbox
        .run(&["remove", "s"])
        .exits(1)
        .says("mountjail adopt --undo s");
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["adopt", "--undo", "s"]);
    fs::remove_dir_all(root.join("etc")).unwrap();

    let fstab = sandbox.file("fstab", "");
    let fstab = fstab.to_str().unwrap();
    sandbox.ok(&["fstab", "--file", fstab, "--install", "s"]);
    sandbox
        .run(&["remove", "s"])
        .exits(1)
        .says("mountjail fstab --uninstall s");
    assert!(own(&sandbox, "s").exists());
    sandbox.ok(&["fstab", "--file", fstab, "--uninstall", "s"]);

    let (sites, before) = (sandbox.path("config/sites"), mounts_below(&root));
    let none = None::<&str>;
    mount(Some(&sites), &sites, none, MsFlags::MS_BIND, none).unwrap();
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &sites, none, read_only, none).unwrap();
    for arguments in [["remove", "s", "--dry-run"], ["remove", "s", "--json"]] {
        sandbox
            .run(&arguments)
            .exits(1)
            .says("Read-only file system")
            .says("writable first; the site is as it was");
    }
    assert_eq!(mounts_below(&root), before);
    umount2(&sites, MntFlags::MNT_DETACH).unwrap();
    sandbox.ok(&["remove", "s"]);
}

/// With the host's own configuration, which is one of this trial alone.
fn drop_ins() {
    empty_run();
    let sandbox = Sandbox::new();
    for directory in ["/etc", "/var/lib"] {
        overlay(&sandbox, Path::new(directory));
    }
    fs::create_dir_all("/etc/mountjail").unwrap();
    fs::create_dir_all("/etc/systemd/system").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command();
        command.env_remove("MOUNTJAIL_CONFIG_DIR").args(arguments);
        Ran::of(&mut command)
    };
    let unit = "/etc/systemd/system/web.service";
    fs::write(unit, "[Service]\nExecStart=/bin/sleep 1000\n").unwrap();
    for name in ["a", "b", "c"] {
        let text = manifest(&sandbox, name, name) + "services: [web.service]\n";
        sandbox.directory(format!("srv/{name}"));
        let file = sandbox.file(format!("given/{name}.yaml"), text);
        let _ = run(&["apply", file.to_str().unwrap()]).exits(0);
    }
    let _ = run(&["units", "--all", "--install"]).exits(0);
    let files = || {
        let arguments = ["/etc/systemd/system", "-type", "f", "-name", "*mountjail*"];
        let found = Ran::of(Command::new("find").args(arguments));
        found.stdout.lines().count()
    };
    let before = files();
    assert!(before > 0);
    let _ = run(&["remove", "a"]).exits(0);
    assert!(files() > 0, "the service is still b's");
    let _ = run(&["units", "--all", "--check"]).exits(0);

    // They are left to `units`.
    let before = files();
    let _ = run(&["remove", "--keep-drop-ins", "c"]).exits(0);
    assert_eq!(files(), before);
    let _ = run(&["units", "--all", "--install"]).exits(0);

    let predicted = site(&run(&["remove", "--dry-run", "--json", "b"]).exits(3));
    let ran = site(&run(&["remove", "--json", "b"]).exits(0));
    assert!(!ran["drop_ins"].as_array().unwrap().is_empty(), "{ran:#}");
    assert_eq!(predicted["drop_ins"], ran["drop_ins"]);
    assert_eq!(files(), 0);
}
