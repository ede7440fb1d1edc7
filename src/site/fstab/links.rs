//! Refuses lines through which users other than root could have any file mounted: mount(8) follows
//! links in both fields.

use std::collections::BTreeMap;

use crate::base::HostPath;
use crate::base::text::plural;
use crate::render::fstab::FstabLine;
use crate::resolve::{Desired, Host, LookupError, Others};
use crate::{Error, Result};

/// The files below belong to systemd's own daemons, whose users run nothing else.
const SYSTEMDS: &str = "/run/systemd";

/// Refuses lines if users other than root can replace the source, or a directory on the way to it
/// or to the target: mount(8) follows links that they could put there, and `up` does not.
pub(super) fn refuse_exchangeable(
    host: &Host,
    desired: &Desired,
    lines: &[FstabLine],
) -> Result<(), Vec<Error>> {
    let site = &desired.site;
    let mut found: BTreeMap<HostPath, (Others, usize)> = BTreeMap::new();
    for line in lines {
        let cannot = |error: LookupError| {
            vec![error.error(format!(
                "{site}: cannot look at what leads to {} and {}",
                line.source, line.target
            ))]
        };
        let on_source = match line.file_system {
            Some(_) => None,
            None => host.others_on_way(&line.source).map_err(cannot)?,
        };
        let on_source = on_source.filter(|others| !others.at.as_path().starts_with(SYSTEMDS));
        let on_target = host.others_on_way(&line.target).map_err(cannot)?;
        for others in [on_source, on_target].into_iter().flatten() {
            found.entry(others.at.clone()).or_insert((others, 0)).1 += 1;
        }
    }
    let errors: Vec<_> = found
        .into_values()
        .map(|(others, lines)| refusal(desired, &others, lines))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn refusal(desired: &Desired, others: &Others, lines: usize) -> Error {
    let Desired { site, .. } = desired;
    let lines = plural(lines, "line");
    Error::failed(format!(
        "{site}: no lines for fstab: {others}, who can put a link there, and mount(8) would follow \
         it: through {lines} any file could be mounted, and over any file of the host"
    ))
    .hint(format!(
        "leave this site to `mountjail up`, which follows no such link; or `{}`",
        others.remedy()
    ))
}
