//! Other daemons whose configuration names a root: text → drafts and notes, a file per syntax.

pub(super) mod keys;
pub(super) mod postfix;
pub(super) mod sshd;
pub(super) mod units;

use std::path::Path;

use super::draft::{Draft, DraftItem, DraftKind};
use crate::base::HostPath;
use crate::observe::Units;

/// What a file has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DaemonSites {
    /// The sites that it names a root of.
    pub sites: Vec<Draft>,
    /// What the administrator should look at: sentences.
    pub warnings: Vec<String>,
}

/// Where something stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLine<'f> {
    pub file: &'f Path,
    /// From 1.
    pub line: usize,
}

impl std::fmt::Display for FileLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl DaemonSites {
    /// Adds the site whose root `place` names by `said`, such as `chroot = /srv/x`; `None`: no site
    /// can have that root.
    pub(super) fn site(
        &mut self,
        place: FileLine<'_>,
        said: &str,
        root: &str,
    ) -> Option<&mut Draft> {
        let root = match HostPath::new(root) {
            Ok(root) => root,
            Err(why) => {
                self.warnings
                    .push(format!("{place}: {said}: {why}; not imported"));
                return None;
            }
        };
        if let Some(nth) = self
            .sites
            .iter()
            .position(|site| site.root() == Some(&root))
        {
            return self.sites.get_mut(nth);
        }
        let mut draft = Draft::new(super::name_of(&root), DraftKind::Site(root));
        draft.place = place.to_string();
        draft.found.push(format!("{said} of {place}."));
        self.sites.push(draft);
        self.sites.last_mut()
    }
}

/// Adds what most sites of a daemon need: presets (those that there are count), logins, and the
/// first of `services` that this host has.
pub(super) fn add(
    draft: &mut Draft,
    presets: &[&str],
    users: &[&str],
    services: &[&str],
    units: &Units,
) {
    for preset in presets {
        if !draft.presets.iter().any(|known| known == preset) {
            draft.presets.push((*preset).to_owned());
        }
    }
    for user in users.iter().map(|user| DraftItem::new(*user)) {
        if !draft.users.contains(&user) {
            draft.users.push(user);
        }
    }
    draft.services.extend(
        services
            .iter()
            .find(|name| units.has(name))
            .map(|name| (*name).to_owned()),
    );
}
