//! Promise: no link that a user other than root can make, and no file that they can write, causes a
//! file of others to be mounted or gets in another site's way.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Sandbox, Watcher, for_each_engine, mounts_below, replace, soon_reads, trials,
};
use libtest_mimic::Trial;
use mountjail::base::HostPath;
use mountjail::import::fpm;
use mountjail::resolve::Host;

const OWNER: u32 = 61001;
const OTHER: u32 = 61002;

pub fn all() -> Vec<Trial> {
    let mut all = for_each_engine(
        "a link that root made leads nowhere from its owner's directory",
        moved_link,
    );
    all.extend(trials([
        (
            "a link in a directory that others can write counts as nobody's",
            writable_directories,
        ),
        ("a directory above a link also counts", directory_above),
        (
            "a link above a root does not get in another site's way",
            link_above_a_root,
        ),
        (
            "an owner's link does not make a pool the site's",
            pool_by_a_link,
        ),
        ("an ELF interpreter is an ELF file", interpreters),
        (
            "a program that others can write brings nothing private",
            private_files,
        ),
        ("a program cannot ask for endless work", endless_work),
        (
            "manifests and presets are root's alone, or not used",
            manifests_of_others,
        ),
        (
            "a link to a manifest counts as what it leads to",
            linked_manifests,
        ),
        (
            "unprivileged users can check their own manifests",
            own_manifests,
        ),
    ]));
    all
}

fn owned(path: &Path, uid: u32) {
    lchown(path, Some(uid), Some(uid)).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A new directory of `uid`'s.
fn directory_of(sandbox: &Sandbox, relative: &str, uid: u32) -> PathBuf {
    let directory = sandbox.directory(relative);
    owned(&directory, uid);
    directory
}

/// A site `s` that mounts `source` writable on /up.
fn site_with(sandbox: &Sandbox, source: &Path) -> PathBuf {
    sandbox.site(
        "s",
        &format!(
            "mounts: [{{ source: {}, target: /up, access: read-write }}]\n",
            source.display()
        ),
    )
}

fn moved_link(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let vault = sandbox.directory("vault");
    let home = directory_of(&sandbox, "home", OWNER);
    let source = home.join("up");
    fs::create_dir(&source).unwrap();
    owned(&source, OWNER);
    let root = site_with(&sandbox, &source);
    sandbox.ok(&["up", "s"]);
    let ids = || {
        mounts_below(&root)
            .iter()
            .map(|mount| mount.id)
            .collect::<Vec<_>>()
    };
    let before = ids();
    fs::rename(&source, home.join("old")).unwrap();
    // As one that mountjail made in a root, and its owner moved here.
    symlink(&vault, &source).unwrap();
    for command in ["up", "check", "status", "fstab"] {
        sandbox
            .run(&[command, "s"])
            .exits(1)
            .says("it is not followed");
    }
    assert_eq!(ids(), before);
    // A link may lead to what the owner owns, whoever made it.
    fs::remove_file(&source).unwrap();
    symlink("old", &source).unwrap();
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
}

fn writable_directories() {
    let sandbox = Sandbox::new();
    let (vault, shared) = (sandbox.directory("vault"), sandbox.directory("shared"));
    let link = shared.join("link");
    symlink(&vault, &link).unwrap();
    site_with(&sandbox, &link);
    sandbox.ok(&["check", "s"]);
    for writable in [0o1777, 0o777, 0o775, 0o2775, 0o757] {
        mode(&shared, writable);
        sandbox
            .run(&["check", "s"])
            .exits(1)
            .says("shared can be written by others than root")
            .says("it is not followed");
    }
    mode(&shared, 0o755);
    // The group bits of one with an access list are its mask.
    let acl = Command::new("setfacl")
        .args(["-m", &format!("u:{OWNER}:rwx")])
        .arg(&shared)
        .status();
    assert!(acl.unwrap().success());
    sandbox
        .run(&["check", "s"])
        .exits(1)
        .says("shared can be written by others than root");
    // Nobody can remove another user's files from a sticky directory.
    let top = sandbox.directory("sticky");
    mode(&top, 0o1777);
    let below = sandbox.directory("sticky/roots");
    symlink(&vault, below.join("link")).unwrap();
    site_with(&sandbox, &below.join("link"));
    sandbox.ok(&["check", "s"]);
    owned(&below, OWNER);
    sandbox
        .run(&["check", "s"])
        .exits(1)
        .says("it is not followed");
}

fn directory_above() {
    let sandbox = Sandbox::new();
    let vault = sandbox.directory("vault");
    directory_of(&sandbox, "home", OWNER);
    let roots = sandbox.directory("home/roots");
    symlink(&vault, roots.join("link")).unwrap();
    site_with(&sandbox, &roots.join("link"));
    sandbox
        .run(&["check", "s"])
        .exits(1)
        .says("it is not followed");
    // A directory that two users can write to counts as nobody's, even if one of them owns the
    // destination.
    let own = directory_of(&sandbox, "home/own", OWNER);
    let theirs = directory_of(&sandbox, "home/theirs", OTHER);
    symlink(&own, theirs.join("link")).unwrap();
    site_with(&sandbox, &theirs.join("link"));
    sandbox
        .run(&["check", "s"])
        .exits(1)
        .says("it is not followed");
    // Links in a bound directory bring nothing along either.
    let bound = sandbox.directory("home/bound");
    symlink(sandbox.file("vault/file", "x"), bound.join("file")).unwrap();
    for path in ["", "vault"] {
        mode(&sandbox.path(path), 0o755);
    }
    let root = sandbox.site("b", &format!("mounts: [{}]\n", bound.display()));
    sandbox.ok(&["up", "b"]);
    assert_eq!(mounts_below(&root).len(), 1);
    sandbox.ok(&["down", "b"]);
}

fn link_above_a_root() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("host/file", "1");
    let line = format!("mounts: [{{ source: {}, target: /f }}]\n", file.display());
    let home = directory_of(&sandbox, "home", OWNER);
    let inner = directory_of(&sandbox, "home/www/bob", OWNER);
    sandbox.manifest("alice", format!("root: {}\n{line}", inner.display()));
    let bob = sandbox.site("bob", &line);
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    for to in [
        bob.parent().unwrap(),
        &sandbox.path(""),
        Path::new("/"),
        Path::new("www"),
    ] {
        let _ = fs::rename(home.join("www"), home.join("old"));
        let _ = fs::remove_file(home.join("www"));
        symlink(to, home.join("www")).unwrap();
        for command in ["status", "check", "up", "plan"] {
            sandbox.ok(&[command, "bob"]);
        }
        sandbox.run(&["up", "alice"]).exits(1);
    }
    replace(&file, "2");
    soon_reads(&bob.join("f"), "2");
    watcher.end();
    sandbox.ok(&["down", "bob"]);
    sandbox.ok(&["up", "bob"]);
    sandbox.ok(&["down", "bob"]);
}

fn pool_by_a_link() {
    let sandbox = Sandbox::new();
    let (root, home) = (
        sandbox.directory("srv/bob"),
        directory_of(&sandbox, "home", OWNER),
    );
    let link = home.join("www");
    symlink(sandbox.path("srv"), &link).unwrap();
    let roots = sandbox.path("by-root");
    symlink(sandbox.path("srv"), &roots).unwrap();
    let path = |path: &Path| HostPath::new(path).unwrap();
    for (chroot, lives) in [
        (root.clone(), true),
        (roots.join("bob"), true),
        (link.join("bob"), false),
    ] {
        let text = format!("[p]\nuser = nobody\nchroot = {}\n", chroot.display());
        let pools = fpm::pools(&sandbox.file("fpm.conf", text)).unwrap();
        assert_eq!(
            pools[0].lives_in(&Host::new(), &path(&root)),
            lives,
            "{}",
            chroot.display()
        );
    }
}

/// A program for this machine's class with `interpreter`, optional libraries and a search path.
fn program(interpreter: &Path, auxiliary: usize, directories: usize) -> Vec<u8> {
    let interpreter = [interpreter.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let path = (0..directories)
        .map(|nth| format!("/{nth}"))
        .collect::<Vec<_>>()
        .join(":");
    let mut strings = [b"\0", path.as_bytes(), b"\0"].concat();
    let mut dynamic: Vec<(u64, u64)> = vec![];
    for nth in 0..auxiliary {
        dynamic.push((0x7fff_fffd, strings.len() as u64));
        strings.extend(format!("n{nth}\0").bytes());
    }
    let (base, headers) = (0x40_0000u64, 64 + 3 * 56);
    let at_strings = headers + interpreter.len() as u64;
    let at_dynamic = (at_strings + strings.len() as u64).next_multiple_of(16);
    dynamic.extend([
        (29, 1),
        (5, base + at_strings),
        (10, strings.len() as u64),
        (0, 0),
    ]);
    let table: Vec<u8> = dynamic
        .iter()
        .flat_map(|(tag, value)| [*tag, *value])
        .flat_map(u64::to_le_bytes)
        .collect();
    let total = at_dynamic + table.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [0, 64, 0u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 3, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (kind, offset, address, length) in [
        (3u32, headers, 0, interpreter.len() as u64),
        (1, 0, base, total),
        (2, at_dynamic, base + at_dynamic, table.len() as u64),
    ] {
        file.extend(kind.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        for word in [offset, address, address, length, length, 8] {
            file.extend(word.to_le_bytes());
        }
    }
    file.extend(&interpreter);
    file.extend(&strings);
    file.resize(usize::try_from(at_dynamic).unwrap(), 0);
    file.extend(table);
    file
}

/// A site whose owner's program has these bytes.
fn site_of_program(sandbox: &Sandbox, bytes: &[u8]) -> PathBuf {
    let program = sandbox.program("home/tool", bytes);
    owned(program.parent().unwrap(), OWNER);
    owned(&program, OWNER);
    sandbox.site("s", &format!("programs: [{}]\n", program.display()))
}

fn interpreters() {
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("private");
    let text = sandbox.file("note", "root's note\n");
    let fifo = sandbox.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for (interpreter, why) in [
        (&directory, "Is a directory"),
        (&text, "it is not an ELF file"),
        (&fifo, "Invalid argument"),
    ] {
        let root = site_of_program(&sandbox, &program(interpreter, 0, 0));
        sandbox
            .run(&["up", "s"])
            .exits(1)
            .says("cannot find the ELF interpreter")
            .says(why);
        assert!(mounts_below(&root).is_empty());
        site_of_program(
            &sandbox,
            format!("#!{}\n", interpreter.display()).as_bytes(),
        );
        sandbox
            .run(&["up", "s"])
            .exits(1)
            .says("interpreter of the script");
    }
}

fn private_files() {
    let sandbox = Sandbox::new();
    mode(&sandbox.path(""), 0o755);
    let script = sandbox.program("bob/closed/backup", "#!/bin/sh\n");
    let closed = script.parent().unwrap();
    let root = site_of_program(&sandbox, format!("#!{}\n", script.display()).as_bytes());
    mode(closed, 0o755);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    for closed_by in [closed.to_owned(), script.clone()] {
        mode(&closed_by, 0o750);
        sandbox
            .run(&["up", "s"])
            .exits(1)
            .says("which not everybody may read")
            .says("chown root");
        assert!(mounts_below(&root).is_empty());
        mode(&closed_by, 0o755);
    }
    mode(closed, 0o700);
    // Owners may show their own files, and root decides what root's own program asks for.
    owned(&script, OWNER);
    sandbox.ok(&["check", "s"]);
    owned(&script, OTHER);
    sandbox
        .run(&["check", "s"])
        .exits(1)
        .says("which not everybody may read");
    owned(&sandbox.path("home"), 0);
    sandbox
        .run(&["check", "s"])
        .exits(1)
        .says("home/tool belongs to user 61001");
    owned(&sandbox.path("home/tool"), 0);
    sandbox.ok(&["check", "s"]);
    owned(&script, 0);
    sandbox.ok(&["check", "s"]);
}

fn endless_work() {
    let sandbox = Sandbox::new();
    let interpreter = Path::new("/lib64/ld-linux-x86-64.so.2");
    if !interpreter.exists() {
        return; // the program is for another machine
    }
    site_of_program(&sandbox, &program(interpreter, 400, 200));
    sandbox
        .run(&["check", "s"])
        .exits(1)
        .says("needs more than")
        .says("look-ups");
    site_of_program(&sandbox, &program(interpreter, 40, 20));
    sandbox.ok(&["check", "s"]);
}

fn manifests_of_others() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [mine]\n");
    let other = sandbox.site("other", "etc: [hosts]\n");
    let preset = sandbox.preset("mine", "description: mine\netc: [hosts]\n");
    let manifest = sandbox.path("config/sites/s.yaml");
    for path in [&manifest, &preset] {
        owned(path, OWNER);
        for command in [
            vec!["up", "s"],
            vec!["fstab", "s"],
            vec!["exec", "s", "--", "x"],
        ] {
            let ran = sandbox.run(&command);
            assert_ne!(ran.code, 0, "{ran}");
            ran.says("belongs to user 61001")
                .says("chown root ")
                .says("chmod go-w ");
        }
        assert!(mounts_below(&root).is_empty());
        owned(path, 0);
    }
    owned(&manifest, OWNER);
    sandbox.ok(&["check", "s"]).says("`up` will refuse it");
    sandbox.ok(&["up", "other"]);
    // It does not decide whose root this is.
    sandbox.manifest("s", format!("root: {}\netc: [hosts]\n", other.display()));
    sandbox.ok(&["down", "other"]);
    sandbox.ok(&["up", "other"]);
    owned(&manifest, 0);
    sandbox.site("s", "etc: [hosts]\n");
    for (path, writable, was) in [
        (manifest.clone(), 0o664, 0o644),
        (manifest.clone(), 0o646, 0o644),
        (sandbox.path("config/sites"), 0o775, 0o755),
        (sandbox.config(), 0o777, 0o755),
    ] {
        mode(&path, writable);
        sandbox
            .run(&["up", "s"])
            .exits(1)
            .says("can be written by others than root")
            .says("chmod go-w ");
        mode(&path, was);
    }
    sandbox.ok(&["up", "s"]);
    mode(&manifest, 0o666);
    sandbox.ok(&["status", "s"]).says("`up` will refuse it");
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
}

fn linked_manifests() {
    let sandbox = Sandbox::new();
    let home = directory_of(&sandbox, "home", OWNER);
    let text = format!(
        "root: {}\netc: [hosts]\n",
        sandbox.directory("srv/s").display()
    );
    let (theirs, roots) = (home.join("s.yaml"), sandbox.file("roots/s.yaml", &text));
    fs::write(&theirs, &text).unwrap();
    let manifest = sandbox.path("config/sites/s.yaml");
    fs::create_dir_all(manifest.parent().unwrap()).unwrap();
    symlink(&roots, &manifest).unwrap();
    sandbox.ok(&["check", "s"]);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    fs::remove_file(&manifest).unwrap();
    symlink(&theirs, &manifest).unwrap();
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("home belongs to user 61001");
    sandbox
        .run(&["up", theirs.to_str().unwrap()])
        .exits(1)
        .says("home belongs to user 61001");
    let roundabout = format!("{}/../home/s.yaml", home.display());
    sandbox
        .run(&["up", &roundabout])
        .exits(1)
        .says("home belongs to user 61001");
}

fn own_manifests() {
    let sandbox = Sandbox::new();
    mode(&sandbox.path(""), 0o755);
    let home = directory_of(&sandbox, "home", OWNER);
    let manifest = home.join("s.yaml");
    fs::write(
        &manifest,
        format!(
            "root: {}\netc: [hosts]\n",
            sandbox.directory("srv/s").display()
        ),
    )
    .unwrap();
    owned(&manifest, OWNER);
    let id = OWNER.to_string();
    let mut command =
        sandbox.command_under(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    let ran = crate::support::Ran::of(command.arg("check").arg(&manifest))
        .exits(0)
        .prints("s: ok");
    assert!(!ran.stderr.contains("will refuse"), "{ran}");
}
