//! PHP's dialect of ini files, as PHP's scanner and grammar define it: pure.
//!
//! It has its own parser, because no crate knows this dialect. A value consists of words, quoted
//! text, variables and constants, and `yes` alone means something else than `/yes` or `yes-man`. As
//! in PHP's scanner, the longest match counts, and among equally long ones the first.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// `[name]`
    Section(PhpValue),
    /// `name = value`, or a name alone.
    Entry(String, Option<PhpValue>),
    /// `name[key] = value`
    Item(String, PhpValue, PhpValue),
}

/// A text, as far as it can be known outside PHP's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PhpValue {
    pub text: String,
    /// A part that is not known, such as `${SITES}`: then `text` is not what PHP reads.
    pub unknown: Option<String>,
}

/// The value of `${NAME}`; `None`: it is not known.
pub(super) type Variables<'v> = &'v dyn Fn(&str) -> Option<String>;

/// The statements of `text`, up to the first thing that PHP does not expect, which is the error.
pub(super) fn statements(text: &str, variables: Variables<'_>) -> Vec<Result<Statement, String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut scanner = Scanner {
        text: text.as_bytes(),
        at: 0,
        variables,
    };
    let mut statements = vec![];
    while let Some(statement) = scanner.statement().transpose() {
        let failed = statement.is_err();
        statements.push(statement);
        if failed {
            break;
        }
    }
    statements
}

/// Where the scanner is, which decides which characters a word may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ScannerState {
    Value,
    Section,
    Offset,
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    variables: Variables<'t>,
}

/// What the scanner finds next.
enum Token {
    Text(PhpValue),
    Operator(u8),
    /// The end of the value, section or key.
    End,
    Wrong(String),
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    /// How many bytes from `from` on are of `kind`.
    fn span(&self, from: usize, kind: impl Fn(u8) -> bool) -> usize {
        self.text[from.min(self.text.len())..]
            .iter()
            .take_while(|byte| kind(**byte))
            .count()
    }

    fn slice(&self, from: usize, to: usize) -> String {
        String::from_utf8_lossy(&self.text[from..to]).into_owned()
    }

    fn unexpected(&self) -> String {
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

    fn statement(&mut self) -> Result<Option<Statement>, String> {
        loop {
            let blanks = self.span(self.at, is_blank);
            let label = self.span(self.at, is_label);
            match self.text.get(self.at + blanks) {
                None => return Ok(None),
                Some(b'\n' | b'\r') => self.at += blanks + 1,
                Some(b';') => {
                    self.at += blanks + self.span(self.at + blanks, |byte| !is_newline(byte));
                }
                Some(_) if label == 0 && blanks > 0 => self.at += blanks,
                Some(b'[') if blanks == 0 => {
                    self.at += 1;
                    return self.section().map(Some);
                }
                Some(b'=') => return Err(self.unexpected()),
                // A tab after blanks: what follows is looked at anew.
                Some(_) if blanks > label => self.at += blanks,
                Some(_) if label > 0 => return self.entry(label).map(Some),
                Some(_) => return Err(self.unexpected()),
            }
        }
    }

    fn section(&mut self) -> Result<Statement, String> {
        let mut name = PhpValue::default();
        loop {
            match self.token(ScannerState::Section) {
                Token::Text(text) => name.push(text),
                Token::End => break,
                Token::Operator(_) => return Err(self.unexpected()),
                Token::Wrong(why) => return Err(why),
            }
        }
        Ok(Statement::Section(name))
    }

    fn entry(&mut self, label: usize) -> Result<Statement, String> {
        let name = self.slice(self.at, self.at + label);
        let name = name.trim_matches([' ', '\t']).to_owned();
        if self.peek(label) == Some(b'[') {
            self.at += label + 1;
            self.at += self.span(self.at, is_blank);
            let mut key = PhpValue::default();
            loop {
                match self.token(ScannerState::Offset) {
                    Token::Text(text) => key.push(text),
                    Token::End => break,
                    Token::Operator(_) => return Err(self.unexpected()),
                    Token::Wrong(why) => return Err(why),
                }
            }
            if !self.equals() {
                return Err(self.unexpected());
            }
            return Ok(Statement::Item(name, key, self.value()?));
        }
        let blanks = self.span(self.at + label, is_blank);
        if is_word_of(&name, &[TRUE, FALSE, &["null"]])
            && self.span(self.at, |byte| byte == b' ') == 0
        {
            return Err(format!("`{name}` is not a name"));
        }
        self.at += label;
        if self.text.get(self.at + blanks) != Some(&b'=') {
            return Ok(Statement::Entry(name, None));
        }
        self.equals();
        Ok(Statement::Entry(name, Some(self.value()?)))
    }

    /// Whether `=` follows. If so, it is skipped, with the blanks around it.
    fn equals(&mut self) -> bool {
        let blanks = self.span(self.at, is_blank);
        let found = self.peek(blanks) == Some(b'=');
        if found {
            self.at += blanks + 1;
            self.at += self.span(self.at, is_blank);
        }
        found
    }

    fn value(&mut self) -> Result<PhpValue, String> {
        let (length, word) = self.keyword();
        if let Some(word) = word {
            self.at += length;
            return match self.token(ScannerState::Value) {
                Token::End => Ok(PhpValue::known(word)),
                _ => Err(self.unexpected()),
            };
        }
        let begin = self.at;
        if matches!(self.token(ScannerState::Value), Token::End) {
            if self.text[begin..].starts_with(b"'") && !self.text[begin..].starts_with(b"''") {
                return Err("the quote does not end".to_owned());
            }
            return Ok(PhpValue::default());
        }
        self.at = begin;
        let (value, end) = self.expression()?;
        match end {
            Token::End => Ok(value),
            Token::Wrong(why) => Err(why),
            _ => Err(self.unexpected()),
        }
    }

    /// A sequence of operands and operators, and the token after it.
    fn expression(&mut self) -> Result<(PhpValue, Token), String> {
        let (mut left, mut next) = self.operand()?;
        while let Token::Operator(operator @ (b'|' | b'&' | b'^')) = next {
            let (right, after) = self.operand()?;
            left = calculate(&left, &right, |a, b| match operator {
                b'|' => a | b,
                b'&' => a & b,
                _ => a ^ b,
            });
            next = after;
        }
        Ok((left, next))
    }

    fn operand(&mut self) -> Result<(PhpValue, Token), String> {
        match self.token(ScannerState::Value) {
            Token::Operator(operator @ (b'~' | b'!')) => {
                let (value, next) = self.operand()?;
                let zero = PhpValue::known("0");
                let inverse = |a: i32, _| match operator {
                    b'~' => !a,
                    _ => i32::from(a == 0),
                };
                Ok((calculate(&value, &zero, inverse), next))
            }
            Token::Operator(b'(') => {
                let (value, end) = self.expression()?;
                match end {
                    Token::Operator(b')') => Ok((value, self.token(ScannerState::Value))),
                    _ => Err(self.unexpected()),
                }
            }
            Token::Text(mut text) => loop {
                match self.token(ScannerState::Value) {
                    Token::Text(more) => text.push(more),
                    next => break Ok((text, next)),
                }
            },
            Token::Wrong(why) => Err(why),
            _ => Err(self.unexpected()),
        }
    }

    /// A word that stands for another value, unless a longer word begins here: its length and the
    /// value.
    fn keyword(&self) -> (usize, Option<&'static str>) {
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
    fn token(&mut self, place: ScannerState) -> Token {
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

impl PhpValue {
    pub(super) fn new(text: String) -> Self {
        Self {
            text,
            unknown: None,
        }
    }

    fn known(text: &str) -> Self {
        Self::new(text.to_owned())
    }

    fn unknown(what: String) -> Self {
        Self {
            text: String::new(),
            unknown: Some(what),
        }
    }

    fn push(&mut self, more: Self) {
        self.text.push_str(&more.text);
        self.unknown = self.unknown.take().or(more.unknown);
    }
}

const TRUE: &[&str] = &["true", "on", "yes"];
const FALSE: &[&str] = &["false", "off", "no", "none"];

fn is_word_of(name: &str, lists: &[&[&str]]) -> bool {
    lists
        .iter()
        .any(|list| list.contains(&name.to_ascii_lowercase().as_str()))
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_newline(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

fn is_label(byte: u8) -> bool {
    !b"=\n\r\t;&|^$~(){}!\"[]\0".contains(&byte)
}

/// The result of an operator on two numbers, which are read as by atoi(3).
fn calculate(left: &PhpValue, right: &PhpValue, with: impl Fn(i32, i32) -> i32) -> PhpValue {
    let unknown = left.unknown.clone().or_else(|| right.unknown.clone());
    PhpValue {
        text: with(number(&left.text), number(&right.text)).to_string(),
        unknown,
    }
}

fn number(text: &str) -> i32 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    #[allow(clippy::cast_possible_truncation)] // as glibc's atoi: strtol, cut to an int
    let number = (sign
        * digits
            .parse::<i64>()
            .unwrap_or(if digits.is_empty() { 0 } else { i64::MAX })) as i32;
    number
}

/// Constants of PHP that are the same on every Linux with 64 bits.
const CONSTANTS: [(&str, &str); 26] = [
    ("E_ERROR", "1"),
    ("E_WARNING", "2"),
    ("E_PARSE", "4"),
    ("E_NOTICE", "8"),
    ("E_CORE_ERROR", "16"),
    ("E_CORE_WARNING", "32"),
    ("E_COMPILE_ERROR", "64"),
    ("E_COMPILE_WARNING", "128"),
    ("E_USER_ERROR", "256"),
    ("E_USER_WARNING", "512"),
    ("E_USER_NOTICE", "1024"),
    ("E_STRICT", "2048"),
    ("E_RECOVERABLE_ERROR", "4096"),
    ("E_DEPRECATED", "8192"),
    ("E_USER_DEPRECATED", "16384"),
    ("E_ALL", "32767"),
    ("M_PI", "3.1415926535898"),
    ("PHP_OS", "Linux"),
    ("PHP_OS_FAMILY", "Linux"),
    ("PHP_SAPI", "fpm-fcgi"),
    ("PHP_SHLIB_SUFFIX", "so"),
    ("PHP_INT_MAX", "9223372036854775807"),
    ("PHP_INT_SIZE", "8"),
    ("PHP_MAXPATHLEN", "4096"),
    ("DIRECTORY_SEPARATOR", "/"),
    ("PATH_SEPARATOR", ":"),
];

/// Constants whose values depend on the build of PHP.
const OF_BUILDS: [&str; 21] = [
    "PEAR_EXTENSION_DIR",
    "PEAR_INSTALL_DIR",
    "DEFAULT_INCLUDE_PATH",
    "PHP_BINARY",
    "PHP_BINDIR",
    "PHP_CONFIG_FILE_PATH",
    "PHP_CONFIG_FILE_SCAN_DIR",
    "PHP_DATADIR",
    "PHP_DEBUG",
    "PHP_EXTENSION_DIR",
    "PHP_EXTRA_VERSION",
    "PHP_LIBDIR",
    "PHP_LOCALSTATEDIR",
    "PHP_MAJOR_VERSION",
    "PHP_MANDIR",
    "PHP_MINOR_VERSION",
    "PHP_PREFIX",
    "PHP_RELEASE_VERSION",
    "PHP_SYSCONFDIR",
    "PHP_VERSION",
    "PHP_VERSION_ID",
];

/// The value of a name that stands alone: a constant's value, or the name itself.
fn constant(name: String) -> PhpValue {
    match name.to_ascii_lowercase().as_str() {
        "true" => return PhpValue::known("1"),
        "false" | "null" => return PhpValue::default(),
        _ => {}
    }
    match CONSTANTS.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => PhpValue::known(value),
        None if OF_BUILDS.contains(&name.as_str()) => PhpValue::unknown(name),
        None => PhpValue::new(name),
    }
}
