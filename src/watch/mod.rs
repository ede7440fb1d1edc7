//! What the sites depend on, and what the kernel says happened → which sites need a pass, and when.
//!
//! In: the [`Lookups`](crate::resolve::Lookups) of every site that is up, the ids of its mounts;
//! events of inotify(7) and of the mount table. Out: who is due. It reads events and sets watches;
//! it resolves, mounts and writes nothing, and does not know what a pass is. `index`, `gather` and
//! `ids` are pure: time comes in as a value.

mod directories;
mod files;
mod gather;
mod ids;
mod index;
mod learned;
mod mounts;
mod watcher;

pub use gather::Gather;
pub use ids::{Affected, MountIds};
pub use index::{Event, Index, User};
pub use learned::{Learned, RecordId};
pub use mounts::{MountSource, MountsChanged};
pub use watcher::Watcher;
