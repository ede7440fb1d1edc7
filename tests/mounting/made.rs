//! Promise: directories and file systems of a site's own are made as the manifest has them, stay
//! what they are, and go when the site goes; mount(8) and `up` accept each other's work.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{
    Mount, Ran, Sandbox, alone, for_each_engine, mounts_below, size_at, tree, unmount,
};
use libtest_mimic::Trial;

const MANIFEST: &str = "programs: [ls]
directories:
  - { path: /var/lib/app, user: daemon, mode: \"2750\" }
  - { path: /srv/tmp, mode: \"1777\" }
tmpfs: [{ target: /tmp, size: 8M }, /run]
proc: true
";

pub fn all() -> Vec<Trial> {
    let mut trials = for_each_engine(
        "a site's own directories and file systems are made and go",
        made,
    );
    trials.extend(for_each_engine(
        "a tmpfs keeps its files when its options change",
        resized,
    ));
    trials.extend(for_each_engine(
        "a failing run gives a tmpfs its size back",
        given_back_size,
    ));
    trials.extend(for_each_engine(
        "a tmpfs keeps its files when the graft that it is on is replaced",
        on_graft,
    ));
    trials.extend(for_each_engine(
        "mount(8) and up accept each other's work",
        with_mount,
    ));
    trials.extend(for_each_engine(
        "a proc that stands there gets the options of the site's own",
        standing_proc,
    ));
    trials.extend(for_each_engine(
        "a directory is made through no link",
        hostile,
    ));
    trials.extend(for_each_engine("a failing run leaves nothing", undone));
    trials.extend(for_each_engine(
        "a failing run gives a directory back as it was",
        given_back,
    ));
    trials.push(alone("an existing directory stays as it is", there_already));
    trials.push(alone("why and plan name what is made", named));
    trials.push(alone(
        "a preset's directory yields to the site's own line",
        yields,
    ));
    trials.push(alone(
        "presets of packages are found, and those of the host go first",
        vendor,
    ));
    trials.push(alone("a program that needs /proc is named", without_proc));
    trials.push(alone(
        "users who also run outside are named where proc is mounted",
        outside,
    ));
    trials
}

fn of_kind(kind: &str, root: &Path) -> Vec<Mount> {
    let mounts = mounts_below(root).into_iter();
    mounts.filter(|mount| mount.kind == kind).collect()
}

fn made(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", MANIFEST);
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox
        .ok(&["status", "s"])
        .prints("proc,ro,nosuid,nodev,noexec,hidepid=invisible");

    let app = fs::metadata(root.join("var/lib/app")).unwrap();
    assert_eq!((app.uid(), app.gid(), app.mode() & 0o7777), (1, 1, 0o2750));
    let tmp = fs::metadata(root.join("srv/tmp")).unwrap();
    assert_eq!((tmp.uid(), tmp.mode() & 0o7777), (0, 0o1777));
    let proc = of_kind("proc", &root);
    assert!(
        proc[0].has("ro") && proc[0].has("nosuid") && proc[0].has("noexec"),
        "{proc:?}"
    );
    assert!(proc[0].propagation.is_empty(), "{proc:?}");
    for tmpfs in of_kind("tmpfs", &root)
        .iter()
        .filter(|mount| mount.has("rw"))
    {
        assert!(
            tmpfs.has("nosuid") && tmpfs.has("nodev") && tmpfs.has("noexec"),
            "{tmpfs:?}"
        );
    }
    fs::write(root.join("tmp/file"), "kept").unwrap();
    // It shows the processes of this PID namespace, to root.
    let own = std::process::id().to_string();
    Ran::of(
        Command::new("chroot")
            .arg(&root)
            .args(["/usr/bin/ls", "/proc"]),
    )
    .exits(0)
    .prints(&own);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    assert_eq!(fs::read_to_string(root.join("tmp/file")).unwrap(), "kept");

    // Taken off by hand, it comes back.
    unmount(&root.join("run"));
    sandbox.run(&["status", "s"]).exits(3).prints("missing");
    sandbox.ok(&["up", "s"]).says("1 attached");
    // What is not empty stays.
    fs::write(root.join("srv/tmp/file"), "").unwrap();
    sandbox.ok(&["down", "s"]).says("srv/tmp stays");
    assert!(mounts_below(&root).is_empty());
    fs::remove_dir_all(root.join("srv")).unwrap();
    bare.assert_same(&tree(&root));
}

/// The one mount of the site, a tmpfs.
fn the_tmpfs(root: &Path) -> Mount {
    let mut mounts = of_kind("tmpfs", root);
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    mounts.remove(0)
}

fn manifest_of_tmpfs(size: &str, mode: &str) -> String {
    format!("tmpfs: [{{ target: /tmp, size: {size}, mode: \"{mode}\" }}]\n")
}

fn resized(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", &manifest_of_tmpfs("8M", "0755"));
    sandbox.ok(&["up", "s"]);
    let file = root.join("tmp/file");
    fs::write(&file, "kept").unwrap();
    let is_kept = |size: u64| {
        sandbox.ok(&["up", "s"]).says("1 swapped");
        sandbox.ok(&["up", "s"]).says("nothing to do");
        let tmpfs = the_tmpfs(&root);
        assert!(tmpfs.has("rw") && tmpfs.has("noexec"), "{tmpfs:?}");
        assert_eq!(size_at(&root.join("tmp")), size);
        assert!(tmpfs.propagation.is_empty(), "{tmpfs:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        fs::write(&file, "kept").unwrap();
    };

    sandbox.site("s", &manifest_of_tmpfs("4M", "0755"));
    sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("wrong-options")
        .prints("size=8M");
    sandbox
        .run(&["plan", "s"])
        .exits(3)
        .prints("swap a tmpfs of its own on /tmp")
        .prints("with its files");
    is_kept(4 << 20);
    for by_somebody in ["remount,size=2M", "remount,ro", "remount,bind,exec"] {
        let mut mount = Command::new("mount");
        Ran::of(mount.args(["-o", by_somebody]).arg(root.join("tmp"))).exits(0);
        is_kept(4 << 20);
    }
    let mut mount = Command::new("mount");
    Ran::of(mount.arg("--make-shared").arg(root.join("tmp"))).exits(0);
    is_kept(4 << 20);

    fs::write(&file, vec![b'x'; 2 << 20]).unwrap();
    sandbox.site("s", &manifest_of_tmpfs("1M", "0755"));
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("its files need more room")
        .says("or ask for a larger size");
    assert_eq!(fs::metadata(&file).unwrap().len(), 2 << 20);
    assert_eq!(size_at(&root.join("tmp")), 4 << 20);

    // The mode is that of its root directory, and a remount does not change it.
    sandbox.site("s", &manifest_of_tmpfs("4M", "0700"));
    sandbox
        .run(&["plan", "s"])
        .exits(3)
        .prints("without its files");
    sandbox.ok(&["up", "s"]).says("1 swapped");
    assert!(!file.exists());
    let mode = fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o700);

    sandbox.site(
        "s",
        "mounts: [{ source: /usr/share/zoneinfo, target: /tmp }]\n",
    );
    sandbox.ok(&["up", "s"]);
    assert!(root.join("tmp/UTC").exists());
    sandbox.site("s", "tmpfs: [/tmp]\n");
    sandbox.ok(&["up", "s"]);
    assert!(!root.join("tmp/UTC").exists());
    sandbox.ok(&["down", "s"]);
}

/// One tmpfs gets its new size before another one is too full for its own.
fn given_back_size(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let manifest = |a: &str, b: &str| {
        format!("tmpfs: [{{ target: /a, size: {a} }}, {{ target: /b, size: {b} }}]\n")
    };
    let root = sandbox.site("s", &manifest("8M", "8M"));
    sandbox.ok(&["up", "s"]);
    let files = ["a/file", "b/file"].map(|file| root.join(file));
    for file in &files {
        fs::write(file, vec![b'x'; 2 << 20]).unwrap();
    }

    sandbox.site("s", &manifest("4M", "1M"));
    let planned = sandbox.run(&["plan", "--json", "s"]).exits(3).json();
    let steps = planned["sites"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "{planned}");
    assert!(
        steps.iter().all(|step| step["with_files"] == true),
        "{planned}"
    );
    sandbox
        .run(&["up", "-v", "s"])
        .exits(1)
        .says("its files need more room")
        .says("gave the tmpfs /a its options again");
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().len(), 2 << 20);
        assert_eq!(size_at(file), 8 << 20);
    }
    sandbox.site("s", &manifest("8M", "8M"));
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
}

/// The graft that a tmpfs is on is replaced, because another site has the old one as well.
fn on_graft(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let mount = |name: &str| {
        let file = sandbox.file(name, name);
        format!(
            "  - {{ source: {}, target: /var/lib/{name} }}\n",
            file.display()
        )
    };
    let (one, two) = (mount("one"), mount("two"));
    let manifest =
        |mounts: &str| format!("mounts:\n{mounts}tmpfs: [{{ target: /var/cache, size: 8M }}]\n");
    let root = sandbox.site("s", &manifest(&one));
    sandbox.site("t", &manifest(&one));
    sandbox.ok(&["up", "s", "t"]);
    let file = root.join("var/cache/file");
    fs::write(&file, "kept").unwrap();

    sandbox.site("s", &manifest(&format!("{one}{two}")));
    sandbox.ok(&["up", "s"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert!(root.join("var/lib/two").exists());
    fs::write(&file, "kept").unwrap();
    sandbox.site("s", &manifest(&two));
    sandbox.ok(&["up", "s"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox.ok(&["down", "s", "t"]);
    assert!(mounts_below(&root).is_empty());
    assert!(!file.exists());
}

fn with_mount(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", MANIFEST);
    let fstab = sandbox.file("fstab", "");
    let fstab = fstab.to_str().unwrap();
    sandbox.ok(&["fstab", "--install", "--file", fstab, "s"]);
    Ran::of(Command::new("findmnt").args(["--verify", "--tab-file", fstab])).exits(0);
    let mount = || Ran::of(Command::new("mount").args(["-a", "-T", fstab])).exits(0);
    mount();
    let count = mounts_below(&root).len();
    assert_eq!(fs::metadata(root.join("var/lib/app")).unwrap().uid(), 1);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    mount();
    assert_eq!(mounts_below(&root).len(), count);
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
    sandbox.ok(&["up", "s"]);
    mount();
    assert_eq!(mounts_below(&root).len(), count);
    sandbox.ok(&["down", "s"]);
    sandbox.ok(&["fstab", "--uninstall", "--file", fstab, "s"]);
}

fn hostile(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let outside = sandbox.directory("outside");
    let root = sandbox.site("s", "directories: [{ path: /var/app, user: daemon }]\n");
    symlink(&outside, root.join("var")).unwrap();
    sandbox.run(&["up", "s"]).exits(1).says("symbolic link");
    assert!(fs::read_dir(&outside).unwrap().next().is_none());

    // Nothing is made in another mount either.
    fs::remove_file(root.join("var")).unwrap();
    fs::create_dir(root.join("var")).unwrap();
    crate::support::bind(&outside, &root.join("var"));
    sandbox.run(&["up", "s"]).exits(1);
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
}

fn undone(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", MANIFEST);
    let bare = tree(&root);
    let mut command = sandbox.command_with_fault("fchownat,fchown:error=EPERM", &[]);
    Ran::of(command.args(["up", "s"])).exits(1);
    assert!(mounts_below(&root).is_empty());
    bare.assert_same(&tree(&root));
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
}

/// A directory that is not wanted any more goes first, and then the run fails.
fn given_back(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", MANIFEST);
    sandbox.ok(&["up", "s"]);
    let before = tree(&root);
    sandbox.site("s", "directories: [/var/other]\n");
    let mut command = sandbox.command_with_fault("mkdirat:error=EIO:when=1", &[]);
    Ran::of(command.args(["up", "s"]))
        .exits(1)
        .says("the site is as it was before");
    before.assert_same(&tree(&root));
    sandbox.site("s", MANIFEST);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox.ok(&["down", "s"]);
}

fn there_already() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", MANIFEST);
    let tmp = root.join("srv/tmp");
    fs::create_dir_all(&tmp).unwrap();
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o700)).unwrap();
    sandbox
        .ok(&["up", "s"])
        .says("srv/tmp exists already and stays as it is");
    sandbox.ok(&["check", "s"]).says("chmod 1777");
    assert_eq!(fs::metadata(&tmp).unwrap().mode() & 0o7777, 0o700);
    sandbox.ok(&["down", "s"]);
    assert!(tmp.is_dir());
}

fn named() {
    let sandbox = Sandbox::new();
    sandbox.site("s", MANIFEST);
    let plan = sandbox.run(&["plan", "s"]);
    plan.prints("create directory /var/lib/app (1:1 2750)")
        .prints("attach a proc of its own on /proc (ro,nosuid,nodev,noexec,hidepid=invisible)")
        .prints("attach a tmpfs of its own on /tmp (rw,nosuid,nodev,noexec,size=8M,mode=1777)");
    sandbox
        .ok(&["why", "s", "/var/lib/app"])
        .prints("directories[0] (/var/lib/app)");
    sandbox
        .ok(&["why", "s", "/tmp/x"])
        .prints("tmpfs[0] (/tmp)");
    let json = sandbox.run(&["plan", "s", "--json"]).json();
    let steps = json["sites"][0]["steps"]
        .as_array()
        .or(json["steps"].as_array());
    let text = steps.map_or_else(|| json.to_string(), |steps| format!("{steps:?}"));
    assert!(
        text.contains("create-directory") && text.contains("2750"),
        "{text}"
    );
}

fn vendor() {
    Ran::of(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "t", "/usr/share"]))
        .exits(0);
    fs::create_dir_all("/usr/share/mountjail/presets").unwrap();
    let file = "/usr/share/mountjail/presets/app.yaml";
    fs::write(file, "description: of a package\ndevices: [zero]\n").unwrap();
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [app]\n");
    sandbox.ok(&["up", "s"]);
    assert!(root.join("dev/zero").exists());
    sandbox.ok(&["presets"]).prints("of a package");
    sandbox.preset("app", "description: of this host\ndevices: [full]\n");
    sandbox.ok(&["up", "s"]);
    assert!(root.join("dev/full").exists() && !root.join("dev/zero").exists());
    sandbox.ok(&["down", "s"]);
}

fn without_proc() {
    let sandbox = Sandbox::new();
    sandbox.directory("opt/bin");
    let library = sandbox.file("opt/l.c", "int h(void) { return 0; }\n");
    let main = sandbox.file("opt/m.c", "int h(void); int main(void) { return h(); }\n");
    let (object, program) = (sandbox.path("opt/libh.so"), sandbox.path("opt/bin/prog"));
    let shared = ["-shared", "-fPIC", "-Wl,-soname,libh.so", "-o"];
    Ran::of(Command::new("gcc").args(shared).args([&object, &library])).exits(0);
    let mut gcc = Command::new("gcc");
    Ran::of(
        gcc.args(["-Wl,-rpath,$ORIGIN/..", "-o"])
            .args([&program, &main, &object]),
    )
    .exits(0);
    let line = format!("programs: [{}]\n", program.display());
    let root = sandbox.site("s", &line);
    for command in ["up", "check"] {
        sandbox
            .ok(&[command, "s"])
            .says("$ORIGIN")
            .says("`proc: true` mounts it");
    }
    let inside = || {
        Command::new("chroot")
            .arg(&root)
            .arg(&program)
            .status()
            .unwrap()
    };
    assert!(!inside().success());
    sandbox.site("s", &format!("{line}proc: true\n"));
    let ran = sandbox.ok(&["up", "s"]);
    assert!(!ran.stderr.contains("$ORIGIN"), "{ran}");
    assert!(inside().success());
    sandbox.ok(&["down", "s"]);
}

fn outside() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "users: [games]\nproc: true\n");
    let quiet = sandbox.ok(&["check", "s"]);
    assert!(!quiet.stderr.contains("games"), "{quiet}");
    let mut sleep = Command::new("setpriv");
    sleep.args(["--reuid=games", "--clear-groups", "sleep", "1000"]);
    let running = crate::support::Running::start_until(&mut sleep, |pid| {
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|found| found.uid() == 5)
    });
    sandbox
        .ok(&["check", "s"])
        .says(&format!(
            "games runs sleep (pid {}) outside of this root",
            running.pid()
        ))
        .says("/proc/PID/root");
}

/// As a line of fstab mounts it. A tmpfs would lose its files.
fn standing_proc(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "proc: true\n");
    let proc = sandbox.directory("srv/s/proc");
    for options in ["defaults", "hidepid=invisible", "ro,nosuid,nodev,noexec"] {
        let mounted = ["-t", "proc", "-o", options, "proc"];
        Ran::of(Command::new("mount").args(mounted).arg(&proc)).exits(0);
        sandbox
            .run(&["status", "s"])
            .exits(3)
            .prints("wrong-options /proc");
        sandbox.ok(&["up", "s"]).says("s: up, 1 mount: 1 swapped");
        let mounts = of_kind("proc", &root);
        assert_eq!(mounts.len(), 1, "{options}: {mounts:?}");
        assert!(mounts[0].has("ro") && mounts[0].has("noexec"), "{mounts:?}");
        let is_it = "proc,ro,nosuid,nodev,noexec,hidepid=invisible";
        sandbox.ok(&["status", "s"]).prints(is_it);
        sandbox.ok(&["down", "s"]);
        assert!(of_kind("proc", &root).is_empty());
    }

    sandbox.site("t", "tmpfs: [/tmp]\n");
    let tmp = sandbox.directory("srv/t/tmp");
    let mounted = ["-t", "tmpfs", "-o", "mode=0700", "tmpfs"];
    Ran::of(Command::new("mount").args(mounted).arg(&tmp)).exits(0);
    sandbox
        .run(&["up", "t"])
        .exits(1)
        .says("not by mountjail")
        .says("unmount it");
    unmount(&tmp);
    sandbox.site("t", "tmpfs: [{ target: /tmp, size: 8M }]\n");
    let mounted = ["-t", "tmpfs", "-o", "mode=1777,size=4M", "tmpfs"];
    Ran::of(Command::new("mount").args(mounted).arg(&tmp)).exits(0);
    let remedy = "remount,size=8M,rw,nosuid,nodev,noexec";
    sandbox.run(&["up", "t"]).exits(1).says(remedy);
    Ran::of(Command::new("mount").args(["-o", remedy]).arg(&tmp)).exits(0);
    sandbox.ok(&["up", "t"]).says("nothing to do");
}

/// A preset asks for a directory at a path of which the site's own lines say something else.
fn yields() {
    let sandbox = Sandbox::new();
    let data = sandbox.directory("data");
    sandbox.preset(
        "asks",
        "description: a preset\ndirectories: [{ path: /tmp, mode: \"1777\" }]\n",
    );
    sandbox.preset(
        "mounts",
        "description: another\ntmpfs: [{ target: /tmp, size: 8M }]\n",
    );
    for own in [
        "tmpfs: [{ target: /tmp, size: 8M }]",
        "presets: [asks, mounts]",
        "directories: [{ path: /tmp, mode: \"0700\" }]",
        &format!("mounts: [{{ source: {}, target: /tmp }}]", data.display()),
    ] {
        let presets = if own.starts_with("presets") {
            ""
        } else {
            "presets: [asks]\n"
        };
        let root = sandbox.site("s", &format!("{presets}{own}\n"));
        sandbox.ok(&["up", "s"]);
        let mounts = mounts_below(&root).len();
        assert_eq!(
            mounts,
            usize::from(!own.starts_with("directories")),
            "{own}"
        );
        if mounts == 0 {
            let mode = fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o700, "{own}");
        }
        sandbox.ok(&["down", "s"]);
    }
    let root = sandbox.site("s", "presets: [asks]\n");
    sandbox.ok(&["up", "s"]);
    let mode = fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o1777);
}
