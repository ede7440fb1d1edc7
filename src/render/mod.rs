//! Shows `Desired` and `Plan` as text, JSON, metrics, fstab(5) and systemd units: pure.

pub(crate) mod adoption;
pub(crate) mod change;
pub(crate) mod fstab;
pub(crate) mod health;
pub(crate) mod json;
pub(crate) mod nagios;
pub(crate) mod output;
pub(crate) mod overview;
pub(crate) mod prometheus;
pub(crate) mod systemd;
pub(crate) mod text;
pub(crate) mod wrapper;
