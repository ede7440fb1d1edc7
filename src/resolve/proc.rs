//! Programs that do not start without `/proc`.

use std::sync::Arc;

use super::desired::{Desired, Note};
use super::host::Host;
use super::why::mount_at;
use crate::base::{HostPath, JailPath};
use crate::manifest::Origin;

/// Notes about `programs`, which find their libraries by `/proc/self/exe`, unless the root has a
/// `/proc`.
pub(super) fn missed(
    desired: &Desired,
    programs: &[(HostPath, Arc<Origin>)],
    host: &Host,
) -> Vec<Note> {
    let proc = JailPath::normal("/proc".into());
    let is_there = || {
        let inside = JailPath::normal("/proc/self".into());
        matches!(host.glimpse(&desired.root.inside(&inside)), Ok(Some(_)))
    };
    if programs.is_empty() || mount_at(desired, &proc).is_some() || is_there() {
        return vec![];
    }
    let note = |(program, origin): &(HostPath, Arc<Origin>)| Note {
        origin: origin.clone(),
        text: format!(
            "{program} finds its libraries by $ORIGIN, which the loader learns from \
             /proc/self/exe: it does not start in a root without /proc; `proc: true` mounts it"
        ),
        always: true,
    };
    programs.iter().map(note).collect()
}
