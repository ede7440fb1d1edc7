use super::*;
use std::fs;
use std::os::unix::fs::symlink;

fn root() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(&HostPath::new(dir.path()).unwrap()).unwrap();
    (dir, root)
}

fn spot(root: &Root, path: &str) -> io::Result<Spot> {
    root.spot(&JailPath::new(path).unwrap())
}

#[test]
fn made_things_are_removed_only_while_unchanged() {
    let (dir, root) = root();
    for kind in [
        CreatedKind::Directory,
        CreatedKind::File,
        CreatedKind::Link("usr/lib".into()),
    ] {
        let spot = spot(&root, "/x").unwrap();
        let file = spot.create(&kind).unwrap();
        assert_eq!(
            spot.create(&kind).unwrap_err().raw_os_error(),
            Some(libc::EEXIST)
        );
        let other = Identity {
            ino: file.ino + 1,
            born: file.born.map(|born| born + 1),
            ..file
        };
        assert!(!spot.remove(&kind, Some(other)).unwrap());
        assert!(spot.remove(&kind, Some(file)).unwrap());
        assert!(
            spot.remove(&kind, Some(file)).unwrap(),
            "absent is as good as removed"
        );
    }
    fs::write(dir.path().join("x"), "content").unwrap();
    assert!(
        !spot(&root, "/x")
            .unwrap()
            .remove(&CreatedKind::File, None)
            .unwrap()
    );
    fs::create_dir_all(dir.path().join("d/e")).unwrap();
    assert!(
        !spot(&root, "/d")
            .unwrap()
            .remove(&CreatedKind::Directory, None)
            .unwrap()
    );
    symlink("else", dir.path().join("l")).unwrap();
    assert!(
        !spot(&root, "/l")
            .unwrap()
            .remove(&CreatedKind::Link("usr/lib".into()), None)
            .unwrap()
    );
}

#[test]
fn a_link_on_the_way_is_refused() {
    let (dir, root) = root();
    symlink("/etc", dir.path().join("etc")).unwrap();
    assert_eq!(
        spot(&root, "/etc/x").err().unwrap().raw_os_error(),
        Some(libc::ELOOP)
    );
    assert_eq!(
        root.open_at(&JailPath::new("/etc/x").unwrap())
            .unwrap_err()
            .raw_os_error(),
        Some(libc::ELOOP)
    );
}

#[test]
fn a_root_that_is_reached_through_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    let error = Root::open(&HostPath::new(dir.path().join("link")).unwrap()).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot open the root "),
        "{error}"
    );
}
