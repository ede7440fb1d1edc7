//! Whose manifests and presets count: they say what root mounts.

use std::path::Path;

use nix::unistd::geteuid;

use crate::base::HostPath;
use crate::resolve::{Host, Others};
use crate::{Error, Result};

/// Whether manifests and presets must be root's alone.
#[derive(Default)]
pub(crate) struct Trust {
    host: Host,
    /// This is root, who could be made to do something.
    root: bool,
    /// The command changes something, or runs programs inside.
    changes: bool,
}

impl Trust {
    /// For a command that `changes` something, or only reads.
    pub(crate) fn new(changes: bool) -> Self {
        Self {
            host: Host::new(),
            root: geteuid().is_root(),
            changes,
        }
    }

    /// The same for another look at the host.
    pub(crate) fn afresh(&self) -> Self {
        Self {
            host: Host::new(),
            ..*self
        }
    }

    /// Refuses the manifest or preset `file` if somebody besides root can change it, or put another
    /// one in its place, and root is about to do what it says.
    pub(crate) fn admit(&self, file: &Path) -> Result<()> {
        match self.others(file)? {
            Some(others) if self.changes => Err(refusal(file, &others)),
            _ => Ok(()),
        }
    }

    /// As [`Trust::admit`]; a sentence, if it is only read.
    pub(crate) fn admit_or_warn(&self, file: &Path) -> Result<Option<String>> {
        let Some(others) = self.others(file)? else {
            return Ok(None);
        };
        let error = refusal(file, &others);
        if self.changes {
            Err(error)
        } else {
            Ok(Some(format!("`up` will refuse it: {error}")))
        }
    }

    /// Whether nobody besides root can change `file`, or this is not root.
    pub(crate) fn is_trusted(&self, file: &Path) -> bool {
        self.others(file).is_ok_and(|others| others.is_none())
    }

    /// Who besides root can change `file`; nobody, where that does not matter or there is none.
    fn others(&self, file: &Path) -> Result<Option<Others>> {
        let Some(path) = HostPath::new(file).ok().filter(|_| self.root) else {
            return Ok(None);
        };
        match self.host.others(&path) {
            Ok(others) => Ok(others),
            Err(error) if error.is_unknown() => Err(error.error(format!(
                "cannot tell whether {} is root's alone",
                file.display()
            ))),
            Err(_) => Ok(None), // whoever reads it hears of it
        }
    }
}

fn refusal(file: &Path, others: &Others) -> Error {
    Error::failed(format!("cannot use {}", file.display()))
        .because_of(format!(
            "{others}, and so others could have anything mounted"
        ))
        .hint(format!("make it root's alone: `{}`", others.remedy()))
}
