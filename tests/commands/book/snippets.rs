//! What the guide for fleets gives to other programs is what these read, and the manifests in it
//! work.

use std::fs;
use std::process::Command;

use serde_yaml::Value;

use super::{read, top};
use crate::support::{Ran, Sandbox};

/// The block of the guide that begins so.
fn block(beginning: &str) -> String {
    let guide = read(&top().join("docs/guide/fleet.md"));
    let mut blocks = guide.split("```text\n");
    let block = blocks.find(|text| text.starts_with(beginning));
    let block = block.unwrap_or_else(|| panic!("no block begins with {beginning}"));
    block.split("```\n").next().unwrap().to_owned()
}

/// What cloud-init writes is a manifest.
pub fn for_cloud_init() {
    let data: Value = serde_yaml::from_str(&block("#cloud-config")).unwrap();
    for key in ["packages", "write_files", "runcmd"] {
        assert!(data[key].is_sequence(), "{key}");
    }
    let file = &data["write_files"][0];
    assert_eq!(file["path"], "/etc/mountjail/sites/site1.yaml");
    let sandbox = Sandbox::new();
    let given = sandbox.file("site1.yaml", file["content"].as_str().unwrap());
    let given = given.to_str().unwrap();
    let _ = sandbox
        .run(&["apply", "--dry-run", "--create", given])
        .exits(3);
}

/// A program in the store runs in the site.
pub fn for_nixos() {
    let sandbox = Sandbox::new();
    let text = block("{ pkgs, ... }:");
    let file = sandbox.file("mountjail.nix", &text);
    let parsed = Ran::of(Command::new("nix-instantiate").arg("--parse").arg(file));
    let _ = parsed.exits(0).prints("mountjail/sites/site1.yaml");

    Ran::of(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/nix"])).exits(0);
    fs::create_dir_all("/nix/store/busybox/bin").unwrap();
    let busybox = "/nix/store/busybox/bin/busybox";
    fs::copy("/bin/busybox", busybox).unwrap();
    let manifest = text.split(".text = ''\n").nth(1).unwrap();
    let manifest = manifest.split("'';").next().unwrap().replace("    ", "");
    let root = sandbox.directory("srv/site1");
    let manifest = manifest.replace("/srv/www/site1", root.to_str().unwrap());
    sandbox.manifest("site1", manifest);
    sandbox.ok(&["up", "site1"]);
    let run = [
        "exec", "--user", "root", "site1", "--", busybox, "echo", "inside",
    ];
    let _ = sandbox.ok(&run).prints("inside");
    sandbox.ok(&["down", "site1"]);
}
