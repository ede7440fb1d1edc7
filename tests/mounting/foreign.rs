//! Promise: foreign mounts in a root are reported; they are never unmounted with ours and never
//! make one of ours forgotten; nothing is mounted or made on them that would appear outside the
//! root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    OnEngine, Ran, Running, Sandbox, Tree, bind, for_each_engine, for_each_engine_on_shared_root,
    mounts_below, site_of_one_file, tree, unmount, wait_until,
};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let trials: [(&str, OnEngine); 8] = [
        (
            "a foreign mount in a recursive one stops down",
            in_a_recursive_one,
        ),
        (
            "a foreign mount in a recursive one is recognised without the record",
            without_the_record,
        ),
        ("a submount in use stops down", busy_submount),
        (
            "a foreign mount in one to be replaced stops up",
            in_a_stale_one,
        ),
        ("a foreign mount in one in use stops a lazy down", lazy),
        ("a foreign mount on top of ours stops down", on_top),
        (
            "a placeholder stays until the foreign mount on it is gone",
            on_a_placeholder,
        ),
        (
            "an orphan beneath a foreign mount goes when that is gone",
            on_an_orphan,
        ),
    ];
    let more: [(&str, OnEngine); 13] = [
        (
            "a host's directory bound in the root is left alone",
            host_directory,
        ),
        (
            "the host's /dev bound in the root is left alone",
            host_devices,
        ),
        (
            "the root's own directory bound in it again is left alone",
            own_directory,
        ),
        (
            "a volume of the site's own is as good as the root",
            own_volume,
        ),
        (
            "a foreign mount above the targets of a site that is up is named",
            on_the_way,
        ),
        (
            "the same file mounted before is taken over, or named",
            stacked_before,
        ),
        (
            "the same file mounted on ours again is named",
            stacked_while_up,
        ),
        (
            "advice about mounts on ours leaves ours in place",
            stacked_peers,
        ),
        ("no mount of ours hides another", none_hides_another),
        (
            "a bind of the host with its submounts is taken over without harm to the host",
            with_submounts,
        ),
        (
            "advice about what the host bound with its submounts does the host no harm",
            harmless_advice,
        ),
        (
            "a file system that somebody mounted keeps its files",
            standing_files,
        ),
        (
            "users of the host's own submounts do not use the site",
            users_of_the_host,
        ),
    ];
    let private = trials
        .into_iter()
        .chain(more)
        .flat_map(|(name, body)| for_each_engine(name, body));
    let shared = more.into_iter().flat_map(|(name, body)| {
        for_each_engine_on_shared_root(&format!("{name}, where / is shared"), body)
    });
    private.chain(shared).collect()
}

/// `up` names the mount at `theirs` and changes nothing, each time; so do the commands that only
/// read.
fn is_refused(sandbox: &Sandbox, root: &Path, theirs: &Path) {
    let all = || mounts_below(&sandbox.path(""));
    let before = (all(), tree(root));
    let names = format!(
        "{} is mounted above it, and not by mountjail",
        theirs.display()
    );
    let theirs = theirs.display();
    let says = format!("`mount --make-rprivate {theirs} && umount -R {theirs}`");
    for sites in ["s", "--all", "s"] {
        sandbox
            .run(&["up", sites])
            .exits(1)
            .says(&names)
            .says(&says);
        assert_eq!((all(), tree(root)), before, "nothing was changed");
    }
    sandbox.run(&["plan", "s"]).exits(1).says(&names);
    sandbox.run(&["status", "s"]).exits(3);
}

fn host_directory(engine: &'static str) {
    for private in [false, true] {
        let sandbox = Sandbox::with_engine(engine);
        let host = sandbox.directory("host/lib");
        sandbox.file("host/lib/there", "");
        let file = sandbox.file("host/file", "text");
        let line = |target| format!("{{ source: {}, target: {target} }}", file.display());
        let manifest = format!(
            "mounts: [{}, {}]\n",
            line("/usr/lib/there"),
            line("/usr/lib/new/deep/file")
        );
        let root = sandbox.site("s", &manifest);
        let theirs = sandbox.directory("srv/s/usr/lib");
        let before = (tree(&host), tree(&root));
        bind(&host, &theirs);
        if private {
            Ran::of(Command::new("mount").arg("--make-private").arg(&theirs)).exits(0);
        }
        is_refused(&sandbox, &root, &theirs);
        assert_eq!(tree(&host), before.0, "nothing was made on the host");
        assert_eq!(mounts_below(&host), [], "nothing was mounted on the host");
        umount(&theirs);
        sandbox.ok(&["up", "s"]).says("2 attached");
        sandbox.ok(&["down", "s"]);
        assert_eq!((tree(&host), tree(&root)), before);
    }
}

fn host_devices(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "devices: [null, zero]\n");
    let theirs = sandbox.directory("srv/s/dev");
    let before = mounts_below(Path::new("/dev")).len();
    bind(Path::new("/dev"), &theirs);
    is_refused(&sandbox, &root, &theirs);
    assert_eq!(
        mounts_below(Path::new("/dev")).len(),
        before,
        "nothing on the host's devices"
    );
    // One on the device alone shows the right file, and is taken over; nothing is mounted on it.
    umount(&theirs);
    sandbox.file("srv/s/dev/null", "");
    bind(Path::new("/dev/null"), &theirs.join("null"));
    sandbox.ok(&["up", "s"]);
    assert_eq!(mounts_below(Path::new("/dev")).len(), before);
    let found = mounts_below(&theirs);
    assert!(
        found.len() == 2 && found.iter().all(|mount| mount.has("ro")),
        "{found:?}"
    );
    sandbox.ok(&["down", "s"]);
    assert_eq!(mounts_below(&root), []);
    assert_eq!(mounts_below(Path::new("/dev")).len(), before);
}

fn own_directory(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let file = sandbox.file("host/file", "text");
    let root = sandbox.site(
        "s",
        &format!("mounts: [{{ source: {}, target: /b/x }}]\n", file.display()),
    );
    let (own, theirs) = (sandbox.directory("srv/s/a"), sandbox.directory("srv/s/b"));
    bind(&own, &theirs);
    is_refused(&sandbox, &root, &theirs);
    assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
    umount(&theirs);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
}

fn own_volume(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let file = sandbox.file("host/file", "text");
    let line = |target| format!("{{ source: {}, target: {target} }}", file.display());
    let manifest = format!(
        "mounts: [{}, {}]\n",
        line("/data/in/file"),
        line("/etc/file")
    );
    let root = sandbox.site("s", &manifest);
    let volume = sandbox.directory("srv/s/data");
    mount_tmpfs(&volume);
    for sites in ["s", "--all"] {
        sandbox.ok(&["up", sites]).says("2 attached");
        assert_eq!(fs::read_to_string(volume.join("in/file")).unwrap(), "text");
        sandbox.ok(&["up", sites]).says("nothing to do");
        sandbox.ok(&["status", "s"]);
        sandbox.ok(&["down", "s"]);
        assert_eq!(mounts_below(&root).len(), 1, "the volume stays");
        assert_eq!(
            fs::read_dir(&volume).unwrap().count(),
            0,
            "what was made in it does not"
        );
    }
    // It is visible elsewhere, too.
    let elsewhere = sandbox.directory("elsewhere");
    bind(&volume, &elsewhere);
    is_refused(&sandbox, &root, &volume);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    umount(&elsewhere);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    umount(&volume);
}

fn on_the_way(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let host = sandbox.directory("host/etc");
    let file = sandbox.file("host/file", "text");
    let root = sandbox.site(
        "s",
        &format!(
            "mounts: [{{ source: {}, target: /etc/file }}]\n",
            file.display()
        ),
    );
    sandbox.ok(&["up", "s"]);
    let theirs = root.join("etc");
    bind(&host, &theirs);
    is_refused(&sandbox, &root, &theirs);
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
    umount(&theirs);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox.ok(&["down", "s"]);
    assert_eq!(mounts_below(&root), []);
}

/// Binds `source` on `target` with its submounts, as a line of fstab with `rbind` does.
fn rbind(source: &Path, target: &Path) {
    let ran = Command::new("mount")
        .arg("--rbind")
        .args([source, target])
        .status();
    assert!(ran.unwrap().success());
}

/// A directory with mounts in it, two deep, and the files in them.
fn directory_with_mounts(sandbox: &Sandbox) -> (PathBuf, [PathBuf; 2]) {
    let directory = sandbox.directory("host/dir");
    let outer = sandbox.directory("host/dir/sub");
    bind(&sandbox.directory("host/outer"), &outer);
    let inner = sandbox.directory("host/dir/sub/deep");
    bind(&sandbox.directory("host/inner"), &inner);
    let files = [outer.join("file"), inner.join("file")];
    for file in &files {
        fs::write(file, "").unwrap();
    }
    (directory, files)
}

fn with_submounts(engine: &'static str) {
    for (access, more) in [("read-write", ""), ("read-only", "ro,nosuid,nodev,noexec")] {
        let sandbox = Sandbox::with_engine(engine);
        let (source, files) = directory_with_mounts(&sandbox);
        let text = format!(
            "mounts: [{{ source: {}, target: /d, access: {access}, recursive: true }}]\n",
            source.display()
        );
        let root = sandbox.site("s", &text);
        let target = root.join("d");
        fs::create_dir(&target).unwrap();
        let host_keeps_its_own = |when: &str| {
            let mut gone = files.iter().filter(|file| !file.exists());
            assert_eq!(gone.next(), None, "{when}, {access}");
        };
        let bound = || {
            rbind(&source, &target);
            let points = ["", "sub", "sub/deep"].map(|name| target.join(name));
            for point in points.iter().filter(|_| !more.is_empty()) {
                let options = format!("remount,bind,{more}");
                let ran = Command::new("mount")
                    .args(["-o", &options])
                    .arg(point)
                    .status();
                assert!(ran.unwrap().success());
            }
        };

        bound();
        sandbox.ok(&["down", "s"]);
        host_keeps_its_own("without a record");
        if !mounts_below(&target).is_empty() {
            let point = target.display();
            let line = format!("mount --make-rprivate {point} && umount -R {point}");
            Ran::of(Command::new("sh").args(["-c", &line])).exits(0);
        }

        bound();
        sandbox.ok(&["up", "s"]);
        host_keeps_its_own("taken over");
        sandbox.ok(&["up", "s"]).says("nothing to do");
        sandbox.ok(&["down", "s"]);
        host_keeps_its_own("taken over and down");
        assert_eq!(mounts_below(&target), []);
    }
}

fn users_of_the_host(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (source, [file, _]) = directory_with_mounts(&sandbox);
    // The same place has two mounts, one on the other, as /dev/pts has on some hosts.
    let sub = source.join("sub");
    bind(&sandbox.directory("host/outer"), &sub);
    let text = format!(
        "mounts: [{{ source: {}, target: /d, recursive: true }}]\n",
        source.display()
    );
    let root = sandbox.site("s", &text);
    sandbox.ok(&["up", "s"]);
    let line = format!("exec 3<{} && exec sleep 600", file.display());
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--mount", "--propagation", "private", "sh", "-c", &line]);
    let elsewhere = Running::start(&mut elsewhere);
    let open = format!("/proc/{}/fd/3", elsewhere.pid());
    wait_until("the file is open", || fs::read_link(&open).is_ok());
    sandbox.ok(&["down", "s"]);
    assert_eq!(mounts_below(&root), []);
    drop(elsewhere);
}

fn harmless_advice(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (source, files) = directory_with_mounts(&sandbox);
    let text = format!("mounts: [{{ source: {}, target: /d }}]\n", source.display());
    let root = sandbox.site("s", &text);
    let target = root.join("d");
    fs::create_dir(&target).unwrap();
    rbind(&source, &target);
    let mut followed = 0;
    for _ in 0..5 {
        let ran = sandbox.run(&["up", "s"]);
        if ran.code == 0 {
            break;
        }
        followed += 1;
        let (_, advice) = ran.stderr.split_once("try: ").unwrap();
        let command = advice.split('`').nth(1).unwrap().to_owned();
        let done = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(done.success(), "{command}\n{ran}");
        let mut gone = files.iter().filter(|file| !file.exists());
        assert_eq!(gone.next(), None, "{command}\n{ran}");
    }
    assert!(followed > 0, "there was nothing to advise");
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox.ok(&["down", "s"]);
    assert!(files.iter().all(|file| file.exists()));
}

fn standing_files(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "tmpfs: [{ target: /tmp, size: 1M, mode: \"1777\" }]\n");
    let target = root.join("tmp");
    fs::create_dir(&target).unwrap();
    let ran = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m,mode=1777", "theirs"])
        .arg(&target)
        .status();
    assert!(ran.unwrap().success());
    let file = target.join("session");
    fs::write(&file, "").unwrap();

    let ran = sandbox.run(&["up", "s"]).exits(1);
    assert!(file.exists(), "{ran}");
    let advice = format!(
        "`mount -o remount,bind,rw,nosuid,nodev,noexec {}`",
        target.display()
    );
    let command = advice.trim_matches('`');
    ran.says(&advice);
    let done = Command::new("sh").args(["-c", command]).status();
    assert!(done.unwrap().success());
    sandbox.ok(&["up", "s"]).says("nothing to do");
    assert!(file.exists());
}

/// A site with one file, which has a placeholder, and where that is.
fn with_placeholder(engine: &'static str) -> (Sandbox, PathBuf, PathBuf) {
    let sandbox = Sandbox::with_engine(engine);
    let (source, target) = site_of_one_file(&sandbox, "text");
    fs::write(&target, "").unwrap();
    (sandbox, source, target)
}

fn stacked_before(engine: &'static str) {
    for sites in ["s", "--all"] {
        let (sandbox, source, target) = with_placeholder(engine);
        for stacked in 1..4 {
            for _ in 0..stacked {
                bind(&source, &target);
            }
            // Where the mounts are shared, they are also on the source, and one umount(8) may
            // take several.
            for _ in 1..stacked {
                let before = mounts_below(&sandbox.path(""));
                let ran = sandbox.run(&["up", sites]);
                if ran.code == 0 {
                    break;
                }
                assert_eq!(mounts_below(&sandbox.path("")).len(), before.len(), "{ran}");
                ran.says("one on the other, and none by mountjail")
                    .says(&format!("`umount {}", target.display()));
                umount(&target);
            }
            sandbox.ok(&["up", sites]);
            let found = mounts_below(&target);
            assert!(found.len() == 1 && found[0].has("ro"), "{found:?}");
            assert_eq!(mounts_below(&source), [], "nothing is on the source");
            sandbox.ok(&["up", sites]).says("nothing to do");
            sandbox.ok(&["down", sites]);
            assert_eq!(mounts_below(&target), []);
        }
        // The mount beneath shows another file.
        let other = sandbox.file("host/other", "theirs");
        bind(&other, &target);
        bind(&source, &target);
        let before = mounts_below(&target);
        sandbox
            .run(&["up", sites])
            .exits(1)
            .says("one on the other, and none by mountjail");
        assert_eq!(mounts_below(&target), before);
        umount(&target);
        umount(&target);
    }
}

fn stacked_while_up(engine: &'static str) {
    for sites in ["s", "--all"] {
        let (sandbox, source, target) = with_placeholder(engine);
        sandbox.ok(&["up", sites]);
        bind(&source, &target);
        bind(&source, &target);
        let ran = sandbox.run(&["up", sites]);
        if ran.code == 0 {
            // Where IDs are reused, they cannot be distinguished from ours.
            assert_eq!(mounts_below(&target).len(), 1, "{ran}");
        } else {
            ran.says("the same file once more is mounted on top of it")
                .says(&format!(
                    "`umount {}`; then run the command again",
                    target.display()
                ));
            sandbox.run(&["down", sites]).exits(1).says("umount ");
            umount(&target);
            sandbox.run(&["up", sites]).exits(1).says("`umount ");
            umount(&target);
            sandbox.ok(&["up", sites]).says("nothing to do");
        }
        sandbox.ok(&["down", sites]);
        assert_eq!(mounts_below(&target), []);
    }
}

/// Where `/` is shared, one umount(8) may take several of these binds away.
fn stacked_peers(engine: &'static str) {
    let (sandbox, source, target) = with_placeholder(engine);
    sandbox.ok(&["up", "s"]);
    for _ in 0..3 {
        bind(&source, &target);
    }
    let count = mounts_below(&target).len();
    let advice = format!("`umount {}`", target.display());
    for _ in 0..count {
        let ran = sandbox.run(&["up", "s"]);
        if ran.code == 0 {
            ran.says("nothing to do"); // ours was there all the time
            sandbox.ok(&["down", "s"]);
            assert_eq!(mounts_below(&target), []);
            return;
        }
        ran.says(&advice);
        umount(&target);
    }
    panic!("the advice has no end");
}

fn none_hides_another(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.directory("host/dir");
    sandbox.file("host/dir/sub/file", "text");
    let dir = source.display();
    let root = sandbox.site("s", "");
    let bare = tree(&root);
    let at = root.join(source.strip_prefix("/").unwrap());
    let manifest =
        |lines: &str| sandbox.manifest("s", format!("root: {}\n{lines}", root.display()));
    let file = format!("mounts: [{dir}/sub/file]\n");
    let both = format!("mounts: [{dir}, {{ source: {dir}/sub/file, access: read-write }}]\n");
    let whole = format!("mounts: [{dir}]\n");
    let points = || {
        mounts_below(&root)
            .into_iter()
            .map(|mount| mount.point)
            .collect::<Vec<_>>()
    };
    for sites in ["s", "--all"] {
        for (lines, expected) in [
            (&file, vec![at.join("sub/file")]),
            (&whole, vec![at.clone()]),
            (&file, vec![at.join("sub/file")]),
            (&both, vec![at.clone(), at.join("sub/file")]),
            (&whole, vec![at.clone()]),
            (&both, vec![at.clone(), at.join("sub/file")]),
            (&file, vec![at.join("sub/file")]),
        ] {
            manifest(lines);
            sandbox.ok(&["up", sites]);
            assert_eq!(points(), expected, "{lines}");
            sandbox.ok(&["up", sites]).says("nothing to do");
            sandbox.ok(&["status", "s"]);
            assert_eq!(fs::read_to_string(at.join("sub/file")).unwrap(), "text");
        }
        // A mount that hides ours anyway, as somebody may have made it.
        bind(&source, &at);
        manifest(&whole);
        sandbox.ok(&["up", sites]);
        assert_eq!(points(), std::slice::from_ref(&at));
        sandbox.ok(&["status", "s"]);
        sandbox.ok(&["down", "s"]);
        assert_eq!(mounts_below(&root), []);
        bare.assert_same(&tree(&root));
    }
}

fn mount_tmpfs(at: &Path) {
    Ran::of(
        Command::new("mount")
            .args(["-t", "tmpfs", "theirs"])
            .arg(at),
    )
    .exits(0);
}

fn umount(at: &Path) {
    unmount(at);
}

/// A process whose working directory this is.
fn user_of(directory: &Path) -> Running {
    Running::start(Command::new("sleep").arg("1000").current_dir(directory))
}

/// A site `s` that binds a directory with an empty one, and one that another file system is mounted
/// on.
struct Site {
    sandbox: Sandbox,
    root: PathBuf,
    bare: Tree,
}

impl Site {
    fn new(engine: &'static str, recursive: bool) -> Self {
        let sandbox = Sandbox::with_engine(engine);
        let source = sandbox.directory("host/dir");
        sandbox.directory("host/dir/empty");
        mount_tmpfs(&sandbox.directory("host/dir/sub"));
        sandbox.file("host/dir/sub/file", "the host's");
        let line = format!(
            "mounts: [{{ source: {}, target: /dir, recursive: {recursive} }}]\n",
            source.display()
        );
        let root = sandbox.site("s", &line);
        let bare = tree(&root);
        sandbox.ok(&["up", "s"]);
        Self {
            sandbox,
            root,
            bare,
        }
    }

    /// Mounts something in the mounted directory; returns its file.
    fn theirs(&self) -> PathBuf {
        let at = self.root.join("dir/empty");
        mount_tmpfs(&at);
        fs::write(at.join("precious"), "theirs").unwrap();
        at.join("precious")
    }

    /// Nothing is done while `theirs` is there, and it stays; then everything works.
    fn is_stopped(&self, arguments: &[&str], says: &str, theirs: &Path) {
        let before = mounts_below(&self.root);
        for _ in 0..2 {
            self.sandbox.run(arguments).exits(1).says(says);
            assert_eq!(fs::read_to_string(theirs).unwrap(), "theirs");
            assert_eq!(
                before,
                mounts_below(&self.root),
                "nothing went, not even in part"
            );
        }
        umount(theirs.parent().unwrap());
        self.sandbox.ok(arguments);
    }

    fn goes_down(&self) {
        self.sandbox.ok(&["down", "s"]);
        self.is_bare();
    }

    #[track_caller]
    fn is_bare(&self) {
        assert_eq!(mounts_below(&self.root), []);
        self.bare.assert_same(&tree(&self.root));
        for record in ["run/s.json", "lib/s.json"] {
            assert!(
                !self.sandbox.state().join(record).exists(),
                "{record} is left"
            );
        }
    }
}

fn in_a_recursive_one(engine: &'static str) {
    let site = Site::new(engine, true);
    assert_eq!(
        fs::read_to_string(site.root.join("dir/sub/file")).unwrap(),
        "the host's"
    );
    let status = site.sandbox.ok(&["status", "s"]);
    assert!(
        !status.stdout.contains("foreign"),
        "mounts that came along are ours\n{status}"
    );
    let theirs = site.theirs();
    site.sandbox
        .ok(&["status", "s"])
        .prints("  foreign       /dir/empty");
    let says = "dir stays mounted: ".to_owned()
        + site.root.to_str().unwrap()
        + "/dir/empty is mounted in it";
    site.is_stopped(&["down", "s"], &says, &theirs);
    site.is_bare();
    assert_eq!(
        mounts_below(&site.sandbox.path("host")).len(),
        1,
        "the host's own stays"
    );
    site.sandbox.ok(&["up", "s"]);
    let theirs = site.theirs();
    site.is_stopped(&["down", "--lazy", "s"], &says, &theirs);
    site.is_bare();
    // One on top of what came along.
    site.sandbox.ok(&["up", "s"]);
    mount_tmpfs(&site.root.join("dir/sub"));
    site.sandbox
        .ok(&["status", "s"])
        .prints("  foreign       /dir/sub");
    site.sandbox
        .run(&["down", "s"])
        .exits(1)
        .says("dir/sub stays mounted: something else ");
    umount(&site.root.join("dir/sub"));
    // It is replaced as a whole, and the mounts in it are ours again.
    fs::rename(site.sandbox.path("host/dir"), site.sandbox.path("host/old")).unwrap();
    mount_tmpfs(&site.sandbox.directory("host/dir/sub/deep"));
    site.sandbox.ok(&["up", "s"]).says("1 swapped");
    let status = site.sandbox.ok(&["status", "s"]);
    assert!(!status.stdout.contains("foreign"), "{status}");
    site.goes_down();
}

fn without_the_record(engine: &'static str) {
    let site = Site::new(engine, true);
    let lose = || fs::remove_file(site.sandbox.state().join("run/s.json")).unwrap();
    lose();
    let status = site.sandbox.ok(&["status", "s"]);
    assert!(!status.stdout.contains("foreign"), "{status}");
    site.goes_down();
    site.sandbox.ok(&["up", "s"]);
    let theirs = site.theirs();
    lose();
    site.sandbox
        .ok(&["status", "s"])
        .prints("  foreign       /dir/empty");
    site.sandbox
        .run(&["down", "s"])
        .exits(1)
        .says("dir/empty is mounted in it, and not by mountjail");
    // `up` takes it over, and records only the submounts that came along.
    site.sandbox.ok(&["up", "s"]).says("in sync");
    site.sandbox
        .run(&["down", "s"])
        .exits(1)
        .says("dir/empty is mounted in it, and not by mountjail");
    umount(theirs.parent().unwrap());
    site.goes_down();
}

fn busy_submount(engine: &'static str) {
    let site = Site::new(engine, true);
    let _user = user_of(&site.root.join("dir/sub"));
    let before = mounts_below(&site.root);
    site.sandbox
        .run(&["down", "s"])
        .exits(1)
        .says("in use: /dir/sub; nothing was unmounted");
    assert_eq!(before, mounts_below(&site.root));
    site.sandbox.ok(&["down", "--lazy", "s"]);
    site.is_bare();
}

fn in_a_stale_one(engine: &'static str) {
    for (recursive, sites) in [(false, "s"), (true, "s"), (false, "--all"), (true, "--all")] {
        let site = Site::new(engine, recursive);
        let theirs = site.theirs();
        fs::rename(site.sandbox.path("host/dir"), site.sandbox.path("host/old")).unwrap();
        site.sandbox.directory("host/dir");
        site.is_stopped(
            &["up", sites],
            "dir/empty is mounted in it, and not by mountjail",
            &theirs,
        );
        fs::remove_dir(site.sandbox.path("host/dir")).unwrap();
        fs::rename(site.sandbox.path("host/old"), site.sandbox.path("host/dir")).unwrap();
        site.sandbox.ok(&["up", sites]);
        let theirs = site.theirs();
        site.sandbox.manifest(
            "s",
            format!("root: {}\netc: [hosts]\n", site.root.display()),
        );
        site.is_stopped(
            &["up", sites],
            "dir/empty is mounted in it, and not by mountjail",
            &theirs,
        );
        assert_eq!(mounts_below(&site.root).len(), 1);
        site.goes_down();
    }
}

fn lazy(engine: &'static str) {
    let site = Site::new(engine, false);
    let _user = user_of(&site.root.join("dir"));
    let theirs = site.theirs();
    site.is_stopped(
        &["down", "--lazy", "s"],
        "dir/empty is mounted in it, and not by mountjail",
        &theirs,
    );
    site.is_bare();
}

fn on_top(engine: &'static str) {
    let site = Site::new(engine, false);
    let target = site.root.join("dir");
    mount_tmpfs(&target);
    fs::write(target.join("precious"), "theirs").unwrap();
    site.sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("shadowed");
    let says = "dir stays mounted: something else (/ of its file system) is mounted on top of it";
    site.is_stopped(&["down", "s"], says, &target.join("precious"));
    site.is_bare();
    // By a mount on a directory above.
    site.sandbox.manifest(
        "s",
        format!("root: {}\netc: [hosts]\n", site.root.display()),
    );
    site.sandbox.ok(&["up", "s"]);
    mount_tmpfs(&site.root.join("etc"));
    // The hidden mount is reached anyway, and this one stays.
    let ran = site
        .sandbox
        .ok(&["down", "s"])
        .says("etc is mounted there, and not by mountjail");
    assert!(ran.stderr.contains("s: down, 1 mount detached"), "{ran}");
    assert_eq!(mounts_below(&site.root).len(), 1);
    umount(&site.root.join("etc"));
    site.goes_down();
}

fn on_a_placeholder(engine: &'static str) {
    let site = Site::new(engine, false);
    let target = site.root.join("dir");
    umount(&target);
    mount_tmpfs(&target);
    site.sandbox
        .ok(&["down", "s"])
        .says("dir is mounted there, and not by mountjail");
    assert_eq!(mounts_below(&site.root).len(), 1);
    umount(&target);
    site.goes_down();
}

fn on_an_orphan(engine: &'static str) {
    let site = Site::new(engine, false);
    let target = site.root.join("dir");
    mount_tmpfs(&target);
    let empty = format!("root: {}\n", site.root.display());
    site.sandbox.manifest("s", empty);
    for _ in 0..2 {
        site.sandbox.ok(&["up", "s"]);
        assert_eq!(mounts_below(&site.root).len(), 2);
    }
    umount(&target);
    site.sandbox.ok(&["up", "s"]).says("1 detached");
    assert_eq!(mounts_below(&site.root), []);
    site.goes_down();
}
