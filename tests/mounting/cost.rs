//! Promise: the cost of a site does not grow with the number of the others.

use std::fs;

use libtest_mimic::Trial;

use crate::support::{Ran, Sandbox, for_each_engine};

pub fn all() -> Vec<Trial> {
    let plain = for_each_engine(
        "a table of all mounts is not read once per site",
        |engine| tables_read(engine, ""),
    );
    let with_users = for_each_engine("nor for sites that have users of their own", |engine| {
        tables_read(engine, "users: [www-data]\n");
    });
    plain.into_iter().chain(with_users).collect()
}

fn tables_read(engine: &'static str, lines: &str) {
    let (few, many) = (3, 11);
    let with_few = runs(engine, lines, few);
    let with_many = runs(engine, lines, many);
    for (few_times, (command, many_times)) in with_few.into_iter().zip(with_many) {
        assert!(
            many_times < few_times.1 + (many - few),
            "`{command}` reads the table {} times for {few} sites, and {many_times} for {many}",
            few_times.1
        );
    }
}

/// How often each of the usual commands opens the table of this namespace, for so many sites.
fn runs(engine: &'static str, lines: &str, sites: usize) -> Vec<(&'static str, usize)> {
    let sandbox = Sandbox::with_engine(engine);
    for nth in 0..sites {
        sandbox.site(&format!("s{nth}"), &format!("presets: [php-fpm]\n{lines}"));
    }
    let commands = ["up", "up", "status", "down"];
    commands
        .map(|command| (command, tables_read_by(&sandbox, command)))
        .to_vec()
}

fn tables_read_by(sandbox: &Sandbox, command: &str) -> usize {
    let log = sandbox.path("strace");
    let runner = ["strace", "-f", "-q", "-e", "trace=openat", "-o"];
    let runner = [&runner[..], &[log.to_str().unwrap()]].concat();
    Ran::of(sandbox.command_under(&runner).args([command, "--all"])).exits(0);
    let calls = fs::read_to_string(log).unwrap();
    calls.matches("self/mountinfo\"").count()
}
