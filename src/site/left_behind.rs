//! What is left of a site where its mounts belonged before its scope was changed: on the host, or
//! in the mount namespaces of services.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::bring_up::BringUp;
use super::context::Context;
use super::down::{DownError, DownOptions, TakeDown};
use super::down_in_services::THREADS;
use super::pipeline::{self, MountLookup, Pipeline};
use super::services::{InPlaces, Namespaces, ServedSite, ServicePlace};
use super::users::SiteUsers;
use super::{Site, SiteError, manifest_file, parallel, records};
use crate::Result;
use crate::base::{ErrorContext, SiteName};
use crate::observe::{self, Depth, NamespaceDirectories, Table};
use crate::patience::Stop;
use crate::plan::{self, Plan};
use crate::resolve::{Desired, Host};
use crate::sys::{self, IfInUse};

/// How a site leaves a place: as long as it is in use there, it does not.
pub(crate) const LEAVING: DownOptions = DownOptions {
    if_in_use: IfInUse::Fail,
    remove_placeholders: false,
    only_recorded: false,
};

/// What became of a site of the host in the mount namespace of a service.
pub(crate) enum Left {
    /// It was taken down there, and so many mounts were detached.
    Gone(usize),
    /// It is in use there, by these. Until it is not, it is kept as its manifest asks for.
    InUse(Vec<String>),
    /// The host's mounts do not appear there, or cannot be told from its own, so it is kept as its
    /// manifest asks for.
    Apart,
}

/// Takes sites, which are up on the host, down in the mount namespaces of services.
pub(crate) fn leave_services(
    context: &Context,
    sites: &[Site],
    stop: &Arc<AtomicBool>,
) -> Result<InPlaces<Left, SiteError>> {
    let left = left_in_services(context, sites);
    if left.is_empty() {
        return Ok(InPlaces::new());
    }
    let (namespaces, host) = (Namespaces::find(context)?, Arc::new(Table::read()?));
    Ok(namespaces.each(context, &left, |own, here| {
        leave(own, here, host.clone(), stop)
    }))
}

/// Those of `sites` that a service may have in its mount namespace.
fn left_in_services(context: &Context, sites: &[Site]) -> Vec<ServedSite> {
    let directories = NamespaceDirectories::list(&context.state);
    let mut left = vec![];
    for site in sites {
        if directories.may_have(&site.name) {
            left.push((site.clone(), vec![]));
        }
    }
    left
}

/// In one of these namespaces.
fn leave(
    own: Context,
    here: &[Site],
    host: Arc<Table>,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<Result<Left, SiteError>>> {
    let own: &'static Context = Box::leak(Box::new(own));
    let leaving = DownOptions {
        only_recorded: true,
        ..LEAVING
    };
    let down = TakeDown::new(own, here.len(), leaving)?;
    let up = BringUp::new(own.clone(), MountLookup::OneByOne, here.len())?;
    let leave = move |site: &Site, stop: &Stop| {
        let left = if sees_the_hosts_mounts(site, &host)? {
            match down.site(site, stop) {
                Ok(down) => return Ok(Left::Gone(down.outcome.detached)),
                Err(DownError::InUse(_, by)) => Left::InUse(by),
                Err(DownError::Failed(failed)) => return Err(failed),
            }
        } else {
            Left::Apart
        };
        up.site(site, stop)?;
        Ok(left)
    };
    Ok(parallel::each(own, here, THREADS, stop, leave))
}

/// Whether the host's mounts of the site appear in this mount namespace, which is a slave of the
/// host's as far as that one's mounts are shared. `host`: those that are there now. Before Linux
/// 6.8 nothing tells them from the namespace's own, which then count as all that is there.
fn sees_the_hosts_mounts(site: &Site, host: &Table) -> Result<bool> {
    if !sys::probe::statmount() {
        return Ok(false);
    }
    let Some(root) = manifest_file::root_of(site) else {
        return Ok(false);
    };
    let walk = Host::new().walk(&root);
    let real = walk
        .map_err(|error| error.error(format!("{}: cannot find {root}", site.name)))?
        .real;
    let id = sys::open_host(real.as_path(), libc::O_PATH | libc::O_DIRECTORY)
        .and_then(sys::mount_id_in_table)
        .context(format_args!("{}: cannot look at {real}", site.name))?;
    let here = Table::read()?;
    Ok(here.follows(id) && here.shows_all_of(host, real.as_path()))
}

/// The mount namespaces in which a site of the host is left.
pub(crate) fn places(context: &Context, site: &SiteName) -> Result<Vec<ServicePlace>> {
    if !NamespaceDirectories::list(&context.state).may_have(site) {
        return Ok(vec![]);
    }
    let namespaces = Namespaces::find(context)?;
    let those = namespaces.of(context, site, &[]);
    Ok(those.into_iter().map(ServicePlace::of).collect())
}

/// The steps that take a site out of a place, now that its scope was changed.
pub(crate) enum Leaving {
    Steps(Plan),
    /// It is in use there, by these.
    InUse(Vec<String>),
}

impl Leaving {
    /// Whether anything would be done.
    pub(crate) fn is_change(&self) -> bool {
        match self {
            Self::Steps(plan) => !plan.steps.is_empty(),
            Self::InUse(_) => false,
        }
    }
}

/// How sites of the host leave the mount namespaces of services. `None`: a site stays in one, for
/// the host's mounts do not appear there.
pub(crate) fn plans_in_services(
    context: &Context,
    sites: &[Site],
) -> Result<InPlaces<Option<Leaving>, SiteError>> {
    let left = left_in_services(context, sites);
    if left.is_empty() {
        return Ok(InPlaces::new());
    }
    let host = Arc::new(Table::read()?);
    let plans = |own: Context, here: &[Site]| {
        let host = host.clone();
        let pipeline = Pipeline::new(own, MountLookup::WholeTable)?;
        let context = pipeline.context.clone();
        let plan = move |site: &Site| {
            if sees_the_hosts_mounts(site, &host)? {
                plan(&pipeline, site, true).map(Some)
            } else {
                Ok(None)
            }
        };
        Ok(parallel::look(&context, here, plan))
    };
    Ok(Namespaces::find(context)?.each(context, &left, plans))
}

/// How a site of services leaves the host; `None`: it is not there. `is_served`: a service has it,
/// or will have it by then.
pub(crate) fn plan_on_host(
    context: &Context,
    site: &Site,
    is_served: bool,
) -> Result<Option<Leaving>, SiteError> {
    if !context.state.record(&site.name).exists() {
        return Ok(None);
    }
    let pipeline = Pipeline::new(context.clone(), MountLookup::WholeTable)?;
    plan(&pipeline, site, is_served).map(Some)
}

/// `stays`: what was made in the root stays, because other namespaces have mounts on it.
fn plan(pipeline: &Pipeline, site: &Site, stays: bool) -> Result<Leaving, SiteError> {
    let (context, name) = (&pipeline.context, &site.name);
    let records = records::read(context, name, &pipeline.boot).context(name)?;
    let Some(root) = records.home(|| manifest_file::root_of(site)) else {
        return Ok(Leaving::InUse(vec![]));
    };
    let nothing = Desired::nothing(name, &root);
    let table = Table::read()?;
    let observed = observe::standing(&nothing, records.moved_to(&root), &table);
    let users = SiteUsers::default();
    let used = users.of(&root, &observed, Depth::All).context(name)?;
    if !used.by.is_empty() {
        return Ok(Leaving::InUse(used.by));
    }
    let plan = plan::down(name, &root, Some(&nothing), &observed);
    let stays = stays || pipeline::is_in_a_namespace(context, &pipeline.boot, name);
    Ok(Leaving::Steps(if stays {
        plan.only_mounts()
    } else if observe::shared_storage(&root).context(name)?.is_some() {
        plan.keeping_placeholders()
    } else {
        plan
    }))
}
