//! Desired × Observed → [`Plan`]. This stage is pure: it uses no file system, no clock and no
//! environment.
//!
//! In: what a site needs and what the kernel has. Out: the state of every mount, and the steps to
//! the desired state in the order in which they are carried out.

mod altered;
mod change;
mod compare;
mod down;
mod graft;
mod mount_change;
mod placeholders;
mod site;
mod state;
mod step;
mod up;

pub use change::GraftChange;
pub(crate) use compare::is_taken_over;
pub use down::down;
pub use graft::{Graft, Sharing, Template};
pub(crate) use mount_change::MountChange;
pub use site::SiteState;
pub use state::{MountState, State};
pub use step::{Along, Plan, Step};
pub use up::up;
