//! Promise: `status` names the state of every mount, and why a site is not up, whatever is wrong
//! with it; it names the processes that still use replaced files, and prints metrics that
//! Prometheus reads.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Ran, Sandbox, grafts_below, trials, unmount, wait_until};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    trials([
        (
            "a swapped library is named with who still has the old one",
            a_swapped_library,
        ),
        (
            "a swapped library in the namespace of a service is named",
            swapped_in_a_service,
        ),
        (
            "a library replaced in a bound directory is named",
            in_a_directory,
        ),
        (
            "a library from before the process entered its root is named",
            from_before,
        ),
        ("metrics satisfy promtool and match the states", metrics),
        (
            "metrics cover sites that are down, gone or wrong",
            metrics_of_others,
        ),
        ("the history lasts as long as the record", history),
        (
            "a source that is gone is absent, and every other mount is shown",
            absent,
        ),
        (
            "the reason is shown where no mount shows why a site drifted",
            reasons,
        ),
        (
            "a site is shown by its record when its manifest is wrong, gone or has moved",
            by_the_record,
        ),
        (
            "a mount that somebody made shared or covered is shown as such",
            shared_or_covered,
        ),
        (
            "a site that was brought up by a path is shown by that manifest",
            by_path,
        ),
        (
            "without a configuration recorded sites are shown",
            without_configuration,
        ),
        ("of several sites a line each is shown", in_short),
        ("processes from before the mounts are named", ran_before),
        (
            "mounts that go between the looks at table and records are not somebody else's",
            between_the_looks,
        ),
        (
            "words that matter have colours on a terminal alone",
            colours,
        ),
        (
            "a process chooses neither commands nor the length of a line",
            names_of_processes,
        ),
    ])
}

/// The mount table is read, and then, before the record is, another mountjail takes the site down.
fn between_the_looks() {
    for command in ["status", "plan", "check"] {
        let sandbox = Sandbox::new();
        let source = sandbox.file("host/file", "x");
        let line = format!("{{ source: {}, target: /x }}", source.display());
        sandbox.site("s", &format!("mounts: [{line}]\n"));
        sandbox.ok(&["up", "s"]);
        let (record, log) = (sandbox.state().join("run/s.json"), sandbox.path("log"));
        let mut looks = sandbox.command_under(&[
            "strace",
            "-fqq",
            "-o",
            log.to_str().unwrap(),
            "-P",
            record.to_str().unwrap(),
            "-e",
            "inject=openat:delay_enter=3000000:when=1",
        ]);
        looks
            .args([command, "s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let looks = looks.spawn().unwrap();
        wait_until("it is about to read the record", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("s.json"))
        });
        sandbox.ok(&["down", "s"]);
        let looked = looks.wait_with_output().unwrap();
        let said = [looked.stdout, looked.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains("by mountjail"), "{command}: {said}");
    }
}

/// Uses a library, a temporary file and a memfd, prints a line, and waits.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int answer(void);
int main(void) {
    int files[] = { open("/scratch", O_CREAT | O_RDWR, 0600), memfd_create("jit", 0) };
    unlink("/scratch");
    for (int i = 0; i < 2; i++) {
        ftruncate(files[i], 4096);
        if (mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, files[i], 0) == MAP_FAILED) return 1;
    }
    printf("ready %d\n", answer());
    fflush(stdout);
    pause();
}
"#;

/// A process inside a root; it ends with the trial.
struct Inside(Child);

impl Inside {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.starts_with("ready"), "{line:?}");
        Self(child)
    }

    fn chrooted(root: &Path, program: &Path) -> Self {
        Self::start(Command::new("chroot").arg(root).arg(program))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cc(arguments: &[&str], text: &str) {
    let mut cc = Command::new("gcc")
        .args(arguments)
        .args(["-x", "c", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    cc.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(cc.wait().unwrap().success(), "{arguments:?}");
}

/// Makes or replaces, by renaming as a package manager does, `host/libanswer.so.1`.
fn library(sandbox: &Sandbox, answer: u32) -> PathBuf {
    let (path, new) = (
        sandbox.path("host/libanswer.so.1"),
        sandbox.path("host/new"),
    );
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = format!("int answer(void) {{ return {answer}; }}");
    cc(
        &[
            "-shared",
            "-fPIC",
            "-Wl,-soname,libanswer.so.1",
            "-o",
            new.to_str().unwrap(),
        ],
        &text,
    );
    fs::rename(new, &path).unwrap();
    path
}

/// A program that needs `library`.
fn program(sandbox: &Sandbox, library: &Path) -> PathBuf {
    let path = sandbox.path("host/prog");
    let rpath = format!("-Wl,-rpath,{}", library.parent().unwrap().display());
    // The library comes after what needs it.
    let source = sandbox.file("prog.c", PROGRAM);
    let arguments = [
        source.to_str().unwrap(),
        library.to_str().unwrap(),
        &rpath,
        "-o",
        path.to_str().unwrap(),
    ];
    Ran::of(Command::new("gcc").args(arguments)).exits(0);
    path
}

fn swapped_in_a_service() {
    let sandbox = Sandbox::new();
    let library_path = library(&sandbox, 1);
    let prog = program(&sandbox, &library_path);
    let text = format!(
        "programs: [{}]\nscope: services\nservices: [a.service]\n",
        prog.display()
    );
    let root = sandbox.site("s", &text);
    let mut command = sandbox.command();
    command.args(["run", "--unit", "a", "--", "chroot"]);
    let inside = Inside::start(command.arg(&root).arg(&prog));
    let status = sandbox.ok(&["status", "s"]);
    assert!(!status.stdout.contains("note:"), "{status}");
    library(&sandbox, 2);
    sandbox.ok(&["up", "s"]);
    let status = sandbox.ok(&["status", "s"]);
    status.prints(&format!("prog (pid {}", inside.pid()));
    let json = sandbox.ok(&["status", "--json"]).json();
    let outdated = &json["sites"][0]["places"][0]["outdated"];
    assert_eq!(outdated[0]["files"][0], "libanswer.so.1", "{json:#}");
}

fn a_swapped_library() {
    let sandbox = Sandbox::new();
    let library_path = library(&sandbox, 1);
    let prog = program(&sandbox, &library_path);
    let root = sandbox.site("s", &format!("programs: [{}]\n", prog.display()));
    sandbox.ok(&["up", "s"]);
    let inside = Inside::chrooted(&root, &prog);
    assert!(!sandbox.ok(&["status", "s"]).stdout.contains("note:"));
    library(&sandbox, 2);
    // A new process would still find the old one.
    let stale = sandbox.run(&["status", "s"]).exits(3);
    assert!(
        stale.stdout.contains("stale") && !stale.stdout.contains("note:"),
        "{stale}"
    );
    sandbox.ok(&["up", "s"]);
    let pid = inside.pid();
    let note = format!(
        "  note: prog (pid {pid}) still has the old libanswer.so.1; restart the process {pid}\n"
    );
    let status = sandbox.ok(&["status", "s"]);
    // In the control group of a systemd unit the note names that, too.
    let unit = status.stdout.contains(&format!("prog (pid {pid}, "));
    assert!(
        status.stdout.ends_with(&note)
            || unit && status.stdout.contains("the old libanswer.so.1; "),
        "{status}"
    );
    let json = sandbox.ok(&["status", "--json"]).json();
    let outdated = &json["sites"][0]["outdated"];
    assert_eq!(
        (
            outdated[0]["pids"][0].as_u64(),
            outdated[0]["files"][0].as_str()
        ),
        (Some(u64::from(pid)), Some("libanswer.so.1"))
    );
    assert_eq!(outdated.as_array().unwrap().len(), 1, "{outdated:#}");
    // No pool: modules in the root must not run as root.
    let doctor = sandbox.run(&["doctor", "s"]).exits(3).prints("as nobody\n");
    doctor
        .prints(&format!("failed          processes   prog (pid {pid}"))
        .prints("the old libanswer.so.1");
    let second = Inside::chrooted(&root, &prog);
    let status = sandbox.ok(&["status", "s"]);
    assert!(
        status.stdout.contains(&pid.to_string())
            && !status.stdout.contains(&second.pid().to_string()),
        "{status}"
    );
    drop(inside);
    assert!(!sandbox.ok(&["status", "s"]).stdout.contains("note:"));
}

fn in_a_directory() {
    let sandbox = Sandbox::new();
    let library_path = library(&sandbox, 1);
    let prog = program(&sandbox, &library_path);
    let directory = library_path.parent().unwrap().display();
    let manifest = format!(
        "programs: [{}]\nmounts: [{{ source: {directory}, executable: true }}]\n",
        prog.display()
    );
    let root = sandbox.site("s", &manifest);
    sandbox.ok(&["up", "s"]);
    let inside = [
        Inside::chrooted(&root, &prog),
        Inside::chrooted(&root, &prog),
    ];
    library(&sandbox, 2);
    let pids = format!(
        "{} {}",
        inside[0].pid().min(inside[1].pid()),
        inside[0].pid().max(inside[1].pid())
    );
    let status = sandbox.ok(&["status", "s"]);
    assert!(
        status.stdout.contains(&format!("note: prog (pid {pids}")),
        "{status}"
    );
    assert!(
        status
            .stdout
            .contains(&format!("still has the old {}; ", library_path.display())),
        "{status}"
    );
}

/// As the workers of PHP-FPM: the libraries are the host's.
fn from_before() {
    let sandbox = Sandbox::new();
    let library_path = library(&sandbox, 1);
    let root = sandbox.site("s", "devices: [\"null\"]\n");
    sandbox.ok(&["up", "s"]);
    let perl = "chroot $ARGV[0] or die; chdir '/'; $| = 1; print qq(ready\\n); sleep 600";
    let mut command = Command::new("perl");
    let inside = Inside::start(
        command
            .args(["-e", perl])
            .arg(&root)
            .env("LD_PRELOAD", &library_path),
    );
    assert!(!sandbox.ok(&["status", "s"]).stdout.contains("note:"));
    library(&sandbox, 2);
    let note = format!("perl (pid {}", inside.pid());
    let status = sandbox.ok(&["status", "s"]).prints(&note);
    assert!(
        status
            .stdout
            .contains(&format!("still has the old {}; ", library_path.display())),
        "{status}"
    );
}

/// Fails unless `promtool check metrics` reports nothing.
fn promtool(metrics: &str) {
    let mut promtool = Command::new("promtool");
    let mut child = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}\n{metrics}",
        String::from_utf8_lossy(&said)
    );
}

/// The value of a sample.
fn value(metrics: &str, sample: &str) -> Option<u64> {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

fn prometheus(sandbox: &Sandbox, code: i32) -> String {
    let metrics = sandbox
        .run(&["status", "--format", "prometheus"])
        .exits(code)
        .stdout;
    promtool(&metrics);
    metrics
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn metrics() {
    let sandbox = Sandbox::new();
    let begun = now();
    let file = sandbox.file("host/file", "old");
    sandbox.site(
        "a",
        &format!("devices: [\"null\", zero]\nmounts: [{}]\n", file.display()),
    );
    sandbox.site("b", "devices: [\"null\"]\n");
    sandbox.ok(&["up", "--all"]);
    let text = prometheus(&sandbox, 0);
    let expect = |text: &str, samples: &[(&str, u64)]| {
        for (sample, expected) in samples {
            assert_eq!(value(text, sample), Some(*expected), "{sample}\n{text}");
        }
    };
    expect(
        &text,
        &[
            ("mountjail_sites{state=\"up\"}", 2),
            ("mountjail_site_mounts{site=\"a\",state=\"ok\"}", 3),
            ("mountjail_site_mounts{site=\"b\",state=\"stale\"}", 0),
            (
                "mountjail_site_mount_changes_total{site=\"a\",change=\"attach\"}",
                3,
            ),
            (
                "mountjail_site_mount_changes_total{site=\"a\",change=\"swap\"}",
                0,
            ),
            ("mountjail_site_up{site=\"a\"}", 1),
            ("mountjail_site_outdated_processes{site=\"a\"}", 0),
        ],
    );
    for sample in [
        "mountjail_last_check_timestamp_seconds",
        "mountjail_site_last_change_timestamp_seconds{site=\"a\"}",
    ] {
        let at = value(&text, sample).unwrap();
        assert!((begun..=now()).contains(&at), "{sample} {at}");
    }
    fs::rename(sandbox.file("host/new", "new"), &file).unwrap();
    let drifted = prometheus(&sandbox, 3);
    expect(
        &drifted,
        &[
            ("mountjail_sites{state=\"drifted\"}", 1),
            ("mountjail_site_mounts{site=\"a\",state=\"stale\"}", 1),
            ("mountjail_site_up{site=\"a\"}", 0),
            ("mountjail_site_up{site=\"b\"}", 1),
        ],
    );
    sandbox.ok(&["up", "--all"]);
    expect(
        &prometheus(&sandbox, 0),
        &[
            (
                "mountjail_site_mount_changes_total{site=\"a\",change=\"attach\"}",
                3,
            ),
            (
                "mountjail_site_mount_changes_total{site=\"a\",change=\"swap\"}",
                1,
            ),
            (
                "mountjail_site_mount_changes_total{site=\"b\",change=\"swap\"}",
                0,
            ),
        ],
    );
    sandbox
        .run(&["status", "--format", "xml"])
        .exits(2)
        .says("[possible values: text, json, prometheus, nagios]");
    sandbox
        .run(&["status", "--format", "text", "--json"])
        .exits(2);
    let long = sandbox.ok(&["status", "--format", "json"]).json();
    assert_eq!(long, sandbox.ok(&["status", "--json"]).json());
}

fn metrics_of_others() {
    let sandbox = Sandbox::new();
    promtool(&prometheus(&sandbox, 0));
    sandbox.site("down", "devices: [\"null\"]\n");
    sandbox.manifest("wrong", "root: relative\n");
    sandbox.site("gone", "devices: [\"null\"]\n");
    sandbox.ok(&["up", "gone"]);
    fs::remove_file(sandbox.config().join("sites/gone.yaml")).unwrap();
    let text = prometheus(&sandbox, 2);
    for (sample, expected) in [
        ("mountjail_sites{state=\"failed\"}", 1),
        ("mountjail_sites{state=\"down\"}", 1),
        ("mountjail_sites{state=\"drifted\"}", 1),
        ("mountjail_site_up{site=\"wrong\"}", 0),
        ("mountjail_site_mounts{site=\"down\",state=\"missing\"}", 1),
        ("mountjail_site_mounts{site=\"gone\",state=\"orphan\"}", 1),
    ] {
        assert_eq!(value(&text, sample), Some(expected), "{sample}\n{text}");
    }
    assert!(
        !text.contains("changes_total{site=\"down\""),
        "nothing is known of it\n{text}"
    );

    // In a file, metrics tell the mistake; a text does not, so it is reported.
    let file = sandbox.path("output");
    let to_file = ["status", "--output", file.to_str().unwrap()];
    sandbox.ok(&to_file).says("it is not absolute");
    let ran = sandbox.ok(&[&to_file[..], &["--format", "prometheus"]].concat());
    assert_eq!(ran.stderr, "");
}

fn history() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("host/file", "old");
    sandbox.site(
        "a",
        &format!("devices: [\"null\"]\nmounts: [{}]\n", file.display()),
    );
    sandbox.ok(&["up", "a"]);
    let path = sandbox.state().join("run/a.json");
    let record = || serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()).unwrap();
    let first = record();
    sandbox.ok(&["up", "a"]);
    assert_eq!(record(), first, "there was nothing to do");
    // As written before there was a history.
    let mut old = first.clone();
    old.as_object_mut()
        .unwrap()
        .remove("history")
        .expect("a history");
    fs::write(&path, old.to_string()).unwrap();
    let ran = sandbox.ok(&["status", "a"]);
    assert_eq!(ran.stderr, "");
    sandbox.ok(&["up", "a"]).says("in sync");
    fs::rename(sandbox.file("host/new", "new"), &file).unwrap();
    sandbox.ok(&["up", "a"]);
    assert_eq!(record()["history"]["swapped"], 1);
    // A failed run leaves it as it was.
    let before = record()["history"].clone();
    sandbox.site(
        "a",
        &format!("devices: [zero, \"null\"]\nmounts: [{}]\n", file.display()),
    );
    fs::write(sandbox.root("a").join("dev/zero"), "in the way").unwrap();
    sandbox.run(&["up", "a"]).exits(1);
    assert_eq!(record()["history"], before);
    fs::remove_file(sandbox.root("a").join("dev/zero")).unwrap();
    sandbox.ok(&["up", "a"]);
    assert_eq!(
        record()["history"]["attached"],
        3 - 2 + before["attached"].as_u64().unwrap()
    );
    sandbox.ok(&["down", "a"]);
    assert!(!path.exists());
}

/// The state of the mount at `target`, in the JSON of one site.
fn state_of<'v>(site: &'v serde_json::Value, target: &str) -> &'v str {
    let mounts = site["mounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["target"] == target);
    mount.unwrap_or_else(|| panic!("{target}: {site:#}"))["state"]
        .as_str()
        .unwrap()
}

fn absent() {
    for optional in [true, false] {
        let sandbox = Sandbox::new();
        let source = sandbox.directory("host/run/service");
        let manifest = format!(
            "etc: [hosts]\nprograms: [/bin/true]\nmounts:\n\
             - {{ source: {}, target: /service, optional: {optional} }}\n",
            source.display()
        );
        sandbox.site("s", &manifest);
        sandbox.ok(&["up", "s"]);
        let mounts = sandbox
            .ok(&["status", "s"])
            .stdout
            .matches("  ok  ")
            .count();
        fs::remove_dir(&source).unwrap();
        let code = if optional { 3 } else { 1 };
        let status = sandbox
            .run(&["status", "s"])
            .exits(code)
            .prints("s: drifted, ");
        assert_eq!(
            status.stdout.matches("  ok  ").count(),
            mounts - 1,
            "{status}"
        );
        let gone = format!("({} is not there any more)", source.display());
        let row = status
            .stdout
            .lines()
            .find(|line| line.starts_with("  absent  "))
            .unwrap();
        assert!(row.contains("/service") && row.ends_with(&gone), "{status}");
        assert!(!status.stdout.contains("orphan"), "{status}");
        let json = sandbox.run(&["status", "--json"]).exits(code).json();
        let site = &json["sites"][0];
        assert_eq!(
            (state_of(site, "/service"), state_of(site, "/etc/hosts")),
            ("absent", "ok")
        );
        assert_eq!(
            (site["state"].as_str(), site["errors"].is_null()),
            (Some("drifted"), optional)
        );
        let metrics = prometheus(&sandbox, code);
        let count = |state| {
            value(
                &metrics,
                &format!("mountjail_site_mounts{{site=\"s\",state=\"{state}\"}}"),
            )
        };
        assert_eq!(
            (count("absent"), count("ok")),
            (Some(1), Some(mounts as u64 - 1)),
            "{metrics}"
        );
        fs::create_dir(&source).unwrap();
        sandbox.ok(&["up", "s"]);
        sandbox.ok(&["status", "s"]);
    }
}

fn reasons() {
    let sandbox = Sandbox::new();
    let root = sandbox.site(
        "s",
        "presets: [users]\nusers: [nobody]\nprograms: [/bin/true]\n",
    );
    sandbox.ok(&["up", "s"]);
    let [link, text] = ["lib", "usr/lib"];
    assert_eq!(
        fs::read_link(root.join(link)).unwrap(),
        Path::new(text),
        "a host with a merged /usr"
    );
    let drifted = |because: &str| {
        let status = sandbox
            .run(&["status", "s"])
            .exits(3)
            .prints("s: drifted, ");
        assert!(
            status
                .stdout
                .lines()
                .any(|line| line.starts_with("  because: ") && line.contains(because)),
            "{status}"
        );
        let json = sandbox.run(&["status", "s", "--json"]).exits(3).json();
        let reasons = json["sites"][0]["reasons"].as_array().unwrap();
        assert!(
            reasons
                .iter()
                .any(|reason| reason.as_str().unwrap().contains(because)),
            "{json:#}"
        );
    };
    fs::remove_file(root.join(link)).unwrap();
    drifted("the link /lib -> usr/lib is not there");
    std::os::unix::fs::symlink("/elsewhere", root.join(link)).unwrap();
    drifted("lib is a symbolic link to /elsewhere, but a link to usr/lib is needed there");
    fs::remove_file(root.join(link)).unwrap();
    sandbox.ok(&["up", "s"]);
    let passwd = sandbox.state().join("lib/s.passwd");
    fs::write(&passwd, fs::read_to_string(&passwd).unwrap() + "x\n").unwrap();
    drifted(&format!(
        "the generated file {} is not as it should be",
        passwd.display()
    ));
    sandbox.ok(&["up", "s"]);
    let json = sandbox.ok(&["status", "s", "--json"]).json();
    assert_eq!(json["sites"][0]["reasons"], serde_json::json!([]));
}

fn by_path() {
    let sandbox = Sandbox::new();
    let root = sandbox.directory("srv/s");
    let manifest = format!("root: {}\netc: [hosts]\n", root.display());
    let file = sandbox.file("elsewhere/s.yaml", manifest);
    sandbox.ok(&["up", file.to_str().unwrap()]);
    for command in [&["status"][..], &["status", "s"]] {
        let shown = sandbox.ok(command).prints("s: up, 1 of 1 mounts ok");
        assert!(!shown.stdout.contains("orphan"), "{shown}");
    }
    fs::remove_file(&file).unwrap();
    let gone = sandbox.run(&["status"]).exits(3);
    gone.prints("  orphan ").prints("s.yaml is gone");
    sandbox.ok(&["down", "s"]);
}

fn without_configuration() {
    let sandbox = Sandbox::new();
    sandbox.directory("srv/s");
    let manifest = format!(
        "root: {}\netc: [hosts]\nprograms: [/bin/sh]\n",
        sandbox.root("s").display()
    );
    let file = sandbox.file("elsewhere/s.yaml", manifest);
    fs::remove_dir(sandbox.config().join("sites")).unwrap();
    sandbox
        .run(&["status"])
        .exits(1)
        .says("cannot list the sites");
    sandbox.ok(&["up", file.to_str().unwrap()]);
    sandbox
        .ok(&["status"])
        .prints("s: up, ")
        .says("does not exist; only sites that are recorded are shown");
    sandbox.ok(&["why", "s", "/etc/hosts"]).prints("etc[0]");
    sandbox
        .ok(&["exec", "s", "--", "/bin/sh", "-c", "echo inside"])
        .prints("inside");
    sandbox
        .run(&["up", "s"])
        .exits(2)
        .says("there is no site s: ")
        .says("try: give the manifest's path");
    // A configuration that cannot be listed is not none.
    fs::write(sandbox.config().join("sites"), "").unwrap();
    sandbox
        .run(&["status"])
        .exits(1)
        .says("cannot list the sites");
    sandbox.ok(&["down", "s"]);
}

fn by_the_record() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts, services]\n");
    sandbox.ok(&["up", "s"]);
    let manifest = sandbox.config().join("sites/s.yaml");
    let right = fs::read_to_string(&manifest).unwrap();
    let whole = |status: &Ran| {
        let shown = ["/etc/hosts", "/etc/services"].map(|target| status.stdout.contains(target));
        assert!(
            shown == [true, true] && status.stdout.contains(root.to_str().unwrap()),
            "{status}"
        );
    };
    // Wrong: what it asks for is not known, and what stands is as it was recorded.
    fs::write(&manifest, format!("{right}nonsense: true\n")).unwrap();
    let status = sandbox
        .run(&["status", "s"])
        .exits(2)
        .prints("s: drifted, 2 of 2 mounts ok")
        .prints("  because: ");
    whole(&status.says("nonsense"));
    // With another root.
    fs::write(&manifest, right.replace("srv/s", "srv/other")).unwrap();
    fs::create_dir(sandbox.root("other")).unwrap();
    let status = sandbox
        .run(&["status", "s"])
        .exits(1)
        .prints("s: drifted, 2 of 2 mounts ok");
    whole(&status.prints("  because: s: the manifest now says root "));
    // Gone.
    fs::remove_file(&manifest).unwrap();
    whole(
        &sandbox
            .run(&["status", "s"])
            .exits(2)
            .prints("  orphan ")
            .says("there is no site s"),
    );
    whole(
        &sandbox
            .run(&["status"])
            .exits(3)
            .prints("  orphan ")
            .prints("s.yaml is gone\n"),
    );
    fs::write(&manifest, &right).unwrap();
    // A root that is not there.
    fs::rename(&root, sandbox.root("moved")).unwrap();
    let status = sandbox.run(&["status", "s"]).exits(1);
    assert!(
        status.stdout.contains("s: drifted, ") && status.stdout.contains("/etc/hosts"),
        "{status}"
    );
    fs::rename(sandbox.root("moved"), &root).unwrap();
    sandbox.ok(&["status", "s"]);
}

fn mount(arguments: &[&str], at: &Path) {
    Ran::of(Command::new("mount").args(arguments).arg(at)).exits(0);
}

fn shared_or_covered() {
    let sandbox = Sandbox::new();
    let source = sandbox.directory("host/data");
    let root = sandbox.site(
        "s",
        &format!(
            "etc: [hosts]\nmounts:\n- {{ source: {0}, target: /data }}\n\
             - {{ source: {0}, target: /deep/below/data }}\n\
             - {{ source: {0}, target: /deep/data }}\n",
            source.display()
        ),
    );
    sandbox.ok(&["up", "s"]);
    for target in ["data", "deep/below/data"] {
        mount(&["--make-shared"], &root.join(target));
        let status = sandbox
            .run(&["status", "s"])
            .exits(3)
            .prints("s: drifted, 3 of 4 mounts ok");
        status
            .prints("  wrong-options ")
            .prints("(somebody made it shared, wanted private)");
        sandbox.ok(&["up", "s"]).says("1 swapped");
        sandbox.ok(&["status", "s"]);
    }
    let grafts = grafts_below(&root);
    let are_offered = mountjail::sys::probe::statmount();
    assert_eq!(grafts.is_empty(), !are_offered);
    for graft in grafts {
        mount(&["--make-shared"], &graft.point);
        sandbox
            .run(&["status", "s"])
            .exits(3)
            .prints("s: drifted, ");
        sandbox.ok(&["up", "s"]);
        sandbox.ok(&["status", "s"]);
    }
    for options in [
        &["-t", "tmpfs", "theirs"][..],
        &["--bind", root.join("etc").to_str().unwrap()],
    ] {
        mount(options, &root.join("etc"));
        let status = sandbox
            .run(&["status", "s"])
            .exits(3)
            .prints("s: drifted, ");
        let at = root.join("etc").display().to_string();
        assert!(
            status
                .stdout
                .lines()
                .any(|line| line.contains("  /etc/hosts ") && line.contains(&at)),
            "{status}"
        );
        assert!(!status.stdout.contains("is another file now"), "{status}");
        unmount(&root.join("etc"));
        sandbox.ok(&["status", "s"]);
    }
    let hosts = root.join("etc/hosts");
    for _ in 0..3 {
        mount(&["--bind", "/etc/hosts"], &hosts);
    }
    let status = sandbox.run(&["status", "s"]).exits(3).prints("  shadowed ");
    assert!(
        status
            .stdout
            .contains(&format!("umount {}", hosts.display()))
            || status.stdout.contains("on top of it"),
        "{status}"
    );
    (0..3).for_each(|_| drop(Ran::of(Command::new("umount").arg(&hosts)).exits(0)));
    sandbox.ok(&["status", "s"]);
}

fn in_short() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c"] {
        sandbox.site(name, "etc: [hosts, services]\n");
    }
    sandbox.ok(&["up", "a", "b"]);
    unmount(&sandbox.root("b").join("etc/hosts"));
    let line = |name: &str, how: &str| {
        format!(
            "{name}: {how} of 2 mounts ok in {}\n",
            sandbox.root(name).display()
        )
    };
    let missing = "  missing       /etc/hosts  ro,nosuid,nodev,noexec\n";
    let [a, b, c] = [
        line("a", "up, 2"),
        line("b", "drifted, 1"),
        line("c", "down, 0"),
    ];
    let in_line = b.replace(" ok in", " ok, 1 missing in");
    assert_eq!(
        sandbox.run(&["status"]).exits(3).stdout,
        [&*a, &*in_line, &*c].concat()
    );
    assert_eq!(
        sandbox.run(&["-q", "status"]).exits(3).stdout,
        [&*b, missing, &*c].concat()
    );
    assert_eq!(sandbox.run(&["-q", "status", "a"]).exits(0).stdout, "");
    assert_eq!(
        sandbox
            .run(&["status", "c"])
            .exits(3)
            .stdout
            .lines()
            .count(),
        3
    );
    assert_eq!(
        sandbox
            .run(&["-v", "status"])
            .exits(3)
            .stdout
            .lines()
            .count(),
        9
    );
}

fn ran_before() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts]\n");
    let program = "#include <stdio.h>\n#include <unistd.h>\n\
                   int main(void) { puts(\"ready\"); fflush(stdout); pause(); }\n";
    sandbox.compile("srv/s/waits", program);
    let inside = Inside::chrooted(&root, Path::new("/waits"));
    let note = format!("s: note: waits (pid {}", inside.pid());
    let up = sandbox.ok(&["up", "s"]).says(&note);
    up.says(") ran inside before, and may remember what was missing; ");
    let other = sandbox.site("other", "etc: [hosts]\n");
    sandbox.compile("srv/other/waits", program);
    let _inside = Inside::chrooted(&other, Path::new("/waits"));
    sandbox
        .ok(&["adopt", "--write", "other"])
        .says("other: note: waits (pid ");
    // Nothing came, or nothing ran.
    assert!(!sandbox.ok(&["up", "s"]).stderr.contains("note:"));
    sandbox.manifest(
        "s",
        format!("root: {}\netc: [hosts, services]\n", root.display()),
    );
    assert!(!sandbox.ok(&["--quiet", "up", "s"]).stderr.contains("note:"));

    // JSON has it too, also where nothing else is said.
    sandbox.manifest(
        "s",
        format!(
            "root: {}\netc: [hosts, services, protocols]\n",
            root.display()
        ),
    );
    let up = sandbox.ok(&["--quiet", "up", "--json", "s"]);
    let up = up.json();
    let of_site = &up["sites"][0]["ran_inside"];
    assert_eq!(of_site[0]["name"], "waits", "{up:#}");
    assert_eq!(of_site[0]["pids"][0], inside.pid(), "{up:#}");
    let again = sandbox.ok(&["up", "--json", "s"]);
    let again = again.json();
    assert!(again["sites"][0].get("ran_inside").is_none(), "{again:#}");
    drop(inside);
    sandbox.ok(&["down", "s"]);
    assert!(!sandbox.ok(&["up", "s"]).stderr.contains("note:"));
}

fn colours() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "etc: [hosts]\n");
    let red = |ran: &Ran| ran.stdout.contains("\u{1b}[1m\u{1b}[31m");
    let run = |environment: &str, line: &str| {
        let line = format!("env --unset=NO_COLOR {environment} $MOUNTJAIL {line}");
        sandbox.on_a_terminal(&line)
    };
    for (environment, expected) in [
        ("TERM=xterm", true),
        ("TERM=dumb", false),
        ("TERM=xterm NO_COLOR=1", false),
    ] {
        for line in ["status s", "status nobody", "up nobody"] {
            let ran = run(environment, line);
            assert_eq!(red(&ran), expected, "{environment}\n{ran}");
        }
        let plain = run(environment, "status s | cat");
        assert!(!plain.stdout.contains('\u{1b}'), "{plain}");
        let json = run(environment, "status s --json");
        assert!(!json.stdout.contains('\u{1b}'), "{json}");
    }

    // `--color` decides, whatever the environment and the streams are.
    let piped = |when: &str, command: &str| sandbox.run(&[command, "s", "--color", when]).exits(3);
    let file = sandbox.path("output");
    let to_file = [
        "status",
        "s",
        "--color",
        "always",
        "--output",
        file.to_str().unwrap(),
    ];
    sandbox.ok(&to_file);
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("s: down") && !text.contains('\u{1b}'),
        "{text}"
    );
    for command in ["plan", "status"] {
        assert!(piped("always", command).stdout.contains("\u{1b}[3"));
        assert!(!piped("auto", command).stdout.contains('\u{1b}'));
    }
    assert!(
        !run("TERM=xterm", "status s --color never")
            .stdout
            .contains('\u{1b}')
    );
    sandbox
        .ok(&["check", "s", "--color", "always"])
        .prints("\u{1b}[32mok");
}

/// Maps so many files with long names, removes them, and calls itself as a command.
const ODD: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void) {
    char name[256] = "/";
    memset(name + 1, 'a', 200);
    prctl(PR_SET_NAME, "rm -rf /srv; #");
    for (int i = 0; i < 3000; i++) {
        sprintf(name + 201, "%06d", i);
        int file = open(name, O_RDWR | O_CREAT, 0600);
        if (file < 0 || write(file, "x", 1) != 1) return 1;
        if (mmap(0, 4096, PROT_READ, MAP_PRIVATE, file, 0) == MAP_FAILED) return 1;
        close(file);
        unlink(name);
    }
    puts("ready");
    fflush(stdout);
    pause();
}
"#;

fn names_of_processes() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "devices: [\"null\"]\n");
    sandbox.compile("srv/s/odd", ODD);
    sandbox.ok(&["up", "s"]);
    let inside = Inside::chrooted(&root, Path::new("/odd"));
    let pid = inside.pid();
    let status = sandbox.ok(&["status", "s"]);
    let note = status.stdout.lines().last().unwrap();
    assert!(
        note.starts_with(&format!("  note: 'rm -rf /srv; #' (pid {pid}")),
        "{status}"
    );
    assert!(
        note.ends_with(&format!(" and more; restart the process {pid}"))
            || note.contains("; systemctl restart "),
        "{status}"
    );
    assert!(note.len() < 1400, "{status}");
    let json = sandbox.ok(&["status", "--json"]).json();
    let outdated = &json["sites"][0]["outdated"][0];
    assert_eq!(
        (
            outdated["files"].as_array().unwrap().len(),
            &outdated["more_files"]
        ),
        (5, &serde_json::json!(true))
    );
    assert!(
        !outdated["hint"].as_str().unwrap().contains("rm"),
        "{json:#}"
    );
}
