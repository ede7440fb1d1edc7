//! The result of a check, and what would remedy a failed one.

use std::fmt;

use serde::Serialize;

use crate::manifest::yaml_scalar;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CheckVerdict {
    /// It works inside.
    Ok,
    /// It does not work inside.
    Failed,
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

/// The remedy for a failed check. `Display` is the line to add to the manifest, or what else
/// to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Items for one of the manifest's lists.
    Manifest {
        /// Such as `presets`.
        key: &'static str,
        items: Vec<String>,
    },
    /// A whole line for the manifest, such as one of `mounts` with attributes.
    ManifestLine(String),
    /// Something outside the manifest: a command, a setting.
    Do(String),
}

impl Remedy {
    /// `key: [item]` in the manifest.
    pub(crate) fn line(key: &'static str, item: impl Into<String>) -> Self {
        let items = vec![item.into()];
        Self::Manifest { key, items }
    }

    pub(crate) fn preset(name: &str) -> Self {
        Self::line("presets", name)
    }

    pub(crate) fn act(what: impl Into<String>) -> Self {
        Self::Do(what.into())
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest { key, items } => {
                let items: Vec<_> = items.iter().map(|item| yaml_scalar(item)).collect();
                write!(f, "{key}: [{}]", items.join(", "))
            }
            Self::Do(what) | Self::ManifestLine(what) => f.write_str(what),
        }
    }
}

/// The result of one check, with the check's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Such as `dns`.
    pub check: &'static str,
    pub verdict: CheckVerdict,
    /// The things that were tried, or why nothing was: clauses.
    pub detail: String,
    /// The remedy for a failed check.
    pub remedies: Vec<Remedy>,
}

/// A [`Finding`] without the check's name.
#[derive(Debug)]
pub(super) struct CheckOutcome {
    pub verdict: CheckVerdict,
    pub detail: String,
    pub remedies: Vec<Remedy>,
}

/// One thing that is wrong, and what would remedy it.
#[derive(Debug)]
pub(super) struct Problem {
    pub text: String,
    pub remedies: Vec<Remedy>,
}

impl Problem {
    pub(super) fn new(text: impl Into<String>, remedy: Remedy) -> Self {
        Self::with(text, vec![remedy])
    }

    pub(super) fn with(text: impl Into<String>, remedies: Vec<Remedy>) -> Self {
        let text = text.into();
        Self { text, remedies }
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

    pub(super) fn ok(detail: impl Into<String>) -> Self {
        Self::new(CheckVerdict::Ok, detail)
    }

    pub(super) fn could_not_check(why: impl Into<String>) -> Self {
        Self::new(CheckVerdict::CouldNotCheck, why)
    }

    pub(super) fn not_needed(why: impl Into<String>) -> Self {
        Self::new(CheckVerdict::NotNeeded, why)
    }

    pub(super) fn failed(problem: Problem) -> Self {
        Self::judge([problem], "")
    }

    /// Failed if there is a problem, otherwise ok with the text `ok`.
    pub(super) fn judge(
        problems: impl IntoIterator<Item = Problem>,
        ok: impl Into<String>,
    ) -> Self {
        let mut texts = vec![];
        let mut remedies = vec![];
        for problem in problems {
            texts.push(problem.text);
            for remedy in problem.remedies {
                add_remedy(&mut remedies, remedy);
            }
        }

        if texts.is_empty() {
            return Self::ok(ok);
        }
        Self {
            remedies,
            ..Self::new(CheckVerdict::Failed, texts.join("; "))
        }
    }

    /// An ok check that could not be tried to its end, because of `untried`, was not possible.
    pub(super) fn unless(self, untried: Option<&str>) -> Self {
        match untried {
            Some(why) if self.verdict == CheckVerdict::Ok => {
                Self::could_not_check(format!("{}; more cannot be tried: {why}", self.detail))
            }
            _ => self,
        }
    }

    pub(super) fn named(self, check: &'static str) -> Finding {
        Finding {
            check,
            verdict: self.verdict,
            detail: self.detail,
            remedies: self.remedies,
        }
    }
}

/// Items of one list share one line, and no remedy is given twice.
fn add_remedy(remedies: &mut Vec<Remedy>, more: Remedy) {
    if let Remedy::Manifest { key, items } = &more
        && let Some(known) = items_of(remedies, key)
    {
        for item in items {
            if !known.contains(item) {
                known.push(item.clone());
            }
        }
    } else if !remedies.contains(&more) {
        remedies.push(more);
    }
}

/// The items of the remedy for the list `wanted`.
fn items_of<'r>(remedies: &'r mut [Remedy], wanted: &str) -> Option<&'r mut Vec<String>> {
    remedies.iter_mut().find_map(|remedy| match remedy {
        Remedy::Manifest { key, items } if *key == wanted => Some(items),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_one_list_are_one_line() {
        let problem =
            |item: &str| Problem::new(format!("no {item}"), Remedy::line("devices", item));
        let act = || Problem::new("it is dead", Remedy::act("start it"));
        let outcome = CheckOutcome::judge(
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
        assert_eq!(
            CheckOutcome::judge(vec![], "fine").verdict,
            CheckVerdict::Ok
        );
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
        let failed = CheckOutcome::failed(Problem::new("it is dead", Remedy::act("start it")));
        assert_eq!(failed.unless(Some("it is dark")).detail, "it is dead");
    }
}
