//! What a page has its reader do, in the order of the page.

use std::ops::Range;

/// A page of Markdown.
pub struct Page {
    pub items: Vec<Item>,
    /// The reasons of blocks that are not run.
    pub not_run: Vec<String>,
}

/// One thing to do.
pub enum Item {
    /// `<!-- setup … -->`, or `<!-- setup: … -->` on one line: lines of the shell that the reader
    /// does not see.
    Setup(String),
    /// A block that begins with a comment which is a path: the file of that name.
    File { path: String, text: String },
    /// A command of a `console` block, and the lines of the page, counted from 0, which are what
    /// it prints.
    Command {
        line: String,
        shown: String,
        code: i32,
        at: Range<usize>,
    },
}

impl Page {
    pub fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let mut page = Self {
            items: Vec::new(),
            not_run: Vec::new(),
        };
        let (mut at, mut skip, mut codes) = (0, false, Vec::new());
        while at < lines.len() {
            let line = lines[at];
            let end = |mark: &str| {
                let rest = lines[at + 1..].iter().position(|line| *line == mark);
                at + 1 + rest.unwrap_or_else(|| panic!("line {}: no end of {line}", at + 1))
            };
            if line == "<!-- setup" {
                let end = end("-->");
                page.items.push(Item::Setup(lines[at + 1..end].join("\n")));
                at = end;
            } else if let Some(setup) = line.strip_prefix("<!-- setup: ") {
                let setup = setup.trim_end_matches(" -->");
                page.items.push(Item::Setup(setup.to_owned()));
            } else if let Some(reason) = line.strip_prefix("<!-- not run: ") {
                page.not_run
                    .push(reason.trim_end_matches(" -->").to_owned());
                skip = true;
            } else if let Some(given) = line.strip_prefix("<!-- exit codes: ") {
                let given = given.trim_end_matches(" -->").split(' ');
                codes = given.map(|code| code.parse().unwrap()).collect();
            } else if let Some(language) = line.strip_prefix("```") {
                let end = end("```");
                if !skip {
                    page.block(language, &lines, at + 1..end, &codes);
                }
                codes.clear();
                (skip, at) = (false, end);
            }
            at += 1;
        }
        page
    }

    fn block(&mut self, language: &str, lines: &[&str], at: Range<usize>, codes: &[i32]) {
        if language == "console" {
            return self.session(lines, at, codes);
        }
        let first = lines.get(at.start).copied().unwrap_or_default();
        let path = first
            .strip_prefix("# ")
            .or_else(|| first.strip_prefix("; "));
        if let Some(path) = path.filter(|path| path.starts_with('/') && !path.contains(' ')) {
            self.items.push(Item::File {
                path: path.to_owned(),
                text: lines[at].join("\n") + "\n",
            });
        }
    }

    /// A block of commands, each after a prompt, and of what they print. Each has an exit code, or
    /// all of them end with 0.
    fn session(&mut self, lines: &[&str], at: Range<usize>, codes: &[i32]) {
        let prompts = lines[at.clone()]
            .iter()
            .filter(|line| line.starts_with("$ "));
        let commands = prompts.count();
        assert!(
            codes.is_empty() || codes.len() == commands,
            "line {}: {} exit codes for {commands} commands",
            at.start,
            codes.len()
        );
        let mut codes = codes.iter().copied();
        let mut next = at.start;
        while next < at.end {
            let command = lines[next].strip_prefix("$ ");
            let command = command
                .unwrap_or_else(|| panic!("line {}: a block begins with a command", next + 1));
            let mut line = command.to_owned();
            while line.ends_with('\\') {
                next += 1;
                line = format!("{line}\n{}", lines[next]);
            }
            let start = next + 1;
            next = start;
            while next < at.end && !lines[next].starts_with("$ ") {
                next += 1;
            }
            self.items.push(Item::Command {
                line,
                shown: lines[start..next].join("\n"),
                code: codes.next().unwrap_or(0),
                at: start..next,
            });
        }
    }
}
