//! Text → tokens.

use super::value::{PhpValue, constant};

/// Where the scanner is, which decides which characters a word may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ScannerState {
    Value,
    Section,
    Offset,
}

pub(super) struct Scanner<'t> {
    pub text: &'t [u8],
    pub at: usize,
    pub variables: Variables<'t>,
}

/// The next token.
pub(super) enum Token {
    Text(PhpValue),
    Operator(u8),
    /// The end of the value, section or key.
    End,
    Wrong(String),
}

/// The value of `${NAME}`; `None`: it is not known.
pub(in crate::import) type Variables<'v> = &'v dyn Fn(&str) -> Option<String>;

impl Scanner<'_> {
    pub(super) fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    /// How many bytes from `from` on are of `kind`.
    pub(super) fn span(&self, from: usize, kind: impl Fn(u8) -> bool) -> usize {
        self.text[from.min(self.text.len())..]
            .iter()
            .take_while(|byte| kind(**byte))
            .count()
    }

    pub(super) fn slice(&self, from: usize, to: usize) -> String {
        String::from_utf8_lossy(&self.text[from..to]).into_owned()
    }

    pub(super) fn unexpected(&self) -> String {
        match self.text.get(self.at) {
            None | Some(b'\n' | b'\r') => "the line ends too early".to_owned(),
            Some(_) => {
                let end = self.at + self.span(self.at, |byte| byte != b'\n');
                format!(
                    "`{}` does not belong there",
                    self.slice(self.at, end).trim_end()
                )
            }
        }
    }

    /// A word that stands for another value, unless a longer word begins here: its length and the
    /// value.
    pub(super) fn keyword(&self) -> (usize, Option<&'static str>) {
        let word = self.span(self.at, |byte| byte.is_ascii_alphabetic());
        let name = self.slice(self.at, self.at + word).to_ascii_lowercase();
        let length = word + self.span(self.at + word, is_blank);
        let value = match name.as_str() {
            name if TRUE.contains(&name) => Some("1"),
            name if FALSE.contains(&name) || name == "null" => Some(""),
            _ => None,
        };
        (
            length,
            value.filter(|_| self.word(ScannerState::Value) <= length),
        )
    }

    /// The next token of a value, a section's name or a key.
    pub(super) fn token(&mut self, place: ScannerState) -> Token {
        let blanks = self.span(self.at, is_blank);
        let after = self.text.get(self.at + blanks).copied();
        match (place, after) {
            (_, Some(b'"')) if place == ScannerState::Value || blanks >= self.word(place) => {
                self.at += blanks + 1;
                return self.quoted();
            }
            (ScannerState::Value, None) => {
                self.at += blanks;
                return Token::End;
            }
            (ScannerState::Value, Some(b'\n' | b'\r')) => {
                self.at += blanks + 1;
                return Token::End;
            }
            (ScannerState::Value, Some(b';')) => {
                self.at += blanks;
                self.at += self.span(self.at, |byte| !is_newline(byte));
                return Token::End;
            }
            (ScannerState::Section, Some(b']')) if blanks == 0 => {
                self.at += 1;
                self.at += self.span(self.at, is_blank);
                return Token::End;
            }
            (ScannerState::Offset, Some(b']')) if blanks >= self.word(place) => {
                self.at += blanks + 1;
                return Token::End;
            }
            _ => {}
        }
        self.other(place, blanks)
    }

    fn other(&mut self, place: ScannerState, blanks: usize) -> Token {
        let begin = self.at;
        if place == ScannerState::Value && self.keyword().1.is_some() {
            return Token::Wrong(self.unexpected());
        }
        match self.peek(0) {
            Some(b'$') if self.peek(1) == Some(b'{') => {
                self.at += 2;
                return self.variable().map_or_else(Token::Wrong, Token::Text);
            }
            Some(b'\'') => {
                let length = self.span(begin + 1, |byte| byte != b'\'');
                let closed = self.peek(1 + length).is_some();
                if length > 0 && closed {
                    self.at += length + 2;
                    return Token::Text(PhpValue::new(self.slice(begin + 1, begin + 1 + length)));
                }
                if place != ScannerState::Value {
                    return Token::Wrong("the quote does not end".to_owned());
                }
                // PHP ends the value there: at a quote that nothing closes with the line, at two of
                // them with the first.
                self.at = if length == 0 && closed {
                    begin + 1
                } else {
                    self.text.len()
                };
                return Token::End;
            }
            _ => {}
        }
        let word = self.word(place);
        if word > 0 && word >= blanks {
            self.at += word;
            return Token::Text(self.meaning(place, begin));
        }
        if blanks > 0 {
            self.at += blanks;
            return Token::Text(PhpValue::new(self.slice(begin, self.at)));
        }
        match self.peek(0) {
            Some(operator) if place == ScannerState::Value && b"&|^~()!".contains(&operator) => {
                self.at += 1;
                self.at += self.span(self.at, is_blank);
                Token::Operator(operator)
            }
            _ => Token::Wrong(self.unexpected()),
        }
    }

    /// The value of the word from `begin` on. A name alone may be a constant.
    fn meaning(&self, place: ScannerState, begin: usize) -> PhpValue {
        let text = self.slice(begin, self.at);
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name && place != ScannerState::Section {
            constant(text)
        } else {
            PhpValue::new(text)
        }
    }

    /// The length of the word that begins here: the longest of all ways to read it.
    fn word(&self, place: ScannerState) -> usize {
        let allowed = |byte: u8| match place {
            ScannerState::Value => !b"$= \t\n\r;&|^~()!\"'\0".contains(&byte),
            ScannerState::Section | ScannerState::Offset => !b"$\n\r;\"']\\".contains(&byte),
        };
        let (mut ends, mut longest) = (vec![self.at], 0);
        let mut seen = std::collections::BTreeSet::new();
        while let Some(end) = ends.pop() {
            if end > self.text.len() || !seen.insert(end) {
                continue;
            }
            longest = longest.max(end - self.at);
            match self.text[end..] {
                [b'$', b'\\', _, ..] => ends.extend([end + 2, end + 3]),
                [b'$', next, ..] if !b"{\0".contains(&next) => ends.push(end + 2),
                [b'\\', _, ..] if place != ScannerState::Value => ends.push(end + 2),
                [byte, ..] if allowed(byte) => ends.push(end + 1),
                _ => {}
            }
        }
        longest
    }

    /// `NAME}`, after `${`.
    fn variable(&mut self) -> Result<PhpValue, String> {
        let length = self.span(self.at, is_label);
        if length == 0 || self.peek(length) != Some(b'}') {
            return Err("`${` needs a name and `}`".to_owned());
        }
        let name = self.slice(self.at, self.at + length);
        let name = name.trim_matches([' ', '\t', '\r', '\n']);
        self.at += length + 1;
        Ok((self.variables)(name)
            .map_or_else(|| PhpValue::unknown(format!("${{{name}}}")), PhpValue::new))
    }

    /// Text with escapes and variables, up to the quote that ends it.
    fn quoted(&mut self) -> Token {
        let mut value = PhpValue::default();
        loop {
            match (self.peek(0), self.peek(1)) {
                (None, _) => return Token::Wrong("the quote does not end".to_owned()),
                (Some(b'"'), _) => {
                    self.at += 1;
                    self.at += self.span(self.at, is_blank);
                    return Token::Text(value);
                }
                (Some(b'$'), Some(b'{')) => {
                    self.at += 2;
                    match self.variable() {
                        Ok(text) => value.push(text),
                        Err(why) => return Token::Wrong(why),
                    }
                }
                _ => value.push(PhpValue::new(self.piece())),
            }
        }
    }

    /// The text up to the next quote or variable, without escapes.
    fn piece(&mut self) -> String {
        let begin = self.at;
        let mut bytes = vec![];
        while let Some(byte) = self.peek(0) {
            let next = self.peek(1);
            match (byte, next) {
                // A path of Windows may end in a backslash: `"C:\"` at a line's end.
                (b'\\', Some(b'"')) if matches!(self.peek(2), None | Some(b'\n' | b'\r')) => {
                    bytes.push(byte);
                    self.at += 1;
                    break;
                }
                (b'\\', Some(escaped)) => {
                    if !b"\"\\$".contains(&escaped) {
                        bytes.push(byte);
                    }
                    bytes.push(escaped);
                    self.at += 2;
                    continue;
                }
                (b'"', _) => break,
                (b'$', Some(b'{')) if self.at > begin => break,
                _ => bytes.push(byte),
            }
            self.at += 1;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub(super) const TRUE: &[&str] = &["true", "on", "yes"];

pub(super) const FALSE: &[&str] = &["false", "off", "no", "none"];

pub(super) fn is_word_of(name: &str, lists: &[&[&str]]) -> bool {
    lists
        .iter()
        .any(|list| list.contains(&name.to_ascii_lowercase().as_str()))
}

pub(super) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

pub(super) fn is_newline(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

pub(super) fn is_label(byte: u8) -> bool {
    !b"=\n\r\t;&|^$~(){}!\"[]\0".contains(&byte)
}
