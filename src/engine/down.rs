//! `down`: checks whether anything is in use before the first change. After that, an error does not
//! stop it.
//!
//! It asks neither the file system that a mount shows nor one that somebody has mounted above it.
//! Mounts are recognised by their ids, and a mount that another one hides is reached through the
//! mount that it is on (`hidden.rs`).

use std::cell::OnceCell;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::root::{Root, Spot, Spots};
use super::target::{
    cannot, cannot_reach, clear_after, detach_stray, hides, is_absent, is_found, made_kind,
    nothing_inside, still_there,
};
use super::{Engine, EngineFailure, Log, Outcome, hidden, journal};
use crate::base::quote::shell_word;
use crate::base::{Error, HostPath, JailPath, Result};
use crate::observe::{
    self, BootRecord, CreatedKind, Identity, Observed, ObservedMount, PersistentRecord,
    RecordedMount,
};
use crate::plan::{Along, Plan, State, Step};
use crate::sys;

pub(super) fn carry_out(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    lazy: bool,
    log: Log<'_>,
) -> Result<Outcome, Box<EngineFailure>> {
    let run = Run::new(engine, plan, observed, lazy, log)?;
    if !lazy {
        run.stop_if_in_use()?;
    }
    run.carry_out()
}

/// As [`carry_out`], but returns `Ok(None)` and changes nothing unless every mount is as planned
/// and not in use.
pub(super) fn carry_out_if_quiet(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    log: Log<'_>,
) -> Result<Option<Outcome>, Box<EngineFailure>> {
    let run = Run::new(engine, plan, observed, false, log)?;
    if run.is_quiet() {
        run.carry_out().map(Some)
    } else {
        Ok(None)
    }
}

struct Run<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    observed: &'a Observed,
    root: Rc<Root>,
    /// The root without anything mounted in it, opened on first use. `None`: it cannot be opened.
    bare: OnceCell<Option<Root>>,
    lazy: bool,
    log: Log<'a>,
    failed: Vec<Error>,
    /// Paths that have changed since they were made.
    left: Vec<JailPath>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(
        engine: &'a Engine,
        plan: &'a Plan,
        observed: &'a Observed,
        lazy: bool,
        log: Log<'a>,
    ) -> Result<Self> {
        let root = Rc::new(open(plan)?);
        Ok(Self {
            engine,
            plan,
            observed,
            root,
            bare: OnceCell::new(),
            lazy,
            log,
            failed: vec![],
            left: vec![],
            outcome: Outcome::default(),
        })
    }

    fn carry_out(mut self) -> Result<Outcome, Box<EngineFailure>> {
        let (remaining, kept) = self.run_steps();

        let (state, site) = (&self.engine.state, &self.plan.site);
        let records = journal::write_kept(state, site, &kept).and_then(|()| {
            match remaining.mounts.as_slice() {
                [] => journal::remove_record(state, site),
                _ => journal::write_record(state, site, &remaining),
            }
        });
        self.failed.extend(records.err());

        self.finish()
    }

    fn finish(mut self) -> Result<Outcome, Box<EngineFailure>> {
        self.outcome
            .left
            .extend(still_there(&self.root, &self.left));
        if self.failed.is_empty() {
            return Ok(self.outcome);
        }

        let error = self.failed.remove(0);
        Err(Box::new(EngineFailure {
            also: self.failed,
            ..EngineFailure::from(error)
        }))
    }

    fn detaches(&self) -> impl Iterator<Item = (&'a JailPath, &'a ObservedMount)> + use<'a> {
        detaches(self.plan)
    }

    /// The targets of the mounts in this state.
    fn states(&self, state: State) -> impl Iterator<Item = &'a JailPath> + use<'a> {
        let states = self.plan.states.iter();
        states
            .filter(move |found| found.state == state)
            .map(|found| &found.target)
    }

    /// Asks the kernel about each mount before the first one is unmounted, because it also knows
    /// users other than processes. A mount that holds others of ours counts as used by these, so it
    /// is not asked about. The same is true of a mount with another one at the same target.
    fn stop_if_in_use(&self) -> Result<(), Box<EngineFailure>> {
        let foreign = self
            .detaches()
            .filter_map(|(target, _)| self.foreign_in(target));
        let mut errors = self.shadowed().chain(foreign);
        if let Some(error) = errors.next() {
            return Err(Box::new(EngineFailure {
                also: errors.collect(),
                ..EngineFailure::from(error)
            }));
        }

        let busy = self.busy_targets();
        if busy.is_empty() {
            return Ok(());
        }

        let error = Error::failed(format!(
            "in use: {}; nothing was unmounted",
            busy.join(", ")
        ))
        .hint("end what uses them, or detach them anyway with `mountjail down --lazy`");
        Err(Box::new(EngineFailure {
            busy: true,
            ..EngineFailure::from(error)
        }))
    }

    /// The mounts that the kernel reports as in use.
    fn busy_targets(&self) -> Vec<String> {
        let mut spots = Spots::new(&self.root);
        let above = self.above();
        let mut asked = HashSet::new();
        let mut busy = vec![];
        for target in self.asked_about() {
            // A second question in a row would unmount it.
            if above.contains(target.as_path()) || !asked.insert(target) {
                continue;
            }
            let is_busy = self.spot(target, &mut spots).and_then(Spot::is_busy);
            if is_busy.unwrap_or(false) {
                busy.push(target.to_string());
            }
        }
        busy
    }

    /// The targets of the mounts whose users matter. A graft itself always holds its members.
    fn asked_about(&self) -> impl Iterator<Item = &'a JailPath> {
        self.plan.steps.iter().flat_map(|step| match step {
            Step::Detach {
                along: Along::Members(members),
                ..
            } => members.iter().collect(),
            Step::Detach { target, .. } => vec![target],
            _ => vec![],
        })
    }

    /// Whether each mount is the planned one, holds no other of ours and is not in use.
    fn is_quiet(&self) -> bool {
        let mut spots = Spots::new(&self.root);
        let above = self.above();
        self.detaches().all(|(target, expected)| {
            let is_quiet = |spot: &Spot| Ok(is_at(spot, expected)? && !spot.is_busy()?);
            !above.contains(target.as_path())
                && spots.on_mount(target).and_then(is_quiet).unwrap_or(false)
        })
    }

    /// The spot of `target`, on the mount of the root or in one of ours.
    fn spot<'s>(&self, target: &JailPath, spots: &'s mut Spots<'_>) -> io::Result<&'s Spot> {
        let is_above = |(above, _): (&JailPath, _)| above != target && target.starts_with(above);
        if self.detaches().any(is_above) {
            spots.get(target)
        } else {
            spots.on_mount(target)
        }
    }

    /// All paths above the mounts that are to be detached.
    fn above(&self) -> HashSet<&Path> {
        self.detaches()
            .map(|(target, _)| target)
            .chain(self.asked_about())
            .flat_map(|target| target.as_path().ancestors().skip(1))
            .collect()
    }

    /// Carries out every step that can be carried out. Returns the records of what remains.
    fn run_steps(&mut self) -> (BootRecord, PersistentRecord) {
        let observed = self.observed;
        let root = Rc::clone(&self.root);
        let mut spots = Spots::new(&root);
        let mut gone = HashSet::new();
        let mut forgotten = HashSet::new();
        let shadowed: Vec<_> = self.states(State::Shadowed).collect();
        self.failed = self.shadowed().collect();
        let mut stuck = shadowed.clone();

        for step in &self.plan.steps {
            let path = path_of(step);
            if path.is_some_and(|path| stuck.iter().any(|stuck| stuck.starts_with(path))) {
                continue; // something of ours is still in it or on it; the next run finishes that
            }
            if let Some(foreign) = self.foreign_on(step) {
                self.outcome.left.push(foreign);
                continue;
            }
            (self.log)(format_args!("{}: {step}", self.plan.site));
            match (self.step(step, &mut spots), path) {
                (Ok(()), Some(path)) => {
                    let done = if matches!(step, Step::Detach { .. }) {
                        &mut gone
                    } else {
                        &mut forgotten
                    };
                    done.insert(path.clone());
                }
                (Ok(()), None) => {}
                (Err(error), path) => {
                    stuck.extend(path);
                    path.map(|path| gone.remove(path)); // one of two mounts there stays
                    self.failed.push(error);
                }
            }
        }

        let mut record = observed
            .record
            .clone()
            .unwrap_or_else(|| self.empty_record());
        let planned = self
            .detaches()
            .map(|(target, _)| target)
            .filter(|target| !gone.contains(*target));
        let standing: HashSet<_> = planned.chain(shadowed).collect();
        record
            .mounts
            .retain(|mount| standing.contains(&mount.target) || still_exists(mount));
        record.history = record
            .history
            .map(|history| history.and(observe::now(), 0, 0, gone.len()));

        let mut kept = observed
            .kept
            .clone()
            .unwrap_or_else(|| PersistentRecord::nothing(self.plan.root.clone()));
        kept.made.retain(|made| !forgotten.contains(&made.path));
        kept.files.retain(|file| !self.is_removed(file));
        (record, kept)
    }

    fn empty_record(&self) -> BootRecord {
        BootRecord::nothing(self.engine.boot.clone(), self.plan.root.clone())
    }

    fn is_removed(&self, file: &HostPath) -> bool {
        let planned = |step: &Step| matches!(step, Step::RemoveFile(path) if path == file);
        self.plan.steps.iter().any(planned) && !file.as_path().exists()
    }

    fn step(&mut self, step: &Step, spots: &mut Spots<'_>) -> Result<()> {
        match step {
            Step::DetachStray(stray) => {
                detach_stray(&self.plan.root, stray)?;
                self.outcome.detached += 1;
                let made = self.plan.steps.iter().filter_map(|step| match step {
                    Step::RemovePlaceholder { path, kind, file } => {
                        Some((path, made_kind(*kind), (*file)?))
                    }
                    _ => None,
                });
                clear_after(&self.root, stray, made);
                Ok(())
            }
            Step::Detach {
                target,
                expected,
                along,
                ..
            } => self.detach(target, expected, along, spots),
            Step::RemovePlaceholder { path, kind, file } => {
                self.remove(path, &made_kind(*kind), *file, spots)
            }
            Step::RemoveLink { path, destination } => {
                self.remove(path, &CreatedKind::Link(destination.clone()), None, spots)
            }
            Step::RemoveFile(path) => journal::remove(path.as_path()),
            Step::WriteFile(_)
            | Step::CreatePlaceholder { .. }
            | Step::CreateDirectory { .. }
            | Step::CreateLink { .. }
            | Step::Refresh { .. }
            | Step::Attach { .. }
            | Step::Swap { .. } => Ok(()), // `down` never plans these
        }
    }

    fn detach(
        &mut self,
        target: &JailPath,
        expected: &ObservedMount,
        along: &Along,
        spots: &mut Spots<'_>,
    ) -> Result<()> {
        if let Some(error) = self.foreign_in(target) {
            return Err(error);
        }
        if let Along::Members(members) = along {
            self.only_members_in(target, expected, members)?;
        }
        let has_members = matches!(along, Along::Members(_));

        let found = self
            .spot(target, spots)
            .and_then(|spot| Ok(is_at(spot, expected)?.then_some(spot)));
        let detached = match found {
            Ok(Some(spot)) => match spot.umount(has_members) {
                Err(error) if self.lazy && error.raw_os_error() == Some(libc::EBUSY) => {
                    nothing_inside(&self.root, "unmount", target, expected)?;
                    spot.umount(true)
                        .map_err(|error| cannot(&self.root, "unmount", target, &error))
                }
                // Its owner has moved or unmounted it since it was found.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                    self.detach_hidden(target, expected, &error)
                }
                result => result.map_err(|error| cannot(&self.root, "unmount", target, &error)),
            },
            Ok(None) => {
                let not_mounted = io::Error::from_raw_os_error(libc::EINVAL); // as umount(2)
                self.detach_hidden(target, expected, &not_mounted)
            }
            Err(error) => self.detach_hidden(target, expected, &error),
        };
        detached?;
        self.outcome.detached += along.mounts();
        Ok(())
    }

    /// Makes sure that nobody has mounted anything in the graft since it was looked at.
    fn only_members_in(
        &self,
        target: &JailPath,
        graft: &ObservedMount,
        members: &[JailPath],
    ) -> Result<()> {
        let Some(id) = graft.unique_id else {
            return Ok(()); // before Linux 6.8 the plan checks this in the whole mount table
        };
        let seen = members
            .iter()
            .filter_map(|member| self.observed.mounts.get(member));
        let known: HashSet<_> = seen.flatten().filter_map(|seen| seen.unique_id).collect();
        let inside = sys::list_mounts_in(id)
            .map_err(|error| cannot(&self.root, "look into", target, &error))?;
        if inside.iter().all(|inside| known.contains(inside)) {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{} changed while the command ran",
            self.root.path().inside(target)
        ))
        .overtaken()
        .hint("run the command again"))
    }

    /// Detaches a mount that was not found at its path; `why` is the error.
    fn detach_hidden(
        &self,
        target: &JailPath,
        expected: &ObservedMount,
        why: &io::Error,
    ) -> Result<()> {
        let Some(id) = expected.unique_id else {
            return Err(cannot_reach(&self.root, "unmount", target, why));
        };
        if !sys::mount_exists(id) {
            return Ok(());
        }

        let ours: HashSet<_> = self
            .detaches()
            .filter_map(|(_, expected)| expected.unique_id)
            .collect();
        if sys::list_mounts_in(id)
            .is_ok_and(|inside| inside.iter().any(|inside| !ours.contains(inside)))
        {
            nothing_inside(
                &self.root,
                "unmount",
                target,
                &ObservedMount {
                    file_system: None,
                    kind: None,
                    ..expected.clone()
                },
            )?;
        }

        let Err(error) = hidden::detach(id) else {
            return Ok(());
        };
        if sys::stat_mount(id).is_ok_and(|mount| ours.contains(&mount.parent)) {
            return Ok(()); // it goes with the mount that it is in, which is also hidden
        }

        let path = self.root.path().inside(target);
        if let Some(above) = hidden::hidden_by(id) {
            return Err(hides(&path.to_string(), &above));
        }
        let parent = sys::stat_mount(id).and_then(|mount| sys::stat_mount(mount.parent));
        let hint = match parent {
            Ok(on) => format!(
                "the file system that it is on may not answer: `umount -l {}` takes that \
                 away with what is in it; then run \
                 the command again",
                shell_word(&on.point.to_string_lossy())
            ),
            Err(_) => "run the command again".to_owned(),
        };
        Err(cannot(&self.root, "unmount", target, &error).hint(hint))
    }

    /// Returns a sentence about a placeholder that cannot be removed now, because somebody else has
    /// mounted something in it.
    fn foreign_on(&self, step: &Step) -> Option<String> {
        let Step::RemovePlaceholder { path, .. } = step else {
            return None;
        };
        let foreign = self
            .states(State::Foreign)
            .find(|foreign| foreign.starts_with(path))?;
        let (path, foreign) = (
            self.root.path().inside(path),
            self.root.path().inside(foreign),
        );
        Some(format!(
            "{path} stays: {foreign} is mounted there, and not by mountjail"
        ))
    }

    /// Returns an error for each mount of ours that has a foreign one on top.
    fn shadowed(&self) -> impl Iterator<Item = Error> {
        let shadowed = self
            .plan
            .states
            .iter()
            .filter(|state| state.state == State::Shadowed);
        shadowed.map(|state| {
            let (path, detail) = (
                self.root.path().inside(&state.target),
                state.detail.as_deref(),
            );
            Error::failed(format!(
                "{path} stays mounted: {}",
                detail.unwrap_or_default()
            ))
            .hint(format!("unmount that first: `umount {path}`"))
        })
    }

    /// Returns an error about the mount at `target` if somebody else has mounted something in it.
    fn foreign_in(&self, target: &JailPath) -> Option<Error> {
        let is_in = |path: &&JailPath| *path != target && path.starts_with(target);
        let foreign = self.states(State::Foreign).find(is_in)?;
        let (path, foreign) = (
            self.root.path().inside(target),
            self.root.path().inside(foreign),
        );
        let what =
            format!("{path} stays mounted: {foreign} is mounted in it, and not by mountjail");
        Some(Error::failed(what).hint(format!("unmount {foreign} first")))
    }

    fn remove(
        &mut self,
        path: &JailPath,
        kind: &CreatedKind,
        file: Option<Identity>,
        spots: &mut Spots<'_>,
    ) -> Result<()> {
        match self.remove_at(path, kind, file, spots) {
            Ok(true) => {}
            Ok(false) => self.left.push(path.clone()),
            Err(error) => return Err(cannot(&self.root, "remove", path, &error)),
        }
        Ok(())
    }

    /// `Ok(false)`: it has changed since it was made, and stays.
    fn remove_at(
        &self,
        path: &JailPath,
        kind: &CreatedKind,
        file: Option<Identity>,
        spots: &mut Spots<'_>,
    ) -> io::Result<bool> {
        match spots
            .on_mount(path)
            .and_then(|spot| spot.remove(kind, file))
        {
            Err(error) if is_absent(&error) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                let remove_in = |bare: &Root| {
                    let spot = bare.spot(path)?;
                    spot.stat()?;
                    spot.remove(kind, file)
                };
                match self.bare().map(remove_in) {
                    Some(Ok(removed)) => Ok(removed),
                    // It was made on another file system in the root.
                    Some(Err(error)) if is_absent(&error) && file.is_some() => self
                        .root
                        .spot(path)
                        .and_then(|spot| spot.remove(kind, file)),
                    Some(Err(error)) => Err(error),
                    None => Err(error),
                }
            }
            result => result,
        }
    }

    /// The root without anything mounted in it.
    fn bare(&self) -> Option<&Root> {
        let open = || {
            let fd = hidden::open(self.root.mount()?, self.plan.root.as_path()).ok()?;
            Root::of(fd, &self.plan.root).ok()
        };
        self.bare.get_or_init(open).as_ref()
    }
}

/// Opens the root. If another file system was mounted over it later, this is the root that holds
/// the mounts.
fn open(plan: &Plan) -> Result<Root> {
    let visible = Root::open(&plan.root);
    let mut holders = detaches(plan).filter_map(|(target, expected)| {
        let mount = sys::stat_mount(expected.unique_id?).ok()?;
        if mount.point != plan.root.inside(target).as_path() {
            return None;
        }
        let holder = sys::stat_mount(mount.parent).ok()?;
        let holds_root = plan.root.as_path().starts_with(&holder.point);
        holds_root.then_some(mount.parent)
    });
    let Some(id) = holders.next() else {
        return visible;
    };

    if visible.as_ref().is_ok_and(|root| root.mount() == Some(id)) {
        return visible;
    }
    hidden::open(id, plan.root.as_path())
        .and_then(|fd| Root::of(fd, &plan.root))
        .or(visible)
}

fn detaches(plan: &Plan) -> impl Iterator<Item = (&JailPath, &ObservedMount)> {
    plan.steps.iter().filter_map(|step| match step {
        Step::Detach {
            target, expected, ..
        } => Some((target, expected)),
        _ => None,
    })
}

/// Whether the mount `expected` is visible at `spot`.
fn is_at(spot: &Spot, expected: &ObservedMount) -> io::Result<bool> {
    is_found(expected, spot.mount()?, || spot.stat())
}

/// Whether the mount still exists somewhere, known by its unique mount ID. Then it must stay
/// recorded.
fn still_exists(mount: &RecordedMount) -> bool {
    mount.unique_id.is_some_and(sys::mount_exists)
}

/// The path in the jail that a step of `down` acts on.
fn path_of(step: &Step) -> Option<&JailPath> {
    match step {
        Step::Detach { target, .. } => Some(target),
        Step::RemovePlaceholder { path, .. } | Step::RemoveLink { path, .. } => Some(path),
        _ => None,
    }
}
