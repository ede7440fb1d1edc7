//! The commands of a shell's text, as far as they can be known without running it: every branch
//! counts, and what a command prints is unknown.

use std::iter::Peekable;
use std::str::Chars;

use super::command::CommandLine;
use super::wrappers::{assign, is_assignment};

/// Words that a command follows.
const RESERVED: [&str; 14] = [
    "!", "{", "}", "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "time",
    "esac",
];

/// Commands of the shell that start the command in their arguments.
const PREFIXES: [&str; 4] = ["exec", "command", "builtin", "eval"];

/// Commands of the shell itself.
const BUILT_IN: [&str; 25] = [
    ":", ".", "[", "[[", "alias", "break", "case", "continue", "echo", "exit", "false", "for",
    "function", "in", "printf", "read", "return", "set", "shift", "test", "trap", "true", "ulimit",
    "umask", "wait",
];

/// The commands that the text starts, in their order. `shell`: its environment and directory; its
/// words are `$0`, `$1` and so on.
pub(super) fn commands(text: &str, shell: &CommandLine) -> Vec<CommandLine> {
    let mut state = shell.clone();
    let mut found = vec![];
    for raw in simple_commands(text) {
        let mut words = vec![];
        for word in &raw {
            words.extend(expanded(word, &state));
        }
        found.extend(run(&mut state, words));
    }
    found
}

/// The program that a command starts. A command of the shell itself changes `state` instead.
fn run(state: &mut CommandLine, mut words: Vec<String>) -> Option<CommandLine> {
    let mut own = state.clone();
    loop {
        let first = words.first()?.clone();
        let first = first.as_str();
        if RESERVED.contains(&first) {
            words.remove(0);
        } else if is_assignment(first) {
            assign(&mut own, first);
            words.remove(0);
            if words.is_empty() {
                state.environment = own.environment;
                return None;
            }
        } else if PREFIXES.contains(&first) {
            words.remove(0);
            while let Some(option) = words.first().filter(|word| word.starts_with('-')) {
                let takes_name = option == "-a";
                words.remove(0);
                if takes_name && !words.is_empty() {
                    words.remove(0);
                }
            }
        } else {
            break;
        }
    }
    match words[0].as_str() {
        "cd" => state.directory.push(words.get(1)?),
        "export" | "readonly" | "local" | "declare" | "typeset" => {
            for word in words.iter().filter(|word| is_assignment(word)) {
                assign(state, word);
            }
        }
        "unset" => drop(state.environment.remove(words.get(1)?)),
        name if BUILT_IN.contains(&name) || name.ends_with("()") => {}
        _ => return Some(own.with(words)),
    }
    None
}

/// The simple commands of a text: raw words, with their quotes. Operators end a command, and
/// redirections are left out.
fn simple_commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = vec![vec![]];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | ';' | '&' | '|' | '(' | ')' => commands.push(vec![]),
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '\\' if chars.next_if_eq(&'\n').is_some() => {}
            '<' | '>' => skip_redirection(&mut chars),
            c if c.is_whitespace() => {}
            c => {
                let word = raw_word(c, &mut chars);
                let is_descriptor = word.bytes().all(|byte| byte.is_ascii_digit())
                    && matches!(chars.peek(), Some('<' | '>'));
                if !is_descriptor && let Some(command) = commands.last_mut() {
                    command.push(word);
                }
            }
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// The word that `first` begins, with its quotes.
fn raw_word(first: char, chars: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    let mut quote = None;
    let mut depth = 0_usize; // of `$(`
    let mut next = Some(first);
    while let Some(c) = next {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let escaped = chars.next();
                if escaped != Some('\n') {
                    word.push(c);
                    word.extend(escaped);
                }
            }
            (c, Some(open)) => {
                word.push(c);
                if c == open {
                    quote = None;
                }
            }
            ('"' | '\'' | '`', None) => {
                word.push(c);
                quote = Some(c);
            }
            (c, None) => {
                word.push(c);
                match c {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        let is_substitution = word.ends_with('$') && chars.peek() == Some(&'(');
        let goes_on = |c: &char| {
            let ends = c.is_whitespace() || ";&|()<>".contains(*c);
            quote.is_some() || depth > 0 || is_substitution || !ends
        };
        next = chars.next_if(goes_on);
    }
    word
}

/// Skips the rest of `>>FILE`, `2>&1` or `<FILE`.
fn skip_redirection(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| "<>&|-".contains(*c)).is_some() {}
    while chars.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
    if let Some(first) = chars.next_if(|c| !c.is_whitespace() && !";&|()<>".contains(*c)) {
        raw_word(first, chars);
    }
}

/// The words that a raw word becomes.
fn expanded(raw: &str, shell: &CommandLine) -> Vec<String> {
    let arguments = || shell.words.iter().skip(1).cloned();
    if ["$@", "\"$@\"", "$*", "\"${@}\"", "${1+\"$@\"}"].contains(&raw) {
        return arguments().collect();
    }
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('$', None | Some('"')) => {
                let value = variable(&mut chars, shell);
                if quote.is_some() {
                    word.get_or_insert_default().push_str(&value);
                    continue;
                }
                // Blanks in it separate words.
                let mut parts = value.split_whitespace();
                word.get_or_insert_default()
                    .push_str(parts.next().unwrap_or_default());
                for part in parts {
                    words.extend(word.replace(part.to_owned()));
                }
            }
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let is_quoted = raw.contains(['"', '\'']);
    words.retain(|word| is_quoted || !word.is_empty());
    words
}

/// The value of what follows a `$`; empty: it is not known.
fn variable(chars: &mut Peekable<Chars<'_>>, shell: &CommandLine) -> String {
    let (name, default) = match chars.peek() {
        Some('{') => {
            chars.next();
            let inner: String = std::iter::from_fn(|| chars.next_if(|c| *c != '}')).collect();
            chars.next();
            match inner.split_once(['-', '=']) {
                Some((name, default)) => {
                    (name.trim_end_matches(':').to_owned(), default.to_owned())
                }
                None => (inner, String::new()),
            }
        }
        Some('(') => {
            chars.for_each(drop);
            return String::new();
        }
        Some(c) if c.is_ascii_digit() => (chars.next().into_iter().collect(), String::new()),
        _ => {
            let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            let name = std::iter::from_fn(|| chars.next_if(is_name)).collect();
            (name, String::new())
        }
    };
    let value = match name.parse::<usize>() {
        Ok(nth) => shell.words.get(nth),
        Err(_) => shell.environment.get(&name),
    };
    match value {
        Some(value) if !value.is_empty() => value.clone(),
        _ => default,
    }
}
