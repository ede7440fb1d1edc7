//! Desired or Plan → text, JSON, metrics, fstab(5): pure.

pub mod fstab;
pub mod json;
pub mod prometheus;
pub mod systemd;
pub mod text;
