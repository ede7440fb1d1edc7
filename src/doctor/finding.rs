//! What doctor says.

use std::fmt;

use serde::Serialize;

use crate::import::scalar;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckVerdict {
    /// It works inside.
    Ok,
    /// It does not.
    Failed,
    /// It could not be tried.
    CouldNotCheck,
    /// The site has no use for it.
    NotNeeded,
}

impl fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::CouldNotCheck => "could not check",
            Self::NotNeeded => "not needed",
        })
    }
}

/// What would make a failed check pass. `Display` is the line to add to the manifest, or what else
/// to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Items for one of the manifest's lists.
    Manifest {
        /// `presets`.
        key: &'static str,
        /// `["dns"]`.
        items: Vec<String>,
    },
    /// Something else: a command, a setting.
    Do(String),
}

impl Remedy {
    /// `key: [item]` in the manifest.
    pub(super) fn line(key: &'static str, item: impl Into<String>) -> Self {
        Self::Manifest {
            key,
            items: vec![item.into()],
        }
    }

    /// The preset of this name.
    pub(super) fn preset(name: &str) -> Self {
        Self::line("presets", name)
    }

    /// Something outside of the manifest.
    pub(super) fn act(what: impl Into<String>) -> Self {
        Self::Do(what.into())
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest { key, items } => {
                let items: Vec<_> = items.iter().map(|item| scalar(item)).collect();
                write!(f, "{key}: [{}]", items.join(", "))
            }
            Self::Do(what) => f.write_str(what),
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check's name: `dns`.
    pub check: &'static str,
    /// How it ended.
    pub verdict: CheckVerdict,
    /// What was tried, or why not: clauses.
    pub detail: String,
    /// What would make it pass, where it failed.
    pub remedies: Vec<Remedy>,
}

/// A [`Finding`] that does not know its check's name yet.
#[derive(Debug)]
pub(super) struct CheckOutcome {
    pub verdict: CheckVerdict,
    pub detail: String,
    pub remedies: Vec<Remedy>,
}

/// One thing that is wrong, and what would mend it.
#[derive(Debug)]
pub(super) struct Problem {
    pub text: String,
    pub remedy: Remedy,
}

impl Problem {
    pub fn new(text: impl Into<String>, remedy: Remedy) -> Self {
        Self {
            text: text.into(),
            remedy,
        }
    }
}

impl CheckOutcome {
    fn new(verdict: CheckVerdict, detail: impl Into<String>) -> Self {
        Self {
            verdict,
            detail: detail.into(),
            remedies: vec![],
        }
    }

    pub fn ok(detail: impl Into<String>) -> Self {
        Self::new(CheckVerdict::Ok, detail)
    }

    pub fn could_not_check(why: impl Into<String>) -> Self {
        Self::new(CheckVerdict::CouldNotCheck, why)
    }

    pub fn not_needed(why: impl Into<String>) -> Self {
        Self::new(CheckVerdict::NotNeeded, why)
    }

    /// Failed if there is a problem, else ok with the text `ok`.
    pub fn of(problems: Vec<Problem>, ok: impl Into<String>) -> Self {
        if problems.is_empty() {
            return Self::ok(ok);
        }
        let mut remedies = vec![];
        for problem in &problems {
            add(&mut remedies, &problem.remedy);
        }
        let texts: Vec<_> = problems.into_iter().map(|problem| problem.text).collect();
        Self {
            remedies,
            ..Self::new(CheckVerdict::Failed, texts.join("; "))
        }
    }

    /// What is well as far as it was tried could not be tried to its end, if there is a reason.
    pub fn unless(self, untried: Option<&str>) -> Self {
        match untried {
            Some(why) if self.verdict == CheckVerdict::Ok => {
                Self::could_not_check(format!("{}; more cannot be tried: {why}", self.detail))
            }
            _ => self,
        }
    }

    pub fn named(self, check: &'static str) -> Finding {
        Finding {
            check,
            verdict: self.verdict,
            detail: self.detail,
            remedies: self.remedies,
        }
    }
}

/// Adds a remedy: items of one list go on one line, and nothing is said twice.
fn add(remedies: &mut Vec<Remedy>, more: &Remedy) {
    if let Remedy::Manifest { key, items } = more {
        for known in remedies.iter_mut() {
            if let Remedy::Manifest {
                key: same,
                items: known,
            } = known
                && same == key
            {
                let new: Vec<_> = items
                    .iter()
                    .filter(|item| !known.contains(item))
                    .cloned()
                    .collect();
                known.extend(new);
                return;
            }
        }
    }
    if !remedies.contains(more) {
        remedies.push(more.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_one_list_are_one_line() {
        let problem =
            |item: &str| Problem::new(format!("no {item}"), Remedy::line("devices", item));
        let act = || Problem::new("it is dead", Remedy::act("start it"));
        let outcome = CheckOutcome::of(
            vec![
                problem("zero"),
                act(),
                problem("null"),
                act(),
                problem("zero"),
            ],
            "",
        );
        let lines: Vec<_> = outcome.remedies.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["devices: [zero, \"null\"]", "start it"]);
        assert_eq!(
            outcome.detail,
            "no zero; it is dead; no null; it is dead; no zero"
        );
        assert_eq!(CheckOutcome::of(vec![], "fine").verdict, CheckVerdict::Ok);
    }

    #[test]
    fn what_was_not_tried_is_neither_well_nor_hides_what_fails() {
        let outcome = CheckOutcome::ok("it answers").unless(Some("it is dark"));
        assert_eq!(outcome.verdict, CheckVerdict::CouldNotCheck);
        assert_eq!(
            outcome.detail,
            "it answers; more cannot be tried: it is dark"
        );
        assert_eq!(
            CheckOutcome::ok("it answers").unless(None).verdict,
            CheckVerdict::Ok
        );
        let failed = CheckOutcome::of(
            vec![Problem::new("it is dead", Remedy::act("start it"))],
            "",
        );
        assert_eq!(failed.unless(Some("it is dark")).detail, "it is dead");
    }
}
