//! Promise: `exec` runs a command inside as its daemon would, and is the command: exit code,
//! signals, terminal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Ran, Sandbox, alone, mounts_below, on_shared_root, trials};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub fn all() -> Vec<Trial> {
    let mut trials = trials([
        ("the exit code and the streams are the command's", streams),
        ("signals reach the command", signals),
        ("the terminal is kept", terminal),
        ("nothing is typed into the terminal", typing),
        ("nothing that the caller has open is passed on", descriptors),
        ("no key of the caller is passed on", keys),
        (
            "no capability is passed on, whatever the caller's securebits are",
            capabilities,
        ),
        ("a command gets the user's ids and a new environment", user),
        ("a site that is down is refused, or brought up", up_first),
        (
            "a missing program is reported with the line that brings it",
            missing,
        ),
        ("a static program runs in a jail with nothing else", busybox),
        ("no setting of mountjail's own is passed on", settings),
    ]);
    // Run alone, because it mounts on /etc/php.
    trials.push(on_shared_root(
        "a command runs as the right user, and never as root by default",
        default_user,
    ));
    trials.push(alone("ping works with its capability or its sysctl", ping));
    trials
}

/// The host's ping, in a network namespace in which only a capability opens its sockets.
fn ping() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    Ran::of(Command::new("ip").args(["link", "set", "lo", "up"])).exits(0);
    let sandbox = Sandbox::new();
    // Some distributions leave its capability out.
    let own = sandbox.program("host/ping", fs::read("/usr/bin/ping").unwrap());
    Ran::of(Command::new("setcap").arg("cap_net_raw+ep").arg(&own)).exits(0);
    mount(
        Some(&own),
        "/usr/bin/ping",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let exec = |manifest: &str| {
        sandbox.site("s", manifest);
        sandbox.ok(&["up", "s"]);
        sandbox.run(&["exec", "s", "--", "ping", "-c1", "127.0.0.1"])
    };
    exec("presets: [ping]\n")
        .exits(2)
        .says("Operation not permitted");
    let line = "mounts: [{ source: /usr/bin/ping, executable: true, setuid: true }]";
    sandbox
        .ok(&["-v", "check", "s"])
        .says(&format!("`{line}` beside this line changes that"));
    let with_capability = format!("presets: [ping]\n{line}\n");
    exec(&with_capability).exits(0).prints("1 received");
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    exec("presets: [ping]\n").exits(0).prints("1 received");
}

/// A site with a shell that is up.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.site(
        "s",
        "presets: [shell]\nprograms: [/usr/bin/id, /usr/bin/env, /usr/bin/tty]\n\
         users: [www-data]\n",
    );
    sandbox.ok(&["up", "s"]);
    sandbox
}

fn streams() {
    let sandbox = sandbox();
    let ran = sandbox
        .run(&[
            "exec",
            "s",
            "--",
            "/bin/sh",
            "-c",
            "echo out; echo err >&2; exit 42",
        ])
        .exits(42);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "err\n")
    );
    let listed = sandbox.ok(&["exec", "s", "--", "ls", "/"]).stdout;
    assert!(
        listed.contains("usr\n") && !listed.contains("root\n"),
        "it is in the jail: {listed}"
    );
    sandbox
        .ok(&["exec", "s", "--", "sh", "-c", "pwd"])
        .prints("/\n");
}

fn signals() {
    let sandbox = sandbox();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // A shell cannot trap what was ignored when it began, as it is below nohup(1).
        let mut child = sandbox
            .command_under(&["env", "--default-signal=TERM,INT,HUP"])
            .args([
                "exec",
                "s",
                "--",
                "sh",
                "-c",
                "trap 'echo got it; exit 7' TERM INT HUP; echo ready; while :; do :; done",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "got it");
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
    sandbox
        .run(&["exec", "s", "--", "sh", "-c", "kill -KILL $$"])
        .exits(128 + 9);
}

fn terminal() {
    let sandbox = sandbox();
    let typed =
        |command: &str| sandbox.on_a_terminal(&format!("$MOUNTJAIL exec s -- sh -c '{command}'"));
    typed("test -t 0 && test -t 1 && test -t 2").exits(0);
    typed("exit 5").exits(5);
}

/// The shell that gets the terminal back would run as root whatever a program typed into it.
fn typing() {
    let sandbox = sandbox();
    sandbox.compile("srv/s/typing", include_str!("../support/typing.c"));
    let run = |command: &str, how: &str| {
        sandbox.on_a_terminal(&format!("{command} s -- /typing '{how}'"))
    };
    for how in [
        "plain",
        "high",
        "i386",
        "x32",
        "paste",
        "paste high",
        "paste i386",
        "paste x32",
    ] {
        let ran = run("$MOUNTJAIL exec", how);
        if how.contains("i386") && ran.code == 128 + 11 {
            continue; // a kernel without 32-bit programs
        }
        ran.exits(0)
            .prints(&format!("{how}: Operation not permitted"));
    }
    run("$MOUNTJAIL exec --user www-data", "plain").exits(0);
    run("$MOUNTJAIL trace", "plain")
        .exits(0)
        .prints("plain: Operation not permitted");

    // A kernel without filters: nothing is run on the terminal, but without one there is nowhere to
    // type.
    let old =
        "strace -f -o /dev/null -e trace=seccomp -e inject=seccomp:error=ENOSYS $MOUNTJAIL exec";
    let refused = run(old, "plain").exits(1);
    refused
        .prints(
            "error: s: cannot keep what runs inside from typing into this terminal: Function not \
             implemented",
        )
        .prints("try: run it without this terminal: `setsid --wait mountjail");
    sandbox
        .on_a_terminal(&format!("setsid --wait {old} s -- true"))
        .exits(0);
}

/// Of the caller's open files only the three streams are passed on, and none of these may be a
/// directory.
fn descriptors() {
    let sandbox = sandbox();
    sandbox.site("proc", "presets: [busybox]\nmounts: [/proc]\n");
    sandbox.ok(&["up", "proc"]);
    let run = |redirected: &str, runner: &str, command: &str| {
        let line = format!("exec {redirected} {runner} \"$MOUNTJAIL\" {command}");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line])
            .env("MOUNTJAIL", env!("CARGO_BIN_EXE_mountjail"));
        shell
            .env("MOUNTJAIL_CONFIG_DIR", sandbox.config())
            .env("MOUNTJAIL_STATE_DIR", sandbox.state());
        Ran::of(shell.stdin(Stdio::null()))
    };
    let old = |errno| {
        format!("strace -o /dev/null -e trace=close_range -e inject=close_range:error={errno}")
    };
    for runner in [String::new(), old("ENOSYS"), old("EINVAL")] {
        let inside = |command: &str| {
            let command = format!("{command} proc -- busybox ls /proc/self/fd");
            run("7</etc/shadow 8</ 9>/dev/null", &runner, &command).exits(0)
        };
        // ls(1) itself opens the directory.
        assert_eq!(inside("exec").stdout, "0\n1\n2\n3\n", "{runner}");
        assert_eq!(inside("trace -q").stderr, "0\n1\n2\n3\n", "{runner}");
    }
    run("</", "", "exec s -- true")
        .exits(2)
        .says("s: the standard input is a directory, through which the root can be left")
        .says("try: give it a file, such as /dev/null");
    run("2</", "", "exec s -- true").exits(2);
    run(">/dev/null 2</", "", "trace s -- true").exits(2);
    run("</etc/hostname", "", "exec s -- cat").exits(0);
}

/// `exec`, `trace` and `doctor` leave the session keyring before they give root up, so what runs
/// inside possesses neither the keys in it nor those of the keyrings that it leads to.
fn keys() {
    let sandbox = Sandbox::new();
    sandbox.site(
        "s",
        "presets: [shell]\nprograms: [/usr/bin/keyctl]\nusers: [www-data]\n",
    );
    sandbox.ok(&["up", "s"]);
    let with_key = |command: &str| {
        let line = format!(
            "keyctl add user secret token @s >&2 && keyctl newring inner @s >&2 && \
             keyctl add user inner-secret token %:inner >&2 && keyctl search @s user inner-secret \
             >&2 && {command}"
        );
        let mut session = Command::new("keyctl");
        session
            .args(["session", "-", "sh", "-c", &line])
            .env("MOUNTJAIL", env!("CARGO_BIN_EXE_mountjail"));
        session
            .env("MOUNTJAIL_CONFIG_DIR", sandbox.config())
            .env("MOUNTJAIL_STATE_DIR", sandbox.state());
        Ran::of(&mut session)
    };
    for command in ["exec", "exec --user root", "trace -q"] {
        for key in ["secret", "inner-secret"] {
            with_key(&format!(
                "$MOUNTJAIL {command} s -- keyctl search @s user {key}"
            ))
            .exits(1)
            .says("keyctl_search: Required key not available");
        }
    }

    // Every process that enters a root left its keyring before it became the user.
    let log = sandbox.path("log");
    let traced = format!(
        "strace -f -qq -o {} -e trace=keyctl,chroot,setuid $MOUNTJAIL",
        log.display()
    );
    for command in ["exec s -- true", "doctor s"] {
        with_key(&format!("{traced} {command}"));
        let calls = fs::read_to_string(&log).unwrap();
        let of = |pid: &str| {
            let calls = calls
                .lines()
                .filter_map(|line| line.split_once(char::is_whitespace));
            let own = calls
                .filter(|(caller, _)| *caller == pid)
                .map(|(_, call)| call.trim_start().to_owned());
            own.collect::<Vec<_>>()
        };
        let entered = calls.lines().filter(|line| line.contains("chroot("));
        let entered: Vec<_> = entered
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert!(!entered.is_empty(), "{command}: {calls}");
        for pid in entered {
            let calls = of(pid);
            let place = |name: &str| calls.iter().position(|call| call.starts_with(name));
            let joined = calls
                .iter()
                .position(|call| call.contains("KEYCTL_JOIN_SESSION_KEYRING, NULL"));
            assert!(
                joined.unwrap() < place("chroot(").unwrap(),
                "{command}: {calls:?}"
            );
            assert!(
                joined.unwrap() < place("setuid(").unwrap(),
                "{command}: {calls:?}"
            );
        }
    }

    // A kernel without keys, a container that refuses them, and a keyring that cannot be left.
    let failing = |error: &str| {
        let strace = format!(
            "strace -o /dev/null -e trace=keyctl -e inject=keyctl:error={error} $MOUNTJAIL"
        );
        with_key(&format!("{strace} exec s -- true"))
    };
    failing("ENOSYS").exits(0);
    failing("EPERM").exits(0);
    for error in ["EDQUOT", "EPERM:when=1"] {
        failing(error)
            .exits(1)
            .says("s: cannot keep the caller's keys (keyrings(7)) from what runs inside");
    }
}

/// With `no_setuid_fixup` a change of the user takes no capability away.
fn capabilities() {
    let sandbox = Sandbox::new();
    sandbox.site(
        "s",
        "presets: [shell]\nmounts: [/proc]\nusers: [www-data]\n",
    );
    sandbox.ok(&["up", "s"]);
    let keeping = [
        "setpriv",
        "--securebits",
        "+no_setuid_fixup",
        "--inh-caps",
        "+chown",
        "--ambient-caps",
        "+chown",
    ];
    for command in [&["exec"][..], &["trace", "-q"]] {
        let ran = Ran::of(sandbox.command_under(&keeping).args(command).args([
            "s",
            "--",
            "sh",
            "-c",
            "while read name set; do case $name in CapBnd:) ;; Cap*) echo $name $set;; esac; done \
             </proc/self/status >&2",
        ]))
        .exits(0);
        let sets: Vec<_> = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("Cap"))
            .collect();
        let none = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
            .map(|name| format!("{name} {}", "0".repeat(16)));
        assert_eq!(sets, none, "{ran}");
    }
}

fn user() {
    let sandbox = sandbox();
    let root = sandbox.ok(&["exec", "--user", "root", "s", "--", "id", "-u"]);
    assert_eq!(root.stdout, "0\n");
    let ran = sandbox.ok(&[
        "exec",
        "--user",
        "www-data",
        "s",
        "--",
        "sh",
        "-c",
        "id -u; id -g; id -G; echo $USER $HOME",
    ]);
    let host = Ran::of(Command::new("id").args(["-u", "www-data"])).stdout;
    let groups = Ran::of(Command::new("id").args(["-G", "www-data"])).stdout;
    let home = Ran::of(Command::new("getent").args(["passwd", "www-data"])).stdout;
    let home = home.split(':').nth(5).unwrap().to_owned();
    assert_eq!(ran.stdout, format!("{host}{host}{groups}www-data {home}\n"));
    sandbox
        .run(&[
            "exec",
            "--user",
            "www-data",
            "s",
            "--",
            "sh",
            "-c",
            "echo x >/made",
        ])
        .exits(2)
        .says("Permission denied");

    let environment = Ran::of(
        sandbox
            .command()
            .args(["exec", "s", "--", "env"])
            .env("SECRET", "token")
            .env("TERM", "vt100")
            .env("LC_TIME", "C"),
    );
    let mut keys: Vec<_> = environment
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    keys.sort_unstable();
    keys.retain(|key| !["LANG", "TZ", "COLORTERM"].contains(key));
    assert_eq!(
        keys,
        [
            "HOME", "LC_ALL", "LC_TIME", "LOGNAME", "PATH", "TERM", "USER"
        ]
    );
    let place = if cfg!(target_env = "musl") {
        "in the host's files (built with musl, "
    } else {
        "on this host"
    };
    sandbox
        .run(&["exec", "--user", "nobody-here", "s", "--", "id"])
        .exits(2)
        .says(&format!("there is no such user {place}"));
}

fn up_first() {
    let sandbox = sandbox();
    sandbox.ok(&["down", "s"]);
    sandbox
        .run(&["exec", "s", "--", "id"])
        .exits(1)
        .says("s: the site is not up")
        .says("try: bring it up with `mountjail up`, or give --up");
    sandbox
        .ok(&["exec", "--up", "s", "--", "id"])
        .prints("(www-data)");
    sandbox.ok(&["status", "s"]);
    let dead = mounts_below(&sandbox.root("s").join("etc/passwd"));
    nix::mount::umount(&dead[0].point).unwrap();
    sandbox
        .ok(&["exec", "s", "--", "true"])
        .says("warning: s: not all of its mounts are as they should be");
    sandbox
        .run(&["exec", "--up", "absent", "--", "id"])
        .exits(2)
        .says("there is no site absent");
    sandbox.run(&["exec", "s"]).exits(2);
}

fn missing() {
    let sandbox = sandbox();
    let tries = |command: &str, hint: &str| {
        sandbox
            .run(&["exec", "s", "--", command])
            .exits(127)
            .says(&format!(
                "s: cannot run {command} in the jail: No such file or directory"
            ))
            .says(hint)
    };
    for (command, line) in [
        ("/usr/bin/perl", "presets: [perl]"),
        ("perl", "presets: [perl]"),
        ("php", "presets: [php-cli]"),
        ("/usr/bin/openssl", "programs: [/usr/bin/openssl]"),
        ("openssl", "programs: [/usr/bin/openssl]"),
        ("/bin/openssl", "programs: [/bin/openssl]"),
        ("sendmail", "presets: [mail]"),
        ("git", "presets: [git]"),
        ("nodejs", "presets: [node]"),
        ("java", "presets: [java]"),
        ("less", "programs: [/usr/bin/less]"), // wp-cli has it, too
    ] {
        let hint = format!("try: `{line}` in the manifest brings it");
        tries(command, &hint);
        if !command.contains('/') {
            let script = format!("{command}; :");
            let traced = sandbox.ok(&["trace", "s", "--", "sh", "-c", &script]);
            let lines: Vec<_> = traced.stdout.lines().collect();
            let lines = lines.iter().filter(|text| !text.starts_with("  "));
            assert_eq!(lines.collect::<Vec<_>>(), [&line], "{command}: {traced}");
        }
    }
    tries("no-such", "try: install no-such on the host first");
    // A name without a slash is looked up in PATH, and `--` is not needed.
    let ran = sandbox.ok(&["exec", "s", "id", "-un"]);
    assert_eq!(ran.stdout, "www-data\n");
    sandbox.site("php", "programs: [\"/usr/bin/php[0-9]*\"]\n");
    let ran = sandbox.run(&["exec", "--up", "php", "php"]).exits(127);
    ran.says("try: run /usr/bin/php");
    let script = sandbox.root("s").join("script");
    sandbox.program(&script, "#!/usr/bin/perl\n");
    tries(
        "/script",
        "/script needs /usr/bin/perl: `presets: [perl]` in the manifest brings it",
    );
    let python = sandbox.root("s").join("venv/bin/python");
    fs::create_dir_all(python.parent().unwrap()).unwrap();
    symlink("python3", &python).unwrap();
    symlink("/usr/bin/python3", python.with_file_name("python3")).unwrap();
    tries(
        "/venv/bin/python",
        "/venv/bin/python is a link to /usr/bin/python3: `presets: [python3]` in the manifest \
         brings it",
    );
    fs::write(&script, "#!/venv/bin/python\n").unwrap();
    tries(
        "/script",
        "/script needs /venv/bin/python, a link to /usr/bin/python3: `presets: [python3]` in the \
         manifest brings it",
    );
    fs::write(&script, "#!/usr/bin/no-such\n").unwrap();
    tries(
        "/script",
        "/script needs /usr/bin/no-such, which this host does not have either",
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    sandbox
        .run(&["exec", "s", "--", "/script"])
        .exits(126)
        .says("Permission denied");
}

fn busybox() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "programs: [/bin/busybox]\n");
    sandbox
        .ok(&[
            "exec",
            "--up",
            "-q",
            "s",
            "--",
            "busybox",
            "sh",
            "-c",
            "echo inside; busybox ls /",
        ])
        .prints("inside\n");
}

/// The caller's umask and limits, and the signals' default handling.
fn settings() {
    let sandbox = sandbox();
    let program = env!("CARGO_BIN_EXE_mountjail");
    let line = format!(
        "umask 027; ulimit -Sn 123; exec {program} exec --up -q s -- sh -c 'umask; ulimit -Sn'"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]);
    shell
        .env("MOUNTJAIL_CONFIG_DIR", sandbox.config())
        .env("MOUNTJAIL_STATE_DIR", sandbox.state());
    assert_eq!(Ran::of(&mut shell).exits(0).stdout, "0027\n123\n");
    // A program that ignores SIGPIPE would write for ever.
    let pipe = sandbox.ok(&[
        "exec",
        "s",
        "--",
        "sh",
        "-c",
        "while echo y; do :; done | head -n 1",
    ]);
    assert_eq!(pipe.stdout, "y\n");
    assert_eq!(
        pipe.stderr, "",
        "the shell was ended by the signal, not by an error that it says"
    );
    let size = [
        "exec",
        "s",
        "--",
        "sh",
        "-c",
        "kill -XFSZ $$; echo survived",
    ];
    assert_eq!(sandbox.run(&size).stdout, "");
}

/// The pool's user, by any path to the root, else the manifest's; never root unless asked for.
fn default_user() {
    let sandbox = sandbox();
    mount(
        Some("php"),
        "/etc/php",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let who = |site: &str| {
        sandbox
            .ok(&["exec", site, "--", "id", "-u"])
            .stdout
            .trim()
            .to_owned()
    };
    let host = |user: &str| {
        Ran::of(Command::new("id").args(["-u", user]))
            .stdout
            .trim()
            .to_owned()
    };
    assert_eq!(who("s"), host("www-data"));
    sandbox.site(
        "listed",
        "presets: [shell]\nprograms: [/usr/bin/id]\n\
         users: [root, { name: ghost, optional: true }, games]\n",
    );
    sandbox.site("alone", "presets: [shell]\nprograms: [/usr/bin/id]\n");
    sandbox.ok(&["up", "listed", "alone"]);
    assert_eq!(
        (who("listed"), who("alone")),
        (host("games"), host("nobody"))
    );
    let traced = sandbox.ok(&["trace", "-q", "alone", "--", "id", "-u"]);
    assert_eq!(traced.stderr.trim(), host("nobody"));

    let pools = Path::new("/etc/php/8.2/fpm/pool.d");
    fs::create_dir_all(pools).unwrap();
    fs::write(
        "/etc/php/8.2/fpm/php-fpm.conf",
        "[global]\ninclude=/etc/php/8.2/fpm/pool.d/*.conf\n",
    )
    .unwrap();
    let link = sandbox.path("www");
    symlink(sandbox.path("srv"), &link).unwrap();
    let pool = |user: &str, chroot: &Path| {
        let text = format!(
            "[s]\nuser = {user}\ngroup = mail\nchroot = {}/\n",
            chroot.display()
        );
        fs::write(pools.join("s.conf"), text).unwrap();
    };
    for chroot in [sandbox.root("s"), link.join("s")] {
        pool("games", &chroot);
        assert_eq!(who("s"), host("games"), "{}", chroot.display());
        let group = sandbox.ok(&["exec", "s", "--", "id", "-g"]).stdout;
        assert_eq!(
            group,
            Ran::of(Command::new("sh").args(["-c", "getent group mail | cut -d: -f3"])).stdout
        );
    }
    pool("root", &sandbox.root("s"));
    assert_eq!(who("s"), host("www-data"));
    sandbox
        .ok(&["exec", "--user", "0", "s", "--", "id", "-u"])
        .prints("0\n");
    // The note may be about this process.
    fs::write(pools.join("t.conf"), "nonsense\n").unwrap();
    for command in ["exec", "trace"] {
        sandbox
            .run(&[command, "s", "--", "id"])
            .exits(1)
            .says("t.conf:1: `nonsense`: it has no value");
    }
    sandbox
        .ok(&["exec", "--user", "games", "s", "--", "id", "-u"])
        .prints(&host("games"));
}
