//! Promise: lines of fstab become what they mount, never more, and none is passed over in silence.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, Sandbox, mounts_below, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    trials([
        (
            "options that change what is seen are honoured or named",
            options,
        ),
        ("a line that came later is named", a_later_line),
        ("links on the way to targets are followed", links),
        ("a proc that is mounted is named", standing_proc),
        ("a mount point that is not empty is named", hidden),
        ("a remount without `bind` is one of the mount", remount),
        ("paths are followed through `..`", parents),
        ("a line that lacks `bind` is named", no_bind),
        ("what is mounted in a tmpfs stays in fstab", in_tmpfs),
        ("orders of units and of tmpfs lines are named", orders),
    ])
}

/// Writes the lines, in which SRV stands for the directory of roots.
fn write(sandbox: &Sandbox, lines: &str) -> PathBuf {
    sandbox.file("fstab", in_srv(sandbox, lines))
}

fn in_srv(sandbox: &Sandbox, text: &str) -> String {
    text.replace("SRV", sandbox.path("srv").to_str().unwrap())
}

fn mount_all(fstab: &Path) {
    Ran::of(Command::new("mount").arg("-a").arg("-T").arg(fstab)).exits(0);
}

/// A root `SRV/a` with placeholders for /etc/hosts and /etc/services.
fn root_a(sandbox: &Sandbox) -> PathBuf {
    sandbox.file("srv/a/etc/hosts", "");
    sandbox.file("srv/a/etc/services", "");
    sandbox.directory("srv/d/sub");
    sandbox.path("srv/a")
}

fn manifest(sandbox: &Sandbox, site: &str) -> String {
    fs::read_to_string(sandbox.config().join(format!("sites/{site}.yaml"))).unwrap()
}

fn options() {
    let sandbox = Sandbox::new();
    root_a(&sandbox);
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro=recursive\n\
         SRV/d SRV/a/1 none bind,ro,X-mount.subdir=sub,X-mount.mkdir=0755\n\
         SRV/d SRV/a/2 none bind,X-mount.idmap=b:0:1000:1\n\
         SRV/d SRV/a/3 none bind,ro,slave\n\
         SRV/d SRV/a/4 none bind,nosymfollow\n\
         SRV/d SRV/a/5 none bind,context=x\n\
         proc SRV/a/proc proc subset=pid\n\
         tmpfs SRV/a/6 tmpfs nosymfollow\n\
         tmpfs SRV/a/7 tmpfs noauto\n",
    );
    let ran = sandbox.ok(&["import", fstab.to_str().unwrap()]);
    let mounts = in_srv(
        &sandbox,
        "etc: [hosts]\nmounts:\n  - { source: SRV/d/sub, target: /1 }\n  \
         - { source: SRV/d, target: /3 }\n",
    );
    assert!(ran.stdout.ends_with(&(mounts + "\n")), "{ran}");
    assert!(!ran.stdout.contains("mkdir"), "{ran}");
    let ran = ran.prints("fstab:4: slave: left out; a manifest has no such options.");
    for (line, option) in [
        (3, "X-mount.idmap=b:0:1000:1"),
        (5, "nosymfollow"),
        (6, "context=x"),
    ] {
        let said = format!("{option}: a manifest cannot express it; not imported");
        let named = |text: &&str| text.contains(&format!("fstab:{line}: ")) && text.contains(&said);
        assert!(ran.stderr.lines().any(|text| named(&text)), "{line}\n{ran}");
    }
    for line in [
        "fstab:7: proc on ",
        "fstab:8: tmpfs on ",
        "fstab:9: tmpfs on ",
    ] {
        assert!(ran.stderr.contains(line), "{line}\n{ran}");
    }
}

fn a_later_line() {
    let sandbox = Sandbox::new();
    root_a(&sandbox);
    let lines = "/etc/hosts SRV/a/etc/hosts none bind,ro\nSRV/d/sub SRV/a/x none bind,ro\n";
    let fstab = write(&sandbox, lines);
    let import = || sandbox.ok(&["import", "--write", fstab.to_str().unwrap()]);
    import();
    let again = import().says("a: exists already, left as it is");
    assert!(!again.stderr.contains("lacks"), "{again}");

    let more = "SRV/d SRV/a/d none bind,ro\n/dev/null SRV/a/dev/null none bind\n\
                /dev/zero SRV/a/dev/zero none bind\ntmpfs SRV/a/tmp tmpfs defaults\n\
                SRV/d SRV/a/x/below none bind,ro\n";
    write(&sandbox, &format!("{lines}{more}"));
    let ran = import()
        .says("a.yaml: it exists already, and lacks ")
        .says("`devices`: null, zero; ")
        .says("`tmpfs`: /tmp")
        .says("a: exists already, left as it is");
    let source = in_srv(&sandbox, "`mounts`: SRV/d on /d; ");
    assert!(ran.stderr.contains(&source), "{ran}");
    assert!(!ran.stderr.contains("hosts"), "{ran}");
}

fn links() {
    let sandbox = Sandbox::new();
    let root = root_a(&sandbox);
    sandbox.directory("srv/a/usr/lib/x");
    std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
    std::os::unix::fs::symlink("a", sandbox.path("srv/link")).unwrap();
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\nSRV/d SRV/a/lib/x none bind,ro\n\
         /etc/services SRV/link/etc/services none bind,ro\n",
    );
    mount_all(&fstab);
    let unit = sandbox.file(
        "x.service",
        in_srv(&sandbox, "[Service]\nRootDirectory=SRV/link\n"),
    );
    let files = [fstab.to_str().unwrap(), unit.to_str().unwrap()];
    sandbox.ok(&["import", "--write", files[0], files[1]]);
    let sites = fs::read_dir(sandbox.config().join("sites")).unwrap();
    let sites: Vec<_> = sites.map(|site| site.unwrap().file_name()).collect();
    assert_eq!(sites.len(), 1, "one root, one site: {sites:?}");
    let site = sites[0].to_str().unwrap().trim_end_matches(".yaml");
    let text = manifest(&sandbox, site);
    for line in [
        "\nroot: SRV/a\n",
        "target: /usr/lib/x }\n",
        "The root SRV/link leads to SRV/a.\n",
    ] {
        assert!(text.contains(&in_srv(&sandbox, line)), "{line}\n{text}");
    }
    sandbox.ok(&["up", site]);
    assert_eq!(mounts_below(&root.join("usr/lib/x")).len(), 1);
}

fn standing_proc() {
    let sandbox = Sandbox::new();
    root_a(&sandbox);
    sandbox.directory("srv/a/proc");
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\nproc SRV/a/proc proc defaults\n",
    );
    mount_all(&fstab);
    sandbox
        .ok(&["import", "--write", fstab.to_str().unwrap()])
        .says("fstab:2: proc on /proc is `proc: true`")
        .says("`mountjail up` replaces what the line mounted");
    sandbox.ok(&["up", "a"]).says("2 swapped");
}

fn hidden() {
    let sandbox = Sandbox::new();
    let root = root_a(&sandbox);
    sandbox.file("srv/a/data/old", "old");
    sandbox.file("srv/a/etc/services", "a copy");
    sandbox.directory("srv/a/free");
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\nSRV/d SRV/a/data none bind,ro\n\
         SRV/d SRV/a/free none bind,ro\n",
    );
    let import = || sandbox.ok(&["import", fstab.to_str().unwrap()]);
    let before = import();
    mount_all(&fstab);
    let after = import();
    assert_eq!(before.stdout, after.stdout, "mounts hide nothing from it");
    let said = in_srv(&sandbox, "fstab:2: SRV/a/data is not empty, ");
    after.prints(&said).prints("`mountjail adopt a`");

    write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\nSRV/d SRV/a/data none bind,ro\n\
         /etc/services SRV/a/etc/services none bind,ro\n",
    );
    import().prints("so it is with 2 mount points in all");
    assert_eq!(fs::read(root.join("etc/services")).unwrap(), b"a copy");
}

/// `mount -a` makes the whole file system read-only for it.
fn remount() {
    let sandbox = Sandbox::new();
    root_a(&sandbox);
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\nSRV/d SRV/a/d none bind\n\
         SRV/d SRV/a/d none remount,ro,noexec\ntmpfs SRV/a/t tmpfs remount,ro\n",
    );
    let ran = sandbox.ok(&["import", fstab.to_str().unwrap()]);
    let mount = in_srv(&sandbox, "  - { source: SRV/d, target: /d }\n");
    assert!(ran.stdout.contains(&mount), "{ran}");
    ran.says("fstab:3: `remount` without `bind` changes the whole file system")
        .says("fstab:4: tmpfs on ");
}

fn parents() {
    let sandbox = Sandbox::new();
    root_a(&sandbox);
    sandbox.directory("srv/other/deep");
    let link = sandbox.path("srv/link");
    std::os::unix::fs::symlink("other/deep", link).unwrap();
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\n\
         SRV/d/../d/sub SRV/a/etc/../1 none bind,ro\n\
         SRV/link/../new SRV/a/2 none bind,ro\n\
         SRV/d SRV/no/../a/3 none bind,ro\n",
    );
    let ran = sandbox.ok(&["import", fstab.to_str().unwrap()]);
    for mount in [
        "{ source: SRV/d/sub, target: /1 }",
        "{ source: SRV/other/new, target: /2, optional: true }",
    ] {
        assert!(ran.stdout.contains(&in_srv(&sandbox, mount)), "{ran}");
    }
    let ran = ran.says("fstab:4: ");
    ran.says(&in_srv(&sandbox, "SRV/no does not exist; ignored"));
}

fn no_bind() {
    let sandbox = Sandbox::new();
    root_a(&sandbox);
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\nSRV/d SRV/a/1 none ro\n\
         SRV/d SRV/a/2 bind defaults\n/dev/sdz9 SRV/a/3 ext4 ro\nSRV/d SRV/a/4 none shared\n",
    );
    let ran = sandbox.ok(&["import", fstab.to_str().unwrap()]);
    for line in 2..=5 {
        let place = format!("fstab:{line}: ");
        let named = ran.stderr.lines().find(|text| text.contains(&place));
        let lacks = named.unwrap().contains("the line lacks the option `bind`");
        assert_eq!(lacks, line < 4, "{ran}");
    }
}

fn in_tmpfs() {
    let sandbox = Sandbox::new();
    let root = root_a(&sandbox);
    sandbox.directory("srv/a/run");
    sandbox.directory("srv/a/tmp");
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\ntmpfs SRV/a/run tmpfs mode=755\n\
         SRV/d SRV/a/run/d none bind,ro,X-mount.mkdir\ntmpfs SRV/a/tmp tmpfs mode=1777\n",
    );
    mount_all(&fstab);
    let first = in_srv(
        &sandbox,
        "mount -o remount,bind,rw,nosuid,nodev,noexec SRV/a/tmp",
    );
    sandbox
        .ok(&["import", "--write", fstab.to_str().unwrap()])
        .says("fstab:2: tmpfs on ")
        .says(&in_srv(
            &sandbox,
            "fstab:3: SRV/d on SRV/a/run/d: it is in the tmpfs of another line",
        ))
        .says(
            "fstab:4: tmpfs on /tmp is `tmpfs`, nosuid, nodev, noexec; if the line has mounted it",
        )
        .says(&format!("give it these options first: `{first}`."));
    Ran::of(Command::new("sh").arg("-c").arg(&first)).exits(0);
    let text = manifest(&sandbox, "a");
    assert!(
        !text.contains("/run") && text.contains("target: /tmp"),
        "{text}"
    );
    sandbox.ok(&["up", "a"]);
    sandbox.ok(&["down", "a"]);
    assert!(root.join("run/d/sub").is_dir(), "their mounts stay");
}

fn orders() {
    let sandbox = Sandbox::new();
    root_a(&sandbox);
    let unit = sandbox.file(
        "srv-a-d.mount",
        in_srv(
            &sandbox,
            "[Unit]\nRequires=b.service c.service\nAfter=b.service\n\
             RequiresMountsFor=/srv\n[Mount]\nWhat=SRV/d\nWhere=SRV/a/d\nOptions=bind,ro\n",
        ),
    );
    let fstab = write(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro\n\
         tmpfs SRV/a/tmp tmpfs x-systemd.after=e.service,mode=1777\n",
    );
    let files = [unit.to_str().unwrap(), fstab.to_str().unwrap()];
    sandbox
        .ok(&["import", files[0], files[1]])
        .prints(
            "srv-a-d.mount:6: x-systemd.requires=b.service, x-systemd.requires=c.service, \
             x-systemd.after=b.service, x-systemd.requires-mounts-for=/srv: a manifest has no",
        )
        .prints("fstab:2: x-systemd.after=e.service: a manifest has no")
        .prints("once the site is up, disable the units");
}
