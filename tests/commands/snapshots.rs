//! What people read: the help texts, what the commands print for a small example, and typical
//! errors, each as a file below `snapshots/`.
//!
//! After an intended change, `INSTA_UPDATE=always cargo test --test commands -- '[snapshots]'`
//! writes them anew; `git diff` shows what people will read.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::{Ran, Running, Sandbox, alone, bind, unmount};

pub fn all() -> Vec<Trial> {
    // Each alone, because its sandbox is at /mnt, so that no path depends on the run.
    let all: [(&str, fn()); 9] = [
        ("help texts", help),
        ("the life of a site", life),
        ("a site that needs attention", attention),
        ("what a site is made of", explanations),
        ("an import", import),
        ("wrong usage", usage),
        ("mistakes in manifests", mistakes),
        ("what is in the way", in_the_way),
        ("what cannot be done to a site", refusals),
    ];
    all.map(|(name, body)| alone(name, body)).into()
}

/// A sandbox that is at `/mnt`, with the sites `shop` and `blog`.
struct Example {
    sandbox: Sandbox,
}

impl Example {
    fn new() -> Self {
        let example = Self {
            sandbox: Sandbox::with_engine("detached"),
        };
        bind(&example.sandbox.path(""), Path::new("/mnt"));
        example.file("host/hosts", "127.0.0.1 localhost\n");
        example.file("host/services", "http 80/tcp\n");
        example.file("host/data/file", "text\n");
        example.file(
            "config/presets/names.yaml",
            "description: the names of hosts and services\n\
             mounts:\n\
             \x20 - { source: /mnt/host/hosts, target: /etc/hosts }\n\
             \x20 - { source: /mnt/host/services, target: /etc/services }\n",
        );
        example.site(
            "shop",
            "presets: [names]\n\
             mounts:\n\
             \x20 - { source: /mnt/host/data, target: /srv/data }\n\
             \x20 - { source: /mnt/host/socket, target: /run/db, optional: true }\n\
             users: [www-data]\n",
        );
        example.site("blog", "presets: [names]\n");
        example
    }

    /// Writes a file, and returns its path below `/mnt`.
    fn file(&self, path: &str, text: &str) -> PathBuf {
        self.sandbox.file(path, text);
        Path::new("/mnt").join(path)
    }

    /// Makes a site with an empty root, and returns its root.
    fn site(&self, name: &str, manifest: &str) -> PathBuf {
        let root = Path::new("/mnt/srv").join(name);
        fs::create_dir_all(&root).unwrap();
        self.sandbox
            .manifest(name, format!("root: {}\n{manifest}", root.display()));
        root
    }

    /// The program, on the configuration below `/mnt`.
    fn at_mnt(command: &mut Command, arguments: &[&str]) -> Ran {
        command
            .env("MOUNTJAIL_CONFIG_DIR", "/mnt/config")
            .env("MOUNTJAIL_STATE_DIR", "/mnt/state")
            .current_dir("/mnt");
        Ran::of(command.args(arguments))
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Self::at_mnt(&mut self.sandbox.command(), arguments)
    }

    fn ok(&self, arguments: &[&str]) {
        self.run(arguments).exits(0);
    }

    /// Compares what these commands print, one after the other, with the snapshot `name`.
    fn shows(&self, name: &str, commands: &[&[&str]]) {
        let texts = commands.iter().map(|arguments| {
            let ran = self.run(arguments);
            session(&format!("mountjail {}", arguments.join(" ")), &ran)
        });
        is_as_before(name, &texts.collect::<Vec<_>>().join("\n"));
    }
}

/// As in a terminal: the command, what it printed, and how it ended.
fn session(command: &str, ran: &Ran) -> String {
    let Ran { stdout, stderr, .. } = ran;
    let messages = if stderr.is_empty() {
        String::new()
    } else {
        format!("--- messages\n{stderr}")
    };
    format!(
        "$ {command}\n{stdout}{messages}--- exit code {}\n",
        ran.code
    )
}

/// Fails unless the snapshot `name` has this text, except for what depends on the machine.
fn is_as_before(name: &str, text: &str) {
    let mut settings = insta::Settings::new();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, instead) in [
        (r"\(pid \d+", "(pid PID"),
        (r"\(/\w{6}/host/", "(/host/"), // the sandbox on its file system
        (r"kernel: \S+", "kernel: VERSION"),
        (r"(?m)^  (yes|no ) ", "  yes/no "),
        (r"mounts: \d+ of \d+", "mounts: NUMBER of LIMIT"),
        (r"/usr/lib/[a-z0-9_]+-linux-[a-z]+", "/usr/lib/TRIPLET"),
    ] {
        settings.add_filter(pattern, instead);
    }
    settings.bind(|| insta::assert_snapshot!(name.replace(' ', "-"), text));
}

fn help() {
    let sandbox = Sandbox::new();
    let of = |arguments: &[&str]| {
        let mut command = sandbox.command();
        for name in ["MOUNTJAIL_CONFIG_DIR", "MOUNTJAIL_STATE_DIR"] {
            command.env_remove(name); // or the help shows their values
        }
        Ran::of(command.args(arguments)).exits(0).stdout
    };
    is_as_before("help", &of(&["--help"]));
    is_as_before("help in short", &of(&["-h"]));
    let program = mountjail::cli::command();
    for command in program.get_subcommands().filter(|it| !it.is_hide_set()) {
        let name = command.get_name();
        is_as_before(&format!("help {name}"), &of(&[name, "--help"]));
    }
}

fn life() {
    let example = Example::new();
    example.shows("check", &[&["check", "shop"], &["check", "--all"]]);
    example.shows("plan", &[&["plan", "shop"]]);
    example.shows("up", &[&["up", "shop"], &["up", "shop"], &["plan", "shop"]]);
    example.shows("up verbose", &[&["up", "--verbose", "blog"]]);
    example.shows("status of one", &[&["status", "shop"]]);
    example.shows("status of many", &[&["status"]]);
    example.shows("status verbose", &[&["status", "--verbose"]]);
    example.shows("down", &[&["down", "shop"], &["down", "shop"]]);
    example.shows("down verbose", &[&["down", "--verbose", "--all"]]);
}

fn attention() {
    let example = Example::new();
    example.ok(&["up", "--all"]);
    fs::rename("/mnt/host/hosts", "/mnt/host/hosts.old").unwrap();
    example.file("host/hosts", "127.0.0.1 localhost another\n");
    unmount(Path::new("/mnt/srv/shop/srv/data"));
    example.shows("status drifted", &[&["status"], &["status", "shop"]]);
    example.shows("plan drifted", &[&["plan", "--all"]]);
    example.shows("up drifted", &[&["up", "--all"]]);
    fs::remove_file("/mnt/config/sites/blog.yaml").unwrap();
    example.shows(
        "status without a manifest",
        &[&["status"], &["status", "blog"]],
    );
    example.shows("down without a manifest", &[&["down", "blog"]]);
}

fn explanations() {
    let example = Example::new();
    example.shows(
        "why",
        &[
            &["why", "shop", "/etc/hosts"],
            &["why", "shop", "/etc/passwd"],
            &["why", "shop", "/srv/data/file"],
            &["why", "shop", "/etc"],
            &["why", "shop", "/etc/shadow"],
        ],
    );
    example.shows("presets", &[&["presets"]]);
    example.shows("presets of one", &[&["presets", "names"]]);
    example.shows("fstab", &[&["fstab", "shop"]]);
    example.shows("units", &[&["units", "shop"]]);
    example.shows("doctor of the machine", &[&["doctor"]]);
    let busybox = "mounts:\n  - { source: /mnt/host/data, target: /srv/data }\n";
    example.site("plain", busybox);
    example.shows("doctor of a site that is down", &[&["doctor", "plain"]]);
    example.ok(&["up", "plain"]);
    example.shows("doctor", &[&["doctor", "plain"]]);
}

fn import() {
    let example = Example::new();
    let pool = |name: &str| {
        format!(
            "[{name}]\nuser = www-data\ngroup = www-data\nlisten = /run/{name}.sock\n\
             chroot = /mnt/srv/{name}\npm = ondemand\npm.max_children = 2\n"
        )
    };
    let pools = format!("[global]\n{}{}", pool("shop"), pool("wiki"));
    example.file("host/php-fpm.conf", &pools);
    example.file(
        "host/fstab",
        "/mnt/host/data /mnt/srv/wiki/data none bind,ro 0 0\n\
         /mnt/host/hosts /mnt/srv/wiki/etc/hosts none bind 0 0\n\
         proc /mnt/srv/wiki/proc proc defaults 0 0\n",
    );
    fs::create_dir_all("/mnt/srv/wiki").unwrap();
    example.shows("import", &[&["import", "host/php-fpm.conf", "host/fstab"]]);
    example.shows(
        "import written",
        &[
            &["import", "--write", "host/php-fpm.conf", "host/fstab"],
            &["import", "--write", "host/php-fpm.conf", "host/fstab"],
            &["import", "host/nothing"],
        ],
    );
}

fn usage() {
    let example = Example::new();
    example.shows(
        "error usage",
        &[
            &["up"],
            &["upp", "shop"],
            &["up", "--al"],
            &["up", "shop", "--all"],
            &["why", "shop", "etc/hosts"],
        ],
    );
    example.shows(
        "error no such site",
        &[&["up", "shpo"], &["status", "shpo"]],
    );
    example.shows("error no such preset", &[&["presets", "nmaes"]]);
    let mut command = example.sandbox.command();
    let ran = Example::at_mnt(command.env("MOUNTJAIL_ENGINE", "fast"), &["up", "shop"]);
    let text = session("MOUNTJAIL_ENGINE=fast mountjail up shop", &ran);
    is_as_before("error no such engine", &text);
    example.shows(
        "error no configuration",
        &[&["--config-dir", "/mnt/nowhere", "up", "--all"]],
    );
}

fn mistakes() {
    let example = Example::new();
    example.site(
        "keys",
        "presents: [names]\npresets: [nmaes]\nmounts: [etc/hosts]\nmode: 7\n",
    );
    example.shows("error keys of a manifest", &[&["check", "keys"]]);
    example
        .sandbox
        .manifest("syntax", "root: [/mnt/srv/syntax\n");
    example.shows("error syntax of a manifest", &[&["up", "syntax"]]);
    example.sandbox.manifest("slash", "root: /\n");
    example.shows("error root of the system", &[&["up", "slash"]]);
    fs::remove_file("/mnt/config/sites/slash.yaml").unwrap();
    example.sandbox.manifest("none", "root: /mnt/srv/none\n");
    example.shows("error no root", &[&["up", "none"]]);
    example.site("gone", "mounts: [/mnt/host/gone]\n");
    example.shows("error no source", &[&["up", "gone"]]);
    symlink("/mnt/host/gone", "/mnt/host/dangling").unwrap();
    example.site("dangling", "mounts: [/mnt/host/dangling]\n");
    example.shows("error a dangling source", &[&["up", "dangling"]]);
    example.site(
        "twice",
        "mounts:\n\
         \x20 - { source: /mnt/host/hosts, target: /etc/hosts }\n\
         \x20 - { source: /mnt/host/services, target: /etc/hosts }\n",
    );
    example.shows("error two sources for a target", &[&["up", "twice"]]);
    example
        .sandbox
        .manifest("same", "root: /mnt/srv/shop\npresets: [names]\n");
    example.shows("error two sites in a root", &[&["check", "same"]]);
}

fn in_the_way() {
    let example = Example::new();
    let root = example.site("s", "presets: [names]\n");
    let etc = root.join("etc");
    fs::write(&etc, "").unwrap();
    example.shows("error a file in the way", &[&["up", "s"]]);
    fs::remove_file(&etc).unwrap();
    symlink("/mnt/host", &etc).unwrap();
    example.shows("error a link in the way", &[&["up", "s"]]);
    fs::remove_file(&etc).unwrap();
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(etc.join("services"), "http 8080/tcp\n").unwrap();
    let also = ["adopt", "s", "--write", "--also", "/etc/services"];
    example.shows(
        "adopt",
        &[
            &["up", "s"],
            &["adopt", "s"],
            &["adopt", "s", "--write"],
            &also,
            &["adopt", "s"],
            &["down", "s"],
            &["adopt", "s", "--undo", "--dry-run"],
            &["adopt", "s", "--undo"],
        ],
    );
    fs::remove_dir_all(&etc).unwrap();
    example.ok(&["up", "s"]);
    bind(Path::new("/mnt/host/data/file"), &etc.join("hosts"));
    example.shows(
        "error a foreign mount",
        &[&["up", "s"], &["status", "s"], &["down", "s"]],
    );
    unmount(&etc.join("hosts"));
    example.ok(&["down", "s"]);
    bind(&root, &root);
    let read_only = ["-o", "remount,bind,ro", "/mnt/srv/s"];
    Ran::of(Command::new("mount").args(read_only)).exits(0);
    example.shows("error a read-only root", &[&["up", "s"]]);
}

fn refusals() {
    let example = Example::new();
    example.ok(&["up", "shop"]);
    let data = "/mnt/srv/shop/srv/data";
    let user = Running::start(Command::new("sleep").arg("1000").current_dir(data));
    example.shows("error in use", &[&["down", "shop"]]);
    drop(user);

    example.shows("error not up", &[&["exec", "blog", "--", "/bin/true"]]);
    example.shows("error no program", &[&["exec", "shop", "--", "/bin/true"]]);
    example.site("served", "services: [no-such.service]\n");
    example.shows("error no unit", &[&["units", "served"]]);
    example.file("host/fstab", "# BEGIN mountjail shop\n");
    example.shows(
        "error a broken fstab",
        &[&["fstab", "--install", "--file", "/mnt/host/fstab", "shop"]],
    );

    let record = Path::new("/mnt/state/run/shop.json");
    let good = fs::read(record).unwrap();
    fs::write(record, "{").unwrap();
    example.shows("error a damaged record", &[&["status", "shop"]]);
    fs::write(record, r#"{"version": 99}"#).unwrap();
    example.shows("error a newer record", &[&["down", "shop"]]);
    fs::write(record, good).unwrap();

    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    fs::set_permissions("/mnt/state/run", fs::Permissions::from_mode(0o755)).unwrap();
    let ran = Example::at_mnt(&mut example.sandbox.command_under(&nobody), &["up", "blog"]);
    is_as_before("error not root", &session("mountjail up blog", &ran));
}
