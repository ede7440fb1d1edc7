//! The things that were found in the way, as the other rooms see them.

use std::fmt;

use serde::Serialize;

use super::tree::Tree;
use crate::base::{HostPath, JailPath, SiteName};
use crate::resolve::FileKind;

/// The things in a root where mounts belong.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    pub site: SiteName,
    pub root: HostPath,
    /// The things in the way, by path.
    pub standing: Vec<Standing>,
    /// Device nodes where devices are mounted. They serve to mount on, and stay.
    pub nodes: Vec<JailPath>,
}

/// One thing in the way.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub path: JailPath,
    pub kind: FileKind,
    pub class: Class,
    /// How many files it is: of a directory all those in it.
    pub files: usize,
    /// Its parts that are the site's own, or cannot be moved.
    pub own: Vec<OwnThing>,
    /// A remark for the administrator.
    pub note: Option<String>,
    /// The files that were looked at.
    pub tree: Tree,
}

/// The class of a file in the way; a directory has that of the worst file in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    /// The host's file itself, by another name.
    HardLink,
    /// It has the same contents as the host's file.
    Same,
    /// It is another version of what the host has at this path.
    OldCopy,
    /// Anything else.
    Own,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HardLink => "hard link",
            Self::Same => "the same",
            Self::OldCopy => "old copy",
            Self::Own => "the site's own",
        })
    }
}

/// Something of the site's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnThing {
    pub path: JailPath,
    /// A clause: `it differs from the host's`.
    pub why: String,
    /// Whether it can be moved at all.
    pub movable: bool,
}

impl Survey {
    /// Things that are the site's own and not in `also`, at or below a path there, and things that
    /// cannot be moved.
    pub(crate) fn refused(&self, also: &[JailPath]) -> Vec<&OwnThing> {
        let own = self.standing.iter().flat_map(|standing| &standing.own);
        own.filter(|own| !own.movable || !is_named(own, also))
            .collect()
    }
}

impl Standing {
    /// Whether it may be moved, if the paths of `also` are named.
    pub(crate) fn goes(&self, also: &[JailPath]) -> bool {
        self.own
            .iter()
            .all(|own| own.movable && is_named(own, also))
    }
}

fn is_named(own: &OwnThing, also: &[JailPath]) -> bool {
    also.iter().any(|named| own.path.starts_with(named))
}
