//! The times in records, and this boot.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use super::record::BootId;
use crate::Result;
use crate::base::ErrorContext;

/// The time for records, in seconds since 1970. It is 0 if the clock is before 1970.
pub fn now() -> u64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs(),
        Err(_) => 0,
    }
}

/// The milliseconds since boot, by a clock that nobody sets (`CLOCK_BOOTTIME`).
pub fn since_boot() -> u64 {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(now) => u64::try_from(Duration::from(now).as_millis()).unwrap_or(u64::MAX),
        Err(_) => 0,
    }
}

/// The identity of this boot.
pub fn boot_id() -> Result<BootId> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).context(format_args!("cannot read {path}"));
    let text = text.map_err(|error| error.hint("is /proc mounted?"))?;
    Ok(BootId(text.trim().to_owned()))
}
