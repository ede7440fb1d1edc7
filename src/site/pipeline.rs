//! One site's way through the stages that only read: load, resolve, observe, plan. `plan`, `check`,
//! `doctor` and `fstab` end there; `up` goes on in [`bring_up`](super::bring_up).

use super::context::Context;
use super::{ManifestError, Site, SiteError, load, records};
use crate::base::{ErrorContext, HostPath, SiteName};
use crate::manifest::Manifest;
use crate::observe::{self, BootId, Observed, RunNamespaces, SiteRecords, Table};
use crate::plan::{self, Plan, Sharing};
use crate::resolve::{Desired, Resolver};
use crate::{Error, Result, sys};

/// How often a site is looked at again that another mountjail works on meanwhile.
const LOOKS: usize = 5;

/// How mounts are looked up.
#[derive(Clone, Copy)]
pub(crate) enum MountLookup {
    /// In the whole mount table, read once.
    WholeTable,
    /// One by one, if the kernel offers statmount(2) (Linux 6.8).
    OneByOne,
}

/// The stages that only read, and what all sites of one run share for them.
pub(crate) struct Pipeline {
    pub context: Context,
    pub resolver: Resolver,
    pub boot: BootId,
    /// The whole mount table, as it was before the first site, unless mounts are looked up one by
    /// one.
    pub table: Option<Table>,
    /// How sites share mounts. `None`: everything is mounted one by one.
    pub sharing: Option<Sharing>,
}

/// A site after the stages that only read.
pub(crate) struct Planned {
    pub manifest: Manifest,
    pub desired: Desired,
    pub observed: Observed,
    pub plan: Plan,
}

impl Pipeline {
    pub(crate) fn new(context: Context, lookup: MountLookup) -> Result<Self> {
        Ok(Self {
            resolver: context.resolver()?,
            boot: observe::boot_id()?,
            table: read_table(lookup)?,
            sharing: sharing(&context),
            context,
        })
    }

    /// Takes a site from its manifest to its plan.
    pub(crate) fn plan(&self, site: &Site) -> Result<Planned, SiteError> {
        // Load: the manifest, with the presets that it includes.
        let manifest = self.load(site)?;

        // Resolve: the mounts and links that it asks for on this host.
        let desired = self.resolve(&manifest)?;

        // Observe: the mounts that are there, and the records. Plan: the steps between the two.
        let (observed, plan) = self.observe_and_plan(&desired)?;

        Ok(Planned {
            manifest,
            desired,
            observed,
            plan,
        })
    }

    /// The last two stages of [`plan`](Self::plan) alone.
    ///
    /// The table and the records are not read at one moment. If another mountjail works on the site
    /// in between, its mounts look like somebody else's; so what is in the way is looked at again.
    pub(crate) fn observe_and_plan(&self, desired: &Desired) -> Result<(Observed, Plan)> {
        let found = self.look(desired, self.table.as_ref())?;
        let may_be_torn = |(_, plan): &(Observed, Plan)| !plan.conflicts.is_empty();
        let is_same = |(_, one): &(Observed, Plan), (_, other): &_| one == other;
        Ok(self.look_again(found, may_be_torn, is_same, |table| {
            self.look(desired, table).ok()
        }))
    }

    /// Looks again at a site that another mountjail may work on, until two looks in a row are the
    /// same. `found`: what the first look found. `look` gets the mount table as it is then, if this
    /// looks at the whole of it; `None`: it found nothing, and what was found before stands.
    pub(super) fn look_again<T>(
        &self,
        mut found: T,
        may_be_torn: impl Fn(&T) -> bool,
        is_same: impl Fn(&T, &T) -> bool,
        look: impl Fn(Option<&Table>) -> Option<T>,
    ) -> T {
        for _ in 0..LOOKS {
            if !may_be_torn(&found) {
                break;
            }
            let table = self.table.as_ref().map(|_| Table::read()).transpose();
            let Some(now) = table.ok().and_then(|table| look(table.as_ref())) else {
                break;
            };
            let before = std::mem::replace(&mut found, now);
            if is_same(&before, &found) {
                break;
            }
        }
        found
    }

    fn look(&self, desired: &Desired, table: Option<&Table>) -> Result<(Observed, Plan)> {
        let mut observed = self.observe(desired, table)?;
        if table.is_none() {
            observe::look_into_grafts(&desired.root, &mut observed).context(&desired.site)?;
        }
        let plan = self.plan_up(desired, &observed)?;
        Ok((observed, plan))
    }

    /// What the site's manifest asks for on this host.
    pub(crate) fn desired(&self, site: &Site) -> Result<Desired, SiteError> {
        self.resolve(&self.load(site)?)
    }

    pub(crate) fn load(&self, site: &Site) -> Result<Manifest, ManifestError> {
        load::manifest(&self.context, site)
    }

    pub(crate) fn resolve(&self, manifest: &Manifest) -> Result<Desired, SiteError> {
        resolve(&self.context, &self.resolver, manifest)
    }

    /// Mounts that were made one by one make way for grafts.
    pub(crate) fn renew(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            sharing.renew = true;
        }
    }

    pub(super) fn plan_up(&self, desired: &Desired, observed: &Observed) -> Result<Plan> {
        let sharing = self.sharing.as_ref();
        plan_up(&self.context, &self.boot, desired, observed, sharing)
    }

    /// The mounts that are there, and the records.
    fn observe(&self, desired: &Desired, table: Option<&Table>) -> Result<Observed> {
        let records = self.records(desired)?;
        observe::observe(desired, records, table).context(&desired.site)
    }

    pub(super) fn records(&self, desired: &Desired) -> Result<SiteRecords> {
        let (context, site) = (&self.context, &desired.site);
        let records = records::read(context, site, &self.boot);
        let records = records.context(site)?;
        for warning in &records.warnings {
            context.out.site(site).warn(warning);
        }
        records::at_root(context, desired, records)
    }
}

/// How sites share mounts. Without unique mount IDs (Linux 6.8) everything is mounted one by one.
fn sharing(context: &Context) -> Option<Sharing> {
    let templates = HostPath::new(context.state.templates().run).ok();
    let sharing = templates.map(|templates| Sharing {
        templates,
        renew: false,
    });
    sharing.filter(|_| sys::probe::statmount())
}

/// What `manifest` asks for on the host.
pub(crate) fn resolve(
    context: &Context,
    resolver: &Resolver,
    manifest: &Manifest,
) -> Result<Desired, SiteError> {
    let failed = match resolver.resolve(manifest, context.roots()) {
        Ok(desired) => return Ok(desired),
        Err(errors) => errors,
    };
    let moved = moved_root(context, manifest).map(|error| vec![error]);
    Err(SiteError::Errors(moved.unwrap_or(failed)))
}

/// The error for a root that was moved while the site was up.
pub(super) fn moved_root(context: &Context, manifest: &Manifest) -> Option<Error> {
    let Manifest { site, root, .. } = manifest;
    if root.as_path().symlink_metadata().is_ok() {
        return None;
    }
    let records = records::read(context, site, &observe::boot_id().ok()?).ok()?;
    let home = records.home(|| None).filter(|home| home != root)?;
    let moved = Error::failed(format!("{site}: the root {root} was moved to {home}"));
    Some(moved.hint(format!(
        "write `root: {home}` in the manifest, or move it back"
    )))
}

/// The steps from `observed` to `desired`. Placeholders stay that other namespaces may have mounts
/// on, or other hosts, on storage that these share: removing one takes the mount on it away there.
fn plan_up(
    context: &Context,
    boot: &BootId,
    desired: &Desired,
    observed: &Observed,
    sharing: Option<&Sharing>,
) -> Result<Plan> {
    let plan = plan::up(desired, observed, sharing);
    if plan.removals() == 0 {
        return Ok(plan);
    }
    if context.state.is_of_namespace() || is_in_a_namespace(context, boot, &desired.site) {
        return Ok(plan.keeping_placeholders());
    }
    let shared = observe::shared_storage(&desired.root);
    Ok(match shared.context(&desired.site)? {
        Some(_) => plan.keeping_placeholders(),
        None => plan,
    })
}

/// Whether a service has the site in its mount namespace.
pub(crate) fn is_in_a_namespace(context: &Context, boot: &BootId, site: &SiteName) -> bool {
    let namespaces = RunNamespaces::find(&context.state, boot).living;
    namespaces
        .iter()
        .any(|namespace| namespace.has(site, &context.state))
}

pub(super) fn read_table(lookup: MountLookup) -> Result<Option<Table>> {
    match lookup {
        MountLookup::OneByOne if sys::probe::statmount() => Ok(None),
        MountLookup::OneByOne | MountLookup::WholeTable => Table::read().map(Some),
    }
}
