//! Words for numbers and names.

/// `1 mount`, `30 mounts`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
