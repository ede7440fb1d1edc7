//! The owners' FUSE file systems: they answer, fail, hang and die.

use std::fs;
use std::mem::ManuallyDrop;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::journal::Journal;
use super::parts::part;
use super::player::Act;
use super::random::Random;
use super::world::{Owner, World};
use crate::support::{Fuse, mounts};

/// All that were ever mounted. They stay mounted after their servers have died.
#[derive(Default)]
pub struct Servers(Vec<Server>);

struct Server {
    // Not dropped: that would unmount whatever is mounted there then.
    fuse: ManuallyDrop<Fuse>,
    hangs: bool,
    dead: bool,
}

impl Servers {
    /// Mounts one as the owner, who pauses meanwhile, over something of his own.
    pub fn mount(&mut self, world: &World, journal: &Journal, owner: &Owner, random: &mut Random) {
        let (home, root) = (&owner.home, &owner.root);
        let places = [
            root.clone(),
            root.join("etc"),
            root.join("usr"),
            root.join("own"),
            root.join("own/dir"),
            root.join("x1"),
            home.join("src"),
            home.join("src/dir"),
            home.join("web"),
            home.join("vault"),
            home.join("l2"),
        ];
        let place = random.pick(&places);
        // The owner decides whose files it shows.
        let whose = *random.pick(&[owner.uid, owner.uid, 0, 61009]);
        let to_root = random.once_in(2);
        let mounted = is_possible(place, owner)
            .and_then(|()| Fuse::of_user(place, owner.uid, whose, to_root));
        let what = format!(
            "FUSE on {}, files of {whose}, root may look: {to_root}",
            place.display()
        );
        journal.did(
            owner.name,
            "fuse",
            &format!("{what}: {:?}", mounted.as_ref().err()),
            mounted.is_ok(),
        );
        if let Ok(fuse) = mounted {
            fill(&fuse.backing, world, owner, random);
            self.0.push(Server {
                fuse: ManuallyDrop::new(fuse),
                hangs: false,
                dead: false,
            });
        }
    }

    /// Changes what one of them does.
    pub fn turn(&mut self, journal: &Journal, random: &mut Random, may_hang: bool) {
        let alive = self.0.iter().filter(|server| !server.dead).count();
        if alive == 0 {
            return;
        }
        let nth = random.index(alive);
        let server = self
            .0
            .iter_mut()
            .filter(|server| !server.dead)
            .nth(nth)
            .unwrap();
        server.hangs = false;
        let what = match random.below(8) {
            0 | 1 => {
                server.fuse.resume();
                "answers"
            }
            2 => {
                server.fuse.fail(*random.pick(&[
                    libc::EIO,
                    libc::ESTALE,
                    libc::EACCES,
                    libc::ENOENT,
                    libc::ELOOP,
                ]));
                "fails"
            }
            3 => {
                server.fuse.die();
                server.dead = true;
                "dies"
            }
            _ if may_hang => {
                server.fuse.hang();
                server.hangs = true;
                "hangs"
            }
            _ => {
                server.fuse.fail(libc::EIO);
                "fails"
            }
        };
        journal.did("fuse", what, &format!("a FUSE server {what}"), true);
    }

    /// Makes all of them answer again.
    pub fn let_go(&mut self) {
        for server in self.0.iter_mut().filter(|server| server.hangs) {
            server.fuse.resume();
            server.hangs = false;
        }
    }

    /// Kills all servers; their mounts stay.
    pub fn die(&mut self) {
        for server in &mut self.0 {
            server.fuse.die();
            server.dead = true;
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.die();
    }
}

/// Whether fusermount3(1) lets the owner mount there: it is a directory of his that he can write
/// to. No link may be on the way, or the test itself would mount elsewhere.
fn is_possible(place: &Path, owner: &Owner) -> Result<(), String> {
    // A file system that hangs must not be asked.
    if mounts()
        .iter()
        .any(|mount| mount.kind.starts_with("fuse") && place.starts_with(&mount.point))
    {
        return Err("it is on a FUSE file system already".into());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let directory =
        openat2(CWD, place, flags, Mode::empty(), resolve).map_err(|error| error.to_string())?;
    let stat = mountjail::sys::stat_fd_unsynced(&directory).map_err(|error| error.to_string())?;
    if stat.uid != owner.uid || mounts().iter().any(|mount| mount.point == place) {
        return Err("it is not his, or a mount".into());
    }
    let mut test = Command::new("test");
    test.arg("-w").arg(place).uid(owner.uid).gid(owner.uid);
    if test.status().unwrap().success() {
        Ok(())
    } else {
        Err("he cannot write in it".into())
    }
}

/// Adds the files that sites need, and links to forbidden places.
fn fill(backing: &Path, world: &World, owner: &Owner, random: &mut Random) {
    let texts: Vec<PathBuf> = part(world, owner, Act::Riot, 0).texts;
    for name in ["dir", "file", "conf", "own", "one", "passwd", "x1"] {
        let path = backing.join(name);
        let made = match random.below(4) {
            0 => fs::create_dir(&path),
            1 => fs::write(&path, ""),
            2 => symlink(random.pick(&texts), &path),
            _ => Ok(()),
        };
        made.unwrap();
    }
}
