//! Promise: a site's services start after its mounts, and are reloaded when these change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, Sandbox, trials, unmount};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};

pub fn all() -> Vec<Trial> {
    // The units that the sites name: systemd looks into this directory, and no other trial does.
    trials([
        ("drop-ins are printed", printed),
        (
            "drop-ins are written, kept and removed",
            written_and_removed,
        ),
        (
            "installed drop-ins are compared with the manifests",
            compared,
        ),
        ("a service of two sites keeps its drop-in", shared_service),
        (
            "a service that a site may name keeps its drop-in",
            service_of_unknown_sites,
        ),
        ("a unit that does not exist is an error", unknown_unit),
        (
            "units make no ordering cycle, whatever daemons live in sites and make their sources",
            no_cycle,
        ),
        (
            "units that cannot start after the mounts are refused, and old drop-ins go",
            refused_units,
        ),
        (
            "a site on a file system that comes late waits for it alone",
            late_file_systems,
        ),
        ("a file of somebody else is not replaced", not_ours),
        ("a drop-in that cannot be read is not missing", unreadable),
        ("the units have no namespace of their own", no_namespace),
        ("the watcher's unit leaves it what it needs", watch_unit),
        ("up --restart reloads only what changed", restart),
    ])
}

/// A sandbox on a host that has the units `jail-a.service` and `jail-b@.service`.
fn sandbox() -> Sandbox {
    static UNITS: std::sync::Once = std::sync::Once::new();
    UNITS.call_once(|| {
        let directory = Path::new("/usr/local/lib");
        mount(
            Some("units"),
            directory,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        fs::create_dir_all(directory.join("systemd/system")).unwrap();
        for unit in ["jail-a.service", "jail-b@.service"] {
            fs::write(
                directory.join("systemd/system").join(unit),
                "[Service]\nExecStart=/bin/true\n",
            )
            .unwrap();
        }
    });
    Sandbox::new()
}

fn units(sandbox: &Sandbox, arguments: &[&str]) -> Ran {
    Ran::of(
        sandbox
            .command()
            .arg("units")
            .args(arguments)
            .arg("--dir")
            .arg(sandbox.path("units")),
    )
}

/// All files below the directory of units, with their contents.
fn files(sandbox: &Sandbox) -> Vec<(PathBuf, String)> {
    let mut files = vec![];
    for directory in fs::read_dir(sandbox.path("units"))
        .into_iter()
        .flatten()
        .flatten()
    {
        for file in fs::read_dir(directory.path()).unwrap().flatten() {
            let path = file
                .path()
                .strip_prefix(sandbox.path("units"))
                .unwrap()
                .to_owned();
            files.push((path, fs::read_to_string(file.path()).unwrap()));
        }
    }
    files.sort();
    files
}

fn printed() {
    let sandbox = sandbox();
    sandbox.site(
        "s",
        "devices: [zero]\nservices: [jail-a.service, jail-b@x.service, jail-a.service]\n",
    );
    let ran = units(&sandbox, &["s"]).exits(0);
    for service in ["jail-a.service", "jail-b@x.service"] {
        let path = sandbox
            .path("units")
            .join(format!("{service}.d/50-mountjail.conf"));
        assert_eq!(
            ran.stdout
                .matches(&format!("# {}\n", path.display()))
                .count(),
            1,
            "{ran}"
        );
    }
    assert_eq!(
        ran.stdout.matches("\nAfter=mountjail.service\n").count(),
        2,
        "{ran}"
    );
    assert_eq!(
        ran.stdout
            .matches("\nBefore=jail-a.service jail-b@x.service\n")
            .count(),
        1,
        "{ran}"
    );
    assert!(!sandbox.path("units").exists(), "printing writes nothing");
}

fn written_and_removed() {
    let sandbox = sandbox();
    sandbox.site("s", "devices: [zero]\nservices: [jail-a.service]\n");
    sandbox.site("none", "devices: [zero]\n");
    units(&sandbox, &["--all", "--install"])
        .exits(0)
        .says("s: mounted before jail-a.service")
        .says("none: its manifest names no services");
    let written = files(&sandbox);
    let paths: Vec<_> = written
        .iter()
        .map(|(path, _)| path.to_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "jail-a.service.d/50-mountjail.conf",
            "mountjail@s.service.d/50-mountjail.conf"
        ]
    );
    let ran = Ran::of(
        sandbox
            .command()
            .args(["units", "--all", "--install", "-v", "--dir"])
            .arg(sandbox.path("units")),
    );
    assert!(
        ran.stderr.contains("kept ") && !ran.stderr.contains("wrote"),
        "{ran}"
    );
    assert_eq!(files(&sandbox), written);

    // systemd reads them as intended: with units of these names, it reports no problem.
    let own = sandbox.directory("systemd");
    fs::write(
        own.join("mountjail.service"),
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    )
    .unwrap();
    fs::write(
        own.join("jail-a.service"),
        "[Service]\nExecStart=/bin/true\n",
    )
    .unwrap();
    let path = format!("{}:{}:", sandbox.path("units").display(), own.display());
    let verify = Ran::of(
        Command::new("systemd-analyze")
            .arg("verify")
            .arg(own.join("jail-a.service"))
            .env("SYSTEMD_UNIT_PATH", path),
    );
    assert!(!verify.stderr.contains("50-mountjail.conf"), "{verify}");

    sandbox.site("s", "devices: [zero]\nservices: [jail-b@x.service]\n");
    units(&sandbox, &["--all", "--install"])
        .exits(0)
        .says("removed ");
    let paths: Vec<_> = files(&sandbox).into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        paths,
        [
            Path::new("jail-b@x.service.d/50-mountjail.conf"),
            Path::new("mountjail@s.service.d/50-mountjail.conf")
        ],
        "drop-ins that no manifest names are gone"
    );
    units(&sandbox, &["--all", "--uninstall"])
        .exits(0)
        .says("removed ");
    assert_eq!(fs::read_dir(sandbox.path("units")).unwrap().count(), 0);
    units(&sandbox, &["--all", "--uninstall"]).exits(0);
}

fn compared() {
    let sandbox = sandbox();
    let manifest = |text: &str| sandbox.site("s", text);
    manifest("devices: [zero]\nservices: [jail-a.service]\n");
    let check = |code| units(&sandbox, &["--all", "--check"]).exits(code);
    check(3).prints("/jail-a.service.d/50-mountjail.conf is missing\n");
    assert!(!sandbox.path("units").exists(), "it writes nothing");
    units(&sandbox, &["--all", "--install"]).exits(0);
    check(0).prints("in sync, in ");
    units(&sandbox, &["s", "--check", "--quiet"]).exits(0);
    manifest("devices: [zero]\nservices: [jail-b@x.service]\n");
    let ran = check(3)
        .prints("/jail-b@x.service.d/50-mountjail.conf is missing\n")
        .prints("/jail-a.service.d/50-mountjail.conf: no site needs it any more\n")
        .prints("/mountjail@s.service.d/50-mountjail.conf differs\n");
    ran.prints("\n  - Before=jail-a.service\n")
        .prints("\n  + Before=jail-b@x.service\n");
    let ran = units(&sandbox, &["--all", "--check", "--json"]).exits(3);
    let json = ran.json();
    let hows: Vec<_> = json["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["how"].as_str().unwrap())
        .collect();
    assert_eq!(json["in_sync"], false);
    assert_eq!(hows, ["missing", "differs", "unneeded"], "{ran}");
    units(&sandbox, &["--all", "--install"]).exits(0);
    check(0);
    units(&sandbox, &["--all", "--check", "--install"]).exits(2);
    manifest("services: [no-such.service]\n");
    check(1).says("no unit no-such.service");
}

fn shared_service() {
    let sandbox = sandbox();
    for site in ["one", "two"] {
        sandbox.site(site, "devices: [zero]\nservices: [jail-a.service]\n");
    }
    units(&sandbox, &["--all", "--install"]).exits(0);
    units(&sandbox, &["one", "--uninstall"]).exits(0);
    let left: Vec<_> = files(&sandbox).into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        left,
        [
            Path::new("jail-a.service.d/50-mountjail.conf"),
            Path::new("mountjail@two.service.d/50-mountjail.conf")
        ]
    );
    units(&sandbox, &["two", "--uninstall"]).exits(0);
    assert_eq!(
        files(&sandbox).len(),
        1,
        "the other site's manifest still names it"
    );
    fs::remove_file(sandbox.path("config/sites/one.yaml")).unwrap();
    units(&sandbox, &["two", "--uninstall"]).exits(0);
    assert_eq!(files(&sandbox), []);
}

fn service_of_unknown_sites() {
    let sandbox = sandbox();
    for site in ["one", "two"] {
        sandbox.site(site, "devices: [zero]\nservices: [jail-a.service]\n");
    }
    units(&sandbox, &["--all", "--install"]).exits(0);
    let sites = sandbox.path("config/sites");
    let kept = [
        Path::new("jail-a.service.d/50-mountjail.conf"),
        Path::new("mountjail@two.service.d/50-mountjail.conf"),
    ];
    let check_kept = || {
        let left: Vec<_> = files(&sandbox).into_iter().map(|(path, _)| path).collect();
        assert_eq!(left, kept);
    };

    // A site whose manifest has a mistake.
    let manifest = fs::read(sites.join("two.yaml")).unwrap();
    fs::write(sites.join("two.yaml"), "root: relative\n").unwrap();
    units(&sandbox, &["one", "--uninstall"])
        .exits(0)
        .says("the drop-ins of services stay");
    check_kept();

    // Sites that cannot be listed.
    fs::write(sites.join("two.yaml"), manifest).unwrap();
    let elsewhere = sandbox.path("config/elsewhere");
    fs::rename(&sites, &elsewhere).unwrap();
    fs::write(&sites, "").unwrap();
    let one = elsewhere.join("one.yaml");
    units(&sandbox, &[one.to_str().unwrap(), "--uninstall"])
        .exits(1)
        .says("cannot list the sites");
    check_kept();
}

fn unknown_unit() {
    let sandbox = sandbox();
    sandbox.site(
        "bad",
        "devices: [zero]\nservices: [jail-aa.service, nothing-like-it.service]\n",
    );
    sandbox.site("good", "devices: [zero]\nservices: [jail-a.service]\n");
    let ran = units(&sandbox, &["--all", "--install"]).exits(1);
    assert!(
        ran.stderr
            .contains("bad: this host has no unit jail-aa.service"),
        "{ran}"
    );
    assert!(
        ran.stderr.contains("try: did you mean jail-a.service?"),
        "{ran}"
    );
    assert!(
        ran.stderr
            .contains("bad: this host has no unit nothing-like-it.service"),
        "{ran}"
    );
    let written: Vec<_> = files(&sandbox).into_iter().map(|(path, _)| path).collect();
    assert_eq!(written.len(), 2, "the good site's alone: {written:?}");
    assert!(written[1].starts_with("mountjail@good.service.d"));
}

/// Daemons that make directories that sites bind.
const DAEMONS: [(&str, &str); 5] = [
    ("redis-server.service", "/run/redis"),
    ("mariadb.service", "/run/mysqld"),
    ("memcached.service", "/run/memcached"),
    ("postgresql.service", "/run/postgresql"),
    ("nscd.service", "/run/nscd"),
];

/// A sandbox with a directory of units: ours, [`DAEMONS`], and one that is not known here, all of
/// them started at boot.
fn host(more: &[(&str, &str)]) -> Sandbox {
    let sandbox = sandbox();
    let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    for unit in [
        "mountjail.service",
        "mountjail@.service",
        "mountjail-watch.service",
    ] {
        let text = fs::read_to_string(packaged.join(unit)).unwrap();
        sandbox.file(
            Path::new("units").join(unit),
            text.replace("/usr/bin/mountjail", "/bin/true"),
        );
    }
    let service = |more: &str| format!("[Unit]\n{more}\n[Service]\nExecStart=/bin/sleep inf\n");
    let daemons = DAEMONS.map(|(unit, _)| (unit, "After=network.target"));
    for (unit, text) in daemons.iter().chain([&("app.service", "")]).chain(more) {
        let text = if text.starts_with('[') {
            (*text).to_owned()
        } else {
            service(text)
        };
        sandbox.file(Path::new("units").join(unit), text);
    }
    let wants = sandbox.directory("units/multi-user.target.wants");
    for unit in fs::read_dir(sandbox.path("units")).unwrap().flatten() {
        let name = unit.file_name().into_string().unwrap();
        if name.ends_with(".service") && !name.contains('@') {
            std::os::unix::fs::symlink(format!("../{name}"), wants.join(name)).unwrap();
        }
    }
    sandbox
}

/// The output of systemd-analyze(1) for a boot with these units.
fn verified(sandbox: &Sandbox) -> String {
    let path = format!("{}:", sandbox.path("units").display());
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "multi-user.target"])
        .env("SYSTEMD_UNIT_PATH", path);
    Ran::of(&mut verify).stderr
}

/// The text of our drop-in of `unit`; empty if there is none.
fn drop_in(sandbox: &Sandbox, unit: &str) -> String {
    let path = format!("units/{unit}.d/50-mountjail.conf");
    fs::read_to_string(sandbox.path(path)).unwrap_or_default()
}

fn no_cycle() {
    // systemd does find a cycle where there is one.
    let sandbox = host(&[(
        "app.service.d/x.conf",
        "[Unit]\nAfter=nscd.service\nBefore=nscd.service\n",
    )]);
    assert!(verified(&sandbox).contains("ordering cycle"));

    for orders in [
        &[][..],
        &[(
            "memcached.service.d/x.conf",
            "[Unit]\nAfter=redis-server.service app.service\n",
        )],
    ] {
        let sandbox = host(orders);
        for (one, source) in DAEMONS {
            for (two, other_source) in DAEMONS {
                let binds =
                    |source: &str| format!("mounts: [{{ source: {source}, optional: true }}]\n");
                sandbox.site("a", &format!("services: [{one}]\n{}", binds(other_source)));
                sandbox.site(
                    "b",
                    &format!("services: [{two}, app.service]\n{}", binds(source)),
                );
                sandbox.site(
                    "c",
                    &format!("{}services: [jail-a.service]\n", binds(source)),
                );
                units(&sandbox, &["--all", "--install"]).exits(0);
                let said = verified(&sandbox);
                assert!(
                    !said.contains("cycle") && !said.contains("50-mountjail"),
                    "{one} {two} {orders:?}: {said}"
                );
                for unit in [one, two, "app.service", "jail-a.service"] {
                    assert!(
                        drop_in(&sandbox, unit).contains("\nAfter=mountjail.service\n"),
                        "{unit}"
                    );
                }
            }
        }
    }
    // Either all sites wait for a daemon, or only the one that needs it.
    let sandbox = host(&[]);
    sandbox.site(
        "a",
        "services: [redis-server.service]\nmounts: [{ source: /run/mysqld, optional: true }]\n",
    );
    sandbox.site("b", "services: [app.service]\npresets: [redis]\n");
    units(&sandbox, &["--all", "--install"])
        .exits(0)
        .says("b: mounted by mountjail@b.service");
    let all = drop_in(&sandbox, "mountjail.service");
    assert!(
        all.contains("\nAfter=mariadb.service\nWants=mountjail@b.service\n[Service]\n"),
        "{all}"
    );
    assert!(
        all.ends_with("\nEnvironment=EXCEPT=--except=b\n") && !all.contains("redis"),
        "{all}"
    );
    let own = drop_in(&sandbox, "mountjail@b.service");
    assert!(
        own.contains("\nAfter=redis-server.service\n")
            && own.contains("\nPartOf=mountjail.service\nAfter=mountjail.service\n"),
        "{own}"
    );
    assert!(
        drop_in(&sandbox, "app.service")
            .ends_with("\nAfter=mountjail.service\nAfter=mountjail@b.service\n")
    );
    assert!(!verified(&sandbox).contains("cycle"));
    units(&sandbox, &["b", "--uninstall"]).exits(0);
    let all = drop_in(&sandbox, "mountjail.service");
    assert!(all.ends_with("\nAfter=mariadb.service\n"), "{all}");
    // Its own service makes it: the watcher mounts it then.
    sandbox.site(
        "c",
        "services: [nscd.service]\nmounts: [{ source: /run/nscd, optional: true }]\n",
    );
    units(&sandbox, &["c", "--install"])
        .exits(0)
        .says("c: mounted without waiting for nscd.service");
    assert!(!verified(&sandbox).contains("cycle"));
}

fn refused_units() {
    let sandbox = host(&[
        (
            "early.service",
            "DefaultDependencies=no\nBefore=sysinit.target",
        ),
        ("odd.service", "Before=odd.target"),
        ("odd.target", "[Unit]\nBefore=mountjail.service\n"),
        ("app.socket", "[Socket]\nListenStream=/run/app\n"),
    ]);
    for (unit, why) in [
        ("local-fs.target", "a target is not a service"),
        ("network-online.target", "a target is not a service"),
        ("sysinit.target", "a target is not a service"),
        (
            "app.socket",
            "try: name the service that runs inside, as in `services: [app.service]`",
        ),
        ("srv.mount", "a mount is not a service"),
        ("app.timer", "a timer is not a service"),
        ("mountjail.service", "it is mountjail's own unit"),
        ("mountjail@s.service", "it is mountjail's own unit"),
        ("mountjail-watch.service", "it is mountjail's own unit"),
        (
            "systemd-journald.service",
            "it starts before file systems are mounted",
        ),
        ("early.service", "it starts before file systems are mounted"),
        (
            "odd.service",
            "they would wait for each other: odd.service, odd.target, mountjail.service start in \
             this order",
        ),
    ] {
        // As an older version wrote it.
        let old = format!("units/{unit}.d/50-mountjail.conf");
        let text = "# Written by `mountjail units --install`.\n[Unit]\nAfter=mountjail.service\n";
        sandbox.file(&old, text);
        sandbox.site("s", &format!("services: [app.service, {unit}]\n"));
        for which in ["s", "--all"] {
            units(&sandbox, &[which, "--install"])
                .exits(1)
                .says(&format!("s: {unit} cannot start after the site's mounts"))
                .says(why);
            if which == "--all" || unit.ends_with(".service") {
                assert!(
                    unit.starts_with("mountjail") || !sandbox.path(&old).exists(),
                    "{unit}"
                );
            }
        }
        assert!(
            drop_in(&sandbox, "app.service").ends_with("\nAfter=mountjail.service\n"),
            "{unit}"
        );
        let said = verified(&sandbox);
        assert!(!said.contains("cycle"), "{unit}: {said}");
    }
}

fn late_file_systems() {
    let sandbox = host(&[]);
    let mount = |more: &str| format!("[Unit]\n{more}\n[Mount]\nWhat=/dev/null\nWhere={{}}\n");
    let unit = |name: &str, more: &str| {
        let point = sandbox.directory(name);
        let escaped = Ran::of(
            Command::new("systemd-escape")
                .args(["--path", "--suffix=mount"])
                .arg(&point),
        )
        .exits(0);
        let text = mount(more).replace("{}", point.to_str().unwrap());
        sandbox.file(Path::new("units").join(escaped.stdout.trim()), text);
        point
    };
    let (late, local) = (unit("late", ""), unit("local", "Before=local-fs.target"));
    let site = |name: &str, root: &Path, more: &str| {
        fs::create_dir_all(root).unwrap();
        sandbox.manifest(
            name,
            format!(
                "root: {}\ndevices: [zero]\nservices: [app.service]\n{more}",
                root.display()
            ),
        );
    };
    site("late", &late.join("a b"), "");
    site("local", &local.join("a"), "");
    site(
        "source",
        &local.join("b"),
        &format!("mounts: [{}]\n", late.join("data").display()),
    );
    site(
        "optional",
        &local.join("c"),
        &format!(
            "mounts: [{{ source: {}, optional: true }}]\n",
            late.join("data").display()
        ),
    );
    units(&sandbox, &["--all", "--install"])
        .exits(0)
        .says("late: mounted by mountjail@late.service");
    let all = drop_in(&sandbox, "mountjail.service");
    assert!(
        all.ends_with("\nEnvironment=EXCEPT=--except=late,source\n"),
        "{all}"
    );
    assert!(
        !all.contains("MountsFor"),
        "no site waits for another's file system: {all}"
    );
    let own = |site: &str| drop_in(&sandbox, &format!("mountjail@{site}.service"));
    assert!(
        own("late").contains(&format!(
            "\nRequiresMountsFor=\"{}\"\n",
            late.join("a b").display()
        )),
        "{}",
        own("late")
    );
    assert!(own("source").contains(&format!(
        "\nRequiresMountsFor={}\n",
        late.join("data").display()
    )));
    assert!(own("local").contains(&format!(
        "\nRequiresMountsFor={}\n",
        local.join("a").display()
    )));
    let part = "\nPartOf=mountjail.service\nAfter=mountjail.service\n";
    assert!(own("late").contains(part) && !own("local").contains("mountjail.service"));
    let app = drop_in(&sandbox, "app.service");
    assert!(
        app.ends_with(
            "\nAfter=mountjail.service\nAfter=mountjail@late.service\n\
             After=mountjail@source.service\n"
        ),
        "{app}"
    );
    let said = verified(&sandbox);
    assert!(
        !said.contains("cycle") && !said.contains("50-mountjail"),
        "{said}"
    );

    // An administrator's own order is respected.
    let order = "[Unit]\nBefore=mountjail.service\n";
    sandbox.file("units/mountjail@late.service.d/own.conf", order);
    units(&sandbox, &["--all", "--install"]).exits(0);
    let late = own("late");
    assert!(
        late.contains("\nPartOf=mountjail.service\n") && !late.contains("After=mountjail.service"),
        "{late}"
    );
    let said = verified(&sandbox);
    assert!(!said.contains("cycle"), "{said}");

    // `up --all` of mountjail.service leaves them alone.
    sandbox.ok(&["up", "--all", "--except=late,source,optional"]);
    sandbox.ok(&["status", "local"]);
    sandbox.run(&["status", "late"]).exits(3);
}

fn not_ours() {
    let sandbox = sandbox();
    sandbox.site("s", "devices: [zero]\nservices: [jail-a.service]\n");
    let own = sandbox.file(
        "units/jail-a.service.d/50-mountjail.conf",
        "[Unit]\nDescription=by hand\n",
    );
    units(&sandbox, &["s", "--install"])
        .exits(1)
        .says("is not mountjail's");
    units(&sandbox, &["--all", "--uninstall"]).exits(0);
    assert_eq!(
        fs::read_to_string(own).unwrap(),
        "[Unit]\nDescription=by hand\n"
    );
}

fn unreadable() {
    let sandbox = sandbox();
    for (site, unit) in [("a", "jail-a"), ("b", "jail-b@x")] {
        let manifest = format!("devices: [zero]\nservices: [{unit}.service]\n");
        sandbox.site(site, &manifest);
    }
    units(&sandbox, &["--all", "--install"]).exits(0);
    let of = |unit: &str| sandbox.path(format!("units/{unit}.service.d/50-mountjail.conf"));
    let (bad, good) = (of("jail-a"), of("jail-b@x"));
    for path in [&bad, &good] {
        fs::remove_file(path).unwrap();
    }
    fs::create_dir(&bad).unwrap(); // read(2) fails, whoever reads
    let says = format!("cannot read {}: Is a directory", bad.display());

    let ran = units(&sandbox, &["--all", "--check"]).exits(1).says(&says);
    let ran = ran.prints("/jail-b@x.service.d/50-mountjail.conf is missing\n");
    assert!(!ran.stdout.contains("jail-a.service.d"), "{ran}");
    let fails = |action: &str| {
        let ran = units(&sandbox, &["--all", action, "--json"]).exits(1);
        let json = ran.says(&says).json();
        let errors = json["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{json}");
        assert_eq!(errors[0]["path"], bad.to_str().unwrap(), "{json}");
        assert!(
            says.contains(errors[0]["reason"].as_str().unwrap()),
            "{json}"
        );
        json
    };
    let json = fails("--check");
    assert_eq!(json["in_sync"], false);
    assert_eq!(json["files"].as_array().unwrap().len(), 1, "{json}");
    let json = fails("--install");
    assert_eq!(json["sites"].as_array().unwrap().len(), 2, "{json}");
    assert!(good.exists(), "the other site has its drop-in all the same");
    let json = fails("--uninstall");
    let removed = json["removed"].as_array().unwrap();
    assert!(removed.contains(&good.to_str().unwrap().into()), "{json}");
    assert!(!good.exists() && bad.exists());
}

/// The settings that the units may have. None of them makes a mount namespace, which would hide the
/// mounts; a setting that is not listed here might.
const WITHOUT_NAMESPACE: [&str; 27] = [
    "Type",
    "Environment",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "RemainAfterExit",
    "ExecStart",
    "ExecReload",
    "ExecStop",
    "Restart",
    "RestartSec",
    "WatchdogSec",
    "UMask",
    "CapabilityBoundingSet",
    "NoNewPrivileges",
    "DevicePolicy",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictSUIDSGID",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "KeyringMode",
    "KillMode",
    "Nice",
    "RestrictRealtime",
    "SystemCallArchitectures",
    "SystemCallFilter",
    "SystemCallErrorNumber",
];

fn no_namespace() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let files = ["systemd", "monitoring"]
        .into_iter()
        .flat_map(|directory| fs::read_dir(packaging.join(directory)).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|end| end == "service"));
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let (_, service) = text.split_once("[Service]\n").unwrap();
        let service = service.split("\n[").next().unwrap();
        for line in service
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (key, value) = line.split_once('=').unwrap();
            assert!(WITHOUT_NAMESPACE.contains(&key), "{line}");
            let ours =
                value.starts_with("/usr/bin/mountjail ") || value == "/bin/kill -HUP $MAINPID";
            assert!(!key.starts_with("Exec") || ours, "{line}");
        }
        seen += 1;
    }
    assert_eq!(seen, 4);
}

/// The watcher with the restrictions of its unit, as far as they can be had without systemd: no
/// other capabilities, and no new ones.
fn watch_unit() {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd/mountjail-watch.service"),
    )
    .unwrap();
    let kept = text
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .unwrap();
    let kept = kept
        .split(' ')
        .map(|name| format!(",+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()));
    let bounds = format!("--bounding-set=-all{}", kept.collect::<String>());
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/file", "one");
    let root = sandbox.site(
        "s",
        &format!("users: [www-data]\nmounts: [{}]\n", source.display()),
    );
    std::os::unix::fs::chown(&root, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    sandbox.ok(&["up", "s"]);
    unmount(&root.join("etc/passwd"));
    fs::rename(sandbox.file("host/new", "two"), source).unwrap();
    Ran::of(
        sandbox
            .command_under(&["setpriv", "--no-new-privs", &bounds])
            .args(["watch", "--once"]),
    )
    .exits(0)
    .says("s: up, 3 mounts: 1 attached, 1 swapped");
    sandbox.ok(&["status", "s"]);
}

/// With a systemctl that writes down how it is called; the real one is used where a system is
/// booted.
fn restart() {
    let sandbox = sandbox();
    let log = sandbox.path("log");
    sandbox.program(
        "bin/systemctl",
        format!("#!/bin/sh\necho \"$@\" >>{}\n", log.display()),
    );
    let up = |arguments: &[&str]| {
        let path = format!(
            "{}:{}",
            sandbox.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        Ran::of(
            sandbox
                .command()
                .args(["up", "--restart"])
                .args(arguments)
                .env("PATH", path),
        )
    };
    let called = || fs::read_to_string(&log).unwrap_or_default();
    sandbox.file("host/file", "one");
    let manifest = format!(
        "services: [jail-a.service]\nmounts: [{}]\n",
        sandbox.path("host/file").display()
    );
    sandbox.site("one", &manifest);
    sandbox.site(
        "two",
        "services: [jail-a.service, jail-b@x.service]\ndevices: [zero]\n",
    );
    up(&["--all"]).exits(0);
    assert_eq!(
        called(),
        "try-reload-or-restart jail-a.service\ntry-reload-or-restart jail-b@x.service\n"
    );
    up(&["--all"]).exits(0);
    assert_eq!(called().lines().count(), 2, "nothing changed");
    let new = sandbox.file("host/new", "two");
    fs::rename(new, sandbox.path("host/file")).unwrap();
    up(&["--all"])
        .exits(0)
        .says("try-reload-or-restart jail-a.service");
    assert_eq!(called().lines().count(), 3);

    sandbox.ok(&["down", "one"]);
    sandbox.program(
        "bin/systemctl",
        "#!/bin/sh\necho 'Unit jail-a.service not found.' >&2\nexit 5\n",
    );
    up(&["one"])
        .exits(1)
        .says("jail-a.service was not reloaded")
        .says("Unit jail-a.service not found.");
    sandbox.ok(&["status", "one"]);
}
