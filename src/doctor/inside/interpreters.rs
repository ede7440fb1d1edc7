//! Interpreters of languages: each is started and runs next to nothing.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::probe::{Probe, reason};
use crate::base::HostPath;
use crate::resolve::without_version;

/// The most bytes of what an interpreter complains about.
const MAX_COMPLAINT: u64 = 64 << 10;

/// What each interpreter is started with: it has to find the files that it cannot do without.
const ARGUMENTS: [(&str, &[&str]); 7] = [
    ("java", &["-version"]),
    ("node", &["-e", "1"]),
    ("nodejs", &["-e", "1"]),
    ("perl", &["-MPOSIX", "-e", "1"]),
    ("php", &["-d", "display_errors=stderr", "-r", PHP]),
    ("python", &["-B", "-c", "pass"]),
    ("ruby", &["-e", "Gem::VERSION"]),
];

/// PHP starts without its configuration and its extensions, too.
const PHP: &str = r#"
foreach ([PHP_CONFIG_FILE_SCAN_DIR, PHP_EXTENSION_DIR] as $directory) {
    if ($directory !== "" && !is_dir($directory)) {
        fwrite(STDERR, "its configuration: $directory is not inside\n");
        exit(1);
    }
}
new DateTime;
if (class_exists("Imagick") && !Imagick::queryFormats()) {
    fwrite(STDERR, "imagick: it knows no format of images\n");
    exit(1);
}
"#;

/// Whether a program of this name is an interpreter that can be tried.
pub(in crate::doctor) fn is_known(program: &Path) -> bool {
    arguments(program).is_some()
}

fn arguments(program: &Path) -> Option<&'static [&'static str]> {
    let name = without_version(program.file_name()?.to_str()?);
    let mut all = ARGUMENTS.iter();
    let (_, arguments) = all.find(|(known, _)| *known == name)?;
    Some(arguments)
}

/// Why each of these interpreters fails; `None`: it works.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Interpreters(pub Vec<HostPath>);

impl Probe for Interpreters {
    type Answer = Vec<Option<String>>;

    fn run(&self) -> Self::Answer {
        self.0.iter().map(failure).collect()
    }
}

fn failure(program: &HostPath) -> Option<String> {
    let mut command = Command::new(program.as_path());
    command.args(arguments(program.as_path())?);
    command.env("LC_ALL", "C").current_dir("/");
    // Not /dev/null, which may not be inside.
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match command.stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Some(reason(error)),
    };
    drop((child.stdin.take(), child.stdout.take()));
    let mut text = vec![];
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(MAX_COMPLAINT).read_to_end(&mut text);
    }
    match child.wait() {
        Ok(status) if status.success() => None,
        Ok(status) => {
            let said = told(&String::from_utf8_lossy(&text)).map(ToOwned::to_owned);
            Some(said.unwrap_or_else(|| format!("it ended with {status}")))
        }
        Err(error) => Some(reason(error)),
    }
}

/// The line of a complaint that tells most: the last one that is more than a title.
fn told(complaint: &str) -> Option<&str> {
    let lines = complaint.lines().map(str::trim);
    let mut lines = lines.rev().filter(|line| !line.is_empty());
    let last = lines.clone().next()?;
    Some(lines.find(|line| line.contains(": ")).unwrap_or(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known() {
        for known in [
            "/usr/bin/python3.11",
            "/usr/bin/php8.2",
            "/opt/node/bin/node",
        ] {
            assert!(is_known(Path::new(known)), "{known}");
        }
        assert!(!is_known(Path::new("/usr/bin/python3-config")));
    }

    #[test]
    fn a_complaint_is_one_line() {
        let python = "Python path configuration:\n  sys.path = [\n    '/x',\n  ]\n\
                      ModuleNotFoundError: No module named 'encodings'\n\n\
                      Current thread 0x1 (most recent call first):\n  <no Python frame>\n";
        let said = "ModuleNotFoundError: No module named 'encodings'";
        assert_eq!(told(python), Some(said));
        assert_eq!(told("Aborted\n\n"), Some("Aborted"));
        assert_eq!(told("\n"), None);
    }
}
