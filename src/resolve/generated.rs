//! The passwd and group of a site: generated files, and the mounts of them.

use std::path::Path;
use std::sync::Arc;

use super::desired::{Asked, Cause, Desired, FileId, FileKind, GeneratedFile, Mount, Note, Reason};
use super::host::Host;
use super::layout::conflict;
use super::nested;
use super::shared::Shared;
use super::users::AccountFiles;
use crate::base::{BadPath, ErrorContext, HostPath, JailPath, MountAttributes, SiteName};
use crate::{Error, Result, sys};

/// Adds the passwd and group with `users`, in the directory `generated`, if there are any.
pub(super) fn add_users(
    desired: &mut Desired,
    users: &[Asked<'_, String>],
    host: &Host,
    shared: &Shared,
    generated: &HostPath,
) -> Result<()> {
    let Some((_, origin)) = users.first() else {
        return Ok(());
    };
    let names: Vec<_> = users.iter().map(|(name, _)| name.as_str()).collect();
    let AccountFiles { passwd, group } = shared.accounts(host)?.files(host, &names)?;

    let mut mounts = desired.mounts.iter();
    if let Some(etc) = mounts.find(|mount| mount.target.as_path() == Path::new("/etc")) {
        let text = nested::busy(Path::new("/etc/passwd"), 1, &etc.target);
        desired.notes.push(Note::always(origin, text));
    }

    for (name, contents) in [("passwd", passwd), ("group", group)] {
        let contents = contents.into_bytes();
        let (path, target) = paths(generated, &desired.site, name).map_err(|why| {
            Error::usage(format!("cannot name the file for {name}")).because_of(why)
        })?;
        if let Some(other) = desired.mount_at(&target) {
            let (source, reasons) = (&other.source, &other.reasons);
            return Err(conflict(&target, source, reasons, &path, origin));
        }
        desired.mounts.push(Arc::new(Mount {
            target,
            source: path.clone(),
            file_system: None,
            file: current_file(host, &path, &contents)?,
            kind: FileKind::File,
            attributes: MountAttributes::DATA,
            recursive: false,
            reasons: reasons(users),
        }));
        desired.files.push(GeneratedFile { path, contents });
    }
    desired.sort_mounts();
    desired.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

/// Where the file is on the host, and where it is mounted.
fn paths(
    generated: &HostPath,
    site: &SiteName,
    name: &str,
) -> Result<(HostPath, JailPath), BadPath> {
    let path = generated.join(format!("{site}.{name}"))?;
    let target = JailPath::new(format!("/etc/{name}"))?;
    Ok((path, target))
}

fn reasons(users: &[Asked<'_, String>]) -> Vec<Reason> {
    let mut reasons = vec![];
    for (_, origin) in users {
        reasons.push(Reason::chain(origin, vec![Cause::Users]));
    }
    reasons
}

/// The file at `path`, if it has these contents already.
fn current_file(host: &Host, path: &HostPath, contents: &[u8]) -> Result<Option<FileId>> {
    let cannot = format_args!("cannot read {path}");
    let Some(node) = host.now(path).context(cannot)? else {
        return Ok(None);
    };
    if node.stat.kind != FileKind::File {
        return Ok(None);
    }
    match sys::read_regular(&host.on_disk(path.as_path()), contents.len() as u64) {
        Err(error) if error.raw_os_error() == Some(libc::EFBIG) => Ok(None),
        found => Ok((found.context(cannot)? == contents).then_some(node.stat.file)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_with_the_same_contents_is_known_also_in_a_made_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.passwd"), "root\n").unwrap();
        let (host, path) = (Host::at(dir.path()), HostPath::new("/a.passwd").unwrap());
        let file = |contents: &str| current_file(&host, &path, contents.as_bytes());
        assert!(file("root\n").unwrap().is_some());
        for other in ["toor\n", "", "root\nbob\n"] {
            assert_eq!(file(other), Ok(None), "{other:?}");
        }
    }
}
