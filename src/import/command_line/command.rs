//! A command and the place where it is started.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::base::SEARCH_PATH;

/// A command, as it is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The program, and its arguments.
    pub words: Vec<String>,
    /// The variables that are known to be set.
    pub environment: BTreeMap<String, String>,
    /// Where its relative paths begin; empty: it is not known.
    pub directory: PathBuf,
}

impl CommandLine {
    pub(crate) fn new(words: Vec<String>) -> Self {
        Self {
            words,
            ..Self::default()
        }
    }

    /// The same, with other words.
    pub(super) fn with(&self, words: impl IntoIterator<Item = String>) -> Self {
        Self {
            words: words.into_iter().collect(),
            ..self.clone()
        }
    }

    /// The name of the program, without its directory.
    pub(super) fn name(&self) -> &str {
        let program = self.words.first().map_or("", String::as_str);
        let name = Path::new(program).file_name().and_then(OsStr::to_str);
        name.unwrap_or_default()
    }

    /// The file of the program, where the host has it.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        let program = self.words.first().filter(|program| !program.is_empty())?;
        if program.contains('/') {
            let path = self.directory.join(program);
            return (path.is_absolute() && path.is_file()).then_some(path);
        }
        let places = SEARCH_PATH.map(|directory| Path::new(directory).join(program));
        places.into_iter().find(|place| place.is_file())
    }
}
