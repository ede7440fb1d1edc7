//! A running process and a root → the paths that it looked up inside and did not find, and what
//! would bring them.
//!
//! In: processes to follow, the root that counts, the host. Out: [`Misses`], then [`Advice`]: which
//! line of a manifest brings which of them. Following is by ptrace(2), one stop at each entry into
//! a system call and one at its exit. A seccomp filter would stop at the few calls that matter
//! alone, but once nobody traces any more, it makes them fail with ENOSYS, and a program has to
//! outlive its trace. Nothing here writes to a file or changes what it follows.

mod advice;
mod attach;
mod call;
mod follow;
mod lookup;
mod miss;
mod on_host;

pub use advice::{Advice, AdviceContext, AdvisedLine, PresetContents, advise};
pub use attach::attach;
pub use follow::{Follower, TraceEnd, TraceResult};
pub use miss::{Miss, Misses};
pub use on_host::{MissKind, MissOnHost, look};
