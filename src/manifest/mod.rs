//! YAML text → validated [`Manifest`]; presets and their merging.
//!
//! In: the text of a site's file and of the presets. Out: a [`Manifest`], or every error of the
//! file at once. Pure: nothing here reads a file, the clock or the environment.

mod check;
mod diagnostic;
mod edit;
mod entries;
mod grammar;
mod grammar_keys;
mod items;
mod locate;
mod node;
mod parsed;
mod presets;
mod schema;
mod source;
mod words;

pub use crate::base::{BadPath, HostPath, JailPath, SiteName};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use edit::{Addition, CannotAdd, add as add_items};
pub use entries::{
    Access, Entry, Manifest, MountRequest, Origin, Pattern, Request, SourceFile, Wanted,
};
pub use locate::{key_position, position};
pub use presets::Presets;
pub use schema::{preset_schema, site_schema};
pub use source::{MAX_BYTES, decode, parse, root_of};
