//! The passwd and group of a site: generated files, and the mounts of them.

use std::path::Path;
use std::sync::Arc;

use super::desired::{Cause, Desired, FileId, FileKind, GeneratedFile, Mount, Note, Reason};
use super::host::Host;
use super::layout::conflict;
use super::nested;
use super::shared::Shared;
use crate::base::{HostPath, JailPath, MountAttributes};
use crate::manifest::Origin;
use crate::{Error, Result, sys};

/// Adds the passwd and group with `users`, in the directory `generated`, if there are any.
pub(super) fn add_users(
    desired: &mut Desired,
    users: &[(String, Arc<Origin>)],
    host: &Host,
    shared: &Shared,
    generated: &HostPath,
) -> Result<()> {
    let Some((_, origin)) = users.first() else {
        return Ok(());
    };
    let names: Vec<_> = users.iter().map(|(name, _)| name.as_str()).collect();
    let (passwd, group) = shared.accounts(host)?.files(host, &names)?;

    let etc = desired
        .mounts
        .iter()
        .find(|mount| mount.target.as_path() == Path::new("/etc"));
    if let Some(etc) = etc {
        desired.notes.push(Note {
            origin: origin.clone(),
            text: nested::busy(Path::new("/etc/passwd"), 1, &etc.target),
            always: true,
        });
    }

    for (name, contents) in [("passwd", passwd), ("group", group)] {
        let unusable =
            |why| Error::usage(format!("cannot name the file for {name}")).because_of(why);
        let path = generated
            .join(format!("{}.{name}", desired.site))
            .map_err(unusable)?;
        let target = JailPath::new(format!("/etc/{name}")).map_err(unusable)?;
        if let Some(other) = desired.mounts.iter().find(|mount| mount.target == target) {
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
    desired.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    desired.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

fn reasons(users: &[(String, Arc<Origin>)]) -> Vec<Reason> {
    let reason = |(_, origin): &(String, Arc<Origin>)| Reason {
        origin: origin.clone(),
        chain: vec![Cause::Users],
    };
    users.iter().map(reason).collect()
}

/// The file at `path`, if it has these contents already.
fn current_file(host: &Host, path: &HostPath, contents: &[u8]) -> Result<Option<FileId>> {
    let cannot = || Error::failed(format!("cannot read {path}"));
    let found = host
        .now(path)
        .map_err(|error| cannot().because(&error.into()))?;
    let Some(node) = found.filter(|node| node.stat.kind == FileKind::File) else {
        return Ok(None);
    };
    match sys::read_regular(path.as_path(), contents.len() as u64) {
        Ok(found) => Ok((found == contents).then_some(node.stat.file)),
        Err(error) if error.raw_os_error() == Some(libc::EFBIG) => Ok(None),
        Err(error) => Err(cannot().because(&error)),
    }
}
