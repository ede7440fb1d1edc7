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

/// `text` within one line, and with nothing in it that commands a terminal: control characters are escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn the_terminal_is_not_commanded() {
        assert_eq!(super::printable("a\\ü\x1b[2J\n\tb\u{9b}"), "a\\ü\\u{1b}[2J\\n\\tb\\u{9b}");
    }

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
