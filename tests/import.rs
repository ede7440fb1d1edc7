//! Promise: on a host with pools and no manifests, `import --write` and `up --all` are the whole set-up.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use support::{Sandbox, mounts_below, on_shared_root, trials};

fn main() -> ExitCode {
    let mut trials = trials([
        ("pools become sites, and they come up", pools_become_sites),
        ("nothing is overwritten", nothing_is_overwritten),
        ("what cannot be read is named", mistakes),
    ]);
    // In a process of its own, because it mounts on /etc/php.
    trials.push(on_shared_root("Debian's own configuration", debians_own));
    support::main(trials)
}

/// A php-fpm.conf as Debian has it, with three pools in chroots, two of them sharing one, and one without.
fn fpm(sandbox: &Sandbox) -> PathBuf {
    let srv = sandbox.path("srv");
    let srv = srv.display();
    sandbox.file(
        "fpm/php-fpm.conf",
        format!(
            "; a comment\n[global]\npid = /run/php/php-fpm.pid\nerror_log = \"/var/log/php.log\" ; quoted\n\
             include={}\n",
            sandbox.path("fpm/pool.d/*.conf").display()
        ),
    );
    let pool = |name: &str, text: String| drop(sandbox.file(format!("fpm/pool.d/{name}.conf"), text));
    pool("www", "[www]\nuser = www-data\nlisten = /run/php/www.sock\npm = static\n;chroot =\n".to_owned());
    pool(
        "one",
        format!(
            "[one]\nuser = $pool\nuser = www-data\nchroot = {srv}/$pool/ ; its own\nlisten = 127.0.0.1:9000\n"
        ),
    );
    pool(
        "two",
        format!("[two]\nuser = \"games\"\nchroot = {srv}/shared\nphp_admin_value[open_basedir] = /\n"),
    );
    pool("three", format!("[three]\nuser = 33\nlisten = {srv}/shared/php.sock\nchroot = {srv}/shared\n"));
    for root in ["one", "shared"] {
        sandbox.directory(format!("srv/{root}"));
    }
    sandbox.path("fpm")
}

fn pools_become_sites() {
    let sandbox = Sandbox::new();
    let fpm = fpm(&sandbox);
    let printed = sandbox.ok(&["import", fpm.to_str().unwrap()]).complains("1 pool without a chroot");
    assert_eq!(fs::read_dir(sandbox.config().join("sites")).unwrap().count(), 0, "printing writes nothing");
    let file = sandbox.config().join("sites/one.yaml");
    let first = format!(
        "# {}\n# The pool one of {}/pool.d/one.conf.\nroot: {}\npresets: [php-fpm]\nusers: [www-data]\n",
        file.display(),
        fpm.display(),
        sandbox.root("one").display()
    );
    assert!(printed.stdout.starts_with(&first), "{printed}");
    assert!(printed.stdout.contains("# It runs as the user with the id 33"), "{printed}");
    assert!(printed.stdout.contains("php.sock is inside the root"), "{printed}");
    sandbox.ok(&["import", "--write", fpm.to_str().unwrap()]).complains("one: wrote ");
    sandbox.ok(&["check"]).prints("one: ok").prints("three: ok");
    sandbox.ok(&["up", "--all"]);
    assert!(
        mounts_below(&sandbox.root("one")).len() > 20 && mounts_below(&sandbox.root("shared")).len() > 20
    );
    let json = sandbox.ok(&["import", "--json", fpm.to_str().unwrap()]).json();
    assert_eq!(json["sites"].as_array().unwrap().len(), 2);
}

fn nothing_is_overwritten() {
    let sandbox = Sandbox::new();
    let fpm = fpm(&sandbox);
    sandbox.manifest("one", "root: /srv/mine\n");
    sandbox
        .run(&["import", "--write", fpm.to_str().unwrap()])
        .exits(1)
        .complains("one.yaml: File exists")
        .complains("three: wrote ");
    assert_eq!(fs::read_to_string(sandbox.config().join("sites/one.yaml")).unwrap(), "root: /srv/mine\n");
}

fn mistakes() {
    let sandbox = Sandbox::new();
    let import = |path: &Path| sandbox.run(&["import", path.to_str().unwrap()]).exits(1);
    import(&sandbox.path("absent.conf")).complains("cannot read ").complains("No such file");
    import(&sandbox.file("bad.conf", "[www]\nuser = a\nthis is nothing\n"))
        .complains("bad.conf:3: `this is nothing`");
    import(&sandbox.file("none.conf", "[www]\nuser = a\n")).complains("no pool with a chroot was found");
    import(&sandbox.file("relative.conf", "[www]\nchroot = srv/www\n")).complains("pool www of ");
    let own = sandbox.path("loop.conf");
    import(&sandbox.file("loop.conf", format!("[global]\ninclude = {}\n", own.display())))
        .complains("is included by itself");
    let odd = sandbox.file("odd.conf", "[a b/c]\nchroot = /srv/www\n");
    import(&odd).complains("cannot be a site's name");
}

/// `/etc/php/VERSION/fpm` of the package, with its pool given a chroot: the unit is known by the place.
fn debians_own() {
    let sandbox = Sandbox::new();
    let upper = [sandbox.directory("upper"), sandbox.directory("work")];
    let options = format!("lowerdir=/etc/php,upperdir={},workdir={}", upper[0].display(), upper[1].display());
    let overlay = ["-t", "overlay", "-o", &options, "php", "/etc/php"];
    support::Ran::of(std::process::Command::new("mount").args(overlay)).exits(0);
    let fpm = glob::glob("/etc/php/*/fpm").unwrap().next().expect("Debian's php-fpm is installed").unwrap();
    let pool = fpm.join("pool.d/www.conf");
    let root = sandbox.directory("srv/www");
    let text = fs::read_to_string(&pool).unwrap();
    fs::write(&pool, format!("{text}\nchroot = {}\n", root.display())).unwrap();
    sandbox.ok(&["import", "--write", fpm.to_str().unwrap()]);
    let version = fpm.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let manifest = fs::read_to_string(sandbox.config().join("sites/www.yaml")).unwrap();
    assert!(manifest.contains(&format!("services: [php{version}-fpm.service]\n")), "{manifest}");
    assert!(manifest.contains("users: [www-data]\n"), "{manifest}");
    sandbox.ok(&["up", "www"]);
}
