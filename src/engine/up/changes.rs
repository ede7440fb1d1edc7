//! What a run changes before it mounts: generated files, mounts that go, placeholders and links.

use std::collections::BTreeSet;
use std::io;

use super::run::UpRun;
use crate::base::hints::{Doing, is_absent};
use crate::base::{Error, HostPath, JailPath, Result};
use crate::engine::backend::Backend;
use crate::engine::outcome::check_signal;
use crate::engine::target::{cannot, clear_after, detach_stray, made_kind, nothing_inside};
use crate::engine::undo::{OldMount, Undo, save};
use crate::engine::{journal, mount_op};
use crate::observe::{CreatedKind, CreatedPath, Identity, ObservedMount, Stray};
use crate::plan::{Along, Step};
use crate::resolve::{GeneratedFile, Ownership};
use crate::sys;

impl<B: Backend> UpRun<'_, B> {
    pub(super) fn clear_and_create(&mut self) -> Result<()> {
        let plan = self.plan;
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
                    self.create(step, path, &made_kind(*kind))?;
                }
                Step::CreateLink { path, destination } => {
                    self.create(step, path, &CreatedKind::Link(destination.clone()))?;
                }
                Step::CreateDirectory { path, owner } => {
                    self.create(step, path, &CreatedKind::Directory)?;
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
        let cannot = |error: io::Error| cannot(&self.root, "detach", target, &error);
        let top = self
            .root
            .spot(target)
            .and_then(|spot| spot.open_mounted())
            .map_err(cannot)?;
        mount_op::must_be(&self.root, target, expected, &top)?;
        if *along == Along::Nothing {
            nothing_inside(&self.root, "detach", target, expected)?;
        }

        let saved = save(&self.mounter.backend, &top, along).map_err(cannot)?;
        sys::umount_at(&top).map_err(cannot)?;

        self.root.unmounted(target, Some(expected));
        let old = OldMount {
            target: target.clone(),
            id: expected.unique_id,
            along: along.clone(),
        };
        self.undo.push(old.detached(saved));
        self.outcome.detached += along.mounts();
        Ok(())
    }

    /// Removes what else was made in directories that were the root and were moved away, such as
    /// links. Whatever is not as it was made belongs to its owner and stays.
    pub(super) fn clear_former_roots(&self) {
        let strays = self.observed.strays.iter();
        let homes: BTreeSet<_> = strays.filter_map(Stray::home).collect();
        for home in homes.iter().filter(|home| **home != self.plan.root) {
            for made in self.observed.kept.iter().flat_map(|kept| &kept.made).rev() {
                if let Some(file) = made.file {
                    let spot = self.root.spot_on_host(home.inside(&made.path).as_path());
                    let _ = spot.and_then(|spot| spot.remove(&made.kind, Some(file)));
                }
            }
        }
    }

    /// Detaches a mount that was moved away, and removes the placeholders beside it.
    fn detach_stray(&mut self, step: &Step, stray: &Stray) -> Result<()> {
        self.log_step(step);
        detach_stray(&self.plan.root, stray)?;
        self.outcome.detached += 1;
        let recorded = self.observed.kept.iter().flat_map(|kept| &kept.made);
        let made = recorded.filter_map(|made| Some((&made.path, made.kind.clone(), made.file?)));
        clear_after(&self.root, stray, made.rev());
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
        let failed = |error: io::Error| cannot(&self.root, "remove", path, &error);
        let removed = match self.root.spot(path) {
            // Its directory is gone, so the path is gone too.
            Err(error) if is_absent(&error) => None,
            Ok(spot) if !spot.is_at_home() => {
                self.left.push(path.clone());
                return Ok(()); // it stays recorded until it can be removed
            }
            spot => {
                let spot = spot.map_err(failed)?;
                let owner = spot.owner_of(&kind);
                Some((spot.remove(&kind, file).map_err(failed)?, owner))
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
        let given = self.root.spot(path).and_then(|spot| spot.give(owner));
        given.map_err(|error| cannot(&self.root, "give its owner to", path, &error))
    }

    fn create(&mut self, step: &Step, path: &JailPath, kind: &CreatedKind) -> Result<()> {
        self.log_step(step);
        let explained =
            |error: io::Error| explain_create(cannot(&self.root, "create", path, &error));
        let spot = self.root.spot(path).map_err(explained)?;
        let file = spot.create(kind).map_err(explained)?;

        let made = CreatedPath {
            file: Some(file),
            ..CreatedPath::planned(path.clone(), kind.clone())
        };
        self.kept.made.push(made.clone());
        self.undo.push(Undo::Remove { made, spot });
        Ok(())
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
        let unneeded = |file: &HostPath| {
            self.plan
                .steps
                .iter()
                .any(|step| matches!(step, Step::RemoveFile(path) if path == file))
        };

        let before = self.kept.files.len();
        let mut failed = vec![];
        self.kept
            .files
            .retain(|file| match journal::clear_beside(file.as_path()) {
                Ok(()) => !unneeded(file),
                Err(error) => {
                    failed.push(error);
                    true
                }
            });

        if self.kept.files.len() < before {
            failed.extend(self.write_kept().err());
        }
        self.outcome
            .left
            .extend(failed.iter().map(ToString::to_string));
    }
}

fn explain_create(error: Error) -> Error {
    match error.errno() {
        Some(libc::EEXIST) => error.overtaken().hint_while(Doing::Creating),
        Some(libc::EROFS | libc::EPERM) if error.hint_text().is_some() => error,
        _ => error.hint_while(Doing::Creating),
    }
}
