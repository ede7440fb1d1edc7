//! Promise: a root full of copies becomes a site, whatever tool made the copies; nothing of the
//! site's own is moved unless it is named, and `--undo` leaves the root as it was.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{
    Ran, Running, Sandbox, alone, bind, mounts_below, tree, trials, unmount, wait_until,
};

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        ("a jail of copies as recipes make it", recipe),
        ("a jail with programs and what ldd shows", programs),
        ("a jail of hard links", hard_links),
        ("a site that was copied while it was up", copied),
        ("Postfix's spool directory", postfix),
        ("a socket that died and one that lives", sockets),
        ("directories and links of another layout", layouts),
        ("old copies are told from the site's own", versions),
        (
            "a file of another form than the host's is the site's own",
            forms,
        ),
        ("what is left is named with what ends it", ends),
        ("copies in other directories are named", elsewhere),
        ("sites with nothing in the way come up too", beside_others),
        ("the remedy can be typed, and an undo restores times", typed),
        ("a site's own files are moved if they are named", named),
        ("many things in the way are a short report", many),
        ("users of the host are copies", users),
        ("a site that does not come up is as before", put_back),
        ("an undo takes nothing that came since", changed),
        ("a site that is up has nothing to adopt", nothing),
        ("a killed run goes on or is undone", killed),
        ("check names what stays", leftovers),
        ("copies in a volume are named with its mount point", volume),
        ("sites in namespaces of services", services),
        ("copies that come again are moved again", again),
        ("five pools, one of them in a jail of copies", five_pools),
    ]);
    all.push(alone("a jail that jailkit made", jailkit));
    all
}

/// Runs a line of the shell in `directory`.
#[track_caller]
fn shell(directory: &Path, line: &str) {
    Ran::of(
        Command::new("sh")
            .args(["-ec", line])
            .current_dir(directory),
    )
    .exits(0);
}

/// The class of what stands at each path.
fn classes(ran: &Ran) -> Value {
    let json = ran.json();
    let standing = json["sites"][0]["standing"].as_array().unwrap();
    standing
        .iter()
        .map(|one| {
            (
                one["path"].as_str().unwrap().to_owned(),
                one["class"].clone(),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn aside(root: &Path) -> PathBuf {
    root.join(".mountjail-adopted")
}

/// Adopts the site, which comes up, and undoes that.
#[track_caller]
fn there_and_back(sandbox: &Sandbox, site: &str, also: &[&str]) {
    let root = sandbox.root(site);
    let before = tree(&root);
    let adopt = |more: &[&str]| sandbox.run(&[&["adopt", site], also, more].concat());
    let shown = adopt(&[]).exits(3);
    before.assert_same(&tree(&root));

    adopt(&["--write"]).exits(0).says("up, ");
    sandbox.ok(&["status", site]);
    let mode = fs::metadata(aside(&root)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700, "{shown}");
    adopt(&[]).exits(0).prints("nothing to adopt");

    let down = sandbox.ok(&["down", site]);
    assert!(down.stderr.contains("adopt --undo"), "{down}");
    sandbox.ok(&["up", site]);
    sandbox.ok(&["adopt", "--undo", site]).says("put back");
    assert!(mounts_below(&root).is_empty());
    before.assert_same(&tree(&root));
    sandbox
        .ok(&["adopt", "--undo", site])
        .says("nothing was moved aside");
}

const RECIPE: &str = "mkdir -p etc/ssl dev lib/x86_64-linux-gnu lib64 bin usr/share
    cp /etc/hosts /etc/nsswitch.conf /etc/services /etc/protocols /etc/host.conf etc/
    cp -L /etc/resolv.conf /etc/localtime etc/
    cp -rL /etc/ssl/certs etc/ssl/
    grep -E '^(root|www-data):' /etc/passwd >etc/passwd
    grep -E '^(root|www-data):' /etc/group >etc/group
    mknod -m 666 dev/null c 1 3; mknod -m 666 dev/urandom c 1 9
    cp /lib/*-linux-gnu*/libc.so.6 /lib/*-linux-gnu*/libnss_dns.so.2 lib/x86_64-linux-gnu/
    cp /bin/dash bin/sh; cp -L /lib64/ld-linux-*.so.* lib64/ || true
    cp -r /usr/share/zoneinfo usr/share/
    mkdir -p srv; echo own >srv/index.php; chown -R www-data srv";

fn recipe() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("old", "presets: [php-fpm]\nusers: [www-data]\n");
    shell(&root, RECIPE);
    sandbox
        .run(&["up", "old"])
        .exits(1)
        .says("try: `mountjail adopt old`");
    let shown = sandbox.run(&["adopt", "--json", "old"]).exits(3);
    let found = classes(&shown);
    for path in [
        "/etc/hosts",
        "/etc/localtime",
        "/etc/ssl/certs",
        "/usr/share/zoneinfo",
    ] {
        assert_eq!(found[path], "same", "{path}\n{shown}");
    }
    let nodes = &shown.json()["sites"][0]["nodes"];
    assert_eq!(*nodes, json!(["/dev/null", "/dev/urandom"]), "{shown}");
    there_and_back(&sandbox, "old", &[]);

    sandbox.site("empty", "presets: [dns]\n");
    sandbox.ok(&["adopt", "--all", "--write"]);
    sandbox.ok(&["up", "--all"]);
    sandbox.ok(&[
        "exec",
        "old",
        "--",
        "/bin/sh",
        "-c",
        "read line </srv/index.php",
    ]);
    assert_eq!(
        fs::read_to_string(root.join("srv/index.php")).unwrap(),
        "own\n"
    );
    sandbox.ok(&["adopt", "--all", "--write"]);
}

/// As for the shells of users: `cp --parents` of programs and of what ldd(1) lists.
fn programs() {
    let sandbox = Sandbox::new();
    let root = sandbox.site(
        "alice",
        "presets: [base, dns]\nprograms: [/bin/sh, /usr/bin/env]\nusers: [www-data]\n",
    );
    let line = format!(
        "mkdir -p www tmp data etc; chmod 1777 tmp
         for program in /bin/sh /usr/bin/env /usr/bin/id /bin/sleep; do
             for file in $program $(ldd $program | grep -o '/[^ ]*'); do
                 cp --parents -L $file {root}
             done
         done
         cp /etc/hosts /etc/nsswitch.conf etc/; cp /etc/ld.so.cache etc/",
        root = root.display()
    );
    shell(&root, &line);
    there_and_back(&sandbox, "alice", &[]);
    let mut sleep = Command::new("chroot");
    let sleep = Running::start(sleep.arg(&root).args(["/bin/sleep", "1000"]));
    let inside = PathBuf::from(format!("/proc/{}/root", sleep.pid()));
    wait_until("it is inside", || {
        fs::read_link(&inside).is_ok_and(|inside| inside == root)
    });
    let ran = sandbox.ok(&["adopt", "--write", "alice"]);
    let ran = ran.says("runs inside, and keeps the files that it has open");
    let _ =
        ran.says("copies of the host's files stay in the root, which no upgrade reaches: /bin/");
    drop(sleep);
    let ran = sandbox.ok(&[
        "exec",
        "alice",
        "--",
        "/usr/bin/env",
        "sh",
        "-c",
        "echo $((6*7))",
    ]);
    assert_eq!(ran.stdout, "42\n");
}

fn hard_links() {
    let sandbox = Sandbox::new();
    let (one, dir) = (
        sandbox.file("host/one", "one"),
        sandbox.file("host/dir/inner/two", "two"),
    );
    let (host, dir) = (one.display(), dir.parent().unwrap().parent().unwrap());
    let root = sandbox.site(
        "s",
        &format!(
            "mounts:\n  - {{ source: {host}, target: /etc/one }}\n  \
             - {{ source: {}, target: /srv/dir }}\n",
            dir.display()
        ),
    );
    shell(
        &root,
        "mkdir -p etc srv/dir/inner; ln ../../host/one etc/one
         ln ../../host/dir/inner/two srv/dir/inner/two",
    );
    let shown = sandbox.run(&["adopt", "--json", "s"]).exits(3);
    let expected = json!({ "/etc/one": "hard-link", "/srv/dir": "hard-link" });
    assert_eq!(classes(&shown), expected);
    there_and_back(&sandbox, "s", &[]);
}

/// `cp -a` copies what the mounts show, as files.
fn copied() {
    let sandbox = Sandbox::new();
    let manifest = "presets: [php-fpm]\nusers: [www-data]\n";
    let root = sandbox.site("a", manifest);
    sandbox.ok(&["up", "a"]);
    shell(root.parent().unwrap(), "cp -a a b");
    sandbox.ok(&["down", "a"]);
    sandbox.site("b", manifest);
    let shown = sandbox.run(&["adopt", "--json", "b"]).exits(3);
    let found = classes(&shown);
    for (path, class) in found.as_object().unwrap() {
        assert_eq!(class, "same", "{path}\n{shown}");
    }
    assert_eq!(found["/etc/passwd"], "same");
    there_and_back(&sandbox, "b", &[]);
}

/// Debian's start script fills it; Postfix's own directories are also in it.
fn postfix() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("postfix", "presets: [dns, timezone]\n");
    shell(
        &root,
        "mkdir -p etc lib/x86_64-linux-gnu usr/lib/sasl2 private public active dev
         for file in hosts services nsswitch.conf host.conf resolv.conf localtime; do
             cp -L /etc/$file etc/
         done
         cp -L /lib/*-linux-gnu*/libnss_*.so.* lib/x86_64-linux-gnu/
         cp -L /lib/*-linux-gnu*/libresolv.so.* lib/x86_64-linux-gnu/
         chown www-data private public active; echo mail >active/1",
    );
    there_and_back(&sandbox, "postfix", &[]);
    sandbox.ok(&["adopt", "--write", "postfix"]);
    assert_eq!(fs::read_to_string(root.join("active/1")).unwrap(), "mail\n");
}

/// A panel that hard-links the socket of a database, which is dead after the database's restart.
fn sockets() {
    let sandbox = Sandbox::new();
    let run = sandbox.directory("host/run");
    let line = format!(
        "mounts: [{{ source: {}, target: /run/mysqld }}]\n",
        run.display()
    );
    let root = sandbox.site("s", &line);
    let old = UnixListener::bind(run.join("mysqld.sock")).unwrap();
    shell(
        &root,
        "mkdir -p run/mysqld; ln ../../host/run/mysqld.sock run/mysqld/",
    );
    let shown = sandbox.run(&["adopt", "--json", "s"]).exits(3);
    assert_eq!(classes(&shown), json!({ "/run/mysqld": "hard-link" }));

    drop(old);
    fs::remove_file(run.join("mysqld.sock")).unwrap();
    let _new = UnixListener::bind(run.join("mysqld.sock")).unwrap();
    let shown = sandbox.run(&["adopt", "--json", "s"]).exits(3);
    assert_eq!(classes(&shown), json!({ "/run/mysqld": "old-copy" }));

    fs::remove_file(root.join("run/mysqld/mysqld.sock")).unwrap();
    let _own = UnixListener::bind(root.join("run/mysqld/mysqld.sock")).unwrap();
    sandbox
        .run(&["adopt", "--write", "s"])
        .exits(1)
        .says("a socket that a process listens at");
    assert!(!aside(&root).exists());
}

/// Where the host has merged its directories into /usr, or where a jail has links of its own.
fn layouts() {
    let sandbox = Sandbox::new();
    let manifest = "programs: [/bin/sh, /usr/bin/env]\n";
    let split = sandbox.site("split", manifest);
    shell(
        &split,
        "for file in /bin/sh /usr/bin/env $(ldd /bin/sh /usr/bin/env | grep -o '/[^ ]*[0-9]'); do
             install -D $(readlink -f $file) ./$file
         done",
    );
    there_and_back(&sandbox, "split", &[]);

    let linked = sandbox.site("linked", manifest);
    symlink("lib", linked.join("lib64")).unwrap();
    fs::create_dir(linked.join("lib")).unwrap();
    there_and_back(&sandbox, "linked", &[]);

    let own = sandbox.site("own", "presets: [dns]\n");
    fs::create_dir(own.join("data")).unwrap();
    symlink("data", own.join("etc")).unwrap();
    let refused = sandbox.run(&["adopt", "--write", "own"]).exits(1);
    refused.says("it is a symbolic link to data");
}

fn versions() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [dns, timezone]\nprograms: [/usr/bin/env]\n");
    shell(
        &root,
        "mkdir -p etc usr/bin; cp /usr/bin/env usr/bin/; echo more >>usr/bin/env
         mkdir -p usr/share; cp -r /usr/share/zoneinfo usr/share/
         echo >>usr/share/zoneinfo/tzdata.zi
         cp /etc/ld.so.cache etc/; echo more >>etc/ld.so.cache
         printf 'TZif2\\0%s\\nUTC0\\n' old >etc/localtime",
    );
    let found = classes(&sandbox.run(&["adopt", "--json", "s"]).exits(3));
    let expected = json!({
        "/usr/bin/env": "old-copy",
        "/usr/share/zoneinfo": "old-copy",
        "/etc/ld.so.cache": "old-copy",
        "/etc/localtime": "old-copy",
    });
    assert_eq!(found, expected);

    // What somebody else could have made is his.
    let env = root.join("usr/bin/env");
    chown(&env, Some(33), None).unwrap();
    sandbox.run(&["adopt", "s"]).exits(1).says("usr/bin/env");
    chown(&env, Some(0), None).unwrap();
    fs::set_permissions(&env, fs::Permissions::from_mode(0o777)).unwrap();
    sandbox.run(&["adopt", "s"]).exits(1).says("usr/bin/env");
    fs::set_permissions(&env, fs::Permissions::from_mode(0o755)).unwrap();

    // So is a name that the host does not have, and another time zone.
    fs::write(root.join("usr/share/zoneinfo/Own"), "own").unwrap();
    let zone = root.join("etc/localtime");
    fs::write(&zone, b"TZif2\0old\nCET-1CEST,M3.5.0,M10.5.0/3\n").unwrap();
    let refused = sandbox.run(&["adopt", "s"]).exits(1);
    let refused = refused.says("zoneinfo/Own: the host has no such file");
    refused.says("etc/localtime: it differs from the host's");
}

fn forms() {
    let sandbox = Sandbox::new();
    let programs = "programs: [/usr/bin/id, /usr/bin/env, /usr/bin/ldd]\n";
    let root = sandbox.site("s", programs);
    shell(
        &root,
        "mkdir -p usr/bin app; printf '#!/usr/bin/php8.2\\necho 1;' >usr/bin/id
         echo >app/env; ln -s /app/env usr/bin/env
         cp /bin/true usr/bin/ldd; chmod 755 usr/bin/id",
    );
    let before = tree(&root);
    let ran = sandbox.run(&["adopt", "--write", "s"]).exits(1);
    let ran = ran.says("usr/bin/id: it is a script for php, where the host has an ELF file");
    let ran = ran.says("usr/bin/ldd: it is an ELF file, where the host has a script for sh");
    let _ = ran.says("usr/bin/env: it is a symbolic link to /app/env");
    before.assert_same(&tree(&root));
    there_and_back(&sandbox, "s", &["--also", "/usr/bin"]);

    // Beside mounts, it is no copy either.
    let root = sandbox.site("beside", "presets: [dns]\n");
    shell(
        &root,
        "mkdir -p usr/bin; printf '#!/usr/bin/php\\n' >usr/bin/id; cp /bin/cat usr/bin/
         echo >>usr/bin/cat",
    );
    let ran = sandbox.ok(&["check", "beside"]).says("/usr/bin/cat");
    assert!(!ran.stderr.contains("/usr/bin/id"), "{ran}");
}

fn ends() {
    let sandbox = Sandbox::new();
    // What a link of the site replaces does not stay.
    let root = sandbox.site("mail", "presets: [mail]\n");
    shell(
        &root,
        "mkdir -p usr/sbin; cp /usr/sbin/sendmail usr/sbin/; echo >>usr/sbin/sendmail",
    );
    for arguments in [
        &["adopt", "mail", "--write"][..],
        &["adopt", "mail"],
        &["check", "mail"],
    ] {
        let ran = sandbox.ok(arguments);
        assert!(!ran.stderr.contains("in the root"), "{ran}");
    }

    // What a copied link led to stays, and so do other programs and devices.
    let root = sandbox.site("jail", "programs: [/bin/sh]\n");
    shell(
        &root,
        "mkdir -p usr/bin dev; cp /usr/bin/dash usr/bin/; ln -s dash usr/bin/sh
         cp /usr/bin/id usr/bin/; chmod u+s usr/bin/id; mknod dev/kmem c 1 2",
    );
    sandbox.ok(&["adopt", "jail", "--write"]);
    let lines = "programs: [/usr/bin/dash, /usr/bin/id]";
    for command in ["adopt", "check"] {
        let ran = sandbox.ok(&[command, "jail"]);
        let ran = ran.says(&format!("`{lines}` in the manifest brings the host's"));
        let ran = ran.says("(setuid, setgid): /usr/bin/id");
        let _ = ran.says("device nodes of its own: /dev/kmem");
    }
    let more = lines.replace('[', "[/bin/sh, ");
    sandbox.manifest("jail", format!("root: {}\n{more}\n", root.display()));
    sandbox.ok(&["adopt", "jail", "--write"]);
    let ran = sandbox.ok(&["check", "jail"]);
    assert!(!ran.stderr.contains("stay in the root"), "{ran}");
}

fn elsewhere() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [dns]\n");
    shell(
        &root,
        "mkdir -p lib usr/lib usr/local/bin etc
         for it in /usr/lib/*-linux-gnu*/libnss_compat.so.2; do cp $it usr/lib/; cp $it lib/; done
         echo >>lib/libnss_compat.so.2
         cp /usr/bin/dash usr/local/bin/sh; echo own >usr/local/bin/own
         echo '/lib/gone.so /lib/libnss_compat.so.2 # more' >etc/ld.so.preload",
    );
    for command in ["check", "adopt"] {
        let ran = sandbox.ok(&[command, "s"]);
        let ran =
            ran.says("which no upgrade reaches: /usr/lib/libnss_compat.so.2, /usr/local/bin/sh");
        let ran = ran.says("and are used there: /lib/libnss_compat.so.2");
        let ran = ran.says("remove what the site does not need");
        let ran = ran.says(
            "ld.so.preload has the loader load these into each program: /lib/gone.so (not inside), \
             /lib/libnss_compat.so.2;",
        );
        assert!(!ran.stderr.contains("bin/own"), "{ran}");
    }
}

fn beside_others() {
    let sandbox = Sandbox::new();
    let copy = sandbox.site("a", "etc: [hosts]\n");
    let own = sandbox.site("b", "etc: [hosts]\n");
    sandbox.site("c", "etc: [hosts]\n");
    shell(&copy, "mkdir etc; cp /etc/hosts etc/");
    shell(&own, "mkdir etc; echo own >etc/hosts");
    let ran = sandbox.run(&["adopt", "--all", "--write"]).exits(1);
    let _ = ran.says("a: up, ").says("c: up, ");
    sandbox.ok(&["status", "a", "c"]);
    assert!(mounts_below(&own).is_empty());
    sandbox.ok(&["adopt", "--all", "--write", "--also", "/etc/hosts"]);
    sandbox.ok(&["status", "--all"]);
}

fn typed() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [ssl]\n");
    shell(
        &root,
        "mkdir -p etc/ssl/x; touch etc/ssl/x/y \"etc/ssl/$(printf 'nl\\nx')\" \
         \"etc/ssl/$(printf 'b\\351d')\"; touch -d 2001-01-01 etc etc/ssl .",
    );
    let before = tree(&root);
    let times = || {
        let time = |path: &str| fs::metadata(root.join(path)).unwrap().mtime();
        ["", "etc", "etc/ssl"].map(time)
    };
    let old = times();
    let also = ["--also", "/etc/ssl/x", "--also", "/etc/ssl/x/y"];
    let ran = sandbox
        .run(&[&["adopt", "s", "--write"], &also[..]].concat())
        .exits(1);
    assert!(!ran.stderr.contains("x/y"), "{ran}");
    let (_, remedy) = ran.stderr.split_once("try: `mountjail ").unwrap();
    let (remedy, _) = remedy.split_once("` moves").unwrap();
    let mut command = sandbox.command_under(&["sh", "-c", &format!("exec \"$0\" {remedy}")]);
    Ran::of(&mut command).exits(0).says("up, ");
    fs::create_dir_all(root.join("etc")).unwrap();
    sandbox.ok(&["adopt", "s", "--undo"]);
    before.assert_same(&tree(&root));
    assert_eq!(times(), old);
}

fn named() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [dns]\n");
    shell(
        &root,
        "mkdir -p etc/ld.so.conf.d; cp /etc/services etc/; echo 127.0.0.1 own >etc/hosts
         echo /own >etc/ld.so.conf.d/own.conf",
    );
    let before = tree(&root);
    let ran = sandbox.run(&["adopt", "--write", "s"]).exits(1);
    let ran = ran.says("hosts: it differs from the host's");
    ran.says(
        "`mountjail adopt --write s --also /etc/hosts --also /etc/ld.so.conf.d/own.conf` moves \
         them",
    );
    before.assert_same(&tree(&root));
    sandbox
        .run(&["adopt", "--write", "s", "--also", "/etc/hosts"])
        .exits(1)
        .says("own.conf");
    before.assert_same(&tree(&root));
    there_and_back(&sandbox, "s", &["--also", "/etc"]);
    sandbox
        .run(&["adopt", "s", "--also", "etc/hosts"])
        .exits(2)
        .says("it is not absolute");
}

/// Of many errors with one remedy the first are shown. `-q` prints no list, and JSON has an error
/// for each path.
fn many() {
    let sandbox = Sandbox::new();
    let names: Vec<_> = (1..=20).map(|nth| format!("file{nth}")).collect();
    let mut manifest = "mounts:\n".to_owned();
    let root = sandbox.directory("srv/s");
    for name in &names {
        let source = sandbox.file(format!("host/{name}"), "the host's");
        let source = source.display();
        writeln!(manifest, "  - {{ source: {source}, target: /data/{name} }}").unwrap();
        sandbox.file(format!("srv/s/data/{name}"), "own");
    }
    assert_eq!(sandbox.site("s", &manifest), root);
    for command in ["up", "plan", "check"] {
        let ran = sandbox.run(&[command, "s"]).exits(1);
        let lines = ran.stderr.lines().count();
        assert_eq!(lines, 5 + 2, "{ran}");
        ran.says(
            "error: s: 15 more errors of this kind, which -v shows\n  try: `mountjail adopt s`",
        );
    }
    let ran = sandbox.run(&["-v", "check", "s"]).exits(1);
    assert_eq!(ran.stderr.matches("error: s: ").count(), 20, "{ran}");
    for command in ["adopt", "plan"] {
        let ran = sandbox.run(&[command, "-q", "s"]).exits(1);
        assert_eq!(ran.stdout, "", "{ran}");
    }
    let ran = sandbox.run(&["adopt", "--json", "s"]).exits(1);
    let json = ran.json();
    let errors = json["sites"][0]["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 20, "{ran}");
    for (error, name) in errors.iter().zip(&names) {
        let path = error["path"].as_str().unwrap();
        assert!(path.starts_with(root.to_str().unwrap()), "{error} {name}");
        assert_eq!(error["code"], "conflict", "{error}");
    }
}

fn users() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "users: [www-data]\n");
    shell(
        &root,
        "mkdir etc; echo www-data:x:33:33::/:/bin/false >etc/passwd
         echo 'nobody:x:65534:65534:::' >>etc/passwd",
    );
    sandbox
        .run(&["adopt", "s"])
        .exits(3)
        .prints("`users:` lacks these, which will have no names inside: nobody");
    there_and_back(&sandbox, "s", &[]);
    shell(&root, "echo alice:x:1000:1000::/: >>etc/passwd");
    sandbox.run(&["adopt", "s"]).exits(1).says("etc/passwd");
}

fn put_back() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [dns]\n");
    shell(
        &root,
        "mkdir etc; cp /etc/services /etc/protocols etc/; touch etc/hosts",
    );
    let before = tree(&root);
    let foreign = sandbox.file("foreign", "foreign");
    bind(&foreign, &root.join("etc/hosts"));
    let ran = sandbox.run(&["adopt", "--write", "s"]).exits(1);
    let ran = ran.says("2 things put back");
    let _ = ran.says("is mounted there, and not by mountjail");
    before.assert_same(&tree(&root));
    unmount(&root.join("etc/hosts"));
    there_and_back(&sandbox, "s", &[]);
}

fn changed() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [dns]\n");
    shell(
        &root,
        "mkdir -p etc; cp /etc/services /etc/protocols /etc/hosts /etc/host.conf etc/",
    );
    sandbox.ok(&["adopt", "--write", "s"]);
    sandbox.ok(&["down", "s"]);
    fs::write(root.join("etc/hosts"), "new").unwrap();
    let of = |name: &str| aside(&root).join("etc").join(name);
    fs::rename(of("services"), root.join("stolen")).unwrap();
    fs::remove_file(of("protocols")).unwrap();
    fs::write(of("protocols"), "another").unwrap();

    let shown = sandbox.run(&["adopt", "--undo", "--dry-run", "s"]).exits(3);
    shown.prints("4 things would be put back");
    let ran = sandbox.run(&["adopt", "--undo", "--json", "s"]).exits(1);
    let json = ran.json();
    assert_eq!(json["sites"][0]["back"], json!(["/etc/host.conf"]), "{ran}");
    let hosts = root.join("etc/hosts");
    let hosts = hosts.display();
    let ran = ran.says(&format!(
        "cannot put {hosts} back: something else is there now"
    ));
    let ran = ran.says(&format!(
        "try: if what is at {hosts} is not needed, move it away"
    ));
    let ran = ran.says("/.mountjail-adopted/etc/services is not there any more");
    ran.says("/.mountjail-adopted/etc/protocols is another file now");
    assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "new");
    assert_eq!(fs::read_to_string(of("protocols")).unwrap(), "another");

    // Once the place is free, the rest goes back.
    fs::remove_file(root.join("etc/hosts")).unwrap();
    fs::rename(root.join("stolen"), of("services")).unwrap();
    fs::remove_file(of("protocols")).unwrap();
    let _ = sandbox.run(&["adopt", "--undo", "s"]).exits(1);
    for name in ["hosts", "services"] {
        let host = fs::read(Path::new("/etc").join(name)).unwrap();
        assert_eq!(fs::read(root.join("etc").join(name)).unwrap(), host);
    }
}

fn nothing() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [dns]\n");
    sandbox.ok(&["up", "s"]);
    for arguments in [&["adopt", "s"][..], &["adopt", "--all", "--write"]] {
        sandbox.ok(arguments).prints("nothing to adopt");
    }
    assert!(!aside(&root).exists());
    sandbox
        .run(&["adopt", "--write", "--undo", "s"])
        .exits(2)
        .says("cannot be used with");
}

/// After the copies are moved, `up` is killed.
fn killed() {
    for undo in [false, true] {
        let sandbox = Sandbox::with_engine("detached");
        let root = sandbox.site("s", "presets: [dns]\n");
        shell(&root, "mkdir etc; cp /etc/services /etc/hosts etc/");
        let before = tree(&root);
        let mut command = sandbox.command_with_fault("move_mount:signal=SIGKILL:when=1", &[]);
        let _ = Ran::of(command.args(["adopt", "--write", "s"])).exits(137);
        assert!(aside(&root).join("etc/hosts").exists());
        let shown = sandbox.run(&["adopt", "s"]).exits(3);
        let _ = shown.says("an earlier run was killed");
        if undo {
            sandbox.ok(&["adopt", "--undo", "s"]);
            before.assert_same(&tree(&root));
        } else {
            sandbox.ok(&["adopt", "--write", "s"]);
            sandbox.ok(&["status", "s"]);
            sandbox.ok(&["adopt", "s"]);
        }
    }
}

fn leftovers() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [dns]\n");
    shell(
        &root,
        "mkdir -p bin lib64 dev; cp /bin/dash bin/sh; cp /bin/cat bin/; echo >>bin/cat
         cp /lib64/ld-linux-*.so.* lib64/ || true; for it in lib64/*; do echo >>$it; done
         chmod u+s bin/sh; mknod dev/kmem c 1 2; chmod 777 lib64",
    );
    let ran = sandbox.ok(&["check", "s"]);
    let ran =
        ran.says("copies of the host's files stay in the root, which no upgrade reaches: /bin/sh");
    let ran =
        ran.says("old copies of the host's files stay in the root, and are used there: /bin/cat");
    let ran = ran.says("with the rights of their owners (setuid, setgid): /bin/sh");
    let ran = ran.says("device nodes of its own: /dev/kmem");
    if root.join("lib64").read_dir().unwrap().count() > 0 {
        let _ = ran.says("a dynamic loader of another version");
    }
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["check", "s"]).says("/bin/cat");

    // A directory on the way that others can write.
    let etc = sandbox.site("t", "presets: [dns]\n").join("etc");
    fs::create_dir(&etc).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o777)).unwrap();
    sandbox
        .ok(&["check", "t"])
        .says("can replace what is mounted in: /etc");
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
    let quiet = sandbox.ok(&["check", "t"]);
    assert!(!quiet.stderr.contains("exchange"), "{quiet}");
}

/// Their services bring the mounts when they start.
fn services() {
    let sandbox = Sandbox::new();
    let root = sandbox.site(
        "s",
        "presets: [dns]\nscope: services\nservices: [no-such.service]\n",
    );
    shell(&root, "mkdir etc; cp /etc/services etc/");
    let before = tree(&root);
    sandbox.ok(&["adopt", "--write", "s"]);
    assert!(!root.join("etc/services").exists() && mounts_below(&root).is_empty());
    sandbox.ok(&["adopt", "--undo", "s"]);
    before.assert_same(&tree(&root));
}

/// As by `jk_update` from cron, while the site is down.
fn again() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [dns]\n");
    let copy = "mkdir -p etc; cp /etc/services /etc/hosts etc/";
    for name in ["services", "services~2"] {
        shell(&root, copy);
        sandbox.ok(&["adopt", "--write", "s"]);
        sandbox.ok(&["down", "s"]);
        assert!(aside(&root).join("etc").join(name).exists());
    }
    let ran = sandbox.run(&["adopt", "--undo", "s"]).exits(1);
    let _ = ran.says("2 things put back");
    let host = fs::read("/etc/services").unwrap();
    assert_eq!(fs::read(root.join("etc/services")).unwrap(), host);
    assert_eq!(fs::read(aside(&root).join("etc/services")).unwrap(), host);
}

/// The set-up of a host with PHP-FPM.
fn five_pools() {
    let sandbox = Sandbox::new();
    let pool = |name: &str| {
        let root = sandbox.directory(Path::new("srv").join(name));
        format!(
            "[{name}]\nuser = www-data\ngroup = www-data\nlisten = /run/{name}.sock\n\
             chroot = {}\npm = ondemand\npm.max_children = 2\n",
            root.display()
        )
    };
    let names = ["old", "one", "two", "three", "four"];
    let pools = names.map(pool).concat();
    let file = sandbox.file("php-fpm.conf", format!("[global]\n{pools}"));
    shell(&sandbox.root("old"), RECIPE);
    let _ = sandbox
        .run(&["import", "--write", file.to_str().unwrap()])
        .exits(0);
    sandbox.ok(&["adopt", "--all", "--write"]);
    sandbox.ok(&["up", "--all"]);
    let status = sandbox.ok(&["status"]);
    for name in names {
        assert!(status.stdout.contains(&format!("{name}: up")), "{status}");
        let hosts = fs::read(sandbox.root(name).join("etc/hosts")).unwrap();
        assert_eq!(hosts, fs::read("/etc/hosts").unwrap());
    }
}

/// The real tool, in a directory all of whose parents are root's alone, as it asks for.
fn jailkit() {
    let sandbox = Sandbox::new();
    bind(&sandbox.path(""), Path::new("/mnt"));
    let root = Path::new("/mnt/srv/jail");
    fs::create_dir(root).unwrap();
    let links = "mkdir host; echo one >host/one; printf '[own]\\npaths = /mnt/host/one\\n' >own.ini
                 jk_init -k -c /mnt/own.ini -j /mnt/srv/jail own >log 2>&1";
    shell(Path::new("/mnt"), links);
    let sections = "jk_init -j /mnt/srv/jail basicshell netbasics jk_lsh extendedshell >log 2>&1";
    shell(Path::new("/mnt"), sections);
    let manifest = "root: /mnt/srv/jail\npresets: [base, dns, timezone]\n\
                    programs: [/bin/bash, /bin/sh, /bin/ls, /usr/bin/id]\nusers: [root]\n\
                    mounts: [/mnt/host/one]\n";
    sandbox.manifest("jail", manifest);
    let before = tree(root);
    let shown = sandbox.run(&["adopt", "jail"]).exits(3);
    assert!(!shown.stdout.contains("the site's own"), "{shown}");
    let _ = shown.prints("hard link       /mnt/host/one");
    sandbox.ok(&["adopt", "--write", "jail"]);
    let ran = sandbox.ok(&["exec", "jail", "--", "/bin/bash", "-c", "ls /etc/hosts"]);
    assert_eq!(ran.stdout, "/etc/hosts\n");
    sandbox.ok(&["check", "jail"]).says("/usr/bin/cat");
    sandbox.ok(&["adopt", "--undo", "jail"]);
    before.assert_same(&tree(root));
}

fn volume() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts]\n");
    let etc = root.join("etc");
    fs::create_dir(&etc).unwrap();
    shell(&etc, "mount -t tmpfs volume .");
    shell(&etc, "cp /etc/hosts .");
    let ran = sandbox.run(&["adopt", "s"]);
    let remedy = format!("try: `umount {}`, or move away by hand", etc.display());
    assert!(ran.stderr.contains(&remedy), "{ran}");
    shell(&root, "umount etc");
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
}
