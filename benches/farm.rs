//! Whole processes against the raw system calls and against what people use instead, in one table.
//!
//! `cargo bench`, as root, on a quiet machine; it takes some minutes. `target/bench` then has the
//! figures and a picture. Every site has 30 mounts. All of it happens in a
//! mount namespace of its own. Ratios of one run are what counts; times are of this machine.

#[path = "support/bare_up.rs"]
mod bare_up;
mod support;

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::iter::Sum;
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
use plotters::prelude::SeriesLabelPosition;
use serde_json::{Value, json};
use support::plot::{Plot, machine};
use support::{Farm, MOUNTS, Roots, apart};

/// Sites of the large farm.
const MANY: usize = 1000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--raw-up", dir, sites] => raw_up(&farm(dir, sites)),
        ["--raw-down", dir, sites] => raw_down(&farm(dir, sites)),
        ["--bare-up", dir, sites] => bare_up::up(&farm(dir, sites)),
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

impl Took {
    fn figures(self) -> Value {
        json!({ "ms": ms(self.wall), "cpu_ms": ms(self.cpu) })
    }
}

impl Sum for Took {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let add = |sum: Self, one: Self| Self {
            wall: sum.wall + one.wall,
            cpu: sum.cpu + one.cpu,
        };
        all.fold(Self::default(), add)
    }
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
    /// The calls of the first `up` alone.
    bare_up: Took,
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
    let mut times: [Vec<Took>; 7] = Default::default();
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
        add(6, &mut raw(&empty, "--bare-up"));
        bare_up::down(&empty);
        fs::remove_dir_all(&recorded.dir).unwrap();
    }
    let [first, up, again, down, raw_up, raw_down, bare_up] = times.map(median);
    let life = Life {
        first,
        up,
        again,
        down,
        raw_up,
        raw_down,
        bare_up,
    };
    (life, empty)
}

/// The life of sites with a passwd of their own, and a look at them.
struct WithUsers {
    up: Took,
    again: Took,
    status: Took,
    down: Took,
}

/// Medians of so many rounds.
fn with_users(base: &Path, sites: usize, rounds: usize) -> WithUsers {
    let farm = Farm::new(base, &format!("{sites}-users"), sites, Roots::Empty);
    farm.add_line("users: [nobody]");
    let mut times: [Vec<Took>; 4] = Default::default();
    for _ in 0..rounds {
        for (command, times) in ["up", "up", "status", "down"].iter().zip(&mut times) {
            times.push(time(&mut all(&farm, command)));
        }
    }
    let [up, again, status, down] = times.map(median);
    WithUsers {
        up,
        again,
        status,
        down,
    }
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

/// All that is measured with farms of one size.
struct Measured {
    sites: usize,
    life: Life,
    /// Until the program begins that `run --all` becomes.
    served: Duration,
    /// Not of the largest farm, for which it takes many minutes: mount(8) reads the whole table for
    /// each line.
    mount_a: Option<Took>,
    /// As many starts of bubblewrap as there are sites.
    bubblewrap: Took,
}

/// The sizes of farms, and how many rounds there are with each.
const SIZES: [(usize, usize); 5] = [(1, 21), (10, 11), (100, 5), (300, 3), (MANY, 6)];

/// Measures farms of one size. The last one is returned, with nothing mounted.
fn measure(base: &Path, sites: usize, rounds: usize) -> (Measured, Farm) {
    let (life, farm) = life(base, sites, rounds);
    let spawn = || {
        (0..sites)
            .map(|site| time(&mut bubblewrap(&farm, site)))
            .sum()
    };
    let measured = Measured {
        sites,
        life,
        served: start_of_program(base, sites, rounds.min(5)),
        mount_a: (sites < MANY).then(|| mount_a(base, sites)),
        bubblewrap: median((0..rounds.div_ceil(sites)).map(|_| spawn()).collect()),
    };
    (measured, farm)
}

/// `mount -a` with lines for the same mounts.
fn mount_a(base: &Path, sites: usize) -> Took {
    let farm = Farm::new(base, &format!("{sites}-fstab"), sites, Roots::Placeholders);
    let fstab = fstab(&farm);
    let took = time(Command::new("mount").arg("-a").arg("-T").arg(fstab));
    raw_down(&farm);
    fs::remove_dir_all(&farm.dir).unwrap();
    took
}

fn table() {
    let (base, machine) = (apart(), machine());
    let mut all = vec![];
    let mut resident = 0;
    let users = with_users(base.path(), MANY, 5);
    for (sites, rounds) in SIZES {
        let (measured, farm) = measure(base.path(), sites, rounds);
        if sites == MANY {
            resident = peak_of(&farm);
        }
        all.push(measured);
    }
    print_rows(&all, &users);
    let many = &all[all.len() - 1];
    let raw_up = many.life.raw_up;
    println!(
        "{:<38} {:>9.2} {:>9.2} {:>26.2} {:>6}  <= 0.5",
        "run --all, 1000, until exec / raw",
        ms(many.served),
        ms(raw_up.wall),
        ms(many.served) / ms(raw_up.wall),
        "",
    );
    println!(
        "{:<38} {resident:>9} {:>40}  <= 32",
        "peak memory at 1000 sites, MiB", ""
    );
    umount2(base.path(), MntFlags::MNT_DETACH).unwrap();
    let sizes: Vec<_> = all.iter().map(Measured::figures).collect();
    plot(&all).write(&json!({
        "machine": machine,
        "sizes": sizes,
        "with_own_users": users.figures(),
        "peak_memory_mib": resident,
    }));
}

fn print_rows(all: &[Measured], users: &WithUsers) {
    let [one, ten, hundred, _, many] = all else {
        unreachable!("one for each size");
    };
    println!("{MOUNTS} mounts per site; medians; times in ms; ratios of times and of CPU times\n");
    println!(
        "{:<38} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6}  goal",
        "", "mountjail", "reference", "CPU", "CPU", "ratio", "CPU"
    );
    let (first, mount_a) = (one.life.first, hundred.mount_a.unwrap_or_default());
    let (raw_up, raw_down) = (many.life.raw_up, many.life.raw_down);
    for (what, ours, theirs, goal) in [
        (
            "up, 1 site / bubblewrap spawn",
            first,
            one.bubblewrap,
            "<= 0.5",
        ),
        ("up, 1 site / raw calls", first, one.life.raw_up, ""),
        (
            "up --all, 10 sites / raw calls",
            ten.life.first,
            ten.life.raw_up,
            "",
        ),
        (
            "up --all, 100 / raw calls",
            hundred.life.first,
            hundred.life.raw_up,
            "",
        ),
        ("up --all, 100 / mount -a", hundred.life.first, mount_a, ""),
        (
            "up --all, 1000, with placeholders",
            many.life.up,
            raw_up,
            "<= 0.5",
        ),
        (
            "up --all, 1000, without any",
            many.life.first,
            raw_up,
            "<= 0.6",
        ),
        (
            "    its calls, and nothing else / raw",
            many.life.bare_up,
            raw_up,
            "",
        ),
        (
            "nothing to do, 1000 / raw calls",
            many.life.again,
            raw_up,
            "<= 0.3",
        ),
        (
            "down --all, 1000 / raw, one by one",
            many.life.down,
            raw_down,
            "<= 0.2",
        ),
        ("the same with own users: up --all", users.up, raw_up, ""),
        ("    nothing to do", users.again, raw_up, ""),
        ("    status --all", users.status, raw_up, ""),
        ("    down --all", users.down, raw_down, ""),
    ] {
        row(what, ours, theirs, goal);
    }
}

/// Times by the number of sites.
fn plot(all: &[Measured]) -> Plot {
    let line = |time: fn(&Measured) -> Option<Duration>| -> Vec<(f64, f64)> {
        let point = |of: &Measured| {
            let sites = f64::from(u32::try_from(of.sites).unwrap());
            Some((sites, ms(time(of)?)))
        };
        all.iter().filter_map(point).collect()
    };
    let lines = vec![
        ("mountjail up", line(|of| Some(of.life.first.wall))),
        ("mount -a", line(|of| Some(of.mount_a?.wall))),
        ("mountjail run", line(|of| Some(of.served))),
        (
            "bubblewrap, one by one",
            line(|of| Some(of.bubblewrap.wall)),
        ),
        (
            "the bare system calls",
            line(|of| Some(of.life.raw_up.wall)),
        ),
    ];
    let times = lines.iter().flat_map(|(_, points)| points);
    let most = times.map(|(_, time)| *time).fold(1.0, f64::max);
    Plot {
        name: "performance-sites",
        x: ("sites with 30 mounts each", 1.0..1200.0),
        // Room for the names above the lines.
        y: ("ms", 1.0..most * 20.0),
        log_y: true,
        names: SeriesLabelPosition::UpperLeft,
        lines,
    }
}

impl Measured {
    fn figures(&self) -> Value {
        let life = &self.life;
        json!({
            "sites": self.sites,
            "up": life.first.figures(),
            "up_with_placeholders": life.up.figures(),
            "nothing_to_do": life.again.figures(),
            "down": life.down.figures(),
            "run": { "ms": ms(self.served) },
            "raw_up": life.raw_up.figures(),
            "raw_down": life.raw_down.figures(),
            "bare_up": life.bare_up.figures(),
            "mount_a": self.mount_a.map(Took::figures),
            "bubblewrap": self.bubblewrap.figures(),
        })
    }
}

impl WithUsers {
    fn figures(&self) -> Value {
        json!({
            "sites": MANY,
            "up": self.up.figures(),
            "nothing_to_do": self.again.figures(),
            "status": self.status.figures(),
            "down": self.down.figures(),
        })
    }
}

/// The 30 files of a site bound by bubblewrap around `true`.
fn bubblewrap(farm: &Farm, site: usize) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--dev-bind", "/", "/"]);
    for nth in 0..MOUNTS {
        command
            .arg("--ro-bind")
            .arg(farm.source(nth))
            .arg(farm.target(site, nth));
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
