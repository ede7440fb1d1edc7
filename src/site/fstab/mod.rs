//! Sites as lines of fstab(5): load, resolve, and put into lines in place of mounting.

mod editor;
mod installed;
mod links;
mod recorded;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::boot::{self, BootUnits, FstabOrder, UNITS};
use super::pipeline::{MountLookup, Pipeline};
use super::{Context, ManifestError, Site, SiteError, systemctl};
use crate::base::{HostPath, JailPath, SiteName};
use crate::manifest::Scope;
use crate::observe::Observed;
use crate::plan::{Plan, Step};
use crate::render::fstab::{self, FstabBlock, FstabLine};
use crate::render::systemd::has_unknown_maker;
use crate::resolve::{Desired, FileKind};
use crate::{Error, Result};

pub(crate) use editor::FstabEditor;
pub(crate) use installed::outdated;
pub(crate) use recorded::FstabLines;

/// What all sites of one run share.
pub(crate) struct FstabRun {
    pub pipeline: Pipeline,
    orders: BTreeMap<SiteName, FstabOrder>,
    /// The sites with scope `services`.
    served: BTreeSet<SiteName>,
}

/// One site as lines.
pub(crate) struct SiteLines {
    pub desired: Desired,
    pub lines: Vec<FstabLine>,
    /// The lines as text, under a comment that names the site.
    pub section: Vec<u8>,
    /// Why services of the manifest are not ordered after the lines.
    refused: Vec<String>,
}

/// Why a site has no lines.
pub(crate) enum NoLines {
    Failed(SiteError),
    /// mount(8) would follow links that other users can put there.
    Refused(Vec<Error>),
}

impl From<SiteError> for NoLines {
    fn from(failed: SiteError) -> Self {
        Self::Failed(failed)
    }
}

impl From<ManifestError> for NoLines {
    fn from(error: ManifestError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Error> for NoLines {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<NoLines> for SiteError {
    fn from(why: NoLines) -> Self {
        match why {
            NoLines::Failed(failed) => failed,
            NoLines::Refused(errors) => Self::Errors(errors),
        }
    }
}

impl FstabRun {
    pub(crate) fn new(context: &Context, sites: &[Site]) -> Result<Self> {
        let manifests = boot::manifests(context, sites)?.known;
        let mut units = BootUnits::read(Path::new(UNITS), &manifests);
        let orders = units.order_lines(&manifests);
        let mut served = BTreeSet::new();
        for (site, manifest) in manifests {
            if manifest.scope == Scope::Services {
                served.insert(site.name);
            }
        }
        Ok(Self {
            pipeline: Pipeline {
                sharing: None,
                ..Pipeline::new(context.clone(), MountLookup::WholeTable)?
            },
            orders,
            served,
        })
    }

    /// Whether the mounts of the site belong to its services.
    pub(crate) fn is_served(&self, site: &SiteName) -> bool {
        self.served.contains(site)
    }

    pub(crate) fn lines(&self, site: &Site) -> Result<SiteLines, NoLines> {
        // Load: the manifest, with the presets that it includes.
        let manifest = self.pipeline.load(site)?;
        if manifest.scope == Scope::Services {
            return Err(for_services(site).into());
        }

        // Resolve: the mounts that it asks for on this host.
        let desired = self.pipeline.resolve(&manifest)?;

        // Put the mounts into lines, and refuse lines that others could exploit.
        let order = self.orders.get(&site.name).cloned().unwrap_or_default();
        let lines = fstab::lines(
            &desired,
            &order.before,
            &order.not_after,
            systemctl::in_container(),
            |source| self.submounts(source),
        );
        links::refuse_exchangeable(&self.pipeline.context.host, &desired, &lines)
            .map_err(NoLines::Refused)?;
        let section = fstab::section(&desired.site, &desired.root, &lines);
        Ok(SiteLines {
            desired,
            lines,
            section,
            refused: order.refused,
        })
    }

    fn submounts(&self, source: &HostPath) -> Vec<PathBuf> {
        match &self.pipeline.table {
            Some(table) => table.points_below(source.as_path()),
            None => vec![],
        }
    }

    /// The steps that make what the lines mount on.
    pub(crate) fn placeholders(&self, lines: &SiteLines) -> Result<Plan> {
        let (observed, plan) = self.pipeline.observe_and_plan(&lines.desired)?;
        Ok(lines.placeholders(plan, &observed))
    }
}

/// The error of a site whose mounts must not be on the host.
fn for_services(site: &Site) -> Error {
    Error::usage(format!(
        "{}: its mounts belong to its services (`scope: services`); lines of fstab(5) would make \
         them on the host",
        site.name
    ))
    .hint(
        "write `scope: host` in the manifest, or let the services mount it: `mountjail units --all \
         --install`",
    )
}

impl SiteLines {
    /// Reports what the administrator should know about the site and its lines.
    pub(crate) fn report(&self, context: &Context) {
        context.out.notes(&self.desired);
        for refused in &self.refused {
            context.out.warn(refused);
        }
        let mut unknown = vec![];
        for line in &self.lines {
            if line.file_system.is_none() && has_unknown_maker(&line.source) {
                unknown.push(&line.source);
            }
        }
        let Some(first) = unknown.first() else {
            return;
        };
        let more = match unknown.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        context.out.site(&self.desired.site).warn(format_args!(
            "{first}{more} does not exist after a boot until a service makes it, and it is not \
             known which one; a line that comes too early stays unmounted until `mount -a` or \
             `mountjail up`"
        ));
    }

    /// The steps of the site's `plan` that make placeholders, and those of submounts.
    fn placeholders(&self, plan: Plan, observed: &Observed) -> Plan {
        let mut plan = plan.without_mounts();
        let mut made = BTreeSet::new();
        for mount in &self.desired.mounts {
            if !mount.recursive || observed.mounts.contains_key(&mount.target) {
                continue;
            }
            for line in &self.lines {
                let Some(path) = inside(&self.desired.root, &line.target) else {
                    continue;
                };
                if !path.starts_with(&mount.target) {
                    continue;
                }
                for (path, kind) in self.placeholders_below(&mount.target, path, &line.source) {
                    if made.insert(path.clone()) {
                        plan.steps.push(Step::CreatePlaceholder { path, kind });
                    }
                }
            }
        }
        plan
    }

    /// The directories below `target` that lead to `path`, and a placeholder at `path`, as far as
    /// they are missing. They lie in the placeholder of the recursive mount: findmnt(8) `--verify`
    /// looks for them before it is mounted.
    fn placeholders_below(
        &self,
        target: &JailPath,
        path: JailPath,
        source: &HostPath,
    ) -> Vec<(JailPath, FileKind)> {
        let mut wanted = vec![];
        for directory in path.directories_above() {
            wanted.push((directory, FileKind::Directory));
        }
        let kind = if source.as_path().is_file() {
            FileKind::File
        } else {
            FileKind::Directory
        };
        wanted.push((path, kind));
        wanted.retain(|(path, _)| {
            let on_host = self.desired.root.inside(path);
            path.starts_with(target) && path != target && fs::symlink_metadata(on_host).is_err()
        });
        wanted
    }
}

/// A path below the root, as it is inside.
fn inside(root: &HostPath, path: &HostPath) -> Option<JailPath> {
    JailPath::new(Path::new("/").join(path.below(root)?)).ok()
}

/// The block in `text`, the contents of `file`.
pub(crate) fn block(file: &Path, text: &[u8]) -> Result<FstabBlock> {
    FstabBlock::read(text).map_err(|why| {
        Error::failed(format!("cannot use {}", file.display()))
            .because_of(why)
            .hint(
                "mountjail does not guess which lines are its own: repair the lines with BEGIN \
                 and END by hand",
            )
    })
}
