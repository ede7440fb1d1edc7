//! How long a jail shows the old file after the host replaced it: `mountjail watch` as a whole
//! process.
//!
//! `cargo bench --bench watch`, as root, on a quiet machine; `target/bench` then has the figures
//! and a picture. All of it happens in a mount namespace of its own. Quantiles are of one run,
//! times of this machine.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use plotters::prelude::SeriesLabelPosition;
use serde_json::{Value, json};
use support::plot::{Plot, machine};
use support::{Farm, MOUNTS, Roots, apart};

/// How often the file is replaced.
const REPLACED: usize = 1000;

fn main() {
    let (base, machine) = (apart(), machine());
    println!(
        "from rename(2) on the host to the new file in the jail; {MOUNTS} mounts per site; \
         times in ms\n"
    );
    println!(
        "{:<40} {:>9} {:>9} {:>9}  goal",
        "", "median", "99 %", "worst"
    );
    let one = one_site(base.path());
    let many = many_sites(base.path());
    umount2(base.path(), MntFlags::MNT_DETACH).unwrap();
    let (one, many) = (by_percent(one), by_percent(many));
    plot(&one, &many).write(&json!({
        "machine": machine, "ms_by_percent": { "1": figures(&one), "1000": figures(&many) },
    }));
}

/// The time that so many percent of all do not exceed, from 1 to 100, in ms.
fn by_percent(mut times: Vec<Duration>) -> Vec<(f64, f64)> {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1].as_secs_f64() * 1e3;
    let percents = 1..=100_u8;
    percents
        .map(|percent| (at(percent.into()), percent.into()))
        .collect()
}

fn figures(by_percent: &[(f64, f64)]) -> Value {
    let times = by_percent.iter().map(|(time, _)| *time);
    times.collect::<Vec<_>>().into()
}

/// How many of the replacements are seen within which time.
fn plot(one: &[(f64, f64)], many: &[(f64, f64)]) -> Plot {
    let times = one.iter().chain(many).map(|(time, _)| *time);
    let worst = times.fold(10.0, f64::max);
    Plot {
        name: "performance-watch",
        x: ("ms after rename(2)", 1.0..worst * 1.2),
        y: ("% of the replacements", 0.0..100.0),
        log_y: false,
        // Between the two lines.
        names: SeriesLabelPosition::MiddleMiddle,
        lines: vec![
            ("seen in a single site", one.to_vec()),
            ("seen in each of 1000 sites", many.to_vec()),
        ],
    }
}

fn row(what: &str, mut times: Vec<Duration>, goal: &str) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "{what:<40} {:>9.2} {:>9.2} {:>9.2}  {goal}",
        at(50),
        at(99),
        at(100)
    );
}

/// Returns how long it took each time, 10 ms apart.
fn one_site(base: &Path) -> Vec<Duration> {
    let farm = Farm::new(base, "1", 1, Roots::Empty);
    let watcher = watch(&farm);
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let times = |pause: Duration, from: usize| -> Vec<Duration> {
        let one = |nth| {
            thread::sleep(pause);
            replaced(&farm, nth, &[0])
        };
        (from..from + REPLACED).map(one).collect()
    };
    row(
        "1 site, one after the other",
        times(Duration::ZERO, 1),
        "<= 10, worst <= 100",
    );
    let apart = times(Duration::from_millis(10), 2001);
    row("1 site, 10 ms apart", apart.clone(), "<= 10, worst <= 100");
    thread::scope(|scope| {
        scope.spawn(|| read_all_the_time(&farm.target(0, 0), &done, &reads));
        row(
            "1 site, and a reader that never stops",
            times(Duration::from_millis(1), 4001),
            "",
        );
        done.store(true, Ordering::Relaxed);
    });
    println!(
        "{:<40} {:>9} reads, each of them whole",
        "",
        reads.load(Ordering::Relaxed)
    );
    watcher.end();
    apart
}

/// Returns how long it took each time.
fn many_sites(base: &Path) -> Vec<Duration> {
    let farm = Farm::new(base, "1000", 1000, Roots::Empty);
    let watcher = watch(&farm);
    let all: Vec<usize> = (0..1000).collect();
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let times: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| read_all_the_time(&farm.target(7, 0), &done, &reads));
        let times = (1..=20).map(|nth| {
            thread::sleep(Duration::from_secs(1));
            replaced(&farm, nth, &all)
        });
        let times = times.collect();
        done.store(true, Ordering::Relaxed);
        times
    });
    row(
        "1000 sites, until the last one has it",
        times.clone(),
        "<= 20, worst <= 100",
    );
    println!(
        "{:<40} {:>9} reads in one of them, each of them whole",
        "",
        reads.load(Ordering::Relaxed)
    );
    println!(
        "\nresident with 1000 sites: {} MiB (goal <= 32)",
        watcher.resident() / 1024
    );
    watcher.end();
    times
}

/// Every read must give one of the contents, whole.
fn read_all_the_time(path: &Path, done: &AtomicBool, reads: &AtomicUsize) {
    while !done.load(Ordering::Relaxed) {
        let found = fs::read_to_string(path).unwrap();
        let first = &found[..8.min(found.len())];
        let is_whole = found == first.repeat(512) || found == "contents of 0";
        assert!(is_whole, "a mix, or nothing: {found:?}");
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Brings all sites up and starts the watcher.
fn watch(farm: &Farm) -> Watcher {
    let up = farm.mountjail(&["up", "--all", "--quiet"]).status();
    assert!(up.unwrap().success());
    let mut child = farm
        .mountjail(&["watch"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.contains(&format!("watching {} site", farm.sites))));
    thread::spawn(move || lines.for_each(drop)); // so that it never waits for a reader
    // the second look, at what happened while it looked first
    thread::sleep(Duration::from_secs(2));
    Watcher(child)
}

/// Replaces the first file by the contents number `nth`, and takes the time until all of
/// `sites` have it.
fn replaced(farm: &Farm, nth: usize, sites: &[usize]) -> Duration {
    let (new, text) = (farm.dir.join("host/file0.new"), contents(nth));
    let targets: Vec<_> = sites.iter().map(|site| farm.target(*site, 0)).collect();
    fs::write(&new, &text).unwrap();
    let inode = fs::metadata(&new).unwrap().ino();

    let start = Instant::now();
    fs::rename(&new, farm.source(0)).unwrap();
    for target in &targets {
        while fs::metadata(target).unwrap().ino() != inode {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{} stays stale",
                target.display()
            );
            thread::yield_now();
        }
    }
    let took = start.elapsed();

    for target in &targets {
        assert_eq!(fs::read_to_string(target).unwrap(), text);
    }
    took
}

fn contents(nth: usize) -> String {
    format!("{nth:07} ").repeat(512)
}

struct Watcher(Child);

impl Watcher {
    /// `VmRSS`, in KiB.
    fn resident(&self) -> u64 {
        // Of the process that works, behind the one that was started.
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let worker = children.split_ascii_whitespace().next().unwrap();
        let text = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
