//! Into which jail each bind line leads: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use super::fstab::Bind;
use crate::base::HostPath;
use crate::resolve::refuse_system;

/// Directories that a system has at its top: a jail that has one too mirrors the host.
const SYSTEM: [&str; 14] = [
    "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "run", "sbin", "sys",
    "usr", "var",
];

/// Those of them that nothing else is called.
const UNMISTAKABLE: [&str; 8] = ["bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "usr"];

/// Lines by the root that they lead into.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned<'b> {
    pub by_root: BTreeMap<HostPath, Vec<&'b Bind>>,
    /// Those of no jail, or that no manifest can say, with the reason.
    pub left: Vec<(&'b Bind, String)>,
}

/// Finds the roots: `known` ones, those that lines with the host's paths inside show (`/etc/hosts`
/// on `/srv/a/etc/hosts`: the root is `/srv/a`), and then those that at least the layout of a
/// target shows.
pub(super) fn assign<'b>(binds: &'b [Bind], known: &[HostPath]) -> Assigned<'b> {
    let mut roots: BTreeSet<_> = known.iter().cloned().collect();
    let strong = binds
        .iter()
        .filter(|bind| begins_as_a_system(&bind.source))
        .filter_map(mirrored);
    add(&mut roots, strong.collect());
    let outside = |bind: &&Bind, roots: &BTreeSet<_>| above(&bind.target, roots).is_none();
    let weak = binds.iter().filter(|bind| outside(bind, &roots));
    let weak = weak
        .filter_map(|bind| mirrored(bind).or_else(|| by_layout(&bind.target)))
        .collect();
    add(&mut roots, weak);
    let mut assigned = Assigned::default();
    for bind in binds {
        match above(&bind.target, &roots)
            .ok_or_else(nowhere)
            .and_then(|root| sayable(bind, root))
        {
            Ok(root) => assigned.by_root.entry(root).or_default().push(bind),
            Err(why) => assigned.left.push((bind, why)),
        }
    }
    assigned
}

/// Adds those of `more` that could be jails. What is inside another root is a part of that one, and
/// what holds one that is known already is no jail.
fn add(roots: &mut BTreeSet<HostPath>, more: BTreeSet<HostPath>) {
    let holds = |root: &HostPath| roots.iter().any(|known| known.starts_with(root));
    let possible: Vec<_> = more
        .into_iter()
        .filter(|root| refuse_system(root).is_ok() && !holds(root))
        .collect();
    for root in possible {
        // Sorted: what holds another comes before it.
        if above(&root, roots).is_none() {
            roots.insert(root);
        }
    }
}

/// The innermost of `roots` that `path` is in or is.
fn above(path: &HostPath, roots: &BTreeSet<HostPath>) -> Option<HostPath> {
    path.ancestors().find(|above| roots.contains(above))
}

fn begins_as_a_system(source: &HostPath) -> bool {
    names(source.as_path())
        .next()
        .is_some_and(|first| SYSTEM.contains(&first))
}

/// The root in which the target has the source's path.
fn mirrored(bind: &Bind) -> Option<HostPath> {
    let inside = bind
        .source
        .as_path()
        .strip_prefix("/")
        .ok()
        .filter(|inside| !inside.as_os_str().is_empty())?;
    if !bind.target.as_path().ends_with(inside) {
        return None;
    }
    let root = bind
        .target
        .as_path()
        .ancestors()
        .nth(inside.components().count())?;
    HostPath::new(root).ok()
}

/// What is above the first directory that is called as one at a system's top.
fn by_layout(target: &HostPath) -> Option<HostPath> {
    let all: Vec<_> = names(target.as_path()).collect();
    // The host's own /usr/local/lib and /opt/x/lib are no jails.
    if all
        .first()
        .is_none_or(|first| SYSTEM.contains(first) && *first != "var")
    {
        return None;
    }
    let depth = all
        .iter()
        .skip(1)
        .position(|name| UNMISTAKABLE.contains(name))?
        + 1;
    HostPath::new(target.as_path().ancestors().nth(all.len() - depth)?).ok()
}

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

fn nowhere() -> String {
    "no other line and no pool shows a jail there; not imported".to_owned()
}

/// `root`, if the manifest of a site there can say the line.
fn sayable(bind: &Bind, root: HostPath) -> Result<HostPath, String> {
    if bind.target == root {
        return Err(format!(
            "it mounts the root {root} itself, which no manifest can say: it stays in fstab"
        ));
    }
    let text = bind.source.to_string();
    if text.contains(['*', '?', '['])
        && bind.target.as_path() != root.as_path().join(text.trim_start_matches('/'))
    {
        return Err(format!(
            "{} has characters of patterns in its name, and no manifest can say another target for it: it stays in fstab",
            bind.source
        ));
    }
    if root.starts_with(&bind.source) {
        return Err(format!(
            "{} holds the root {root}, and no jail may hold itself; not imported",
            bind.source
        ));
    }
    if bind.source.starts_with(&root) {
        return Err(format!(
            "{} is in the root {root} already, which no manifest can say: it stays in fstab",
            bind.source
        ));
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(line: &str) -> Bind {
        let text = format!("{line} none bind,ro 0 0\n");
        super::super::fstab::read(Path::new("f"), text.as_bytes())
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
    fn what_no_manifest_can_say_is_left() {
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
