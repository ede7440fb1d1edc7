//! The end: the owners are gone, and every site goes down, comes up again as in the beginning, and
//! goes down.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use super::commands::{self, Ended};
use super::rounds::Riot;
use super::world::{Owner, QUIET, World, is_owners};
use crate::support::{Mount, mounts_below, tree};

/// What mountjail recorded to have made: the path and the inode number.
type CreatedPath = BTreeMap<PathBuf, u64>;

pub fn all_goes_down(riot: &Riot<'_>) {
    let (world, journal, oracle) = (riot.world, riot.journal, riot.oracle);
    let run = |arguments: &[&str]| commands::run(world, journal, arguments);
    let finds = |kind: &str, ended: &Ended, what: &dyn std::fmt::Debug| {
        journal.finds(kind, &format!("{ended}\n{what:#?}"));
    };
    let made: Vec<_> = world
        .owners
        .iter()
        .map(|owner| made(world, owner))
        .collect();
    let Some(down) = run(&["down", "--all", "--lazy"]) else {
        return;
    };
    for owner in &world.owners {
        let ours = owner.sites_mounts();
        let owners_own = owner.mounts().into_iter().filter(is_owners).count();
        if !ours.is_empty() && (down.is_ok() || !down.stderr.contains(owner.name)) {
            finds("c: `down` leaves mounts without a word", &down, &ours);
        } else if !ours.is_empty() && owners_own == 0 {
            finds(
                "c: `down` leaves mounts, and nothing is in its way",
                &down,
                &ours,
            );
        }
    }
    let covered: Vec<_> = world
        .owners
        .iter()
        .filter(|owner| is_covered(owner))
        .collect();
    unmount(world, is_owners);
    let Some(down) = run(&["down", "--all", "--lazy"]) else {
        return;
    };
    if !down.is_ok() {
        finds("c: `down` fails, and nothing is in its way", &down, &());
    }
    is_bare(riot, &down, &covered);
    for (owner, made) in world.owners.iter().zip(&made) {
        let left: Vec<_> = made
            .iter()
            .filter(|(path, file)| is_still_as_made(path, **file))
            .collect();
        if !left.is_empty() {
            finds("c: placeholders are left", &down, &(owner.name, left));
        }
    }
    oracle.looks_at_all();

    // Whatever the owners left behind, the messages are true.
    let _ = run(&["up", "--all"]);
    let _ = run(&["status"]);
    if let Some(down) = run(&["down", "--all", "--lazy"]) {
        is_bare(riot, &down, &[]);
    }
    // And as in the beginning: leftovers that were found must not be in the way.
    unmount(world, |_| true);
    for owner in &world.owners {
        for directory in [&owner.home, &owner.root] {
            empty(directory);
        }
        world.make_owner(owner);
    }
    let bare: Vec<_> = world.owners.iter().map(|owner| tree(&owner.root)).collect();
    for (command, kind) in [
        (
            ["up", "--all"].as_slice(),
            "e: `up` of sites that are as in the beginning",
        ),
        (
            &["status"],
            "e: `status` of sites that are as in the beginning",
        ),
        (
            &["down", "--all"],
            "c: `down` of sites that are as in the beginning",
        ),
    ] {
        if let Some(ended) = run(command).filter(|ended| !ended.is_ok()) {
            finds(kind, &ended, &());
            return;
        }
    }
    for (owner, before) in world.owners.iter().zip(bare) {
        let changes = before.changes(&tree(&owner.root));
        if !changes.is_empty() {
            journal.finds(
                "c: a root is not as before",
                &format!("{}:\n{changes}", owner.name),
            );
        }
    }
    is_bare(riot, &down, &[]);
    oracle.looks_at_all();
}

/// Whether the root is what its owner has mounted there.
fn is_covered(owner: &Owner) -> bool {
    let mut mounts = owner.mounts().into_iter().filter(is_owners);
    mounts.any(|mount| mount.point == owner.root)
}

/// After this `down`, nothing of ours is left anywhere. The roots of `covered` owners were
/// unmounted before it, perhaps with things that were made in them.
fn is_bare(riot: &Riot<'_>, down: &Ended, covered: &[&Owner]) {
    let (world, journal, oracle) = (riot.world, riot.journal, riot.oracle);
    let mut left: Vec<_> = world.owners.iter().flat_map(Owner::sites_mounts).collect();
    left.extend(mounts_below(&world.sandbox.state()));
    if !left.is_empty() {
        journal.finds("c: mounts are left", &format!("{down}\n{left:#?}"));
    }
    for (nth, name) in QUIET.iter().enumerate() {
        if let Err(why) = oracle.quiet_is_down(nth) {
            journal.finds(
                "c: a quiet site is not down",
                &format!("{name}: {why}\n{down}"),
            );
        }
    }
    // Things made in a root that is away stay recorded.
    let is_there = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let missing: Vec<_> = world
        .owners
        .iter()
        .filter(|owner| !is_there(&owner.root))
        .chain(covered.iter().copied())
        .collect();
    let of_missing = |path: &PathBuf| {
        missing
            .iter()
            .any(|owner| path.file_stem().is_some_and(|stem| stem == owner.name))
    };
    let records: Vec<_> = oracle
        .records()
        .into_iter()
        .filter(|path| !of_missing(path))
        .collect();
    if down.is_ok() && !records.is_empty() {
        let texts: Vec<_> = records.iter().map(fs::read_to_string).collect();
        journal.finds(
            "c: records are left",
            &format!("{down}\n{records:#?}\n{texts:#?}"),
        );
    }
}

/// Unmounts these mounts of owners and their sites, as root has to do to get rid of them; nobody
/// may act meanwhile.
pub fn unmount(world: &World, which: impl Fn(&Mount) -> bool + Copy) {
    let left = || {
        world
            .owners
            .iter()
            .flat_map(Owner::mounts)
            .filter(which)
            .collect::<Vec<_>>()
    };
    for _ in 0..20 {
        for mount in left().iter().rev() {
            let _ = umount2(
                &mount.point,
                MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
            ); // another is on top of it
        }
    }
    assert!(left().is_empty(), "the test cannot unmount {:#?}", left());
}

/// The placeholders and links that are recorded.
fn made(world: &World, owner: &Owner) -> CreatedPath {
    let file = world
        .sandbox
        .state()
        .join(format!("lib/{}.json", owner.name));
    let record: serde_json::Value = fs::read(file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let entries = record["made"].as_array().into_iter().flatten();
    let entry = |made: &serde_json::Value| {
        let path = made["path"].as_str()?.trim_start_matches('/');
        Some((owner.root.join(path), made["file"]["ino"].as_u64()?))
    };
    entries.filter_map(entry).collect()
}

/// Whether the file that was made is there, and nobody put anything into it.
fn is_still_as_made(path: &Path, file: u64) -> bool {
    let Ok(meta) = path.symlink_metadata() else {
        return false;
    };
    let is_empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => meta.len() == 0 || meta.is_symlink(),
    };
    // The owner's links may lead the path elsewhere; it is the same file only where it was made.
    let in_place = path
        .parent()
        .is_some_and(|above| fs::canonicalize(above).is_ok_and(|real| real == above));
    in_place && meta.ino() == file && is_empty
}

fn empty(directory: &Path) {
    let is_directory = directory.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if !is_directory {
        let _ = fs::remove_file(directory); // or it is not there
        return;
    }
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
        .unwrap();
    }
}
