//! The directories of records and locks. Nobody else may look into them.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::geteuid;

use super::replace::make_directory;
use crate::base::quote::shell_path;
use crate::base::{Error, ErrorContext, HostPath, Result};
use crate::observe::StateDir;
use crate::resolve::Host;

/// Makes the directories with mode 0700. Existing ones get this mode too, because anyone who can
/// look into them learns, by inotify(7), when something is about to be made in his root.
pub(crate) fn make_state_directories(state: &StateDir) -> Result<()> {
    for dir in [&state.run, &state.lib] {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        if let Err(failed) = made.context(format_args!(
            "cannot make the state directory {}",
            dir.display()
        )) {
            return Err(match failed.errno() {
                Some(libc::EACCES | libc::EPERM) => failed.hint("mountjail needs to run as root"),
                _ => failed.hint("name another one with --state-dir"),
            });
        }
        refuse_others(dir)?;
        refuse_others_on_the_way(dir)?;
        close(dir)?;
    }
    Ok(())
}

/// Makes the directory of the watcher below the state directories.
pub(crate) fn make_watch_directory(state: &StateDir) -> Result<()> {
    let directory = state.watch();
    make_directory(&directory).context(format_args!(
        "cannot make the directory {}",
        directory.display()
    ))
}

/// Refuses a directory in which somebody else could write records, because the records decide what
/// is unmounted and removed.
fn refuse_others(dir: &Path) -> Result<()> {
    let cannot = format_args!("cannot use the state directory {}", dir.display());
    let found = fs::metadata(dir).context(cannot)?;
    let own = geteuid().as_raw();
    if found.uid() == own && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::failed(cannot.to_string())
        .because_of("somebody else can write in it, and so have anything unmounted and removed")
        .hint(format!(
            "make it root's alone: `chown root {0} && chmod go-w {0}`",
            shell_path(dir)
        )))
}

/// Refuses a directory in whose place somebody else could put another one.
fn refuse_others_on_the_way(dir: &Path) -> Result<()> {
    let cannot = format_args!("cannot use the state directory {}", dir.display());
    let real = fs::canonicalize(dir).context(cannot)?;
    let real = match HostPath::new(&real) {
        Ok(real) => real,
        Err(why) => return Err(Error::failed(cannot.to_string()).because_of(why)),
    };
    let Some(others) = Host::new().others(&real).context(cannot)? else {
        return Ok(());
    };
    if others.user == Some(geteuid().as_raw()) {
        return Ok(());
    }
    let remedy = others.remedy();
    Err(Error::failed(cannot.to_string())
        .because_of(format!(
            "{others}, so that others can put other records in its place, and so have anything \
             unmounted and removed"
        ))
        .hint(format!("`{remedy}`, or name another one with --state-dir")))
}

/// Keeps others from looking into a directory of ours.
fn close(dir: &Path) -> Result<()> {
    let cannot = format_args!(
        "cannot keep others from looking into the state directory {}",
        dir.display()
    );
    if fs::metadata(dir).context(cannot)?.mode() & 0o777 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        make_state_directories(&state).unwrap();
        for mode in [0o775, 0o757, 0o755] {
            fs::set_permissions(&state.lib, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                make_state_directories(&state).is_ok(),
                mode == 0o755,
                "{mode:o}"
            );
        }
        for dir in [&state.run, &state.lib] {
            assert_eq!(
                fs::metadata(dir).unwrap().mode() & 0o777,
                0o700,
                "nobody else looks into it"
            );
        }
    }

    #[test]
    fn a_directory_that_others_can_replace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(&dir.path().join("state"));
        make_state_directories(&state).unwrap();
        let above = dir.path().join("state");
        for (mode, accepted) in [
            (0o777, false),
            (0o775, false),
            (0o1777, true),
            (0o755, true),
        ] {
            fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
            let made = make_state_directories(&state);
            assert_eq!(made.is_ok(), accepted, "{mode:o}: {made:?}");
        }
    }
}
