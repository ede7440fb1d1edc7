//! `mountjail units`: the sites' services start after their mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::out::worst;
use super::sites::{self, Site};
use super::work::Failed;
use super::{Which, systemd};
use crate::engine::{remove_drop_in, write_drop_in};
use crate::observe::Units as Known;
use crate::render::systemd::{DropIn, HEADER, after_sites, before_services};
use crate::{Error, Result};

/// Print or write the systemd drop-ins that start a site's services after its mounts
///
/// They order the units that the manifests name under `services` after mountjail.service, and after
/// mountjail@SITE.service where a site is started alone. What usually lives in a jail, PHP-FPM as distributions
/// name it, is ordered by mountjail.service itself.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail units site1\n  mountjail units --all --install")]
pub(super) struct Units {
    #[command(flatten)]
    which: Which,
    /// Write them; with --all also remove those that no site needs any more
    #[arg(long, conflicts_with = "uninstall")]
    install: bool,
    /// Remove them; with --all every one that mountjail wrote
    #[arg(long)]
    uninstall: bool,
    /// The directory of units
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    dir: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A site with the units that run in it.
struct Services {
    site: Site,
    services: Vec<String>,
}

impl Services {
    fn drop_ins(&self) -> Vec<DropIn> {
        if self.services.is_empty() {
            return vec![];
        }
        let mut drop_ins: Vec<_> = self.services.iter().map(|service| after_sites(service)).collect();
        drop_ins.push(before_services(&self.site.name, &self.services));
        drop_ins
    }

    fn say(&self, context: &Context<'_>) {
        let site = &self.site.name;
        match self.services.as_slice() {
            [] => context.out.info(format_args!("{site}: its manifest names no services; nothing to order")),
            names => context.out.info(format_args!("{site}: mounted before {}", names.join(", "))),
        }
    }
}

impl Units {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        if self.uninstall {
            return Ok(self.uninstall(context)?);
        }
        let known = Known::read();
        let (mut codes, mut results, mut drop_ins) = (vec![], vec![], BTreeMap::new());
        for site in sites::which(context, &self.which)? {
            match services(context, &site, &known) {
                Ok(services) => {
                    let own = services.drop_ins();
                    let files: Vec<_> = own.iter().map(|drop_in| self.dir.join(&drop_in.path)).collect();
                    results.push(json!({ "site": site.name, "files": files }));
                    drop_ins.extend(files.into_iter().zip(own.into_iter().map(|drop_in| drop_in.text)));
                    services.say(context);
                    codes.push(0);
                }
                Err(failed) => {
                    let (code, errors) = failed.report(context, &site);
                    codes.push(code);
                    results.push(json!({ "site": site.name, "errors": errors }));
                }
            }
        }
        let code = worst(codes);
        if self.install {
            // A site that failed may still need what it has.
            self.install(context, &drop_ins, self.which.all && code == 0)?;
        }
        let text = match (self.json, self.install) {
            (true, _) => format!("{:#}\n", json!({ "sites": results })),
            (false, true) => String::new(),
            (false, false) => {
                let shown = |(path, text): (&PathBuf, &String)| format!("# {}\n{text}\n", path.display());
                drop_ins.iter().map(shown).collect()
            }
        };
        Ok(context.out.print_and(text, code))
    }

    /// Writes `drop_ins`, and if they are `all` there shall be, removes others of ours.
    fn install(&self, context: &Context<'_>, drop_ins: &BTreeMap<PathBuf, String>, all: bool) -> Result<()> {
        let mut changed = false;
        for (path, text) in drop_ins {
            let written = write_drop_in(path, HEADER, text)?;
            let verb = if written { "wrote" } else { "kept" };
            context.out.detail(format_args!("{verb} {}", path.display()));
            changed |= written;
        }
        let unneeded = self.all_written().into_iter().filter(|path| all && !drop_ins.contains_key(path));
        changed |= !remove(context, unneeded)?.is_empty();
        self.reload(context, changed);
        Ok(())
    }

    /// Those of a service that another site names as well stay, unless all go.
    fn uninstall(&self, context: &Context<'_>) -> Result<u8> {
        let files = if self.which.all { self.all_written() } else { self.written_for(context)? };
        let removed = remove(context, files)?;
        self.reload(context, !removed.is_empty());
        let text = if self.json { format!("{:#}\n", json!({ "removed": removed })) } else { String::new() };
        Ok(context.out.print_and(text, 0))
    }

    fn all_written(&self) -> Vec<PathBuf> {
        let directories = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut files: Vec<_> =
            directories.map(|directory| directory.path().join("50-mountjail.conf")).collect();
        files.sort();
        files
    }

    fn written_for(&self, context: &Context<'_>) -> Result<Vec<PathBuf>> {
        let names = |site: &Site| sites::load(context, site).map_or(vec![], |manifest| manifest.services);
        let going = sites::named(context, &self.which.sites)?;
        let staying = sites::known(context);
        let needed: BTreeSet<_> =
            staying.iter().filter(|site| !going.contains(site)).flat_map(names).collect();
        let mut files = vec![];
        for site in &going {
            let own = names(site);
            let unneeded = own.iter().filter(|service| !needed.contains(*service));
            files.extend(unneeded.map(|service| self.dir.join(after_sites(service).path)));
            files.push(self.dir.join(before_services(&site.name, &own).path));
        }
        Ok(files)
    }

    /// Lets systemd read what changed.
    fn reload(&self, context: &Context<'_>, changed: bool) {
        if !changed || self.dir != Path::new("/etc/systemd/system") || !systemd::is_running() {
            return;
        }
        if let Err(error) = systemd::systemctl(&["daemon-reload"]) {
            context.out.warn(error);
        }
    }
}

/// Removes those of `files` that are ours; returns them.
fn remove(context: &Context<'_>, files: impl IntoIterator<Item = PathBuf>) -> Result<Vec<PathBuf>> {
    let mut removed = vec![];
    for file in files {
        if remove_drop_in(&file, HEADER)? {
            context.out.info(format_args!("removed {}", file.display()));
            removed.push(file);
        }
    }
    Ok(removed)
}

/// The services of `site`, each once; each must be a unit of this host.
fn services(context: &Context<'_>, site: &Site, known: &Known) -> Result<Services, Failed> {
    let manifest = sites::load(context, site).map_err(Failed::Manifest)?;
    let mut services: Vec<String> = vec![];
    let mut errors = vec![];
    for service in manifest.services {
        if !known.has(&service) {
            let error = Error::failed(format!("{}: this host has no unit {service}", site.name));
            errors.push(match known.nearest(&service) {
                Some(nearest) => error.hint(format!("did you mean {nearest}?")),
                None => error.hint(format!("correct `services` in {}", site.file.display())),
            });
        } else if !services.contains(&service) {
            services.push(service);
        }
    }
    if errors.is_empty() {
        Ok(Services { site: site.clone(), services })
    } else {
        Err(Failed::Errors(errors))
    }
}
