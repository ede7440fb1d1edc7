//! Promise: the lines that `fstab` prints give the same mounts as `up`, and the file that it keeps
//! them in is never harmed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Ran, Sandbox, for_each_engine, for_each_engine_on_shared_root, mounts, mounts_below,
    on_shared_root, tree,
};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};

pub fn all() -> Vec<Trial> {
    let mut trials = for_each_engine("mount -a and up give the same", same_both_ways);
    trials.extend(for_each_engine_on_shared_root(
        "mount -a and up give the same on a shared root",
        same_both_ways,
    ));
    trials.extend(for_each_engine(
        "lines for another manifest than the site is up by leave its mounts ours",
        other_manifest,
    ));
    trials.push(on_shared_root(
        "host mounts stay outside",
        host_mounts_stay_outside,
    ));
    // In a process of its own, because it mounts on /run.
    trials.push(on_shared_root(
        "lines wait for what is made on /run",
        waits_for_makers,
    ));
    trials.push(on_shared_root(
        "lines make no ordering cycle, whatever services they name",
        no_cycle,
    ));
    trials.extend(crate::support::trials([
        ("odd paths survive", odd_paths),
        ("findmnt verifies the lines", findmnt_is_silent),
        ("submounts are read-only", submounts_are_read_only),
        ("systemd makes the right units", systemd_units),
        (
            "down leaves what the lines need",
            down_leaves_what_is_needed,
        ),
        ("doctor names lines that are outdated", outdated_lines),
        (
            "lines are installed, checked and uninstalled",
            install_check_uninstall,
        ),
        ("--all replaces the block", all_replaces_the_block),
        ("nobody else can block an edit", locks_of_others),
        (
            "lines that others could exchange files of are refused",
            lines_of_others,
        ),
        (
            "a failing site keeps its lines",
            failing_site_keeps_its_lines,
        ),
        ("broken markers are refused", broken_markers),
        ("a line for the same target is refused", double_lines),
        ("a link to the file is followed", link_is_followed),
        (
            "a file that is absent, read-only or on a full disk is reported",
            bad_places,
        ),
        ("two writers wait for each other", two_writers),
        ("an edit recovers from a kill at each call", || {
            at_each_call("signal=SIGKILL");
        }),
        ("an edit recovers from each call failing", || {
            at_each_call("error=ENOSPC");
        }),
    ]));
    trials
}

/// The lines of an administrator in the file.
const OWN_LINES: &str =
    "# /etc/fstab\nUUID=1-2-3 / ext4 errors=remount-ro 0 1\n\n\ttmpfs\t/nowhere tmpfs noauto";

/// A sandbox with the site `s` and a file that plays /etc/fstab.
fn sandbox(manifest: &str) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    sandbox.site("s", manifest);
    let file = sandbox.file("etc/fstab", OWN_LINES);
    (sandbox, file)
}

fn fstab(sandbox: &Sandbox, file: &Path, arguments: &[&str]) -> Ran {
    Ran::of(
        sandbox
            .command()
            .arg("fstab")
            .args(arguments)
            .arg("--file")
            .arg(file),
    )
}

/// The file without the lines of [`OWN_LINES`], for mount(8).
fn block_alone(sandbox: &Sandbox, file: &Path) -> PathBuf {
    let text = fs::read(file).unwrap();
    let own = format!("{OWN_LINES}\n");
    sandbox.file("etc/block", text.strip_prefix(own.as_bytes()).unwrap())
}

fn mount_all(file: &Path) {
    Ran::of(Command::new("mount").args(["-a", "-T"]).arg(file)).exits(0);
}

/// The mounts of a jail with their options, without ids.
fn shown(root: &Path) -> Vec<(PathBuf, PathBuf, Vec<String>)> {
    let mut shown: Vec<_> = mounts_below(root)
        .into_iter()
        .map(|mount| (mount.point, mount.root, mount.options))
        .collect();
    shown.sort();
    shown
}

/// The manifest that most trials use: every class of mounts, a program, a directory, users.
fn everything(sandbox: &Sandbox) -> String {
    sandbox.file("host/data/file", "data");
    sandbox.directory("host/up loads");
    let host = sandbox.path("host");
    format!(
        "presets: [php-fpm, shell]\nusers: [www-data]\n\
         mounts:\n  - {0}/data\n  - {{ source: '{0}/up loads', target: \
         /uploads, access: read-write }}\n  - {{ source: {0}/data, target: /setuid, setuid: true, \
         executable: true }}\n",
        host.display()
    )
}

fn same_both_ways(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let manifest = everything(&sandbox);
    let root = sandbox.site("s", &manifest);
    let bare = tree(&root);
    let file = sandbox.file("etc/fstab", OWN_LINES);
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    assert!(mounts_below(&root).is_empty(), "--install mounts nothing");

    mount_all(&block_alone(&sandbox, &file));
    sandbox.ok(&["status", "s"]).prints("s: up, ");
    sandbox.ok(&["plan", "s"]).prints("nothing to do");
    let (by_mount, before) = (shown(&root), mounts_below(&root));
    sandbox.ok(&["up", "s"]).says("nothing to do");
    assert_eq!(
        mounts_below(&root),
        before,
        "up after mount -a does nothing"
    );
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());

    sandbox.ok(&["up", "s"]);
    assert_eq!(shown(&root), by_mount, "up and mount -a give the same");
    let before = mounts_below(&root);
    mount_all(&block_alone(&sandbox, &file));
    assert_eq!(
        mounts_below(&root),
        before,
        "mount -a after up changes nothing"
    );

    sandbox.ok(&["down", "s"]);
    fstab(&sandbox, &file, &["s", "--uninstall"]).exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), OWN_LINES);
    assert_eq!(tree(&root), bare, "as before");
}

/// Without `private` a bind on a shared root joins its source's peer group, and this would appear
/// writable.
fn host_mounts_stay_outside() {
    let sandbox = Sandbox::new();
    sandbox.directory("host/data/later");
    let data = sandbox.path("host/data");
    let root = sandbox.site(
        "s",
        &format!(
            "mounts: [{{ source: {}, target: /data }}]\n",
            data.display()
        ),
    );
    let file = sandbox.file("etc/fstab", OWN_LINES);
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    mount_all(&block_alone(&sandbox, &file));
    mount(
        Some("later"),
        &data.join("later"),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    fs::write(data.join("later/secret"), "").unwrap();
    assert_eq!(fs::read_dir(root.join("data/later")).unwrap().count(), 0);
    assert_eq!(mounts_below(&root).len(), 1);
}

fn odd_paths() {
    for (nth, name) in [
        "a b",
        "tab\there",
        "back\\slash",
        "ha#sh",
        "#",
        "new\nline",
        "\u{fc}ml\u{e4}ut",
        "a,b\"c'd",
        "\\040",
    ]
    .into_iter()
    .enumerate()
    {
        let sandbox = Sandbox::new();
        sandbox.file(Path::new("host").join(name).join("file"), name);
        let source = sandbox.path("host").join(name);
        let json = |text: &str| serde_json::to_string(text).unwrap(); // YAML also reads it
        let root = sandbox.root("s").join(name);
        fs::create_dir_all(&root).unwrap();
        sandbox.manifest(
            "s",
            format!(
                "root: {}\nmounts:\n  - {{ source: {}, target: {} }}\n",
                json(root.to_str().unwrap()),
                json(source.to_str().unwrap()),
                json(&format!("/in/{name}"))
            ),
        );
        let file = sandbox.file("etc/fstab", OWN_LINES);
        fstab(&sandbox, &file, &["s", "--install"]).exits(0);
        fstab(&sandbox, &file, &["s", "--check"]).exits(0);
        mount_all(&block_alone(&sandbox, &file));
        assert_eq!(
            fs::read_to_string(root.join("in").join(name).join("file")).unwrap(),
            name,
            "name {nth}"
        );
        sandbox.ok(&["status", "s"]);
        sandbox.ok(&["down", "s"]);
        fstab(&sandbox, &file, &["s", "--uninstall"]).exits(0);
        assert_eq!(fs::read_to_string(&file).unwrap(), OWN_LINES);
    }
}

fn findmnt_is_silent() {
    let sandbox = Sandbox::new();
    let manifest = everything(&sandbox);
    sandbox.site("s", &manifest);
    let file = sandbox.file("etc/fstab", OWN_LINES);
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    let verify = |file: &Path| {
        let ran = Ran::of(
            Command::new("findmnt")
                .args(["--verify", "--tab-file"])
                .arg(file),
        )
        .exits(0);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(said.trim(), "Success, no errors or warnings detected");
    };
    verify(&block_alone(&sandbox, &file));
    let printed = sandbox.ok(&["fstab", "s"]);
    verify(&sandbox.file("etc/printed", printed.stdout));
}

fn submounts_are_read_only() {
    let (sandbox, file) = sandbox("");
    let tmpfs = |at: &Path| {
        mount(
            Some("sub"),
            at,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
    };
    for directory in ["host/data/a b", "host/data/c/d"] {
        tmpfs(&sandbox.directory(directory));
    }
    tmpfs(&sandbox.directory("host/data/c/d/e"));
    let data = sandbox.path("host/data");
    let manifest = format!(
        "mounts: [{{ source: {}, target: /data, recursive: true }}]\n",
        data.display()
    );
    let root = sandbox.site("s", &manifest);
    let bare = tree(&root);
    fstab(&sandbox, &file, &["s", "--check"]).exits(3);
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    fstab(&sandbox, &file, &["s", "--check"]).exits(0);
    let verify = ["--verify", "--tab-file"];
    Ran::of(
        Command::new("findmnt")
            .args(verify)
            .arg(block_alone(&sandbox, &file)),
    )
    .exits(0)
    .prints("no errors");
    sandbox
        .run(&["plan", "s"])
        .exits(3)
        .prints("s: 1 step in ")
        .prints("  attach ");
    mount_all(&block_alone(&sandbox, &file));
    let points: Vec<_> = mounts_below(&root);
    assert_eq!(points.len(), 4, "{points:?}");
    for point in points {
        assert!(
            point.has("ro") && point.has("nosuid") && point.has("noexec"),
            "{point:?}"
        );
        let error = fs::write(point.point.join("x"), "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    sandbox
        .ok(&["status", "s"])
        .prints("s: up, 1 of 1 mounts ok");
    sandbox.ok(&["up", "s"]).says("nothing to do");
    fstab(&sandbox, &file, &["s", "--check"]).exits(0);
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
    sandbox.ok(&["up", "s"]);
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    // Another manifest, while it is up: the source's own directories are not mistaken for
    // placeholders.
    sandbox.site(
        "s",
        &format!(
            "mounts: [{{ source: {}, target: /data }}]\n",
            data.display()
        ),
    );
    sandbox.ok(&["up", "s"]);
    for kept in ["a b", "c/d/e"] {
        assert!(data.join(kept).is_dir(), "{kept}");
    }
    fstab(&sandbox, &file, &["s", "--uninstall"]).exits(0);
    sandbox.ok(&["down", "s"]);
    assert_eq!(tree(&root), bare);
}

/// Runs systemd-fstab-generator on the lines of site `s` and returns where it wrote units.
fn generated(sandbox: &Sandbox) -> PathBuf {
    let lines = sandbox.ok(&["fstab", "s"]).stdout;
    let file = sandbox.file("etc/lines", lines);
    let units = sandbox.directory("units");
    let generator = "/usr/lib/systemd/system-generators/systemd-fstab-generator";
    Ran::of(
        Command::new(generator)
            .args([&units; 3])
            .env("SYSTEMD_FSTAB", &file),
    )
    .exits(0);
    units
}

fn systemd_units() {
    let sandbox = Sandbox::new();
    sandbox.file("host/data/file", "data");
    let data = sandbox.path("host/data");
    let root = sandbox.site(
        "s",
        &format!(
            "devices: [null]\nmounts: [{}]\nservices: [one.service, two@x.service]\n",
            data.display()
        ),
    );
    let units = generated(&sandbox);
    for target in [Path::new("/dev/null"), &data] {
        let at = root.join(target.strip_prefix("/").unwrap());
        let name = Ran::of(
            Command::new("systemd-escape")
                .args(["--path", "--suffix=mount"])
                .arg(&at),
        )
        .exits(0);
        let unit = fs::read_to_string(units.join(name.stdout.trim())).unwrap();
        let has = |line: &str| {
            assert!(
                unit.lines().any(|found| found == line),
                "no {line:?} in\n{unit}"
            );
        };
        has("Before=one.service two@x.service");
        has(&format!(
            "RequiresMountsFor={} {}",
            target.display(),
            root.display()
        ));
        has(&format!("What={}", target.display()));
        has(&format!("Where={}", at.display()));
        let options = unit
            .lines()
            .find_map(|line| line.strip_prefix("Options=bind,ro,nosuid,"))
            .unwrap();
        assert!(options.contains(",private,"), "{options}");
        // nofail: wanted by local-fs.target, not required, and not before it.
        assert!(
            units
                .join("local-fs.target.wants")
                .join(name.stdout.trim())
                .symlink_metadata()
                .is_ok()
        );
        assert!(!unit.contains("Before=local-fs.target"), "{unit}");
    }
    let verified = Ran::of(
        Command::new("systemd-analyze").arg("verify").args(
            fs::read_dir(&units)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| {
                    path.extension()
                        .is_some_and(|extension| extension == "mount")
                }),
        ),
    );
    let complaints: Vec<_> = verified
        .stderr
        .lines()
        .filter(|line| line.contains(root.to_str().unwrap()))
        .collect();
    assert_eq!(complaints, Vec::<&str>::new(), "{verified}");
}

fn waits_for_makers() {
    let sandbox = Sandbox::new();
    mount(
        Some("run"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    for directory in ["/run/systemd/resolve", "/run/mysqld", "/run/own"] {
        fs::create_dir_all(directory).unwrap();
    }
    sandbox.site(
        "s",
        "mounts: [/run/systemd/resolve, /run/mysqld, /run/own]\n",
    );
    let ran = sandbox
        .ok(&["fstab", "s"])
        .says("s: /run/own does not exist after a boot until a service makes it");
    let after = |source: &str| {
        let line = ran
            .stdout
            .lines()
            .find(|line| line.starts_with(source))
            .unwrap();
        line.split([',', ' '])
            .filter_map(|word| word.strip_prefix("x-systemd.after="))
            .collect::<Vec<_>>()
    };
    assert_eq!(after("/run/systemd/resolve"), ["systemd-resolved.service"]);
    assert_eq!(after("/run/mysqld"), ["mariadb.service", "mysql.service"]);
    assert_eq!(after("/run/own"), ["systemd-tmpfiles-setup.service"]);
}

/// A line waits for no daemon that waits for it, nor for one that waits for another site's lines
/// that wait for it.
fn no_cycle() {
    let sandbox = Sandbox::new();
    mount(
        Some("run"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    for directory in ["/run/redis", "/run/mysqld"] {
        fs::create_dir_all(directory).unwrap();
    }
    let options = |site: &str| {
        let text = sandbox.ok(&["fstab", site]).stdout;
        let words = text
            .split([',', ' '])
            .filter_map(|word| word.strip_prefix("x-systemd."));
        let order = words.filter(|word| word.starts_with("after=") || word.starts_with("before="));
        order.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    sandbox.site(
        "own",
        "mounts: [/run/redis]\nservices: [redis-server.service]\n",
    );
    assert_eq!(options("own"), ["before=redis-server.service"]);
    sandbox.site(
        "a",
        "mounts: [/run/redis]\nservices: [mysql.service, mariadb.service]\n",
    );
    sandbox.site(
        "b",
        "mounts: [/run/mysqld]\nservices: [redis-server.service]\n",
    );
    let (a, b) = (options("a"), options("b"));
    assert_eq!(
        a,
        [
            "after=redis-server.service",
            "before=mysql.service",
            "before=mariadb.service"
        ]
    );
    assert_eq!(
        b,
        ["before=redis-server.service"],
        "b would start after a, which starts after redis"
    );
    sandbox.site(
        "odd",
        "mounts: [/run/mysqld]\nservices: [local-fs.target, systemd-journald.service]\n",
    );
    sandbox
        .ok(&["fstab", "odd"])
        .says(
            "odd: local-fs.target cannot start after the site's mounts: a target is not a service",
        )
        .says("odd: systemd-journald.service cannot start after the site's mounts");
    assert!(
        !options("odd")
            .iter()
            .any(|word| word.starts_with("before=")),
        "{:?}",
        options("odd")
    );
}

/// flock(2) asks for no right to write.
fn locks_of_others() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    let held = sandbox.path("held");
    let script = format!(
        "exec 3<{} 4<{} && flock 3 && flock 4 && touch {} && exec sleep 60",
        file.parent().unwrap().display(),
        file.display(),
        held.display()
    );
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut other = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
            &script,
        ])
        .spawn()
        .unwrap();
    while !held.exists() {
        assert!(other.try_wait().unwrap().is_none(), "it cannot lock");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fstab(&sandbox, &file, &["s", "--install"])
        .exits(0)
        .says("s: 1 line in ");
    other.kill().unwrap();
    other.wait().unwrap();
}

/// The manifest changes, and its lines are installed before the next `up`.
fn other_manifest(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let file = sandbox.file("etc/fstab", OWN_LINES);
    let text = |name: &str| {
        let source = sandbox.file(format!("host/{name}"), name);
        format!("mounts: [{{ source: {}, target: /x }}]\n", source.display())
    };
    let root = sandbox.site("s", &text("one"));
    sandbox.ok(&["up", "s"]);
    for next in ["up", "down"] {
        sandbox.site("s", &text("two"));
        fstab(&sandbox, &file, &["s", "--install"]).exits(0);
        sandbox.site("s", &text("three"));
        sandbox.ok(&[next, "s"]);
        let is_up = next == "up";
        let shown = fs::read_to_string(root.join("x")).unwrap();
        assert_eq!(shown, if is_up { "three" } else { "" });
        assert_eq!(mounts_below(&root).len(), usize::from(is_up));
    }
}

fn install_check_uninstall() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    let root = sandbox.root("s");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&file, Some(12), Some(34)).unwrap();
    fstab(&sandbox, &file, &["s", "--check"])
        .exits(3)
        .prints("s: not in ");
    fstab(&sandbox, &file, &["s", "--install"])
        .exits(0)
        .says("s: 1 line in ");
    let installed = fs::read_to_string(&file).unwrap();
    assert!(
        installed.starts_with(&format!("{OWN_LINES}\n# BEGIN mountjail")),
        "{installed}"
    );
    assert!(root.join("dev/null").is_file());
    sandbox.run(&["status", "s"]).exits(3).prints("s: down");
    sandbox.ok(&["up", "--all", "--if-up"]);
    assert!(mounts_below(&root).is_empty(), "it stays down");
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    assert_eq!(
        (
            std::os::unix::fs::MetadataExt::uid(&metadata),
            std::os::unix::fs::MetadataExt::gid(&metadata)
        ),
        (12, 34)
    );

    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        installed,
        "twice gives the same bytes"
    );
    fstab(&sandbox, &file, &["s", "--check"])
        .exits(0)
        .prints("s: in sync, 1 line in ");
    let json = fstab(&sandbox, &file, &["s", "--check", "--json"])
        .exits(0)
        .json();
    assert_eq!(json["sites"][0]["in_sync"], true);

    sandbox.manifest(
        "s",
        format!("root: {}\ndevices: [null, zero]\n", root.display()),
    );
    let differs = fstab(&sandbox, &file, &["s", "--check"])
        .exits(3)
        .prints("s: differs in ");
    assert!(
        differs.stdout.contains("\n  + /dev/zero ") && !differs.stdout.contains("\n  - "),
        "{differs}"
    );
    fs::remove_file(root.join("dev/null")).unwrap();
    sandbox.manifest("s", format!("root: {}\ndevices: [null]\n", root.display()));
    fstab(&sandbox, &file, &["s", "--check"])
        .exits(3)
        .prints("1 placeholder to mount on");

    fstab(&sandbox, &file, &["s", "--uninstall"])
        .exits(0)
        .says("s: taken out of ");
    assert_eq!(fs::read_to_string(&file).unwrap(), OWN_LINES);
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        0,
        "the root is as before"
    );
    assert_eq!(
        fs::read_dir(file.parent().unwrap()).unwrap().count(),
        1,
        "nothing beside the file"
    );
}

fn all_replaces_the_block() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    sandbox.site("other", "devices: [zero]\n");
    fstab(&sandbox, &file, &["--all", "--install"]).exits(0);
    fs::remove_file(sandbox.path("config/sites/other.yaml")).unwrap();
    fstab(&sandbox, &file, &["--all", "--check"])
        .exits(3)
        .prints("other has lines, but no manifest in ");
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    assert!(
        fs::read_to_string(&file).unwrap().contains("/dev/zero"),
        "one site leaves the others' lines"
    );
    fstab(&sandbox, &file, &["--all", "--install"])
        .exits(0)
        .says("other: taken out of ");
    assert!(!fs::read_to_string(&file).unwrap().contains("/dev/zero"));
    assert_eq!(fs::read_dir(sandbox.root("other")).unwrap().count(), 0);
    fstab(&sandbox, &file, &["--all", "--check"]).exits(0);
    fs::remove_dir_all(sandbox.config()).unwrap();
    fstab(&sandbox, &file, &["--all", "--uninstall"]).exits(0);
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        OWN_LINES,
        "no configuration is needed to take it out"
    );
}

fn failing_site_keeps_its_lines() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    let gone = sandbox.site("gone", "devices: [zero]\n");
    fstab(&sandbox, &file, &["--all", "--install"]).exits(0);
    let installed = fs::read(&file).unwrap();
    fs::rename(&gone, gone.with_extension("away")).unwrap();
    let ran = fstab(&sandbox, &file, &["--all", "--install"]).exits(1);
    assert!(ran.stderr.contains(gone.to_str().unwrap()), "{ran}");
    assert_eq!(
        fs::read(&file).unwrap(),
        installed,
        "its disk may only not be mounted now"
    );
}

fn broken_markers() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    let text = format!("# BEGIN mountjail\n{OWN_LINES}");
    fs::write(&file, &text).unwrap();
    for action in ["--install", "--uninstall", "--check"] {
        let ran = fstab(&sandbox, &file, &["s", action]).exits(1);
        assert!(
            ran.stderr
                .contains("line 1 begins mountjail's block, and no line ends it"),
            "{ran}"
        );
        assert!(ran.stderr.contains("\n  try: "), "{ran}");
    }
    is_untouched(&sandbox, &file, &text);
}

/// The file still has this `text`, and nothing was made in the root.
#[track_caller]
fn is_untouched(sandbox: &Sandbox, file: &Path, text: &str) {
    assert_eq!(fs::read_to_string(file).unwrap(), text);
    assert_eq!(fs::read_dir(sandbox.root("s")).unwrap().count(), 0);
}

fn double_lines() {
    let (sandbox, file) = sandbox("devices: [null, zero, full]\n");
    let root = sandbox.root("s").display().to_string();
    let null = format!("# by hand\n/dev/null {root}/dev/null none bind 0 0\n");
    let zero = format!("{null}proc /proc proc\n/dev/zero {root}/dev/zero none bind\n");
    for (text, said) in [(null, "s: line 2 of "), (zero, "s: lines 2, 4 of ")] {
        fs::write(&file, &text).unwrap();
        fstab(&sandbox, &file, &["s", "--install"])
            .exits(1)
            .says(said);
        is_untouched(&sandbox, &file, &text);
    }
}

fn link_is_followed() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    let link = sandbox.directory("elsewhere").join("fstab");
    symlink("../etc/fstab", &link).unwrap();
    fstab(&sandbox, &link, &["s", "--install"]).exits(0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&file).unwrap().contains("/dev/null"));
}

fn bad_places() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    let untouched = || {
        assert_eq!(
            fs::read_dir(sandbox.root("s")).unwrap().count(),
            0,
            "nothing was made"
        );
    };
    let absent = sandbox.path("etc/absent");
    fstab(&sandbox, &absent, &["s", "--install"])
        .exits(1)
        .says("cannot open ")
        .says("No such file");
    fstab(&sandbox, &absent, &["s", "--check"])
        .exits(1)
        .says("cannot read ");
    assert!(!absent.exists());
    untouched();
    fstab(&sandbox, &sandbox.path("etc"), &["s", "--install"])
        .exits(1)
        .says("is not a regular file");

    // A tmpfs as full as it can be.
    let small = sandbox.directory("small");
    mount(
        Some("small"),
        &small,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=8k"),
    )
    .unwrap();
    fs::copy(&file, small.join("fstab")).unwrap();
    fs::write(small.join("ballast"), [0; 4096]).unwrap();
    fstab(&sandbox, &small.join("fstab"), &["s", "--install"])
        .exits(1)
        .says("No space left")
        .says("as it was");
    assert_eq!(fs::read_to_string(small.join("fstab")).unwrap(), OWN_LINES);
    assert_eq!(fs::read_dir(&small).unwrap().count(), 2);
    untouched();

    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, &small, None::<&str>, flags, None::<&str>).unwrap();
    fstab(&sandbox, &small.join("fstab"), &["s", "--install"])
        .exits(1)
        .says("Read-only file system");
    untouched();

    // A file that something is mounted on, as containers have it, cannot be replaced.
    mount(
        Some(&file),
        &file,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    fstab(&sandbox, &file, &["s", "--install"])
        .exits(1)
        .says("something is mounted on it");
    assert_eq!(fs::read_to_string(&file).unwrap(), OWN_LINES);
    untouched();
}

fn two_writers() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    let sites: Vec<_> = (0..6).map(|nth| format!("site{nth}")).collect();
    for site in &sites {
        sandbox.site(site, "devices: [zero]\n");
    }
    std::thread::scope(|scope| {
        for site in &sites {
            scope.spawn(|| fstab(&sandbox, &file, &[site, "--install"]).exits(0));
        }
    });
    let mut arguments: Vec<&str> = sites.iter().map(String::as_str).collect();
    arguments.push("--check");
    fstab(&sandbox, &file, &arguments).exits(0);
    arguments.pop();
    arguments.push("--uninstall");
    fstab(&sandbox, &file, &arguments).exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), OWN_LINES);
}

/// Every call that makes, writes or replaces a file, one at a time.
fn at_each_call(fault: &str) {
    let calls = [
        "openat",
        "write",
        "fsync",
        "rename",
        "fchown",
        "fchmod",
        "unlink",
        "mkdirat",
        "flock",
        "ftruncate",
    ];
    let mut disturbed = 0;
    for call in calls {
        for nth in 1.. {
            let (sandbox, file) = sandbox("devices: [null, zero]\n");
            let log = sandbox.path("strace");
            let trace = format!("trace={call}");
            let inject = format!("inject={call}:{fault}:when={nth}");
            let runner = [
                "strace",
                "-f",
                "-q",
                "-P",
                sandbox.path("etc").to_str().unwrap(),
                "-P",
                file.to_str().unwrap(),
                "-P",
                sandbox.path("etc/.fstab.mountjail").to_str().unwrap(),
                "-o",
                log.to_str().unwrap(),
                "-e",
                &trace,
                "-e",
                &inject,
            ]
            .map(str::to_owned);
            let runner: Vec<&str> = runner.iter().map(String::as_str).collect();
            let install = ["fstab", "s", "--install", "--file", file.to_str().unwrap()];
            let ran = Ran::of(sandbox.command_under(&runner).args(install));
            if !fs::read_to_string(&log)
                .unwrap_or_default()
                .contains("INJECTED")
                && ran.code == 0
            {
                break;
            }
            disturbed += 1;
            let text = fs::read_to_string(&file).unwrap();
            let whole = text == OWN_LINES || text.ends_with("# END mountjail");
            assert!(
                whole,
                "{inject}: neither the old file nor the new one:\n{text}\n{ran}"
            );
            if fault.starts_with("error") && ran.code != 0 {
                assert!(
                    ran.code == 1 && ran.stderr.contains("error: "),
                    "{inject}\n{ran}"
                );
            }
            Ran::of(sandbox.command().args(install)).exits(0);
            fstab(&sandbox, &file, &["s", "--check"]).exits(0);
            fstab(&sandbox, &file, &["s", "--uninstall"]).exits(0);
            assert_eq!(fs::read_to_string(&file).unwrap(), OWN_LINES, "{inject}");
            assert_eq!(
                fs::read_dir(file.parent().unwrap()).unwrap().count(),
                1,
                "{inject}"
            );
            assert_eq!(
                fs::read_dir(sandbox.root("s")).unwrap().count(),
                0,
                "{inject}"
            );
        }
    }
    assert!(disturbed >= 8, "strace disturbed {disturbed} calls only");
}

fn down_leaves_what_is_needed() {
    let (sandbox, file) = sandbox("devices: [null]\nusers: [www-data]\n");
    let root = sandbox.root("s");
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    let prepared = tree(&root);
    sandbox.ok(&["up", "s"]);
    sandbox
        .ok(&["down", "s"])
        .says("the mount points of its lines in ");
    assert_eq!(tree(&root), prepared);
    mount_all(&block_alone(&sandbox, &file));
    sandbox.ok(&["status", "s"]);
    // Taken out while it is up: the mounts stay, and `down` then leaves nothing.
    fstab(&sandbox, &file, &["s", "--uninstall"]).exits(0);
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    assert!(mounts().iter().all(|mount| !mount.point.starts_with(&root)));
    // A block that was taken out by hand needs nothing either.
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    fs::write(&file, OWN_LINES).unwrap();
    sandbox.ok(&["down", "s"]);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

fn outdated_lines() {
    let (sandbox, file) = sandbox("etc: [hosts]\n");
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    sandbox.ok(&["up", "s"]);
    let outdated = "are not those of the manifest any more";
    let ran = sandbox.run(&["doctor", "s"]);
    assert!(!ran.stderr.contains(outdated), "{ran}");
    sandbox.site("s", "etc: [services]\n");
    sandbox.ok(&["up", "s"]);
    let remedy = format!("`mountjail fstab --install --file {} s`", file.display());
    let ran = sandbox.run(&["doctor", "s"]);
    ran.says(outdated).says(&remedy);
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    let ran = sandbox.run(&["doctor", "s"]);
    assert!(!ran.stderr.contains(outdated), "{ran}");
    sandbox.ok(&["down", "s"]);
}

/// mount(8) follows links in both fields.
fn lines_of_others() {
    let (sandbox, file) = sandbox("devices: [null]\n");
    let (root, host) = (sandbox.root("s"), sandbox.directory("home/uploads"));
    let owned = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    let installed = fs::read(&file).unwrap();
    // The root, a directory in it, one above it.
    for path in [
        root.clone(),
        root.join("dev"),
        root.parent().unwrap().to_owned(),
    ] {
        owned(&path, 61001);
        let printed = sandbox.run(&["fstab", "s"]);
        for ran in [printed, fstab(&sandbox, &file, &["s", "--install"])] {
            let ran = ran.exits(1);
            ran.says("mount(8) would follow it")
                .says("belongs to user 61001")
                .says("mountjail up");
        }
        fstab(&sandbox, &file, &["s", "--check"])
            .exits(3)
            .says("mount(8) would follow it")
            .says("its lines are still in")
            .says("--uninstall s");
        assert_eq!(fs::read(&file).unwrap(), installed);
        owned(&path, 0);
    }
    fstab(&sandbox, &file, &["s", "--check"]).exits(0);
    // A source.
    let line = format!(
        "mounts: [{{ source: {}, target: /up, access: read-write }}]\n",
        host.display()
    );
    sandbox.site("s", &line);
    owned(&host, 61001);
    fstab(&sandbox, &file, &["s", "--install"]).exits(0);
    owned(host.parent().unwrap(), 61001);
    fstab(&sandbox, &file, &["s", "--install"])
        .exits(1)
        .says("mount(8) would follow it");
    // Such a site does not get in the way of others.
    sandbox.site("other", "devices: [zero]\n");
    fstab(&sandbox, &file, &["--all", "--install"])
        .exits(1)
        .says("other: 1 line in ");
    fstab(&sandbox, &file, &["s", "--uninstall"]).exits(0);
    sandbox.run(&["fstab", "s"]).exits(1);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
}
