//! Why a path is in a jail.

use super::desired::{Desired, Link, Mount, OwnDirectory};
use crate::base::{JailPath, MAX_LINKS, lexical};

/// What brings a path into a jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explanation<'d> {
    /// The first link that the path goes through or is.
    pub link: Option<&'d Link>,
    /// The path with the links of the jail followed.
    pub leads_to: JailPath,
    /// The mount that shows it.
    pub mount: Option<&'d Mount>,
    /// The directory of the site's own that it is.
    pub directory: Option<&'d OwnDirectory>,
}

/// What of `desired` brings `path`.
pub(crate) fn why<'d>(desired: &'d Desired, path: &JailPath) -> Explanation<'d> {
    let mut at = path.clone();
    let mut first = None;
    for _ in 0..MAX_LINKS {
        let Some(link) = link_on_the_way(desired, &at) else {
            break;
        };
        first = first.or(Some(link));
        match through(link, &at) {
            Some(next) if next != at => at = next,
            _ => break,
        }
    }

    let mount = mount_at(desired, &at);
    let directory = desired
        .directories
        .iter()
        .find(|directory| directory.path == at);
    Explanation {
        link: first,
        leads_to: at,
        mount,
        directory,
    }
}

/// The mount that shows `path`, on the way to which is no link.
pub(super) fn mount_at<'d>(desired: &'d Desired, path: &JailPath) -> Option<&'d Mount> {
    let above = desired
        .mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.target));
    let innermost = above.max_by_key(|mount| mount.target.as_path().components().count());
    innermost.map(|mount| &**mount)
}

/// The outermost link that `path` goes through or is.
fn link_on_the_way<'d>(desired: &'d Desired, path: &JailPath) -> Option<&'d Link> {
    desired
        .links
        .iter()
        .find(|link| path.starts_with(&link.path))
}

/// `path`, which goes through `link`, with it followed.
fn through(link: &Link, path: &JailPath) -> Option<JailPath> {
    let directory = link.path.parent()?;
    let to = lexical(directory.as_path(), &link.destination);
    JailPath::new(to.join(path.below(&link.path)?)).ok()
}
