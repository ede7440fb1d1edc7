//! Adds the advised lines to a manifest. The file is replaced as a whole, and only by one that can
//! be resolved.

use std::fmt::Display;

use crate::base::text::plural;
use crate::engine::edit_file;
use crate::manifest::{self, Addition, SourceFile, add_items};
use crate::site::pipeline::Pipeline;
use crate::site::{Site, SiteError, load};
use crate::trace::AdvisedLine;
use crate::{Error, Result};

/// The remedy where the manifest is gone.
const IF_ABSENT: &str = "the manifest was removed meanwhile; write it again";

/// Adds `lines` to the manifest of `site`; returns whether the file was changed.
pub(super) fn lines(
    pipeline: &Pipeline,
    site: &Site,
    lines: &[AdvisedLine],
) -> Result<bool, SiteError> {
    if lines.is_empty() {
        return Ok(false);
    }
    let additions: Vec<_> = lines.iter().map(|line| line.addition.clone()).collect();
    let context = &pipeline.context;
    let mut unresolved = None;
    let edited = edit_file(&site.file, &context.lock_edits()?, IF_ABSENT, |old| {
        let new = added(pipeline, site, old, &additions)?;
        if let Err(failed) = check(pipeline, site, &new) {
            unresolved = Some(failed);
            let name = &site.name;
            return Err(Error::failed(format!("{name}: the lines cannot be added")));
        }
        Ok(new.into_bytes())
    });
    if let Some(failed) = unresolved {
        return Err(failed);
    }

    let changed = edited?;
    let what = if changed {
        plural(lines.len(), "line")
    } else {
        "nothing".to_owned()
    };
    let file = site.file.display();
    context
        .out
        .site(&site.name)
        .info(format_args!("added {what} to {file}"));
    Ok(changed)
}

/// The text of the manifest with the additions.
fn added(pipeline: &Pipeline, site: &Site, old: &[u8], additions: &[Addition]) -> Result<String> {
    let by_hand = |why: &dyn Display| {
        Error::failed(format!("cannot add to {}", site.file.display()))
            .because_of(why)
            .hint("add the lines by hand; the file is as it was")
    };
    let text = manifest::decode(&SourceFile::File(site.file.clone()), old.to_vec())
        .map_err(|mistakes| by_hand(&mistakes.brief()))?;
    load::manifest_from(&pipeline.context, site, &text).map_err(|error| by_hand(&error))?;
    add_items(&text, additions, site.instance()).map_err(|why| by_hand(&why))
}

/// Refuses a manifest that cannot be resolved.
fn check(pipeline: &Pipeline, site: &Site, text: &str) -> Result<(), SiteError> {
    let manifest = load::manifest_from(&pipeline.context, site, text)?;
    pipeline.resolve(&manifest)?;
    Ok(())
}
