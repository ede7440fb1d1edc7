//! The dependencies of the presets and of the list of sites.

use std::path::Path;
use std::sync::Arc;

use super::index::Dependent;
use super::pass_result::PassResult;
use crate::base::HostPath;
use crate::resolve::{Aspect, Dependencies, Host};
use crate::site::{configuration, instances};
use crate::{manifest, patience};

/// The files that the configuration in `config` is read from.
pub(super) fn learned(config: &Path) -> Vec<PassResult> {
    let presets = yaml_files(&config.join("presets"));
    add_yaml_files(&presets, Path::new(configuration::VENDOR_PRESETS));
    let defaults = configuration::defaults_file(config);
    depend_on(&presets, &defaults, Aspect::CONTENTS);

    let directory = config.join("sites");
    let mut sites = of_templates(&directory);
    sites.push(yaml_files(&directory).into_dependencies());
    vec![
        result_of(Dependent::Presets, vec![presets.into_dependencies()]),
        result_of(Dependent::Sites, sites),
    ]
}

fn result_of(user: Dependent, lookups: Vec<Dependencies>) -> PassResult {
    PassResult {
        user,
        is_up: false,
        lookups: lookups.into_iter().map(Arc::new).collect(),
        root: None,
        ids: vec![],
        record: None,
    }
}

/// The dependencies of the lists of instances. Directories that do not answer are left out.
fn of_templates(directory: &Path) -> Vec<Dependencies> {
    let mut paths = vec![];
    for file in configuration::yaml_files(directory).unwrap_or_default() {
        if manifest::template_name(&file).is_some() {
            paths.extend(instances::watched(&file));
        }
    }
    let answers = patience::each_within(paths, Some(patience::SHORT), names_in);
    answers.into_iter().flatten().collect()
}

/// The names in a directory.
fn names_in(directory: &HostPath) -> Dependencies {
    let host = Host::new().tracked();
    host.depend_on(directory, Aspect::NAMES);
    host.into_dependencies()
}

/// The names in a directory, and the contents of its manifests or presets.
fn yaml_files(directory: &Path) -> Host {
    let host = Host::new().tracked();
    add_yaml_files(&host, directory);
    host
}

fn add_yaml_files(host: &Host, directory: &Path) {
    depend_on(host, directory, Aspect::NAMES);
    for file in configuration::yaml_files(directory).unwrap_or_default() {
        depend_on(host, &file, Aspect::CONTENTS);
    }
}

fn depend_on(host: &Host, path: &Path, aspect: Aspect) {
    if let Ok(path) = HostPath::new(path) {
        host.depend_on(&path, aspect);
    }
}
