//! Programs that do not start without `/proc`.

use super::desired::{Asked, Desired, Note};
use super::host::Host;
use super::why::mount_at;
use crate::base::{HostPath, JailPath};

/// The fault of a program that finds its libraries by its own place, where `/proc` is not.
pub(crate) const WITHOUT_PROC: &str = "finds its libraries by $ORIGIN, which the loader learns \
                                       from /proc/self/exe: it does not start in a root without \
                                       /proc";

/// Notes those `programs`, which find their libraries by `/proc/self/exe`, unless the root has a
/// `/proc`.
pub(super) fn note_programs(desired: &mut Desired, programs: &[Asked<'_, HostPath>], host: &Host) {
    let proc = JailPath::normal("/proc".into());
    if programs.is_empty() || mount_at(desired, &proc).is_some() || has_proc(desired, host) {
        return;
    }
    for (program, origin) in programs {
        desired.without_proc.push((*program).clone());
        let text = format!("{program} {WITHOUT_PROC}; `proc: true` mounts it");
        desired.notes.push(Note::always(origin, text));
    }
}

/// Whether a `/proc` is mounted in the root already.
fn has_proc(desired: &Desired, host: &Host) -> bool {
    let inside = JailPath::normal("/proc/self".into());
    matches!(host.glimpse(&desired.root.inside(&inside)), Ok(Some(_)))
}
