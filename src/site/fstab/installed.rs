//! Whether the lines that a site has in fstab(5) are still those of its manifest.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{FstabRun, Site, block};
use crate::base::HostPath;
use crate::base::quote::shell_path;
use crate::render::fstab::FSTAB;
use crate::site::Context;

/// What to report about the lines of `site` in `file`, which its record names: they mount something
/// else at the next boot than `up` does now. `None`: they are as they should be, or it is unknown
/// what they should be.
pub(crate) fn outdated(context: &Context, site: &Site, file: &HostPath) -> Option<String> {
    let text = fs::read(file.as_path()).ok()?;
    let block = block(file.as_path(), &text).ok()?;
    let run = FstabRun::new(context, std::slice::from_ref(site)).ok()?;
    let wanted = run.lines(site).ok()?;
    if mounts(block.get(&site.name)?) == mounts(&wanted.section) {
        return None;
    }
    let option = if file.as_path() == Path::new(FSTAB) {
        String::new()
    } else {
        format!(" --file {}", shell_path(file.as_path()))
    };
    Some(format!(
        "the lines in {file} are not those of the manifest any more, and mount something else at \
         the next boot: `mountjail fstab --install{option} {}`",
        site.name
    ))
}

/// What the lines of `text` mount: their fields, without the order in which systemd mounts them.
fn mounts(text: &[u8]) -> BTreeSet<Vec<String>> {
    let mut mounts = BTreeSet::new();
    for line in String::from_utf8_lossy(text).lines() {
        if line.starts_with('#') {
            continue;
        }
        let mut fields: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        if let Some(options) = fields.get_mut(3) {
            let kept = options.split(',');
            let kept: Vec<_> = kept.filter(|option| !option.starts_with("x-")).collect();
            *options = kept.join(",");
        }
        if !fields.is_empty() {
            mounts.insert(fields);
        }
    }
    mounts
}
