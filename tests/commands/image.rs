//! Promise: with `--root` the tree of an image is used in the place of the host's, and nothing is
//! mounted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::{Ran, Sandbox, mounts, trials};

pub fn all() -> Vec<Trial> {
    trials([
        ("lines and placeholders are made in an image", fstab),
        ("drop-ins are made in an image", units),
        ("a directory that is not an image is refused", refused),
        ("a sandbox without /sys is a host, too", sandboxed),
    ])
}

/// An image with the site `s`, whose sources are other files than the host's, behind links that
/// lead out of the image if they are followed on the host.
fn image(sandbox: &Sandbox) -> PathBuf {
    let image = sandbox.directory("image");
    for directory in [
        "proc",
        "run",
        "dev",
        "srv/s",
        "var/lib",
        "etc/systemd/system",
    ] {
        fs::create_dir_all(image.join(directory)).unwrap();
    }
    let file = |path: &str, text: &str| {
        let path = image.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file("etc/hosts", "of the image\n");
    file("etc/fstab", "# of the image\n");
    file("opt/app/data", "of the image\n");
    symlink("/opt/app", image.join("app")).unwrap();
    file(
        "etc/mountjail/sites/s.yaml",
        "root: /srv/s\netc: [hosts]\ndevices: ['null']\nservices: [web.service]\n\
         mounts: [/app/data]\n",
    );
    file(
        "usr/lib/systemd/system/web.service",
        "[Service]\nExecStart=/bin/web\n",
    );
    image
}

/// `mountjail` with the configuration in the image.
#[track_caller]
fn run(sandbox: &Sandbox, image: &Path, arguments: &[&str]) -> Ran {
    let mut command = sandbox.command();
    command
        .env_remove("MOUNTJAIL_CONFIG_DIR")
        .env_remove("MOUNTJAIL_STATE_DIR");
    Ran::of(command.args(arguments).arg("--root").arg(image))
}

fn names(directory: &Path) -> Vec<String> {
    let names = Ran::of(
        Command::new("find")
            .arg(directory)
            .args(["-printf", "%P\n"]),
    );
    let mut names: Vec<_> = names.stdout.lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn fstab() {
    let sandbox = Sandbox::new();
    let image = image(&sandbox);
    let at = image.display().to_string();
    let table = || -> Vec<_> {
        let points = mounts().into_iter().map(|mount| mount.point);
        points.filter(|point| point.starts_with(&image)).collect()
    };
    let _ = run(&sandbox, &image, &["check"])
        .exits(0)
        .prints("s: ok, 3 mounts");
    let why = run(&sandbox, &image, &["why", "s", "/app/data"]).exits(0);
    let _ = why.prints("is mounted from /opt/app/data");
    let lines = run(&sandbox, &image, &["fstab", "s"]).exits(0);
    let lines = lines.prints("/etc/hosts     /srv/s/etc/hosts     none  bind,");
    let lines = lines.prints("/opt/app/data  /srv/s/opt/app/data  none  bind,");
    assert!(!lines.stdout.contains(&at), "{lines}");

    let _ = run(&sandbox, &image, &["fstab", "--all", "--install"]).exits(0);
    let text = fs::read_to_string(image.join("etc/fstab")).unwrap();
    assert!(
        text.starts_with("# of the image\n") && text.contains("/srv/s/etc/hosts"),
        "{text}"
    );
    let made = names(&image.join("srv/s"));
    for path in ["dev/null", "etc/hosts", "opt/app/data", "app"] {
        assert!(made.iter().any(|made| made == path), "{path}: {made:?}");
    }
    assert_eq!(
        fs::read(image.join("srv/s/etc/hosts")).unwrap(),
        b"",
        "nothing is mounted"
    );
    assert!(names(&image.join("run")).iter().all(String::is_empty));
    assert!(table().is_empty());
    let _ = run(&sandbox, &image, &["fstab", "--all", "--check"]).exits(0);

    fs::rename(image.join("etc/fstab"), image.join("fstab")).unwrap();
    let _ = run(&sandbox, &image, &["fstab", "--all", "--install"])
        .exits(1)
        .says("/etc/fstab")
        .says(&format!("all paths are in the image {at}"));
    fs::rename(image.join("fstab"), image.join("etc/fstab")).unwrap();
    let _ = run(&sandbox, &image, &["fstab", "--all", "--uninstall"]).exits(0);
    assert_eq!(
        fs::read(image.join("etc/fstab")).unwrap(),
        b"# of the image\n"
    );
    assert_eq!(names(&image.join("srv/s")), [""]);
}

fn units() {
    let sandbox = Sandbox::new();
    let image = image(&sandbox);
    let _ = run(&sandbox, &image, &["units", "--all", "--install"]).exits(0);
    let drop_in = image.join("etc/systemd/system/web.service.d/50-mountjail.conf");
    let text = fs::read_to_string(&drop_in).unwrap_or_else(|error| {
        panic!("{error}: {:?}", names(&image.join("etc/systemd")));
    });
    assert!(text.contains("mountjail.service"), "{text}");
    let _ = run(&sandbox, &image, &["units", "--all", "--check"]).exits(0);
    let _ = run(&sandbox, &image, &["units", "--all", "--uninstall"]).exits(0);
    assert!(!drop_in.exists());

    // A service is started by the image's own program, not by the one that builds the image.
    let manifest = image.join("etc/mountjail/sites/s.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, format!("{text}scope: services\n")).unwrap();
    let wrapper = image.join("etc/systemd/system/web.service.d/zz-mountjail.conf");
    let install = || run(&sandbox, &image, &["units", "--all", "--install"]).exits(0);
    let _ = install().says("the image has no mountjail");
    let start = |program: &str| format!("\nExecStart={program} run --unit web.service -- /bin/web");
    let text = fs::read_to_string(&wrapper).unwrap();
    assert!(text.contains(&start("/usr/bin/mountjail")), "{text}");
    fs::create_dir_all(image.join("usr/local/bin")).unwrap();
    fs::write(image.join("usr/local/bin/mountjail"), "").unwrap();
    let _ = run(&sandbox, &image, &["units", "--all", "--check"]).exits(3);
    let quiet = install();
    assert!(!quiet.stderr.contains("no mountjail"), "{quiet}");
    let text = fs::read_to_string(&wrapper).unwrap();
    assert!(text.contains(&start("/usr/local/bin/mountjail")), "{text}");
    let _ = run(&sandbox, &image, &["units", "--all", "--check"]).exits(0);
}

fn refused() {
    let sandbox = Sandbox::new();
    let image = image(&sandbox);
    fs::remove_dir(image.join("proc")).unwrap();
    let _ = run(&sandbox, &image, &["check"])
        .exits(1)
        .says("has no directory proc");
    symlink("/proc", image.join("proc")).unwrap();
    let _ = run(&sandbox, &image, &["check"])
        .exits(1)
        .says("has no directory proc");
    let _ = run(&sandbox, &image.join("nothing"), &["check"])
        .exits(1)
        .says("No such file");
    let file = sandbox.file("file", "");
    let _ = run(&sandbox, &file, &["check"])
        .exits(1)
        .says("Not a directory");
    let _ = run(&sandbox, &image, &["up", "s"]).exits(2);
}

/// As mkosi(1) runs its scripts.
fn sandboxed() {
    let sandbox = Sandbox::new();
    let image = image(&sandbox);
    fs::create_dir(image.join("sys")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_mountjail"));
    let mut command = Command::new("bwrap");
    command.args(["--cap-add", "ALL", "--ro-bind", "/usr", "/usr"]);
    command.args([
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
    ]);
    command.args(["--proc", "/proc", "--dev", "/dev"]);
    command.arg("--bind").args([&image, &image]);
    command.arg("--ro-bind").args([program, program]);
    command.arg(program).args(["check", "--root"]).arg(&image);
    let _ = Ran::of(&mut command).exits(0).prints("s: ok, 3 mounts");
}
