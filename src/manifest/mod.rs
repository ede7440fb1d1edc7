//! YAML text → validated [`Manifest`]; presets and their merging.
//!
//! In: the text of a site's file and of the presets. Out: a [`Manifest`], or every error of the file at
//! once. Pure: nothing here reads a file, the clock or the environment.

mod path;
mod types;

pub use path::{BadPath, HostPath, JailPath, SiteName};
pub use types::{Access, Entry, Manifest, MountRequest, Origin, Pattern, Request, SourceFile, Wanted};
