//! What people have already → manifests: the pools of PHP-FPM.
//!
//! In: configuration files of other programs. Out: a [`Draft`] a site, to be shown or written. It reads; it never
//! changes anything.

pub mod fpm;
pub mod php;

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::manifest::HostPath;

/// A site that was found, as a manifest says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// A name for it, not yet checked.
    pub name: String,
    /// The jail's directory.
    pub root: HostPath,
    /// Presets that it needs.
    pub presets: Vec<String>,
    /// Logins that run inside.
    pub users: BTreeSet<String>,
    /// Units that run inside.
    pub services: BTreeSet<String>,
    /// Where it was found, and what the administrator should look at: sentences.
    pub remarks: Vec<String>,
}

impl Draft {
    /// The manifest's text.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        for remark in &self.remarks {
            let _ = writeln!(text, "# {remark}");
        }
        let _ = writeln!(text, "root: {}", scalar(&self.root.to_string()));
        let lists: [(&str, Vec<&String>); 3] = [
            ("presets", self.presets.iter().collect()),
            ("users", self.users.iter().collect()),
            ("services", self.services.iter().collect()),
        ];
        for (key, items) in lists.into_iter().filter(|(_, items)| !items.is_empty()) {
            let items: Vec<_> = items.into_iter().map(|item| scalar(item)).collect();
            let _ = writeln!(text, "{key}: [{}]", items.join(", "));
        }
        text
    }
}

/// A YAML scalar: as it is where it is surely read as that text, else quoted as JSON, which YAML reads as well.
pub(crate) fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-@".contains(c))
        && !["null", "true", "false", "yes", "no", "on", "off", "y", "n"].contains(&&*text.to_lowercase());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Presets, SiteName, SourceFile, parse};

    #[test]
    fn the_text_is_a_manifest_whatever_the_names_are() {
        for name in ["www-data", "no", "null", "0x10", "host$", "a.b"] {
            let draft = Draft {
                name: "s".into(),
                root: HostPath::new("/srv/a b: #c").unwrap(),
                presets: vec!["php-fpm".into()],
                users: [name.to_owned()].into(),
                services: ["php8.2-fpm.service".to_owned()].into(),
                remarks: vec!["found".into()],
            };
            let text = draft.to_yaml();
            let site = SiteName::new("s").unwrap();
            let read = parse(site, SourceFile::File("s.yaml".into()), &text, &Presets::built_in());
            let read = read.unwrap_or_else(|wrong| panic!("{text}\n{}", wrong.render(false)));
            assert_eq!((read.root, read.services.len()), (draft.root, 1));
        }
    }
}
