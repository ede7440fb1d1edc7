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

mod adopt;
pub mod base;
pub mod cli;
mod doctor;
mod engine;
pub mod import;
mod jail;
pub mod manifest;
pub mod observe;
mod patience;
pub mod plan;
mod render;
pub mod resolve;
mod site;
pub mod sys;
pub mod trace;
mod watch;

pub use base::{Error, Result};
