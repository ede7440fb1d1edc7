//! A FUSE file system whose server does what the trial wants: it answers, hangs, fails, or dies.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use super::sandbox::Ran;
use super::{made_once, mounts, scratch};

/// A mounted FUSE file system. When it is dropped, its server is killed and it is unmounted.
pub struct Fuse {
    server: Child,
    point: PathBuf,
    /// The directory that it shows: what is changed here is changed there, whatever the server
    /// does.
    pub backing: PathBuf,
    control: PathBuf,
}

impl Fuse {
    /// Mounts it on the directory `point`, for all users; its files belong to `owner`. It
    /// shows the new directory [`Fuse::backing`], with the files `data/file` ("hi\n") and
    /// `etc/hosts` (empty).
    pub fn mount(point: &Path, owner: u32) -> Self {
        Self::start(point, owner, "fuse", "all", 0).unwrap()
    }

    /// As [`Fuse::mount`], with the file system type `kind`, such as `fuse.sshfs`.
    pub fn of_type(point: &Path, owner: u32, kind: &str) -> Self {
        Self::start(point, owner, kind, "all", 0).unwrap()
    }

    /// As [`Fuse::mount`], as the unprivileged user `owner` mounts it by fusermount3(1): nobody
    /// else, not even root, can look into it (EACCES).
    pub fn of_owner(point: &Path, owner: u32) -> Self {
        Self::start(point, owner, "fuse", "owner", owner).unwrap()
    }

    /// As [`Fuse::of_owner`], of the user `user`, with files that it calls `owner`'s; `for_all`: as
    /// where `/etc/fuse.conf` has `user_allow_other`. `Err`: it cannot be mounted there.
    pub fn of_user(point: &Path, user: u32, owner: u32, for_all: bool) -> Result<Self, String> {
        Self::start(
            point,
            owner,
            "fuse",
            if for_all { "all" } else { "owner" },
            user,
        )
    }

    fn start(point: &Path, owner: u32, kind: &str, users: &str, user: u32) -> Result<Self, String> {
        let directory = scratch();
        let (backing, control) = (directory.join("backing"), directory.join("control"));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["", "data", "etc"] {
            fs::create_dir_all(backing.join(name)).unwrap();
            chown(backing.join(name), Some(owner), Some(owner)).unwrap();
        }
        for (name, text) in [("data/file", "hi\n"), ("etc/hosts", "")] {
            fs::write(backing.join(name), text).unwrap();
            chown(backing.join(name), Some(owner), Some(owner)).unwrap();
        }
        let mut command = Command::new(program());
        command
            .args([&backing, &control])
            .arg(owner.to_string())
            .arg(point)
            .args([kind, users, &user.to_string()]);
        command.stdin(Stdio::null()).current_dir("/");
        let server = command.spawn().unwrap();
        let mut fuse = Self {
            server,
            point: point.to_owned(),
            backing,
            control,
        };
        fuse.wait_until_mounted().map(|()| fuse)
    }

    fn wait_until_mounted(&mut self) -> Result<(), String> {
        for _ in 0..3000 {
            if mounts()
                .iter()
                .any(|mount| mount.point == self.point && mount.kind.starts_with("fuse"))
            {
                return Ok(());
            }
            if let Some(status) = self.server.try_wait().unwrap() {
                return Err(format!(
                    "the FUSE server of {} ended: {status}",
                    self.point.display()
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!(
            "no FUSE file system came to {}",
            self.point.display()
        ))
    }

    /// From now on no request is answered: callers wait and cannot be killed.
    pub fn hang(&self) {
        fs::write(&self.control, "hang").unwrap();
    }

    /// From now on each request is answered with `errno`.
    pub fn fail(&self, errno: i32) {
        fs::write(&self.control, format!("fail {errno}")).unwrap();
    }

    /// It answers again, including the requests that are waiting.
    pub fn resume(&self) {
        fs::write(&self.control, "").unwrap();
    }

    /// Kills the server: callers that wait get ECONNABORTED, and later ones ENOTCONN.
    pub fn die(&mut self) {
        let _ = self.server.kill(); // it may be dead already
        self.server.wait().unwrap();
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.die();
        let _ = umount2(
            &self.point,
            MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
        ); // it may have been moved
    }
}

/// The server's program, which is compiled once.
fn program() -> PathBuf {
    let directory = made_once("fuse", |directory| {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join("fuse.c"), include_str!("fuse.c")).unwrap();
        let line = "gcc -O1 -Wall -o fuse fuse.c $(pkg-config --cflags --libs fuse3)";
        let mut gcc = Command::new("sh");
        Ran::of(gcc.args(["-c", line]).current_dir(directory)).exits(0);
    });
    directory.join("fuse")
}
