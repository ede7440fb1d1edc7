//! A path whose links are followed one by one.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::base::MAX_LINKS;

/// A lookup in progress, for callers that know where links are.
pub(super) struct Route {
    /// How far it has come; no name in it is a link.
    at: PathBuf,
    rest: VecDeque<OsString>,
    followed: usize,
}

impl Route {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            at: PathBuf::from("/"),
            rest: names(path).collect(),
            followed: 0,
        }
    }

    /// Goes on to the next name, and gives the path that may be a link; `None`: this is the end.
    pub(super) fn next(&mut self) -> Option<&Path> {
        loop {
            let name = self.rest.pop_front()?;
            if name == ".." {
                self.at.pop();
            } else {
                self.at.push(name);
                return Some(&self.at);
            }
        }
    }

    /// The path that [`Self::next`] gave is a link to `destination`. One that is one too many is
    /// not followed.
    pub(super) fn follow(&mut self, destination: &Path) {
        if self.followed == MAX_LINKS {
            return;
        }
        self.followed += 1;
        self.at.pop();
        if destination.is_absolute() {
            self.at = PathBuf::from("/");
        }
        for name in names(destination).rev() {
            self.rest.push_front(name);
        }
    }

    /// The path so far, with what is still to be looked up.
    pub(super) fn end(self) -> PathBuf {
        let mut path = self.at;
        path.extend(self.rest);
        path
    }
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
