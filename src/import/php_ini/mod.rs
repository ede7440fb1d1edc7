//! PHP's dialect of ini files, as PHP's scanner and grammar define it: pure.
//!
//! It has its own parser, because no crate knows this dialect. A value consists of words, quoted
//! text, variables and constants, and `yes` alone means something else than `/yes` or `yes-man`. As
//! in PHP's scanner, the longest match counts, and among equally long ones the first.

mod scanner;
mod value;

use scanner::{FALSE, Scanner, ScannerState, TRUE, Token};
use scanner::{is_blank, is_label, is_newline, is_word_of};
use value::calculate;

pub(super) use scanner::Variables;
pub(super) use value::PhpValue;

/// How deep the operands of an expression may be in each other. PHP's own parser has such a limit,
/// too.
const MAX_DEPTH: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// `[name]`
    Section(PhpValue),
    /// `name = value`, or a name alone.
    Entry(String, Option<PhpValue>),
    /// `name[key] = value`
    Item(String, PhpValue, PhpValue),
}

/// The statements of `text`, up to the first thing that PHP does not expect, which is the error.
pub(super) fn statements(text: &str, variables: Variables<'_>) -> Vec<Result<Statement, String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser {
        scanner: Scanner {
            text: text.as_bytes(),
            at: 0,
            variables,
        },
        depth: 0,
    };
    let mut statements = vec![];
    while let Some(statement) = parser.statement().transpose() {
        let failed = statement.is_err();
        statements.push(statement);
        if failed {
            break;
        }
    }
    statements
}

/// Tokens → statements.
struct Parser<'t> {
    scanner: Scanner<'t>,
    /// How many operands are open.
    depth: usize,
}

impl Parser<'_> {
    fn statement(&mut self) -> Result<Option<Statement>, String> {
        loop {
            let blanks = self.scanner.span(self.scanner.at, is_blank);
            let label = self.scanner.span(self.scanner.at, is_label);
            match self.scanner.text.get(self.scanner.at + blanks) {
                None => return Ok(None),
                Some(b'\n' | b'\r') => self.scanner.at += blanks + 1,
                Some(b';') => {
                    self.scanner.at += blanks
                        + self
                            .scanner
                            .span(self.scanner.at + blanks, |byte| !is_newline(byte));
                }
                Some(_) if label == 0 && blanks > 0 => self.scanner.at += blanks,
                Some(b'[') if blanks == 0 => {
                    self.scanner.at += 1;
                    return self.section().map(Some);
                }
                Some(b'=') => return Err(self.scanner.unexpected()),
                // A tab after blanks: what follows is looked at anew.
                Some(_) if blanks > label => self.scanner.at += blanks,
                Some(_) if label > 0 => return self.entry(label).map(Some),
                Some(_) => return Err(self.scanner.unexpected()),
            }
        }
    }

    fn section(&mut self) -> Result<Statement, String> {
        let mut name = PhpValue::default();
        loop {
            match self.scanner.token(ScannerState::Section) {
                Token::Text(text) => name.push(text),
                Token::End => break,
                Token::Operator(_) => return Err(self.scanner.unexpected()),
                Token::Wrong(why) => return Err(why),
            }
        }
        Ok(Statement::Section(name))
    }

    fn entry(&mut self, label: usize) -> Result<Statement, String> {
        let name = self.scanner.slice(self.scanner.at, self.scanner.at + label);
        let name = name.trim_matches([' ', '\t']).to_owned();
        if self.scanner.peek(label) == Some(b'[') {
            self.scanner.at += label + 1;
            self.scanner.at += self.scanner.span(self.scanner.at, is_blank);
            let mut key = PhpValue::default();
            loop {
                match self.scanner.token(ScannerState::Offset) {
                    Token::Text(text) => key.push(text),
                    Token::End => break,
                    Token::Operator(_) => return Err(self.scanner.unexpected()),
                    Token::Wrong(why) => return Err(why),
                }
            }
            if !self.equals() {
                return Err(self.scanner.unexpected());
            }
            return Ok(Statement::Item(name, key, self.value()?));
        }
        let blanks = self.scanner.span(self.scanner.at + label, is_blank);
        if is_word_of(&name, &[TRUE, FALSE, &["null"]])
            && self.scanner.span(self.scanner.at, |byte| byte == b' ') == 0
        {
            return Err(format!("`{name}` is not a name"));
        }
        self.scanner.at += label;
        if self.scanner.text.get(self.scanner.at + blanks) != Some(&b'=') {
            return Ok(Statement::Entry(name, None));
        }
        self.equals();
        Ok(Statement::Entry(name, Some(self.value()?)))
    }

    /// Whether `=` follows. If so, it is skipped, with the blanks around it.
    fn equals(&mut self) -> bool {
        let blanks = self.scanner.span(self.scanner.at, is_blank);
        let found = self.scanner.peek(blanks) == Some(b'=');
        if found {
            self.scanner.at += blanks + 1;
            self.scanner.at += self.scanner.span(self.scanner.at, is_blank);
        }
        found
    }

    fn value(&mut self) -> Result<PhpValue, String> {
        let (length, word) = self.scanner.keyword();
        if let Some(word) = word {
            self.scanner.at += length;
            return match self.scanner.token(ScannerState::Value) {
                Token::End => Ok(PhpValue::known(word)),
                _ => Err(self.scanner.unexpected()),
            };
        }
        let begin = self.scanner.at;
        if matches!(self.scanner.token(ScannerState::Value), Token::End) {
            if self.scanner.text[begin..].starts_with(b"'")
                && !self.scanner.text[begin..].starts_with(b"''")
            {
                return Err("the quote does not end".to_owned());
            }
            return Ok(PhpValue::default());
        }
        self.scanner.at = begin;
        let (value, end) = self.expression()?;
        match end {
            Token::End => Ok(value),
            Token::Wrong(why) => Err(why),
            _ => Err(self.scanner.unexpected()),
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
        if self.depth == MAX_DEPTH {
            return Err("its operators are too deep in each other".to_owned());
        }
        self.depth += 1;
        let operand = self.operand_within();
        self.depth -= 1;
        operand
    }

    fn operand_within(&mut self) -> Result<(PhpValue, Token), String> {
        match self.scanner.token(ScannerState::Value) {
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
                    Token::Operator(b')') => Ok((value, self.scanner.token(ScannerState::Value))),
                    _ => Err(self.scanner.unexpected()),
                }
            }
            Token::Text(mut text) => loop {
                match self.scanner.token(ScannerState::Value) {
                    Token::Text(more) => text.push(more),
                    next => break Ok((text, next)),
                }
            },
            Token::Wrong(why) => Err(why),
            _ => Err(self.scanner.unexpected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_not_endlessly_deep() {
        let value = |text: &str| {
            let all = statements(&format!("a = {text}\n"), &|_| None);
            match all.into_iter().next() {
                Some(Ok(Statement::Entry(_, Some(value)))) => Ok(value.text),
                other => Err(format!("{other:?}")),
            }
        };
        assert_eq!(value("~(1|2)").as_deref(), Ok("-4"));
        let deep = |depth| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(value(&deep(50)).as_deref(), Ok("1"));
        for text in [deep(1_000_000), "!".repeat(1_000_000)] {
            let why = value(&text).unwrap_err();
            assert!(why.contains("too deep in each other"), "{why}");
        }
    }
}
