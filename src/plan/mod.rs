//! Desired × Observed → [`Plan`]: pure; no file system, no clock, no environment.
//!
//! In: what a site needs and what the kernel has. Out: the state of every mount, and the steps from
//! one to the other, in the order in which they are carried out.

mod compare;
mod down;
mod placeholders;
mod site;
mod step;
mod up;

pub use down::down;

pub use site::SiteState;
pub use step::{MountState, Plan, State, Step};
pub use up::up;
