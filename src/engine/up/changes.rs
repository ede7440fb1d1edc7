//! What a run changes before it mounts: generated files, mounts that go, placeholders and links.

use std::collections::BTreeSet;
use std::io;

use super::run::UpRun;
use crate::base::hints::{Doing, is_absent};
use crate::base::{Error, HostPath, JailPath, Result};
use crate::engine::backend::Backend;
use crate::engine::journal;
use crate::engine::outcome::check_signal;
use crate::engine::root::Spot;
use crate::engine::target::{
    cannot, clear_after, detach_stray, explained, explained_of_mount, made_kind, must_be,
    nothing_in_stray, nothing_inside,
};
use crate::engine::undo::{OldMount, Undo, save};
use crate::observe::{CreatedKind, CreatedPath, Identity, ObservedMount, Stray};
use crate::plan::{Along, Step};
use crate::resolve::{GeneratedFile, Ownership};
use crate::sys;

impl<B: Backend> UpRun<'_, B> {
    pub(super) fn clear_and_create(&mut self) -> Result<()> {
        let plan = self.plan;
        for stray in &self.observed.strays {
            nothing_in_stray(&plan.root, stray, self.observed)?;
        }
        self.record_planned_placeholders()?;

        for step in &plan.steps {
            check_signal(self.stop)?;
            match step {
                Step::Detach {
                    target,
                    expected,
                    along,
                    ..
                } => self.detach(step, target, expected, along)?,
                Step::DetachStray(stray) => self.detach_stray(step, stray)?,
                Step::RemovePlaceholder { path, kind, file } => {
                    self.remove(step, path, made_kind(*kind), *file)?;
                }
                Step::RemoveLink { path, destination } => {
                    self.remove(step, path, CreatedKind::Link(destination.clone()), None)?;
                }
                Step::RemoveFile(path) => self.remove_file(step, path)?,
                Step::CreatePlaceholder { path, kind } => {
                    self.create(step, path, made_kind(*kind))?;
                }
                Step::CreateLink { path, destination } => {
                    self.create(step, path, CreatedKind::Link(destination.clone()))?;
                }
                Step::CreateDirectory { path, owner } => {
                    self.create(step, path, CreatedKind::Directory)?;
                    self.give(path, *owner)?;
                }
                Step::Refresh { .. }
                | Step::DetachCovered { .. }
                | Step::WriteFile(_)
                | Step::Attach { .. }
                | Step::Swap { .. } => {}
            }
        }
        self.clear_former_roots();

        if self.kept == self.written {
            Ok(())
        } else {
            self.write_made()
        }
    }

    fn detach(
        &mut self,
        step: &Step,
        target: &JailPath,
        expected: &ObservedMount,
        along: &Along,
    ) -> Result<()> {
        self.log_step(step);
        let top = self.root.open_mounted(target);
        let top = explained(&self.root, "detach", target, top)?;
        must_be(&self.root, target, expected, &top)?;
        if *along == Along::Nothing {
            nothing_inside(&self.root, "detach", target, expected)?;
        }

        let saved = save(&self.mounter.backend, &top, along);
        let saved = explained(&self.root, "detach", target, saved).map_err(explain_save)?;
        explained_of_mount(&self.root, "detach", target, sys::umount_at(&top))?;

        self.root.unmounted(target, Some(expected));
        let old = OldMount {
            target: target.clone(),
            id: expected.unique_id,
            along: along.clone(),
        };
        self.undo.push(old.detached(saved));
        self.outcome.count(step);
        Ok(())
    }

    /// Removes what else was made in directories that were the root and were moved away, such as
    /// links. Things that are not as they were made belong to their owners and stay.
    pub(super) fn clear_former_roots(&self) {
        let strays = self.observed.strays.iter();
        let mut homes: BTreeSet<_> = strays.filter_map(Stray::home).collect();
        homes.remove(&self.plan.root);
        for home in homes {
            for (path, kind, file) in self.made_before() {
                if let Ok(spot) = self.root.spot_on_host(home.inside(path).as_path()) {
                    let _ = spot.remove(&kind, Some(file));
                }
            }
        }
    }

    /// What earlier runs made in the root, children before parents.
    fn made_before(&self) -> Vec<(&JailPath, CreatedKind, Identity)> {
        let Some(kept) = &self.observed.kept else {
            return vec![];
        };
        let mut made_before = vec![];
        for made in kept.made.iter().rev() {
            if let Some(file) = made.file {
                made_before.push((&made.path, made.kind.clone(), file));
            }
        }
        made_before
    }

    /// Detaches a mount that was moved away, and removes the placeholders beside it.
    fn detach_stray(&mut self, step: &Step, stray: &Stray) -> Result<()> {
        self.log_step(step);
        detach_stray(&self.plan.root, stray, self.observed)?;
        self.outcome.count(step);
        clear_after(&self.root, stray, self.made_before());
        Ok(())
    }

    fn remove(
        &mut self,
        step: &Step,
        path: &JailPath,
        kind: CreatedKind,
        file: Option<Identity>,
    ) -> Result<()> {
        self.log_step(step);
        let removed = match self.root.spot(path) {
            // Its directory is gone, so the path is gone too.
            Err(error) if is_absent(&error) => None,
            Ok(spot) if !spot.is_at_home() => {
                self.left.push(path.clone());
                return Ok(()); // it stays recorded until it can be removed
            }
            spot => {
                let spot = explained(&self.root, "remove", path, spot)?;
                let owner = spot.owner_of(&kind);
                let removed = spot.remove(&kind, file);
                Some((explained(&self.root, "remove", path, removed)?, owner))
            }
        };

        match removed {
            None => {}
            Some((true, owner)) => self.undo.push(Undo::Recreate {
                path: path.clone(),
                kind,
                owner,
            }),
            Some((false, _)) => self.left.push(path.clone()),
        }
        self.kept.made.retain(|made| made.path != *path);
        Ok(())
    }

    fn remove_file(&mut self, step: &Step, path: &HostPath) -> Result<()> {
        self.log_step(step);
        let before = journal::put_beside(path.as_path())?;
        self.undo.push(Undo::Restore {
            path: path.clone(),
            before,
        });
        Ok(())
    }

    /// Gives the directory that was just made its owner and mode.
    fn give(&self, path: &JailPath, owner: Ownership) -> Result<()> {
        let given = match self.root.spot(path) {
            Ok(spot) => spot.give(owner),
            Err(error) => Err(error),
        };
        explained(&self.root, "give its owner to", path, given)
    }

    fn create(&mut self, step: &Step, path: &JailPath, kind: CreatedKind) -> Result<()> {
        self.log_step(step);
        let (spot, file) = match self.create_at(path, &kind) {
            Ok(created) => created,
            Err(error) => return Err(explain_create(cannot(&self.root, "create", path, &error))),
        };
        let made = CreatedPath {
            file: Some(file),
            ..CreatedPath::planned(path.clone(), kind)
        };
        // What an earlier run made there is gone, unless it is in the root beneath this one.
        if self.observed.under_root.is_empty() {
            self.kept.made.retain(|before| before.path != *path);
        }
        self.kept.made.push(made.clone());
        self.undo.push(Undo::Remove { made, spot });
        Ok(())
    }

    fn create_at(&self, path: &JailPath, kind: &CreatedKind) -> io::Result<(Spot, Identity)> {
        let spot = self.root.spot(path)?;
        let file = spot.create(kind)?;
        Ok((spot, file))
    }

    pub(super) fn write_files(&mut self) -> Result<()> {
        for step in &self.plan.steps {
            if let Step::WriteFile(file) = step {
                self.log_step(step);
                self.write_file(file)?;
            }
        }
        Ok(())
    }

    fn write_file(&mut self, file: &GeneratedFile) -> Result<()> {
        if !self.kept.files.contains(&file.path) {
            self.kept.files.push(file.path.clone());
            self.write_kept()?;
        }

        let before = journal::write_generated(file.path.as_path(), &file.contents)?;
        self.undo.push(Undo::Restore {
            path: file.path.clone(),
            before,
        });
        Ok(())
    }

    /// Removes the old generated files, which no undo needs any more. A file that cannot be removed
    /// is left to the next run.
    pub(super) fn forget_old_files(&mut self) {
        let before = self.kept.files.len();
        let mut failed = vec![];
        for file in std::mem::take(&mut self.kept.files) {
            match journal::clear_beside(file.as_path()) {
                Ok(()) if journal::is_to_go(self.plan, &file) => continue,
                Ok(()) => {}
                Err(error) => failed.push(error),
            }
            self.kept.files.push(file);
        }

        if self.kept.files.len() < before {
            failed.extend(self.write_kept().err());
        }
        self.outcome
            .left
            .extend(failed.iter().map(ToString::to_string));
    }
}

/// What is kept to undo a run may be a mount, too.
fn explain_save(error: Error) -> Error {
    match error.errno() {
        Some(libc::ENOSPC) => error.hint_while(Doing::Mounting),
        _ => error,
    }
}

fn explain_create(error: Error) -> Error {
    match error.errno() {
        Some(libc::EEXIST | libc::ENOENT) => error.overtaken().hint_while(Doing::Creating),
        Some(libc::EROFS | libc::EPERM) if error.hint_text().is_some() => error,
        _ => error.hint_while(Doing::Creating),
    }
}
