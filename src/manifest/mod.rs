//! YAML text → validated [`Manifest`]; presets, defaults and their merging.
//!
//! In: the text of a site's file, of the presets and of the defaults. Out: a [`Manifest`], or every
//! error of the files at once. Pure: nothing here reads a file, the clock or the environment.

mod check;
mod defaults;
mod diagnostic;
mod edit;
mod entries;
mod grammar;
mod grammar_keys;
mod instances;
mod items;
mod locate;
mod node;
mod own;
mod parsed;
mod presets;
mod root_line;
mod schema;
mod source;
mod specifiers;
mod words;

pub use crate::base::{BadPath, HostPath, JailPath, SiteName};
pub use diagnostic::{Diagnostic, Diagnostics};
pub(crate) use edit::yaml_scalar;
pub use edit::{Addition, CannotAdd, DirectoryOwner, add as add_items};
pub use entries::{
    Access, CodeName, DirectoryRequest, Entry, Manifest, MountRequest, Origin, Pattern, Request,
    Scope, SourceFile, Wanted,
};
pub use instances::{InstancePattern, Instances, instance_of, template_name};
pub use locate::{key_position, position};
pub use presets::Presets;
pub use schema::{defaults_schema, preset_schema, site_schema, template_schema};
pub use source::{MAX_BYTES, decode, entries_of, instances, parse, root_of};
