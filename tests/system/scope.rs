//! Promise: services of sites with `scope: services` are started by `mountjail run`, and the
//! commands find the sites in their mount namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{
    Ran, Running, Sandbox, Watcher, alone, empty_run, mounts_below, on_shared_root, soon, trials,
    where_templates_are,
};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let unlisted = alone(
        "where the sites cannot be listed, status and doctor cannot tell how services are started",
        unlisted,
    );
    let not_started = alone(
        "up and status report why a service that does not run would lack its mounts",
        not_started,
    );
    let mut all = trials([
        ("a service's own lines are wrapped, and followed", wrapped),
        (
            "hardening that forbids mounts is named with the line that lets it",
            forbidden,
        ),
        (
            "a unit that does not exist, or cannot be wrapped, is an error",
            not_wrapped,
        ),
        (
            "a service of sites with both scopes has both drop-ins",
            both_scopes,
        ),
        (
            "up, status and down reach into the namespaces of services",
            reached,
        ),
        (
            "sites share templates in the namespace of their service",
            templates,
        ),
        (
            "a site in use in one namespace is taken down in none",
            in_use,
        ),
        (
            "placeholders stay while a service has mounts on them",
            placeholders,
        ),
        (
            "a site moves from the host to its services, as far as it is not in use",
            to_services,
        ),
        (
            "a site moves from its services to the host, whose mounts they do not see",
            to_host,
        ),
        (
            "sites of services are left alone where only the host is meant",
            host_only,
        ),
        ("fstab has no lines of sites of services", no_lines),
        ("a plan names the services", planned),
        (
            "exec, doctor and trace enter the namespace of a service",
            entered,
        ),
        (
            "exec, doctor and trace have a namespace of their own if no service runs",
            occasion,
        ),
        (
            "the watcher heals what is stale in the namespaces of services",
            watched,
        ),
        (
            "the watcher goes on once a mistake in the manifest of a site of services is corrected",
            corrected,
        ),
        (
            "the watcher heals a site of the host that a service still has",
            watched_to_host,
        ),
        (
            "what is in the way in a namespace is unmounted there",
            conflict,
        ),
    ]);
    all.extend(running());
    all.extend([unlisted, not_started]);
    all.extend(where_templates_are(trials([(
        "a full mount table in the namespace of a service leaves it as it was",
        full,
    )])));
    all.push(on_shared_root(
        "a site leaves its services for the host, as far as it is not in use",
        to_host_shared,
    ));
    all.push(on_shared_root(
        "a mount of the host in the namespace of a service stays there",
        beneath,
    ));
    all
}

/// What tells the namespaces of services that run.
fn running() -> Vec<Trial> {
    trials([
        (
            "two services of one site have its mounts each",
            two_services,
        ),
        ("a service that a script starts by hand is reached", by_hand),
        (
            "a service that goes on in another process is known by its mounts",
            forked,
        ),
        (
            "a namespace with the numbers of a service that ended is not that service's",
            numbers_reused,
        ),
    ])
}

const OWN: &str = "jail-fpm.service";

/// A sandbox with the unit `jail-fpm.service` in its own directory of units.
fn sandbox(lines: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    unit(&sandbox, lines);
    sandbox
}

fn unit(sandbox: &Sandbox, lines: &str) -> PathBuf {
    sandbox.file(format!("units/{OWN}"), format!("[Service]\n{lines}\n"))
}

fn units(sandbox: &Sandbox, arguments: &[&str]) -> Ran {
    let mut command = sandbox.command();
    command.arg("units").args(arguments);
    Ran::of(command.arg("--dir").arg(sandbox.path("units")))
}

fn wrapper(sandbox: &Sandbox) -> PathBuf {
    sandbox.path(format!("units/{OWN}.d/zz-mountjail.conf"))
}

fn served(sandbox: &Sandbox, name: &str) -> PathBuf {
    let source = sandbox.file("host/file", "of the host\n");
    let source = source.display();
    let text = format!(
        "scope: services\nservices: [{OWN}]\nmounts: [{{ source: {source}, target: /file }}]\n"
    );
    sandbox.site(name, &text)
}

fn wrapped() {
    let sandbox =
        sandbox("ExecStart=/bin/old\nExecStart=\nExecStart=-@/bin/sh fpm -c 'a b' \\\n  $X");
    served(&sandbox, "s");
    sandbox.file(
        format!("units/{OWN}.d/override.conf"),
        "[Service]\nUser=root\n",
    );
    units(&sandbox, &["--all", "--check"])
        .exits(3)
        .prints("zz-mountjail.conf is missing");
    let ran = units(&sandbox, &["--all", "--install"]).exits(0);
    ran.says("s: mounted in the mount namespaces of jail-fpm.service");
    let text = fs::read_to_string(wrapper(&sandbox)).unwrap();
    let program = env!("CARGO_BIN_EXE_mountjail");
    let options = format!(
        "--config-dir={} --state-dir={}",
        sandbox.config().display(),
        sandbox.state().display()
    );
    let line = format!(
        "[Service]\nExecStart=\nExecStart=-{program} {options} run --unit {OWN} --argv0 -- \
         /bin/sh fpm -c 'a b' \\\n$X\n"
    );
    assert!(text.ends_with(&line), "{text}");
    assert!(
        !sandbox
            .path(format!("units/{OWN}.d/50-mountjail.conf"))
            .exists()
    );
    units(&sandbox, &["--all", "--check"])
        .exits(0)
        .prints("in sync");
    units(&sandbox, &["s", "--check"]).exits(0);

    // As after an upgrade of the package.
    unit(&sandbox, "ExecStart=/bin/new --more");
    let ran = units(&sandbox, &["--all", "--check"])
        .exits(3)
        .prints("zz-mountjail.conf differs");
    ran.prints("-- /bin/new --more");
    units(&sandbox, &["--all", "--install"]).exits(0);
    units(&sandbox, &["--all", "--check"]).exits(0);

    let text = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    sandbox.manifest("s", text.replace("scope: services", "scope: host"));
    units(&sandbox, &["s", "--check"])
        .exits(3)
        .prints("no site needs it any more");
    units(&sandbox, &["s", "--install"]).exits(0);
    assert!(!wrapper(&sandbox).exists());
    sandbox.manifest("s", &text);
    units(&sandbox, &["--all", "--install"]).exits(0);
    units(&sandbox, &["s", "--uninstall"]).exits(0);
    assert!(!wrapper(&sandbox).exists());
}

fn forbidden() {
    let sandbox = sandbox("ExecStart=/bin/true\nRestrictNamespaces=yes\nUser=www-data");
    served(&sandbox, "s");
    for action in ["--install", "--check"] {
        units(&sandbox, &["--all", action])
            .exits(1)
            .says("s: jail-fpm.service cannot mount it: RestrictNamespaces=yes")
            .says("`RestrictNamespaces=mnt`")
            .says("User=www-data: only root can mount");
        assert!(!wrapper(&sandbox).exists());
    }
    let more = "[Service]\nRestrictNamespaces=mnt\nUser=\n";
    sandbox.file(format!("units/{OWN}.d/override.conf"), more);
    units(&sandbox, &["--all", "--install"]).exits(0);
    assert!(wrapper(&sandbox).exists());
}

fn not_wrapped() {
    let sandbox = sandbox("ExecStart=|/bin/true");
    served(&sandbox, "s");
    units(&sandbox, &["--all", "--install"])
        .exits(1)
        .says("the prefix `|`");
    unit(&sandbox, "ExecStop=/bin/true");
    units(&sandbox, &["--all", "--install"])
        .exits(1)
        .says("it has no ExecStart=");
    unit(&sandbox, "ExecStart=/bin/true");
    let late = format!("units/{OWN}.d/zzz.conf");
    let late = sandbox.file(late, "[Service]\nExecStart=\nExecStart=/bin/false\n");
    units(&sandbox, &["--all", "--install"])
        .exits(1)
        .says("zzz.conf: systemd reads it after");
    fs::remove_file(late).unwrap();
    fs::remove_file(sandbox.path(format!("units/{OWN}"))).unwrap();
    units(&sandbox, &["--all", "--install"])
        .exits(1)
        .says("this host has no unit jail-fpm.service");
    assert!(!wrapper(&sandbox).exists());
}

fn both_scopes() {
    let sandbox = sandbox("ExecStart=/bin/true");
    served(&sandbox, "s");
    sandbox.site("h", &format!("devices: [zero]\nservices: [{OWN}]\n"));
    units(&sandbox, &["--all", "--install"]).exits(0);
    let order = sandbox.path(format!("units/{OWN}.d/50-mountjail.conf"));
    assert!(
        fs::read_to_string(order)
            .unwrap()
            .contains("After=mountjail.service")
    );
    assert!(wrapper(&sandbox).exists());
    units(&sandbox, &["--all", "--check"]).exits(0);
    units(&sandbox, &["--all", "--uninstall"]).exits(0);
    assert!(!wrapper(&sandbox).parent().unwrap().exists());
}

/// A service that `run` started for the unit, and what a reader in its namespace sees.
struct Service {
    running: Running,
    answers: std::io::BufReader<std::process::ChildStdout>,
}

impl Service {
    /// Its shell reads lines, and does what they say.
    fn start(sandbox: &Sandbox) -> Self {
        Self::of_unit(sandbox, OWN)
    }

    fn of_unit(sandbox: &Sandbox, unit: &str) -> Self {
        let mut command = sandbox.command();
        command.args(["run", "--quiet", "--unit", unit, "--", "sh"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(&mut command);
        let answers = std::io::BufReader::new(running.0.stdout.take().unwrap());
        let mut service = Self { running, answers };
        assert_eq!(service.ask("echo ready"), "ready\n");
        service
    }

    fn ask(&mut self, line: &str) -> String {
        use std::io::{BufRead, Write};
        let stdin = self.running.0.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer
    }

    fn file(&mut self, root: &Path) -> String {
        self.ask(&format!(
            "cat {}/file 2>/dev/null || echo none",
            root.display()
        ))
    }

    /// Ends it, and waits until it has.
    fn stop(self) {
        drop(self.running);
    }
}

/// The mount table of the service's namespace is full.
fn full() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let when_full = |arguments: &[&str]| {
        let mut command = sandbox.command_with_fault("move_mount:error=ENOSPC", &[]);
        Ran::of(command.args(arguments)).says("`sysctl fs.mount-max")
    };
    let strict = when_full(&["run", "--strict", "s", "--", "echo", "started"]).exits(1);
    assert!(!strict.stdout.contains("started"), "{strict}");
    when_full(&["run", "s", "--", "echo", "started"])
        .exits(0)
        .says("warning: echo is started without the sites that are not up")
        .prints("started");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is left");

    let mut service = Service::start(&sandbox);
    replace(&sandbox, "newer\n");
    let up = when_full(&["up", "s"]).exits(1);
    up.says(&format!("error: s: in {OWN}: cannot swap "));
    assert_eq!(service.file(&root), "of the host\n", "as it was");
    sandbox.ok(&["up", "s"]).says("1 swapped");
    assert_eq!(service.file(&root), "newer\n");
    sandbox.ok(&["down", "s"]);
    when_full(&["up", "s"]).exits(1);
    assert_eq!(service.file(&root), "none\n");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is left");
    sandbox.ok(&["up", "s"]).says("1 attached");
    assert_eq!(service.file(&root), "newer\n");
}

fn reached() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let other = served(&sandbox, "other");
    sandbox
        .ok(&["up", "s"])
        .says("s: comes up with jail-fpm.service, which does not run");
    sandbox
        .ok(&["status", "s"])
        .prints("s: down, comes up with jail-fpm.service");
    let (mut one, mut two) = (Service::start(&sandbox), Service::start(&sandbox));
    assert_eq!(one.file(&root), "of the host\n");
    let status = sandbox.ok(&["status", "s"]);
    let line = format!("s: up, 1 of 1 mounts ok in {}, for {OWN}", root.display());
    assert_eq!(status.stdout.matches(&line).count(), 2, "{status}");

    // Another file takes the place of the source.
    sandbox.file("host/new", "newer\n");
    fs::rename(sandbox.path("host/new"), sandbox.path("host/file")).unwrap();
    sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("stale")
        .prints("drifted");
    sandbox
        .ok(&["up", "--all"])
        .says("1 swapped, in jail-fpm.service");
    assert_eq!(
        (one.file(&root), two.file(&other)),
        ("newer\n".into(), "newer\n".into())
    );
    sandbox
        .ok(&["up", "s"])
        .says("nothing to do, in jail-fpm.service");
    let json = sandbox.ok(&["up", "s", "--json"]).json();
    let site = &json["sites"][0];
    assert_eq!(site["scope"], "services");
    assert_eq!(
        (site["up"].as_bool(), site["places"][1]["mounts"].as_u64()),
        (Some(true), Some(1))
    );
    let json = sandbox.ok(&["status", "s", "--json"]).json();
    let site = &json["sites"][0];
    assert_eq!(
        (&site["state"], &site["places"][0]["unit"]),
        (&"up".into(), &OWN.into())
    );
    assert!(mounts_below(&sandbox.path("srv")).is_empty());

    sandbox
        .ok(&["down", "s"])
        .says("s: down, 2 mounts detached");
    assert_eq!(
        (one.file(&root), two.file(&root)),
        ("none\n".into(), "none\n".into())
    );
    assert!(!root.join("file").exists(), "the placeholder is gone");
    sandbox
        .ok(&["up", "s"])
        .says("1 attached, in jail-fpm.service");
    assert_eq!(two.file(&root), "newer\n");
    one.stop();
    two.stop();
    sandbox.ok(&["down", "--all"]);
    assert!(!root.join("file").exists() && !other.join("file").exists());
    let left = fs::read_dir(sandbox.state().join("run/namespaces")).unwrap();
    assert_eq!(left.count(), 0, "remains of namespaces are swept");
}

fn templates() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let manifest = |names: &[&str]| {
        let mount = |name: &&str| {
            let source = sandbox.file(format!("host/{name}"), format!("{name}\n"));
            format!("{{ source: {}, target: /data/{name} }}", source.display())
        };
        let mounts: Vec<_> = names.iter().map(mount).collect();
        let mounts = mounts.join(", ");
        format!("scope: services\nservices: [{OWN}]\nmounts: [{mounts}]\n")
    };
    let [root, other] = ["s", "other"].map(|name| sandbox.site(name, &manifest(&["a", "b"])));
    let shown = |service: &mut Service, root: &Path, name: &str| {
        service.ask(&format!(
            "cat {}/data/{name} 2>/dev/null || echo none",
            root.display()
        ))
    };
    let lines = |service: &mut Service, path: &Path| {
        let path = path.display();
        let found = service.ask(&format!("grep -c ' {path}' /proc/self/mountinfo || true"));
        found.trim().parse::<usize>().unwrap()
    };

    let (mut one, mut two) = (Service::start(&sandbox), Service::start(&sandbox));
    let has_templates = mountjail::sys::probe::statmount();
    if has_templates {
        assert_eq!(lines(&mut one, &root.join("data ")), 1, "a graft");
        assert!(lines(&mut one, &sandbox.state()) > 0);
    }
    assert!(mounts_below(&sandbox.path("srv")).is_empty());
    assert!(mounts_below(&sandbox.state()).is_empty());

    // Another file takes the place of a source: it is swapped once per namespace.
    sandbox.file("host/new", "newer\n");
    fs::rename(sandbox.path("host/new"), sandbox.path("host/a")).unwrap();
    let ran = sandbox.ok(&["up", "--all"]);
    if has_templates {
        assert_eq!(ran.stderr.matches("1 swapped").count(), 2, "{ran}");
    }
    for root in [&root, &other] {
        for service in [&mut one, &mut two] {
            assert_eq!(shown(service, root, "a"), "newer\n");
        }
    }
    sandbox.ok(&["status"]);

    // A site that wants more gets it, and the other does not.
    sandbox.file("host/a", "newer\n");
    let text = format!("root: {}\n{}", root.display(), manifest(&["a", "b", "c"]));
    sandbox.manifest("s", text);
    sandbox.ok(&["up", "--all"]);
    assert_eq!(shown(&mut two, &root, "c"), "c\n");
    assert_eq!(shown(&mut two, &other, "c"), "none\n");

    // A service that is killed leaves the other one's mounts alone.
    one.stop();
    sandbox.ok(&["up", "--all"]);
    assert_eq!(shown(&mut two, &root, "c"), "c\n");
    sandbox.ok(&["down", "s"]);
    assert_eq!(shown(&mut two, &root, "b"), "none\n");
    assert_eq!(shown(&mut two, &other, "b"), "b\n");
    sandbox.ok(&["down", "--all"]);
    assert_eq!(lines(&mut two, &sandbox.state()), 0, "no template is left");
    assert!(!root.join("data").exists() && !other.join("data").exists());
    two.stop();
}

fn in_use() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let (mut one, mut two) = (Service::start(&sandbox), Service::start(&sandbox));
    let open = format!("exec 7<{}/file && echo open", root.display());
    for _ in 0..2 {
        assert_eq!(two.ask(&open), "open\n");
        for command in ["down", "remove"] {
            let ran = sandbox.run(&[command, "s"]).exits(1);
            ran.says("s: in use: /file; nothing was unmounted")
                .says(&two.running.pid().to_string());
            let files = (one.file(&root), two.file(&root));
            assert_eq!(files, ("of the host\n".into(), "of the host\n".into()));
            sandbox.ok(&["status", "s"]);
        }
        // Whichever of the two is asked first.
        assert_eq!(two.ask("exec 7<&- && echo closed"), "closed\n");
        std::mem::swap(&mut one, &mut two);
    }
    assert_eq!(two.ask(&open), "open\n");
    assert!(sandbox.path("config/sites/s.yaml").exists());
    sandbox
        .ok(&["down", "--lazy", "s"])
        .says("s: down, 2 mounts detached");
    assert_eq!(one.file(&root), "none\n");
    assert_eq!(two.ask("cat <&7"), "of the host\n");
}

fn placeholders() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let mut service = Service::start(&sandbox);
    let text = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    let (start, _) = text.split_once("mounts:").unwrap();
    // The host's own table has nothing of the site: nothing there tells that it is in use.
    sandbox.manifest("s", start.replace("scope: services", "scope: host"));
    sandbox.ok(&["up", "s", "--scope", "host"]);
    assert!(root.join("file").exists());
    assert_eq!(service.file(&root), "of the host\n");
    sandbox.manifest("s", start);
    sandbox
        .ok(&["up", "s"])
        .says("1 detached, in jail-fpm.service");
    let line = format!("cat {}/file; echo nothing", root.display());
    assert_eq!(service.ask(&line), "nothing\n");
    service.stop();
    sandbox.ok(&["down", "s"]);
    assert!(!root.join("file").exists());
}

fn to_services() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let text = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    sandbox.manifest("s", text.replace("scope: services", "scope: host"));
    sandbox.ok(&["up", "s"]);
    assert_eq!(mounts_below(&root).len(), 1);
    sandbox.manifest("s", &text);
    sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("it is still mounted on the host");
    let reader = Command::new("sh")
        .args(["-c", "exec sleep 1000"])
        .stdin(fs::File::open(root.join("file")).unwrap())
        .spawn()
        .unwrap();
    let reader = Running(reader);
    sandbox
        .ok(&["up", "s"])
        .says("its mounts on the host stay as long as they are in use");
    assert_eq!(mounts_below(&root).len(), 1);
    sandbox
        .ok(&["plan", "s"])
        .says("its mounts on the host stay as long as they are in use");
    drop(reader);
    for command in ["plan", "up --dry-run"] {
        let words: Vec<_> = command.split(' ').collect();
        let ran = sandbox
            .run(&[&words[..], &["s", "--json"]].concat())
            .exits(3);
        let json = ran.json();
        let steps = json["sites"].as_array().unwrap().iter();
        let steps: Vec<_> = steps.filter_map(|site| site["steps"].as_array()).collect();
        assert_eq!(json["sites"][1]["changed"], true, "{json}");
        assert_eq!(
            steps.iter().map(|steps| steps.len()).sum::<usize>(),
            2,
            "{json}"
        );
    }
    let manifest = sandbox.path("config/sites/s.yaml");
    sandbox
        .run(&["apply", "--dry-run", manifest.to_str().unwrap()])
        .exits(3)
        .prints(", on the host");
    assert_eq!(mounts_below(&root).len(), 1, "nothing was done");
    let ran = sandbox.ok(&["up", "s", "--json"]);
    assert_eq!(ran.json()["sites"][0]["changed"], true, "{ran}");
    ran.says("1 mount detached on the host");
    assert!(mounts_below(&root).is_empty());
    sandbox.ok(&["status", "s"]);
    let mut service = Service::start(&sandbox);
    assert_eq!(service.file(&root), "of the host\n");
}

/// Gives the site `s` the scope `host`.
fn on_host(sandbox: &Sandbox) {
    let text = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    sandbox.manifest("s", text.replace("scope: services", "scope: host"));
}

/// Mounts of the host do not appear in the namespace of the service: it keeps its own.
fn to_host() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let mut service = Service::start(&sandbox);
    on_host(&sandbox);
    sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("it is still mounted in jail-fpm.service");
    sandbox
        .ok(&["up", "s"])
        .says("s: up, 1 mount: 1 attached")
        .says("its mounts in jail-fpm.service stay until that is restarted");
    assert_eq!(mounts_below(&root).len(), 1);
    assert_eq!(service.file(&root), "of the host\n");
    sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("it is still mounted in jail-fpm.service");
    replace(&sandbox, "newer\n");
    sandbox.ok(&["up", "s"]);
    assert_eq!(service.file(&root), "newer\n");
    service.stop();
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty() && !root.join("file").exists());
}

/// Mounts of the host appear in the service's namespace, as with systemd.
fn to_host_shared() {
    if !mountjail::sys::probe::statmount() {
        return to_host(); // they cannot be told from the namespace's own
    }
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let mut service = Service::start(&sandbox);
    on_host(&sandbox);
    assert_eq!(
        service.ask(&format!("exec 7<{}/file && echo open", root.display())),
        "open\n"
    );
    sandbox
        .ok(&["up", "s"])
        .says("its mounts in jail-fpm.service stay as long as they are in use")
        .says(&service.running.pid().to_string());
    assert_eq!(service.ask("exec 7<&- && echo closed"), "closed\n");

    let apply = ["apply", "--json", "--dry-run"];
    let manifest = sandbox.path("config/sites/s.yaml");
    let manifest = manifest.to_str().unwrap();
    let json = sandbox
        .run(&[&apply[..], &[manifest]].concat())
        .exits(3)
        .json();
    let site = &json["sites"][0];
    assert_eq!(site["changed"], true, "{json}");
    assert_eq!(site["places"][0]["unit"], OWN, "{json}");
    sandbox
        .run(&["plan", "s"])
        .exits(3)
        .prints("for jail-fpm.service")
        .prints("detach");
    let ran = sandbox.ok(&["up", "s", "--json"]);
    assert_eq!(ran.json()["sites"][0]["changed"], true, "{ran}");
    ran.says("1 mount detached in jail-fpm.service");
    assert_eq!(service.file(&root), "of the host\n");
    sandbox.ok(&["plan", "s"]);
    sandbox.ok(&["status", "s"]);
    replace(&sandbox, "newer\n");
    sandbox.ok(&["up", "s"]);
    assert_eq!(service.file(&root), "newer\n");
    service.stop();
    sandbox.ok(&["down", "s"]);
}

/// The kernel takes the mount of the namespace away with that of the host beneath it, when this is
/// replaced: what is there then is the host's.
fn beneath() {
    if !mountjail::sys::probe::statmount() {
        return to_host();
    }
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let mut service = Service::start(&sandbox);
    on_host(&sandbox);
    let open = format!("exec 7<{}/file && echo open", root.display());
    assert_eq!(service.ask(&open), "open\n");
    sandbox.ok(&["up", "s"]).says("as long as they are in use");
    replace(&sandbox, "newer\n");
    let read = format!(
        "cat {0}/file || echo none; test -s {0}/file || echo",
        root.display()
    );
    for _ in 0..2 {
        sandbox.ok(&["up", "s"]);
        assert_eq!(service.ask(&read), "newer\n");
    }
    sandbox.ok(&["status", "s"]);
    service.stop();
    sandbox.ok(&["down", "s"]);
}

fn watched_to_host() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let mut service = Service::start(&sandbox);
    let watcher = Watcher::start(&sandbox);
    on_host(&sandbox);
    watcher.settles();
    replace(&sandbox, "two\n");
    soon_reads(&mut service, &root, "two\n");
    sandbox.ok(&["up", "s"]);
    replace(&sandbox, "three\n");
    soon_reads(&mut service, &root, "three\n");
    watcher.end();
}

/// What stands in the way in the namespace of a service.
fn conflict() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let mut service = Service::start(&sandbox);
    let point = root.join("file").display().to_string();
    let cover = format!("mount --bind /etc/hostname {point} && echo covered");
    assert_eq!(service.ask(&cover), "covered\n");
    let pid = service.running.pid();
    let enter = format!("nsenter --target {pid} --mount -- umount {point}");
    sandbox
        .run(&["plan", "s"])
        .exits(1)
        .says("s: in jail-fpm.service: ")
        .says(&enter);
    let ran = sandbox.run(&["up", "s"]).exits(1);
    ran.says("s: in jail-fpm.service: ").says(&enter);
    Ran::of(Command::new("sh").args(["-c", &enter])).exits(0);
    sandbox.ok(&["up", "s"]);
    assert_eq!(service.file(&root), "of the host\n");
}

fn host_only() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let host = sandbox.site("h", "devices: [zero]\n");
    let mut service = Service::start(&sandbox);
    sandbox
        .ok(&["up", "--all", "--scope", "host"])
        .says("h: up");
    assert_eq!(mounts_below(&host).len(), 1);
    sandbox.ok(&["down", "--all", "--lazy", "--scope", "host"]);
    assert!(mounts_below(&host).is_empty());
    assert_eq!(service.file(&root), "of the host\n");
}

fn no_lines() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    sandbox.site("h", "devices: [zero]\n");
    let fstab = sandbox.file("fstab", "# mine\n");
    let at = ["--file", fstab.to_str().unwrap()];
    for action in ["--install", "--check"] {
        sandbox
            .run(&[&["fstab", action, "s"], &at[..]].concat())
            .exits(2)
            .says("s: its mounts belong to its services (`scope: services`)")
            .says("try: write `scope: host` in the manifest");
    }
    sandbox.run(&["fstab", "s"]).exits(2);
    assert_eq!(fs::read_to_string(&fstab).unwrap(), "# mine\n");
    assert!(!root.join("file").exists(), "nothing was made for lines");

    let all = |action: &'static str| [&["fstab", action, "--all"], &at[..]].concat();
    sandbox
        .ok(&all("--install"))
        .says("h: 1 line in")
        .says("s: left out: its mounts belong to its services");
    assert!(!fs::read_to_string(&fstab).unwrap().contains("/file"));
    sandbox.ok(&all("--check"));

    // The lines of a site go that has become one of services.
    let text = format!("root: {}\ndevices: [\"null\"]\n", root.display());
    sandbox.manifest("s", &text);
    sandbox.ok(&all("--install")).says("s: 1 line in");
    sandbox.manifest("s", format!("{text}scope: services\nservices: [{OWN}]\n"));
    sandbox
        .run(&all("--check"))
        .exits(3)
        .prints("s has lines, but its mounts belong to its services");
    sandbox.ok(&all("--install")).says("s: taken out of");
    sandbox.ok(&all("--check"));
    sandbox.ok(&all("--uninstall"));
}

fn two_services() {
    const OTHER: &str = "jail-cron.service";
    let sandbox = sandbox("ExecStart=/bin/true");
    let source = sandbox.file("host/file", "of the host\n");
    let text = format!(
        "scope: services\nservices: [{OWN}, {OTHER}]\n\
         mounts: [{{ source: {}, target: /file }}]\n",
        source.display()
    );
    let root = sandbox.site("s", &text);
    let mut one = Service::start(&sandbox);
    // The other one does not run yet.
    let status = sandbox.ok(&["status", "s"]);
    assert!(status.stdout.contains(OWN) && !status.stdout.contains(&format!("for {OTHER}")));
    let mut two = Service::of_unit(&sandbox, OTHER);
    for unit in [OWN, OTHER] {
        let line = format!("s: up, 1 of 1 mounts ok in {}, for {unit}", root.display());
        sandbox.ok(&["status", "s"]).prints(&line);
    }

    // Each has its own: what one loses, the other keeps.
    let lose = format!("umount {}/file; echo gone", root.display());
    assert_eq!(one.ask(&lose), "gone\n");
    let size = format!("stat -c %s {}/file", root.display());
    assert_eq!(
        (one.ask(&size), two.ask(&size)),
        ("0\n".into(), "12\n".into())
    );
    sandbox.run(&["status", "s"]).exits(3).prints("missing");
    sandbox
        .ok(&["up", "s"])
        .says(&format!("1 attached, in {OWN}"))
        .says(&format!("nothing to do, in {OTHER}"));

    one.stop();
    assert_eq!(two.file(&root), "of the host\n");
    let line = format!("s: up, 1 of 1 mounts ok in {}, for {OTHER}", root.display());
    sandbox.ok(&["status", "s"]).prints(&line);
    sandbox.ok(&["down", "s"]).says("s: down, 1 mount detached");
    assert_eq!(two.file(&root), "none\n");
    two.stop();
    sandbox.ok(&["down", "--all"]);
    assert!(!root.join("file").exists());
}

/// As a script of another init system does: by start-stop-daemon(8), which keeps the pid.
fn by_hand() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let (pidfile, shown) = (sandbox.path("pid"), sandbox.path("shown"));
    let line = format!(
        "cat {}/file >{}; exec sleep 1000",
        root.display(),
        shown.display()
    );
    let at = pidfile.to_str().unwrap();
    let start = [
        "start-stop-daemon",
        "--start",
        "--background",
        "--make-pidfile",
    ];
    let start = [&start[..], &["--pidfile", at, "--startas"]].concat();
    let run = ["--", "run", "--unit", "jail-fpm", "--", "sh", "-c", &line];
    Ran::of(sandbox.command_under(&start).args(run)).exits(0);
    soon("the service runs, with its file", || {
        let shown = fs::read(&shown).map_err(|error| error.to_string())?;
        (shown == b"of the host\n")
            .then_some(())
            .ok_or_else(|| format!("{shown:?}"))
    });
    let pid: u32 = fs::read_to_string(&pidfile)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let line = format!("s: up, 1 of 1 mounts ok in {}, for {OWN}", root.display());
    sandbox.ok(&["status", "s"]).prints(&line);
    let json = sandbox.ok(&["status", "s", "--json"]).json();
    assert_eq!(json["sites"][0]["places"][0]["pid"], pid);
    sandbox
        .ok(&["up", "s"])
        .says("nothing to do, in jail-fpm.service");
    assert!(mounts_below(&root).is_empty());

    let stop = ["--stop", "--pidfile", at, "--retry", "TERM/60/KILL/5"];
    Ran::of(Command::new("start-stop-daemon").args(stop)).exits(0);
    sandbox
        .ok(&["status", "s"])
        .prints("s: down, comes up with jail-fpm.service");
    sandbox.ok(&["down", "--all"]);
    assert!(!root.join("file").exists());
}

/// Its first process ends, as that of a daemon that puts itself into the background.
fn forked() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let mut command = sandbox.command();
    command.args(["run", "--quiet", "--unit", OWN, "--", "sh", "-c"]);
    command.arg("exec 3<&0; cat <&3 >/dev/null 2>&1 & echo $!");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut first = command.spawn().unwrap();
    let until_closed = first.stdin.take();
    let first = first.wait_with_output().unwrap();
    let pid = String::from_utf8(first.stdout).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    let line = format!("s: up, 1 of 1 mounts ok in {}, for {OWN}", root.display());
    sandbox.ok(&["status", "s"]).prints(&line);
    replace(&sandbox, "newer\n");
    sandbox
        .ok(&["up", "s"])
        .says("1 swapped, in jail-fpm.service");
    let seen = fs::read_to_string(format!("/proc/{pid}/root{}/file", root.display()));
    assert_eq!(seen.unwrap(), "newer\n");
    drop(until_closed);
    sandbox.ok(&["down", "--all"]);
    assert!(!root.join("file").exists());
}

/// Before Linux 6.8, the kernel gives the inode number of a namespace that is gone, and the id of
/// its root mount, to the next one.
fn numbers_reused() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let service = Service::start(&sandbox);
    let line = format!("s: up, 1 of 1 mounts ok in {}, for {OWN}", root.display());
    sandbox.ok(&["status", "s"]).prints(&line);
    service.stop();

    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    let elsewhere = |pid| {
        let own = fs::read_link(format!("/proc/{pid}/ns/mnt"));
        own.is_ok_and(|own| own != host)
    };
    let others: Vec<_> = std::iter::repeat_with(|| {
        let mut command = Command::new("unshare");
        Running::start_until(command.args(["--mount", "sleep", "1000"]), elsewhere)
    })
    .take(20)
    .collect();
    sandbox
        .ok(&["status", "s"])
        .prints("s: down, comes up with jail-fpm.service");
    sandbox.ok(&["up", "s"]).says("does not run");
    for other in &others {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", other.pid())).unwrap();
        assert!(!table.contains(root.to_str().unwrap()), "{table}");
    }

    // The next service may get the numbers too.
    drop(others);
    let mut service = Service::start(&sandbox);
    assert_eq!(service.file(&root), "of the host\n");
    sandbox.ok(&["status", "s"]).prints(&line);
    service.stop();
    sandbox.ok(&["down", "--all"]);
    assert!(!root.join("file").exists());
}

fn planned() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    sandbox
        .ok(&["plan", "s"])
        .says("s: comes up with jail-fpm.service");
    let mut service = Service::start(&sandbox);
    sandbox
        .ok(&["plan", "s"])
        .prints("s: in sync, nothing to do, for jail-fpm.service");
    assert_eq!(
        service.ask(&format!("umount {}/file; echo gone", root.display())),
        "gone\n"
    );
    sandbox
        .run(&["plan", "s"])
        .exits(3)
        .prints("attach")
        .prints("for jail-fpm.service");
    sandbox.ok(&["check", "s"]);
    sandbox.ok(&["why", "s", "/file"]).prints("host/file");
}

/// A site with a shell in it.
fn with_shell(sandbox: &Sandbox) -> PathBuf {
    let text = format!("scope: services\nservices: [{OWN}]\nprograms: [/bin/sh, /bin/cat]\n");
    let root = sandbox.site("s", &text);
    std::os::unix::fs::symlink("/etc/none", root.join("there")).unwrap();
    root
}

fn enters(sandbox: &Sandbox) {
    let ran = sandbox.ok(&[
        "exec",
        "s",
        "--",
        "sh",
        "-c",
        "pwd; cat /bin/sh | wc -c; exit 0",
    ]);
    assert!(ran.stdout.starts_with("/\n"), "{ran}");
    sandbox.run(&["exec", "s", "--", "/bin/none"]).exits(127);
    let doctor = sandbox.run(&["doctor", "s"]);
    assert!(doctor.stdout.contains("s: checks in") || doctor.code == 3 || doctor.code == 0);
    assert!(!doctor.stderr.contains("is not up"), "{doctor}");
    let traced = sandbox.ok(&["trace", "s", "--", "sh", "-c", "cat /etc/hosts; exit 0"]);
    assert!(traced.stdout.contains("/etc/hosts"), "{traced}");
}

fn entered() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = with_shell(&sandbox);
    let service = Service::start(&sandbox);
    let before = mounts_below(&sandbox.path("srv")).len();
    enters(&sandbox);
    let ran = sandbox.ok(&["exec", "s", "--", "sh", "-c", "echo hi"]);
    assert!(ran.stderr.is_empty() && ran.stdout == "hi\n", "{ran}");
    assert_eq!((before, mounts_below(&root).len()), (0, 0));
    service.stop();
}

fn occasion() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = with_shell(&sandbox);
    enters(&sandbox);
    let ran = sandbox.ok(&["exec", "s", "--", "sh", "-c", "echo hi"]);
    ran.says("jail-fpm.service, which does not run; it is mounted for this command alone");
    assert!(mounts_below(&root).is_empty());
    sandbox.ok(&["down", "s"]);
    assert!(!root.join("bin").exists(), "nothing is left");
}

/// A directory of systemd's is there, as on a host that systemd has booted.
fn unlisted() {
    empty_run();
    fs::create_dir_all("/run/systemd/system").unwrap();
    let sandbox = sandbox("ExecStart=/bin/true");
    with_shell(&sandbox);
    let sites = sandbox.config().join("sites");
    let elsewhere = sandbox.path("config/elsewhere");
    fs::rename(&sites, &elsewhere).unwrap();
    fs::write(&sites, "").unwrap();
    let site = elsewhere.join("s.yaml");
    for command in ["status", "doctor"] {
        let ran = sandbox.run(&[command, site.to_str().unwrap(), "--json"]);
        let ran = ran.exits(1).says(&format!(
            "error: s: cannot tell how its services are started: cannot list the sites in {}: \
             Not a directory",
            sites.display()
        ));
        let json = ran.json();
        assert_eq!(json["sites"][0]["site"], "s", "{json}");
        let reason = json["sites"][0]["errors"][0]["reason"].as_str().unwrap();
        assert!(ran.stderr.contains(reason), "{json}");
    }
}

/// As [`unlisted`], where one service is not on the host, and another one is not started by `run`.
fn not_started() {
    empty_run();
    fs::create_dir_all("/run/systemd/system").unwrap();
    let sandbox = Sandbox::new();
    let root = served(&sandbox, "s");
    let own = Path::new("/run/systemd/system").join(OWN);
    let reasons = [
        format!("{OWN} is not started by `mountjail run`: `mountjail units --all --install`"),
        format!("this host has no unit {OWN}: correct `services` in "),
    ];
    fs::write(&own, "[Service]\nExecStart=/bin/true\n").unwrap();
    for reason in reasons {
        for arguments in [&["up", "s"][..], &["up", "--all"]] {
            sandbox
                .ok(arguments)
                .says(&format!("s: comes up with {OWN}, which does not run"))
                .says(&format!("warning: s: {reason}"));
        }
        let ran = sandbox.run(&["status", "s", "--json"]).exits(3);
        let json = ran.json();
        let shown = json["sites"][0]["reasons"][0].as_str().unwrap();
        assert!(shown.starts_with(&reason), "{json}");
        let _ = fs::remove_file(&own);
    }
    let text = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    let next = sandbox.file("s.yaml", format!("{text}etc: [hosts]\n"));
    sandbox
        .ok(&["apply", next.to_str().unwrap()])
        .says("warning: s: this host has no unit");
    assert!(mounts_below(&root).is_empty());
}

/// Puts another file in the place of the source of [`served`] sites.
fn replace(sandbox: &Sandbox, text: &str) {
    sandbox.file("host/new", text);
    fs::rename(sandbox.path("host/new"), sandbox.path("host/file")).unwrap();
}

/// Waits until the service reads `text` in the site at `root`.
fn soon_reads(service: &mut Service, root: &Path, text: &str) {
    let service = std::cell::RefCell::new(service);
    soon("the service reads the new file", || {
        let found = service.borrow_mut().file(root);
        (found == text).then_some(()).ok_or(found)
    });
}

fn corrected() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let manifest = sandbox.path("config/sites/s.yaml");
    let right = fs::read_to_string(&manifest).unwrap();
    let wrong = format!("{right}rot: 1\n");
    let mut service = Service::start(&sandbox);
    let watcher = Watcher::start(&sandbox);

    fs::write(&manifest, &wrong).unwrap();
    watcher.says("unknown key `rot`");
    assert_eq!(service.file(&root), "of the host\n");
    fs::write(&manifest, &right).unwrap();
    watcher.says("s: in sync again");
    replace(&sandbox, "two\n");
    soon_reads(&mut service, &root, "two\n");

    // While no service runs, nothing is up that a mistake could concern.
    service.stop();
    fs::write(&manifest, &wrong).unwrap();
    watcher.settles();
    fs::write(&manifest, &right).unwrap();
    watcher.settles();
    let mut service = Service::start(&sandbox);
    replace(&sandbox, "three\n");
    soon_reads(&mut service, &root, "three\n");
    sandbox.ok(&["status", "s"]);
    service.stop();
    watcher.end();
}

fn watched() {
    let sandbox = sandbox("ExecStart=/bin/true");
    let root = served(&sandbox, "s");
    let mut early = Service::start(&sandbox);
    let _watcher = Watcher::start(&sandbox);
    replace(&sandbox, "two\n");
    soon_reads(&mut early, &root, "two\n");
    // A service that starts while the watcher runs is watched, too.
    early.stop();
    let mut late = Service::start(&sandbox);
    replace(&sandbox, "three\n");
    soon_reads(&mut late, &root, "three\n");
    sandbox.ok(&["status", "s"]);
}
