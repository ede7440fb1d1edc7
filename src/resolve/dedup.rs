//! What the finished jail shows at a path: through its own links, and through those inside what is
//! mounted.

use std::path::{Path, PathBuf};

use super::builder::{Builder, Draft, names, stands_in};
use super::expand::Item;
use super::host::Node;
use crate::base::{HostPath, JailPath, MountAttributes};

/// Links followed in one lookup before the kernel says ELOOP.
const MAX_LINKS: usize = 40;

/// Where a lookup in the finished jail ends.
struct Shown<'b> {
    /// The path without the links.
    at: JailPath,
    /// The mount that shows something there, and what of the host that is; `None`: no mount does.
    file: Option<(&'b Item, HostPath)>,
}

/// What is to be done about a mount inside another one.
enum Verdict {
    Stays,
    IsDropped,
    GoesTo(JailPath),
}

impl Builder<'_> {
    /// Drops what another mount shows already, also where links lead there. What would be mounted
    /// on a link inside another mount, which cannot be, goes to where the link leads.
    pub(super) fn settle(&mut self) {
        let targets: Vec<_> = self.drafts.keys().cloned().collect();
        for target in targets {
            match self.verdict(&target) {
                Verdict::Stays => {}
                Verdict::IsDropped => drop(self.drafts.remove(&target)),
                Verdict::GoesTo(at) => self.move_to(&target, &at),
            }
        }
    }

    fn verdict(&self, target: &JailPath) -> Verdict {
        let draft = &self.drafts[target];
        if self.above(target).is_none() {
            return Verdict::Stays;
        }
        let Shown { at, file } = self.shown(target, Some(draft));
        let moved = at != *target;
        match file {
            Some((mount, file)) if file == draft.item.source => {
                let with_submounts = mount.recursive || !draft.item.recursive;
                if with_submounts && stands_in(mount, &draft.item) {
                    Verdict::IsDropped
                } else if moved {
                    Verdict::GoesTo(at)
                } else {
                    Verdict::Stays
                }
            }
            // Another line put something else there: what only comes along gives way.
            Some(_) if moved && !draft.item.chain.is_empty() => Verdict::IsDropped,
            // At `at` it is a matter between two lines.
            Some(_) if moved && self.drafts.contains_key(&at) => Verdict::GoesTo(at),
            None if moved => Verdict::GoesTo(at),
            _ => Verdict::Stays,
        }
    }

    fn move_to(&mut self, target: &JailPath, at: &JailPath) {
        let Some(draft) = self.drafts.remove(target) else {
            return;
        };
        for reason in draft.reasons {
            self.add(at.clone(), &draft.item, reason);
        }
    }

    /// The attributes of the mount that shows what `path` leads to in the finished jail.
    pub(super) fn shows(&self, path: &JailPath) -> Option<MountAttributes> {
        self.shown(path, None)
            .file
            .map(|(mount, _)| mount.effective())
    }

    /// Where `path` leads in the finished jail, if `without` is not mounted.
    fn shown(&self, path: &JailPath, without: Option<&Draft>) -> Shown<'_> {
        let (mut at, mut rest, mut links) = (PathBuf::from("/"), names(path.as_path()), 0);
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(name);
            let Some(text) = self.link_at(&at, without).filter(|_| links < MAX_LINKS) else {
                continue;
            };
            links += 1;
            at.pop();
            if text.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in names(&text).into_iter().rev() {
                rest.push_front(name);
            }
        }
        let at = JailPath::new(at).unwrap_or_else(|_| path.clone());
        let over = self.over(&at, without);
        let file = over.filter(|(mount, file)| self.in_mount(mount, file).is_some());
        Shown { at, file }
    }

    /// The text of the link at `at`, whose directory has no links in it.
    fn link_at(&self, at: &Path, without: Option<&Draft>) -> Option<PathBuf> {
        let at = JailPath::new(at).ok()?;
        match self.over(&at, without) {
            Some((mount, file)) => self.in_mount(mount, &file)?.link,
            None => self.links.get(&at).map(|link| link.text.clone()),
        }
    }

    /// The nearest mount at or above `at`, and what of the host it would show there.
    fn over(&self, at: &JailPath, without: Option<&Draft>) -> Option<(&Item, HostPath)> {
        let at_or_above = at.ancestors().into_iter().chain([at.clone()]).rev();
        let mut others =
            at_or_above.filter(|at| without.is_none_or(|without| *at != without.target));
        let mount = others.find_map(|at| self.drafts.get(&at))?;
        Some((
            &mount.item,
            mount.item.source.join(at.below(&mount.target)?).ok()?,
        ))
    }

    /// What the host's `file`, which is below the source of `mount`, is; `None`: the mount does not
    /// show it.
    pub(super) fn in_mount(&self, mount: &Item, file: &HostPath) -> Option<Node> {
        let node = self.node(file)?;
        let source = self.node(&mount.source)?;
        (mount.recursive || node.stat.is_on_mount_of(&source.stat)).then_some(node)
    }
}
