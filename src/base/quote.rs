//! Text that others chose, such as a site's owner, in what an administrator reads and copies.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `text` as one word of a shell's command line.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    if text.contains(is_unprintable) {
        return Cow::Owned(escaped_word(text.as_bytes()));
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

/// `path` as one word of a shell's command line, whatever bytes are in it.
pub fn shell_path(path: impl AsRef<Path>) -> String {
    let bytes = path.as_ref().as_os_str().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) => shell_word(text).into_owned(),
        Err(_) => escaped_word(bytes),
    }
}

/// A word that stays what it is where unprintable characters are escaped: every shell has printf.
fn escaped_word(bytes: &[u8]) -> String {
    let mut format = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '%' => format.push_str("%%"),
                '\\' => format.push_str(r"\\"),
                c if c == '\'' || is_unprintable(c) => {
                    octal(&mut format, c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                c => format.push(c),
            }
        }
        octal(&mut format, chunk.invalid());
    }
    if bytes.ends_with(b"\n") {
        // The shell takes newlines from the end of what a command prints; this form is bash's.
        return format!("$'{}'", format.replace("%%", "%"));
    }
    format!("\"$(printf '{format}')\"")
}

fn octal(format: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(format, r"\{byte:03o}"); // a string takes all
    }
}

/// `text` on one line, with nothing in it that commands a terminal or changes the order of what is
/// shown: every character that is not printable by itself is escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// As [`printable`], but with the middle left out if it is longer than `longest` characters.
pub fn brief(text: &str, longest: usize) -> Cow<'_, str> {
    let text = printable(text);
    if text.len() <= longest {
        return text;
    }
    let count = text.chars().count();
    if count <= longest {
        return text;
    }

    let (first, last) = (longest * 3 / 4, longest / 4);
    let begin: String = text.chars().take(first).collect();
    let end: String = text.chars().skip(count - last).collect();
    Cow::Owned(format!(
        "{begin} [{} characters left out] {end}",
        count - first - last
    ))
}

/// Control characters, and those of Unicode that are invisible (U+200B), end a line (U+2028),
/// change the direction of writing (U+202E), combine with the character before, or are unassigned.
fn is_unprintable(c: char) -> bool {
    // The standard library escapes exactly these, and of ASCII also quotes and backslashes.
    c.is_control() || !c.is_ascii() && c.escape_debug().len() > 1
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    #[test]
    fn no_text_commands_the_terminal() {
        assert_eq!(
            super::printable("a\\ü\x1b[2J\n\tb\u{9b}"),
            "a\\ü\\u{1b}[2J\\n\\tb\\u{9b}"
        );
        for c in (0x200b..=0x200f)
            .chain(0x2028..=0x202e)
            .chain(0x2060..=0x206f)
            .chain([0xad, 0x61c, 0xfeff, 0xe0041])
        {
            let c = char::from_u32(c).unwrap();
            assert_eq!(
                super::printable(&format!("a{c}ö")),
                format!("a\\u{{{:x}}}ö", u32::from(c))
            );
        }
        assert_eq!(
            super::printable("Zürich 東京 \"'\\ €"),
            "Zürich 東京 \"'\\ €"
        );
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_end() {
        assert_eq!(super::brief("äöü\n", 5), "äöü\\n");
        let long = super::brief(&"ä".repeat(20_000), 100).into_owned();
        assert_eq!(
            long,
            format!(
                "{} [19900 characters left out] {}",
                "ä".repeat(75),
                "ä".repeat(25)
            )
        );
        assert!(
            super::brief(&"\u{202e}".repeat(20_000), 100)
                .chars()
                .count()
                < 140
        );
    }

    #[test]
    fn a_word_is_one_word_to_the_shell() {
        assert_eq!(
            super::shell_word("/usr/lib/libc.so.6"),
            "/usr/lib/libc.so.6"
        );
        for text in [
            "", "a b", "$(id)", "`id`", "it's", "'; id '", "~", "a\nb", "*", "ä", "#", "!!",
        ] {
            let line = format!("printf %s {}", super::shell_word(text));
            let printed = Command::new("sh")
                .args(["-c", &line])
                .output()
                .unwrap()
                .stdout;
            assert_eq!(String::from_utf8_lossy(&printed), text, "{line}");
        }
    }

    #[test]
    fn a_word_can_be_typed_as_it_is_shown() {
        for path in [
            &b"/a\nb"[..],
            b"/b\xe9d %s\\n it's $(id) \x1b[2J",
            b"\xff-",
            "/\u{202e}ä\n%".as_bytes(),
            b"/ends\n",
        ] {
            let word = super::shell_path(OsStr::from_bytes(path));
            assert_eq!(super::printable(&word), word);
            let line = format!("printf %s {word}");
            let printed = Command::new("bash").args(["-c", &line]).output().unwrap();
            assert_eq!(printed.stdout, path, "{line}");
        }
    }
}
