//! mountjail: read-only bind mounts for chrooted services.
//!
//! Data flows one way. A site's YAML text becomes a [`manifest::Manifest`]; with the host it
//! becomes a [`resolve::Desired`]; the kernel's mount table and the records become an
//! [`observe::Observed`]; both together become a [`plan::Plan`], which [`engine`] carries out and
//! [`render`] shows. [`site`] takes one site this way, for [`cli`] once and for [`watch`] again and
//! again.
//!
//! Beside this way, [`adopt`] tells copies of the host's files in a root from what is the site's
//! own; [`import`] makes manifests from other programs' configuration; [`doctor`] tests from inside
//! whether a site works, by processes that enter its root as [`jail`] does; [`trace`] finds out
//! what a program misses there.
//!
//! Later rooms import the types of earlier ones, never the reverse. [`base`], [`sys`] and
//! [`patience`] are below all of them.
//!
//! Nothing here is an interface for other crates: what is public is so for the program, its tests
//! and its fuzzers, is hidden in the documentation, and changes without notice. Other programs read
//! what commands print with `--json`.

#![warn(unreachable_pub)] // pub(crate) by default

mod adopt;
#[doc(hidden)]
pub mod base;
#[doc(hidden)]
pub mod cli;
mod doctor;
mod engine;
#[doc(hidden)]
pub mod import;
mod jail;
#[doc(hidden)]
pub mod manifest;
#[doc(hidden)]
pub mod observe;
mod patience;
#[doc(hidden)]
pub mod plan;
mod render;
#[doc(hidden)]
pub mod resolve;
mod site;
#[doc(hidden)]
pub mod sys;
#[doc(hidden)]
pub mod trace;
mod watch;

#[doc(hidden)]
pub use base::{Error, Result};
