use super::*;

#[test]
fn paths_are_normalised_or_refused() {
    let ok = |text: &str| HostPath::new(text).unwrap().to_string();
    assert_eq!(ok("/etc//ssl/./certs/"), "/etc/ssl/certs");
    assert_eq!(ok("/"), "/");
    assert_eq!(HostPath::new(""), Err(BadPath::Empty));
    assert_eq!(HostPath::new("etc"), Err(BadPath::NotAbsolute));
    assert_eq!(HostPath::new("/etc/../root"), Err(BadPath::ParentComponent));
    assert_eq!(HostPath::new("/a\0b"), Err(BadPath::Nul));
    assert_eq!(
        HostPath::new(format!("/{}", "x".repeat(256))),
        Err(BadPath::TooLong)
    );
}

#[test]
fn a_jail_path_opens_beneath_the_root_and_joins_below_it() {
    let path = JailPath::new("/etc/hosts").unwrap();
    assert_eq!(path.relative(), Path::new("etc/hosts"));
    assert_eq!(JailPath::slash().relative(), Path::new("."));
    let root = HostPath::new("/srv/www/site1").unwrap();
    assert_eq!(root.inside(&path).to_string(), "/srv/www/site1/etc/hosts");
    let names: Vec<_> = JailPath::new("/a/b/c")
        .unwrap()
        .directories_above()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["/a", "/a/b"]);
}

#[test]
fn parents_sort_before_children_whatever_the_punctuation() {
    let mut paths = ["/a.b", "/a/c", "/a"].map(|p| JailPath::new(p).unwrap());
    paths.sort();
    assert_eq!(paths.map(|p| p.to_string()), ["/a", "/a/c", "/a.b"]);
}

#[test]
fn order_and_prefixes_are_those_of_whole_components() {
    let texts = [
        "/", "/a", "/a/b", "/a.b", "/a b", "/ab", "/a/b/c", "/a\u{1}", "/b",
    ];
    let paths = texts.map(|text| HostPath::new(text).unwrap());
    for a in &paths {
        for b in &paths {
            assert_eq!(a.cmp(b), a.as_path().cmp(b.as_path()), "{a} {b}");
            assert_eq!(
                a.starts_with(b),
                a.as_path().starts_with(b.as_path()),
                "{a} {b}"
            );
            assert_eq!(
                a.below(b),
                a.as_path().strip_prefix(b.as_path()).ok(),
                "{a} {b}"
            );
        }
    }
}

#[test]
fn paths_that_are_not_utf8_survive_json() {
    let path = HostPath::new(OsStr::from_bytes(b"/srv/\xff")).unwrap();
    let json = serde_json::to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<HostPath>(&json).unwrap(), path);
    assert!(serde_json::from_str::<HostPath>("\"../etc\"").is_err());
}

#[test]
fn site_names_are_safe_as_file_names() {
    assert!(SiteName::new("site1.example-x_y@2").is_ok());
    for bad in ["", ".hidden", "-rf", "a/b", "a b", "a\n", "ü"] {
        assert!(SiteName::new(bad).is_err(), "{bad:?}");
    }
}
