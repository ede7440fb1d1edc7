//! Real applications, each of which works after two rounds at most; and what a program fails at
//! besides files that are not there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use serde_json::Value;

use super::{has, lines, refused, site};
use crate::support::{Ran, Sandbox};

/// Runs the command, adds what `trace` advises, and again; then it must work.
#[track_caller]
fn works_after_two_rounds(sandbox: &Sandbox, command: &[&str], answer: &str) {
    let trace = ["trace", "s", "--write", "--up", "--"];
    for _ in 0..2 {
        let _ = sandbox.run(&[&trace[..], command].concat()); // it may fail before it works
    }
    let exec = ["exec", "s", "--"];
    let ran = sandbox.run(&[&exec[..], command].concat());
    let manifest = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    assert!(ran.stdout.contains(answer), "{ran}\n{manifest}");
    ran.exits(0);
}

const FLASK: &str = "\
import json, sqlite3, uuid
from flask import Flask
app = Flask(__name__)

@app.route('/')
def index():
    rows = sqlite3.connect(':memory:').execute('select 6 * 7').fetchone()
    return json.dumps({'answer': rows[0], 'id': len(str(uuid.uuid4()))})

print(app.test_client().get('/').get_data(as_text=True))
";

pub fn flask() {
    let (sandbox, root) = site("programs: [/usr/bin/python3]\nusers: [www-data]\n");
    fs::write(root.join("app.py"), FLASK).unwrap();
    works_after_two_rounds(
        &sandbox,
        &["/usr/bin/python3", "/app.py"],
        "{\"answer\": 42, \"id\": 36}",
    );
    let manifest = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    assert!(manifest.lines().count() < 20, "{manifest}");
}

const CGI: &str = "#!/usr/bin/perl\n\
use strict;\nuse CGI;\nuse POSIX qw(floor);\nuse Socket;\nuse Encode;\n\
my $q = CGI->new('name=world');\n\
print $q->header('text/plain'), 'hello ', encode('UTF-8', $q->param('name')), floor(4.5);\n\
print \"\\n\";\n";

pub fn perl_cgi() {
    let (sandbox, root) = site("users: [www-data]\n");
    sandbox.program(root.join("index.cgi"), CGI);
    works_after_two_rounds(&sandbox, &["/index.cgi"], "hello world4");
}

/// A directory without `executable`, as somebody wrote it, and an object in it.
pub fn noexec() {
    let (sandbox, _) = site(
        "programs: [/usr/bin/python3]\npresets: [base, locale]\nmounts: [/usr/lib/python3.11]\n",
    );
    let command = ["/usr/bin/python3", "-c", "import _ctypes; print('mapped')"];
    let traced = [&["trace", "s", "--json", "--"][..], &command].concat();
    let report = sandbox.run(&traced).exits(1).json();
    let line = "mounts: [{ source: /usr/lib/python3.11, executable: true }]";
    has(&report, line);
    works_after_two_rounds(&sandbox, &command, "mapped");

    // The same for a program that is to be executed.
    let tools = Sandbox::new();
    let tool = tools.directory("tools").join("tool");
    tools.program(&tool, "#!/bin/busybox sh\necho executed\n");
    let directory = tools.path("tools").display().to_string();
    let (sandbox, _) = site(&format!(
        "programs: [/bin/busybox]\nmounts: [{directory}]\n"
    ));
    let traced = ["trace", "s", "--json", "--", tool.to_str().unwrap()];
    let report = sandbox.run(&traced).exits(126).json();
    has(
        &report,
        &format!("mounts: [{{ source: {directory}, executable: true }}]"),
    );
}

/// The loader learns from `/proc/self/exe` where a program is.
pub fn without_proc() {
    let vendor = Sandbox::new();
    let bin = vendor.directory("vendor/bin");
    let lib = vendor.directory("vendor/lib");
    let source = vendor.file("l.c", "int answer(void) { return 42; }\n");
    let main = "int answer(void);\nint main(void) { return answer() - 42; }\n";
    let main = vendor.file("m.c", main);
    let library = lib.join("libanswer.so");
    let program = bin.join("program");
    let gcc = |arguments: &[&str]| Ran::of(Command::new("gcc").args(arguments)).exits(0);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    gcc(&[
        "-shared",
        "-fPIC",
        "-Wl,-soname,libanswer.so",
        "-o",
        &text(&library),
        &text(&source),
    ]);
    let rpath = "-Wl,-rpath,$ORIGIN/../lib";
    gcc(&["-o", &text(&program), &text(&main), &text(&library), rpath]);

    let (sandbox, root) = site(&format!("programs: [{}]\n", program.display()));
    let command = ["s", "--", program.to_str().unwrap()];
    let trace = |options: &[&str]| sandbox.run(&[&["trace"], options, &command].concat());
    let traced = trace(&["--json"]).exits(127);
    assert_eq!(traced.json()["without_proc"], serde_json::json!([program]));
    trace(&[])
        .prints("# to add by hand: `proc: true`:\n")
        .prints(" finds its libraries by $ORIGIN, which the loader learns from /proc/self/exe");
    let doctor = || {
        sandbox
            .run(&["doctor", "--json", "--timeout", "60", "s"])
            .json()
    };
    let libraries = |report: &Value| {
        let checks = report["sites"][0]["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == "libraries");
        check.unwrap().clone()
    };
    let check = libraries(&doctor());
    assert_eq!(check["verdict"], "failed");
    assert_eq!(check["remedy"], serde_json::json!(["proc: true"]));

    let text = format!(
        "root: {}\nprograms: [{}]\nproc: true\n",
        root.display(),
        program.display()
    );
    sandbox.manifest("s", text);
    sandbox.ok(&["up", "s"]);
    assert_eq!(
        trace(&["--json"]).exits(0).json()["without_proc"],
        serde_json::json!([])
    );
    assert_eq!(libraries(&doctor())["verdict"], "ok");
}

/// A directory that everybody may write to is not bound, but made.
pub fn scratch() {
    let (sandbox, root) = site("programs: [/bin/busybox]\nusers: [www-data]\n");
    let script = "echo 1 >/tmp/a && busybox mkdir /var/tmp/b && busybox ls /var/tmp";
    let command = ["busybox", "sh", "-c", script];
    let traced = ["trace", "s", "--json", "--user", "www-data", "--"];
    let report = sandbox.run(&[&traced[..], &command].concat()).json();
    has(&report, "directories: [{ path: /tmp, mode: \"1777\" }]");
    works_after_two_rounds(&sandbox, &command, "b\n");
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode();
    assert_eq!(
        (mode("tmp") & 0o7777, mode("var/tmp") & 0o7777),
        (0o1777, 0o1777)
    );
    assert!(!Path::new("/var/tmp/b").exists(), "it is the site's own");
}

/// Files that are written where everything is read-only, in a mount and in what was made for it.
pub fn read_only() {
    let (sandbox, _) = site("programs: [/bin/busybox]\netc: [hosts, services, protocols]\n");
    let script = "echo >/etc/hosts; mkdir /etc/new; echo >/etc/x.pid";
    let command = ["trace", "--json", "s", "--", "busybox", "sh", "-c", script];
    let report = sandbox.run(&command).exits(1).json();
    refused(
        &report,
        "/etc/hosts",
        "/etc/hosts is /etc/hosts, mounted read-only",
    );
    refused(
        &report,
        "/etc/new",
        "`directories` or `tmpfs` gives the site one",
    );
    refused(
        &report,
        "/etc/x.pid",
        "it was to be written in a directory that is read-only",
    );
    assert_eq!(lines(&report), Vec::<&str>::new());
}

pub fn denied() {
    let (sandbox, root) = site("programs: [/bin/busybox]\nusers: [www-data]\n");
    let closed = root.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("file"), "").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let trace = |arguments: &[&str]| {
        let command = ["trace", "--json", "s", "--", "busybox", "cat"];
        sandbox.run(&[&command, arguments].concat()).exits(1).json()
    };
    let why = format!(
        "www-data may not enter {}, which is of mode 0700, root:root",
        closed.display()
    );
    refused(&trace(&["/closed/file"]), "/closed/file", &why);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    let file = closed.join("file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let why = format!(
        "www-data may not use {}, which is of mode 0600, root:root",
        file.display()
    );
    refused(&trace(&["/closed/file"]), "/closed/file", &why);
}

pub fn no_program() {
    let (sandbox, _) = site("programs: [/bin/busybox]\n");
    for (program, remedy) in [
        ("no-such", "install no-such on the host first"),
        (
            "openssl",
            "`programs: [/usr/bin/openssl]` in the manifest brings it",
        ),
    ] {
        let traced = sandbox.run(&["trace", "s", "--", program]).exits(127);
        traced.says(remedy);
    }
}

/// A state directory that the host has; and a file made after it was looked up.
pub fn made() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    fs::create_dir(root.join("tmp")).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let trace = |script: &str| {
        let command = ["trace", "--json", "s", "--", "busybox", "sh", "-c", script];
        sandbox.run(&command).json()
    };
    let report = trace("mkdir /var/lib/mountjail-none; echo >/var/lib/x.pid");
    let remedy = "its directory /var/lib is not inside: \
                  `directories: [{ path: /var/lib, user: nobody }]` makes one";
    refused(&report, "/var/lib/mountjail-none", remedy);
    refused(&report, "/var/lib/x.pid", remedy);
    // What readlink(2) says of a directory is the same on the host.
    let report = trace("busybox readlink /usr/local");
    assert_eq!(report["lines"], serde_json::json!([]), "{report:#}");
    let report = trace("busybox readlink /usr/local; test -d /usr/local");
    refused(&report, "/usr/local", "every host has this directory");
    let source = sandbox.directory("uploads");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o777)).unwrap();
    let mount = format!(
        "mounts: [{{ source: {}, access: read-write }}]\n",
        source.display()
    );
    let text = format!(
        "root: {}\nprograms: [/bin/busybox]\n{mount}",
        root.display()
    );
    sandbox.manifest("s", &text);
    sandbox.ok(&["up", "s"]);
    let file = source.join("new").display().to_string();
    let report = trace(&format!("test -e {file} || echo 1 >{file}"));
    assert_eq!(report["not_mounted"], serde_json::json!([]), "{report:#}");
}

/// Sites with an interpreter alone.
pub fn languages() {
    let perl = [
        "perl",
        "-MPOSIX",
        "-MSocket",
        "-MEncode",
        "-e",
        "print POSIX::floor(4.5)",
    ];
    let python = ["python3", "-c", "import tempfile, ssl; print(4)"];
    for command in [&perl[..], &python] {
        let name = command[0];
        let (sandbox, _) = site(&format!("programs: [/usr/bin/{name}]\nusers: [www-data]\n"));
        works_after_two_rounds(&sandbox, command, "4");
        let manifest = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
        let is_its = |line: &str| line.starts_with("presets: ") && line.contains(name);
        assert!(manifest.lines().any(is_its), "{manifest}");
        assert!(manifest.lines().count() < 6, "{manifest}");
    }
}

/// What the loader and others look at on their way to something else.
pub fn components() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    let source = sandbox.file(
        "l.c",
        "#include <dlfcn.h>\n#include <stdio.h>\nint main(void) {\n\
         if (dlopen(\"libz.so.1\", RTLD_NOW)) return 0;\nputs(dlerror());\nreturn 1;\n}\n",
    );
    let program = root.join("load");
    let mut compiler = Command::new("gcc");
    compiler.args(["-static", "-w", "-o"]);
    Ran::of(compiler.arg(&program).arg(source)).exits(0);
    let report = sandbox
        .run(&["trace", "--json", "s", "--", "/load"])
        .exits(1)
        .json();
    let lines = lines(&report).join("\n");
    assert!(
        lines.contains("libz.so.1") && !lines.contains("mounts"),
        "{report:#}"
    );
    works_after_two_rounds(&sandbox, &["/load"], "");
}

/// Links of the site's own that lead out of what is inside.
pub fn links_out() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    fs::create_dir(root.join("app")).unwrap();
    symlink("/usr/bin/id", root.join("app/tool")).unwrap();
    symlink("/usr/share/zoneinfo", root.join("app/zones")).unwrap();
    let script = "/app/tool; busybox cat /app/zones/UTC";
    let command = ["trace", "--json", "s", "--", "busybox", "sh", "-c", script];
    let report = sandbox.run(&command).json();
    has(&report, "programs: [/usr/bin/id]");
    has(&report, "presets: [timezone]");
    let ran = sandbox.run(&["exec", "s", "--", "/app/tool"]).exits(127);
    ran.says("`programs: [/usr/bin/id]` in the manifest brings it");
}

/// `/dev` is nobody's to have, but a preset brings `/dev/log`.
pub fn log() {
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let socket = "/run/systemd/journal/dev-log";
    let _server = UnixDatagram::bind(socket).unwrap();
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).unwrap();
    if !Path::new("/dev/log").exists() {
        let dev = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("dev"), "/dev", Some("tmpfs"), dev, Some("mode=755")).unwrap();
        for (name, minor) in [("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)] {
            let mode = Mode::from_bits_truncate(0o666);
            let path = Path::new("/dev").join(name);
            mknod(&path, SFlag::S_IFCHR, mode, makedev(1, minor)).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }
        symlink(socket, "/dev/log").unwrap();
    }
    let (sandbox, _) = site("programs: [/bin/busybox]\n");
    let command = ["trace", "--json", "s", "--", "busybox", "logger", "hello"];
    let report = sandbox.run(&command).json();
    has(&report, "presets: [syslog]");
}

/// A failing program that misses nothing.
pub fn fails_by_itself() {
    let (sandbox, _) = site("programs: [/bin/busybox]\n");
    let command = ["trace", "s", "--", "busybox", "false"];
    let ran = sandbox.run(&command).exits(1);
    ran.says("s: the program failed (exit code 1), but looked up nothing in vain");
}
