//! The closure of a program: interpreters and shared libraries, found as the dynamic loader finds
//! them.
//!
//! In: a program or shared object on the [`Host`](super::Host). Out: its [`Closure`]. Files are
//! parsed, never executed, and never read whole. glibc's loader is followed as of 2.33 and later
//! (`elf/dl-load.c`), musl's as of 1.2 (`ldso/dynlink.c`). The environment does not count: a
//! service has its own. Two things are left out on purpose: `/etc/ld.so.preload`, which a jail does
//! not have, and the legacy hwcap subdirectories (`tls`, `haswell`) that glibc 2.37 dropped.

mod by_name;
pub mod cache;
mod closure;
mod code;
mod conf;
pub mod elf;
mod interpreter;
mod load;
mod loader;
mod loader_file;
mod objects;
mod process;
pub mod script;
mod search;
mod system;
mod tokens;

pub use closure::{Closure, Interpreter, RealProgram};
pub(crate) use code::{Code, is_library_name};
pub(crate) use interpreter::{interpreter_of, is_musls};
pub use loader::Loader;
pub(super) use loader::{LoaderCache, OpenError};
pub use objects::Needed;
