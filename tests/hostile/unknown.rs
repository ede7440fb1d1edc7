//! Promise: a file that cannot be looked at is never taken for absent: the site stays as it is, and
//! no other one is concerned.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Fuse;
use crate::support::{Ran, Sandbox, bind, for_each_engine, mounts_below, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let mut all = for_each_engine(
        "an error of a file system does not count as absence",
        failing_source,
    );
    all.extend(trials([
        ("a failing system call takes nothing away", failing_calls),
        (
            "a container that forbids statmount is as an older kernel",
            no_statmount,
        ),
        (
            "a manifest that cannot be replaced is not reported as written",
            not_written,
        ),
        (
            "records that cannot be listed are not none",
            unlistable_records,
        ),
        (
            "a program that is broken hides no name services",
            broken_getent,
        ),
    ]));
    all
}

/// Forbids statmount(2) and listmount(2), and runs its arguments. strace(1) may not know them.
const FILTER: &str = r"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(int count, char **arguments) {
    struct sock_filter lines[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 457, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 458, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof lines / sizeof *lines, lines };
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 125;
    execv(arguments[1], arguments + 1);
    return 125;
}
";

/// A container's filter may forbid statmount(2) and listmount(2), which it does not know, where
/// statx(2) gives unique mount IDs.
fn no_statmount() {
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("host/directory");
    sandbox.file("host/directory/file", "old");
    let inner = sandbox.directory("host/tree/inner");
    bind(Path::new("/usr/share"), &inner);
    let root = sandbox.site(
        "s",
        &format!(
            "mounts:\n- {{ source: {}, target: /d }}\n\
             - {{ source: {}, target: /t, recursive: true }}\n",
            directory.display(),
            sandbox.path("host/tree").display()
        ),
    );
    let filter = sandbox.compile("filter", FILTER);
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command_under(&[filter.to_str().unwrap()]);
        Ran::of(command.args(arguments)).exits(0)
    };
    run(&["up", "s"]);
    assert!(root.join("t/inner/zoneinfo").exists());
    // Another directory takes its place.
    std::fs::rename(&directory, sandbox.path("host/away")).unwrap();
    sandbox.file("host/directory/file", "new");
    run(&["up", "s"]).says("1 swapped");
    assert_eq!(std::fs::read_to_string(root.join("d/file")).unwrap(), "new");
    run(&["status", "s"]);
    run(&["down", "s"]);
    assert_eq!(mounts_below(&root), vec![]);
}

/// Where a run is tried again because the mount table may be old, as on an older kernel.
fn not_written() {
    let sandbox = Sandbox::new();
    let text = |name: &str| {
        let source = sandbox.file(format!("host/{name}"), name);
        format!("mounts: [{{ source: {}, target: /x }}]\n", source.display())
    };
    let root = sandbox.site("s", &text("one"));
    sandbox.ok(&["up", "s"]);
    let file = sandbox.config().join("sites/s.yaml");
    let old = std::fs::read_to_string(&file).unwrap();
    let new = format!("root: {}\n{}", root.display(), text("two"));
    let new = sandbox.file("given/s.yaml", new);
    let filter = sandbox.compile("filter", FILTER);
    let staged = sandbox.config().join("sites/.s.yaml.mountjail");
    let fault = "inject=rename,renameat2:error=EIO";
    let mut command = sandbox.command_under(&[
        "strace",
        "-fqqo/dev/null",
        "-P",
        staged.to_str().unwrap(),
        "-e",
        fault,
        filter.to_str().unwrap(),
    ]);
    Ran::of(command.arg("apply").arg(new))
        .exits(1)
        .says("cannot write");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), old);
    assert_eq!(std::fs::read_to_string(root.join("x")).unwrap(), "one");
}

fn failing_source(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let point = sandbox.directory("fuse");
    let mut fuse = Fuse::mount(&point, 0);
    let data = point.join("data");
    let lines = [
        format!(
            "mounts: [{{ source: {}, target: /x, optional: true }}]\n",
            data.display()
        ),
        format!(
            "mounts:\n- any_of: [{}, /etc/hosts]\n  target: /x\n",
            data.join("file").display()
        ),
        format!(
            "mounts: [{{ source: \"{}/*\", optional: true }}]\n",
            point.display()
        ),
        format!(
            "etc: [hosts]\nprograms: [{{ path: {}/prog, optional: true }}]\n",
            data.display()
        ),
    ];
    std::fs::copy("/bin/true", fuse.backing.join("data/prog")).unwrap();
    let roots: Vec<_> = lines
        .iter()
        .enumerate()
        .map(|(nth, lines)| sandbox.site(&format!("s{nth}"), lines))
        .collect();
    let other = sandbox.site("other", "etc: [hosts]\n");
    sandbox.ok(&["up", "--all"]);
    let mounts = || {
        roots
            .iter()
            .map(|root| mounts_below(root).len())
            .collect::<Vec<_>>()
    };
    let before = mounts();
    assert!(before.iter().all(|count| *count > 0), "{before:?}");
    for errno in [
        libc::EIO,
        libc::EACCES,
        libc::ESTALE,
        libc::ENOMEM,
        libc::ENOTCONN,
    ] {
        fuse.fail(errno);
        for nth in 0..lines.len() {
            sandbox.run(&["up", &format!("s{nth}")]).exits(1);
        }
        sandbox.ok(&["up", "other"]);
        assert_eq!(mounts(), before, "{errno}");
    }
    fuse.resume();
    sandbox.ok(&["up", "--all"]);
    fuse.die();
    sandbox
        .run(&["up", "s0"])
        .exits(1)
        .says("Transport endpoint is not connected");
    sandbox.ok(&["up", "other"]);
    assert_eq!(mounts(), before);
    assert_eq!(mounts_below(&other).len(), 1);
}

/// `up` of the site `s` when the system call `call` fails on `path`.
fn up_with_fault(sandbox: &Sandbox, call: &str, path: &Path, errno: &str) -> Ran {
    let fault = format!("{call}:error={errno}");
    let only = ["-P", path.to_str().unwrap()];
    Ran::of(sandbox.command_with_fault(&fault, &only).args(["up", "s"]))
}

fn unlistable_records() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts]\n");
    sandbox.ok(&["up", "s"]);
    std::fs::remove_file(sandbox.config().join("sites/s.yaml")).unwrap();
    for directory in ["run", "lib"] {
        let directory = sandbox.state().join(directory);
        let only = ["-P", directory.to_str().unwrap()];
        let says = format!(
            "cannot list the records in {}: I/O error",
            directory.display()
        );
        for arguments in [&["down", "--all"][..], &["status"]] {
            let mut command = sandbox.command_with_fault("getdents64:error=EIO", &only);
            Ran::of(command.args(arguments)).exits(1).says(&says);
        }
        assert_eq!(mounts_below(&root).len(), 1);
    }
    sandbox.ok(&["down", "--all"]).says("1 mount detached");
}

fn failing_calls() {
    let sandbox = Sandbox::new();
    let data = sandbox.directory("host/data/below");
    let file = sandbox.file("host/data/below/file", "x");
    let link = sandbox.path("host/data/link");
    std::os::unix::fs::symlink(sandbox.file("host/aside", "y"), &link).unwrap();
    let bound = data.parent().unwrap();
    // Nothing else brings the library that this program needs.
    let plugin = sandbox.directory("host/plugins").join("mount");
    std::fs::copy("/bin/mount", &plugin).unwrap();
    let library = library_of("/bin/mount", "libmount.so.1");
    let text = format!(
        "presets: [dns]\nusers: [{{ name: nobody, optional: true }}]\nprograms: [/bin/sh]\n\
         mounts:\n- {{ source: {}, \
         optional: true }}\n- {{ source: {}, target: /f, optional: true }}\n\
         - {{ source: \"{}/f*\", optional: true }}\n\
         - {{ source: {}, executable: true }}\n",
        bound.display(),
        file.display(),
        data.display(),
        plugin.parent().unwrap().display(),
    );
    let root = sandbox.site("s", &text);
    sandbox.ok(&["up", "s"]);
    let before = mounts_below(&root).len();
    for (call, path) in [
        ("read", Path::new("/etc/passwd")),
        ("read", Path::new("/etc/nsswitch.conf")),
        ("openat", Path::new("/etc/ld.so.conf")),
        ("read", Path::new("/etc/ld.so.cache")),
        ("pread64", Path::new("/bin/sh")),
        ("pread64", Path::new("/usr/bin/getent")),
        ("pread64", &plugin),
        ("pread64", &library),
        ("getdents64", Path::new("/")),
        ("getdents64", bound),
        ("getdents64", &data),
        ("statx", &file),
        ("statx", &data),
        ("readlink", &link),
        ("statx", &sandbox.path("host/aside")),
    ] {
        for errno in ["EIO", "EMFILE", "ENOMEM"] {
            let ran = up_with_fault(&sandbox, call, path, errno);
            let after = mounts_below(&root).len();
            assert_eq!(
                after,
                before,
                "{call} of {}: {errno}\n{ran}",
                path.display()
            );
            assert!(
                ran.code == 1 || ran.stderr.contains("nothing to do"),
                "{call} of {}\n{ran}",
                path.display()
            );
        }
    }
    sandbox.ok(&["up", "s"]).says("nothing to do");
}

/// The file that the loader opens for `name`, which `program` needs (`ldd(1)`).
fn library_of(program: &str, name: &str) -> PathBuf {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = listed.lines().find(|line| line.contains(name)).unwrap();
    let path = line.split_ascii_whitespace().nth(2).unwrap();
    std::fs::canonicalize(path).unwrap()
}

fn broken_getent() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "nss: [hosts]\n");
    sandbox.ok(&["up", "s"]);
    let before = mounts_below(&root).len();
    let broken = sandbox.program("broken", "\x7fELF");
    // Only in this mount namespace of the trials.
    let bind = |arguments: &[&str]| {
        assert!(
            Command::new("mount")
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
    };
    bind(&["--bind", broken.to_str().unwrap(), "/usr/bin/getent"]);
    let ran = sandbox.run(&["up", "s"]);
    let unmounted = Command::new("umount")
        .arg("/usr/bin/getent")
        .status()
        .unwrap();
    assert!(unmounted.success());
    assert_eq!(mounts_below(&root).len(), before, "{ran}");
    ran.exits(0).says("nothing to do");
}
