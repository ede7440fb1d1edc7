//! Sites side by side, none of which can stop the others.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Site;
use super::SiteError;
use super::context::Context;
use crate::Error;
use crate::patience::{Crew, Lost, Stop};

/// Does `work` for each of `sites`, `threads` at a time, until `stop`. Returns the results of those
/// that were begun, in the order of the sites. One whose file systems do not answer is given up, as
/// an error of its own.
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
    let result = |(site, result): (&Site, Result<_, _>)| {
        result.unwrap_or_else(|why| Err(lost(site, &why).into()))
    };
    sites.iter().zip(results).map(result).collect()
}

/// As [`each`], for one site.
pub(crate) fn one<R: Send + 'static>(
    context: &Context,
    site: &Site,
    stop: &Arc<AtomicBool>,
    work: impl Fn(&Site, &Stop) -> Result<R, SiteError> + Send + Sync + 'static,
) -> Result<R, SiteError> {
    let results = each(context, std::slice::from_ref(site), 1, stop, work);
    let stopped = || Error::interrupted(format!("{}: stopped by a signal", site.name));
    results
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(stopped().into()))
}

/// Why there is no result of a site.
pub(crate) fn lost(site: &Site, why: &Lost) -> SiteError {
    match why {
        Lost::Silent(silence) => silence.error().context(&site.name),
        Lost::Broken => Error::failed(format!("{}: mountjail itself failed, see above", site.name)),
    }
    .into()
}

/// As many threads as there are processors.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
