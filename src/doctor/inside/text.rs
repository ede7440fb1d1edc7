//! Users, name services, time zones, character sets and locales, as the C library finds them.

use std::ffi::CString;
use std::fs;
use std::io;

use nix::unistd::{Gid, Group, Uid, User};
use serde::{Deserialize, Serialize};

use super::probe::{InsideError, Probe};
use crate::base::HostPath;
use crate::resolve::name_services;
use crate::sys;

/// The names of a user and a group: `getpwuid(3)`, `getgrgid(3)`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct AccountIds {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct AccountNames {
    pub user: Option<String>,
    pub group: Option<String>,
}

impl Probe for AccountIds {
    type Answer = AccountNames;

    fn run(&self) -> AccountNames {
        let user = User::from_uid(Uid::from_raw(self.uid)).ok().flatten();
        let group = Group::from_gid(Gid::from_raw(self.gid)).ok().flatten();
        AccountNames {
            user: user.map(|user| user.name),
            group: group.map(|group| group.name),
        }
    }
}

/// The services that nsswitch.conf(5) names for a database.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct NameServices {
    pub database: String,
}

impl Probe for NameServices {
    type Answer = Result<Vec<String>, InsideError>;

    fn run(&self) -> Self::Answer {
        let text = fs::read("/etc/nsswitch.conf")?;
        Ok(name_services(
            &String::from_utf8_lossy(&text),
            &self.database,
        ))
    }
}

/// Whether a zone of the time zone database can be used.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Zone {
    pub file: HostPath,
}

impl Probe for Zone {
    type Answer = Result<(), InsideError>;

    fn run(&self) -> Self::Answer {
        let bytes = fs::read(&self.file)?;
        tz::TimeZone::from_tz_data(&bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(())
    }
}

/// Whether a conversion by `iconv(3)` has the expected result.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Convert {
    pub to: String,
    pub text: String,
    pub expected: Vec<u8>,
}

impl Probe for Convert {
    type Answer = Result<(), InsideError>;

    fn run(&self) -> Self::Answer {
        let to = CString::new(self.to.as_str()).map_err(io::Error::from)?;
        let found = sys::iconv(&to, c"UTF-8", self.text.as_bytes())?;
        if found == self.expected {
            Ok(())
        } else {
            Err(io::Error::other("the result is wrong").into())
        }
    }
}

/// Whether a locale can be loaded.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Locale {
    pub name: String,
}

impl Probe for Locale {
    type Answer = Result<(), InsideError>;

    fn run(&self) -> Self::Answer {
        let name = CString::new(self.name.as_str()).map_err(io::Error::from)?;
        Ok(sys::load_locale(&name)?)
    }
}
