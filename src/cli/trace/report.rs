//! The result of a trace, as text and JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::base::text::plural;
use crate::base::{HostPath, SiteName};
use crate::render::{self, text};
use crate::resolve::{Desired, WITHOUT_PROC};
use crate::site::Site;
use crate::site::context::Context;
use crate::trace::{Advice, AdvisedLine, Miss, TraceEnd};

/// How many paths are shown per line.
const SHOWN: usize = 8;

/// The result of a trace.
pub(super) struct TraceReport {
    site: SiteName,
    root: HostPath,
    code: Option<u8>,
    pub advice: Advice,
    /// Paths that the host does not have either.
    pub nowhere: Vec<Miss>,
    /// Programs that do not start without `/proc`, which was looked for.
    pub without_proc: Vec<HostPath>,
    /// Programs whose system calls are not understood.
    pub not_understood: BTreeSet<String>,
    /// Look-ups that were too many to keep.
    pub dropped: u64,
    /// Whether the manifest was changed.
    pub written: bool,
}

impl TraceReport {
    pub(super) fn new(site: &Site, desired: &Desired, end: TraceEnd) -> Self {
        Self {
            site: site.name.clone(),
            root: desired.root.clone(),
            code: if let TraceEnd::Ended(code) = end {
                code
            } else {
                None
            },
            advice: Advice::default(),
            nowhere: vec![],
            without_proc: vec![],
            not_understood: BTreeSet::new(),
            dropped: 0,
            written: false,
        }
    }

    /// Prints the result, and reports on the standard error what it does not include. Returns the
    /// exit code.
    pub(super) fn print(
        &self,
        context: &Context,
        as_json: bool,
        all_misses: bool,
        write: bool,
    ) -> u8 {
        let out = context.out.site(&self.site);
        for program in &self.not_understood {
            out.warn(format_args!(
                "{program} was not followed: it is of another architecture than this mountjail, \
                 such as a 32-bit program"
            ));
        }
        if self.dropped > 0 {
            let lookups = plural_lookups(self.dropped);
            out.warn(format_args!(
                "there were too many paths; {lookups} were not kept"
            ));
        }
        let Advice {
            lines, not_mounted, ..
        } = &self.advice;
        let is_empty = lines.is_empty() && not_mounted.is_empty() && self.without_proc.is_empty();
        if is_empty && self.refused(all_misses).next().is_none() {
            match self.code {
                Some(code) if code != 0 => out.info(format_args!(
                    "the program failed (exit code {code}), but looked up nothing in vain that \
                     the host has"
                )),
                _ => out.info("nothing was missing that the host has"),
            }
        }
        if !lines.is_empty() && !write {
            let lines = plural(lines.len(), "line");
            out.info(format_args!("--write adds {lines} to the manifest"));
        }
        let text = if as_json {
            render::json::document(self.json(all_misses))
        } else {
            self.text(all_misses)
        };
        context.out.print_and(text, 0)
    }

    fn text(&self, all_misses: bool) -> String {
        let mut text = String::new();
        for line in &self.advice.lines {
            text::line(&mut text, format_args!("{}", line.addition));
            for miss in line.misses.iter().take(SHOWN) {
                text::line(&mut text, format_args!("  # {}", described(miss)));
            }
            if line.misses.len() > SHOWN {
                text::line(
                    &mut text,
                    format_args!("  # and {} more", line.misses.len() - SHOWN),
                );
            }
        }
        let mut section = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                text::line(&mut text, format_args!("# {title}:"));
                for line in lines {
                    text::line(&mut text, format_args!("#   {line}"));
                }
            }
        };
        let programs = self.without_proc.iter();
        section(
            "to add by hand: `proc: true`",
            programs
                .map(|program| format!("{program} {WITHOUT_PROC}"))
                .collect(),
        );
        let not_mounted = format!(
            "in the manifest, but not mounted: `mountjail up {}` brings it",
            self.site
        );
        section(
            &not_mounted,
            self.advice.not_mounted.iter().map(described).collect(),
        );
        let refused = self
            .refused(all_misses)
            .map(|(miss, why)| format!("{}: {why}", described(miss)));
        section("not advised", refused.collect());
        if all_misses {
            section(
                "not on the host either",
                self.nowhere.iter().map(described).collect(),
            );
        }
        text
    }

    /// Paths that are not advised, without the usual ones: nearly every program looks up its own
    /// `/proc/self`.
    fn refused(&self, all: bool) -> impl Iterator<Item = &(Miss, String)> {
        let usual = |miss: &Miss| {
            ["/proc", "/sys"]
                .iter()
                .any(|system| miss.path.as_path().starts_with(system))
        };
        self.advice
            .refused
            .iter()
            .filter(move |(miss, _)| all || !usual(miss))
    }

    fn json(&self, all_misses: bool) -> Value {
        let misses = |list: &[Miss]| list.iter().map(miss).collect::<Vec<_>>();
        let line = |line: &AdvisedLine| {
            let addition = &line.addition;
            json!({
                "line": addition.to_string(), "key": addition.key, "name": addition.name,
                "optional": addition.optional, "misses": misses(&line.misses),
            })
        };
        let refused = |(refused, why): &(Miss, String)| {
            let mut value = miss(refused);
            value["why"] = json!(why);
            value
        };
        let mut value = json!({
            "site": self.site, "root": self.root, "exit_code": self.code, "written": self.written,
            "lines": self.advice.lines.iter().map(line).collect::<Vec<_>>(),
            "not_mounted": misses(&self.advice.not_mounted),
            "refused": self.advice.refused.iter().map(refused).collect::<Vec<_>>(),
            "not_followed": self.not_understood, "without_proc": self.without_proc,
        });
        if all_misses {
            value["nowhere"] = json!(misses(&self.nowhere));
        }
        value
    }
}

/// `/usr/share/zoneinfo/Europe/Zurich (open by php8.2, 3 times)`
fn described(miss: &Miss) -> String {
    let programs = miss
        .programs
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let times = if miss.lookups == 1 {
        String::new()
    } else {
        format!(", {} times", miss.lookups)
    };
    format!("{} ({} by {programs}{times})", miss.path, miss.call)
}

fn miss(miss: &Miss) -> Value {
    json!({
        "path": miss.path.to_string(),
        "call": miss.call,
        "lookups": miss.lookups,
        "programs": miss.programs,
    })
}

fn plural_lookups(count: u64) -> String {
    usize::try_from(count).map_or_else(
        |_| "many look-ups".to_owned(),
        |count| plural(count, "look-up"),
    )
}
