//! The system calls that `up --all` of new sites cannot do without, and nothing else: no manifest
//! is understood, nothing is planned or compared. As many threads as there are processors share the
//! sites.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use mountjail::base::Extent;
use mountjail::sys::{self, MountAttr};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::support::{Farm, MOUNTS};

/// The sizes of a site's records, in bytes: of its mounts, and of what is planned and made in its
/// root.
const RECORDS: [usize; 3] = [600, 180, 230];

/// Brings up all sites of `farm`, in whose roots nothing is.
pub fn up(farm: &Farm) {
    let graft = graft(farm);
    for directory in ["locks", "run", "lib", "members"] {
        fs::create_dir_all(bare(farm).join(directory)).unwrap();
    }
    let threads = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for first in 0..threads {
            let graft = &graft;
            scope.spawn(move || {
                for site in (first..farm.sites).step_by(threads) {
                    bring_up(farm, site, graft);
                }
            });
        }
    });
}

/// Takes down what [`up`] made.
pub fn down(farm: &Farm) {
    for site in 0..farm.sites {
        let etc = farm.dir.join(format!("srv/{site}/etc"));
        umount2(&etc, MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir(etc).unwrap();
    }
    umount2(&bare(farm).join("template"), MntFlags::MNT_DETACH).unwrap();
    fs::remove_dir_all(bare(farm)).unwrap();
}

fn bare(farm: &Farm) -> PathBuf {
    farm.dir.join("bare")
}

/// All mounts of a site in one, which follow those of the template.
fn graft(farm: &Farm) -> OwnedFd {
    let no_text = None::<&str>;
    let template = bare(farm).join("template");
    fs::create_dir_all(&template).unwrap();
    let (source, none) = (Some("template"), MsFlags::empty());
    mount(source, &template, Some("tmpfs"), none, no_text).unwrap();
    for nth in 0..MOUNTS {
        let (source, target) = (farm.source(nth), template.join(format!("file{nth}")));
        File::create(&target).unwrap();
        mount(Some(&source), &target, no_text, MsFlags::MS_BIND, no_text).unwrap();
    }
    mount(no_text, &template, no_text, MsFlags::MS_SHARED, no_text).unwrap();
    let graft = sys::clone_mount(File::open(&template).unwrap(), Extent::Tree).unwrap();
    let slave = MountAttr {
        propagation: libc::MS_SLAVE,
        ..MountAttr::default()
    };
    sys::mount_setattr(&graft, Extent::Tree, &slave).unwrap();
    graft
}

fn bring_up(farm: &Farm, site: usize, graft: &OwnedFd) {
    let place = |directory: &str| bare(farm).join(format!("{directory}/{site}"));
    let lock = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(place("locks"))
        .unwrap();
    lock.lock().unwrap();
    (&lock).write_all(b"0000000000 0000000000\n").unwrap();
    fs::read(farm.dir.join(format!("config/sites/site{site}.yaml"))).unwrap();

    let root = farm.dir.join(format!("srv/{site}"));
    let root = sys::open_host(&root, libc::O_PATH | libc::O_DIRECTORY).unwrap();
    fs::create_dir(place("members")).unwrap();
    let mount = sys::clone_mount(graft, Extent::Tree).unwrap();
    let id = sys::mount_of(&mount, Path::new("")).unwrap().id;

    // What is going to be made, the directory to mount on, and what has been made.
    let [mounts, planned, made] = RECORDS;
    write_record(&place("run"), mounts).unwrap();
    write_record(&place("lib"), planned).unwrap();
    nix::sys::stat::mkdirat(&root, "etc", nix::sys::stat::Mode::S_IRWXU).unwrap();
    write_record(&place("lib"), made).unwrap();

    let etc = Path::new("etc");
    let target = sys::open_beneath(&root, etc, libc::O_PATH).unwrap();
    sys::move_mount(&mount, target).unwrap();
    assert_eq!(sys::mount_of(&root, etc).unwrap().id, id);
}

/// Replaces the record at `path` atomically.
fn write_record(path: &Path, size: usize) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create_new(&new)?;
    file.write_all(&vec![b'.'; size])?;
    file.sync_all()?;
    fs::rename(new, path)
}
