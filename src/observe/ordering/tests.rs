use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::*;

fn ordering<const COUNT: usize>(files: [(&str, impl AsRef<[u8]>); COUNT]) -> Ordering {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.as_ref().strip_prefix(b"-> ") {
            Some(end) => std::os::unix::fs::symlink(OsStr::from_bytes(end), path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    let files = Files::find([dir.path()].into_iter(), "# own");
    super::ordering(&files, &["in@b.service".to_owned()])
}

#[test]
fn units_are_ordered_by_their_files_drop_ins_and_kinds() {
    let ordering = ordering([
        (
            "a.service",
            "[Unit]\n# After=x\nAfter=b.service \\\n  c.service\n\
             [Service]\nBefore=no.service\n",
        ),
        (
            "b.service",
            "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n",
        ),
        ("a.service.d/1.conf", "[Unit]\nBefore=d.service\n"),
        (
            "a.service.d/2.conf",
            "# own\n[Unit]\nAfter=mountjail.service\n",
        ),
        ("other.service", "-> a.service"),
        ("masked.service", "-> /dev/null"),
        ("in@.service", "[Unit]\nAfter=%i.service\n"),
        ("s.socket", "[Socket]\nListenStream=1\n"),
        ("t.target", "[Unit]\nWants=d.service\n"),
        ("t.target.wants/e.service", ""),
        ("d.service", "[Unit]\nRequiresMountsFor=/srv/a-b\n"),
        ("m.mount", "[Mount]\nWhat=x\nOptions=rw,_netdev\n"),
        ("n.mount", "[Mount]\nWhat=y\nOptions=rw\n"),
    ]);
    let way = |from, to| ordering.way(from, to).map(|way| way.join(" "));
    assert_eq!(
        way("c.service", "d.service").unwrap(),
        "c.service a.service d.service"
    );
    assert_eq!(
        way("b.service", "t.target").unwrap(),
        "b.service a.service d.service t.target"
    );
    assert_eq!(
        way("c.service", "other.service").unwrap(),
        "c.service a.service"
    );
    assert_eq!(
        way("sysinit.target", "masked.service").unwrap(),
        "sysinit.target masked.service"
    );
    assert_eq!(
        way("b.service", "in@b.service").unwrap(),
        "b.service in@b.service"
    );
    assert_eq!(
        way("s.socket", "sockets.target").unwrap(),
        "s.socket sockets.target"
    );
    assert_eq!(way("s.socket", "s.service").unwrap(), "s.socket s.service");
    assert_eq!(way("e.service", "t.target").unwrap(), "e.service t.target");
    assert_eq!(
        way("srv-a\\x2db.mount", "d.service").unwrap(),
        "srv-a\\x2db.mount d.service"
    );
    assert!(way("network.target", "m.mount").is_some());
    for (from, to) in [
        ("network.target", "n.mount"),
        ("a.service", "c.service"),
        ("mountjail.service", "a.service"),
        ("a.service", "no.service"),
    ] {
        assert_eq!(way(from, to), None, "{from} {to}");
    }
    assert!(ordering.is_early("b.service") && !ordering.is_early("a.service"));
}

#[test]
fn an_escaped_backslash_ends_a_line() {
    let text = "[Unit]\nDescription=a \\\\\nAfter=b.service \\\\\\\n c.service\n";
    let ordering = ordering([("a.service", text)]);
    for first in ["b.service", "c.service"] {
        assert!(ordering.way(first, "a.service").is_some(), "{first}");
    }
}

#[test]
fn a_unit_in_another_encoding_is_ordered() {
    let ordering = ordering([
        (
            "a.service",
            &b"[Unit]\nDescription=caf\xe9\nAfter=b.service\n"[..],
        ),
        (
            "a.service.d/1.conf",
            b"# d\xe9j\xe0 vu\n[Unit]\nBefore=c.service\n",
        ),
    ]);
    let way = ordering.way("b.service", "c.service").unwrap();
    assert_eq!(way, ["b.service", "a.service", "c.service"]);
}

#[test]
fn what_would_make_a_cycle_is_not_ordered() {
    let mut ordering = ordering([("a.service", "[Unit]\nAfter=b.service\n")]);
    assert_eq!(
        ordering.order("a.service", "b.service").unwrap_err(),
        ["b.service", "a.service"]
    );
    assert_eq!(
        ordering.order("a.service", "a.service").unwrap_err(),
        ["a.service"]
    );
    ordering.order("a.service", "c.service").unwrap();
    assert_eq!(
        ordering.order("c.service", "b.service").unwrap_err(),
        ["b.service", "a.service", "c.service"]
    );
    assert_eq!(
        mounts_of(Path::new("/srv/.a/é")),
        ["srv-.a-\\xc3\\xa9.mount", "srv-.a.mount", "srv.mount"]
    );
}
