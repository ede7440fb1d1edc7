//! `mountjail why`: what brings a path into a jail.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::advice::advisor;
use super::args::ImageRoot;
use super::complete;
use super::report::failed_alone;
use crate::base::JailPath;
use crate::resolve::{self, Desired, Explanation};
use crate::site::context::Context;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::{load, select};
use crate::{Error, Result, render};

/// Show which line, preset, program or link brings a path into a jail
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail why site1 /lib/x86_64-linux-gnu/libc.so.6")]
pub(super) struct WhyArgs {
    #[command(flatten)]
    image: ImageRoot,
    /// The site's name, or the path of its manifest
    #[arg(value_name = "SITE", add = complete::site())]
    site: String,
    /// The path as a process inside the jail sees it
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Print as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl WhyArgs {
    /// The root of the image that it works on.
    pub(super) fn image(&self) -> Option<&Path> {
        self.image.root.as_deref()
    }

    fn path(&self) -> Result<JailPath> {
        JailPath::new(&self.path).map_err(|why| {
            let path = self.path.display();
            Error::usage(format!("{path} cannot be a path in a jail")).because_of(why)
        })
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let path = self.path()?;
        let site = select::site_set_up(context, &self.site)?;
        let pipeline = Pipeline::new(context.clone(), MountLookup::OneByOne)?;
        let desired = match pipeline.desired(&site) {
            Ok(desired) => desired,
            Err(failed) => return Ok(failed_alone(context, &site, &failed)),
        };
        let answer = resolve::why(&desired, &path);
        let is_brought = answer.mount.is_some() || answer.directory.is_some();
        let below = if is_brought {
            vec![]
        } else {
            resolve::below(&desired, &answer.leads_to)
        };
        if !is_brought && answer.link.is_none() && below.is_empty() {
            let advisor = advisor(&pipeline, &desired);
            let manifest = load::manifest(context, &site).ok();
            return Err(advisor.why_nothing(manifest.as_ref(), path).into());
        }
        let (text, object) = if below.is_empty() {
            explained(&desired, &path, &answer)
        } else {
            let mut text = String::new();
            if answer.link.is_some() {
                text += &render::text::why(&path, &answer);
            }
            text += &render::text::below(&answer.leads_to, &below);
            let object = render::json::below(&path, &answer.leads_to, &below);
            (text, object)
        };
        let text = if self.json {
            render::json::document(object)
        } else {
            text
        };
        Ok(context.out.print_and(&text, 0))
    }
}

/// The text and the JSON about a path that something brings.
fn explained(desired: &Desired, path: &JailPath, answer: &Explanation<'_>) -> (String, Value) {
    let mut object = render::json::why(path, answer);
    let mut text = render::text::why(path, answer);
    if let Some(end) = resolve::nothing_at(desired, &answer.leads_to) {
        text += &render::text::nothing_at(&answer.leads_to, &end);
        object["nothing_at"] = json!(end);
    }
    (text, object)
}
