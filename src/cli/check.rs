//! `mountjail check`: validate and resolve, without changing anything.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::args::ImageRoot;
use super::complete;
use super::report::Report;
use super::shared_cache;
use crate::render;
use crate::site::check::check;
use crate::site::context::Context;
use crate::site::event::Event;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::{Selection, Site, parallel};

/// Validate manifests and report every obstacle to `up`; change nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mountjail check\n  mountjail check ./site1.yaml")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    image: ImageRoot,
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE|FILE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl CheckArgs {
    /// The root of the image that it works on.
    pub(super) fn image(&self) -> Option<&Path> {
        self.image.root.as_deref()
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = Selection::named_or_all(&self.sites).sites(context)?;
        let pipeline = Pipeline::new(context.clone(), MountLookup::WholeTable)?;
        let found = parallel::look(context, &sites, move |site: &Site| check(&pipeline, site));

        let mut report = Report::new(context, self.json).of_all(self.sites.is_empty());
        if let Some(mistakes) = context.presets.mistakes_in_defaults() {
            let out = context.out.about(Event::Mistake, &[]);
            out.diagnostics(&"defaults.yaml", mistakes);
            report.code(2);
        }
        shared_cache::warn(context, found.iter().flatten());
        for (site, found) in sites.iter().zip(found) {
            match found {
                Ok(desired) => {
                    context.out.notes(&desired);
                    report.styled(render::text::checked(&desired));
                    report.site(0, render::json::checked(&desired));
                }
                Err(failed) => report.failed(site, &failed, json!({ "ok": false })),
            }
        }
        Ok(report.finish())
    }
}
