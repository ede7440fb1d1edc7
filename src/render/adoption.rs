//! Things in the way of a site's mounts.

use serde_json::{Value, json};

use super::text::line;
use crate::adopt::{AsideRecord, Class, DIRECTORY, Standing, Survey};
use crate::base::text::{few, plural};
use crate::base::{HostPath, JailPath, SiteName};

/// How many files of a directory are named.
const SHOWN: usize = 5;

/// The width of the longest class.
const WIDTH: usize = 14;

/// The fate of the things in the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adoption {
    /// They were only looked at.
    Looked,
    MovedAside,
    /// They are where they were, although they were to be moved aside.
    Left,
}

/// A line for the site, and one for each thing in the way.
pub(crate) fn text(survey: &Survey, record: Option<&AsideRecord>, adoption: Adoption) -> String {
    let Survey { site, root, .. } = survey;
    let mut text = String::new();
    let before = match record {
        Some(record) if !record.moved.is_empty() => {
            format!("; {} moved aside before", record.moved.len())
        }
        _ => String::new(),
    };
    let what = match survey.standing.len() {
        0 => "nothing to adopt".to_owned(),
        count if adoption == Adoption::MovedAside => {
            format!("{} stood in the way", plural(count, "thing"))
        }
        1 => "1 thing stands in the way".to_owned(),
        count => format!("{count} things stand in the way"),
    };
    line(&mut text, format_args!("{site}: {what} in {root}{before}"));
    for standing in &survey.standing {
        line(
            &mut text,
            format_args!("  {:WIDTH$}  {}", standing.class, about(standing)),
        );
    }
    if !survey.nodes.is_empty() && !survey.standing.is_empty() {
        line(
            &mut text,
            format_args!(
                "  {:WIDTH$}  {} (device nodes, mounted on as they are)",
                "kept",
                few(&survey.nodes, usize::MAX)
            ),
        );
    }
    text
}

fn about(standing: &Standing) -> String {
    let Standing {
        path, files, own, ..
    } = standing;
    let own: Vec<_> = own.iter().filter(|own| own.path != *path).collect();
    let own_reason = standing.own.iter().find(|own| own.path == *path);
    let files = match standing.tree.len() {
        0 | 1 => String::new(),
        _ => format!(" ({})", plural(*files, "file")),
    };
    let why = if let Some(own) = own_reason {
        format!(": {}", own.why)
    } else if own.is_empty() {
        String::new()
    } else {
        let each = own.iter().map(|own| format!("{}: {}", own.path, own.why));
        format!(": {}", few(each, SHOWN))
    };
    let note = match &standing.note {
        Some(note) => format!("; {note}"),
        None => String::new(),
    };
    format!("{path}{files}{why}{note}")
}

/// The things that `--undo` would put back.
pub(crate) fn would_go_back(site: &SiteName, root: &HostPath, paths: &[&JailPath]) -> String {
    let mut text = String::new();
    let count = plural(paths.len(), "thing");
    line(
        &mut text,
        format_args!("{site}: {count} would be put back in {root}"),
    );
    for path in paths {
        line(&mut text, format_args!("  {path}"));
    }
    text
}

/// `{site, root, standing: [{path, class, kind, files, own: [{path, why}]}], …}`
pub(crate) fn json(survey: &Survey, record: Option<&AsideRecord>, also: &[JailPath]) -> Value {
    let mut standing = vec![];
    for thing in &survey.standing {
        standing.push(standing_json(thing, also));
    }
    let mut moved_before = vec![];
    if let Some(record) = record {
        for moved in &record.moved {
            moved_before.push(json!({ "path": moved.path, "to": moved.to }));
        }
    }
    json!({
        "site": survey.site,
        "root": survey.root,
        "standing": standing,
        "nodes": survey.nodes,
        "directory": format!("{}{DIRECTORY}", survey.root),
        "moved_before": moved_before,
    })
}

fn standing_json(standing: &Standing, also: &[JailPath]) -> Value {
    let mut object = json!({
        "path": standing.path,
        "class": standing.class,
        "kind": standing.kind,
        "files": standing.files,
    });
    if standing.class == Class::Own {
        let mut list = vec![];
        for own in &standing.own {
            list.push(json!({ "path": own.path, "why": own.why, "movable": own.movable }));
        }
        object["own"] = json!(list);
        object["goes"] = json!(standing.goes(also));
    }
    if let Some(note) = &standing.note {
        object["note"] = json!(note);
    }
    object
}
