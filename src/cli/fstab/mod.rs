//! `mountjail fstab`: the sites' mounts as fstab(5) lines, printed or kept in a file.

mod check;
mod install;
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::Which;
use crate::base::{HostPath, JailPath, SiteName};
use crate::observe::{Observed, Table};
use crate::patience::Stop;
use crate::plan::{Plan, Step};
use crate::render::fstab::{self, FstabBlock, FstabLine};
use crate::render::systemd::has_unknown_maker;
use crate::resolve::{Desired, FileKind, Resolver};
use crate::site::boot::{self, BootUnits, FstabOrder};
use crate::site::context::Context;
use crate::site::out::worst;
use crate::site::pipeline::{self, notes};
use crate::site::{Site, SiteError, parallel, select, systemctl};
use crate::{Error, Result};

/// Print the sites' mounts as fstab(5) lines, or keep them in /etc/fstab
///
/// `mount -a` gives the same mounts from these lines as `mountjail up` does. --install writes them
/// to a block of their own, leaves all other lines as they are, and makes what the lines mount on.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mountjail fstab site1\n  mountjail fstab --all --install\n  mountjail fstab \
                        --all --check"
)]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct Fstab {
    #[command(flatten)]
    which: Which,
    /// Put the lines into the file; with --all also take out those of sites that are no more
    #[arg(long, group = "action")]
    install: bool,
    /// Take the lines out of the file
    #[arg(long, group = "action")]
    uninstall: bool,
    /// Compare the file with what --install would write; exit code 3 if they differ
    #[arg(long, group = "action")]
    check: bool,
    /// The file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/fstab",
        requires = "action"
    )]
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Fstab {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        match (self.install, self.uninstall, self.check) {
            (true, ..) => self.install(context),
            (_, true, _) => self.uninstall(context),
            (_, _, true) => self.check(context),
            _ => self.print(context),
        }
    }

    fn print(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let run = FstabRun::new(context, &sites)?;
        let render = move |site: &Site, _: &Stop| run.rendered(site).map_err(SiteError::from);
        let threads = parallel::processors();
        let rendered = parallel::each(context, &sites, threads, &Arc::default(), render);
        let (mut codes, mut results, mut text) = (vec![], vec![], vec![]);
        for (site, rendered) in sites.iter().zip(rendered) {
            match rendered {
                Ok(rendered) => {
                    rendered.say(context);
                    text.extend(&rendered.section);
                    results.push(rendered.json());
                    codes.push(0);
                }
                Err(failed) => {
                    let (code, errors) = failed.report(context.out, site);
                    codes.push(code);
                    results.push(json!({ "site": site.name, "errors": errors }));
                }
            }
        }
        Ok(self.finish(context, &results, &text, worst(codes)))
    }

    /// Names lines that the site has in the file, although now it gets none.
    fn report_installed(&self, context: &Context, site: &Site, block: &FstabBlock, silent: bool) {
        let (name, file) = (&site.name, self.file.display());
        if block.get(name).is_none() {
            return;
        }
        if silent {
            context.out.info(format_args!(
                "{name}: its lines in {file} are kept as they are"
            ));
        } else {
            context.out.warn(format_args!(
                "{name}: its lines are still in {file}; `mountjail fstab --uninstall {name}` takes \
                 them out"
            ));
        }
    }

    fn finish(&self, context: &Context, results: &[Value], text: &[u8], code: u8) -> u8 {
        if self.json {
            return context
                .out
                .print_and(format!("{:#}\n", json!({ "sites": results })), code);
        }
        context.out.print_and(text, code)
    }
}

/// What renders sites.
struct FstabRun {
    context: Context,
    resolver: Resolver,
    table: Table,
    orders: BTreeMap<SiteName, FstabOrder>,
}

/// One site as lines.
struct SiteLines {
    desired: Desired,
    lines: Vec<FstabLine>,
    section: Vec<u8>,
    /// Why services of the manifest are not ordered after the lines.
    refused: Vec<String>,
}

/// Why a site has no lines.
enum NoLines {
    Failed(SiteError),
    /// mount(8) would follow links that others can put there.
    Refused(Vec<Error>),
}

impl From<SiteError> for NoLines {
    fn from(failed: SiteError) -> Self {
        Self::Failed(failed)
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
    fn new(context: &Context, sites: &[Site]) -> Result<Self> {
        let (manifests, _) = boot::manifests(context, sites);
        let named = manifests.iter().map(|(_, manifest)| manifest);
        let orders =
            BootUnits::read(Path::new("/etc/systemd/system"), named).order_lines(&manifests);
        Ok(Self {
            context: context.again(),
            resolver: context.resolver()?,
            table: Table::read()?,
            orders,
        })
    }

    fn rendered(&self, site: &Site) -> Result<SiteLines, NoLines> {
        let manifest = select::load(&self.context, site).map_err(SiteError::Manifest)?;
        let desired = pipeline::resolved(&self.context, &self.resolver, &manifest)?;
        let order = self.orders.get(&site.name).cloned().unwrap_or_default();
        let lines = fstab::lines(
            &desired,
            &order.before,
            &order.not_after,
            systemctl::in_container(),
            |source| self.table.points_below(source.as_path()),
        );
        links::refuse_exchangeable(&self.context.host, &desired, &lines)
            .map_err(NoLines::Refused)?;
        let section = fstab::section(&desired.site, &desired.root, &lines);
        Ok(SiteLines {
            desired,
            lines,
            section,
            refused: order.refused,
        })
    }
}

impl SiteLines {
    /// What the user should know of the site and its lines.
    fn say(&self, context: &Context) {
        notes(context.out, &self.desired);
        for refused in &self.refused {
            context.out.warn(refused);
        }
        let unknown: Vec<_> = self
            .lines
            .iter()
            .map(|line| &line.source)
            .filter(|source| has_unknown_maker(source))
            .collect();
        if let Some(first) = unknown.first() {
            let more = match unknown.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            context.out.warn(format_args!(
                "{}: {first}{more} is not there after a boot until a service makes it, and which one is not known \
                 here: a line that comes too early stays unmounted until `mount -a` or `mountjail up`",
                self.desired.site
            ));
        }
    }

    /// What has to be made for the lines, by the plan for the site.
    fn layout(&self, plan: Plan, observed: &Observed) -> Plan {
        let mut plan = plan.without_mounts();
        plan.steps.extend(self.below_recursive(observed));
        plan
    }

    /// The placeholders of submounts: in the placeholder of the recursive mount, where they are
    /// seen before it is mounted (findmnt(8) `--verify` misses them else).
    fn below_recursive(&self, observed: &Observed) -> Vec<Step> {
        let root = &self.desired.root;
        let mut made = BTreeSet::new();
        let mut steps = vec![];
        for mount in self.desired.mounts.iter().filter(|mount| mount.recursive) {
            if observed.mounts.contains_key(&mount.target) {
                continue;
            }
            for line in &self.lines {
                let Some(path) =
                    inside(root, &line.target).filter(|path| path.starts_with(&mount.target))
                else {
                    continue;
                };
                let is_file = line.source.as_path().is_file();
                let way = path
                    .ancestors()
                    .into_iter()
                    .map(|path| (path, FileKind::Directory));
                let last = (
                    path,
                    if is_file {
                        FileKind::File
                    } else {
                        FileKind::Directory
                    },
                );
                for (path, kind) in way
                    .chain([last])
                    .filter(|(path, _)| path.starts_with(&mount.target))
                {
                    let is_there =
                        path == mount.target || fs::symlink_metadata(root.inside(&path)).is_ok();
                    if !is_there && made.insert(path.clone()) {
                        steps.push(Step::CreatePlaceholder { path, kind });
                    }
                }
            }
        }
        steps
    }

    fn json(&self) -> Value {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                json!({ "source": line.source, "target": line.target, "options": line.options.join(",") })
            })
            .collect();
        json!({ "site": self.desired.site, "root": self.desired.root, "lines": lines })
    }
}

/// A path below the root, as it is inside.
fn inside(root: &HostPath, path: &HostPath) -> Option<JailPath> {
    JailPath::new(Path::new("/").join(path.below(root)?)).ok()
}

/// The block in `text`, the contents of `file`.
fn block(file: &Path, text: &[u8]) -> Result<FstabBlock> {
    FstabBlock::read(text).map_err(|why| {
        Error::failed(format!("cannot use {}", file.display())).because_of(why).hint(
            "mountjail does not guess which lines are its own: repair the lines with BEGIN and END by hand",
        )
    })
}

fn no_manifest(context: &Context, name: &SiteName) -> String {
    format!(
        "{name} has lines, but no manifest in {}",
        context.config.join("sites").display()
    )
}
