//! Sites side by side, none of which can stop the others.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::context::Context;
use super::{Site, SiteError};
use crate::Error;
use crate::base::sync::threads_for;
use crate::patience::{Crew, Lost, Stop};

/// Does `work` for each of `sites` in `threads` threads, until `stop` is set. Returns the results
/// of the sites that were begun, in their order. A site whose file systems do not answer is given
/// up, which is an error of that site.
pub(crate) fn each<R: Send + 'static, E: From<SiteError> + Send + 'static>(
    context: &Context,
    sites: &[Site],
    threads: usize,
    stop: &Arc<AtomicBool>,
    work: impl Fn(&Site, &Stop) -> Result<R, E> + Send + Sync + 'static,
) -> Vec<Result<R, E>> {
    let out = context.out;
    let work = move |site: &Site, stop: &Stop| {
        let result = work(site, stop);
        out.advance();
        result
    };
    let results = Crew::start(sites.to_vec(), threads, context.limit, stop, work).finish();
    out.progress_done();

    let mut ends = vec![];
    for (site, result) in sites.iter().zip(results) {
        ends.push(result.unwrap_or_else(|why| Err(lost(site, &why).into())));
    }
    ends
}

/// As [`each`], for work that changes nothing: there is no need to stop it.
pub(crate) fn look<R: Send + 'static, E: From<SiteError> + Send + 'static>(
    context: &Context,
    sites: &[Site],
    work: impl Fn(&Site) -> Result<R, E> + Send + Sync + 'static,
) -> Vec<Result<R, E>> {
    let work = move |site: &Site, _: &Stop| work(site);
    each(
        context,
        sites,
        threads_for(sites.len()),
        &Arc::default(),
        work,
    )
}

/// As [`each`], for one site.
pub(crate) fn one<R: Send + 'static>(
    context: &Context,
    site: &Site,
    stop: &Arc<AtomicBool>,
    work: impl Fn(&Site, &Stop) -> Result<R, SiteError> + Send + Sync + 'static,
) -> Result<R, SiteError> {
    let mut results = each(context, std::slice::from_ref(site), 1, stop, work);
    match results.pop() {
        Some(result) => result,
        None => Err(Error::interrupted(format!("{}: stopped by a signal", site.name)).into()),
    }
}

/// Why there is no result for a site.
pub(crate) fn lost(site: &Site, why: &Lost) -> SiteError {
    let name = &site.name;
    SiteError::from(match why {
        Lost::Silent(silence) => silence.error().context(name),
        Lost::Broken => Error::failed(format!("{name}: mountjail itself failed, see above")),
    })
}
