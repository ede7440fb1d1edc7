//! What the benchmarks share: a mount namespace of their own, and many sites that bind the same
//! files.

use std::fmt::Write as _;
use std::fs;
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

/// Sites that all bind the same files. Their placeholders are there already.
pub struct Farm {
    pub dir: PathBuf,
    pub sites: usize,
}

impl Farm {
    pub fn new(base: &Path, sites: usize) -> Self {
        let farm = Self {
            dir: base.join(sites.to_string()),
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
            for nth in 0..MOUNTS {
                write(farm.target(site, nth), String::new());
            }
            let root = farm.dir.join(format!("srv/{site}"));
            let manifest = format!("root: {}\npresets: [thirty]\n", root.display());
            write(
                farm.dir.join(format!("config/sites/site{site}.yaml")),
                manifest,
            );
        }
        farm
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
