//! The vocabulary of all other rooms: paths and names that are valid, mount attributes, the error
//! type, text.
//!
//! Nothing here knows a manifest, asks the kernel or reads a file.

mod attributes;
mod error;
mod extent;
mod file_system;
pub(crate) mod hints;
mod path;
pub mod quote;
pub(crate) mod style;
pub(crate) mod sync;
pub(crate) mod text;

pub use attributes::MountAttributes;
pub use error::{Error, ErrorCode, ErrorKind, Result};
pub(crate) use error::{ErrorContext, in_words};
pub use extent::Extent;
pub use file_system::{FileSystem, STICKY, bytes};
pub use path::{BadPath, HostPath, JailPath, SiteName};
pub(crate) use path::{MAX_LINKS, SEARCH_PATH, follow_links, is_searched, lexical};
