//! Processes in the roots of sites, and the services that they belong to.

use std::path::PathBuf;
use std::sync::Arc;

use super::Context;
use super::systemctl::systemctl;
use crate::base::HostPath;
use crate::observe::{self, Process};
use crate::resolve::{Desired, Mount};
use crate::{Result, patience, sys};

/// A root, and the mounts in it.
type RootMounts = (HostPath, Vec<Arc<Mount>>);

/// The processes inside the roots of `sites` whose mount namespace did not receive the mounts, each
/// with the number of its site. None, if a file system does not answer.
pub(crate) fn without_mounts(context: &Context, sites: &[&Desired]) -> Vec<(usize, Process)> {
    if sites.is_empty() {
        return vec![];
    }
    let mut roots: Vec<RootMounts> = vec![];
    for desired in sites {
        roots.push((desired.root.clone(), desired.mounts.clone()));
    }
    let look = |roots: &Vec<RootMounts>| {
        let mut mounts_at = vec![];
        for (root, mounts) in roots {
            mounts_at.push((root, mounts.as_slice()));
        }
        observe::without_mounts(&mounts_at)
    };
    let mut answers = patience::each_within(vec![roots], context.limit, look);
    answers.pop().flatten().unwrap_or_default()
}

/// The processes in each of the roots, each with the number of its root. None, if one cannot be
/// looked at.
pub(crate) fn inside_each(context: &Context, roots: Vec<PathBuf>) -> Vec<(usize, Process)> {
    let look = |roots: &Vec<PathBuf>| {
        let mut known = vec![];
        for root in roots {
            known.push(sys::file_known_at(root).ok()?);
        }
        Some(observe::inside_each(&known))
    };
    let mut answers = patience::each_within(vec![roots], context.limit, look);
    answers.pop().flatten().flatten().unwrap_or_default()
}

/// Reloads the service if it runs, or restarts it if it cannot reload; returns systemd's word for
/// that.
pub(crate) fn reload(service: &str) -> Result<&'static str> {
    let verb = "try-reload-or-restart";
    systemctl(&[verb, service]).map(|()| verb)
}

/// Restarts the service if it runs; returns systemd's word for that.
pub(crate) fn restart(service: &str) -> Result<&'static str> {
    let verb = "try-restart";
    systemctl(&[verb, service]).map(|()| verb)
}
