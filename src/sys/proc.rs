//! Facts about a process from `/proc/PID`.

use std::fs;

/// Returns when the process `pid` began, in ticks since boot: `proc_pid_stat(5)`.
pub fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name of the program in parentheses. It may contain anything.
    let (_, after_name) = text.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}
