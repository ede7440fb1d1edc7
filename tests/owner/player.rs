//! A site's owner: a process that does random things where the owner may, with the owner's rights.
//!
//! It is this test's program, started again as the owner. It prints one line per action.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use super::elf;
use super::random::Random;

/// The environment variable that names the file with the [`Part`] that a process is to play.
pub const PART: &str = "MOUNTJAIL_TEST_OWNERS_PART";

/// In a mount namespace of the owner's own: the seed.
const INSIDE: &str = "MOUNTJAIL_TEST_OWNERS_NAMESPACE";

/// The instructions of a process that acts as an owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The kind of part.
    pub act: Act,
    /// The owner's home. All of it is his, except what mountjail makes there.
    pub home: PathBuf,
    /// His site's root.
    pub root: PathBuf,
    /// The paths at which things appear and disappear.
    pub places: Vec<PathBuf>,
    /// Those of them that mountjail looks at, and their parent directories.
    pub ways: Vec<PathBuf>,
    /// The destinations of his links, and the names in his programs.
    pub texts: Vec<PathBuf>,
    /// A program and a library that he copies to his own.
    pub binaries: [PathBuf; 2],
    /// Whether he may make namespaces.
    pub namespaces: bool,
    /// For random choices.
    pub seed: u64,
}

/// Kinds of [`Part`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Random things, until it is killed.
    Riot,
    /// Restores everything once.
    Repair,
    /// All files that can be read in these directories with the word `secret`, but not on these
    /// mounts.
    Search {
        directories: Vec<PathBuf>,
        without: Vec<PathBuf>,
    },
}

/// Plays the part that the environment names, if it names one.
pub fn play() -> Option<ExitCode> {
    let file = std::env::var_os(PART)?;
    let part: Part = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    match &part.act {
        Act::Riot => riot(&part),
        Act::Repair => {
            if let Err(error) = part.repair("trash-of-the-test") {
                eprintln!("{error}");
                return Some(ExitCode::FAILURE);
            }
        }
        Act::Search {
            directories,
            without,
        } => {
            for directory in directories {
                search(directory, without);
            }
        }
    }
    Some(ExitCode::SUCCESS)
}

fn riot(part: &Part) {
    let inside = std::env::var(INSIDE).ok();
    let seed = inside
        .as_ref()
        .map_or(part.seed, |seed| seed.parse().unwrap());
    let mut rioter = Rioter {
        part,
        random: Random::new(seed),
        inside: inside.is_some(),
        children: vec![],
        count: 0,
    };
    // The namespace ends with its processes.
    let end = inside
        .is_some()
        .then(|| Instant::now() + Duration::from_millis(100 + rioter.random.below(1500)));
    while end.is_none_or(|end| Instant::now() < end) {
        rioter.acts();
    }
    for child in &mut rioter.children {
        let _ = child.kill(); // it may have ended
        let _ = child.wait();
    }
}

struct Rioter<'p> {
    part: &'p Part,
    random: Random,
    /// Whether this is a mount namespace of the owner's own.
    inside: bool,
    children: Vec<Child>,
    count: u64,
}

impl Rioter<'_> {
    /// Usually sets up something that a command can work with, and then disturbs it while it runs.
    fn acts(&mut self) {
        if self.random.once_in(2) {
            let trash = format!("trash-{}-{}", std::process::id(), self.count);
            let result = self.part.repair(&trash);
            self.says("repair", result);
        }
        std::thread::sleep(Duration::from_millis(self.random.below(80)));
        for _ in 0..=self.random.below(12) {
            let (what, result) = self.one_thing();
            self.says(&what, result);
            if self.random.once_in(2) {
                std::thread::sleep(Duration::from_millis(self.random.below(15)));
            }
        }
        self.children
            .retain_mut(|child| child.try_wait().is_ok_and(|ended| ended.is_none()));
    }

    fn says(&mut self, what: &str, result: io::Result<()>) {
        self.count += 1;
        let place = if self.inside {
            " (in his namespace)"
        } else {
            ""
        };
        let result = result.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        let line = format!("{what}{place}: {result}\n")
            .replace(&*self.part.root.to_string_lossy(), "ROOT");
        // The reader ends with the trial.
        if io::stdout().write_all(line.as_bytes()).is_err() {
            std::process::exit(0);
        }
    }

    /// The action, and its result.
    fn one_thing(&mut self) -> (String, io::Result<()>) {
        let (one, other) = (self.place(), self.place());
        let (at, to) = (one.display(), other.display());
        match self.random.below(110) {
            0..=17 => (format!("rename {at} {to}"), fs::rename(&one, &other)),
            18..=33 => (format!("exchange {at} {to}"), exchange(&one, &other)),
            34..=37 => (format!("link {at} {to}"), fs::hard_link(&one, &other)),
            38..=48 => {
                let text = self.random.pick(&self.part.texts).clone();
                (
                    format!("symlink {} {to}", text.display()),
                    symlink(text, &other),
                )
            }
            49..=53 => (format!("remove {at}"), remove(&one)),
            54..=61 => (format!("mkdir {at}"), fs::create_dir(&one)),
            62..=64 => (format!("write {at}"), write_new(&one, b"the owner's own\n")),
            65..=66 => (format!("touch {at}"), write_new(&one, b"")),
            67 => (
                format!("mkfifo {at}"),
                mkfifo(&one, Mode::from_bits_truncate(0o644)).map_err(io::Error::from),
            ),
            68 => (format!("socket {at}"), UnixListener::bind(&one).map(drop)),
            69..=72 => {
                let mode = *self
                    .random
                    .pick(&[0, 0o500, 0o700, 0o711, 0o755, 0o755, 0o755, 0o777, 0o1777]);
                (
                    format!("chmod {mode:o} {at}"),
                    fs::set_permissions(&one, PermissionsExt::from_mode(mode)),
                )
            }
            73..=80 => self.program(),
            81..=84 => (format!("hold {at}"), self.hold(&one)),
            85..=88 => self.namespace(),
            89..=92 if self.inside => self.own_mount(&one, &other),
            89..=92 => self.truncate(&one),
            93..=102 => self.plant(),
            103..=106 => self.flip(),
            _ => self.move_link(),
        }
    }

    /// One of the paths, usually one where something exists.
    fn place(&mut self) -> PathBuf {
        let mut place = self.random.pick(&self.part.places);
        for _ in 0..3 {
            if place.symlink_metadata().is_err() {
                place = self.random.pick(&self.part.places);
            }
        }
        place.clone()
    }

    /// Moves a path that is looked at aside, and puts a link in its place.
    fn plant(&mut self) -> (String, io::Result<()>) {
        let (place, aside) = (self.random.pick(&self.part.ways).clone(), self.aside());
        let text = self.random.pick(&self.part.texts).clone();
        let _ = fs::rename(&place, aside); // there may be nothing
        (
            format!("plant {} {}", text.display(), place.display()),
            symlink(text, place),
        )
    }

    /// Exchanges a link and a path that is looked at, back and forth.
    fn flip(&mut self) -> (String, io::Result<()>) {
        let (place, aside) = (self.random.pick(&self.part.ways).clone(), self.aside());
        let text = self.random.pick(&self.part.texts).clone();
        let what = format!("flip {} {}", text.display(), place.display());
        let mut result = symlink(text, &aside);
        for _ in 0..self.random.below(300) {
            result = result.and_then(|()| exchange(&place, &aside));
            if self.random.once_in(3) {
                std::thread::sleep(Duration::from_micros(self.random.below(1500)));
            }
        }
        (what, result)
    }

    /// Puts a link that mountjail or the owner made in the place of a path that is looked at.
    fn move_link(&mut self) -> (String, io::Result<()>) {
        let links = self
            .part
            .places
            .iter()
            .filter(|place| place.is_symlink())
            .cloned()
            .collect::<Vec<_>>();
        let Some(link) = (!links.is_empty()).then(|| self.random.pick(&links).clone()) else {
            return (
                "move-link".to_owned(),
                Err(io::Error::other("there is none")),
            );
        };
        let (place, aside) = (self.random.pick(&self.part.ways).clone(), self.aside());
        let _ = fs::rename(&place, aside); // there may be nothing
        (
            format!("move-link {} {}", link.display(), place.display()),
            fs::rename(link, place),
        )
    }

    /// A path on the same file system to which things in the way can be moved.
    fn aside(&self) -> PathBuf {
        self.part
            .home
            .join(format!("aside-{}-{}", std::process::id(), self.count))
    }

    /// Puts a file that is examined as a program or a library in the place of one, or of anything
    /// else.
    fn program(&mut self) -> (String, io::Result<()>) {
        let mut place = match self.random.below(3) {
            0 => self.part.home.join("bin/tool"),
            1 => self.part.home.join("lib/libown.so"),
            _ => self.place(),
        };
        let named = self
            .random
            .pick(&self.part.texts)
            .join(
                self.random
                    .clone()
                    .pick(&["", "secret", "dir", "dir/secret"]),
            );
        let named = named.to_string_lossy().trim_end_matches('/').to_owned();
        let (what, bytes) = match self.random.below(4) {
            0 => ("script", format!("#!{named}\n").into_bytes()),
            1 => (
                "interpreter",
                elf::program(&self.part.binaries[0], Some(&named), &[], ""),
            ),
            2 => (
                "needed",
                elf::program(&self.part.binaries[0], None, &[&named, "secret"], &named),
            ),
            _ => ("garbage", b"\x7fELF\x02\x01\x01 and no more".to_vec()),
        };
        if self.random.once_in(2) {
            let _ = fs::remove_file(&place); // there may be none
        } else {
            place = place.with_file_name("prog");
        }
        (
            format!("{what} {named} in {}", place.display()),
            write_new(&place, &bytes),
        )
    }

    /// A process that has its working directory there, or has the file open.
    fn hold(&mut self, at: &Path) -> io::Result<()> {
        if self.children.len() > 3 {
            return Err(io::Error::other("enough of them"));
        }
        let mut sleep = Command::new("sleep");
        sleep
            .arg(format!("0.{}", self.random.below(10)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if at.symlink_metadata()?.is_dir() {
            sleep.current_dir(at);
        } else {
            sleep.stdin(open(at)?);
        }
        self.children.push(sleep.stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    /// The same in a user and mount namespace of the owner's own, where he may also mount, and
    /// where no mount of the host's keeps a file from being renamed or removed.
    fn namespace(&mut self) -> (String, io::Result<()>) {
        let what = "namespace".to_owned();
        if !self.part.namespaces || self.inside || self.children.len() > 3 {
            return (what, Err(io::Error::other("not now")));
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "--propagation"]);
        unshare
            .arg(self.random.pick(&["private", "slave"]))
            .arg(std::env::current_exe().unwrap());
        unshare
            .env(INSIDE, self.random.next().to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        (what, unshare.spawn().map(|child| self.children.push(child)))
    }

    fn own_mount(&mut self, one: &Path, other: &Path) -> (String, io::Result<()>) {
        let none = None::<&str>;
        let (at, to) = (one.display(), other.display());
        let (what, result) = match self.random.below(5) {
            0 | 1 => (
                format!("bind {at} {to}"),
                mount(Some(one), other, none, MsFlags::MS_BIND, none),
            ),
            2 => {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                (
                    format!("rbind {at} {to}"),
                    mount(Some(one), other, none, flags, none),
                )
            }
            3 => (
                format!("tmpfs {at}"),
                mount(Some("own"), one, Some("tmpfs"), MsFlags::empty(), none),
            ),
            _ => (format!("umount {at}"), umount2(one, MntFlags::MNT_DETACH)),
        };
        (what, result.map_err(io::Error::from))
    }

    fn truncate(&mut self, at: &Path) -> (String, io::Result<()>) {
        let length = self.random.below(2) * 40;
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(at);
        (
            format!("truncate {} {length}", at.display()),
            file.and_then(|file| file.set_len(length)),
        )
    }
}

impl Part {
    /// Restores the beginning: moves whatever is in the way to a new directory `trash` in the
    /// owner's home, with all mounts in it, and makes the original again.
    fn repair(&self, trash: &str) -> io::Result<()> {
        let away = self.home.join(trash);
        let mut nth = 0;
        let mut clear = |path: &Path| {
            nth += 1;
            let _ = fs::create_dir(&away); // it may be there
            if !path.is_symlink() {
                // or it could not be moved
                let _ = fs::set_permissions(path, PermissionsExt::from_mode(0o755));
            }
            let _ = fs::rename(path, away.join(nth.to_string())); // or nothing may be in the way
        };
        for directory in ["src", "src/dir", "bin", "lib", "vault", "vault/dir", "web"] {
            let path = self.home.join(directory);
            if !path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
                || fs::read_dir(&path).is_err()
            {
                clear(&path);
                fs::create_dir(&path).map_err(|error| at(&path, &error))?;
            }
            // it may be a mount of a host's directory
            let _ = fs::set_permissions(&path, PermissionsExt::from_mode(0o755));
        }
        for file in ["src/file", "src/dir/one", "vault/dir/one"] {
            let path = self.home.join(file);
            if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                clear(&path);
                write_new(&path, b"the owner's own\n").map_err(|error| at(&path, &error))?;
            }
        }
        for (file, original) in [
            ("bin/tool", &self.binaries[0]),
            ("lib/libown.so", &self.binaries[1]),
        ] {
            let path = self.home.join(file);
            if !is_copy(&path, original) {
                clear(&path);
                write_new(&path, &fs::read(original)?).map_err(|error| at(&path, &error))?;
                fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
            }
        }
        let via = self.home.join("src/via");
        if fs::read_link(&via).is_err() {
            clear(&via);
            symlink("../vault", &via)?;
        }
        if self
            .root
            .parent()
            .is_some_and(|above| above.starts_with(&self.home))
        {
            let usable = self.root.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            if !usable || fs::read_dir(&self.root).is_err() {
                clear(&self.root);
                fs::create_dir(&self.root)?;
            }
            let _ = fs::set_permissions(&self.root, PermissionsExt::from_mode(0o755)); // as above
        }
        // Everything in the root that is his, including what replaced mountjail's own.
        for entry in fs::read_dir(&self.root)?.flatten() {
            clear(&entry.path());
        }
        Ok(())
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

fn is_copy(path: &Path, original: &Path) -> bool {
    let hash = |path: &Path| -> io::Result<u64> {
        let mut hasher = DefaultHasher::new();
        let mut bytes = vec![];
        open(path)?.read_to_end(&mut bytes)?;
        bytes.hash(&mut hasher);
        Ok(hasher.finish())
    };
    path.symlink_metadata().is_ok_and(|meta| meta.is_file())
        && matches!((hash(path), hash(original)), (Ok(one), Ok(other)) if one == other)
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Opens it for reading without waiting.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(path)?
        .write_all(bytes)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    }
}

/// Prints the files in `directory` that can be read and contain the word `secret`; no link is
/// followed.
fn search(directory: &Path, without: &[PathBuf]) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if without.contains(&path) {
            continue;
        }
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        if meta.is_dir() {
            search(&path, without);
        } else if meta.is_file() {
            let mut text = vec![];
            let read = open(&path).and_then(|file| file.take(4096).read_to_end(&mut text));
            let text = String::from_utf8_lossy(&text);
            if read.is_ok() && text.starts_with("secret") {
                println!(
                    "{}\t{}",
                    path.display(),
                    text.lines().next().unwrap_or_default()
                );
            }
        }
    }
}
