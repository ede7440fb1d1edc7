//! Promise: `doctor` tells how the units of a site's services are, and no remedy opens what the
//! host or other users keep for themselves.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::{Ran, Sandbox, alone, empty_run};

pub fn all() -> Vec<Trial> {
    let trials: [(&str, fn()); 5] = [
        ("the state of a unit is reported", states),
        ("a unit is compared with its RootDirectory=", root_directory),
        (
            "directories that a unit makes at its start are named",
            made_at_start,
        ),
        ("a root that sshd refuses is reported", sshd),
        ("private files are never opened", private),
    ];
    let apart = |(name, body): (&str, fn())| {
        alone(name, move || {
            empty_run();
            fs::create_dir_all(UNITS).unwrap();
            body();
        })
    };
    trials.into_iter().map(apart).collect()
}

/// A directory of units of a host where systemd runs: `sd_booted(3)`.
const UNITS: &str = "/run/systemd/system";

/// A site with one service, on a host whose systemctl(1) answers what a trial says.
struct Host {
    sandbox: Sandbox,
    root: PathBuf,
}

/// Has systemctl(1) answer `state` about the unit.
fn set_state(unit: &str, state: &str) {
    let state = state.replace(' ', "\n");
    fs::write(format!("/run/state-{unit}"), state).unwrap();
}

/// Writes the service `unit` with these lines, and what systemctl(1) says about it.
fn write_unit(unit: &str, lines: &str, state: &str) {
    let text = format!("[Service]\n{lines}");
    fs::write(format!("{UNITS}/{unit}"), text).unwrap();
    set_state(unit, state);
}

impl Host {
    fn new(manifest: &str) -> Self {
        let sandbox = Sandbox::new();
        let tools = sandbox.directory("tools");
        let answer = "#!/bin/sh\nfor unit; do :; done\ncat \"/run/state-$unit\"\n";
        sandbox.program(tools.join("systemctl"), answer);
        let root = sandbox.site("s", manifest);
        sandbox.ok(&["up", "s"]);
        Self { sandbox, root }
    }

    fn doctor(&self) -> Value {
        let path = std::env::var("PATH").unwrap();
        let tools = self.sandbox.path("tools");
        let mut command = self.sandbox.command();
        command.env("PATH", format!("{}:{path}", tools.display()));
        let ran = Ran::of(command.args(["doctor", "--json", "--timeout", "60", "s"]));
        ran.json()["sites"][0].clone()
    }

    /// The verdict, the detail and the remedies of the check of the units.
    fn services(&self) -> (String, String, Vec<String>) {
        let report = self.doctor();
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == "services");
        let check = check.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let remedies = check["remedy"].as_array().unwrap().iter().map(text);
        let verdict = text(&check["verdict"]);
        (verdict, text(&check["detail"]), remedies.collect())
    }

    #[track_caller]
    fn is(&self, verdict: &str, detail: &str, remedies: &[&str]) {
        let found = self.services();
        assert_eq!((&*found.0, &*found.1), (verdict, detail), "{found:?}");
        assert_eq!(found.2, remedies, "{found:?}");
    }
}

fn states() {
    let host = Host::new("services: [app.service]\nusers: [www-data]\n");
    let start = "ExecStart=/usr/bin/app\nUser=www-data\n";
    write_unit("app.service", start, "LoadState=loaded ActiveState=active");
    host.is("ok", "app.service runs", &[]);
    assert_eq!(host.doctor()["user"], "www-data");

    let journal = "journalctl -b -n 20 -u app.service";
    let failed = "LoadState=loaded ActiveState=failed SubState=failed Result=exit-code";
    for (status, text) in [
        (
            "203",
            "app.service has failed (203/EXEC: its program cannot be run in the root)",
        ),
        (
            "217",
            "app.service has failed (217/USER: its User= does not exist)",
        ),
        ("7", "app.service has failed (exit-code, status 7)"),
    ] {
        set_state("app.service", &format!("{failed} ExecMainStatus={status}"));
        host.is("failed", text, &[journal]);
    }
    let again = "LoadState=loaded ActiveState=activating SubState=auto-restart Result=signal \
                 ExecMainStatus=11";
    set_state("app.service", again);
    let text = "app.service has failed (signal, status 11)";
    host.is("failed", text, &[journal]);

    set_state("app.service", "LoadState=loaded ActiveState=inactive");
    host.is(
        "could-not-check",
        "app.service is inactive, not running",
        &[],
    );
    set_state("app.service", "LoadState=not-found ActiveState=inactive");
    let remedy = "correct its name under `services`: `systemctl list-unit-files` has it";
    host.is("failed", "there is no unit app.service", &[remedy]);
    // systemctl(1) knows nothing, as in a container without its bus.
    set_state("app.service", "");
    host.is("ok", "app.service is there", &[]);
    fs::remove_file(format!("{UNITS}/app.service")).unwrap();
    host.is(
        "could-not-check",
        "there is no unit file of app.service here",
        &[],
    );
}

fn root_directory() {
    let host = Host::new("services: [app.service]\nprograms: [/bin/busybox]\n");
    let root = host.root.display();
    let failed = "LoadState=loaded ActiveState=failed Result=exit-code ExecMainStatus=203";
    let unit = |more: &str| {
        let lines = format!("RootDirectory={root}\nWorkingDirectory=/srv/app\n{more}");
        write_unit("app.service", &lines, failed);
    };
    unit("Environment=TOOL=perl\nExecStart=-/usr/bin/${TOOL} -v\n");
    let text = "app.service has failed (203/EXEC: its program cannot be run in the root); \
                ExecStart= of app.service: /usr/bin/perl is not inside; WorkingDirectory= of \
                app.service: /srv/app is not inside";
    let made = format!("install -d {root}/srv/app");
    host.is("failed", text, &["programs: [/usr/bin/perl]", &made]);

    unit("ExecStart=/bin/busybox sleep 9\n");
    fs::create_dir_all(host.root.join("srv/app")).unwrap();
    let text = "app.service has failed (203/EXEC: its program cannot be run in the root)";
    host.is("failed", text, &["journalctl -b -n 20 -u app.service"]);
    set_state("app.service", "LoadState=loaded ActiveState=active");
    host.is("ok", "app.service runs", &[]);
    // Another root is not this site's affair.
    let other = "RootDirectory=/srv/other\nExecStart=/usr/bin/none\n";
    write_unit("app.service", other, "LoadState=loaded ActiveState=active");
    host.is("ok", "app.service runs", &[]);
}

fn made_at_start() {
    fs::create_dir("/run/app").unwrap();
    let host = Host::new("services: [app.service]\nmounts: [/run/app]\n");
    let runs = "LoadState=loaded ActiveState=active";
    write_unit("app.service", "RuntimeDirectory=x app\n", runs);
    let text = "app.service makes /run/app anew at each start, which `mountjail watch` follows; \
                app.service runs";
    host.is("ok", text, &[]);
    for kept in ["yes", "restart"] {
        let lines = format!("RuntimeDirectory=app\nRuntimeDirectoryPreserve={kept}\n");
        write_unit("app.service", &lines, runs);
        host.is("ok", "app.service runs", &[]);
    }
}

fn sshd() {
    let host = Host::new("services: [ssh.service]\n");
    write_unit(
        "ssh.service",
        "ExecStart=/usr/sbin/sshd -D\n",
        "ActiveState=active",
    );
    // Directories above belong to everybody, as /tmp does.
    let above = host.root.parent().unwrap().to_owned();
    fs::set_permissions(&above, Permissions::from_mode(0o1777)).unwrap();
    chown(&host.root, Some(33), Some(33)).unwrap();
    fs::set_permissions(&host.root, Permissions::from_mode(0o775)).unwrap();
    let (verdict, detail, remedies) = host.services();
    assert_eq!(verdict, "failed");
    let root = host.root.display();
    for text in [
        format!("{root} is www-data's: sshd refuses such a ChrootDirectory"),
        format!("{root} is of mode 0775: sshd refuses"),
        format!("{} is of mode 1777: sshd refuses", above.display()),
    ] {
        assert!(detail.contains(&text), "{text}: {detail}");
    }
    for command in [format!("chown root {root}"), format!("chmod go-w {root}")] {
        assert!(remedies.contains(&command), "{command}: {remedies:?}");
    }
    let elsewhere = "move the site to where only root can change the way, such as `root: /srv/s`";
    assert!(
        remedies.iter().any(|remedy| remedy == elsewhere),
        "{remedies:?}"
    );
    only_of_the_site(&host, &remedies);
}

/// Commands change nothing but what is the site's own.
#[track_caller]
fn only_of_the_site(host: &Host, remedies: &[String]) {
    let root = host.root.display().to_string();
    for remedy in remedies {
        let words: Vec<_> = remedy.split_whitespace().collect();
        let changes = [
            "chmod", "chown", "setfacl", "usermod", "rm", "mv", "install",
        ];
        if changes.contains(&words[0]) {
            let at = words.last().unwrap();
            assert!(at.starts_with(&root), "{remedy}");
        }
    }
}

fn private() {
    let outside = Sandbox::new();
    let keys = outside.directory("keys");
    outside.program(keys.join("tool"), "#!/bin/busybox sh\n");
    fs::set_permissions(&keys, Permissions::from_mode(0o700)).unwrap();
    let key = outside.program(outside.path("key"), "#!/bin/busybox sh\n");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let manifest = format!(
        "services: [app.service]\nusers: [www-data]\nprograms: [/bin/busybox]\n\
         mounts: [{{ source: {}, target: /opt/keys }}, {{ source: {}, target: /opt/key }}, \
         {{ source: /root, target: /opt/home, optional: true }}]\n",
        keys.display(),
        key.display()
    );
    let host = Host::new(&manifest);
    let root = host.root.display();
    for program in ["/opt/keys/tool", "/opt/home/tool"] {
        let lines = format!("User=www-data\nRootDirectory={root}\nExecStart={program}\n");
        write_unit("app.service", &lines, "LoadState=loaded ActiveState=active");
        let (verdict, detail, remedies) = host.services();
        assert_eq!(verdict, "failed", "{detail}");
        let [remedy] = &remedies[..] else {
            panic!("{remedies:?}")
        };
        let directory = program.strip_suffix("/tool").unwrap();
        let line = format!("`mounts: [{{ source: PATH, target: {directory} }}]`");
        assert!(
            remedy.starts_with("leave /") && remedy.ends_with(&line),
            "{remedy}"
        );
        assert!(remedy.contains(" private, and mount another "), "{remedy}");
    }

    // In all checks, and for the site's own directories a command.
    let own = host.root.join("own");
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, Permissions::from_mode(0o700)).unwrap();
    let lines = format!("User=www-data\nRootDirectory={root}\nExecStart=/own/tool\n");
    write_unit("app.service", &lines, "LoadState=loaded ActiveState=active");
    let (_, _, remedies) = host.services();
    assert_eq!(remedies, [format!("chmod o+x {root}/own")]);
    for check in host.doctor()["checks"].as_array().unwrap() {
        let remedies = check["remedy"].as_array().unwrap();
        let remedies: Vec<_> = remedies
            .iter()
            .map(|r| r.as_str().unwrap().to_owned())
            .collect();
        only_of_the_site(&host, &remedies);
    }
}
