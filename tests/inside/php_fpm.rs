//! Promise: a PHP-FPM pool in a chroot resolves names, opens `ssl://`, knows time zones, users and
//! character sets once its site is up, in workers that were running before; and after `down` the
//! tree is as it was.

use std::fs;
use std::path::Path;

use crate::lab::{self, Fpm, NAME, PORT};
use crate::support::{Sandbox, for_each_engine_alone, mounts_below, tree};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    // They change the same files of the host and use the same ports.
    for_each_engine_alone("a PHP-FPM pool works in its chroot", pool)
}

/// What pools lack, and what the answer must contain once they have it.
const NEEDS: [(&str, &str); 3] = [
    ("gethostbyname('NAME') ?: 'none'", "OK: \"127.0.0.1\""),
    (
        "(fn() => substr(file_get_contents('https://NAME:PORT/'), 0, 6))()",
        "OK: \"<HTML>\"",
    ),
    (
        "(new DateTime('2026-07-01', new DateTimeZone('Europe/Zurich')))->getOffset()",
        "OK: 7200",
    ),
];

/// Only a worker that has not asked before can know this, because the C library remembers that the
/// file was missing.
const ONCE: [(&str, &str); 2] = [
    ("posix_getpwuid(posix_getuid())['name']", "OK: \"www-data\""),
    (
        "bin2hex(iconv('UTF-8', 'EUC-JP', \"\\u{65e5}\"))",
        "OK: \"c6fc\"",
    ),
];

fn real(php: &str) -> String {
    php.replace("NAME", NAME).replace("PORT", &PORT.to_string())
}

fn pool(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    lab::prepare(&sandbox);
    let (_dns, _tls) = (lab::dns(), lab::tls(&sandbox));
    let root = sandbox.site("site1", "presets: [php-fpm]\nusers: [www-data]\n");
    fs::write(root.join("index.php"), "<?php echo 'the site';").unwrap();
    let bare = tree(&root);

    let fpm = Fpm::start(&sandbox, &root);
    let worker = fpm.eval(&root, "getmypid()");
    for (php, good) in NEEDS {
        let answer = fpm.eval(&root, &real(php));
        assert!(
            !answer.contains(good),
            "{php} works in a bare chroot: {answer}"
        );
    }
    sandbox.ok(&["up", "site1"]);
    for (php, good) in NEEDS.iter().chain(&ONCE) {
        let answer = fpm.eval(&root, &real(php));
        assert!(answer.contains(good), "{php}: {answer}");
    }
    assert_eq!(
        worker,
        fpm.eval(&root, "getmypid()"),
        "the worker was running before"
    );
    resolver_moves(&sandbox, &fpm, &root);
    drop(fpm);

    let fpm = Fpm::start(&sandbox, &root);
    for (php, good) in NEEDS.iter().chain(&ONCE) {
        let answer = fpm.eval(&root, &real(php));
        assert!(answer.contains(good), "in a new worker: {php}: {answer}");
    }
    let before = mounts_below(&root);
    sandbox
        .run(&["down", "site1"])
        .exits(1)
        .says("whose pool site has this root")
        .says("has this root");
    assert_eq!(before, mounts_below(&root));
    drop(fpm);
    sandbox.ok(&["down", "site1"]);
    assert!(mounts_below(&root).is_empty());
    bare.assert_same(&tree(&root));
}

/// The resolver replaces its file, as resolvers do: the stale mount is reported and healed.
fn resolver_moves(sandbox: &Sandbox, fpm: &Fpm, root: &Path) {
    let stub = "/run/systemd/resolve/stub-resolv.conf";
    let text = fs::read_to_string(stub).unwrap();
    fs::write(format!("{stub}.new"), format!("# replaced\n{text}")).unwrap();
    fs::rename(format!("{stub}.new"), stub).unwrap();
    sandbox.run(&["status", "site1"]).exits(3).prints("stale");
    sandbox.ok(&["up", "site1"]).says("1 swapped");
    let answer = fpm.eval(root, "file_get_contents('/etc/resolv.conf')");
    assert!(answer.contains("# replaced"), "{answer}");
    assert!(fpm.eval(root, &real(NEEDS[0].0)).contains(NEEDS[0].1));
}
