//! The names of what is in the directory of the templates.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::SiteName;

/// The file that the mount namespace of the templates is mounted on, to pin it.
pub(crate) fn pin(directory: &Path) -> PathBuf {
    directory.join("ns")
}

/// The link whose destination is the template with these contents.
pub(crate) fn template_with(directory: &Path, contents: &str) -> PathBuf {
    directory.join(format!("{contents}.is"))
}

/// The contents with which the template is found.
pub(super) fn contents_of(directory: &Path, template: &SiteName) -> Option<String> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let name = entry.file_name();
        if let Some(contents) = name.to_str().and_then(|name| name.strip_suffix(".is"))
            && fs::read_link(entry.path()).is_ok_and(|found| found == Path::new(template.as_str()))
        {
            return Some(contents.to_owned());
        }
    }
    None
}

/// All templates, also those that are not complete.
pub(crate) fn templates_in(directory: &Path) -> BTreeSet<SiteName> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut templates = BTreeSet::new();
    for entry in entries {
        templates.extend(template_of(&entry.file_name()));
    }
    templates
}

/// The template that something of this name belongs to.
fn template_of(name: &OsStr) -> Option<SiteName> {
    let name = name.to_str()?.split('.').next()?;
    if !name.starts_with("template-") {
        return None;
    }
    SiteName::new(name).ok()
}
