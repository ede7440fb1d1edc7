//! The lines, into the manifest: the file is replaced as a whole, and only by one that can be
//! resolved.

use crate::base::text::plural;
use crate::engine::edit_file;
use crate::manifest::{self, Addition, Manifest, SourceFile, add_items};
use crate::resolve::Resolver;
use crate::site::context::Context;
use crate::site::pipeline::resolved;
use crate::site::{ManifestError, Site, SiteError, select};
use crate::trace::AdvisedLine;
use crate::{Error, Result};

/// What to do where the manifest is gone.
const IF_ABSENT: &str = "the manifest was removed meanwhile; write it again";

/// Adds `lines` to the manifest of `site`; how many were not there.
pub(super) fn lines(
    context: &Context,
    site: &Site,
    resolver: &Resolver,
    lines: &[AdvisedLine],
) -> Result<bool, SiteError> {
    if lines.is_empty() {
        return Ok(false);
    }
    let additions: Vec<_> = lines.iter().map(|line| line.addition.clone()).collect();
    let mut wrong = None;
    let edited = edit_file(&site.file, &context.editing()?, IF_ABSENT, |old| {
        let new = added(context, site, old, &additions)?;
        match check(context, site, resolver, &new) {
            Ok(()) => Ok(new.into_bytes()),
            Err(failed) => {
                wrong = Some(failed);
                Err(Error::failed(format!(
                    "{}: the lines cannot be added",
                    site.name
                )))
            }
        }
    });
    match (edited, wrong) {
        (Err(_), Some(wrong)) => Err(wrong),
        (Err(error), None) => Err(error.into()),
        (Ok(changed), _) => {
            let what = if changed {
                plural(lines.len(), "line")
            } else {
                "nothing".to_owned()
            };
            context.out.info(format_args!(
                "{}: added {what} to {}",
                site.name,
                site.file.display()
            ));
            Ok(changed)
        }
    }
}

fn added(context: &Context, site: &Site, old: &[u8], additions: &[Addition]) -> Result<String> {
    let by_hand = |why: &dyn std::fmt::Display| {
        Error::failed(format!("cannot add to {}", site.file.display()))
            .because_of(why)
            .hint("add the lines by hand; the file is as it was")
    };
    let text = manifest::decode(&SourceFile::File(site.file.clone()), old.to_vec())
        .map_err(|wrong| by_hand(&wrong.brief()))?;
    let _: Manifest =
        select::load_text(context, site, &text).map_err(|wrong| by_hand(&wrong.brief()))?;
    add_items(&text, additions).map_err(|why| by_hand(&why))
}

/// Whether the manifest that came out can be resolved.
fn check(context: &Context, site: &Site, resolver: &Resolver, text: &str) -> Result<(), SiteError> {
    let manifest = select::load_text(context, site, text)
        .map_err(|wrong: ManifestError| SiteError::Manifest(wrong))?;
    resolved(context, resolver, &manifest).map(drop)
}
