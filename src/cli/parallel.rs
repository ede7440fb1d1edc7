//! Sites side by side.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::context::is_set;
use super::out::Out;
use super::sites::Site;

/// Does `work` for each of `sites` in up to `threads` threads, until `stop`. Returns the results of those that
/// were begun, in the order of the sites.
pub(super) fn each<R: Send>(
    sites: &[Site],
    threads: usize,
    stop: &AtomicBool,
    out: &Out,
    work: impl Fn(&Site) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::default();
    let run = || {
        while !is_set(stop) {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(site) = sites.get(nth) else { break };
            let result = work(site);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((nth, result));
            out.advance();
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(sites.len()) {
            // Where the kernel gives no more threads, fewer do it.
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    out.progress_done();
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(nth, _)| *nth);
    results.into_iter().map(|(_, result)| result).collect()
}
