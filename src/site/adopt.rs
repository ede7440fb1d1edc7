//! One site whose root is full of copies: looks at the things in the way of its mounts, and moves
//! them aside.

use std::collections::BTreeSet;

use super::bring_up::lock;
use super::context::Purpose;
use super::pipeline::{MountLookup, Pipeline};
use super::{Context, Site, SiteError, load, manifest_file};
use crate::adopt::{self, AsideRecord, OwnThing, Standing, Survey};
use crate::base::quote::shell_path;
use crate::base::text::{few, plural};
use crate::base::{ErrorCode, ErrorContext, HostPath, JailPath};
use crate::engine::{self, Engine, GoesBack, PutBack};
use crate::observe::{self, Process, Table, unmount_command};
use crate::patience::Stop;
use crate::resolve::Host;
use crate::{Error, Result, sys};

/// How many paths are named.
const SHOWN: usize = 10;

/// How many paths are written into the command that would move them.
const TYPED: usize = 20;

/// Looks at sites, and changes nothing.
pub(crate) struct Examiner {
    pipeline: Pipeline,
    /// Things that are moved although they are the site's own.
    pub also: Vec<JailPath>,
}

/// The findings about one site.
#[derive(Clone)]
pub(crate) struct Examined {
    pub survey: Survey,
    /// The things that were moved aside before.
    pub record: Option<AsideRecord>,
    /// Sentences about what stays beside the mounts.
    pub stays: Vec<String>,
}

/// Moves things aside and puts them back, each with the site's lock held.
pub(crate) struct Adopter {
    context: Context,
    engine: Engine,
}

impl Examiner {
    pub(crate) fn new(context: &Context, also: Vec<JailPath>) -> Result<Self> {
        let pipeline = Pipeline::new(context.clone(), MountLookup::OneByOne)?;
        Ok(Self { pipeline, also })
    }

    pub(crate) fn site(&self, site: &Site) -> Result<Examined, SiteError> {
        let planned = self.pipeline.plan(site)?;
        let (desired, plan) = (&planned.desired, &planned.plan);
        let survey = adopt::survey(desired, &plan.in_the_way, &planned.observed);
        Ok(Examined {
            survey: survey.context(&site.name)?,
            record: adopt::read(&desired.root).context(&site.name)?,
            stays: adopt::leftovers(&self.pipeline.context.host, desired),
        })
    }
}

impl Examined {
    /// Whether there is something to do.
    pub(crate) fn is_something(&self) -> bool {
        !self.survey.standing.is_empty() || self.is_unfinished()
    }

    /// Whether a run was killed before the site came up.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.record.as_ref().is_some_and(AsideRecord::is_unsettled)
    }

    /// Why nothing is moved: some of it is the site's own, and not named in `also`.
    pub(crate) fn refusal(&self, also: &[JailPath]) -> Option<Error> {
        let Survey { site, root, .. } = &self.survey;
        let refused = self.survey.refused(also);
        if refused.is_empty() {
            return None;
        }
        let why: Vec<_> = refused
            .iter()
            .map(|own| format!("{}: {}", root.inside(&own.path), own.why))
            .collect();
        let error = Error::failed(format!(
            "{site}: {} in the way {} not a copy of the host's: {}",
            plural(refused.len(), "file"),
            if refused.len() == 1 { "is" } else { "are" },
            few(why, SHOWN)
        ));
        Some(error.hint(self.remedy(also)))
    }

    /// The same, for programs: an error for each path.
    pub(crate) fn refusals(&self, also: &[JailPath]) -> Vec<Error> {
        let Survey { site, root, .. } = &self.survey;
        let mut errors = vec![];
        for own in self.survey.refused(also) {
            let path = root.inside(&own.path);
            let error = Error::failed(format!(
                "{site}: {path} is in the way and not a copy of the host's: {}",
                own.why
            ));
            let error = error.coded(ErrorCode::Conflict).at(path);
            errors.push(error.hint(self.remedy(also)));
        }
        errors
    }

    fn remedy(&self, also: &[JailPath]) -> String {
        let refused = self.survey.refused(also);
        let fixed: Vec<_> = refused.iter().filter(|own| !own.movable).collect();
        if !fixed.is_empty() {
            let root = &self.survey.root;
            let unmount = |own: &&OwnThing| unmount_what_has(root, &root.inside(&own.path));
            let commands: BTreeSet<_> = fixed.iter().map(|own| unmount(own)).collect();
            return format!(
                "{}, or move away by hand what is in the way there",
                few(&commands, SHOWN)
            );
        }
        let mut paths: Vec<_> = also.to_vec();
        if refused.len() <= TYPED {
            paths.extend(refused.iter().map(|own| own.path.clone()));
        } else {
            let own = |standing: &&Standing| !standing.goes(also);
            let standing = self.survey.standing.iter().filter(own);
            paths.extend(standing.map(|standing| standing.path.clone()));
        }
        let words = uppermost(&paths)
            .into_iter()
            .map(|path| format!(" --also {}", shell_path(path.as_path())));
        format!(
            "`mountjail adopt --write {}{}` moves {} aside as well, or give the mounts other \
             targets",
            self.survey.site,
            words.collect::<String>(),
            if refused.len() == 1 { "it" } else { "them" },
        )
    }
}

/// The paths that are not below another one of them, each once.
fn uppermost(paths: &[JailPath]) -> BTreeSet<&JailPath> {
    let mut uppermost: BTreeSet<_> = paths.iter().collect();
    let is_below = |path: &JailPath| {
        let mut others = paths.iter();
        others.any(|other| other != path && path.starts_with(other))
    };
    uppermost.retain(|path| !is_below(path));
    uppermost
}

/// The remedy against the mount in `root` that `path` is on.
fn unmount_what_has(root: &HostPath, path: &HostPath) -> String {
    let point = || {
        let file = sys::open_host(path.as_path(), libc::O_PATH).ok()?;
        let id = sys::mount_id_in_table(&file).ok()?;
        let point = Table::read().ok()?.point_of(id)?;
        point.starts_with(root.as_path()).then_some(point)
    };
    match point() {
        Some(point) => unmount_command(root, &point),
        None => format!("unmount what is mounted at {path}"),
    }
}

impl Adopter {
    pub(crate) fn new(context: &Context, sites: usize) -> Result<Self> {
        let engine = context.engine(observe::boot_id()?, sites, Purpose::Mount)?;
        let context = context.clone();
        Ok(Self { context, engine })
    }

    /// Looks at the site again and moves aside what is in the way, unless something is refused.
    pub(crate) fn move_aside(
        &self,
        look: &Examiner,
        site: &Site,
        stop: &Stop,
    ) -> Result<Examined, SiteError> {
        let _lock = lock(&self.context, &self.engine, &site.name, stop)?;
        let found = look.site(site)?;
        let survey = &found.survey;
        if survey.refused(&look.also).is_empty() && !survey.standing.is_empty() {
            let standing: Vec<_> = survey.standing.iter().collect();
            engine::move_aside(&survey.root, &standing, stop).map_err(SiteError::Engine)?;
        }
        Ok(found)
    }

    /// Remembers that the site is up without what was moved aside.
    pub(crate) fn settle(&self, site: &Site, root: &HostPath, stop: &Stop) -> Result<()> {
        let _lock = lock(&self.context, &self.engine, &site.name, stop)?;
        engine::settle(root).context(&site.name)
    }

    /// Puts things back. `None`: nothing was moved aside.
    pub(crate) fn put_back(
        &self,
        site: &Site,
        root: &HostPath,
        which: GoesBack,
        stop: &Stop,
    ) -> Result<Option<PutBack>> {
        let _lock = lock(&self.context, &self.engine, &site.name, stop)?;
        engine::put_back(root, which).context(&site.name)
    }
}

/// The root of the site, and what was moved aside in it. `None`: nothing was, or there is no root.
pub(crate) fn moved_aside(
    context: &Context,
    site: &Site,
) -> Result<Option<(HostPath, AsideRecord)>, SiteError> {
    let recorded = || {
        let boot = observe::boot_id().ok()?;
        let records = context.state.read(&site.name, &boot).ok()?;
        records.root().cloned()
    };
    let Some(root) = manifest_file::root_of(site).or_else(recorded) else {
        return Err(match load::manifest(context, site) {
            Err(error) => error.into(),
            Ok(_) => Error::failed(format!("{}: its root is not known", site.name)).into(),
        });
    };
    let Ok(walk) = Host::new().walk(&root) else {
        return Ok(None);
    };
    let record = adopt::read(&walk.real).context(&site.name)?;
    Ok(record.map(|record| (walk.real, record)))
}

/// The processes inside `root`, which keep the files that they have open.
pub(crate) fn running_inside(root: &HostPath) -> Vec<Process> {
    sys::file_known_at(root.as_path())
        .map(observe::inside)
        .unwrap_or_default()
}
