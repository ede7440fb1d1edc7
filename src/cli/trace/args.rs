//! The arguments of `mountjail trace`.

use std::ffi::OsString;

use clap::Args;

use crate::cli::complete;

/// Show what a program does not find in a jail, and which lines would bring it
///
/// It runs a command inside as `exec` does, attaches to a running process, or has systemd start a
/// unit, and follows every process that starts from there. Look-ups count from the chroot(2) of a
/// process or the `RootDirectory=` of its unit on. It reports the paths that were missing although
/// the host has them, grouped by the line of the manifest that would bring them, the most useful
/// line first. Some paths are shown but not advised, because a program inside can look up any path:
/// files that not everybody on the host may read, or that users other than root can change;
/// sockets, and all else on /run, unless a preset brings them. For a directory that programs only
/// keep their own files in, such as /tmp, one of the site's own is advised.
///
/// --start restarts a unit that runs. Until the unit is followed, its processes wait for their
/// standard input, which a drop-in in /run/systemd/system makes a FIFO. The drop-in is taken away
/// as soon as the unit has started or failed, also if this command is killed; the unit then runs
/// on.
///
/// A command is followed until it and all that it started have ended. Ctrl-C or SIGTERM ends any
/// trace earlier, and the programs run on, unseen.
///
/// Only the report goes to standard output; what the command prints goes to standard error. The
/// exit code is that of the command (127 if it is not in the jail, 126 if it cannot be run, 128
/// plus the signal's number if the trace ended before it), or 0 after a running process was
/// followed, 1 if the unit did not start.
///
/// Every system call stops a followed program twice. A PHP page that computes took 1.3 times as
/// much CPU time, one that reads 1500 files 5 times, and find(1), which does little but system
/// calls, 16 times. Programs of another architecture, such as 32-bit ones, and look-ups through
/// `io_uring` are not followed.
#[derive(Debug, Args)]
#[command(
    override_usage = "mountjail trace [OPTIONS] <SITE> \
                      <-- CMD...|--pid PID|--service UNIT|--start UNIT>",
    after_help = "Examples:\n  \
                  mountjail trace site1 -- php -r 'new DateTimeZone(\"Europe/Zurich\");'\n  \
                  mountjail trace --service php8.2-fpm site1\n  \
                  mountjail trace site1 --start named --write --up\n  \
                  timeout 60 mountjail trace --pid 812 --json site1 | jq '.lines[].line'"
)]
#[command(group = clap::ArgGroup::new("what")
    .required(true)
    .args(["command", "pid", "service", "start"]))]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(in crate::cli) struct TraceArgs {
    /// Follow this running process, which must be inside
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Follow this systemd unit's processes inside, also those that start later
    #[arg(long, value_name = "UNIT")]
    pub service: Option<String>,
    /// Have systemd start this unit, or restart it, and follow it from its first program on
    #[arg(long, value_name = "UNIT")]
    pub start: Option<String>,
    /// Run the command as this user of the host, by name or id [default: as `exec`]
    #[arg(short, long, value_name = "USER", requires = "command", add = complete::user())]
    pub user: Option<String>,
    /// Show also what the host does not have, and what is below /proc and /sys
    #[arg(long)]
    pub all_misses: bool,
    /// Add the lines to the manifest and change nothing else in it
    #[arg(long)]
    pub write: bool,
    /// Bring the site up with the new lines
    #[arg(long, requires = "write")]
    pub up: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// The site's name, or the path of its manifest
    #[arg(value_name = "SITE", add = complete::site())]
    pub site: String,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true)]
    pub command: Vec<OsString>,
}

impl TraceArgs {
    pub(in crate::cli) fn site(&self) -> &str {
        &self.site
    }

    /// Whether it starts a service, which then gets a mount namespace of its own.
    pub(in crate::cli) fn starts_service(&self) -> bool {
        self.start.is_some()
    }
}
