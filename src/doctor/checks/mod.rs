//! The checks: each decides whether the site needs it, asks, and judges the answers.

mod code;
mod data;
mod devices;
mod mail;
mod mounts;
mod names;
mod network;
mod php;
mod sockets;
mod tls;

use super::Exam;
use super::ask::Silence;
use super::types::Outcome;

/// A check: its name and its work.
pub(super) type Check = (&'static str, fn(&Exam<'_>) -> Result<Outcome, Silence>);

/// In the order in which they are shown.
pub(super) const ALL: [Check; 17] = [
    ("mounts", mounts::mounts),
    ("processes", mounts::processes),
    ("libraries", code::libraries),
    ("devices", devices::devices),
    ("dns", network::dns),
    ("nss", names::nss),
    ("tls", tls::tls),
    ("users", names::users),
    ("timezone", data::timezone),
    ("iconv", data::iconv),
    ("locale", data::locale),
    ("mail", mail::mail),
    ("syslog", sockets::syslog),
    ("sockets", sockets::sockets),
    ("directories", php::directories),
    ("opcache", php::opcache),
    ("web-root", php::web_root),
];
