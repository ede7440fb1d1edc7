//! Promise: what is printed for programs is one object with a version.

use crate::support::{Sandbox, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    trials([("every output for programs has a version", versions)])
}

fn versions() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "etc: [hosts]\n");
    let pools = format!(
        "[p]\nuser = games\nlisten = /p.sock\nchroot = {}\n",
        sandbox.directory("srv/p").display()
    );
    let pools = sandbox.file("pools.conf", pools);
    let (fstab, units) = (sandbox.file("fstab", ""), sandbox.directory("units"));
    let (fstab, units) = (fstab.to_str().unwrap(), units.to_str().unwrap());
    let commands: &[(&[&str], i32)] = &[
        (&["plan", "s"], 3),
        (&["adopt", "s"], 0),
        (&["up", "s"], 0),
        (&["up", "--dry-run", "s"], 0),
        (&["status"], 0),
        (&["check", "s"], 0),
        (&["presets"], 0),
        (&["presets", "dns"], 0),
        (&["why", "s", "/etc/hosts"], 0),
        (&["why", "s", "/etc"], 0),
        (&["doctor"], 0),
        (&["fstab", "s"], 0),
        (&["fstab", "--file", fstab, "--check", "s"], 3),
        (&["units", "--dir", units, "--check", "--all"], 0),
        (&["import", pools.to_str().unwrap()], 0),
        (&["adopt", "--undo", "s"], 0),
        (&["down", "s"], 0),
        (&["status", "absent"], 2),
    ];
    for (arguments, code) in commands {
        let mut all = arguments.to_vec();
        all.push("--json");
        let ran = sandbox.run(&all).exits(*code);
        if *code != 2 {
            assert_eq!(ran.json()["version"], 1, "{ran}");
        }
    }
    let below = sandbox.ok(&["why", "s", "/etc", "--json"]).json();
    assert_eq!(below["below"][0]["paths"][0], "/etc/hosts", "{below:#}");
}
