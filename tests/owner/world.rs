//! The machine of a trial: directories of the host, quiet sites, and sites of hostile owners.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::mount::{MsFlags, mount};

use super::parts::part;
use super::player::{Act, PART};
use super::random::Random;
use crate::support::{Mount, Sandbox, mounts};

/// The owner of a quiet site, and of private files.
const CAROL: u32 = 61009;

/// A sandbox with all its sites.
pub struct World {
    pub sandbox: Sandbox,
    pub owners: Vec<Owner>,
    /// The contents of the files that the host replaces.
    pub named: Mutex<BTreeMap<&'static str, String>>,
    /// How often the host replaced one of them.
    replaced: AtomicUsize,
    /// The current lines of a hostile site's manifest.
    lines: Mutex<BTreeMap<&'static str, BTreeSet<usize>>>,
    pub options: Options,
    program: PathBuf,
}

/// What the trial does.
#[derive(Clone, Debug)]
pub struct Options {
    pub seconds: u64,
    pub seed: u64,
    pub without: Vec<String>,
}

impl Options {
    pub fn has(&self, what: &str) -> bool {
        !self.without.iter().any(|without| without == what)
    }
}

/// The owner of a hostile site.
#[derive(Clone, Debug)]
pub struct Owner {
    /// His name and his site's.
    pub name: &'static str,
    pub uid: u32,
    pub home: PathBuf,
    pub root: PathBuf,
    /// Whether the root directory belongs to root, so that only its contents can be the owner's.
    pub roots_root: bool,
}

/// The sites that nobody attacks.
pub const QUIET: [&str; 2] = ["quiet1", "quiet2"];

/// The files that the host replaces.
pub const NAMED: [&str; 3] = ["conf", "share/one", "share/two"];

/// Directories with secrets that no manifest names, each with a name in it to which an owner's link
/// or file could lead.
const SECRETS: [&str; 4] = ["host/vault", "host/unnamed", "home/vault", "home/carol"];

/// The manifest's lines of a hostile site.
const LINES: usize = 15;

impl World {
    pub fn new(engine: &'static str, options: Options) -> Self {
        let sandbox = Sandbox::with_engine(engine);
        let owner = |name, uid, root: PathBuf, roots_root| {
            let home = sandbox.path("home").join(name);
            Owner {
                name,
                uid,
                home,
                root,
                roots_root,
            }
        };
        let owners = vec![
            owner("alice", 61001, sandbox.path("home/alice/web/chroot"), false),
            owner("bob", 61002, sandbox.root("bob"), false),
            owner("dave", 61003, sandbox.root("dave"), true),
        ];
        let program = sandbox.file("player", "");
        bind(&std::env::current_exe().unwrap(), &program);
        let (named, lines) = (Mutex::default(), Mutex::default());
        let replaced = AtomicUsize::new(0);
        let world = Self {
            sandbox,
            owners,
            named,
            replaced,
            lines,
            options,
            program,
        };
        world.make_host();
        for owner in &world.owners {
            world.make_owner(owner);
        }
        world.make_quiet();
        world
    }

    fn make_host(&self) {
        let sandbox = &self.sandbox;
        for place in SECRETS {
            for name in [
                "dir/secret",
                "dir/one",
                "conf",
                "one",
                "tool",
                "file",
                "inner",
            ] {
                sandbox.file(
                    format!("{place}/{name}"),
                    format!("secret in {place}/{name}\n"),
                );
            }
        }
        chown_all(&sandbox.path("home/carol"), CAROL);
        for (path, mode) in [
            ("host/vault", 0o700),
            ("home/vault", 0o700),
            ("home/carol", 0o700),
        ] {
            set_mode(&sandbox.path(path), mode);
        }
        set_mode(&sandbox.file("host/secret", "secret of root's\n"), 0o600);
        sandbox.file("host/static/conf", "static\n");
        for name in NAMED {
            self.replace(name, "first");
        }
        let sub = sandbox.directory("host/tree/sub");
        mount(
            Some("sub"),
            &sub,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"), // by default everybody may write to it
        )
        .unwrap();
        fs::write(sub.join("file"), "in a mount below").unwrap();
    }

    /// Makes the home, the root and the manifest.
    pub fn make_owner(&self, owner: &Owner) {
        for directory in [&owner.home, &owner.root] {
            fs::create_dir_all(directory).unwrap();
            set_mode(directory, 0o755);
        }
        let upload = self.upload(owner);
        fs::create_dir_all(&upload).unwrap();
        chown_all(&upload, owner.uid);
        let private = owner.home.join("private");
        fs::create_dir(&private).unwrap();
        for name in ["secret", "dir", "file"] {
            fs::write(private.join(name), format!("secret of {}'s\n", owner.name)).unwrap();
        }
        set_mode(&private, 0o700);
        chown_all(&owner.home, owner.uid);
        if owner.roots_root {
            for name in ["own", "etc"] {
                let inner = owner.root.join(name);
                fs::create_dir(&inner).unwrap();
                chown_all(&inner, owner.uid);
            }
        } else {
            chown(&owner.root, Some(owner.uid), Some(owner.uid)).unwrap();
        }
        self.repair(owner);
        self.write_manifest(owner, (0..LINES).collect());
    }

    fn make_quiet(&self) {
        let sandbox = &self.sandbox;
        let conf = sandbox.path("host/static/conf");
        sandbox.site(
            "quiet1",
            &format!(
                "users: [nobody]\ndevices: [null]\nmounts: [{{ source: {}, target: /etc/conf }}]\n",
                conf.display()
            ),
        );
        let named = sandbox.path("host/named");
        let named = named.display();
        let lines = format!(
            "mounts: [{{ source: {named}/conf, target: /etc/conf }}, {{ source: {named}/share, \
             target: /share }}]\n"
        );
        let root = sandbox.site("quiet2", &lines);
        chown(root, Some(CAROL), Some(CAROL)).unwrap();
    }

    /// A directory of the host's that the owner can write in, and that his site has read-write.
    pub fn upload(&self, owner: &Owner) -> PathBuf {
        self.sandbox
            .path("host")
            .join(format!("upload-{}", owner.name))
    }

    /// Replaces a file that manifests name. For some microseconds of a swap the kernel does not let
    /// it be renamed; an owner may prolong that.
    pub fn replace(&self, name: &'static str, text: &str) -> bool {
        let mut named = self.named.lock().unwrap();
        let path = self.sandbox.path("host/named").join(name);
        let new = self.sandbox.file("host/new", text);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for _ in 0..1000 {
            match fs::rename(&new, &path) {
                Ok(()) => {
                    self.replaced.fetch_add(1, Ordering::Relaxed);
                    named.insert(name, text.to_owned());
                    return true;
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::yield_now(),
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
        fs::remove_file(new).unwrap();
        false
    }

    /// How often the host has replaced a file so far.
    pub fn replaced(&self) -> usize {
        let _none_meanwhile = self.named.lock().unwrap();
        self.replaced.load(Ordering::Relaxed)
    }

    /// Writes a manifest for the owner's site with some of the lines: one in `once_in`.
    pub fn some_lines(&self, owner: &Owner, random: &mut Random, once_in: u64) {
        self.write_manifest(
            owner,
            (0..LINES).filter(|_| random.once_in(once_in)).collect(),
        );
    }

    /// Adds a line to the manifest of the owner's site, or removes it.
    pub fn toggle(&self, owner: &Owner, random: &mut Random) {
        let nth = random.index(LINES);
        let mut lines = self.lines.lock().unwrap()[owner.name].clone();
        if !lines.remove(&nth) {
            lines.insert(nth);
        }
        self.write_manifest(owner, lines);
    }

    fn write_manifest(&self, owner: &Owner, lines: BTreeSet<usize>) {
        let (host, home) = (self.sandbox.path("host"), &owner.home);
        let (host, home, upload) = (host.display(), home.display(), self.upload(owner));
        let upload = upload.display();
        let all: [(&str, String); LINES] = [
            ("users", "nobody".into()),
            ("devices", "null".into()),
            (
                "programs",
                format!("{{ path: {home}/bin/tool, optional: true }}"),
            ),
            (
                "libraries",
                format!("{{ path: {home}/lib/libown.so, optional: true }}"),
            ),
            (
                "mounts",
                format!("{{ source: {host}/named/conf, target: /etc/conf }}"),
            ),
            (
                "mounts",
                format!("{{ source: {host}/named/share, target: /usr/share/named }}"),
            ),
            (
                "mounts",
                format!("{{ source: {host}/named/share/one, target: /usr/share/named/one }}"),
            ),
            (
                "mounts",
                format!(
                    "{{ source: {host}/named/share/two, target: /own/www/two, optional: true }}"
                ),
            ),
            (
                "mounts",
                format!("{{ source: {host}/tree, target: /tree, recursive: true }}"),
            ),
            (
                "mounts",
                format!("{{ source: {home}/src/dir, target: /own/dir, optional: true }}"),
            ),
            (
                "mounts",
                format!("{{ source: {home}/src/file, target: /etc/own, optional: true }}"),
            ),
            (
                "mounts",
                format!("{{ source: {home}/src/via/dir, optional: true }}"),
            ),
            (
                "mounts",
                format!("{{ source: {home}/l2/dir, target: /l2, optional: true }}"),
            ),
            (
                "mounts",
                format!("{{ source: {host}/static/conf, target: /etc/static }}"),
            ),
            (
                "mounts",
                format!("{{ source: {upload}, target: /up/www, access: read-write }}"),
            ),
        ];
        let mut text = format!("root: {}\n", owner.root.display());
        for key in ["users", "devices", "programs", "libraries", "mounts"] {
            let items = lines
                .iter()
                .map(|nth| &all[*nth])
                .filter(|(of, _)| *of == key);
            let items: Vec<_> = items.map(|(_, item)| item.as_str()).collect();
            writeln!(text, "{key}: [{}]", items.join(", ")).unwrap();
        }
        self.lines.lock().unwrap().insert(owner.name, lines);
        // Atomically, as an editor does it.
        let new = self
            .sandbox
            .file(format!("config/{}.new", owner.name), text);
        fs::rename(
            new,
            self.sandbox
                .config()
                .join(format!("sites/{}.yaml", owner.name)),
        )
        .unwrap();
    }

    /// Starts a process that acts as the owner, in a process group of its own.
    pub fn start(&self, owner: &Owner, act: Act, seed: u64, output: Stdio) -> Child {
        let name = format!("parts/{}-{seed}.json", owner.name);
        let file = self.sandbox.file(
            name,
            serde_json::to_vec(&part(self, owner, act, seed)).unwrap(),
        );
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env(PART, file);
        command.process_group(0).uid(owner.uid).gid(owner.uid);
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs a process that acts as the owner to its end; returns its output.
    pub fn plays(&self, owner: &Owner, act: Act) -> Result<String, String> {
        let output = self
            .start(owner, act, 0, Stdio::piped())
            .wait_with_output()
            .unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Restores everything that is the owner's.
    pub fn repair(&self, owner: &Owner) {
        self.plays(owner, Act::Repair).unwrap();
    }
}

impl Owner {
    /// The mounts of his and of his site, wherever he moved them.
    pub fn mounts(&self) -> Vec<Mount> {
        let near = |mount: &Mount| {
            mount.point.starts_with(&self.root) || mount.point.starts_with(&self.home)
        };
        mounts().into_iter().filter(near).collect()
    }

    /// Those that are not his own.
    pub fn sites_mounts(&self) -> Vec<Mount> {
        self.mounts()
            .into_iter()
            .filter(|mount| !is_owners(mount))
            .collect()
    }
}

/// Whether it is an owner's own mount: owners can only mount FUSE, and never do so read-only.
pub fn is_owners(mount: &Mount) -> bool {
    mount.kind.starts_with("fuse") && !mount.has("ro")
}

fn bind(source: &Path, target: &Path) {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn chown_all(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            chown_all(&entry.unwrap().path(), uid);
        }
    }
}
