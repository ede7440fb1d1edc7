//! PHP itself: the host's command line of PHP loads the extensions of a pool, enters the root, and
//! tries them there.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::probe::{InsideError, MAX_BYTES, Probe, Reply};
use crate::base::HostPath;
use crate::jail::{self, JailUser};
use crate::sys::proc;
use crate::{Error, Result};

const SCRIPT: &str = include_str!("php.php");

/// The settings of a pool that what is tried depends on. No other reaches PHP, which is root's
/// until it has entered the root: many extensions write files that their settings name.
const PASSED_ON: [&str; 8] = [
    "curl.cainfo",
    "mysqli.default_socket",
    "openssl.cafile",
    "openssl.capath",
    "pdo_mysql.default_socket",
    "sendmail_path",
    "session.save_handler",
    "session.save_path",
];

/// Settings of php.ini that would keep the script from its work, or run or write files before it.
const CLEARED: [&str; 7] = [
    "auto_append_file",
    "auto_prepend_file",
    "disable_classes",
    "disable_functions",
    "ffi.preload",
    "open_basedir",
    "opcache.preload",
];

/// The settings and extensions that work in a pool's PHP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::doctor) struct Php {
    /// The command line of the pool's PHP, a file of root's.
    pub program: HostPath,
    /// Its php.ini.
    pub ini: Option<PathBuf>,
    /// The directory of further files.
    pub directory: Option<PathBuf>,
    /// The pool's own settings.
    pub settings: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct PhpState {
    pub version: String,
    pub extensions: Vec<String>,
    /// Settings with PHP's own defaults.
    pub settings: BTreeMap<String, String>,
    /// The extensions that were tried and work.
    pub worked: Vec<String>,
    /// Those that do not, and why.
    pub failed: BTreeMap<String, String>,
}

impl PhpState {
    pub(crate) fn loads(&self, extension: &str) -> bool {
        let mut extensions = self.extensions.iter();
        extensions.any(|loaded| loaded.eq_ignore_ascii_case(extension))
    }

    /// A setting that is not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let value = self.settings.get(key)?;
        (!value.is_empty()).then_some(value)
    }
}

/// It is answered by [`Php::answer`], before the root is entered.
impl Probe for Php {
    type Answer = PhpState;

    fn run(&self) -> PhpState {
        PhpState::default()
    }
}

impl Php {
    /// The output of PHP after it has entered the root by itself.
    pub(super) fn answer(&self, root: &HostPath, user: &JailUser) -> Result<Value> {
        let directory = jail::stand_before(root, user)?;
        let failed = || Error::failed(format!("{} fails", self.program));
        fcntl_setfd(&directory, FdFlags::empty())
            .map_err(|error| failed().because_of(InsideError::from(io::Error::from(error))))?;
        // PHP becomes another user, and would not be killed by itself. This process remains, and is
        // the first of its PID namespace.
        let _ = set_pdeathsig(Signal::SIGKILL);

        let mut child = self
            .command(&directory, user)
            .spawn()
            .map_err(|error| failed().because_of(InsideError::from(error)))?;
        let mut text = vec![];
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(MAX_BYTES).read_to_end(&mut text);
            read.map_err(|error| failed().because_of(InsideError::from(error)))?;
        }
        let status = child.wait();
        let reply: Reply = serde_json::from_slice(&text).map_err(|_| match status {
            Ok(status) => failed().because_of(format!("it ended with {status}")),
            Err(error) => failed().because_of(InsideError::from(error)),
        })?;
        reply.map_err(|why| failed().because_of(why))
    }

    /// PHP, which inherits the open `directory` of the root.
    fn command(&self, directory: &OwnedFd, user: &JailUser) -> Command {
        let mut command = Command::new(self.program.as_path());
        command.env_clear().stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(directory) = &self.directory {
            command.env("PHP_INI_SCAN_DIR", directory);
        }
        if let Some(ini) = &self.ini {
            command.arg("-c").arg(ini);
        }
        for (key, value) in &self.settings {
            if is_passed_on(key, value) {
                command.arg("-d").arg(format!("{key}=\"{value}\""));
            }
        }
        for cleared in CLEARED {
            command.arg("-d").arg(format!("{cleared}="));
        }
        for off in ["display_errors", "log_errors", "opcache.enable_cli"] {
            command.arg("-d").arg(format!("{off}=0"));
        }
        command.args(["-d", "xdebug.mode=off"]);
        let root = proc::path_of_descriptor(directory);
        let (root, uid, gid) = (root.display(), user.uid, user.gid);
        command.arg("-r").arg(format!(
            "$root = '{root}'; $uid = {uid}; $gid = {gid};\n{SCRIPT}"
        ));
        command
    }
}

fn is_passed_on(key: &str, value: &str) -> bool {
    let is_plain = !value.contains(['"', '\n', '\r', '\\', '$']);
    is_plain && PASSED_ON.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_settings_cannot_become_others() {
        assert!(is_passed_on("sendmail_path", "/usr/sbin/sendmail -t -i"));
        for (key, value) in [
            ("auto_prepend_file", "/x.php"),
            ("xdebug.output_dir", "/srv/www/site/tmp"),
            ("sendmail_path", "a\"\nextension=\"y"),
            ("sendmail_path=1\nextension", "y"),
            ("sendmail_path", "${HOME}"),
        ] {
            assert!(!is_passed_on(key, value), "{key}");
        }
    }
}
