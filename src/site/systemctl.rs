//! systemctl(1), where systemd is the system manager.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// Whether this machine was booted with systemd: `sd_booted(3)`.
pub(crate) fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether this is a container that systemd manages: systemd writes the kind of container there.
pub(crate) fn in_container() -> bool {
    Path::new("/run/systemd/container").exists()
}

/// The properties `names` of a unit, as systemctl(1) shows them; empty if it cannot be asked.
pub(crate) fn properties(unit: &str, names: &[&str]) -> BTreeMap<String, String> {
    let output = Command::new("systemctl")
        .args(["show", "--property", &names.join(","), "--", unit])
        .stdin(Stdio::null())
        .output();
    let text = output.map_or_else(|_| vec![], |output| output.stdout);
    let mut properties = BTreeMap::new();
    for line in String::from_utf8_lossy(&text).lines() {
        if let Some((name, value)) = line.split_once('=') {
            properties.insert(name.to_owned(), value.to_owned());
        }
    }
    properties
}

/// Runs systemctl with these arguments; an error quotes its messages.
pub(crate) fn systemctl(arguments: &[&str]) -> Result<()> {
    let failed = || Error::failed(format!("`systemctl {}` failed", arguments.join(" ")));
    let output = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed().because(&error).hint("this needs systemd"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.trim();
    Err(if complaint.is_empty() {
        failed().because_of(output.status)
    } else {
        failed().because_of(complaint.replace('\n', "; "))
    })
}
