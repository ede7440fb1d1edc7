//! One site's way through the stages: load its manifest, lock it, resolve, observe, plan, carry
//! out.
//!
//! In: the names of sites, the configuration, the host. Out: what became of each site, in the order
//! of the sites. `up`, `down`, `plan`, `status`, `check`, `fstab` and the watcher all go this way
//! ([`pipeline`]); they differ in what they print and how they exit.

pub(crate) mod adopt;
pub(crate) mod apply;
pub(crate) mod boot;
pub(crate) mod bring_up;
pub(crate) mod check;
pub(crate) mod configuration;
pub(crate) mod context;
pub(crate) mod cost;
pub(crate) mod down;
pub(crate) mod down_in_services;
pub(crate) mod drop_ins;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod fstab;
pub(crate) mod gated_start;
pub(crate) mod insiders;
pub(crate) mod instances;
pub(crate) mod left_behind;
pub(crate) mod load;
mod log;
mod manifest_error;
pub(crate) mod manifest_file;
pub(crate) mod missing_program;
pub(crate) mod out;
pub(crate) mod parallel;
pub(crate) mod pipeline;
pub(crate) mod records;
pub(crate) mod remove;
pub(crate) mod select;
pub(crate) mod services;
mod settled;
pub(crate) mod site_list;
pub(crate) mod status;
pub(crate) mod systemctl;
pub(crate) mod templates;
pub(crate) mod trust;
pub(crate) mod unit_plan;
pub(crate) mod up;
pub(crate) mod users;
pub(crate) mod wrappers;

pub(crate) use context::Context;
pub(crate) use error::SiteError;
pub(crate) use manifest_error::{ManifestError, Reported};
pub(crate) use manifest_file::Site;
pub(crate) use out::Out;
pub(crate) use select::Selection;
