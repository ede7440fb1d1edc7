//! Files → `Match` blocks, with the files that they include.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::import::daemons::FileLine;
use crate::import::logins::Login;

/// How deep sshd lets files include each other.
const MAX_DEPTH: usize = 16;

/// How many included files are read. sshd has no limit, and the number can double with each depth.
const MAX_FILES: usize = 10_000;

/// The users and files of this host that a configuration refers to.
pub(in crate::import) struct SshdHost<'h> {
    /// The user of a name.
    pub user: &'h dyn Fn(&str) -> Option<Login>,
    /// The users of a group.
    pub users_of_group: &'h dyn Fn(&str) -> Vec<Login>,
    /// The files that match a pattern of `Include`, in the order in which sshd reads them.
    pub included: &'h dyn Fn(&str) -> Result<Vec<IncludedFile>>,
}

/// A file and its text.
pub(in crate::import) type IncludedFile = (PathBuf, String);

/// A `Match` block, or what is in none.
#[derive(Clone, Default)]
pub(super) struct MatchBlock {
    /// Names and patterns, each after its keyword. Empty: the block applies to everybody.
    pub criteria: Vec<String>,
    /// The first `ChrootDirectory`, which counts.
    pub root: Option<ChrootLine>,
    pub sftp: bool,
}

/// A `ChrootDirectory` line.
#[derive(Clone)]
pub(super) struct ChrootLine {
    pub file: PathBuf,
    pub line: usize,
    pub root: String,
}

impl ChrootLine {
    pub(super) fn place(&self) -> FileLine<'_> {
        FileLine {
            file: &self.file,
            line: self.line,
        }
    }
}

/// The blocks of a file and of those that it includes.
pub(super) struct Blocks<'h> {
    host: &'h SshdHost<'h>,
    pub all: Vec<MatchBlock>,
    /// The block that a line belongs to.
    current: usize,
    depth: usize,
    /// The number of included files that were read.
    files: usize,
    /// A limit was reached, so no more files are included.
    is_over: bool,
    pub warnings: Vec<String>,
}

impl<'h> Blocks<'h> {
    pub(super) fn new(host: &'h SshdHost<'h>) -> Self {
        Self {
            host,
            all: vec![MatchBlock::default()],
            current: 0,
            depth: 0,
            files: 0,
            is_over: false,
            warnings: vec![],
        }
    }

    /// Adds the lines of a file. Its `Match` blocks end with it, and apply within the block that it
    /// is included in.
    pub(super) fn file(&mut self, file: &Path, text: &str) {
        let within = self.current;
        for (line, nth) in text.lines().zip(1..) {
            let mut words = words(line).into_iter();
            let Some(keyword) = words.next() else {
                continue;
            };
            let place = FileLine { file, line: nth };
            match keyword.to_ascii_lowercase().as_str() {
                "match" => self.begin(within, criteria(words)),
                "include" => {
                    for pattern in words {
                        self.include(place, &pattern);
                    }
                }
                "chrootdirectory" => {
                    let block = &mut self.all[self.current];
                    if let Some(root) = words.next()
                        && block.root.is_none()
                    {
                        block.root = Some(ChrootLine {
                            file: file.to_owned(),
                            line: nth,
                            root,
                        });
                    }
                }
                "forcecommand" => {
                    let is_sftp = words.next().as_deref() == Some("internal-sftp");
                    self.all[self.current].sftp |= is_sftp;
                }
                _ => {}
            }
        }
        self.current = within;
    }

    fn begin(&mut self, within: usize, criteria: Vec<String>) {
        self.current = self.all.len();
        self.all.push(MatchBlock {
            criteria: [self.all[within].criteria.clone(), criteria].concat(),
            ..MatchBlock::default()
        });
    }

    fn include(&mut self, place: FileLine<'_>, pattern: &str) {
        if self.is_over {
            return;
        }
        let included = match (self.host.included)(pattern) {
            Ok(files) => files,
            Err(error) => {
                let warning = format!("{place}: Include {pattern}: {error}");
                return self.warnings.push(warning);
            }
        };
        self.files += included.len();
        if let Some(limit) = self.reached_limit(&included) {
            self.is_over = true;
            self.warnings.push(format!(
                "{place}: {limit}; the files of this Include and of all later ones are left out"
            ));
            return;
        }
        self.depth += 1;
        for (file, text) in included {
            self.file(&file, &text);
        }
        self.depth -= 1;
    }

    /// The limit that keeps these files from being included. As sshd, it does not look for circles,
    /// which reach the greatest depth.
    fn reached_limit(&self, included: &[IncludedFile]) -> Option<String> {
        if self.depth == MAX_DEPTH && !included.is_empty() {
            return Some(format!(
                "sshd refuses this configuration: files include each other more than {MAX_DEPTH} \
                 deep"
            ));
        }
        (self.files > MAX_FILES)
            .then(|| format!("import reads no more than {MAX_FILES} included files"))
    }
}

/// The criteria of a `Match` line, each as two words. `all` is none.
fn criteria(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut criteria: Vec<String> = vec![];
    for word in words {
        match word.split_once('=') {
            Some((keyword, value)) if criteria.len().is_multiple_of(2) => {
                criteria.extend([keyword.to_owned(), value.to_owned()]);
            }
            _ if word.eq_ignore_ascii_case("all") && criteria.len().is_multiple_of(2) => {}
            _ => criteria.push(word),
        }
    }
    criteria
}

/// The words of a line. Blanks or one `=` separate them, and `"…"` is one word.
pub(super) fn words(line: &str) -> Vec<String> {
    let line = line.trim();
    if line.starts_with('#') {
        return vec![];
    }
    let (keyword, rest) = line
        .split_once(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or((line, ""));
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=');
    let rest = rest.split(" #").next().unwrap_or_default();
    let mut words = vec![keyword.to_owned()];
    words.extend(crate::import::words::words(rest));
    words.retain(|word| !word.is_empty());
    words
}
