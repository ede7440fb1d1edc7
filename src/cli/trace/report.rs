//! The result of a trace, as text and JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::args::TraceArgs;
use crate::base::text::plural;
use crate::base::{HostPath, SiteName};
use crate::cli::report::error_objects;
use crate::render::{self, text};
use crate::resolve::{Desired, WITHOUT_PROC};
use crate::site::context::Context;
use crate::site::out::SiteOut;
use crate::site::{Reported, Site};
use crate::trace::{Advice, AdvisedLine, Miss, TraceEnd};

/// How many paths are shown per line.
const SHOWN: usize = 8;

/// The result of a trace.
pub(super) struct TraceReport {
    site: SiteName,
    root: HostPath,
    end: TraceEnd,
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
    /// The errors that were reported.
    pub errors: Vec<Reported>,
}

impl TraceReport {
    pub(super) fn new(site: &Site, desired: &Desired, end: TraceEnd) -> Self {
        Self {
            site: site.name.clone(),
            root: desired.root.clone(),
            end,
            advice: Advice::default(),
            nowhere: vec![],
            without_proc: vec![],
            not_understood: BTreeSet::new(),
            dropped: 0,
            written: false,
            errors: vec![],
        }
    }

    /// Prints the result, and reports on the standard error what it does not include. Returns the
    /// exit code.
    pub(super) fn print(&self, context: &Context, arguments: &TraceArgs) -> u8 {
        self.report_omissions(context);
        let out = context.out.site(&self.site);
        let refused = self.refused(arguments);
        let Advice {
            lines, not_mounted, ..
        } = &self.advice;
        let is_empty = lines.is_empty() && not_mounted.is_empty() && self.without_proc.is_empty();
        if is_empty && refused.is_empty() {
            self.say_nothing_was_missing(&out);
        }
        if !lines.is_empty() && !arguments.write {
            let lines = plural(lines.len(), "line");
            out.info(format_args!("--write adds {lines} to the manifest"));
        }
        let text = if arguments.json {
            render::json::document(self.json(arguments))
        } else {
            self.text(arguments, &refused)
        };
        context.out.print_and(text, 0)
    }

    fn say_nothing_was_missing(&self, out: &SiteOut<'_>) {
        let TraceEnd { code, left, .. } = self.end;
        match code {
            Some(code) if code != 0 => out.info(format_args!(
                "the program failed (exit code {code}), but looked up nothing in vain that the \
                 host has"
            )),
            _ if left > 0 => out.info("nothing was missing so far that the host has"),
            _ => out.info("nothing was missing that the host has"),
        }
    }

    fn report_omissions(&self, context: &Context) {
        let out = context.out.site(&self.site);
        if self.end.left > 0 {
            let threads = plural(self.end.left, "thread");
            out.info(format_args!(
                "the trace ended before the programs: {threads} run on, and what they look up from \
                 now on is not in this report"
            ));
        }
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
    }

    fn text(&self, arguments: &TraceArgs, refused: &[&(Miss, String)]) -> String {
        let mut text = String::new();
        for line in &self.advice.lines {
            text::line(&mut text, format_args!("{}", line.addition));
            for miss in line.misses.iter().take(SHOWN) {
                text::line(&mut text, format_args!("  # {}", described(miss)));
            }
            if line.addition.key == "users" {
                let others = "  # it ran as this user; each user that it looks up needs one, too";
                text::line(&mut text, format_args!("{others}"));
            }
            if line.misses.len() > SHOWN {
                text::line(
                    &mut text,
                    format_args!("  # and {} more", line.misses.len() - SHOWN),
                );
            }
        }
        let mut programs = vec![];
        for program in &self.without_proc {
            programs.push(format!("{program} {WITHOUT_PROC}"));
        }
        add_section(&mut text, "to add by hand: `proc: true`", &programs);
        let not_mounted = format!(
            "in the manifest, but not mounted: `mountjail up {}` brings it",
            self.site
        );
        add_section(&mut text, &not_mounted, &all(&self.advice.not_mounted));
        let mut not_advised = vec![];
        for (miss, why) in refused {
            not_advised.push(format!("{}: {why}", described(miss)));
        }
        add_section(&mut text, "not advised", &not_advised);
        if arguments.all_misses {
            add_section(&mut text, "not on the host either", &all(&self.nowhere));
        }
        text
    }

    /// Paths that are not advised. Without --all-misses the usual ones are left out: nearly every
    /// program looks up its own `/proc/self`.
    fn refused(&self, arguments: &TraceArgs) -> Vec<&(Miss, String)> {
        let mut refused = vec![];
        for miss in &self.advice.refused {
            let path = miss.0.path.as_path();
            let is_usual = path.starts_with("/proc") || path.starts_with("/sys");
            if arguments.all_misses || !is_usual {
                refused.push(miss);
            }
        }
        refused
    }

    fn json(&self, arguments: &TraceArgs) -> Value {
        let mut lines = vec![];
        for AdvisedLine { addition, misses } in &self.advice.lines {
            lines.push(json!({
                "line": addition.to_string(), "key": addition.key, "name": addition.name,
                "optional": addition.optional, "misses": all_json(misses),
            }));
        }
        let mut refused = vec![];
        for (miss, why) in &self.advice.refused {
            let mut value = json(miss);
            value["why"] = json!(why);
            refused.push(value);
        }
        let mut value = json!({
            "site": self.site, "root": self.root,
            "exit_code": self.end.code, "written": self.written,
            "lines": lines,
            "not_mounted": all_json(&self.advice.not_mounted),
            "refused": refused,
            "not_followed": self.not_understood, "without_proc": self.without_proc,
        });
        if arguments.all_misses {
            value["nowhere"] = json!(all_json(&self.nowhere));
        }
        if !self.errors.is_empty() {
            value["errors"] = json!(error_objects(&self.site, &self.errors));
        }
        value
    }
}

/// Adds the lines below a title, if there are any.
fn add_section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    text::line(text, format_args!("# {title}:"));
    for line in lines {
        text::line(text, format_args!("#   {line}"));
    }
}

fn all(misses: &[Miss]) -> Vec<String> {
    misses.iter().map(described).collect()
}

fn all_json(misses: &[Miss]) -> Vec<Value> {
    misses.iter().map(json).collect()
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

fn json(miss: &Miss) -> Value {
    json!({
        "path": miss.path.to_string(),
        "call": miss.call,
        "lookups": miss.lookups,
        "programs": miss.programs,
    })
}

fn plural_lookups(count: u64) -> String {
    match usize::try_from(count) {
        Ok(count) => plural(count, "look-up"),
        Err(_) => "many look-ups".to_owned(),
    }
}
