//! What a step changes in a graft.

use std::fmt;
use std::sync::Arc;

use super::graft::Template;
use crate::base::JailPath;
use crate::base::text::plural;
use crate::resolve::Mount;

/// What a step changes in a graft, as a site sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraftChange {
    /// What the graft shows afterwards.
    pub template: Arc<Template>,
    /// The mounts that come.
    pub attach: Vec<Arc<Mount>>,
    /// The mounts that are replaced.
    pub swap: Vec<Arc<Mount>>,
    /// The targets of the mounts that go.
    pub detach: Vec<JailPath>,
}

impl GraftChange {
    /// The changes one by one, in words.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![];
        for target in &self.detach {
            lines.push(format!("detach {target}"));
        }
        for mount in &self.attach {
            lines.push(in_words("attach", mount));
        }
        for mount in &self.swap {
            lines.push(in_words("swap", mount));
        }
        lines
    }
}

fn in_words(verb: &str, mount: &Mount) -> String {
    let (source, target) = (&mount.source, &mount.target);
    format!("{verb} {source} on {target} ({})", mount.attributes)
}

impl fmt::Display for GraftChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("attach", self.attach.len()),
            ("swap", self.swap.len()),
            ("detach", self.detach.len()),
        ];
        let mut parts = vec![];
        for (verb, count) in counts {
            if count > 0 {
                parts.push(format!("{verb} {}", plural(count, "mount")));
            }
        }
        if parts.is_empty() {
            return f.write_str("links and placeholders");
        }
        f.write_str(&parts.join(", "))
    }
}
