//! Text that somebody else chose, such as a site's owner, in what an administrator reads and copies.

use std::borrow::Cow;

/// `text` as one word of a shell's command line.
pub fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn a_word_is_one_word_to_the_shell() {
        assert_eq!(super::word("/usr/lib/libc.so.6"), "/usr/lib/libc.so.6");
        for text in ["", "a b", "$(id)", "`id`", "it's", "'; id '", "~", "a\nb", "*", "ä", "#", "!!"] {
            let line = format!("printf %s {}", super::word(text));
            let printed = Command::new("sh").args(["-c", &line]).output().unwrap().stdout;
            assert_eq!(String::from_utf8_lossy(&printed), text, "{line}");
        }
    }
}
