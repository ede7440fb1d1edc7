//! Why a path is in a jail.

use super::desired::{Desired, Link, Mount};
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

    let mut innermost_first = desired.mounts.iter().rev();
    let mount = innermost_first.find(|mount| at.starts_with(&mount.target));
    Explanation {
        link: first,
        leads_to: at,
        mount: mount.map(|mount| &**mount),
    }
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
