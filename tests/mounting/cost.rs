//! Promise: the cost of a site does not grow with the number of the others.

use std::fs;

use libtest_mimic::Trial;

use crate::support::{Ran, Sandbox, for_each_engine};

const FEW: usize = 3;
const MANY: usize = 11;

pub fn all() -> Vec<Trial> {
    let plain = for_each_engine("the mount table is not read once per site", |engine| {
        tables_read(engine, "");
    });
    let name = "the mount table is not read once per site with users of its own";
    let with_users = for_each_engine(name, |engine| {
        tables_read(engine, "users: [www-data]\n");
    });
    plain.into_iter().chain(with_users).collect()
}

fn tables_read(engine: &'static str, lines: &str) {
    let (few, many) = (farm(engine, lines, FEW), farm(engine, lines, MANY));
    for command in ["up", "up", "status", "down"] {
        let (of_few, of_many) = (
            tables_read_by(&few, command),
            tables_read_by(&many, command),
        );
        assert!(
            of_many < of_few + (MANY - FEW),
            "`{command}` reads the table {of_few} times for {FEW} sites, {of_many} for {MANY}"
        );
    }
}

/// So many sites that are alike.
fn farm(engine: &'static str, lines: &str, sites: usize) -> Sandbox {
    let sandbox = Sandbox::with_engine(engine);
    for nth in 0..sites {
        sandbox.site(&format!("s{nth}"), &format!("presets: [php-fpm]\n{lines}"));
    }
    sandbox
}

/// How often the command opens the table of its own namespace.
fn tables_read_by(sandbox: &Sandbox, command: &str) -> usize {
    let log = sandbox.path("strace");
    let runner = ["strace", "-f", "-q", "-e", "trace=openat", "-o"];
    let runner = [&runner[..], &[log.to_str().unwrap()]].concat();
    Ran::of(sandbox.command_under(&runner).args([command, "--all"])).exits(0);
    let calls = fs::read_to_string(log).unwrap();
    calls.matches("self/mountinfo\"").count()
}
