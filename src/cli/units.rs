//! `mountjail units`: the sites' services start after their mounts.

use std::collections::BTreeSet;
use std::fmt::Write;
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
    /// Write them
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
}

impl Units {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        if self.uninstall {
            return Ok(self.uninstall(context)?);
        }
        let known = Known::read();
        let (mut codes, mut results, mut text, mut changed) = (vec![], vec![], String::new(), false);
        let mut shown = BTreeSet::new();
        for site in sites::which(context, &self.which)? {
            let result = services(context, &site, &known).and_then(|services| {
                let drop_ins = services.drop_ins();
                if self.install {
                    changed |= self.write(context, &services, &drop_ins)?;
                }
                Ok(drop_ins)
            });
            match result {
                Ok(drop_ins) => {
                    for drop_in in drop_ins.iter().filter(|drop_in| shown.insert(drop_in.path.clone())) {
                        let _ =
                            writeln!(text, "# {}\n{}", self.dir.join(&drop_in.path).display(), drop_in.text);
                    }
                    let files: Vec<_> = drop_ins.iter().map(|drop_in| self.dir.join(&drop_in.path)).collect();
                    results.push(json!({ "site": site.name, "files": files }));
                    codes.push(0);
                }
                Err(failed) => {
                    let (code, errors) = failed.report(context, &site);
                    codes.push(code);
                    results.push(json!({ "site": site.name, "errors": errors }));
                }
            }
        }
        self.reload(context, changed);
        if self.json {
            text = format!("{:#}\n", json!({ "sites": results }));
        } else if self.install {
            text.clear();
        }
        Ok(context.out.print_and(text, worst(codes)))
    }

    fn write(&self, context: &Context<'_>, services: &Services, drop_ins: &[DropIn]) -> Result<bool, Failed> {
        let site = &services.site.name;
        let mut changed = false;
        for drop_in in drop_ins {
            let path = self.dir.join(&drop_in.path);
            let written = write_drop_in(&path, HEADER, &drop_in.text).map_err(|error| error.context(site))?;
            context.out.detail(format_args!(
                "{site}: {} {}",
                if written { "wrote" } else { "kept" },
                path.display()
            ));
            changed |= written;
        }
        match services.services.as_slice() {
            [] => context.out.info(format_args!("{site}: its manifest names no services; nothing to order")),
            names => context.out.info(format_args!("{site}: mounted before {}", names.join(", "))),
        }
        Ok(changed)
    }

    /// Those of a service that another site names as well stay, unless all go.
    fn uninstall(&self, context: &Context<'_>) -> Result<u8> {
        let files = if self.which.all { self.all_written() } else { self.written_for(context)? };
        let mut removed = vec![];
        for file in files {
            if remove_drop_in(&file, HEADER)? {
                context.out.info(format_args!("removed {}", file.display()));
                removed.push(file);
            }
        }
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
        let staying = sites::all(context).unwrap_or_default();
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
