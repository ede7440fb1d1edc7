//! One run of `up`, and what it has done so far.

use super::site_record::kept_before;
use crate::base::{JailPath, Result};
use crate::engine::backend::Backend;
use crate::engine::journal;
use crate::engine::mounter::Mounter;
use crate::engine::outcome::{Log, Outcome};
use crate::engine::root::Root;
use crate::engine::setup::Engine;
use crate::engine::undo::Undo;
use crate::observe::{Observed, PersistentRecord, RecordedMount};
use crate::patience::Stop;
use crate::plan::Plan;

pub(super) struct UpRun<'a, B: Backend> {
    pub engine: &'a Engine,
    pub mounter: &'a Mounter<B>,
    pub plan: &'a Plan,
    pub observed: &'a Observed,
    pub root: Root,
    pub stop: &'a Stop,
    pub log: Log<'a>,
    pub kept: PersistentRecord,
    /// The persistent record as it was last written.
    pub written: PersistentRecord,
    /// The mounts recorded before the first change: the existing ones and those to be made.
    pub intent: Vec<RecordedMount>,
    pub undo: Vec<Undo<B>>,
    /// Paths that were to be removed but have changed since they were made.
    pub left: Vec<JailPath>,
    pub outcome: Outcome,
}

impl<'a, B: Backend> UpRun<'a, B> {
    pub(super) fn new(
        engine: &'a Engine,
        mounter: &'a Mounter<B>,
        plan: &'a Plan,
        observed: &'a Observed,
        stop: &'a Stop,
        log: Log<'a>,
    ) -> Result<Self> {
        Ok(Self {
            engine,
            mounter,
            plan,
            observed,
            root: Root::of_plan(plan, observed)?,
            stop,
            log,
            kept: kept_before(plan, observed),
            written: journal::known_kept(plan, observed),
            intent: vec![],
            undo: vec![],
            left: vec![],
            outcome: Outcome::default(),
        })
    }
}
