//! The kernel's mount table and the records → [`Observed`].
//!
//! In: a [`Desired`](crate::resolve::Desired) (so that it knows where to look), the kernel, the records.
//! Out: what stands at each target, each directory on the way and each link, and what of it is recorded.
//! It reads; it never changes anything.

mod record;
mod types;

pub use record::{BootId, Kept, Made, MadeKind, Record, RecordedMount};
pub use types::{Observed, Seen, SeenMount};
mod local;
pub use local::{StateDir, Table};
