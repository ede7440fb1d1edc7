//! Promise: what is printed for programs is one object with a version, as its schema says; what
//! fails is an object.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{Sandbox, trials};
use libtest_mimic::Trial;
use mountjail::cli::OUTPUTS;
use serde_json::json;

pub fn all() -> Vec<Trial> {
    trials([
        ("every output for programs has a version", versions),
        ("every command that prints JSON has a schema", schemas),
        ("errors are objects", errors),
        ("every error is in the object", all_errors),
        ("wrong usage is in the object", usage),
    ])
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
        (&["why", "s", "/nothing"], 1),
        (&["plan", "a/b/c"], 1),
        (&["apply", "/nowhere.yaml"], 1),
        (&["remove", "absent"], 2),
        (&["fstab", "--file", "/nowhere", "--check", "s"], 1),
        (&["fstab", "--root", "/nowhere", "s"], 1),
        (&["doctor", "absent"], 2),
        (&["trace", "absent", "--pid", "1"], 2),
    ];
    for (arguments, code) in commands {
        let mut all = arguments.to_vec();
        all.push("--json");
        let ran = sandbox.run(&all).exits(*code);
        assert_eq!(ran.json()["version"], 1, "{ran}");
    }
    sandbox.file("config/presets/broken.yaml", "etc: 1\n");
    let ran = sandbox.run(&["presets", "broken", "--json"]).exits(2);
    assert_eq!(ran.json()["errors"][1]["key"], "etc", "{ran}");
    let ran = sandbox.run(&["status", "--format", "json", "--config-dir", "/nowhere"]);
    assert!(ran.exits(1).json()["errors"][0]["reason"].is_string());
    let below = sandbox.ok(&["why", "s", "/etc", "--json"]).json();
    assert_eq!(below["below"][0]["paths"][0], "/etc/hosts", "{below:#}");
}

/// The commands with `--json` are those with a schema, which `schema` prints.
fn schemas() {
    let sandbox = Sandbox::new();
    let has_json = |command: &&clap::Command| {
        let mut arguments = command.get_arguments();
        arguments.any(|argument| argument.get_long() == Some("json"))
    };
    let program = mountjail::cli::command();
    let commands = program.get_subcommands().filter(has_json);
    let commands: BTreeSet<_> = commands.map(clap::Command::get_name).collect();
    let known: BTreeSet<_> = OUTPUTS.iter().map(|output| output.command).collect();
    assert_eq!(commands, known);
    for name in known {
        let schema = sandbox.ok(&["schema", "--output", name]).json();
        assert_eq!(schema["properties"]["version"]["const"], 1);
    }
    let refused = sandbox.run(&["schema", "--output", "exec"]).exits(2);
    let _ = refused.says("exec prints no JSON");
}

/// Each error that is reported on the standard error is also in the object.
fn all_errors() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts]\nservices: [no-such.service]\n");
    let ran = sandbox.run(&["up", "--restart", "--json", "s"]).exits(1);
    let json = ran.says("no-such.service was not reloaded").json();
    let reason = json["errors"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("no-such.service was not"), "{json:#}");
    assert_eq!(json["sites"][0]["up"], true, "{json:#}");

    let nothing = sandbox.file("nothing", "of any format\n");
    let pools = format!(
        "[p]\nuser = games\nlisten = /p.sock\nchroot = {}\n",
        sandbox.directory("srv/p").display()
    );
    let pools = sandbox.file("pools.conf", pools);
    let (nothing, pools) = (nothing.to_str().unwrap(), pools.to_str().unwrap());
    for (files, sites) in [(vec![nothing], None), (vec![nothing, pools], Some(1))] {
        let arguments = [vec!["import", "--json"], files].concat();
        let json = sandbox.run(&arguments).exits(1).json();
        let reason = json["errors"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("is not in a format"), "{json:#}");
        assert_eq!(json["sites"].as_array().map(Vec::len), sites, "{json:#}");
    }

    sandbox.manifest("s", format!("root: {}\nrot: 1\n", root.display()));
    let why = sandbox.run(&["why", "--json", "s", "/etc/hosts"]).exits(2);
    let json = why.says("unknown key `rot`").json();
    assert_eq!(json["errors"][0]["code"], "manifest", "{json:#}");
    assert_eq!(json["errors"][0]["site"], "s", "{json:#}");

    let config = sandbox.config();
    fs::rename(&config, sandbox.path("aside")).unwrap();
    let json = sandbox.run(&["doctor", "--json"]).json();
    let reason = json["errors"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(config.to_str().unwrap()), "{json:#}");
}

fn usage() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["up", "--json"][..],
        &["up", "-x", "--json"],
        &["--json", "nothing"],
        &["trace", "--json", "s", "--nothing"],
        &["status", "--format=json", "--nothing"],
        &["status", "--nothing", "--format", "json"],
    ] {
        let ran = sandbox.run(arguments).exits(2).says("--help");
        let json = ran.json();
        assert_eq!(json["errors"][0]["code"], "usage", "{json:#}");
        let reason = json["errors"][0]["reason"].as_str().unwrap();
        assert!(ran.stderr.starts_with(&format!("error: {reason}")), "{ran}");
    }
    for arguments in [&["up", "-x"][..], &["exec", "-x", "--", "ls", "--json"]] {
        let ran = sandbox.run(arguments).exits(2);
        assert_eq!(ran.stdout, "");
    }
}

fn errors() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts]\n");
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/hosts"), "the site's own").unwrap();
    let at = root.join("etc/hosts");
    let conflict = |ran: &serde_json::Value| {
        assert_eq!(ran["code"], "conflict", "{ran:#}");
        assert_eq!((&ran["site"], &ran["path"]), (&json!("s"), &json!(at)));
        assert!(
            ran["reason"].as_str().unwrap().starts_with("s: "),
            "{ran:#}"
        );
        assert!(
            ran["remedy"].as_str().unwrap().contains("mountjail adopt"),
            "{ran:#}"
        );
    };
    conflict(&sandbox.run(&["up", "--json", "s"]).exits(1).json()["sites"][0]["errors"][0]);
    conflict(&sandbox.run(&["plan", "--json", "s"]).exits(1).json()["sites"][0]["conflicts"][0]);

    let file = sandbox.manifest("s", "root: /srv/s\nmount: [/a]\n");
    let ran = sandbox.run(&["check", "--json", "s"]).exits(2).json();
    let mistake = &ran["sites"][0]["errors"][0];
    assert_eq!(mistake["code"], "manifest", "{mistake:#}");
    assert_eq!(
        (&mistake["path"], &mistake["line"]),
        (&json!(file), &json!(2))
    );
    assert!(
        mistake["remedy"].as_str().unwrap().contains("mounts"),
        "{mistake:#}"
    );

    let ran = sandbox.run(&["up", "--json", "t"]).exits(2).json();
    assert_eq!(
        ran["sites"][0]["errors"][0]["code"], "no-such-site",
        "{ran:#}"
    );
    let ran = sandbox.run(&["up", "--json", "a b"]).exits(2).json();
    assert_eq!(ran["errors"][0]["code"], "usage", "{ran:#}");
}
