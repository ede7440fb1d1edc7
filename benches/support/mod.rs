//! What the benchmarks share: a mount namespace of their own, and many sites that bind the same
//! files.

pub mod plot;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Mounts per site.
pub const MOUNTS: usize = 30;

/// Leaves the host's mount namespace, and gives a directory on a tmpfs of its own.
pub fn apart() -> tempfile::TempDir {
    let no_text = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("needs root: mount namespaces");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(no_text, "/", no_text, private, no_text).unwrap();

    let base = tempfile::tempdir().unwrap();
    let (at, options) = (base.path(), Some("mode=755"));
    mount(Some("farm"), at, Some("tmpfs"), MsFlags::empty(), options).unwrap();
    base
}

/// What is in the roots before anything is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // each benchmark has its own
pub enum Roots {
    /// Nothing.
    Empty,
    /// What mounts go on, made by somebody else.
    Placeholders,
    /// The same, recorded as made by the first mountjail.
    Recorded,
}

/// Sites that all bind the same files.
pub struct Farm {
    pub dir: PathBuf,
    pub sites: usize,
}

impl Farm {
    pub fn new(base: &Path, name: &str, sites: usize, roots: Roots) -> Self {
        let farm = Self {
            dir: base.join(name),
            sites,
        };
        let write = |path: PathBuf, text: String| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };

        let mut preset = "description: thirty files\nmounts:\n".to_owned();
        for nth in 0..MOUNTS {
            let source = farm.source(nth);
            let line = format!("source: {}, target: /etc/file{nth}", source.display());
            let _ = writeln!(preset, "  - {{ {line} }}");
            write(source, format!("contents of {nth}"));
        }
        write(farm.dir.join("config/presets/thirty.yaml"), preset);

        for site in 0..sites {
            let root = farm.dir.join(format!("srv/{site}"));
            fs::create_dir_all(&root).unwrap();
            if roots != Roots::Empty {
                (0..MOUNTS).for_each(|nth| write(farm.target(site, nth), String::new()));
            }
            if roots == Roots::Recorded {
                let record = farm.dir.join(format!("state/lib/site{site}.json"));
                write(record, record_of_placeholders(&root));
            }
            let manifest = format!("root: {}\npresets: [thirty]\n", root.display());
            write(
                farm.dir.join(format!("config/sites/site{site}.yaml")),
                manifest,
            );
        }
        farm
    }

    /// Adds a line to the manifest of each site.
    #[allow(dead_code)] // each benchmark has its own
    pub fn add_line(&self, line: &str) {
        for site in 0..self.sites {
            let file = self.dir.join(format!("config/sites/site{site}.yaml"));
            let text = fs::read_to_string(&file).unwrap();
            fs::write(file, format!("{text}{line}\n")).unwrap();
        }
    }

    pub fn source(&self, nth: usize) -> PathBuf {
        self.dir.join(format!("host/file{nth}"))
    }

    pub fn target(&self, site: usize, nth: usize) -> PathBuf {
        self.dir.join(format!("srv/{site}/etc/file{nth}"))
    }

    pub fn mountjail(&self, arguments: &[&str]) -> Command {
        let mut mountjail = Command::new(env!("CARGO_BIN_EXE_mountjail"));
        mountjail.arg("--config-dir").arg(self.dir.join("config"));
        mountjail.arg("--state-dir").arg(self.dir.join("state"));
        mountjail.args(arguments);
        mountjail
    }
}

/// The record of the placeholders in `root`, of version 1.
fn record_of_placeholders(root: &Path) -> String {
    let made = |path: PathBuf, kind: &str| {
        let ino = fs::metadata(&path).unwrap().ino();
        let path = Path::new("/").join(path.strip_prefix(root).unwrap());
        let path = path.display();
        format!("{{\"path\":\"{path}\",\"kind\":\"{kind}\",\"file\":{{\"ino\":{ino}}}}}")
    };
    let files = (0..MOUNTS).map(|nth| made(root.join(format!("etc/file{nth}")), "file"));
    let all: Vec<_> = [made(root.join("etc"), "directory")]
        .into_iter()
        .chain(files)
        .collect();
    let (root, all) = (root.display(), all.join(","));
    format!("{{\"version\":1,\"root\":\"{root}\",\"made\":[{all}],\"files\":[]}}")
}
