//! On what the presets and the list of sites depend.

use std::path::Path;
use std::sync::Arc;

use super::index::User;
use super::pass_result::Learned;
use crate::base::HostPath;
use crate::resolve::{Host, Interest, Lookups};
use crate::site::configuration;

/// What the configuration in `config` is read from.
pub(crate) fn learned(config: &Path) -> Vec<Learned> {
    let learned = |user, directory| Learned {
        user,
        lookups: vec![Arc::new(yaml_files(&config.join(directory)))],
        root: None,
        ids: vec![],
        record: None,
    };
    vec![
        learned(User::Presets, "presets"),
        learned(User::Sites, "sites"),
    ]
}

/// The names in a directory, and what its manifests or presets say.
fn yaml_files(directory: &Path) -> Lookups {
    let host = Host::new().recording();
    let depend = |path: &Path, interest| {
        if let Ok(path) = HostPath::new(path) {
            host.depend_on(&path, interest);
        }
    };
    depend(directory, Interest::NAMES);
    for file in configuration::yaml_files(directory).unwrap_or_default() {
        depend(&file, Interest::CONTENTS);
    }
    host.into_lookups()
}
