//! A manifest and mounts before and after: as a unified diff for people, and as lists for programs.

use serde::Serialize;
use serde_json::{Value, json};
use similar::TextDiff;

use crate::base::quote::printable;
use crate::plan::{MountState, Plan, State};
use crate::resolve::Desired;

/// How many lines around a change are shown.
const CONTEXT: usize = 3;

/// Something before and after a change.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct BeforeAfter<T> {
    pub before: T,
    pub after: T,
}

/// A manifest and the mounts of a site, before and after.
pub(crate) struct SiteChange {
    /// The manifest's file.
    pub file: String,
    /// Its text; `None`: there is no file.
    pub manifest: BeforeAfter<Option<String>>,
    /// The mounts, one per line; `None`: it is not known which ones there will be.
    pub mounts: Option<BeforeAfter<Vec<String>>>,
}

impl SiteChange {
    /// As diff(1) shows it with `-u`; empty if nothing differs.
    pub(crate) fn text(&self) -> String {
        let BeforeAfter { before, after } = &self.manifest;
        let names = BeforeAfter {
            before: self.name_of(before.as_deref()),
            after: self.name_of(after.as_deref()),
        };
        let texts = BeforeAfter {
            before: before.as_deref().unwrap_or_default(),
            after: after.as_deref().unwrap_or_default(),
        };
        let mut text = unified(&names, &texts);
        if let Some(BeforeAfter { before, after }) = &self.mounts {
            let names = BeforeAfter {
                before: "mounts",
                after: "mounts",
            };
            let texts = BeforeAfter {
                before: &*lines(before),
                after: &lines(after),
            };
            text += &unified(&names, &texts);
        }
        text
    }

    /// The name of the file with this text.
    fn name_of(&self, text: Option<&str>) -> &str {
        match text {
            Some(_) => &self.file,
            None => "/dev/null",
        }
    }

    /// `{manifest: {file, before, after}, mounts: {before: […], after: […]}}`
    pub(crate) fn json(&self) -> Value {
        let BeforeAfter { before, after } = &self.manifest;
        json!({
            "manifest": { "file": self.file, "before": before, "after": after },
            "mounts": self.mounts,
        })
    }
}

fn unified(names: &BeforeAfter<&str>, texts: &BeforeAfter<&str>) -> String {
    if texts.before == texts.after {
        return String::new();
    }
    TextDiff::from_lines(texts.before, texts.after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(names.before, names.after)
        .to_string()
}

/// The mounts of ours that are there, one per line, each after `place`.
pub(crate) fn mounts_before(plan: &Plan, place: &str) -> Vec<String> {
    let mut lines = vec![];
    for mount in &plan.states {
        if is_there(mount.state) {
            lines.push(format!("{place}{}", line(mount)));
        }
    }
    lines
}

/// The mounts that the site should have, one per line, each after `place`.
pub(crate) fn mounts_after(desired: &Desired, place: &str) -> Vec<String> {
    let mut lines = vec![];
    for mount in &desired.mounts {
        let (target, options) = (&mount.target, mount.options());
        let source = mount.source_name();
        lines.push(format!("{place}{source} on {target} ({options})"));
    }
    lines
}

/// Paths in the lines may have been chosen by others.
fn lines(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text += &printable(line);
        text += "\n";
    }
    text
}

fn is_there(state: State) -> bool {
    !matches!(
        state,
        State::Missing | State::Absent | State::Hidden | State::Foreign
    )
}

fn line(mount: &MountState) -> String {
    let wanted = mount.mount.as_ref();
    let source = match (wanted, &mount.source) {
        (Some(wanted), _) => wanted.source_name(),
        (None, Some(source)) => source.to_string(),
        (None, None) => "unknown".to_owned(),
    };
    let options = wanted.map(|wanted| format!(" ({})", wanted.options()));
    let options = options.unwrap_or_default();
    let line = format!("{source} on {}{options}", mount.target);
    match (mount.state, &mount.detail) {
        (State::Ok, _) => line,
        (state, Some(detail)) => format!("{line}, {state}: {detail}"),
        (state, None) => format!("{line}, {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_manifest_comes_from_nowhere() {
        let change = SiteChange {
            file: "/etc/mountjail/sites/s.yaml".to_owned(),
            manifest: BeforeAfter {
                before: None,
                after: Some("root: /srv/s\n".to_owned()),
            },
            mounts: Some(BeforeAfter {
                before: vec![],
                after: vec!["/a on /a (ro)".to_owned()],
            }),
        };
        let text = "--- /dev/null\n+++ /etc/mountjail/sites/s.yaml\n@@ -0,0 +1 @@\n\
                    +root: /srv/s\n--- mounts\n+++ mounts\n@@ -0,0 +1 @@\n+/a on /a (ro)\n";
        assert_eq!(change.text(), text);
        assert_eq!(change.json()["mounts"]["after"][0], "/a on /a (ro)");
        assert_eq!(change.json()["manifest"]["before"], Value::Null);
    }

    #[test]
    fn what_is_the_same_is_not_shown() {
        let text = || Some("root: /srv/s\n".to_owned());
        let mounts = || vec!["/a on /a (ro)".to_owned()];
        let change = SiteChange {
            file: "s.yaml".to_owned(),
            manifest: BeforeAfter {
                before: text(),
                after: text(),
            },
            mounts: Some(BeforeAfter {
                before: mounts(),
                after: mounts(),
            }),
        };
        assert_eq!(change.text(), "");
    }

    #[test]
    fn names_do_not_command_the_terminal() {
        let change = SiteChange {
            file: "s.yaml".to_owned(),
            manifest: BeforeAfter::default(),
            mounts: Some(BeforeAfter {
                before: vec![],
                after: vec!["/a\u{1b}[2J on /a (ro)".to_owned()],
            }),
        };
        assert!(change.text().ends_with("+/a\\u{1b}[2J on /a (ro)\n"));
        assert_eq!(
            change.json()["mounts"]["after"][0],
            "/a\u{1b}[2J on /a (ro)"
        );
    }
}
