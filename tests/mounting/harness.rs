//! The tests' own tools: a namespace apart, listings that see what they should.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{
    Fuse, Sandbox, alone, bind, mounts, mounts_below, on_shared_root, tree, trials,
};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        ("the root mount is private", || root_is_shared(false)),
        ("a listing shows what is below a mount", below_a_mount),
        ("a listing shows every change", every_change),
        ("mounts below a directory are found", found_mounts),
    ]);
    all.push(alone("the root mount is private in a child", || {
        root_is_shared(false);
    }));
    all.push(on_shared_root(
        "the root mount is shared where asked",
        || root_is_shared(true),
    ));
    all.push(alone(
        "a FUSE file system answers, fails, hangs and dies as it is told",
        fuse,
    ));
    all
}

fn root_is_shared(expected: bool) {
    let root = mounts()
        .into_iter()
        .rfind(|mount| mount.point == Path::new("/"))
        .unwrap();
    assert_eq!(
        root.propagation.iter().any(|p| p.starts_with("shared:")),
        expected,
        "{root:?}"
    );
}

fn below_a_mount() {
    let sandbox = Sandbox::new();
    let (dir, placeholder) = (
        sandbox.directory("dir"),
        sandbox.file("dir/placeholder", ""),
    );
    let before = tree(&dir);
    bind(Path::new("/etc/passwd"), &placeholder);
    before.assert_same(&tree(&dir));
}

fn every_change() {
    let sandbox = Sandbox::new();
    let dir = sandbox.directory("dir");
    let file = sandbox.file("dir/file", "one");
    let changes: [(&str, &dyn Fn()); 5] = [
        ("contents", &|| fs::write(&file, "two").unwrap()),
        ("mode", &|| {
            fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        }),
        ("owner", &|| {
            std::os::unix::fs::chown(&file, Some(12), None).unwrap();
        }),
        ("a link", &|| {
            std::os::unix::fs::symlink("file", dir.join("link")).unwrap();
        }),
        ("a removal", &|| fs::remove_file(&file).unwrap()),
    ];
    for (what, change) in changes {
        let before = tree(&dir);
        change();
        assert_ne!(before, tree(&dir), "{what} went unseen");
    }
}

fn found_mounts() {
    let sandbox = Sandbox::new();
    let strange = sandbox.directory("dir/a b\\c\td");
    bind(&strange, &strange);
    let points: Vec<PathBuf> = mounts_below(&sandbox.path("dir"))
        .into_iter()
        .map(|m| m.point)
        .collect();
    assert_eq!(points, [strange]);
}

fn fuse() {
    let sandbox = Sandbox::new();
    let point = sandbox.directory("fuse");
    let mut fuse = Fuse::of_type(&point, 61001, "fuse.glusterfs");
    let kind = |point: &Path| mounts_below(point)[0].kind.clone();
    assert_eq!(kind(&point), "fuse.glusterfs");
    let file = point.join("data/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hi\n");
    fs::create_dir(point.join("made")).unwrap();
    assert!(fuse.backing.join("made").is_dir());
    fuse.fail(libc::EIO);
    assert_eq!(
        fs::metadata(&file).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    fuse.hang();
    let mut reader = Command::new("cat")
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let waits_in = |pid: u32| fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap();
    while waits_in(reader.id()) != "request_wait_answer" {
        assert!(
            reader.try_wait().unwrap().is_none(),
            "cat ended, although nothing answers"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    fuse.resume();
    assert!(reader.wait().unwrap().success());
    fuse.die();
    assert_eq!(
        fs::metadata(&file).unwrap_err().raw_os_error(),
        Some(libc::ENOTCONN)
    );
    drop(fuse);
    assert!(mounts_below(&point).is_empty());

    let point = sandbox.directory("owned");
    std::os::unix::fs::chown(&point, Some(61001), Some(61001)).unwrap();
    let _owned = Fuse::of_owner(&point, 61001);
    assert_eq!(
        fs::metadata(point.join("data")).unwrap_err().raw_os_error(),
        Some(libc::EACCES)
    );
}
