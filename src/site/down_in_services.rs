//! Takes sites down in the mount namespaces of their services: in all of them or, if one is in use,
//! in none.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::down::{DownError, DownOptions, TakeDown, TakenDown};
use super::services::{InPlaces, Namespaces, ServedSite};
use super::{Context, Site, parallel};
use crate::Result;
use crate::base::SiteName;
use crate::base::sync::lock;
use crate::patience::Stop;
use crate::sys::IfInUse;

/// An unmount waits for the kernel's RCU grace period, outside of any lock: many threads can wait
/// at the same time.
pub(crate) const THREADS: usize = 32;

/// Takes the sites down in these namespaces by `take`, which is called for each site in each
/// namespace. `None` in the result: the site was left, because taking it down failed elsewhere.
pub(crate) fn down_in_services(
    context: &Context,
    sites: &[Site],
    options: DownOptions,
    stop: &Arc<AtomicBool>,
    take: impl Fn(&TakeDown, &Site, &Stop) -> Result<TakenDown, DownError>
    + Copy
    + Send
    + Sync
    + 'static,
) -> Result<InPlaces<Option<TakenDown>, DownError>> {
    let namespaces = Namespaces::find(context)?;
    let served: Vec<ServedSite> = sites.iter().map(|site| (site.clone(), vec![])).collect();
    let failed: Mutex<BTreeSet<SiteName>> = Mutex::default();
    let in_each = |own: Context, here: &[Site], step: InEach| {
        let own: &'static Context = Box::leak(Box::new(own));
        let run = TakeDown::new(own, here.len(), options)?;
        let skipped = lock(&failed).clone();
        let work = move |site: &Site, stop: &Stop| match step {
            _ if skipped.contains(&site.name) => Ok(None),
            InEach::Look => run.look(site).map(|_| None),
            InEach::Take => take(&run, site, stop).map(Some),
        };
        let results: Vec<Result<_, DownError>> = parallel::each(own, here, THREADS, stop, work);
        let ends = here.iter().zip(&results);
        let ends = ends.filter(|(_, result)| result.is_err());
        lock(&failed).extend(ends.map(|(site, _)| site.name.clone()));
        Ok(results)
    };

    let mut found: InPlaces<_, _> = match options.if_in_use {
        IfInUse::Fail => namespaces.each(context, &served, |own, here| {
            in_each(own, here, InEach::Look)
        }),
        IfInUse::Detach => InPlaces::new(),
    };
    let taken = namespaces.each(context, &served, |own, here| {
        in_each(own, here, InEach::Take)
    });
    for (site, results) in taken {
        found.entry(site).or_default().extend(results);
    }
    Ok(found)
}

/// The work in each namespace.
#[derive(Clone, Copy)]
enum InEach {
    /// Find out whether the site is in use.
    Look,
    Take,
}
