//! Manifest + host → [`Desired`]: every path that a process in the jail will look up leads to the same
//! file as on the host.
//!
//! In: a [`Manifest`](crate::manifest::Manifest), the host's files, what stands in the root. Out: the
//! mounts, links and generated files that the site needs on this host now, sorted and deterministic, each
//! with the reason it is there. It reads; it never writes, mounts or executes anything.

mod host;
pub mod ldso;
mod types;

pub use host::{Host, LinkOnTheWay, LookupError, Walk};
pub use types::{Cause, Desired, FileId, FileKind, GeneratedFile, Link, Mount, Note, Options, Reason};
