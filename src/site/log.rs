//! Where messages go: to the standard error or, if that is the journal, to the journal with fields.

use std::io::{self, Write};

use nix::sys::stat::{SFlag, fstat};

use super::event::Event;
use crate::base::SiteName;
use crate::observe::own_unit;
use crate::sys;

/// syslog(3)'s priorities.
pub(crate) const ERROR: &str = "3";
pub(crate) const WARNING: &str = "4";
pub(crate) const INFO: &str = "6";
pub(crate) const DEBUG: &str = "7";

/// The file that the standard error leads to.
pub(crate) enum LogTarget {
    /// A terminal, or anything else.
    Stream,
    /// A file that systemd opened: each line begins with its priority, such as `<6>`: sd-daemon(3).
    Prefixed,
    /// The journal, which keeps fields. `unit`: the unit of this process.
    Journal { unit: Option<String> },
}

impl LogTarget {
    /// `JOURNAL_STREAM` names the device and inode that systemd connected: systemd.exec(5).
    pub(crate) fn of_this_process() -> Self {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let stat = fstat(io::stderr()).ok();
        let stat = stat.filter(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino));
        match stat.map(|stat| stat.st_mode & SFlag::S_IFMT.bits()) {
            Some(kind) if kind == SFlag::S_IFSOCK.bits() => Self::Journal { unit: own_unit() },
            Some(_) => Self::Prefixed,
            None => Self::Stream,
        }
    }

    /// Writes a message. `event`, `sites`: what it is about.
    pub(crate) fn write(
        &self,
        priority: &str,
        text: &str,
        event: Option<Event>,
        sites: &[&SiteName],
    ) {
        let text = match self {
            Self::Stream => format!("{text}\n"),
            Self::Journal { unit } => {
                let mut fields = fields(unit.as_deref(), event, sites);
                fields.extend([("PRIORITY", priority), ("MESSAGE", text)]);
                if sys::send_to_journal(&fields).is_ok() {
                    return;
                }
                prefixed(priority, text)
            }
            Self::Prefixed => prefixed(priority, text),
        };
        // If the standard error is closed, there is nowhere to report that.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// The fields that the journal keeps beside a message: systemd.journal-fields(7).
fn fields<'f>(
    unit: Option<&'f str>,
    event: Option<Event>,
    sites: &[&'f SiteName],
) -> Vec<(&'static str, &'f str)> {
    let mut fields = vec![("SYSLOG_IDENTIFIER", "mountjail")];
    // `journalctl --unit` finds it by this also if the process has ended before the journal asks
    // the kernel for its unit.
    fields.extend(unit.map(|unit| ("OBJECT_SYSTEMD_UNIT", unit)));
    fields.extend(event.map(|event| ("MESSAGE_ID", event.id())));
    fields.extend(sites.iter().map(|site| ("MOUNTJAIL_SITE", site.as_str())));
    fields
}

/// Each line after its priority.
fn prefixed(priority: &str, text: &str) -> String {
    text.lines()
        .flat_map(|line| ["<", priority, ">", line, "\n"])
        .collect()
}
