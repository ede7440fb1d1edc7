//! Which manifests and presets are trusted: they decide what root mounts.

use std::path::Path;

use nix::unistd::geteuid;

use crate::base::HostPath;
use crate::resolve::{Host, Others};
use crate::{Error, Result};

/// The use that a command makes of manifests and presets.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It shows what they say.
    #[default]
    ReadOnly,
    /// It does what they say, or runs programs inside.
    Acts,
}

/// Whether manifests and presets must belong to root alone.
#[derive(Default)]
pub(crate) struct Trust {
    host: Host,
    /// The caller is root, who could be tricked.
    root: bool,
    effect: Effect,
}

impl Trust {
    pub(crate) fn new(effect: Effect) -> Self {
        Self {
            host: Host::new(),
            root: geteuid().is_root(),
            effect,
        }
    }

    /// The same, with the host as it is now.
    pub(crate) fn with_new_host(&self) -> Self {
        Self {
            host: Host::new(),
            ..*self
        }
    }

    /// Refuses the manifest or preset `file` if users other than root can change or replace it, and
    /// root is about to do what it says.
    pub(crate) fn admit(&self, file: &Path) -> Result<()> {
        match self.others(file)? {
            Some(others) if self.effect == Effect::Acts => Err(refusal(file, &others)),
            _ => Ok(()),
        }
    }

    /// As [`Trust::admit`]; returns a warning if the command is read-only.
    pub(crate) fn admit_or_warn(&self, file: &Path) -> Result<Option<String>> {
        let Some(others) = self.others(file)? else {
            return Ok(None);
        };
        let error = refusal(file, &others);
        if self.effect == Effect::Acts {
            Err(error)
        } else {
            Ok(Some(format!("`up` will refuse it: {error}")))
        }
    }

    /// Whether only root can change `file`, or the caller is not root.
    pub(crate) fn is_trusted(&self, file: &Path) -> bool {
        self.others(file).is_ok_and(|others| others.is_none())
    }

    /// Who besides root can change `file`; `None`: nobody, or it does not matter.
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
            Err(_) => Ok(None), // reading it reports the error
        }
    }
}

fn refusal(file: &Path, others: &Others) -> Error {
    Error::failed(format!("cannot use {}", file.display()))
        .at(file)
        .because_of(format!(
            "{}, and so others could have anything mounted",
            others.about(file)
        ))
        .hint(format!("make it root's alone: `{}`", others.remedy()))
}
