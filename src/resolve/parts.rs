//! The items of some entries → mounts and links for all roots that are alike.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::desired::{Link, Mount, Note, Reason};
use super::expand::Expansion;
use super::host::Host;
use super::layout::Layout;
use super::own::Own;
use super::{dedup, jail_links, nested, parents, restrictions};
use crate::Error;
use crate::manifest::Origin;

/// The same for every root that has the same of its own in the place of the host's links.
#[derive(Debug, Default)]
pub(super) struct SharedParts {
    pub mounts: Vec<Arc<Mount>>,
    pub links: Vec<Link>,
    /// Restrictions of the host, and changes that it cannot make while the site is up.
    pub notes: Vec<Note>,
}

/// What roots with `own` need: the items of `expansions`, and those of `top_links` that lead to
/// them.
///
/// Errors: everything that contradicts something else, or that cannot be mounted.
pub(super) fn build(
    host: &Host,
    own: &[Own],
    expansions: &[(Arc<Origin>, Arc<Expansion>)],
    top_links: &BTreeMap<PathBuf, Link>,
) -> Result<SharedParts, Vec<Error>> {
    let mut layout = Layout::new(host, own);
    let mut items = vec![];
    for (origin, expansion) in expansions {
        items.extend(expansion.items.iter().map(|item| (origin, item)));
    }

    // First all links on the way, because a target of one item can be behind a link of another.
    let mut targets = vec![];
    for (origin, item) in &items {
        targets.push(jail_links::add_way(&mut layout, origin, item));
    }
    for ((origin, item), target) in items.into_iter().zip(targets) {
        let target = jail_links::follow_links_above(&layout, target);
        let reason = Reason::chain(origin, item.chain.clone());
        layout.add(target, &item.requested_at(origin), reason);
    }
    for link in top_links.values() {
        jail_links::add_top_link(&mut layout, link);
    }

    // Restrictions are found before mounts are dropped, and reported for those that remain.
    let restrictions = restrictions::find(&layout);
    dedup::dedup(&mut layout);
    jail_links::keep_links(&mut layout);
    jail_links::drop_covered(&mut layout);
    parents::check(&mut layout);

    let mut notes = restrictions::notes(&layout, restrictions);
    notes.extend(nested::notes(&layout));
    let (mounts, links) = layout.finish()?;
    Ok(SharedParts {
        mounts,
        links,
        notes,
    })
}
