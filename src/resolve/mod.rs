//! Manifest + host → [`Desired`]: every path that a process in the jail looks up leads to the
//! same file as on the host.
//!
//! In: a [`Manifest`](crate::manifest::Manifest), the host's files, what is in the root. Out: the
//! mounts, links and generated files that the site needs on this host now, sorted and
//! deterministic, each with its reason. This stage only reads: it never writes, mounts or executes
//! anything.
//!
//! `host`, `walk`, `files` and `ownership` look at the host; `ldso` knows what programs need;
//! `expand` resolves one request; `template` puts the requests of a manifest together; `resolver`
//! does all that for a site.

mod dedup;
mod dependencies;
mod desired;
mod expand;
mod files;
mod gathered;
mod generated;
mod host;
mod include_lines;
mod includes;
mod item;
mod jail_links;
mod layout;
pub mod ldso;
mod link_targets;
mod lookup_error;
mod made;
mod nested;
mod nss;
mod objects;
mod once;
mod others;
mod own;
mod ownership;
mod parents;
mod parts;
mod pattern;
mod place;
mod proc;
mod program_lines;
mod resolver;
mod restrictions;
mod rights;
mod root;
mod roots;
mod route;
mod shared;
mod system_directories;
mod too_much;
mod top_links;
mod users;
mod walk;
mod why;

pub use crate::base::MountAttributes;
pub use dependencies::{Aspect, Dependencies};
pub use desired::{
    Cause, Desired, FileId, FileKind, GeneratedFile, Link, Mount, Note, OwnDirectory, Ownership,
    Reason,
};
pub use host::Host;
pub(crate) use ldso::interpreter_of;
pub(crate) use link_targets::may_be_brought;
pub use lookup_error::LookupError;
pub(crate) use nss::services as name_services;
pub use others::Others;
pub(crate) use proc::WITHOUT_PROC;
pub(crate) use program_lines::{OwnProgram, ProgramLine, ProgramLines, without_version};
pub use resolver::{Resolution, ResolvedPreset, Resolver};
pub(crate) use restrictions::{remount_for_execution, to_allow_execution};
pub use root::root_id;
pub(crate) use root::{nearest_existing, refuse_system};
pub use roots::{Overlap, Roots};
pub(crate) use users::WHERE as WHERE_USERS_ARE;
pub use walk::{LinkOnTheWay, Walk};
pub(crate) use why::{Below, Explanation, below, nothing_at, why};
