//! Keeps sites right while the host changes: what they depend on, what the kernel reports, and the
//! passes over sites that follow.
//!
//! In: the [`Dependencies`](crate::resolve::Dependencies) of every site that is up and the ids of
//! its mounts; events of inotify(7) and of the mount table. Out: the sites that are due, taken
//! through [`site`](crate::site) again; lines for the journal; the watcher's state for `status`.
//! `index`, `scheduler`, `ids` and `rate_limit` are pure: time comes in as a value.

mod configuration;
mod daemon;
mod directories;
mod grace;
mod ids;
mod index;
mod inotify;
mod mount_events;
mod once;
mod only_one;
mod pass;
mod pass_result;
mod rate_limit;
mod reporter;
mod scheduler;
mod signals;
mod watcher;

pub(crate) use daemon::keep_watching;
pub(crate) use once::{CheckedOnce, look_once};
