//! Promise: with `scope: services` the mounts exist for the service alone, and the service is
//! started as if mountjail was not there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{
    Fuse, Ran, Running, Sandbox, alone, mounts_below, size_at, soon, trials, wait_until,
};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        ("the mounts exist in the service's namespace alone", apart),
        (
            "the service is the same process as without mountjail",
            same_process,
        ),
        ("closed streams stay closed", closed_streams),
        (
            "the service's name and exit code are its own",
            name_and_code,
        ),
        ("a site that cannot come up is left out", left_out),
        ("sites are chosen by unit, by name, or all", chosen),
        ("remains of a namespace go with the next run", swept),
        (
            "two services share the placeholders of a site",
            shared_placeholders,
        ),
        ("a signal before the service starts ends it", signalled),
        (
            "mounts on the host appear to the service, and not the other way",
            slave,
        ),
        ("a tmpfs in a service's namespace keeps its files", resized),
        ("a read-only sandbox stays read-only", sandbox_stays),
        (
            "without the right to make namespaces the service starts all the same",
            not_permitted,
        ),
    ]);
    all.push(alone(
        "a file system that hangs delays the service once, and leaves it no child",
        hanging,
    ));
    all
}

/// A sandbox with the site `name` for `a.service`, which has one file of the host.
fn sandbox(name: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    add_site(&sandbox, name, "a.service");
    sandbox
}

fn add_site(sandbox: &Sandbox, name: &str, service: &str) -> PathBuf {
    let source = sandbox.file("host/file", "of the host\n");
    let source = source.display();
    let text = format!(
        "scope: services\nservices: [{service}]\nmounts: [{{ source: {source}, target: /file }}]\n"
    );
    sandbox.site(name, &text)
}

/// `mountjail run` with these arguments before `--`, and a line of the shell as the service.
fn service(sandbox: &Sandbox, arguments: &[&str], line: &str) -> Command {
    let mut command = sandbox.command();
    command
        .arg("run")
        .args(arguments)
        .args(["--", "sh", "-c", line]);
    command
}

fn namespaces(sandbox: &Sandbox) -> Vec<PathBuf> {
    let entries = fs::read_dir(sandbox.state().join("run/namespaces"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn apart() {
    let sandbox = sandbox("site");
    let root = sandbox.root("site");
    let file = root.join("file");
    let line = format!("cat {0}; : >{0}", file.display());
    let ran = Ran::of(&mut service(&sandbox, &["--unit", "a"], &line));
    assert_eq!(ran.stdout, "of the host\n", "{ran}");
    ran.says("Read-only file system").says("1 site, 1 mount");
    assert!(mounts_below(&root).is_empty());
    assert_eq!(fs::read(&file).unwrap(), b"", "the placeholder stays");
}

/// Prints what a process inherits. Its pid is that of the shell that became it.
const INHERITED: &str =
    "echo pid $(($$ - START)); env | grep -v -e ^_= -e ^START= | sort; umask; pwd; ulimit -a
    nice; cat /proc/self/oom_score_adj /proc/self/timerslack_ns; readlink /proc/self/fd/7 </dev/null
    for fd in /proc/$$/fd/*; do echo ${fd##*/}; done; cat /proc/$$/cgroup; chrt -p $$ | cut -d: -f2
    cut -d' ' -f5-6 /proc/$$/stat; keyctl id @s; ps --ppid $$ -o comm= | sort";

/// As [`INHERITED`], of a program that changes none of it, as a shell does.
const STATUS: &str = "grep -E ^(Sig[PBI]|Shd|Cap|Uid|Gid|Groups|NoNewPrivs|Seccomp:|Cpus_a) \
                      /proc/self/status";

fn same_process() {
    let sandbox = sandbox("site");
    let directory = sandbox.directory("work");
    sandbox.file("open", "");
    let inherited = |how: &str, what: &str| {
        // SIGHUP and SIGPIPE are ignored, SIGUSR1 is blocked.
        let script = format!(
            "trap '' HUP PIPE; umask 027; ulimit -S -n 99; ulimit -c 7; cd {work}
             exec 7>>{open}; echo 33 >/proc/self/oom_score_adj; START=$$; export START
             exec env --block-signal=USR1 nice -n 3 {how} {what} 2>&1",
            work = directory.display(),
            open = sandbox.path("open").display(),
        );
        let mut command = sandbox.command();
        let program = command.get_program().to_owned();
        let environment: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command = Command::new("sh");
        command.env_clear().envs(environment).env("WHAT", INHERITED);
        command.env("STATUS", STATUS);
        command
            .env("NOTIFY_SOCKET", "/run/systemd/notify")
            .env("M", program);
        Ran::of(command.args(["-c", &script])).exits(0).stdout
    };
    let run = "\"$M\" --quiet run --unit a.service --";
    let without = inherited("", "sh -c \"$WHAT\"");
    assert!(
        without.contains("NOTIFY_SOCKET") && without.contains("pid 0"),
        "{without}"
    );
    assert_eq!(inherited(run, "sh -c \"$WHAT\""), without);
    let without = inherited("", "$STATUS");
    assert!(without.contains("SigBlk:\t0000000000000200"), "{without}");
    assert_eq!(inherited(run, "$STATUS"), without);
}

fn closed_streams() {
    let sandbox = sandbox("site");
    let line = "ls /proc/$$/fd >%s; grep ^SigIgn /proc/$$/status >>%s";
    let list = |how: &str| {
        let to = sandbox.path("list");
        let line = line.replace("%s", &to.display().to_string());
        let program = env!("CARGO_BIN_EXE_mountjail");
        let how = how.replace("$M", program);
        let script = format!("exec <&- 2>&-; exec {how} sh -c '{line}'");
        let mut command = sandbox.command_under(&["sh", "-c", &script]);
        Ran::of(&mut command).exits(0);
        fs::read_to_string(to).unwrap()
    };
    assert_eq!(list("$M run --all --"), list(""));
}

fn name_and_code() {
    let sandbox = sandbox("site");
    let mut command = sandbox.command();
    command.args([
        "run",
        "--all",
        "--argv0",
        "--",
        "sh",
        "name",
        "-c",
        "echo $0; exit 7",
    ]);
    let ran = Ran::of(&mut command).exits(7);
    assert_eq!(ran.stdout, "name\n", "{ran}");
    let missing = sandbox.run(&["run", "--all", "--", "/no/such"]).exits(127);
    missing.says("cannot run /no/such: No such file");
    let mut command = sandbox.command();
    command
        .args(["run", "--all", "--"])
        .arg(sandbox.file("text", "no program"));
    Ran::of(&mut command).exits(126).says("Permission denied");
    let killed = Ran::of(&mut service(&sandbox, &["--all"], "kill -KILL $$"));
    assert_eq!(killed.code, 128 + 9, "{killed}");
}

fn left_out() {
    let sandbox = sandbox("good");
    let bad = "scope: services\nservices: [a.service]\nmounts: [/no/such/file]\n";
    sandbox.site("bad", bad);
    sandbox.manifest("broken", "root: 7\n");
    let line = format!("cat {}/file", sandbox.root("good").display());
    let ran = Ran::of(&mut service(&sandbox, &["--unit", "a.service"], &line)).exits(0);
    assert_eq!(ran.stdout, "of the host\n", "{ran}");
    let ran = ran
        .says("/no/such/file")
        .says("broken")
        .says("1 site, 1 mount");
    ran.says("sh is started without the sites that are not up");
    let strict = Ran::of(&mut service(
        &sandbox,
        &["--unit", "a", "--strict"],
        "echo ran",
    ));
    let strict = strict.exits(1).says("sh is not started");
    assert_eq!(strict.stdout, "", "{strict}");
}

fn chosen() {
    let sandbox = sandbox("one");
    add_site(&sandbox, "two", "b.service");
    let host = sandbox.site("host", "devices: [zero]\n");
    let up = |arguments: &[&str]| {
        let line = format!(
            "cd {}; ls -s */file */dev/zero 2>/dev/null",
            sandbox.path("srv").display()
        );
        let ran = Ran::of(&mut service(&sandbox, arguments, &line));
        let lines = ran
            .stdout
            .lines()
            .filter(|line| !line.trim_start().starts_with('0'));
        let names = lines.map(|line| line.trim_start()[2..].to_owned());
        (names.collect::<Vec<_>>().join(" "), ran)
    };
    assert_eq!(up(&["--unit", "a"]).0, "one/file");
    assert_eq!(
        up(&["--unit", "a", "--unit", "b.service"]).0,
        "one/file two/file"
    );
    let (none, ran) = up(&["--unit", "c", "--unit", "a"]);
    assert_eq!(none, "one/file");
    let ran = ran.says("no site with `scope: services` lists c.service under `services`");
    assert!(!ran.stderr.contains("lists a.service"), "{ran}");
    assert_eq!(up(&["two"]).0, "two/file");
    assert_eq!(up(&["--all"]).0, "one/file two/file");
    let (names, ran) = up(&["one", "host"]);
    assert_eq!(names, "one/file");
    ran.says("host: its mounts belong to the host")
        .says("scope: services");
    assert!(!host.join("dev").exists());
    sandbox.run(&["run", "--", "true"]).exits(2).says("SITE");
    sandbox.run(&["run", "--all"]).exits(2).says("CMD");
}

fn swept() {
    let sandbox = sandbox("site");
    Ran::of(&mut service(&sandbox, &["--all"], "true")).exits(0);
    let first = namespaces(&sandbox);
    assert_eq!(first.len(), 1);
    let ready = sandbox.path("ready");
    let line = format!(": >{}; exec sleep 1000", ready.display());
    let _running = Running::start_until(&mut service(&sandbox, &["--all"], &line), |_| {
        ready.exists()
    });
    let second = namespaces(&sandbox);
    assert_eq!(second.len(), 1, "{second:?}");
    Ran::of(&mut service(&sandbox, &["--all"], "true")).exits(0);
    let both = namespaces(&sandbox);
    assert!(
        both.len() == 2 && both.contains(&second[0]),
        "a living one stays: {both:?}"
    );
}

fn shared_placeholders() {
    let sandbox = sandbox("site");
    let file = sandbox.root("site").join("file");
    let ready = sandbox.path("ready");
    let line = format!(": >{0}; read go; cat {1}", ready.display(), file.display());
    let mut command = service(&sandbox, &["--all"], &line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut first = Running::start_until(&mut command, |_| ready.exists());
    let placeholder = fs::metadata(&file).unwrap();
    // The second one wants less, and does not take away what the first one uses.
    let root = sandbox.root("site");
    sandbox.manifest(
        "site",
        format!(
            "root: {}\nscope: services\nservices: [a.service]\n",
            root.display()
        ),
    );
    let second = Ran::of(&mut service(
        &sandbox,
        &["--all"],
        &format!("cat {}", file.display()),
    ));
    assert_eq!(second.exits(0).stdout, "");
    assert_eq!(fs::metadata(&file).unwrap().ino(), placeholder.ino());
    drop(first.0.stdin.take());
    let mut text = String::new();
    std::io::Read::read_to_string(first.0.stdout.as_mut().unwrap(), &mut text).unwrap();
    assert_eq!(text, "of the host\n");
}

fn signalled() {
    let sandbox = sandbox("site");
    fs::create_dir_all(sandbox.state().join("run")).unwrap();
    let lock = sandbox.file("state/run/site.lock", "");
    // Another mountjail holds the site's lock.
    let held = fs::File::options().write(true).open(&lock).unwrap();
    held.lock().unwrap();
    let told = sandbox.path("told");
    let mut command = service(&sandbox, &["--all"], "echo ran");
    command.stderr(fs::File::create(&told).unwrap());
    command.stdout(fs::File::create(sandbox.path("out")).unwrap());
    let mut running = Running::start_until(&mut command, |_| {
        fs::read_to_string(&told)
            .unwrap()
            .contains("waiting for another mountjail")
    });
    kill(
        Pid::from_raw(running.pid().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    let status = running.0.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{status:?}");
    assert_eq!(fs::read_to_string(sandbox.path("out")).unwrap(), "");
}

fn slave() {
    let sandbox = sandbox("site");
    let (there, back) = (sandbox.directory("there"), sandbox.directory("back"));
    let line = format!(
        "mount -t tmpfs x {0} && grep -c ' {0} ' /proc/self/mountinfo",
        back.display()
    );
    let ran = Ran::of(&mut service(&sandbox, &["--all"], &line)).exits(0);
    assert_eq!(ran.stdout, "1\n");
    assert!(
        mounts_below(&sandbox.path(""))
            .iter()
            .all(|mount| mount.point != back)
    );
    assert!(there.is_dir());
}

fn resized() {
    let sandbox = Sandbox::new();
    let manifest = |size: &str| {
        format!(
            "scope: services\nservices: [a.service]\ntmpfs: [{{ target: /tmp, size: {size} }}]\n"
        )
    };
    let root = sandbox.site("site", &manifest("8M"));
    let line = format!("echo kept >{}/tmp/file; exec sleep 1000", root.display());
    let mut run = service(&sandbox, &["--unit", "a"], &line);
    let running = Running(run.stderr(Stdio::null()).spawn().unwrap());
    let seen = Path::new("/proc")
        .join(running.pid().to_string())
        .join("root");
    let tmp = seen.join(root.strip_prefix("/").unwrap()).join("tmp");
    let is_kept = || fs::read_to_string(tmp.join("file")).is_ok_and(|text| text == "kept\n");
    wait_until("the service has written its file", is_kept);

    sandbox.site("site", &manifest("4M"));
    sandbox.ok(&["up", "site"]).says("1 swapped");
    assert!(is_kept());
    assert_eq!(size_at(&tmp), 4 << 20);
    sandbox.ok(&["up", "site"]).says("nothing to do");
    assert!(mounts_below(&root).is_empty());
}

fn sandbox_stays() {
    let sandbox = sandbox("site");
    let line = "set -e; mount -o bind \"$D\" \"$D\"; mount -o remount,bind,ro \"$D\"
        exec \"$M\" run --all --strict -- sh -c 'cat $D/srv/site/file; : >$D/x'";
    let mut command = sandbox.command();
    let program = command.get_program().to_owned();
    let environment: Vec<_> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", line])
        .env_clear()
        .envs(environment);
    command.env("D", sandbox.path("")).env("M", program);
    let ran = Ran::of(&mut command);
    assert_eq!(ran.stdout, "of the host\n", "{ran}");
    ran.says("Read-only file system");
    assert!(!sandbox.path("x").exists());
}

fn not_permitted() {
    let sandbox = sandbox("site");
    let mut command = sandbox.command_under(&["setpriv", "--bounding-set=-sys_admin"]);
    command.args(["run", "--all", "--", "echo", "ran"]);
    let ran = Ran::of(&mut command).exits(0);
    assert_eq!(ran.stdout, "ran\n", "{ran}");
    ran.says("cannot make a mount namespace")
        .says("mountjail units --check");
    let mut command = sandbox.command_under(&["setpriv", "--bounding-set=-sys_admin"]);
    command.args(["run", "--all", "--strict", "--", "echo", "ran"]);
    assert_eq!(Ran::of(&mut command).exits(1).stdout, "");
}

fn hanging() {
    let sandbox = sandbox("good");
    let point = sandbox.directory("fuse");
    let fuse = Fuse::mount(&point, 61001);
    let source = point.join("data/file");
    let text = format!(
        "scope: services\nservices: [a.service]\nmounts: [{{ source: {}, target: /x }}]\n",
        source.display()
    );
    sandbox.site("hangs", &text);
    fuse.hang();
    let line = format!(
        "cat {}/file; ps --ppid $$ -o comm= | grep -v -e ps -e grep; true",
        sandbox.root("good").display()
    );
    let arguments = ["--unit", "a.service", "--timeout", "5"];
    let ran = Ran::of(&mut service(&sandbox, &arguments, &line)).exits(0);
    assert_eq!(ran.stdout, "of the host\n", "{ran}");
    ran.says("hangs: ").says("did not answer within 5 s");
    fuse.resume();
    let gone = || {
        let left = namespaces(&sandbox);
        let swept = Ran::of(&mut service(&sandbox, &["good"], "true"));
        assert_eq!(swept.code, 0, "{swept}");
        let is_gone = left.iter().all(|directory| !directory.exists());
        is_gone.then_some(()).ok_or_else(|| format!("{left:?}"))
    };
    soon("the worker that was left behind has ended", gone);
    assert!(Path::new(&point).exists());
}
