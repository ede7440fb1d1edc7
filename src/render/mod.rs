//! Desired or Plan → text, JSON, metrics, fstab(5): pure.

pub mod fstab;
pub mod json;
pub mod prometheus;
pub mod systemd;
pub mod text;

use crate::base::JailPath;
use crate::resolve::{Desired, Link, Mount};

/// What brought a path into a jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyAnswer<'d> {
    /// The links that the path goes through or is.
    pub link: Option<&'d Link>,
    /// The path with the links of the jail followed.
    pub leads_to: JailPath,
    /// The mount that shows it.
    pub mount: Option<&'d Mount>,
}

/// What of `desired` brings `path`.
pub fn why<'d>(desired: &'d Desired, path: &JailPath) -> WhyAnswer<'d> {
    let mut at = path.clone();
    let mut first = None;
    for _ in 0..40 {
        let mut way = at.ancestors();
        way.push(at.clone());
        let Some(link) = desired.links.iter().find(|link| way.contains(&link.path)) else {
            break;
        };
        first = first.or(Some(link));
        match through(link, &at) {
            Some(next) if next != at => at = next,
            _ => break,
        }
    }
    let covering = desired
        .mounts
        .iter()
        .rev()
        .find(|mount| at.starts_with(&mount.target));
    WhyAnswer {
        link: first,
        leads_to: at,
        mount: covering.map(|mount| &**mount),
    }
}

/// `path`, which goes through `link`, with it followed.
fn through(link: &Link, path: &JailPath) -> Option<JailPath> {
    use std::path::Component;
    let mut to = if link.text.is_absolute() {
        "/".into()
    } else {
        link.path.as_path().parent()?.to_owned()
    };
    for component in link.text.components() {
        match component {
            Component::ParentDir => drop(to.pop()),
            Component::Normal(name) => to.push(name),
            _ => {}
        }
    }
    to.push(path.below(&link.path)?);
    JailPath::new(to).ok()
}
