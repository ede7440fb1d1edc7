//! What the presets and the list of sites depend on.

use std::path::Path;
use std::sync::Arc;

use super::index::Dependent;
use super::pass_result::PassResult;
use crate::base::HostPath;
use crate::resolve::{Aspect, Dependencies, Host};
use crate::site::configuration;

/// The files that the configuration in `config` is read from.
pub(crate) fn learned(config: &Path) -> Vec<PassResult> {
    let result_of = |user, directory| PassResult {
        user,
        lookups: vec![Arc::new(yaml_files(&config.join(directory)))],
        root: None,
        ids: vec![],
        record: None,
    };
    vec![
        result_of(Dependent::Presets, "presets"),
        result_of(Dependent::Sites, "sites"),
    ]
}

/// The names in a directory, and the contents of its manifests or presets.
fn yaml_files(directory: &Path) -> Dependencies {
    let host = Host::new().tracked();
    let depend = |path: &Path, interest| {
        if let Ok(path) = HostPath::new(path) {
            host.depend_on(&path, interest);
        }
    };
    depend(directory, Aspect::NAMES);
    for file in configuration::yaml_files(directory).unwrap_or_default() {
        depend(&file, Aspect::CONTENTS);
    }
    host.into_dependencies()
}
