//! Programs that are named in a manifest and would run with the rights of their owners, which the
//! site's mounts do not allow.

use super::desired::{Desired, FileKind, Mount, Note};
use super::host::Host;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
/// Setgid without it means something else.
const EXECUTED_BY_GROUP: u32 = 0o010;

/// Notes the programs whose setuid or setgid bit has no effect inside, if a line names them.
pub(super) fn note_programs(desired: &mut Desired, host: &Host) {
    let mounts = desired.mounts.iter();
    let notes: Vec<_> = mounts.filter_map(|mount| note(mount, host)).collect();
    desired.notes.extend(notes);
}

fn note(mount: &Mount, host: &Host) -> Option<Note> {
    let is_program = mount.kind == FileKind::File && !mount.attributes.noexec;
    if !is_program || !mount.attributes.nosuid {
        return None;
    }
    let mut reasons = mount.reasons.iter();
    let named = reasons.find(|reason| reason.chain.is_empty())?;
    let mode = host.walk(&mount.source).ok()?.stat.mode;
    let bit = if mode & SETUID != 0 {
        "setuid"
    } else if mode & SETGID != 0 && mode & EXECUTED_BY_GROUP != 0 {
        "setgid"
    } else {
        return None;
    };
    let program = &mount.source;
    let text = format!(
        "the {bit} bit of {program} has no effect in the jail: it runs with the rights of its \
         caller; `mounts: [{{ source: {program}, executable: true, setuid: true }}]` beside this \
         line gives the bit its effect"
    );
    Some(Note::new(&named.origin, text))
}
