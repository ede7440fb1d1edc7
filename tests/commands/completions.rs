//! Promise: a shell completes commands, sites, presets and users by name.

use std::path::Path;
use std::process::Command;

use crate::support::{Ran, Sandbox, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    trials([
        ("bash completes names", bash),
        ("bash completes names of instances", instances),
        ("each shell gets a script", scripts),
    ])
}

/// What bash offers after these words of a command line.
fn offered(sandbox: &Sandbox, words: &str) -> Vec<String> {
    offered_in(sandbox, words, words)
}

/// As [`offered`], where bash splits `line` into other words than at blanks.
fn offered_in(sandbox: &Sandbox, line: &str, words: &str) -> Vec<String> {
    let program = sandbox.command().get_program().to_owned();
    let directory = Path::new(&program).parent().unwrap();
    let script = format!(
        "source <(mountjail completions bash); COMP_WORDS=({words}); COMP_LINE='{line}'; \
         COMP_WORDBREAKS=' @='; \
         COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
         $(complete -p mountjail | sed 's/.*-F \\([^ ]*\\) .*/\\1/') mountjail \
         \"${{COMP_WORDS[COMP_CWORD]}}\"; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script])
        .env("MOUNTJAIL_CONFIG_DIR", sandbox.config());
    bash.env(
        "PATH",
        format!("{}:{}", directory.display(), std::env::var("PATH").unwrap()),
    );
    Ran::of(&mut bash)
        .exits(0)
        .stdout
        .lines()
        .map(str::to_owned)
        .collect()
}

fn instances() {
    let sandbox = Sandbox::new();
    sandbox.manifest("c@", "root: /srv/%i\ninstances: [alice, albert, b@c]\n");
    sandbox.site("c@own", "");
    assert_eq!(
        offered(&sandbox, "mountjail up c"),
        ["c@albert", "c@alice", "c@b@c", "c@own"]
    );
    let cases: [(&str, &str, &[&str]); 4] = [
        (
            "mountjail up c@a",
            "mountjail up c @ a",
            &["albert", "alice"],
        ),
        (
            "mountjail up c@",
            "mountjail up c @",
            &["albert", "alice", "b@c", "own"],
        ),
        (
            "mountjail down c@alice c@o",
            "mountjail down c @ alice c @ o",
            &["own"],
        ),
        ("mountjail up c@b@", "mountjail up c @ b @", &["c"]),
    ];
    for (line, words, expected) in cases {
        assert_eq!(offered_in(&sandbox, line, words), expected, "{line}");
    }
}

fn bash() {
    let sandbox = Sandbox::new();
    for site in ["shop", "site1", "site2"] {
        sandbox.site(site, "");
    }
    sandbox.preset("own-preset", "description: ours\n");
    let manifest = sandbox.path("config/sites/shop.yaml");
    let cases: [(&str, &[&str]); 8] = [
        ("mountjail up site", &["site1", "site2"]),
        ("mountjail up --all --q", &["--quiet"]),
        ("mountjail down shop s", &["shop", "site1", "site2"]),
        ("mountjail why sh", &["shop"]),
        ("mountjail presets own", &["own-preset"]),
        ("mountjail exec --user www", &["www-data"]),
        ("mountjail wat", &["watch"]),
        (
            &format!("mountjail check {}", manifest.with_extension("").display()),
            &[manifest.to_str().unwrap()],
        ),
    ];
    for (words, expected) in cases {
        assert_eq!(offered(&sandbox, words), expected, "{words}");
    }
}

fn scripts() {
    let sandbox = Sandbox::new();
    for (shell, mark) in [
        ("bash", "complete -o"),
        ("zsh", "#compdef mountjail"),
        ("fish", "complete --"),
    ] {
        sandbox
            .ok(&["completions", shell])
            .prints(mark)
            .prints("MOUNTJAIL_COMPLETE");
    }
}
