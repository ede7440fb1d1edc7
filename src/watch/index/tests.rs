use super::*;

fn site(name: &str) -> Dependent {
    Dependent::Site(SiteName::new(name).unwrap())
}

fn lookups(paths: &[(&str, Aspect)]) -> Arc<Dependencies> {
    let mut lookups = Dependencies::default();
    for (path, interest) in paths {
        lookups.add(Path::new(path), *interest);
    }
    Arc::new(lookups)
}

fn at(index: &Index, path: &str, event: NameEvent) -> Vec<Dependent> {
    let path = Path::new(path);
    index
        .at(path.parent().unwrap(), path.file_name().unwrap(), event)
        .into_iter()
        .collect()
}

const NAME: Aspect = Aspect::NAME;

#[test]
fn only_those_are_due_whose_lookups_had_that_very_name() {
    let mut index = Index::default();
    let shared = lookups(&[("/etc", NAME), ("/etc/hosts", NAME)]);
    let own = lookups(&[("/etc", NAME), ("/etc/passwd", Aspect::CONTENTS)]);
    index.set_all(&[
        (site("a"), vec![shared.clone()]),
        (site("b"), vec![shared, own]),
    ]);
    assert_eq!(
        at(&index, "/etc/hosts", NameEvent::Name),
        [site("a"), site("b")]
    );
    assert_eq!(at(&index, "/etc/passwd", NameEvent::Name), [site("b")]);
    assert_eq!(at(&index, "/etc/passwd", NameEvent::Contents), [site("b")]);
    assert_eq!(
        at(&index, "/etc/hosts", NameEvent::Contents),
        [],
        "the jail sees what is written in place"
    );
    assert_eq!(at(&index, "/etc/hosts.new", NameEvent::Name), []);
    assert_eq!(at(&index, "/usr/hosts", NameEvent::Name), []);
    let directories: Vec<_> = index.directories().collect();
    assert_eq!(
        directories,
        [(Path::new("/"), false), (Path::new("/etc"), true)]
    );
}

#[test]
fn any_new_name_in_a_listed_directory_counts_and_no_write_does() {
    let mut index = Index::default();
    index.set_all(&[(
        site("a"),
        vec![lookups(&[("/etc/ssl/certs", Aspect::NAMES)])],
    )]);
    assert_eq!(
        at(&index, "/etc/ssl/certs/new.pem", NameEvent::Name),
        [site("a")]
    );
    assert_eq!(
        at(&index, "/etc/ssl/certs/new.pem", NameEvent::Contents),
        []
    );
    assert_eq!(at(&index, "/etc/ssl/certs", NameEvent::Name), [site("a")]);
}

#[test]
fn a_mount_concerns_what_is_at_it_and_below_it() {
    let mut index = Index::default();
    index.set_all(&[
        (
            site("a"),
            vec![lookups(&[
                ("/srv", NAME),
                ("/srv/data", NAME),
                ("/srv/data/x", NAME),
            ])],
        ),
        (
            site("b"),
            vec![lookups(&[("/srv", NAME), ("/srv/data.b", NAME)])],
        ),
    ]);
    let below = |path: &str| index.below(Path::new(path)).into_iter().collect::<Vec<_>>();
    assert_eq!(below("/srv/data"), [site("a")]);
    assert_eq!(below("/srv/data/x"), [site("a")]);
    assert_eq!(below("/srv"), [site("a"), site("b")]);
    assert_eq!(below("/"), [site("a"), site("b")]);
    assert_eq!(below("/mnt"), []);
    assert_eq!(
        index
            .inside(Path::new("/srv/data"))
            .into_iter()
            .collect::<Vec<_>>(),
        [site("a")]
    );
}

#[test]
fn a_mount_with_other_attributes_concerns_who_depends_on_them() {
    let on = |id, options| {
        let mut lookups = Dependencies::default();
        lookups.add_mount(id, options);
        vec![Arc::new(lookups)]
    };
    let mut index = Index::default();
    index.set_all(&[
        (site("a"), on(1, MountAttributes::OPEN)),
        (site("b"), on(2, MountAttributes::OPEN)),
    ]);
    let due = |index: &Index, now: fn(u64) -> Option<MountAttributes>| {
        Vec::from_iter(index.remounted(now))
    };
    assert_eq!(due(&index, |_| Some(MountAttributes::OPEN)), []);
    assert_eq!(
        due(&index, |id| Some(if id == 2 {
            MountAttributes::CODE
        } else {
            MountAttributes::OPEN
        })),
        [site("b")]
    );
    assert_eq!(due(&index, |_| None), [], "an unmount is told otherwise");
    index.set_all(&[(site("b"), on(1, MountAttributes::CODE))]);
    assert_eq!(due(&index, |_| Some(MountAttributes::CODE)), [site("a")]);
}

#[test]
fn what_nobody_needs_any_more_is_forgotten() {
    let mut index = Index::default();
    let one = || lookups(&[("/etc/hosts", NAME), ("/run", Aspect::NAMES)]);
    index.set_all(&[(site("a"), vec![one()]), (site("b"), vec![one()])]);
    assert_eq!(
        index.sets.len(),
        1,
        "equal lookups of two passes are one set"
    );
    index.set_all(&[(site("a"), vec![lookups(&[("/etc/group", NAME)])])]);
    assert_eq!(at(&index, "/etc/hosts", NameEvent::Name), [site("b")]);
    assert_eq!(
        index
            .directories_of([&site("a")])
            .into_keys()
            .collect::<Vec<_>>(),
        [Path::new("/etc")]
    );
    index.set(&site("b"), vec![]);
    assert!(!index.has(Path::new("/run")));
    index.set(&site("a"), vec![]);
    assert_eq!(index.directories().count(), 0);
    assert!(index.sets.is_empty() && index.by_contents.is_empty() && index.mounts.is_empty());
}
