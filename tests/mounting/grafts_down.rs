//! Promise: `down` takes grafts away with what came along with them, and nothing that somebody else
//! has put there, however quickly it looks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;

use super::templates::{nothing_is_left, read, sites};
use crate::support::{
    OnEngine, Ran, Running, Sandbox, bind, for_each_engine, for_each_engine_alone, mounts_below,
    replace, unmount, where_templates_are,
};

pub fn all() -> Vec<Trial> {
    let trials: [(&str, OnEngine); 8] = [
        ("a foreign mount in the place of one stays", in_its_place),
        ("a foreign mount on top of one stays", on_top),
        ("a foreign mount on top of another stays", on_top_of_another),
        ("a foreign mount in a directory stays", in_a_directory),
        ("a foreign mount on a placeholder stays", on_a_placeholder),
        ("a foreign mount with an ID beside theirs stays", between),
        ("what was swapped in the template goes", swapped),
        ("no other site is kept by one in use", in_use),
    ];
    let mut all = vec![];
    for (name, body) in trials {
        all.extend(for_each_engine(name, body));
    }
    all.extend(for_each_engine_alone(
        "what came along with a graft is not asked for one by one",
        few_questions,
    ));
    where_templates_are(all)
}

/// Two sites that are up, each with two files and a directory in its graft.
fn pair(engine: &'static str) -> (Sandbox, Vec<PathBuf>) {
    let sandbox = Sandbox::with_engine(engine);
    sandbox.file("host/dir/in/it", "it");
    let directory = sandbox.path("host/dir");
    let more = format!("- {{ source: {}, target: /x/dir }}\n", directory.display());
    let roots = sites(&sandbox, &["a", "b"], &more);
    sandbox.ok(&["up", "--all"]);
    (sandbox, roots)
}

fn umount(at: &Path) {
    unmount(at);
}

/// `down` of `a`, by its name and with all others, names the foreign mount at `theirs` and changes
/// nothing of that site, until the mount is gone.
fn stops_down((sandbox, roots): &(Sandbox, Vec<PathBuf>), theirs: &str) {
    let theirs = roots[0].join(theirs);
    let (before, text) = (mounts_below(&roots[0]), fs::read_to_string(&theirs).ok());
    let names = format!("{}", theirs.display());
    for which in [["down", "a"], ["down", "a"], ["down", "--all"]] {
        let ran = sandbox.run(&which).exits(1).says(&names);
        assert!(ran.stderr.contains("not by mountjail"), "{ran}");
        assert_eq!(mounts_below(&roots[0]), before, "{ran}");
        assert_eq!(fs::read_to_string(&theirs).ok(), text, "{ran}");
    }
    assert!(mounts_below(&roots[1]).is_empty());
    umount(&theirs);
    nothing_is_left(sandbox);
}

fn in_its_place(engine: &'static str) {
    for source in ["theirs", "host/one"] {
        let pair = pair(engine);
        let at = pair.1[0].join("x/one");
        umount(&at);
        bind(&pair.0.file(source, source), &at);
        stops_down(&pair, "x/one");
    }
}

fn on_top(engine: &'static str) {
    let pair = pair(engine);
    bind(&pair.0.file("theirs", ""), &pair.1[0].join("x/deep/two"));
    stops_down(&pair, "x/deep/two");
}

/// As many mounts are in the graft as before.
fn on_top_of_another(engine: &'static str) {
    let pair = pair(engine);
    umount(&pair.1[0].join("x/one"));
    bind(&pair.0.file("theirs", ""), &pair.1[0].join("x/deep/two"));
    stops_down(&pair, "x/deep/two");
}

fn in_a_directory(engine: &'static str) {
    let pair = pair(engine);
    bind(&pair.0.directory("theirs"), &pair.1[0].join("x/dir/in"));
    stops_down(&pair, "x/dir/in");
}

fn on_a_placeholder(engine: &'static str) {
    let pair = pair(engine);
    let at = pair.1[0].join("x/one");
    umount(&at);
    bind(&pair.0.directory("theirs"), &pair.1[0].join("x/deep"));
    stops_down(&pair, "x/deep");
}

/// The graft is one that was made by hand, in which the foreign mount got an ID that a mount of the
/// site could have.
fn between(engine: &'static str) {
    let (sandbox, roots) = pair(engine);
    let graft = roots[0].join("x");
    Ran::of(
        Command::new("umount")
            .args(["--recursive", "--lazy"])
            .arg(&graft),
    )
    .exits(0);
    let theirs = sandbox.file("theirs", "theirs");
    bind(&roots[1].join("x"), &graft);
    for target in ["x/dir", "x/one"] {
        bind(&roots[1].join(target), &roots[0].join(target));
    }
    bind(&theirs, &roots[0].join("x/deep/two"));

    let file = sandbox.state().join("run/a.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record["mounts"][0]["unique_id"] = unique_id(&graft).into();
    fs::write(&file, record.to_string()).unwrap();
    stops_down(&(sandbox, roots), "x/deep/two");
}

/// The unique ID of the mount at `point`, which is a directory.
fn unique_id(point: &Path) -> u64 {
    let directory = fs::File::open(point).unwrap();
    mountjail::sys::stat_fd(directory)
        .unwrap()
        .unique_mount_id()
        .unwrap()
}

fn swapped(engine: &'static str) {
    for which in ["a", "--all"] {
        let (sandbox, roots) = pair(engine);
        replace(&sandbox.path("host/one"), "new");
        sandbox.ok(&["up", "b"]).says("1 swapped");
        assert_eq!(read(&roots[0], "x/one"), "new");
        sandbox.ok(&["down", which]).says("3 mounts detached");
        nothing_is_left(&sandbox);
    }
}

fn in_use(engine: &'static str) {
    let (sandbox, roots) = pair(engine);
    let script = format!("exec 7< {}/x/one; exec sleep 1000", roots[0].display());
    let user = Running::start_until(Command::new("sh").args(["-ec", &script]), |pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x001000\0")
    });
    let before = mounts_below(&roots[0]);
    for which in ["a", "a", "--all"] {
        sandbox
            .run(&["down", which])
            .exits(1)
            .says("in use: /x/one;");
        assert_eq!(mounts_below(&roots[0]), before);
    }
    assert!(mounts_below(&roots[1]).is_empty());
    drop(user);
    nothing_is_left(&sandbox);
}

/// With the classic engine, the mounts of the template itself are among those of the host: they are
/// asked for once.
fn few_questions(engine: &'static str) {
    const FEW: usize = 2;
    const MANY: usize = 40;
    let (few, many) = (questions(engine, FEW), questions(engine, MANY));
    assert!(
        many < few + 2 * (MANY - FEW),
        "{few} questions for {FEW} mounts in each graft, {many} for {MANY}"
    );
}

/// How often `down` asks statmount(2) for three sites with so many mounts. The kernel may give an
/// ID between theirs to a mount that somebody else makes: so it is the least of several times.
fn questions(engine: &'static str, mounts: usize) -> usize {
    let sandbox = Sandbox::with_engine(engine);
    let line = |nth| {
        let source = sandbox.file(format!("host/{nth}"), "");
        format!("- {{ source: {}, target: /x/{nth} }}\n", source.display())
    };
    let lines: String = (0..mounts).map(line).collect();
    for site in ["a", "b", "c"] {
        sandbox.site(site, &format!("mounts:\n{lines}"));
    }
    let log = sandbox.path("strace");
    let runner = ["strace", "-f", "-q", "-o", log.to_str().unwrap()];
    let mut least = usize::MAX;
    for _ in 0..5 {
        sandbox.ok(&["up", "--all"]);
        Ran::of(sandbox.command_under(&runner).args(["down", "--all"])).exits(0);
        let calls = fs::read_to_string(&log).unwrap();
        let asks = |line: &&str| line.contains("syscall_0x1c9(") || line.contains(" statmount(");
        least = least.min(calls.lines().filter(asks).count());
    }
    least
}
