//! Completions for shells: the names of sites, presets and users, and paths.
//!
//! The shell's script runs this program with [`VARIABLE`] set; `mountjail completions` prints that
//! script.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::{CompleteEnv, Shell, env};

use crate::manifest::Presets;
use crate::site::configuration;
use crate::site::trust::Trust;

/// The scripts set it to the shell's name.
const VARIABLE: &str = "MOUNTJAIL_COMPLETE";

/// The function that completes in bash.
const BASH: &str = include_str!("complete.bash");

/// If a shell's script runs this program: prints the completions of `command`, and exits.
pub(super) fn answer(command: fn() -> clap::Command) {
    CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .completer("mountjail")
        .complete();
}

/// The completion script for `shell`.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = vec![];
    let shells = env::Shells::builtins();
    if let Some(shell) = shells.completer(&shell.to_string()) {
        // Writing to memory does not fail.
        let _ =
            shell.write_registration(VARIABLE, "mountjail", "mountjail", "mountjail", &mut script);
    }
    if shell == Shell::Bash {
        script = of_bash(&script);
    }
    if shell == Shell::Zsh {
        // zsh may load the file as the function of the first completion.
        script
            .extend(b"\n[[ $funcstack[1] != _mountjail ]] || _clap_dynamic_completer_mountjail\n");
    }
    script
}

/// The script of bash, with [`BASH`] around its function.
fn of_bash(script: &[u8]) -> Vec<u8> {
    let script = String::from_utf8_lossy(script);
    let (functions, registration) = script.split_once("\nif [[").unwrap_or((&script, ""));
    let registration = registration.replace("-F _clap_complete_mountjail", "-F _mountjail");
    format!("{functions}{BASH}if [[{registration}").into_bytes()
}

/// Names of sites, or paths of manifests.
pub(super) fn site() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let sites = configuration::list(&config()).unwrap_or_default().sites;
        let names = sites.iter().map(|site| site.name.as_str().into());
        let mut candidates = starting_with(typed, names);
        if candidates.is_empty() {
            candidates = PathCompleter::file().complete(typed);
        }
        candidates
    })
}

/// Names of presets.
pub(super) fn preset() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let presets = configuration::presets(&config(), &Trust::default())
            .unwrap_or_else(|_| Presets::built_in());
        let one = |name: &str| {
            CompletionCandidate::new(name).help(
                presets
                    .description(name)
                    .map(|about| about.to_owned().into()),
            )
        };
        presets.names().map(one).collect()
    })
}

/// Names of the host's users.
pub(super) fn user() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
        let passwd = String::from_utf8_lossy(&passwd); // comments may be in another encoding
        let names = passwd.lines().filter_map(|line| line.split(':').next());
        names
            .filter(|name| !name.is_empty())
            .map(CompletionCandidate::new)
            .collect()
    })
}

/// The configuration directory. The script does not pass on a `--config-dir` that was typed before.
fn config() -> PathBuf {
    let set = std::env::var_os("MOUNTJAIL_CONFIG_DIR").filter(|directory| !directory.is_empty());
    set.unwrap_or_else(|| "/etc/mountjail".into()).into()
}

fn starting_with(
    typed: &OsStr,
    names: impl Iterator<Item = std::ffi::OsString>,
) -> Vec<CompletionCandidate> {
    let typed = typed.as_encoded_bytes();
    names
        .filter(|name| name.as_encoded_bytes().starts_with(typed))
        .map(CompletionCandidate::new)
        .collect()
}
