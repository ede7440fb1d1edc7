//! Words for numbers and names, and how others write names.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use strsim::damerau_levenshtein;

/// `1 mount`, `30 mounts`, `2 processes`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    let ending = match count {
        1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {what}{ending}")
}

/// ` and 3 more`, to follow the last item that is named; nothing if all are.
pub(crate) fn and_more(more: usize) -> String {
    if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    }
}

/// `a, b and 3 more`: at most `named` of the items, and how many others there are.
pub(crate) fn few<T: Display>(items: impl IntoIterator<Item = T>, named: usize) -> String {
    let mut items = items.into_iter();
    let mut first = vec![];
    for item in items.by_ref().take(named) {
        first.push(item.to_string());
    }
    format!("{}{}", first.join(", "), and_more(items.count()))
}

/// The one of `known` that `word` was probably meant to be. A third of its letters may differ, one
/// to three of them; capitals, and `_` for `-`, do not count.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = word.to_lowercase().replace('_', "-");
    let limit = (word.chars().count() / 3).clamp(1, 3);
    let mut nearest = None;
    for name in known {
        let as_it_is = damerau_levenshtein(word, name);
        let distance = as_it_is.min(damerau_levenshtein(&plain, name));
        let is_nearer = match nearest {
            Some((least, _)) => distance < least,
            None => distance <= limit,
        };
        if is_nearer {
            nearest = Some((distance, name));
        }
    }
    Some(nearest?.1)
}

/// The path in a field of fstab(5) or of the kernel's mount table, in which blanks and the like are
/// written as `\040`. A backslash that begins no such code stays.
pub(crate) fn unescape_octal(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        match after {
            [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] if *first == b'\\' => {
                path.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

/// `` `a`, `b`, `c` ``
pub(crate) fn listed(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn counts_are_words() {
        assert_eq!(plural(1, "mount"), "1 mount");
        assert_eq!(plural(0, "more file"), "0 more files");
        assert_eq!(plural(1, "process"), "1 process");
        assert_eq!(plural(2, "process"), "2 processes");
        assert_eq!(few(["a", "b", "c"], 3), "a, b, c");
        assert_eq!(few(["a", "b", "c"], 1), "a and 2 more");
    }

    #[test]
    fn a_slip_of_the_pen_finds_the_word_and_another_word_does_not() {
        let known = ["null", "urandom", "php8.2-fpm.service", "README"];
        for (word, expected) in [
            ("nul", Some("null")),
            ("unradom", Some("urandom")),
            ("URandom", Some("urandom")),
            ("php82_fpm.service", Some("php8.2-fpm.service")),
            ("READMEE", Some("README")),
            ("zero", None),
            ("nginx.service", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn octal_codes_are_undone_and_nothing_else() {
        for (field, path) in [
            ("/srv/a\\040b", "/srv/a b"),
            ("/a\\134040", "/a\\040"),
            ("/a\\9\\12\\777", "/a\\9\\12\\777"),
        ] {
            assert_eq!(unescape_octal(field.as_bytes()), Path::new(path), "{field}");
        }
    }
}
