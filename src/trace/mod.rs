//! A running process and a root → the paths that the process looked up inside and did not find, and
//! the lines of a manifest that would bring them.
//!
//! In: processes to follow, the root, the host. Out: [`Misses`](miss::Misses), then [`Advice`].
//! Processes are followed by ptrace(2), which stops them at the beginning and at the end of each
//! system call. A seccomp filter would stop them only at the few calls that matter, but it makes
//! these calls fail with ENOSYS once the tracer is gone, and a program must outlive its trace.
//! Nothing here writes to a file or changes what it follows.

mod advice;
mod advisor;
mod attach;
mod call;
mod denied;
mod follow;
mod lookup;
mod miss;
mod on_host;
mod packages;
mod tracee;

pub(crate) use advice::{Advice, AdvisedLine};
pub(crate) use advisor::{Advisor, SortedMisses};
pub(crate) use attach::attach;
pub(crate) use follow::{Follower, PAUSE, TraceEnd, TraceResult};
pub(crate) use miss::Miss;
