//! Names of sites, made from names that need not be one.

use crate::base::{HostPath, SiteName};

/// Names of directories that do not tell which site they are for.
const NAMELESS: [&str; 6] = ["chroot", "jail", "root", "rootfs", "fs", "htdocs"];

/// A site's name made from its root: `site1` for `/srv/www/site1` and for `/srv/www/site1/chroot`.
pub(super) fn of_root(root: &HostPath) -> String {
    let mut names = vec![];
    for name in root.as_path().iter().skip(1) {
        names.push(as_site_name(&name.to_string_lossy()));
    }

    let is_telling = |name: &&String| !NAMELESS.contains(&name.as_str());
    match names.iter().rfind(is_telling).or(names.last()) {
        Some(name) => name.clone(),
        None => "site".to_owned(),
    }
}

/// How long a name is at most: its file has an ending, and needs a temporary name.
const LONGEST: usize = 200;

/// `text` as a site's name: other characters become `-`, and so does an `@` at the end, which a
/// template of sites has there.
pub(super) fn as_site_name(text: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    let mut name = text.replace(|c| !is_allowed(c), "-");
    name.truncate(LONGEST);
    if name.ends_with('@') {
        name.pop();
        name.push('-');
    }
    if SiteName::new(&name).is_ok() {
        name
    } else {
        format!("site{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_roots() {
        for (root, name) in [
            ("/srv/www/site1", "site1"),
            ("/srv/www/site1/chroot", "site1"),
            ("/srv/ä b", "site--b"),
            ("/root", "root"),
        ] {
            assert_eq!(of_root(&HostPath::new(root).unwrap()), name);
        }
    }

    #[test]
    fn names_are_those_of_sites() {
        let long = "x".repeat(300);
        for (text, name) in [
            ("a@b", "a@b"),
            ("a@", "a-"),
            ("-a", "site-a"),
            (long.as_str(), &long[..200]),
        ] {
            assert_eq!(as_site_name(text), name);
        }
    }
}
