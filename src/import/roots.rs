//! The jail that each bind line mounts something in: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use super::fstab::Bind;
use crate::base::HostPath;
use crate::resolve::refuse_system;

/// Directories at the top of a system. A jail that also has such a directory mirrors the host.
const SYSTEM: [&str; 14] = [
    "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "run", "sbin", "sys",
    "usr", "var",
];

/// Those of them whose names nothing else has.
const UNMISTAKABLE: [&str; 8] = ["bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "usr"];

/// The lines by the root that they mount something in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned<'b> {
    pub by_root: BTreeMap<HostPath, Vec<&'b Bind>>,
    /// The lines that are not for a jail, or that no manifest can express, and why.
    pub left: Vec<(&'b Bind, String)>,
}

/// Finds the roots: first the `known` ones and those that lines with the host's paths inside show
/// (`/etc/hosts` on `/srv/a/etc/hosts`: the root is `/srv/a`), then those that only the layout of a
/// target suggests.
pub(super) fn assign<'b>(binds: &'b [Bind], known: &[HostPath]) -> Assigned<'b> {
    let mut roots = BTreeSet::from_iter(known.to_vec());
    let mut shown = BTreeSet::new();
    for bind in binds {
        if begins_as_a_system(&bind.source) {
            shown.extend(mirrored(bind));
        }
    }
    add(&mut roots, shown);

    let mut suggested = BTreeSet::new();
    for bind in binds {
        if root_above(&bind.target, &roots).is_none() {
            suggested.extend(mirrored(bind).or_else(|| by_layout(&bind.target)));
        }
    }
    add(&mut roots, suggested);

    let mut assigned = Assigned::default();
    for bind in binds {
        match root_of(bind, &roots) {
            Ok(root) => assigned.by_root.entry(root).or_default().push(bind),
            Err(why) => assigned.left.push((bind, why)),
        }
    }
    assigned
}

/// Adds those of `more` that can be jails. A path inside another root is a part of that root, and a
/// directory that holds a known root is not a jail.
fn add(roots: &mut BTreeSet<HostPath>, more: BTreeSet<HostPath>) {
    let known = roots.clone();
    // Sorted: a directory comes before those inside it.
    for root in more {
        let holds_known = known.iter().any(|known| known.starts_with(&root));
        let is_possible = !holds_known && refuse_system(&root).is_ok();
        if is_possible && root_above(&root, roots).is_none() {
            roots.insert(root);
        }
    }
}

/// The innermost of `roots` that `path` is in or is.
fn root_above(path: &HostPath, roots: &BTreeSet<HostPath>) -> Option<HostPath> {
    path.ancestors().find(|above| roots.contains(above))
}

fn begins_as_a_system(source: &HostPath) -> bool {
    match names(source.as_path()).next() {
        Some(first) => SYSTEM.contains(&first),
        None => false,
    }
}

/// The root in which the target has the source's path.
fn mirrored(bind: &Bind) -> Option<HostPath> {
    let target = bind.target.as_path();
    let inside = bind.source.as_path().strip_prefix("/").ok()?;
    if inside.as_os_str().is_empty() || !target.ends_with(inside) {
        return None;
    }
    let root = target.ancestors().nth(inside.components().count())?;
    HostPath::new(root).ok()
}

/// The directory above the first one whose name is that of a directory at a system's top.
fn by_layout(target: &HostPath) -> Option<HostPath> {
    let names: Vec<_> = names(target.as_path()).collect();
    let first = names.first()?;
    // The host's own /usr/local/lib and /opt/x/lib are not in jails.
    if SYSTEM.contains(first) && *first != "var" {
        return None;
    }
    let mut below_first = names.iter().skip(1);
    let depth = 1 + below_first.position(|name| UNMISTAKABLE.contains(name))?;
    let root = target.as_path().ancestors().nth(names.len() - depth)?;
    HostPath::new(root).ok()
}

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

/// The root that the line mounts something in; or why the line cannot be imported.
fn root_of(bind: &Bind, roots: &BTreeSet<HostPath>) -> Result<HostPath, String> {
    let Bind {
        source,
        target,
        foreign,
        astray,
        ..
    } = bind;
    let Some(root) = root_above(target, roots) else {
        return Err("no other line and no pool shows a jail there; not imported".to_owned());
    };

    if let Some(why) = astray {
        return Err(format!(
            "{why}; not imported: the line has to stay in fstab"
        ));
    }
    if !foreign.is_empty() {
        return Err(format!(
            "{}: a manifest cannot express it; not imported: the line has to stay in fstab",
            foreign.join(", ")
        ));
    }
    if *target == root {
        return Err(format!(
            "it mounts the root {root} itself, which a manifest cannot express: it stays in fstab"
        ));
    }
    if root.starts_with(source) {
        return Err(format!(
            "{source} holds the root {root}, and no jail may hold itself; not imported"
        ));
    }
    if source.starts_with(&root) {
        return Err(format!(
            "{source} is already in the root {root}, which a manifest cannot express: it stays in \
             fstab"
        ));
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(line: &str) -> Bind {
        let text = format!("{line} none bind,ro 0 0\n");
        super::super::fstab::read(Path::new("f"), text.as_bytes(), &|_| Err(String::new()))
            .unwrap()
            .binds
            .remove(0)
    }

    /// The root of each line; `None`: it has none.
    fn roots(lines: &[&str], known: &[&str]) -> Vec<Option<String>> {
        let binds: Vec<_> = lines.iter().map(|line| bind(line)).collect();
        let known: Vec<_> = known
            .iter()
            .map(|root| HostPath::new(root).unwrap())
            .collect();
        let assigned = assign(&binds, &known);
        let of = |bind: &Bind| {
            let found = assigned.by_root.iter().find(|(_, all)| all.contains(&bind));
            found.map(|(root, _)| root.to_string())
        };
        binds.iter().map(of).collect()
    }

    fn expect(lines: &[&str], known: &[&str], expected: &[&str]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|root| (!root.is_empty()).then(|| (*root).to_owned()))
            .collect();
        assert_eq!(roots(lines, known), expected, "{lines:?}");
    }

    #[test]
    fn the_root_is_what_mirrors_the_host() {
        expect(
            &[
                "/etc/hosts /srv/www/a/etc/hosts",
                "/dev/null /srv/www/b/dev/null",
                "/usr/lib /srv/www/a/usr/lib",
            ],
            &[],
            &["/srv/www/a", "/srv/www/b", "/srv/www/a"],
        );
    }

    #[test]
    fn other_targets_belong_to_the_root_that_they_are_in() {
        expect(
            &[
                "/srv/up /srv/a/uploads",
                "/lib/x /srv/a/usr/lib/x",
                "/etc/hosts /srv/a/etc/hosts",
                "/x /srv/ab/y",
            ],
            &[],
            &["/srv/a", "/srv/a", "/srv/a", ""],
        );
        expect(&["/data/up /srv/a/uploads"], &["/srv/a"], &["/srv/a"]);
        expect(
            &["/conf/resolv /srv/a/etc/resolv.conf", "/data/b /srv/a/b"],
            &[],
            &["/srv/a", "/srv/a"],
        );
    }

    #[test]
    fn a_disk_that_was_moved_is_no_jail_around_the_jails() {
        expect(
            &[
                "/www/a /srv/www/a/www",
                "/www/x /srv/www/x",
                "/etc/hosts /srv/www/a/etc/hosts",
            ],
            &[],
            &["/srv/www/a", "", "/srv/www/a"],
        );
        expect(
            &[
                "/disk/lib /var/lib",
                "/disk/lib /usr/local/lib",
                "/disk/home /home",
                "/x /x",
            ],
            &[],
            &["", "", "", ""],
        );
    }

    #[test]
    fn lines_that_no_manifest_can_express_are_left() {
        expect(
            &[
                "/srv/base /srv/a",
                "/srv /srv/a/all",
                "/srv/a/x /srv/a/y",
                "/ /srv/a/host",
                "/etc/x /srv/a/etc/x",
            ],
            &[],
            &["", "", "", "", "/srv/a"],
        );
    }
}
