//! `#!` lines as the kernel parses them (`fs/binfmt_script.c`), and what `env` is told to run.
//! Pure.

use std::borrow::Cow;

/// `BINPRM_BUF_SIZE` (Linux 5.1), the bytes that the kernel looks at, less the one that ends them.
pub(super) const LINE: usize = 255;

/// Scripts that the kernel follows in one execve(2) before ELOOP.
pub(super) const MAX_NESTED: usize = 5;

/// A parsed `#!` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The interpreter, as written.
    pub interpreter: Vec<u8>,
    /// All that follows it, trimmed: the kernel passes it on as one argument.
    pub argument: Option<Vec<u8>>,
}

/// Parses the beginning of a file; `None`: the kernel would not take it for a script.
pub fn parse(file: &[u8]) -> Option<Script> {
    let buffer = &file[..file.len().min(LINE)];
    let line = buffer.strip_prefix(b"#!")?;
    let line = match line.iter().position(|byte| *byte == b'\n') {
        Some(end) => &line[..end],
        // Without a newline in the kernel's buffer, the name must end within it; otherwise it
        // could be cut off.
        None if buffer.len() == LINE => {
            end_of_name(line.trim_ascii_start())?;
            line
        }
        None => line,
    };
    let line = trim(line);
    let (interpreter, rest) = line.split_at(end_of_name(line).unwrap_or(line.len()));
    if interpreter.is_empty() {
        return None;
    }
    let rest = if rest.first() == Some(&0) {
        &[]
    } else {
        trim(rest)
    };
    let rest = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Script {
        interpreter: interpreter.to_vec(),
        argument: (!rest.is_empty()).then(|| rest.to_vec()),
    })
}

fn end_of_name(line: &[u8]) -> Option<usize> {
    line.iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | 0))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

impl Script {
    /// The name of the program that reads the script, also if `env` starts it.
    pub fn reader(&self) -> Cow<'_, str> {
        let program = self.program_of_env().unwrap_or(&self.interpreter);
        let name = program.rsplit(|byte| *byte == b'/').next();
        String::from_utf8_lossy(name.unwrap_or_default())
    }

    /// The program that `env` would run: `#!/usr/bin/env python3`, `#!/usr/bin/env -S A=b perl -w`.
    pub fn program_of_env(&self) -> Option<&[u8]> {
        if self.interpreter.rsplit(|byte| *byte == b'/').next() != Some(b"env") {
            return None;
        }
        let argument = self.argument.as_deref()?;
        let Some(words) = split_string(argument) else {
            // Without -S the whole argument is the name, blanks included.
            return (!argument.starts_with(b"-") && !argument.contains(&b'=')).then_some(argument);
        };
        let words = words.split(u8::is_ascii_whitespace);
        let mut words = words.filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if [&b"-u"[..], b"-C", b"--unset", b"--chdir"].contains(&word) {
                words.next(); // its argument
            } else if !word.starts_with(b"-") && !word.contains(&b'=') {
                return Some(word);
            }
        }
        None
    }
}

/// The text that `env` splits into words: the rest of an argument that begins with `-S`, or with
/// `S` after other options of one letter, such as `-iS`.
fn split_string(argument: &[u8]) -> Option<&[u8]> {
    if let Some(words) = argument.strip_prefix(b"--split-string=") {
        return Some(words);
    }
    let letters = argument.strip_prefix(b"-")?;
    let other = letters.iter().take_while(|letter| b"iv0".contains(letter));
    let rest = &letters[other.count()..];
    rest.strip_prefix(b"S")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Option<(String, Option<String>)> {
        let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        parse(text).map(|s| (text_of(s.interpreter), s.argument.map(text_of)))
    }

    #[test]
    fn lines_are_split_as_the_kernel_splits_them() {
        let some =
            |name: &str, arg: Option<&str>| Some((name.to_owned(), arg.map(ToOwned::to_owned)));
        assert_eq!(parsed(b"#!/bin/sh\necho"), some("/bin/sh", None));
        assert_eq!(
            parsed(b"#! \t/bin/sh -e  -x \t\n"),
            some("/bin/sh", Some("-e  -x"))
        );
        assert_eq!(parsed(b"#!/bin/sh"), some("/bin/sh", None));
        assert_eq!(parsed(b"#!/bin/sh\0-e\n"), some("/bin/sh", None));
        assert_eq!(parsed(b"#!\n/bin/sh"), None);
        assert_eq!(parsed(b"#!   "), None);
        assert_eq!(parsed(b"#/bin/sh\n"), None);
    }

    #[test]
    fn a_name_that_the_kernel_would_cut_off_is_refused() {
        let name = |len: usize| [b"#!/".to_vec(), vec![b'x'; len]].concat();
        assert_eq!(
            parse(&[name(251), b"\n".to_vec()].concat())
                .unwrap()
                .interpreter
                .len(),
            252
        );
        assert_eq!(parse(&[name(300), b"\n".to_vec()].concat()), None);
        let long_argument = [b"#!/bin/sh ".to_vec(), vec![b'y'; 300]].concat();
        assert_eq!(
            parse(&long_argument).unwrap().argument.unwrap().len(),
            LINE - 10
        );
    }

    #[test]
    fn env_names_one_more_program() {
        let env = |argument: &str| {
            let script = parse(format!("#!/usr/bin/env {argument}\n").as_bytes()).unwrap();
            script
                .program_of_env()
                .map(|name| String::from_utf8(name.to_vec()).unwrap())
        };
        assert_eq!(env("python3").as_deref(), Some("python3"));
        assert_eq!(env("-S perl -w").as_deref(), Some("perl"));
        assert_eq!(env("-S -i A=b node --x").as_deref(), Some("node"));
        assert_eq!(
            env("-iS PATH=/usr/bin python3 -E").as_deref(),
            Some("python3")
        );
        assert_eq!(env("-S -u HOME -C / perl").as_deref(), Some("perl"));
        assert_eq!(env("-i"), None);
        assert_eq!(env("-iv"), None);
        assert_eq!(
            parse(b"#!/bin/sh python3\n").unwrap().program_of_env(),
            None
        );
    }
}
