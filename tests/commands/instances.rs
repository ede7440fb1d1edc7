//! Promise: one file `NAME@.yaml` is many sites, which every command knows by their names, and no
//! odd name in a directory of others keeps a site from its mounts.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::support::{Fuse, Sandbox, alone, line, mounts_below, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        ("a pattern's directories are sites, from up to down", life),
        ("every command knows the sites of a template", commands),
        ("a manifest of its own overrides the template", overridden),
        ("odd names are reported and stop nothing", odd_names),
        ("names in a list, and directories below the star", names),
        ("a template that cannot be used is reported", unusable),
        (
            "a site whose instance is gone is kept until it is taken down",
            gone,
        ),
        ("trace adds its lines to the template", traced),
        ("import leaves what a template has", imported),
    ]);
    all.push(alone(
        "an instance that does not answer keeps no other waiting",
        silent,
    ));
    all
}

/// The customers alice and bob, each with one file.
struct Customers {
    sandbox: Sandbox,
    source: PathBuf,
}

impl Customers {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let source = sandbox.file("host/conf", "text");
        let customers = Self { sandbox, source };
        for name in ["alice", "bob"] {
            customers.directory(name);
        }
        let pattern = customers.path("*").display().to_string();
        customers.template(&pattern, "");
        customers
    }

    /// The directory of a customer.
    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.sandbox.path("customers").join(name.as_ref())
    }

    fn directory(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes the template. `more`: its other lines.
    fn template(&self, instances: &str, more: &str) -> PathBuf {
        let (root, mount) = (self.path("%i"), line(&self.source, "/etc/%i.conf"));
        self.sandbox.manifest(
            "customer@",
            format!(
                "root: {}\ninstances: {instances}\nmounts:\n{mount}{more}",
                root.display()
            ),
        )
    }

    fn is_up(&self, name: &str) -> bool {
        let path = self.path(name).join(format!("etc/{name}.conf"));
        !mounts_below(&path).is_empty()
    }

    /// The names that `status` shows, and the exit code.
    fn status(&self) -> Vec<String> {
        let sites = self.sandbox.run(&["status", "--json"]).json();
        let sites = sites["sites"].as_array().unwrap().iter();
        sites
            .map(|site| site["site"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn life() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    sandbox
        .ok(&["up", "--all"])
        .says("customer@alice: up, 1 mount")
        .says("customer@bob: up, 1 mount");
    assert!(customers.is_up("alice") && customers.is_up("bob"));
    sandbox.ok(&["up", "customer@alice"]).says("nothing to do");
    sandbox
        .ok(&["status"])
        .prints("customer@alice: up, 1 of 1 mounts ok")
        .prints("customer@bob: up");
    assert!(sandbox.path("state/run/customer@alice.json").exists());

    sandbox.ok(&["down", "customer@alice"]);
    assert!(!customers.is_up("alice") && customers.is_up("bob"));
    // A new customer is a new site, and the template's name means all of them.
    customers.directory("carol");
    sandbox
        .run(&["plan", "customer@"])
        .exits(3)
        .prints("customer@carol: ");
    sandbox.ok(&["up", "customer@"]);
    assert!(customers.is_up("alice") && customers.is_up("carol"));
    sandbox.ok(&["down", "--all"]);
    for name in ["alice", "bob", "carol"] {
        assert_eq!(
            fs::read_dir(customers.path(name)).unwrap().count(),
            0,
            "{name}"
        );
    }
}

fn commands() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    let template = customers.template(
        &customers.path("*").display().to_string(),
        "services: [\"pool@%i.service\"]\nprograms: [/bin/true]\n",
    );
    sandbox.file("units/pool@.service", "[Service]\nExecStart=/bin/true\n");
    let units = sandbox.path("units");
    let units = units.to_str().unwrap();

    sandbox
        .ok(&["check"])
        .prints("customer@alice: ok")
        .prints("customer@bob: ok");
    sandbox
        .ok(&["check", template.to_str().unwrap()])
        .prints("customer@alice: ok")
        .prints("customer@bob: ok");
    sandbox
        .ok(&["why", "customer@alice", "/etc/alice.conf"])
        .prints(&format!("{}: mounts[0]", template.display()));
    sandbox
        .run(&["why", "customer@alice", "/etc/bob.conf"])
        .exits(1)
        .says("customer@alice: nothing brings /etc/bob.conf");

    let fstab = sandbox.ok(&["fstab", "--all"]).stdout;
    let root = customers.path("bob").display().to_string();
    assert!(
        fstab.contains(&format!("# customer@bob: {root}\n")),
        "{fstab}"
    );
    assert!(fstab.contains(&format!("{root}/etc/bob.conf")), "{fstab}");
    let file = sandbox.file("fstab", "");
    let file = file.to_str().unwrap();
    sandbox.ok(&["fstab", "--install", "--file", file, "customer@bob"]);
    sandbox.ok(&["fstab", "--check", "--file", file, "customer@bob"]);
    sandbox.ok(&["fstab", "--uninstall", "--file", file, "customer@bob"]);
    assert_eq!(fs::read_to_string(file).unwrap(), "");

    sandbox.ok(&["units", "--all", "--install", "--dir", units]);
    let drop_in = |unit: &str| sandbox.path(format!("units/{unit}.d/50-mountjail.conf"));
    for name in ["alice", "bob"] {
        assert!(drop_in(&format!("pool@{name}.service")).exists());
        let own = drop_in(&format!("mountjail@customer@{name}.service"));
        let text = fs::read_to_string(own).unwrap();
        assert!(
            text.contains(&format!("Before=pool@{name}.service")),
            "{text}"
        );
    }
    sandbox.ok(&["units", "--all", "--check", "--dir", units]);
    sandbox.ok(&["units", "--uninstall", "--dir", units, "customer@alice"]);
    assert!(!drop_in("pool@alice.service").exists());
    assert!(drop_in("pool@bob.service").exists());

    let shown = sandbox.run(&["up", "--dry-run", "--all", "--except", "customer@bob"]);
    let shown = shown.exits(3).stdout;
    assert!(
        shown.contains("customer@alice") && !shown.contains("customer@bob"),
        "{shown}"
    );
    sandbox
        .ok(&["up", "--all", "--except", "customer@bob,nobody"])
        .says("--except nobody: there is no such site");
    assert!(customers.is_up("alice") && !customers.is_up("bob"));
    sandbox.ok(&["exec", "customer@alice", "--", "/bin/true"]);
    sandbox
        .run(&["doctor", "customer@alice"])
        .prints("customer@alice: ");
    sandbox
        .ok(&["watch", "--once", "customer@alice"])
        .says("customer@alice: in sync");
    sandbox.ok(&["down", "--all"]);

    for arguments in [
        &["exec", "customer@", "--", "/bin/true"][..],
        &["why", "customer@", "/etc"],
        &["doctor", template.to_str().unwrap()],
    ] {
        sandbox
            .run(arguments)
            .exits(2)
            .says("is a template of sites, not a site")
            .says("customer@INSTANCE");
    }
}

fn overridden() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    sandbox.ok(&["up", "--all"]);
    let own = sandbox.file("host/100%i", "own");
    sandbox.manifest(
        "customer@alice",
        format!(
            "root: {}\nmounts:\n{}",
            customers.path("alice").display(),
            line(&own, "/own")
        ),
    );
    let root = customers.path("alice");
    for which in ["--all", "customer@", "customer@alice", "customer@"] {
        sandbox.ok(&["up", which]);
        assert!(!customers.is_up("alice") && customers.is_up("bob"));
        assert_eq!(fs::read_to_string(root.join("own")).unwrap(), "own");
    }
    assert_eq!(customers.status(), ["customer@alice", "customer@bob"]);

    // Its manifest needs no directory that matches, and without it the template's applies again.
    customers.template("[bob]", "");
    sandbox.ok(&["up", "--all"]);
    assert_eq!(customers.status(), ["customer@alice", "customer@bob"]);
    customers.template("[alice, bob]", "");
    fs::remove_file(sandbox.path("config/sites/customer@alice.yaml")).unwrap();
    sandbox.ok(&["up", "--all"]);
    assert!(customers.is_up("alice"));
    sandbox.ok(&["down", "--all"]);
    assert_eq!(mounts_below(&sandbox.path("customers")).len(), 0);
}

fn odd_names() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    let odd: [&[u8]; 7] = [
        b"a b",
        b"new\nline",
        b"\xff\xfe",
        b"-rf",
        b"%i",
        "\u{202e}x".as_bytes(),
        &[b'l'; 240],
    ];
    for name in odd {
        customers.directory(OsStr::from_bytes(name));
    }
    for hidden in [".hidden", "lost+found"] {
        customers.directory(hidden);
    }
    fs::write(customers.path("README"), "").unwrap();
    symlink("alice", customers.path("linked")).unwrap();
    symlink("/etc", customers.path("outside")).unwrap();
    let up = sandbox.ok(&["up", "--all"]);
    assert_eq!(customers.status(), ["customer@alice", "customer@bob"]);
    assert!(customers.is_up("alice") && customers.is_up("bob"));
    assert!(
        !up.stderr.contains("hidden") && !up.stderr.contains("README"),
        "{}",
        up.stderr
    );
    assert_eq!(
        up.stderr.lines().count(),
        4,
        "two warnings, two sites:\n{}",
        up.stderr
    );
    up.says("these are not sites, because their names cannot be a site's: ")
        .says("'a b'")
        .says(r"new\012line")
        .says("and 2 more")
        .says("these are not sites, because links are not followed here: linked, outside");

    // A link in the place of a site's directory is not a site, and nothing follows it.
    fs::rename(customers.path("alice"), sandbox.path("elsewhere")).unwrap();
    symlink(sandbox.path("elsewhere"), customers.path("alice")).unwrap();
    sandbox
        .ok(&["up", "--all"])
        .says("links are not followed here: alice, linked, outside");
    sandbox
        .run(&["up", "customer@alice"])
        .exits(2)
        .says("has no instance alice");
    sandbox
        .run(&["up", "customer@linked"])
        .exits(2)
        .says("has no instance linked");
    for name in [
        "customer@a b",
        "customer@-rf",
        "customer@.hidden",
        "customer@../bob",
    ] {
        assert_ne!(sandbox.run(&["up", name]).code, 0, "{name}");
    }
    sandbox.ok(&["down", "--all"]);

    // A name that is as long as a site's name may be.
    let longest = "l".repeat(200 - "customer@".len());
    customers.directory(&longest);
    sandbox.ok(&["up", &format!("customer@{longest}")]);
    assert!(customers.is_up(&longest));
    sandbox.ok(&["down", "--all"]);
}

fn names() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    customers.template("[alice]", "");
    assert_eq!(customers.status(), ["customer@alice"]);
    sandbox
        .run(&["up", "customer@bob"])
        .exits(2)
        .says("there is no site customer@bob")
        .says("add `bob` to `instances`");
    sandbox
        .run(&["up", "customer@alicf"])
        .exits(2)
        .says("did you mean customer@alice?");

    // Of two patterns that give one name, each name is one site.
    sandbox.directory("others/alice");
    let both = format!(
        "[alice, {}, {}]",
        customers.path("*").display(),
        sandbox.path("others/*").display()
    );
    customers.template(&both, "");
    sandbox
        .ok(&["check"])
        .says("have the same name as others; each name is one site: ");
    assert_eq!(customers.status(), ["customer@alice", "customer@bob"]);

    // The star may be anywhere in the path.
    let deep = format!("{}/pre-*.d/www", sandbox.path("deep").display());
    customers.template(&deep, "");
    for (name, has_www) in [("pre-x.d", true), ("pre-y.d", false), ("z", true)] {
        sandbox.directory(format!("deep/{name}{}", if has_www { "/www" } else { "" }));
    }
    sandbox.directory("deep/pre-w.d");
    symlink("/srv", sandbox.path("deep/pre-w.d/www")).unwrap();
    sandbox
        .run(&["check", "customer@"])
        .exits(1)
        .says("customer@x: cannot find the root")
        .says("links are not followed here: pre-w.d");
    assert_eq!(customers.status(), ["customer@x"]);
}

fn unusable() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    sandbox.site(
        "other",
        &format!("mounts:\n{}", line(&customers.source, "/conf")),
    );
    let file = sandbox.path("config/sites/customer@.yaml");
    let fails = |text: &str, code: i32, words: &[&str]| {
        let mut up = {
            fs::write(&file, text).unwrap();
            sandbox.run(&["up", "--all"]).exits(code).says("other: ")
        };
        for word in words {
            up = up.says(word);
        }
        assert_eq!(customers.status(), ["other"], "{text}");
    };
    let root = "root: /srv/%i";
    fails(
        root,
        2,
        &[
            "customer@.yaml:1:1",
            "the key `instances` is missing",
            "/srv/customers/*",
        ],
    );
    fails(
        &format!("{root}\ninstances: [\n"),
        2,
        &["customer@.yaml:3:1", "not valid YAML"],
    );
    fails(
        &format!("{root}\ninstances: [a b]\n"),
        2,
        &["customer@.yaml:2:13", "an instance's name"],
    );
    fails(
        &format!("{root}\ninstances: []\n"),
        0,
        &["customer@.yaml: it has no instances"],
    );
    fails(
        &format!("{root}\ninstances: []\nect: []\n"),
        2,
        &["customer@.yaml:3:1", "unknown key `ect`"],
    );
    fails(
        &format!(
            "{root}\ninstances: {}/none-*\n",
            sandbox.path("customers").display()
        ),
        0,
        &["none-*: no directory matches"],
    );
    fails(
        &format!(
            "{root}\ninstances: {}/*\n",
            sandbox.path("missing").display()
        ),
        1,
        &[
            "cannot list",
            "No such file or directory",
            "make the directory",
        ],
    );
    sandbox.site("plain", "instances: [a]\n");
    sandbox
        .run(&["up", "plain"])
        .exits(2)
        .says("unknown key `instances`")
        .says("name the file NAME@.yaml");
    fs::remove_file(sandbox.path("config/sites/plain.yaml")).unwrap();

    // Mistakes of a template with instances are those of its sites, and shown once.
    let pattern = customers.path("*").display().to_string();
    customers.template(&pattern, "ect: []\n");
    let up = sandbox.run(&["up", "--all"]).exits(2);
    assert_eq!(
        up.stderr.matches("unknown key `ect`").count(),
        1,
        "{}",
        up.stderr
    );
    up.says("customer@bob: it has the mistakes shown above, too");

    // A site that is up stays known although its template cannot be read.
    customers.template(&pattern, "");
    sandbox.ok(&["up", "--all"]);
    fs::write(&file, "[").unwrap();
    sandbox
        .run(&["status"])
        .exits(2)
        .prints("customer@alice: ")
        .says("not valid YAML");
    sandbox
        .run(&["down", "--all"])
        .exits(2)
        .says("not valid YAML");
    assert!(!customers.is_up("alice") && !customers.is_up("bob"));

    // So does the rule that only root may write it.
    customers.template(&pattern, "");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    sandbox
        .run(&["up", "customer@alice"])
        .exits(1)
        .says("make it root's alone");
    assert!(!customers.is_up("alice"));
}

fn gone() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    let kept = sandbox.directory("roots");
    for name in ["alice", "bob"] {
        sandbox.directory(format!("roots/{name}"));
    }
    // The roots are elsewhere, so they stay when the instance goes.
    sandbox.manifest(
        "customer@",
        format!(
            "root: {}/%i\ninstances: {}\nmounts:\n{}",
            kept.display(),
            customers.path("*").display(),
            line(&customers.source, "/conf")
        ),
    );
    sandbox.ok(&["up", "--all"]);
    fs::remove_dir(customers.path("alice")).unwrap();
    assert_eq!(mounts_below(&kept.join("alice")).len(), 1);
    sandbox
        .run(&["status"])
        .exits(3)
        .prints("customer@alice: drifted")
        .prints("has no instance alice any more");
    sandbox
        .run(&["up", "customer@alice"])
        .exits(2)
        .says("it is set up, but")
        .says("take the site down: `mountjail down customer@alice`");
    sandbox.ok(&["up", "--all"]).says("customer@bob: in sync");
    assert_eq!(mounts_below(&kept.join("alice")).len(), 1, "left as it is");
    sandbox.ok(&["down", "customer@alice"]);
    assert_eq!(mounts_below(&kept.join("alice")).len(), 0);
    assert_eq!(customers.status(), ["customer@bob"]);
    sandbox.ok(&["down", "--all"]);
}

fn traced() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    let pattern = customers.path("*").display().to_string();
    customers.template(&pattern, "programs: [/bin/cat]\n");
    sandbox.ok(&["up", "--all"]);
    let cat = ["--", "/bin/cat", "/etc/hosts"];
    let traced = [&["trace", "--write", "customer@alice"][..], &cat].concat();
    sandbox.run(&traced).exits(1).says("customer@.yaml");
    let text = fs::read_to_string(sandbox.path("config/sites/customer@.yaml")).unwrap();
    assert!(text.contains("dns") && text.contains("%i"), "{text}");
    sandbox.ok(&["up", "--all"]);
    sandbox.ok(&[&["exec", "customer@bob"][..], &cat].concat());
    sandbox.ok(&["down", "--all"]);
}

fn imported() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    let root = customers.path("alice");
    let fstab = sandbox.file(
        "fstab",
        format!(
            "{0} {1}{0} none bind,ro 0 0\n/etc/hosts {1}/etc/hosts none bind,ro 0 0\n",
            customers.source.display(),
            root.display()
        ),
    );
    let before = fs::read_dir(sandbox.path("config/sites")).unwrap().count();
    for _ in 0..2 {
        sandbox
            .ok(&["import", "--write", fstab.to_str().unwrap()])
            .says("customer@.yaml: exists already, left as it is");
    }
    assert_eq!(
        fs::read_dir(sandbox.path("config/sites")).unwrap().count(),
        before
    );
}

fn silent() {
    let customers = Customers::new();
    let sandbox = &customers.sandbox;
    let pattern = format!("{}/*/www", sandbox.path("deep").display());
    for name in ["a", "b", "c"] {
        sandbox.directory(format!("deep/{name}/www"));
        customers.directory(name);
    }
    customers.template(&pattern, "");
    let fuse = Fuse::mount(&sandbox.path("deep/b"), 0);
    fuse.hang();
    sandbox
        .run(&["up", "--all"])
        .exits(0)
        .says("cannot be looked at: b (it does not answer)")
        .says("customer@a: up")
        .says("customer@c: up");
    drop(fuse);
    sandbox.ok(&["down", "--all"]);
}
