//! Rights that a site's user lacks: which file or directory denies them, and the command that gives
//! them.

use std::path::{Path, PathBuf};

use super::exam::Exam;
use super::finding::Remedy;
use super::inside::{Denied, DeniedAt, InsideError};
use crate::base::JailPath;
use crate::base::quote::shell_path;
use crate::jail::{self, ClosedDirectory};
use crate::manifest::yaml_scalar;
use crate::sys;

impl Exam<'_> {
    /// The place where rights end the user's way to `path`, if they do.
    pub(super) fn denied(&self, path: &Path) -> Option<DeniedAt> {
        self.ask(Denied(path.to_owned())).ok().flatten()
    }

    /// The error with the place that denies the way to `path`.
    pub(super) fn explained(&self, path: &Path, error: &InsideError) -> String {
        match self.denied(path).filter(|_| error.is_denied()) {
            Some(at) => format!("{error}: {}", self.described(&at)),
            None => error.to_string(),
        }
    }

    /// `/srv/a/etc is of mode 0700, root:root`
    pub(super) fn described(&self, at: &DeniedAt) -> String {
        format!("{} is {}", self.host_name(&at.path).display(), mode(at))
    }

    /// The remedy that opens the way: for the site's own files a command. A file that the host
    /// keeps from the user stays private, since others could get at it, too.
    pub(super) fn opened(&self, at: &DeniedAt) -> Remedy {
        let jail_user = &self.site.user;
        let user = &jail_user.name;
        let host = self.host_name(&at.path);
        if self.mount_of(&at.path).is_some() {
            let inside = yaml_scalar(&at.path.display().to_string());
            return Remedy::act(format!(
                "leave {} private, and mount another file or directory there that {user} may \
                 read: `mounts: [{{ source: PATH, target: {inside} }}]`",
                host.display()
            ));
        }
        if at.is_directory {
            let (mode, uid, has_acl) = (at.mode, at.uid, at.has_acl);
            let closed = ClosedDirectory { mode, uid, has_acl };
            return Remedy::act(jail::command_to_open(jail_user, &host, &closed));
        }
        let path = shell_path(&host);
        Remedy::act(format!("setfacl -m u:{user}:r {path}"))
    }

    /// The host's name of what is at `path` inside.
    fn host_name(&self, path: &Path) -> PathBuf {
        if let Some(mount) = self.mount_of(path) {
            let below = path.strip_prefix(mount.target.as_path());
            return match below {
                Ok(below) if below != Path::new("") => mount.source.as_path().join(below),
                _ => mount.source.as_path().to_owned(),
            };
        }
        match JailPath::new(path) {
            Ok(path) if path != JailPath::slash() => {
                self.site.desired.root.inside(&path).as_path().to_owned()
            }
            _ => self.site.desired.root.as_path().to_owned(),
        }
    }
}

/// `of mode 0700, root:root`
pub(super) fn mode(at: &DeniedAt) -> String {
    let mode = sys::mode_in_words(at.mode, at.uid, at.gid);
    if at.has_acl {
        format!("{mode}, with an access list")
    } else {
        mode
    }
}
