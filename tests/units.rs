//! Promise: a site's services start after its mounts, and hear of it when these change.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use support::{Ran, Sandbox, trials};

fn main() -> ExitCode {
    // The units that the sites name: systemd looks into this directory, and no other trial does.
    support::main(trials([
        ("drop-ins are printed", printed),
        ("drop-ins are written, kept and removed", written_and_removed),
        ("a service of two sites keeps its drop-in", shared_service),
        ("a unit that does not exist is an error", unknown_unit),
        ("a file of somebody else's is not replaced", not_ours),
        ("the units have no namespace of their own", no_namespace),
        ("the watcher's unit leaves it what it needs", watch_unit),
        ("up --restart reloads only what changed", restart),
    ]))
}

/// A sandbox on a host that has the units `jail-a.service` and `jail-b@.service`.
fn sandbox() -> Sandbox {
    static UNITS: std::sync::Once = std::sync::Once::new();
    UNITS.call_once(|| {
        let directory = Path::new("/usr/local/lib");
        mount(Some("units"), directory, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::create_dir_all(directory.join("systemd/system")).unwrap();
        for unit in ["jail-a.service", "jail-b@.service"] {
            fs::write(directory.join("systemd/system").join(unit), "[Service]\nExecStart=/bin/true\n")
                .unwrap();
        }
    });
    Sandbox::new()
}

fn units(sandbox: &Sandbox, arguments: &[&str]) -> Ran {
    Ran::of(sandbox.command().arg("units").args(arguments).arg("--dir").arg(sandbox.path("units")))
}

/// All files below the directory of units, with their contents.
fn files(sandbox: &Sandbox) -> Vec<(PathBuf, String)> {
    let mut files = vec![];
    for directory in fs::read_dir(sandbox.path("units")).into_iter().flatten().flatten() {
        for file in fs::read_dir(directory.path()).unwrap().flatten() {
            let path = file.path().strip_prefix(sandbox.path("units")).unwrap().to_owned();
            files.push((path, fs::read_to_string(file.path()).unwrap()));
        }
    }
    files.sort();
    files
}

fn printed() {
    let sandbox = sandbox();
    sandbox.site("s", "devices: [zero]\nservices: [jail-a.service, jail-b@x.service, jail-a.service]\n");
    let ran = units(&sandbox, &["s"]).exits(0);
    for service in ["jail-a.service", "jail-b@x.service"] {
        let path = sandbox.path("units").join(format!("{service}.d/50-mountjail.conf"));
        assert_eq!(ran.stdout.matches(&format!("# {}\n", path.display())).count(), 1, "{ran}");
    }
    assert_eq!(ran.stdout.matches("\nAfter=mountjail.service\n").count(), 2, "{ran}");
    assert_eq!(ran.stdout.matches("\nBefore=jail-a.service jail-b@x.service\n").count(), 1, "{ran}");
    assert!(!sandbox.path("units").exists(), "printing writes nothing");
}

fn written_and_removed() {
    let sandbox = sandbox();
    sandbox.site("s", "devices: [zero]\nservices: [jail-a.service]\n");
    sandbox.site("none", "devices: [zero]\n");
    units(&sandbox, &["--all", "--install"])
        .exits(0)
        .complains("s: mounted before jail-a.service")
        .complains("none: its manifest names no services");
    let written = files(&sandbox);
    let paths: Vec<_> = written.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["jail-a.service.d/50-mountjail.conf", "mountjail@s.service.d/50-mountjail.conf"]);
    let ran = Ran::of(
        sandbox.command().args(["units", "--all", "--install", "-v", "--dir"]).arg(sandbox.path("units")),
    );
    assert!(ran.stderr.contains("kept ") && !ran.stderr.contains("wrote"), "{ran}");
    assert_eq!(files(&sandbox), written);

    // systemd reads them as they are meant: with units of these names, it finds nothing to complain of.
    let own = sandbox.directory("systemd");
    fs::write(own.join("mountjail.service"), "[Service]\nType=oneshot\nExecStart=/bin/true\n").unwrap();
    fs::write(own.join("jail-a.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let path = format!("{}:{}:", sandbox.path("units").display(), own.display());
    let verify = Ran::of(
        Command::new("systemd-analyze")
            .arg("verify")
            .arg(own.join("jail-a.service"))
            .env("SYSTEMD_UNIT_PATH", path),
    );
    assert!(!verify.stderr.contains("50-mountjail.conf"), "{verify}");

    sandbox.site("s", "devices: [zero]\nservices: [jail-b@x.service]\n");
    units(&sandbox, &["--all", "--install"]).exits(0).complains("removed ");
    let paths: Vec<_> = files(&sandbox).into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        paths,
        [
            Path::new("jail-b@x.service.d/50-mountjail.conf"),
            Path::new("mountjail@s.service.d/50-mountjail.conf")
        ],
        "what no manifest names any more is gone"
    );
    units(&sandbox, &["--all", "--uninstall"]).exits(0).complains("removed ");
    assert_eq!(fs::read_dir(sandbox.path("units")).unwrap().count(), 0);
    units(&sandbox, &["--all", "--uninstall"]).exits(0);
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
    assert_eq!(files(&sandbox).len(), 1, "the other site's manifest still names it");
    fs::remove_file(sandbox.path("config/sites/one.yaml")).unwrap();
    units(&sandbox, &["two", "--uninstall"]).exits(0);
    assert_eq!(files(&sandbox), []);
}

fn unknown_unit() {
    let sandbox = sandbox();
    sandbox.site("bad", "devices: [zero]\nservices: [jail-aa.service, nothing-like-it.service]\n");
    sandbox.site("good", "devices: [zero]\nservices: [jail-a.service]\n");
    let ran = units(&sandbox, &["--all", "--install"]).exits(1);
    assert!(ran.stderr.contains("bad: this host has no unit jail-aa.service"), "{ran}");
    assert!(ran.stderr.contains("try: did you mean jail-a.service?"), "{ran}");
    assert!(ran.stderr.contains("bad: this host has no unit nothing-like-it.service"), "{ran}");
    let written: Vec<_> = files(&sandbox).into_iter().map(|(path, _)| path).collect();
    assert_eq!(written.len(), 2, "the good site's alone: {written:?}");
    assert!(written[1].starts_with("mountjail@good.service.d"));
}

fn not_ours() {
    let sandbox = sandbox();
    sandbox.site("s", "devices: [zero]\nservices: [jail-a.service]\n");
    let own = sandbox.file("units/jail-a.service.d/50-mountjail.conf", "[Unit]\nDescription=by hand\n");
    units(&sandbox, &["s", "--install"]).exits(1).complains("is not mountjail's");
    units(&sandbox, &["--all", "--uninstall"]).exits(0);
    assert_eq!(fs::read_to_string(own).unwrap(), "[Unit]\nDescription=by hand\n");
}

/// What may stand in the units. None of it gives a mount namespace, which would make the mounts invisible; whatever is
/// not known here may.
const WITHOUT_NAMESPACE: [&str; 21] = [
    "Type",
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
    "SystemCallArchitectures",
    "SystemCallFilter",
    "SystemCallErrorNumber",
];

fn no_namespace() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let mut seen = 0;
    for file in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let service = text.split_once("[Service]\n").unwrap().1.split_once("\n[").unwrap().0;
        for line in service.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once('=').unwrap();
            assert!(WITHOUT_NAMESPACE.contains(&key), "{line}");
            let ours = value.starts_with("/usr/bin/mountjail ") || value == "/bin/kill -HUP $MAINPID";
            assert!(!key.starts_with("Exec") || ours, "{line}");
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
}

/// The watcher under what its unit takes away, as far as that can be had without systemd: without other capabilities,
/// and without new ones.
fn watch_unit() {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd/mountjail-watch.service"),
    )
    .unwrap();
    let kept = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let kept = kept.split(' ').map(|name| format!(",+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()));
    let bounds = format!("--bounding-set=-all{}", kept.collect::<String>());
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/file", "one");
    let root = sandbox.site("s", &format!("users: [www-data]\nmounts: [{}]\n", source.display()));
    std::os::unix::fs::chown(&root, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    sandbox.ok(&["up", "s"]);
    Ran::of(Command::new("umount").arg(root.join("etc/passwd"))).exits(0);
    fs::rename(sandbox.file("host/new", "two"), source).unwrap();
    Ran::of(sandbox.command_under(&["setpriv", "--no-new-privs", &bounds]).args(["watch", "--once"]))
        .exits(0)
        .complains("s: up, 3 mounts: 1 attached, 1 swapped");
    sandbox.ok(&["status", "s"]);
}

/// With a systemctl that writes down how it is called; the real one is used where a system is booted.
fn restart() {
    let sandbox = sandbox();
    let log = sandbox.path("log");
    sandbox.program("bin/systemctl", format!("#!/bin/sh\necho \"$@\" >>{}\n", log.display()));
    let up = |arguments: &[&str]| {
        let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap());
        Ran::of(sandbox.command().args(["up", "--restart"]).args(arguments).env("PATH", path))
    };
    let called = || fs::read_to_string(&log).unwrap_or_default();
    sandbox.file("host/file", "one");
    let manifest = format!("services: [jail-a.service]\nmounts: [{}]\n", sandbox.path("host/file").display());
    sandbox.site("one", &manifest);
    sandbox.site("two", "services: [jail-a.service, jail-b@x.service]\ndevices: [zero]\n");
    up(&["--all"]).exits(0);
    assert_eq!(called(), "try-reload-or-restart jail-a.service\ntry-reload-or-restart jail-b@x.service\n");
    up(&["--all"]).exits(0);
    assert_eq!(called().lines().count(), 2, "nothing changed");
    let new = sandbox.file("host/new", "two");
    fs::rename(new, sandbox.path("host/file")).unwrap();
    up(&["--all"]).exits(0).complains("try-reload-or-restart jail-a.service");
    assert_eq!(called().lines().count(), 3);

    sandbox.ok(&["down", "one"]);
    sandbox.program("bin/systemctl", "#!/bin/sh\necho 'Unit jail-a.service not found.' >&2\nexit 5\n");
    up(&["one"])
        .exits(1)
        .complains("jail-a.service still is as it was")
        .complains("Unit jail-a.service not found.");
    sandbox.ok(&["status", "one"]);
}
