//! What owners work with: paths at which they put things, and destinations of their links.

use std::fs;
use std::path::{Path, PathBuf};

use super::player::{Act, Part};
use super::world::{Owner, World};

/// In the root: targets, their parent directories, and other names.
const IN_ROOT: &str = "etc etc/conf etc/own etc/passwd usr usr/share usr/share/named own own/dir \
                       own/www own/www/two tree \
                       tree/sub up up/www dev dev/null lib64 l2 x1 x2 etc/x3 own/x4";

/// In the home: sources, their parent directories, and other names.
const IN_HOME: &str = "src src/dir src/dir/one src/file src/via bin bin/tool lib lib/libown.so \
                       vault vault/dir web l2 y1 y2 \
                       src/y3 private/dir";

/// The directories that mountjail passes through, in the root and in the home.
const WAYS: [&str; 2] = [
    "etc usr usr/share own own/www own/dir up tree dev l2",
    "src src/dir src/file src/via bin bin/tool lib vault l2 web",
];

/// Where links can lead: from where they are,
const NEAR: &str = ".. ../.. ../vault ../../vault . x1 nowhere /proc/self/cwd /proc/self/cwd/dir";

/// and in the sandbox.
const FAR: &str = "host/vault host/vault/dir host/vault/file host/unnamed host/named host/secret \
                   home/vault/dir home/carol \
                   home/carol/dir/secret home srv/quiet1 srv/quiet1/etc srv/quiet2 host srv \
                   config/sites";

/// A part for the owner.
pub fn part(world: &World, owner: &Owner, act: Act, seed: u64) -> Part {
    let (root, home) = (&owner.root, &owner.home);
    let below = |at: &Path, names: &str| {
        names
            .split_ascii_whitespace()
            .map(|name| at.join(name))
            .collect::<Vec<_>>()
    };
    let mut places = [
        below(root, IN_ROOT),
        below(home, IN_HOME),
        vec![root.clone()],
    ]
    .concat();
    // Here mountjail makes a source's own path in the root.
    let inner = home.join("src/via").strip_prefix("/").unwrap().to_owned();
    places.extend(
        inner
            .ancestors()
            .filter(|above| above != &Path::new(""))
            .map(|above| root.join(above)),
    );
    let ways = [
        below(root, WAYS[0]),
        below(home, WAYS[1]),
        vec![root.clone()],
    ]
    .concat();
    let far = below(&world.sandbox.path(""), FAR);
    let by_proc =
        |path: &PathBuf| Path::new("/proc/self/root").join(path.strip_prefix("/").unwrap());
    let mut texts = NEAR
        .split_ascii_whitespace()
        .map(PathBuf::from)
        .collect::<Vec<_>>();
    texts.extend(far.iter().map(by_proc));
    texts.extend(far);
    for other in &world.owners {
        texts.extend([
            other.root.clone(),
            other.home.join("private"),
            other.home.join("src/dir"),
        ]);
    }
    texts.push(home.clone());
    Part {
        act,
        home: home.clone(),
        root: root.clone(),
        places,
        ways,
        texts,
        binaries: [host_file("/bin/true"), host_file("/lib/*/libdl.so.2")],
        namespaces: world.options.has("namespaces"),
        seed,
    }
}

/// The first match of the pattern that is not a link.
fn host_file(pattern: &str) -> PathBuf {
    let found = glob::glob(pattern)
        .unwrap()
        .next()
        .unwrap_or_else(|| panic!("no {pattern} on this host"));
    fs::canonicalize(found.unwrap()).unwrap()
}
