//! mountjail: read-only bind mounts for chrooted services.
//!
//! Data flows one way. A site's YAML text becomes a [`manifest::Manifest`]; with the host it
//! becomes a [`resolve::Desired`]; the kernel's mount table and the records become an
//! [`observe::Observed`]; both together become a [`plan::Plan`], which [`engine`] carries out and
//! [`render`] shows. Beside this way, [`import`] makes manifests of other programs' configuration;
//! [`doctor`] tries whether a site that is up works inside, by processes that enter it as [`jail`]
//! does; [`trace`] finds out what is missing in one; [`watch`] tells which sites have to go it
//! again. Later stages import earlier ones' types, never the reverse; [`patience`], [`sys`],
//! [`error`] and [`quote`] are below all of them.

pub mod cli;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod import;
pub mod jail;
pub mod manifest;
pub mod observe;
pub mod patience;
pub mod plan;
pub mod quote;
pub mod render;
pub mod resolve;
pub mod sys;
pub mod trace;
pub mod watch;

pub use error::{Error, Result};
