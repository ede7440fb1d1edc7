//! Promise: bad input and bad luck give a clear error, the right exit code, nothing mounted and
//! nothing lost.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{OnEngine, Ran, Sandbox, for_each_engine, mounts_below, tree, unmount};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let once: [(&str, fn()); 16] = [
        (
            "every mistake in a manifest is shown with its place",
            manifests,
        ),
        ("a root where no jail may be is refused", roots),
        ("a root inside another site is refused", overlapping_roots),
        (
            "a renamed manifest does not take over the root",
            renamed_manifest,
        ),
        ("a source that leads nowhere is named", sources),
        (
            "a site owner's link does not lead to files of others",
            strange_links,
        ),
        ("files in /proc bring nothing along", proc_alone),
        (
            "sources that contradict each other are both named",
            conflicts,
        ),
        ("an unknown site is reported", no_such_site),
        (
            "for a missing path, `why` suggests the line that brings it",
            why_not,
        ),
        ("without privileges nothing happens", no_privileges),
        ("one site's error does not stop the others", all_goes_on),
        ("without more threads, one thread does the work", no_threads),
        (
            "a path that is not a directory of sites is reported",
            configuration,
        ),
        ("a reader that closes the pipe is not an error", closed_pipe),
        (
            "text of a site's owner controls no terminal and starts no line",
            hostile_text,
        ),
    ];
    let engines: [(&str, OnEngine); 6] = [
        ("a target that is in the way is an error", targets),
        ("a full disk undoes everything", full_disk),
        ("a read-only root is an error", read_only_root),
        (
            "a state directory that cannot be written is an error",
            state_directory,
        ),
        ("a signal undoes what was begun", signal),
        ("a reached mount limit undoes everything", mount_max),
    ];
    let once = once.into_iter().map(|(name, body)| {
        Trial::test(name, move || {
            body();
            Ok(())
        })
    });
    let engines = engines
        .into_iter()
        .flat_map(|(name, body)| for_each_engine(name, body));
    once.chain(engines).collect()
}

fn manifests() {
    let sandbox = Sandbox::new();
    let root = sandbox.directory("srv/s");
    let cases: &[(&str, &[&str])] = &[
        (
            "root: ROOT\nprogams: [/bin/sh]\n",
            &["s.yaml:2:1", "progams", "programs"],
        ),
        (
            "root: ROOT\npresets: [php-fmp]\n",
            &["s.yaml:2:11", "php-fmp", "php-fpm"],
        ),
        (
            "root: ROOT\ndevices: [nul]\n",
            &["s.yaml:2:11", "devices[0]", "null"],
        ),
        ("root: srv/www\n", &["s.yaml:1:7", "not absolute"]),
        (
            "root: ROOT\nmounts: [/etc/../root]\n",
            &["s.yaml:2:10", "mounts[0]", "`..`"],
        ),
        (
            "root: ROOT\nmounts:\n  - source: /etc\n    target: x\n",
            &["s.yaml:4:13", "mounts[0].target", "not absolute"],
        ),
        ("root: ROOT\nroot: ROOT\n", &["s.yaml:2:1", "twice"]),
        ("etc: [hosts]\n", &["root"]),
        (
            "root: ROOT\netc: hosts\n",
            &["s.yaml:2:6", "not a list", "[hosts]"],
        ),
        (
            "root: ROOT\nmounts: [{ source: /etc/hosts, access: rw }]\n",
            &["read-write"],
        ),
        ("root: [\n", &["s.yaml:2"]),
        ("", &["empty"]),
    ];
    for (text, expected) in cases {
        sandbox.manifest("s", text.replace("ROOT", root.to_str().unwrap()));
        for command in ["check", "up", "plan", "status"] {
            let ran = sandbox.run(&[command, "s"]).exits(2);
            for words in *expected {
                assert!(
                    ran.stderr.contains(words),
                    "{text:?}: {words:?} is not in\n{ran}"
                );
            }
        }
    }
    // All mistakes at once.
    sandbox.manifest("s", "rot: /srv/x\netc: [/etc/hosts]\nmounts: [relative]\n");
    sandbox
        .run(&["check", "s"])
        .exits(2)
        .says("s.yaml:1:1")
        .says("s.yaml:2:7")
        .says("s.yaml:3:10");
    assert!(mounts_below(&root).is_empty());
    assert!(!sandbox.state().join("lib/s.json").exists());
}

fn roots() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("srv/file", "x");
    let directory = sandbox.directory("srv/real");
    let link = sandbox.path("srv/link");
    symlink(&directory, &link).unwrap();
    let missing = sandbox.path("srv/missing");
    let show = |path: &Path| path.display().to_string();
    let cases = [
        ("/".to_owned(), 2, "system"),
        ("/etc".to_owned(), 2, "system"),
        ("/usr".to_owned(), 2, "system"),
        ("/home".to_owned(), 2, "system"),
        ("/usr/lib/x".to_owned(), 2, "inside /usr/lib"),
        (show(&link), 2, "is a symbolic link"),
        (show(&file), 2, "is a regular file"),
        (show(&missing), 1, "--create"),
    ];
    for (root, code, message) in cases {
        sandbox.manifest("s", format!("root: {root}\netc: [hosts]\n"));
        sandbox.run(&["up", "s"]).exits(code).says(message);
    }
    sandbox.ok(&["up", "--create", "s"]).says("made the root");
    // Its mounts come with its services, the root does not.
    let served = sandbox.path("srv/served");
    let text = "scope: services\nservices: [a.service]\n";
    sandbox.manifest("served", format!("root: {}\n{text}", served.display()));
    sandbox.ok(&["up", "--create", "served"]);
    assert!(served.is_dir());
    assert_eq!(
        fs::metadata(&missing).unwrap().permissions().mode() & 0o777,
        0o755
    );
    sandbox.ok(&["down", "s"]);
    // A link on the way into the system: nothing is made there.
    symlink("/etc", sandbox.path("srv/to-etc")).unwrap();
    let hidden = sandbox.path("srv/to-etc/mountjail-must-not-make-this");
    sandbox.manifest("s", format!("root: {}\netc: [hosts]\n", show(&hidden)));
    sandbox
        .run(&["up", "--create", "s"])
        .exits(2)
        .says("inside /etc");
    assert!(!hidden.exists());
    // A source in the root, and one that holds it.
    let inside = sandbox.directory("srv/real/inside");
    sandbox.manifest(
        "s",
        format!(
            "root: {}\nmounts: [{{ source: {}, target: /x }}]\n",
            show(&directory),
            show(&inside)
        ),
    );
    sandbox.run(&["up", "s"]).exits(2).says("is in the root");
    sandbox.manifest(
        "s",
        format!(
            "root: {}\nmounts: [{{ source: {}, target: /x }}]\n",
            show(&directory),
            show(&sandbox.path("srv"))
        ),
    );
    sandbox.run(&["up", "s"]).exits(2).says("holds the root");
    // A parent directory that somebody else can write to is reported, but is not an error.
    fs::set_permissions(sandbox.path("srv"), fs::Permissions::from_mode(0o777)).unwrap();
    sandbox.manifest("s", format!("root: {}\netc: [hosts]\n", show(&directory)));
    sandbox.ok(&["check", "s"]).says("can be written by others");
}

fn overlapping_roots() {
    let sandbox = Sandbox::new();
    sandbox.site("a", "etc: [hosts]\n");
    sandbox.site("c", "etc: [hosts]\n");
    let inner = sandbox.directory("srv/a/inner");
    sandbox.manifest("b", format!("root: {}\netc: [hosts]\n", inner.display()));
    sandbox.run(&["up", "b"]).exits(2).says("of the site a");
    sandbox.run(&["up", "a"]).exits(2).says("of the site b");
    sandbox.ok(&["up", "c"]);
    sandbox.ok(&["down", "c"]);
    // Even if a link hides it.
    symlink(sandbox.path("srv"), sandbox.path("other-way")).unwrap();
    sandbox.manifest(
        "b",
        format!(
            "root: {}/a/inner\netc: [hosts]\n",
            sandbox.path("other-way").display()
        ),
    );
    sandbox.run(&["up", "b"]).exits(2).says("of the site a");
    sandbox.manifest("b", format!("root: {}\n", sandbox.root("c").display()));
    sandbox
        .run(&["up", "b"])
        .exits(2)
        .says("is also the root of the site");
}

fn renamed_manifest() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("old", "etc: [hosts]\n");
    sandbox.ok(&["up", "old"]);
    fs::rename(
        sandbox.path("config/sites/old.yaml"),
        sandbox.path("config/sites/new.yaml"),
    )
    .unwrap();
    let ran = sandbox.run(&["up", "new"]).exits(1);
    ran.says("is set up as the site old")
        .says("`mountjail down old`");
    sandbox.ok(&["down", "old"]);
    assert!(mounts_below(&root).is_empty());
    sandbox.ok(&["up", "new"]).says("1 mount: 1 attached");
}

fn why_not() {
    let sandbox = Sandbox::new();
    let later = sandbox.path("host/later");
    sandbox.site(
        "s",
        &format!(
            "mounts: [{{ source: {}, optional: true }}]\n",
            later.display()
        ),
    );
    let nothing = |path: &str| {
        sandbox
            .run(&["why", "s", path])
            .exits(1)
            .says("nothing brings")
    };
    nothing("/nowhere").says("it is not on the host either");
    nothing(later.join("socket").to_str().unwrap())
        .says("once it is, this line brings it: ")
        .says("mounts[0]");
    nothing("/usr/bin/env").says("this line would bring it: programs: [/usr/bin/env]");
    nothing("/etc/hosts").says("this line would bring it: presets: [dns]");
    nothing("/etc/shadow").says("no line is advised: not everybody may read it");
}

/// A site's owner makes links to the files of others.
fn strange_links() {
    let sandbox = Sandbox::new();
    let theirs = sandbox.directory("host/theirs");
    let (secret, own) = (sandbox.directory("host/secret/deep"), theirs.join("own"));
    fs::create_dir(&own).unwrap();
    sandbox.directory("host/other/root");
    let link = |to: &Path, at: &Path| {
        let _ = fs::remove_file(at);
        symlink(to, at).unwrap();
        lchown(at, Some(1234), Some(1234)).unwrap();
    };
    for path in [&theirs, &own] {
        lchown(path, Some(1234), Some(1234)).unwrap();
    }
    let public = theirs.join("public");
    let root = sandbox.site(
        "s",
        &format!("mounts: [{{ source: {}, target: /x }}]\n", public.display()),
    );
    link(&secret, &public);
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("public is user 1234's, who does not own")
        .says("host/secret/deep")
        .says("find out who made that link");
    assert!(mounts_below(&root).is_empty());
    link(&own, &public);
    sandbox.ok(&["up", "s"]);
    // Redirected while the site is up.
    link(&secret, &public);
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("it is not followed");
    sandbox.ok(&["down", "s"]);
    // On the way to the root.
    let www = theirs.join("www");
    link(&sandbox.path("host/other"), &www);
    sandbox.manifest(
        "r",
        format!("root: {}\ndevices: [zero]\n", www.join("root").display()),
    );
    sandbox
        .run(&["up", "r"])
        .exits(1)
        .says("www is user 1234's")
        .says("without links");
    sandbox.manifest(
        "r",
        format!(
            "root: {}\ndevices: [zero]\n",
            www.join("new/root").display()
        ),
    );
    sandbox
        .run(&["up", "--create", "r"])
        .exits(1)
        .says("www is user 1234's");
    assert!(!sandbox.path("host/other/new").exists());
    // Root's own links are followed.
    lchown(&www, Some(0), Some(0)).unwrap();
    lchown(&theirs, Some(0), Some(0)).unwrap();
    sandbox.ok(&["up", "--create", "r"]).says("made the root");
    assert!(sandbox.path("host/other/new/root/dev/zero").exists());
}

/// Links in `/proc` lead to what processes use, such as this one's directory.
fn proc_alone() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "mounts: [/proc]\n");
    sandbox
        .ok(&["check", "s"])
        .prints("s: ok, 1 mount and 0 links");
}

fn sources() {
    let sandbox = Sandbox::new();
    let host = sandbox.directory("host");
    symlink("nowhere", host.join("dangling")).unwrap();
    symlink("two", host.join("one")).unwrap();
    symlink("one", host.join("two")).unwrap();
    sandbox.file("host/text", "no program");
    let cases = [
        ("mounts: [HOST/missing]", "HOST/missing does not exist"),
        (
            "mounts: [HOST/missing/deeper]",
            "HOST/missing does not exist",
        ),
        ("mounts: [HOST/text/below]", "HOST/text is not a directory"),
        ("mounts: [HOST/dangling]", "which does not exist"),
        ("mounts: [HOST/one]", "in a circle"),
        (
            "mounts: [{ source: \"HOST/*.none\" }]",
            "nothing on this host matches HOST/*.none",
        ),
        ("mounts: [HOST/texd]", "did you mean HOST/text?"),
        (
            "mounts: [{ any_of: [HOST/x, HOST/y] }]",
            "none of these is on this host: HOST/x, HOST/y",
        ),
        ("programs: [HOST/text]", "neither an ELF file nor a script"),
        ("programs: [HOST]", "is a directory, not a program"),
        ("etc: [no-such-file]", "/etc/no-such-file"),
        ("users: [no-such-user]", "there is no user no-such-user"),
    ];
    for (line, message) in cases {
        let root = sandbox.site("s", &line.replace("HOST", host.to_str().unwrap()));
        for command in ["up", "check"] {
            let ran = sandbox
                .run(&[command, "s"])
                .exits(1)
                .says(&message.replace("HOST", host.to_str().unwrap()));
            assert!(ran.stderr.contains("s.yaml"), "the line is named\n{ran}");
        }
        assert!(mounts_below(&root).is_empty());
    }
    let optional = "mounts: [{ source: HOST/missing, optional: true }]\netc: [hosts]\n";
    sandbox.site("s", &optional.replace("HOST", host.to_str().unwrap()));
    sandbox
        .ok(&["up", "s"])
        .says("skipped, because it is optional");
    sandbox.ok(&["down", "s"]);
}

fn conflicts() {
    let sandbox = Sandbox::new();
    let one = sandbox.file("host/one", "1");
    let two = sandbox.file("host/two", "2");
    let line = |source: &Path, more: &str| {
        format!("  - {{ source: {}, target: /x{more} }}\n", source.display())
    };
    sandbox.site(
        "s",
        &format!("mounts:\n{}{}", line(&one, ""), line(&two, "")),
    );
    sandbox
        .run(&["up", "s"])
        .exits(2)
        .says("mounts[0]")
        .says("mounts[1]")
        .says("two sources for /x");
    sandbox.site(
        "s",
        &format!(
            "mounts:\n{}{}",
            line(&one, ", access: read-write"),
            line(&one, ", executable: true")
        ),
    );
    sandbox
        .run(&["up", "s"])
        .exits(2)
        .says("two ways to mount /x");
    sandbox.site(
        "s",
        &format!("mounts:\n{}{}", line(&one, ""), line(&one, "")),
    );
    sandbox.ok(&["up", "s"]).says("1 mount: 1 attached");
    sandbox.ok(&["down", "s"]);
    let directory = sandbox.directory("host/dir");
    let inner = format!(
        "  - {{ source: {}, target: /d }}\n  - {{ source: {}, target: /d/x }}\n",
        directory.display(),
        one.display()
    );
    sandbox.site("s", &format!("mounts:\n{inner}"));
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("is not a file to mount on");
    assert!(
        fs::read_dir(directory).unwrap().next().is_none(),
        "nothing is made in a source"
    );
}

fn no_such_site() {
    let sandbox = Sandbox::new();
    sandbox.site("site1", "etc: [hosts]\n");
    for command in ["up", "down", "plan", "status", "check"] {
        sandbox
            .run(&[command, "site2"])
            .exits(2)
            .says("there is no site site2")
            .says("did you mean site1?");
    }
    sandbox.site("moved", "etc: [hosts]\n");
    let elsewhere = sandbox.path("moved.yaml");
    fs::rename(sandbox.path("config/sites/moved.yaml"), &elsewhere).unwrap();
    sandbox.ok(&["up", elsewhere.to_str().unwrap()]);
    sandbox.ok(&["status", "moved"]).prints("moved: up, 1 of 1");
    sandbox
        .run(&["up", "moved"])
        .exits(2)
        .says("its manifest was removed, renamed, or is elsewhere");
    sandbox.ok(&["down", "moved"]).says("1 mount detached");
    sandbox.run(&["up", "../etc"]).exits(1).says("No such file");
    sandbox
        .run(&["up", "sites/site1.yaml"])
        .exits(1)
        .says("give `site1` for the site in ");
    symlink("away.yaml", sandbox.path("config/sites/link.yaml")).unwrap();
    sandbox
        .run(&["up", "link"])
        .exits(1)
        .says("is a link to away.yaml, which does not exist");
    sandbox
        .run(&["up", "a b"])
        .exits(2)
        .says("cannot be a site's name");
    sandbox.run(&["up"]).exits(2);
    sandbox.run(&["up", "--all", "site1"]).exits(2);
    sandbox
        .run(&["presets", "dsn"])
        .exits(2)
        .says("did you mean dns?");
}

fn no_privileges() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts]\n");
    let runner = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    // The test's own copy of the program: the user may not be able to reach the build directory.
    let program = sandbox.program(
        "mountjail",
        fs::read(env!("CARGO_BIN_EXE_mountjail")).unwrap(),
    );
    let run = |arguments: &[&str]| {
        let mut command = Command::new(runner[0]);
        command.args(&runner[1..]).arg(&program).args(arguments);
        Ran::of(
            command
                .env("MOUNTJAIL_CONFIG_DIR", sandbox.config())
                .env("MOUNTJAIL_STATE_DIR", sandbox.state()),
        )
    };
    run(&["up", "s"]).exits(1).says("needs root");
    run(&["down", "s"]).exits(1).says("needs root");
    run(&["check", "s"]).exits(0).prints("s: ok, 1 mount");
    run(&["plan", "s"]).exits(3).prints("attach /etc/hosts");
    assert!(mounts_below(&root).is_empty() && fs::read_dir(&root).unwrap().next().is_none());
}

fn all_goes_on() {
    let sandbox = Sandbox::new();
    let first = sandbox.site("a", "etc: [hosts]\n");
    sandbox.site("b", "etc: [no-such-file]\n");
    sandbox.site("c", "ect: [hosts]\n");
    let last = sandbox.site("d", "etc: [hosts]\n");
    sandbox.manifest("d copy", "");
    sandbox.file("config/sites/e.yml", "");
    let ran = sandbox
        .run(&["up", "--all"])
        .exits(1)
        .says("no-such-file")
        .says("ect");
    let ran = ran
        .says("d copy.yaml: the file's name cannot be a site's name")
        .says("ends in .yaml");
    assert_eq!(
        (mounts_below(&first).len(), mounts_below(&last).len()),
        (1, 1),
        "{ran}"
    );
    sandbox
        .run(&["status"])
        .exits(1)
        .prints("a: up")
        .prints("d: up");
    let json = sandbox.run(&["up", "--all", "--json"]).exits(1).json();
    assert_eq!(json["sites"].as_array().unwrap().len(), 4, "{json}");
    assert_eq!(json["sites"][0]["up"], true);
    assert_eq!(json["sites"][1]["up"], false);
    sandbox.ok(&["down", "a", "d"]);
    sandbox.run(&["down", "--all"]).exits(2);
    assert!(mounts_below(&first).is_empty() && mounts_below(&last).is_empty());
}

fn no_threads() {
    let sandbox = Sandbox::new();
    let roots = ["a", "b", "c"].map(|site| sandbox.site(site, "devices: [zero]\n"));
    let fault = "clone,clone3:error=EAGAIN";
    for (arguments, mounts) in [
        (["up", "--all"], 1),
        (["status", "--all"], 1),
        (["down", "--all"], 0),
    ] {
        Ran::of(sandbox.command_with_fault(fault, &[]).args(arguments)).exits(0);
        assert!(
            roots.iter().all(|root| mounts_below(root).len() == mounts),
            "{arguments:?}"
        );
    }
}

fn configuration() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["--config-dir", "/nowhere", "up", "--all"])
        .exits(1)
        .says("cannot list the sites")
        .says("--config-dir");
    sandbox.preset("dns", "description: ours\netc: [hosst]\n");
    sandbox.site("s", "presets: [dns]\n");
    sandbox.run(&["up", "s"]).exits(1).says("/etc/hosst");
    sandbox.preset("loop", "description: x\npresets: [other]\n");
    sandbox.preset("other", "description: x\npresets: [loop]\n");
    sandbox.site("s", "presets: [loop]\n");
    sandbox
        .run(&["up", "s"])
        .exits(2)
        .says("loop -> other -> loop");
    sandbox.site("t", "presets: [loop]\n");
    let ran = sandbox
        .run(&["check", "s", "t"])
        .exits(2)
        .says("t: it has the mistakes shown above, too");
    assert_eq!(
        ran.stderr.matches("loop -> other -> loop").count(),
        1,
        "{ran}"
    );
    Ran::of(Command::new("mkfifo").arg(sandbox.path("config/sites/fifo.yaml"))).exits(0);
    sandbox
        .run(&["up", "fifo"])
        .exits(2)
        .says("is not a regular file");
}

fn closed_pipe() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "presets: [php-fpm]\n");
    let program = env!("CARGO_BIN_EXE_mountjail");
    let script = format!(
        "{program} --config-dir {} plan s | head -n1; echo ${{PIPESTATUS[0]}}",
        sandbox.config().display()
    );
    let ran = Ran::of(
        Command::new("bash")
            .args(["-c", &script])
            .env("MOUNTJAIL_STATE_DIR", sandbox.state()),
    );
    assert!(ran.stdout.ends_with("\n3\n"), "{ran}");
    assert!(
        !ran.stderr.contains("panicked") && !ran.stderr.contains("pipe"),
        "{ran}"
    );
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let child = sandbox
        .command()
        .arg("presets")
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        complaint,
        "error: cannot write to the standard output: No space left on device\n"
    );
}

fn targets(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "etc: [hosts]\n");
    let etc = root.join("etc");
    let check = |message: &str| {
        let before = tree(&root);
        for command in ["check", "up"] {
            sandbox.run(&[command, "s"]).exits(1).says(message);
        }
        before.assert_same(&tree(&root));
        assert!(mounts_below(&root).is_empty());
        let _ = fs::remove_dir_all(&etc).or_else(|_| fs::remove_file(&etc));
    };
    symlink("/etc", &etc).unwrap();
    check("is a symbolic link to /etc");
    fs::write(&etc, "").unwrap();
    check("is a regular file, but a directory is needed there");
    fs::create_dir_all(etc.join("hosts")).unwrap();
    check("is a directory");
    fs::create_dir_all(&etc).unwrap();
    symlink("/etc/hosts", etc.join("hosts")).unwrap();
    check("is a symbolic link");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("hosts"), "own").unwrap();
    check("a file that is not empty");
    sandbox.site("s", "etc: [ssl/certs]\n");
    fs::create_dir_all(etc.join("ssl/certs/own")).unwrap();
    check("a directory that is not empty");
    fs::create_dir_all(etc.join("ssl/certs")).unwrap();
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    assert!(etc.join("ssl/certs").exists(), "earlier files stay");
}

/// A new tmpfs with room for little.
fn small_disk(at: &Path, options: &str) {
    fs::create_dir_all(at).unwrap();
    Ran::of(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "small"])
            .arg(at),
    )
    .exits(0);
}

/// The title of a terminal's window, and what the journal would take for an error.
const HOSTILE: &str = "\x1b]0;owned\x07\n<3>forged";

/// Fails unless the text is shown, on one line and without control characters.
#[track_caller]
fn is_tame(ran: &Ran) {
    let text = ran.stdout.clone() + &ran.stderr;
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{ran:?}"
    );
    assert!(
        text.contains("owned") && !text.lines().any(|line| line.starts_with("<3>forged")),
        "{ran:?}"
    );
}

fn hostile_text() {
    let sandbox = Sandbox::new();
    // A link's text.
    let root = sandbox.site("link", "etc: [hosts]\n");
    symlink(HOSTILE, root.join("etc")).unwrap();
    is_tame(
        &sandbox
            .run(&["up", "link"])
            .exits(1)
            .says("is a symbolic link to \\u{1b}]0;owned\\u{7}\\n<3>"),
    );

    // A file's name.
    let file = sandbox.file(format!("shared/{HOSTILE}"), "");
    sandbox.site(
        "file",
        &format!(
            "programs: [/bin/busybox]\nmounts: [\"{}/*\"]\n",
            file.parent().unwrap().display()
        ),
    );
    for command in ["plan", "up -v", "status", "fstab", "down -v"] {
        is_tame(&sandbox.run(&command.split(' ').chain(["file"]).collect::<Vec<_>>()));
    }
    is_tame(&sandbox.ok(&["why", "file", file.to_str().unwrap()]));
    sandbox.ok(&["up", "file"]);
    let json = sandbox.ok(&["status", "--json", "file"]).json().to_string();
    assert!(
        json.contains("\\u001b]0;owned\\u0007\\n<3>forged"),
        "it is as it is in JSON: {json}"
    );
    let missed = format!("/{HOSTILE}");
    is_tame(&sandbox.run(&[
        "trace",
        "-q",
        "--all-misses",
        "file",
        "--",
        "busybox",
        "test",
        "-e",
        &missed,
    ]));
    is_tame(&sandbox.run(&["exec", "file", "--", &missed]).exits(127));

    // A process's name.
    let program = "#include <unistd.h>\n#include <sys/prctl.h>\n\
                   int main(void) { prctl(PR_SET_NAME, \"\\033]0;owned\\a\\n<3>\"); write(1, \
                   \"x\", 1); pause(); }\n";
    let program = sandbox.compile("named", program);
    let mut named = Command::new(program)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    named.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let ran = sandbox
        .run(&["trace", "--pid", &named.id().to_string(), "file"])
        .exits(1);
    named.kill().unwrap();
    named.wait().unwrap();
    is_tame(&ran);
}

fn full_disk(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    small_disk(&sandbox.root("s"), "nr_inodes=4");
    let root = sandbox.site("s", "presets: [base, dns]\n");
    let before = tree(&root);
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("No space left on device")
        .says("make room");
    before.assert_same(&tree(&root));
    assert_eq!(mounts_below(&root).len(), 1, "the disk itself");
    Ran::of(
        Command::new("mount")
            .args(["-o", "remount,nr_inodes=1000"])
            .arg(&root),
    )
    .exits(0);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    before.assert_same(&tree(&root));
}

fn read_only_root(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    small_disk(&sandbox.root("s"), "ro");
    let root = sandbox.site("s", "etc: [hosts]\n");
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("Read-only file system")
        .says("mounted read-only");
    assert_eq!(mounts_below(&root).len(), 1, "the disk itself");
}

fn state_directory(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "etc: [hosts]\nusers: [root]\n");
    let before = tree(&root);
    small_disk(&sandbox.state(), "ro");
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("Read-only file system");
    unmount(&sandbox.state());
    small_disk(&sandbox.state(), "size=4k,nr_inodes=8");
    let ran = sandbox.run(&["up", "s"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("No space left on device"),
        "{ran}"
    );
    before.assert_same(&tree(&root));
    assert!(mounts_below(&root).is_empty());
}

fn mount_max(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "etc: [hosts, services, protocols]\n");
    let before = tree(&root);
    let (call, nth) = if engine == "detached" {
        ("move_mount", 3)
    } else {
        ("mount", 11)
    };
    let fault = format!("{call}:error=ENOSPC:when={nth}");
    Ran::of(sandbox.command_with_fault(&fault, &[]).args(["up", "s"]))
        .exits(1)
        .says("fs.mount-max");
    before.assert_same(&tree(&root));
    assert!(mounts_below(&root).is_empty());
}

fn signal(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "presets: [base, dns]\n");
    let before = tree(&root);
    let (call, nth) = if engine == "detached" {
        ("move_mount", 5)
    } else {
        ("mount", 12)
    };
    for signal in ["SIGTERM", "SIGINT", "SIGHUP"] {
        let fault = format!("{call}:signal={signal}:when={nth}");
        let ran = Ran::of(sandbox.command_with_fault(&fault, &[]).args(["up", "s"])).exits(1);
        ran.says("stopped by a signal");
        before.assert_same(&tree(&root));
        assert!(mounts_below(&root).is_empty() && mounts_below(&sandbox.state()).is_empty());
    }
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    before.assert_same(&tree(&root));
}
