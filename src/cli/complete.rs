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
    ArgValueCompleter::new(sites_or_files)
}

fn sites_or_files(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = vec![];
    for site in configuration::list(&config()).unwrap_or_default().sites {
        let name = site.name.as_str();
        if name.as_bytes().starts_with(typed.as_encoded_bytes()) {
            candidates.push(CompletionCandidate::new(name));
        }
    }
    if candidates.is_empty() {
        candidates = PathCompleter::file().complete(typed);
    }
    candidates
}

/// Names of presets.
pub(super) fn preset() -> ArgValueCandidates {
    ArgValueCandidates::new(presets)
}

fn presets() -> Vec<CompletionCandidate> {
    let presets = match configuration::presets(&config(), &Trust::default()) {
        Ok(presets) => presets,
        Err(_) => Presets::built_in(),
    };
    let mut candidates = vec![];
    for name in presets.names() {
        let about = presets.description(name);
        let about = about.map(|about| about.to_owned().into());
        candidates.push(CompletionCandidate::new(name).help(about));
    }
    candidates
}

/// Names of the host's users.
pub(super) fn user() -> ArgValueCandidates {
    ArgValueCandidates::new(users)
}

fn users() -> Vec<CompletionCandidate> {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd); // comments may be in another encoding
    let mut candidates = vec![];
    for line in passwd.lines() {
        match line.split(':').next() {
            None | Some("") => {}
            Some(name) => candidates.push(CompletionCandidate::new(name)),
        }
    }
    candidates
}

/// The configuration directory. The script does not pass on a `--config-dir` that was typed before.
fn config() -> PathBuf {
    match std::env::var_os("MOUNTJAIL_CONFIG_DIR") {
        Some(directory) if !directory.is_empty() => directory.into(),
        _ => "/etc/mountjail".into(),
    }
}
