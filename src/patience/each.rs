//! Questions about many items, of which none keeps the others waiting.

use std::sync::Arc;
use std::time::Duration;

use super::Stop;
use super::crew::Crew;
use crate::base::sync::threads_for;

/// So many items are worth a thread more.
const WORTH_A_THREAD: usize = 50;

/// The result of `work` for each of `items`, which changes nothing; `None` for those that sleep as
/// long as `limit`. These do not keep the others waiting.
pub(crate) fn each_within<T: Send + Sync + 'static, R: Send + 'static>(
    items: Vec<T>,
    limit: Option<Duration>,
    work: impl Fn(&T) -> R + Send + Sync + 'static,
) -> Vec<Option<R>> {
    let threads = threads_for(items.len().div_ceil(WORTH_A_THREAD));
    let work = move |item: &T, _: &Stop| work(item);
    let crew = Crew::start(items, threads, limit, &Arc::default(), work);
    crew.finish().into_iter().map(Result::ok).collect()
}
