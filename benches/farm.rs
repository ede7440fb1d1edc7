//! Whole processes against the raw system calls and against what people use instead, in one table.
//!
//! `cargo bench`, as root, on a quiet machine. Every site has 30 mounts, its placeholders are there
//! already. All of it happens in a mount namespace of its own. Ratios of one run are what counts;
//! times are of this machine.

mod support;

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mountjail::sys::{self, MountAttr};
use nix::mount::{MntFlags, umount2};
use nix::sys::resource::{UsageWho, getrusage};
use support::{Farm, MOUNTS, apart};

/// Sites of the large farm.
const MANY: usize = 1000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--raw-up", dir, sites] => raw_up(&farm(dir, sites)),
        ["--raw-down", dir, sites] => raw_down(&farm(dir, sites)),
        ["--peak", program, ref rest @ ..] => peak(program, rest),
        _ => table(),
    }
}

/// This program again, for the raw calls.
fn raw(farm: &Farm, command: &str) -> Command {
    let mut raw = Command::new(env::current_exe().unwrap());
    raw.arg(command).arg(&farm.dir).arg(farm.sites.to_string());
    raw
}

/// The same mounts as lines for mount(8).
fn fstab(farm: &Farm) -> PathBuf {
    let mut text = String::new();
    for site in 0..farm.sites {
        for nth in 0..MOUNTS {
            let (source, target) = (farm.source(nth), farm.target(site, nth));
            let _ = writeln!(
                text,
                "{} {} none bind,ro,nosuid,nodev,noexec 0 0",
                source.display(),
                target.display()
            );
        }
    }
    let path = farm.dir.join("fstab");
    fs::write(&path, text).unwrap();
    path
}

/// This command, on all sites of the farm.
fn all(farm: &Farm, command: &str) -> Command {
    farm.mountjail(&[command, "--all", "--quiet"])
}

/// The farm that another process has made.
fn farm(dir: &str, sites: &str) -> Farm {
    Farm {
        dir: dir.into(),
        sites: sites.parse().unwrap(),
    }
}

/// Runs a command to its end and takes the time.
fn time(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().unwrap();
    let took = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Medians of the whole life of a farm, ours and the raw one in turn.
struct Life {
    up: Duration,
    again: Duration,
    down: Duration,
    raw_up: Duration,
    raw_down: Duration,
}

fn life(farm: &Farm, rounds: usize) -> Life {
    let mut times: [Vec<Duration>; 5] = Default::default();
    for _ in 0..rounds {
        times[0].push(time(&mut all(farm, "up")));
        times[1].push(time(&mut all(farm, "up")));
        times[2].push(time(&mut all(farm, "down")));
        times[3].push(time(&mut raw(farm, "--raw-up")));
        times[4].push(time(&mut raw(farm, "--raw-down")));
    }
    let [up, again, down, raw_up, raw_down] = times.map(median);
    Life {
        up,
        again,
        down,
        raw_up,
        raw_down,
    }
}

fn table() {
    let base = apart();
    let farm = |sites| Farm::new(base.path(), sites);

    let (one, ten, hundred, many) = (farm(1), farm(10), farm(100), farm(MANY));
    let of_one = life(&one, 21);
    let spawn = median((0..21).map(|_| time(&mut bubblewrap(&one))).collect());
    let of_ten = life(&ten, 11);
    let of_hundred = life(&hundred, 5);
    let mount_a = time(
        Command::new("mount")
            .arg("-a")
            .arg("-T")
            .arg(fstab(&hundred)),
    );
    raw_down(&hundred);
    let of_many = life(&many, 5);
    let resident = peak_of(&many);

    println!("{MOUNTS} mounts per site; medians; times in ms\n");
    println!(
        "{:<34} {:>10} {:>10} {:>7}  goal",
        "", "mountjail", "reference", "ratio"
    );
    let row = |what: &str, ours: Duration, theirs: Duration, goal: &str| {
        let (ours, theirs) = (ours.as_secs_f64() * 1e3, theirs.as_secs_f64() * 1e3);
        println!(
            "{what:<34} {ours:>10.2} {theirs:>10.2} {:>7.2}  {goal}",
            ours / theirs
        );
    };
    row("up, 1 site / bubblewrap spawn", of_one.up, spawn, "<= 1");
    row("up, 1 site / raw calls", of_one.up, of_one.raw_up, "");
    row(
        "up --all, 10 sites / raw calls",
        of_ten.up,
        of_ten.raw_up,
        "",
    );
    row(
        "up --all, 100 sites / raw calls",
        of_hundred.up,
        of_hundred.raw_up,
        "",
    );
    row("up --all, 100 sites / mount -a", of_hundred.up, mount_a, "");
    row(
        "up --all, 1000 sites / raw calls",
        of_many.up,
        of_many.raw_up,
        "<= 1.5",
    );
    row(
        "nothing to do, 1000 / raw calls",
        of_many.again,
        of_many.raw_up,
        "<= 1",
    );
    row(
        "down --all, 1000 / raw, one by one",
        of_many.down,
        of_many.raw_down,
        "<= 0.4",
    );
    row(
        "a site's up at 1000 / at 10",
        of_many.up / 1000,
        of_ten.up / 10,
        "<= 1.3",
    );
    println!(
        "{:<34} {:>10} {:>10} {:>7}  <= 64",
        "peak memory at 1000 sites, MiB", resident, "", ""
    );
    umount2(base.path(), MntFlags::MNT_DETACH).unwrap();
}

/// The same 30 files bound by bubblewrap around `true`.
fn bubblewrap(farm: &Farm) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--dev-bind", "/", "/"]);
    for nth in 0..MOUNTS {
        command
            .arg("--ro-bind")
            .arg(farm.source(nth))
            .arg(farm.target(0, nth));
    }
    command.arg("true");
    command
}

/// Peak resident memory of an `up --all` and of one with nothing to do, the larger, in MiB.
fn peak_of(farm: &Farm) -> i64 {
    let measure = |command: &str| {
        let inner = all(farm, command);
        let mut outer = Command::new(env::current_exe().unwrap());
        outer
            .arg("--peak")
            .arg(inner.get_program())
            .args(inner.get_args());
        let output = outer.output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse::<i64>()
            .unwrap()
    };
    let up = measure("up").max(measure("up"));
    up.max(measure("down"))
}

/// Runs a program and prints its peak resident memory in MiB.
fn peak(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success());
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    println!("{}", usage.max_rss() / 1024);
}

/// The shortest loop that makes the same mounts safely: sources prepared once, targets opened
/// beneath the root, a clone and one `move_mount` each.
fn raw_up(farm: &Farm) {
    let attributes = MountAttr {
        set: libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC,
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    let prepare = |nth: usize| -> io::Result<OwnedFd> {
        let clone = sys::clone_mount(File::open(farm.source(nth))?)?;
        sys::mount_setattr(&clone, false, &attributes)?;
        Ok(clone)
    };
    let prepared: Vec<_> = (0..MOUNTS).map(|nth| prepare(nth).unwrap()).collect();
    let names: Vec<_> = (0..MOUNTS)
        .map(|nth| PathBuf::from(format!("etc/file{nth}")))
        .collect();
    for site in 0..farm.sites {
        let root = sys::open_host(
            &farm.dir.join(format!("srv/{site}")),
            libc::O_PATH | libc::O_DIRECTORY,
        )
        .unwrap();
        for (source, name) in prepared.iter().zip(&names) {
            let target = sys::open_beneath(&root, name, libc::O_PATH).unwrap();
            sys::move_mount(sys::clone_mount(source).unwrap(), target).unwrap();
        }
    }
}

fn raw_down(farm: &Farm) {
    for site in 0..farm.sites {
        for nth in 0..MOUNTS {
            umount2(&farm.target(site, nth), MntFlags::UMOUNT_NOFOLLOW).unwrap();
        }
    }
}
