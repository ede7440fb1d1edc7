//! Whole processes against the raw system calls and against what people use instead, in one table.
//!
//! `cargo bench`, as root, on a quiet machine. Every site has 30 mounts. All of it happens in a
//! mount namespace of its own. Ratios of one run are what counts; times are of this machine.

mod support;

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mountjail::base::Extent;
use mountjail::sys::{self, MountAttr};
use nix::mount::{MntFlags, umount2};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};
use support::{Farm, MOUNTS, Roots, apart};

/// Sites of the large farm.
const MANY: usize = 1000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--raw-up", dir, sites] => raw_up(&farm(dir, sites)),
        ["--raw-down", dir, sites] => raw_down(&farm(dir, sites)),
        ["--peak", program, ref rest @ ..] => peak(program, rest),
        ["--began"] => println!("{}", monotonic().as_nanos()),
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
fn time(command: &mut Command) -> Took {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (start, before) = (Instant::now(), cpu_of_children());
    let status = command.status().unwrap();
    let wall = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    Took {
        wall,
        cpu: cpu_of_children().saturating_sub(before),
    }
}

/// What all processes that have ended took of the processors.
fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let time = |time: TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap())
    };
    time(usage.user_time()) + time(usage.system_time())
}

fn median(mut times: Vec<Took>) -> Took {
    times.sort();
    times[times.len() / 2]
}

/// What a command took: the time until its end, and that of all processors together.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Took {
    wall: Duration,
    cpu: Duration,
}

/// The whole life of farms, ours and the raw one in turn.
struct Life {
    /// The first `up`, of roots in which nothing is.
    first: Took,
    /// `up` of roots in which the placeholders of another mountjail are.
    up: Took,
    again: Took,
    down: Took,
    raw_up: Took,
    raw_down: Took,
}

/// The time from the start of `run --all` until the program that it becomes begins: the median of
/// so many rounds, each with roots in which nothing is. What its processes take of the processors
/// is not known, since they are nobody's children.
fn start_of_program(base: &Path, sites: usize, rounds: usize) -> Duration {
    let mut times = vec![];
    for round in 0..rounds {
        let farm = Farm::new(base, &format!("{sites}-served{round}"), sites, Roots::Empty);
        let defaults = "scope: services\nservices: [farm.service]\n";
        fs::write(farm.dir.join("config/defaults.yaml"), defaults).unwrap();
        let mut run = farm.mountjail(&["--quiet", "run", "--all", "--strict", "--"]);
        run.arg(env::current_exe().unwrap()).arg("--began");

        let start = monotonic();
        let output = run.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let began: u64 = String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        times.push(Duration::from_nanos(began).saturating_sub(start));
    }
    times.sort();
    times[times.len() / 2]
}

/// A clock that all processes share.
fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// Medians of so many rounds of farms with so many sites each.
fn life(base: &Path, sites: usize, rounds: usize) -> (Life, Farm) {
    let name = |what: &str| format!("{sites}-{what}");
    let raw_one = Farm::new(base, &name("raw"), sites, Roots::Placeholders);
    let mut times: [Vec<Took>; 6] = Default::default();
    let empty = Farm::new(base, &name("empty"), sites, Roots::Empty);
    for round in 0..rounds {
        let recorded = Farm::new(base, &name("recorded"), sites, Roots::Recorded);
        let mut add = |nth: usize, command: &mut Command| {
            let took = time(command);
            if round > 0 || rounds == 1 {
                times[nth].push(took);
            }
        };
        add(0, &mut all(&empty, "up"));
        add(2, &mut all(&empty, "up"));
        add(3, &mut all(&empty, "down"));
        add(1, &mut all(&recorded, "up"));
        time(&mut all(&recorded, "down"));
        add(4, &mut raw(&raw_one, "--raw-up"));
        add(5, &mut raw(&raw_one, "--raw-down"));
        fs::remove_dir_all(&recorded.dir).unwrap();
    }
    let [first, up, again, down, raw_up, raw_down] = times.map(median);
    let life = Life {
        first,
        up,
        again,
        down,
        raw_up,
        raw_down,
    };
    (life, empty)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn row(what: &str, ours: Took, theirs: Took, goal: &str) {
    println!(
        "{what:<38} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>6.2} {:>6.2}  {goal}",
        ms(ours.wall),
        ms(theirs.wall),
        ms(ours.cpu),
        ms(theirs.cpu),
        ms(ours.wall) / ms(theirs.wall),
        ms(ours.cpu) / ms(theirs.cpu),
    );
}

fn table() {
    let base = apart();
    let (of_one, one) = life(base.path(), 1, 21);
    let spawn = median((0..21).map(|_| time(&mut bubblewrap(&one))).collect());
    let (of_ten, _) = life(base.path(), 10, 11);
    let (of_hundred, _) = life(base.path(), 100, 5);
    let hundred = Farm::new(base.path(), "100-fstab", 100, Roots::Placeholders);
    let mount_a = time(
        Command::new("mount")
            .arg("-a")
            .arg("-T")
            .arg(fstab(&hundred)),
    );
    raw_down(&hundred);
    let (of_many, many) = life(base.path(), MANY, 6);
    let resident = peak_of(&many);
    let started = start_of_program(base.path(), MANY, 5);

    println!("{MOUNTS} mounts per site; medians; times in ms; ratios of times and of CPU times\n");
    println!(
        "{:<38} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6}  goal",
        "", "mountjail", "reference", "CPU", "CPU", "ratio", "CPU"
    );
    row(
        "up, 1 site / bubblewrap spawn",
        of_one.first,
        spawn,
        "<= 0.5",
    );
    row("up, 1 site / raw calls", of_one.first, of_one.raw_up, "");
    row(
        "up --all, 10 sites / raw calls",
        of_ten.first,
        of_ten.raw_up,
        "",
    );
    row(
        "up --all, 100 / raw calls",
        of_hundred.first,
        of_hundred.raw_up,
        "",
    );
    row("up --all, 100 / mount -a", of_hundred.first, mount_a, "");
    let raw_up = of_many.raw_up;
    row(
        "up --all, 1000, with placeholders",
        of_many.up,
        raw_up,
        "<= 0.5",
    );
    row(
        "up --all, 1000, without any",
        of_many.first,
        raw_up,
        "<= 0.6",
    );
    row(
        "nothing to do, 1000 / raw calls",
        of_many.again,
        raw_up,
        "<= 0.3",
    );
    row(
        "down --all, 1000 / raw, one by one",
        of_many.down,
        of_many.raw_down,
        "<= 0.2",
    );
    println!(
        "{:<38} {:>9.2} {:>9.2} {:>26.2} {:>6}  <= 0.5",
        "run --all, 1000, until exec / raw",
        ms(started),
        ms(raw_up.wall),
        ms(started) / ms(raw_up.wall),
        "",
    );
    println!(
        "{:<38} {resident:>9} {:>40}  <= 32",
        "peak memory at 1000 sites, MiB", ""
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
        let clone = sys::clone_mount(File::open(farm.source(nth))?, Extent::Mount)?;
        sys::mount_setattr(&clone, Extent::Mount, &attributes)?;
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
            sys::move_mount(sys::clone_mount(source, Extent::Mount).unwrap(), target).unwrap();
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
