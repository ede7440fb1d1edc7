//! What somebody else changed of our mounts while they were there.

use std::collections::HashMap;

use crate::base::MountAttributes;
use crate::observe::{Observed, ObservedMount, RecordedMount};
use crate::resolve::Mount;

/// The detail of a mount of ours that is shared, though the mount that it is on is not.
pub(super) const MADE_SHARED: &str = "somebody made it shared, wanted private";

/// What was changed of `seen`, the mount of a graft, which was mounted as `mount` asks for.
pub(super) fn graft(seen: &ObservedMount, mount: &Mount) -> Option<String> {
    if seen.attributes != mount.attributes {
        return Some(attributes(seen, mount));
    }
    seen.made_shared.then(|| MADE_SHARED.to_owned())
}

/// The attributes of `seen`, and those that `mount` asks for.
pub(super) fn attributes(seen: &ObservedMount, mount: &Mount) -> String {
    format!("mounted {}, wanted {}", seen.attributes, mount.attributes)
}

/// What was done to the submounts that came along with the recursive mount `known`, which we made.
/// Each is known by its unique ID, wherever in the jail it is now.
pub(super) fn submounts(
    observed: &Observed,
    known: &RecordedMount,
    wanted: MountAttributes,
) -> Option<String> {
    known.since?;
    let submounts = known.submounts.as_ref()?;
    let mut seen = HashMap::new();
    for stack in observed.mounts.values().chain(observed.elsewhere.values()) {
        for mount in stack {
            seen.extend(mount.unique_id.map(|id| (id, mount.attributes)));
        }
    }
    for submount in submounts {
        let (target, id) = (&submount.target, submount.unique_id?);
        match seen.get(&id) {
            None => return Some(format!("somebody took off {target}, which came along")),
            Some(found) if !wanted.allows(*found) => {
                return Some(format!(
                    "{target} in it is mounted {found}, wanted {wanted}"
                ));
            }
            Some(_) => {}
        }
    }
    None
}
