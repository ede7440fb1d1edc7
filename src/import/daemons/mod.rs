//! Other daemons whose configuration names a root: text → drafts and warnings. Each syntax has its
//! own file.

pub(super) mod keys;
pub(super) mod postfix;
pub(super) mod root_directory;
pub(super) mod sshd;

use std::path::Path;

use super::draft::{Draft, DraftItem, DraftKind};
use super::site_names;
use crate::base::HostPath;
use crate::observe::Units;

/// The sites of a daemon's file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DaemonSites {
    /// The sites whose roots it names.
    pub sites: Vec<Draft>,
    /// Warnings for the administrator: sentences.
    pub warnings: Vec<String>,
}

/// A line of a file. `Display`: `FILE:LINE`.
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
    /// The site with this root, which is added if there is none yet. `place` names the root, and
    /// `what` describes it, such as `The ChrootDirectory`. `None`: no site can have that root.
    pub(super) fn site(
        &mut self,
        place: FileLine<'_>,
        what: &str,
        root: &str,
    ) -> Option<&mut Draft> {
        let root = match HostPath::new(root) {
            Ok(root) => root,
            Err(why) => {
                let warning = format!("{place}: {what}: {why}; not imported");
                self.warnings.push(warning);
                return None;
            }
        };
        let at = self
            .sites
            .iter()
            .position(|site| site.root() == Some(&root));
        if let Some(at) = at {
            return self.sites.get_mut(at);
        }

        let mut draft = Draft::new(site_names::of_root(&root), DraftKind::Site(root));
        draft.place = place.to_string();
        draft.found.push(format!("{what} of {place}."));
        self.sites.push(draft);
        self.sites.last_mut()
    }
}

/// The needs of most sites of a daemon.
pub(super) struct Needs<'n> {
    /// Those that exist are used.
    pub presets: &'n [&'n str],
    pub users: &'n [&'n str],
    /// The names that distributions have for the daemon's unit. The first that this host has is
    /// used.
    pub services: &'n [&'n str],
}

impl Needs<'_> {
    pub(super) fn add_to(&self, draft: &mut Draft, units: &Units) {
        for preset in self.presets {
            if draft.presets.iter().all(|known| known != preset) {
                draft.presets.push((*preset).to_owned());
            }
        }
        for user in self.users {
            let user = DraftItem::new(*user);
            if !draft.users.contains(&user) {
                draft.users.push(user);
            }
        }
        if let Some(service) = self.services.iter().find(|name| units.has(name)) {
            draft.services.insert((*service).to_owned());
        }
    }
}
