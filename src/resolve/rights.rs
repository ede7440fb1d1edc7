//! Programs that are named in a manifest and would run with the rights of their owners or with file
//! capabilities, which the site's mounts do not allow.

use super::desired::{Desired, FileKind, Mount, Note};
use super::host::Host;
use crate::base::HostPath;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
/// Setgid without it means something else.
const EXECUTED_BY_GROUP: u32 = 0o010;

/// Notes the programs whose setuid or setgid bit or file capabilities have no effect inside, if a
/// line names them.
pub(super) fn note_programs(desired: &mut Desired, host: &Host) {
    let mounts = desired.mounts.iter();
    let notes: Vec<_> = mounts.filter_map(|mount| note(mount, host)).collect();
    desired.notes.extend(notes);
}

fn has_capabilities(host: &Host, program: &HostPath) -> bool {
    let file = host.on_disk(program.as_path());
    rustix::fs::getxattr(&file, "security.capability", &mut [0u8; 64]).is_ok()
}

fn note(mount: &Mount, host: &Host) -> Option<Note> {
    let is_program = mount.kind == FileKind::File && !mount.attributes.noexec;
    if !is_program || !mount.attributes.nosuid {
        return None;
    }
    let mut reasons = mount.reasons.iter();
    let named = reasons.find(|reason| reason.chain.is_empty())?;
    let mode = host.walk(&mount.source).ok()?.stat.mode;
    let program = &mount.source;
    let (what, have) = if mode & SETUID != 0 {
        ("setuid bit", "has")
    } else if mode & SETGID != 0 && mode & EXECUTED_BY_GROUP != 0 {
        ("setgid bit", "has")
    } else if has_capabilities(host, program) {
        ("file capabilities (capabilities(7))", "have")
    } else {
        return None;
    };
    let text = format!(
        "the {what} of {program} {have} no effect in the jail: it runs with the rights of its \
         caller; `mounts: [{{ source: {program}, executable: true, setuid: true }}]` beside this \
         line changes that"
    );
    Some(Note::new(&named.origin, text))
}
