//! The report of `doctor` on the machine, without a site.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::Serialize;
use serde_json::json;

use crate::Result;
use crate::base::HostPath;
use crate::base::text::plural;
use crate::doctor::Machine;
use crate::render;
use crate::site::Site;

/// The machine, and how much of it is configured.
pub(super) struct MachineReport<'c> {
    pub machine: Machine,
    /// The configuration's directory.
    pub config: &'c Path,
    /// The sites of the configuration.
    pub sites: Result<Vec<Site>>,
    pub unserved: Vec<UnservedPool>,
    /// The cost of the sites' mounts in the host's table.
    pub cost: Option<String>,
    /// The units that may wait at their start, because a trace was killed, each with the drop-in.
    pub waiting: Vec<(String, PathBuf)>,
}

/// A pool of PHP-FPM whose chroot is not the root of a site.
#[derive(PartialEq, Eq, Serialize)]
pub(super) struct UnservedPool {
    pub pool: String,
    pub root: HostPath,
}

impl MachineReport<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = format!("kernel: {}\n", self.machine.kernel);
        self.add_calls(&mut text);
        if let Ok(engine) = self.machine.engine {
            let _ = writeln!(text, "engine: {engine}");
        }
        let _ = writeln!(text, "mounts: {}", self.room());
        let _ = match &self.sites {
            Ok(sites) => {
                let sites = plural(sites.len(), "site");
                writeln!(text, "configuration: {}, {sites}", self.config.display())
            }
            Err(error) => writeln!(text, "configuration: {error}"),
        };
        if let Some(cost) = &self.cost {
            let _ = writeln!(text, "{cost}");
        }
        for (unit, drop_in) in &self.waiting {
            let files = drop_in.with_extension("*");
            let _ = writeln!(
                text,
                "{unit} may wait at its start, because `mountjail trace --start` was killed: \
                 `rm {} && systemctl daemon-reload && systemctl restart {unit}`",
                files.display()
            );
        }
        for UnservedPool { pool, root } in &self.unserved {
            let _ = writeln!(
                text,
                "no site for the pool {pool} in {root}: `mountjail import` makes one"
            );
        }
        text
    }

    /// The system calls that it uses, and whether the kernel has them.
    fn add_calls(&self, text: &mut String) {
        for call in self.machine.calls() {
            let is_there = match known(call.is_there) {
                None => "?",
                Some(true) => "yes",
                Some(false) => "no",
            };
            let _ = writeln!(text, "  {is_there:<3} {:<18}  {}", call.name, call.used_for);
        }
        if !geteuid().is_root() {
            text.push_str("  (?: only root can tell)\n");
        }
    }

    /// How many mounts there are, and how many there may be.
    fn room(&self) -> String {
        let mounts = self.machine.mounts;
        let Some(most) = self.machine.mount_max else {
            return mounts.to_string();
        };
        let advice = if self.machine.is_full() {
            "; little room is left: `sysctl fs.mount-max=200000`"
        } else {
            ""
        };
        format!("{mounts} of {most} (fs.mount-max){advice}")
    }

    pub(super) fn json(&self) -> String {
        let mut calls = serde_json::Map::new();
        for call in self.machine.calls() {
            calls.insert(call.name.to_owned(), json!(known(call.is_there)));
        }
        let sites = match &self.sites {
            Ok(sites) => Some(sites.iter().map(|site| &site.name).collect::<Vec<_>>()),
            Err(_) => None,
        };
        let mut errors = vec![];
        for error in [
            self.machine.engine.as_ref().err(),
            self.sites.as_ref().err(),
        ] {
            errors.extend(error.map(|error| render::json::error(None, error)));
        }
        let mut object = json!({
            "kernel": self.machine.kernel,
            "calls": calls,
            "engine": self.machine.engine.as_ref().ok(),
            "mounts": self.machine.mounts,
            "mount_max": self.machine.mount_max,
            "config_dir": self.config,
            "sites": sites,
            "pools_without_site": self.unserved,
            "waiting_units": self.waiting.iter().map(|(unit, _)| unit).collect::<Vec<_>>(),
        });
        if !errors.is_empty() {
            object["errors"] = json!(errors);
        }
        render::json::document(object)
    }
}

/// Whether the kernel has a system call; `None`: unknown, because some are refused to unprivileged
/// users as if they did not exist.
fn known(is_there: bool) -> Option<bool> {
    (is_there || geteuid().is_root()).then_some(is_there)
}
