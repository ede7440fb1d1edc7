//! `mountjail check`: validate and resolve, touching nothing.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::out::worst;
use super::sites;
use super::work::{desired, plural};
use crate::render;

/// Validate manifests and resolve them on this host, touching nothing
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail check\n  mountjail check ./site1.yaml")]
pub(super) struct Check {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE|FILE")]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        let everything = self.all || self.sites.is_empty();
        let sites = if everything { sites::every(context)? } else { sites::named(context, &self.sites)? };
        let resolver = context.resolver()?;
        let (mut codes, mut results, mut text) = (vec![], vec![], String::new());
        for site in &sites {
            match desired(context, &resolver, site) {
                Ok(desired) => {
                    codes.push(0);
                    let (mounts, links) = (desired.mounts.len(), desired.links.len());
                    let counts = format!("{} and {}", plural(mounts, "mount"), plural(links, "link"));
                    render::text::line(
                        &mut text,
                        format_args!("{}: ok, {counts} in {}", site.name, desired.root),
                    );
                    let notes: Vec<_> = desired
                        .notes
                        .iter()
                        .map(|note| json!({ "text": note.text, "line": note.origin.to_string() }))
                        .collect();
                    results.push(json!({
                        "site": site.name, "ok": true, "root": desired.root, "mounts": mounts, "links": links,
                        "notes": notes, "warnings": desired.warnings,
                    }));
                    for warning in &desired.warnings {
                        context.out.warn(format_args!("{}: {warning}", site.name));
                    }
                    for note in &desired.notes {
                        context
                            .out
                            .info(format_args!("{}: note: {} ({})", site.name, note.text, note.origin));
                    }
                }
                Err(failed) => {
                    let (code, errors) = failed.report(context, site);
                    codes.push(code);
                    results.push(json!({ "site": site.name, "ok": false, "errors": errors }));
                }
            }
        }
        if self.json {
            text = format!("{:#}\n", json!({ "sites": results }));
        }
        Ok(context.out.print_and(&text, worst(codes)))
    }
}
