//! The things in a root where mounts belong: copies of the host's files, or something of the
//! site's own.
//!
//! In: what is in the way of a plan, the root, the host. Out: a [`Survey`], which says what each
//! thing is. Nothing is changed here; `engine` moves what is to be moved.
//!
//! The root is its owner's. Every file in it is reached from the root's open directory, no link is
//! followed, no other mount is entered, and nothing but regular files and directories is opened.

mod compare;
mod judge;
mod leftovers;
mod look;
mod record;
mod survey;
mod tree;

pub(crate) use leftovers::leftovers;
pub(crate) use look::survey;
pub(crate) use record::{
    AsideRecord, DIRECTORY, Modified, Moved, RECORD, name_of_directory, open_directory, read,
    read_in,
};
pub(crate) use survey::{Class, OwnThing, Standing, Survey};
pub(crate) use tree::tree;
