//! The placeholders of a site that is taken down: whether they stay.

use super::run::TakeDown;
use crate::Result;
use crate::base::text::plural;
use crate::base::{ErrorContext, HostPath, SiteName};
use crate::observe::{self, SiteRecords};
use crate::plan::Plan;
use crate::site::{Site, pipeline};

/// The fate of the placeholders, and of all else that was made in the root.
pub(super) enum PlaceholderFate {
    /// They are removed.
    Go,
    /// They stay: lines of a file like fstab(5) mount on them, or other namespaces have mounts on
    /// them.
    Needed,
    /// They stay: they are on storage of this type, which other hosts may have mounted.
    Shared(String),
}

impl PlaceholderFate {
    /// The fate of the placeholders in `root` that the site has by these `records`.
    pub(super) fn of(
        run: &TakeDown,
        site: &Site,
        root: &HostPath,
        records: &SiteRecords,
    ) -> Result<Self> {
        let name = &site.name;
        let fstab = match &records.kept {
            Some(kept) if kept.root == *root => kept.fstab.as_ref(),
            _ => None,
        };
        if let Some(file) = run.fstab_lines.file_of(name, fstab) {
            run.context.out.site(name).info(format_args!(
                "the mount points of its lines in {file} stay; \
                 `mountjail fstab --uninstall {name}` removes them"
            ));
            return Ok(Self::Needed);
        }
        let is_in_a_namespace = run.context.state.is_of_namespace()
            || pipeline::is_in_a_namespace(run.context, &run.boot, name);
        if is_in_a_namespace {
            return Ok(Self::Needed);
        }

        let shared = observe::shared_storage(root).context(name)?;
        Ok(match shared {
            Some(kind) if !run.options.remove_placeholders => Self::Shared(kind),
            _ => Self::Go,
        })
    }

    /// The plan without the steps that remove what stays, and a sentence about what stays.
    pub(super) fn apply(
        &self,
        (site, root): (&SiteName, &HostPath),
        plan: Plan,
    ) -> (Plan, Option<String>) {
        let kind = match self {
            Self::Go => return (plan, None),
            Self::Needed => return (plan.only_mounts(), None),
            Self::Shared(kind) => kind,
        };
        let count = plan.removals();
        let plan = plan.keeping_placeholders();
        if count == 0 {
            return (plan, None);
        }
        let stays = format!(
            "{} in {root} stay: it is on {kind}, which other hosts may have mounted, and removing \
             a placeholder takes the mount on it away there, too; when the site is down on all of \
             them: `mountjail down --remove-placeholders {site}`",
            plural(count, "placeholder")
        );
        (plan, Some(stays))
    }
}
