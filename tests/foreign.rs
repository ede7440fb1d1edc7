//! Promise: what others mounted in a root is reported, and neither goes with a mount of ours nor makes one forgotten.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use support::{Ran, Sandbox, Tree, for_each_engine, mounts_below, tree};

/// A trial that is made for each engine.
type OnEngine = fn(&'static str);

fn main() -> ExitCode {
    let trials: [(&str, OnEngine); 7] = [
        ("one in a recursive mount stops down", in_a_recursive_one),
        ("one in a recursive mount is told apart without the record", without_the_record),
        ("a submount in use stops down", busy_submount),
        ("one in a mount that is to be replaced stops up", in_a_stale_one),
        ("one in a mount that is in use stops a lazy down", lazy),
        ("one on top of ours stops down", on_top),
        ("one on a placeholder keeps it, until it is gone", on_a_placeholder),
    ];
    support::main(trials.into_iter().flat_map(|(name, body)| for_each_engine(name, body)).collect())
}

fn mount_tmpfs(at: &Path) {
    Ran::of(Command::new("mount").args(["-t", "tmpfs", "theirs"]).arg(at)).exits(0);
}

fn umount(at: &Path) {
    Ran::of(Command::new("umount").arg(at)).exits(0);
}

/// A process with its working directory in a mount; it ends with the trial.
struct User(Child);

impl User {
    fn of(directory: &Path) -> Self {
        Self(Command::new("sleep").arg("1000").current_dir(directory).spawn().unwrap())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A site `s` that binds a directory with an empty one, and one that another file system is mounted on.
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
        let line =
            format!("mounts: [{{ source: {}, target: /dir, recursive: {recursive} }}]\n", source.display());
        let root = sandbox.site("s", &line);
        let bare = tree(&root);
        sandbox.ok(&["up", "s"]);
        Self { sandbox, root, bare }
    }

    /// Mounts something in the mounted directory; gives its file.
    fn theirs(&self) -> PathBuf {
        let at = self.root.join("dir/empty");
        mount_tmpfs(&at);
        fs::write(at.join("precious"), "theirs").unwrap();
        at.join("precious")
    }

    /// Nothing can be done as long as `theirs` is there, which stays; then all can.
    fn is_stopped(&self, arguments: &[&str], says: &str, theirs: &Path) {
        let before = mounts_below(&self.root);
        for _ in 0..2 {
            self.sandbox.run(arguments).exits(1).complains(says);
            assert_eq!(fs::read_to_string(theirs).unwrap(), "theirs");
            assert_eq!(before, mounts_below(&self.root), "nothing went, not even in part");
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
            assert!(!self.sandbox.state().join(record).exists(), "{record} is left");
        }
    }
}

fn in_a_recursive_one(engine: &'static str) {
    let site = Site::new(engine, true);
    assert_eq!(fs::read_to_string(site.root.join("dir/sub/file")).unwrap(), "the host's");
    let status = site.sandbox.ok(&["status", "s"]);
    assert!(!status.stdout.contains("foreign"), "what came along is ours\n{status}");
    let theirs = site.theirs();
    site.sandbox.ok(&["status", "s"]).prints("  foreign       /dir/empty");
    let says = "dir stays mounted: ".to_owned() + site.root.to_str().unwrap() + "/dir/empty is mounted in it";
    site.is_stopped(&["down", "s"], &says, &theirs);
    site.is_bare();
    assert_eq!(mounts_below(&site.sandbox.path("host")).len(), 1, "the host's own stays");
    site.sandbox.ok(&["up", "s"]);
    let theirs = site.theirs();
    site.is_stopped(&["down", "--lazy", "s"], &says, &theirs);
    site.is_bare();
    // One on top of what came along.
    site.sandbox.ok(&["up", "s"]);
    mount_tmpfs(&site.root.join("dir/sub"));
    site.sandbox.ok(&["status", "s"]).prints("  foreign       /dir/sub");
    site.sandbox.run(&["down", "s"]).exits(1).complains("dir/sub stays mounted: something else ");
    umount(&site.root.join("dir/sub"));
    // It is replaced as a whole, and what is in it is ours again.
    fs::rename(site.sandbox.path("host/dir"), site.sandbox.path("host/old")).unwrap();
    mount_tmpfs(&site.sandbox.directory("host/dir/sub/deep"));
    site.sandbox.ok(&["up", "s"]).complains("1 swapped");
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
    site.sandbox.ok(&["status", "s"]).prints("  foreign       /dir/empty");
    site.sandbox.run(&["down", "s"]).exits(1).complains("dir/empty is mounted in it, and not by mountjail");
    // Taken over by `up`, which records what came along and no more.
    site.sandbox.ok(&["up", "s"]).complains("in sync");
    site.sandbox.run(&["down", "s"]).exits(1).complains("dir/empty is mounted in it, and not by mountjail");
    umount(theirs.parent().unwrap());
    site.goes_down();
}

fn busy_submount(engine: &'static str) {
    let site = Site::new(engine, true);
    let _user = User::of(&site.root.join("dir/sub"));
    let before = mounts_below(&site.root);
    site.sandbox.run(&["down", "s"]).exits(1).complains("in use: /dir/sub; nothing was unmounted");
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
        site.is_stopped(&["up", sites], "dir/empty is mounted in it, and not by mountjail", &theirs);
        fs::remove_dir(site.sandbox.path("host/dir")).unwrap();
        fs::rename(site.sandbox.path("host/old"), site.sandbox.path("host/dir")).unwrap();
        site.sandbox.ok(&["up", sites]);
        let theirs = site.theirs();
        site.sandbox.manifest("s", format!("root: {}\netc: [hosts]\n", site.root.display()));
        site.is_stopped(&["up", sites], "dir/empty is mounted in it, and not by mountjail", &theirs);
        assert_eq!(mounts_below(&site.root).len(), 1);
        site.goes_down();
    }
}

fn lazy(engine: &'static str) {
    let site = Site::new(engine, false);
    let _user = User::of(&site.root.join("dir"));
    let theirs = site.theirs();
    site.is_stopped(&["down", "--lazy", "s"], "dir/empty is mounted in it, and not by mountjail", &theirs);
    site.is_bare();
}

fn on_top(engine: &'static str) {
    let site = Site::new(engine, false);
    let target = site.root.join("dir");
    mount_tmpfs(&target);
    fs::write(target.join("precious"), "theirs").unwrap();
    site.sandbox.run(&["status", "s"]).exits(3).prints("shadowed");
    let says = "dir stays mounted: something else (/ of its file system) is mounted on top of it";
    site.is_stopped(&["down", "s"], says, &target.join("precious"));
    site.is_bare();
    // By a mount on a directory above.
    site.sandbox.manifest("s", format!("root: {}\netc: [hosts]\n", site.root.display()));
    site.sandbox.ok(&["up", "s"]);
    mount_tmpfs(&site.root.join("etc"));
    // What it hides is reached all the same, and it stays.
    let ran = site.sandbox.ok(&["down", "s"]).complains("etc is mounted there, and not by mountjail");
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
    site.sandbox.ok(&["down", "s"]).complains("dir is mounted there, and not by mountjail");
    assert_eq!(mounts_below(&site.root).len(), 1);
    umount(&target);
    site.goes_down();
}
