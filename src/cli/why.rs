//! `mountjail why`: what brought a path in.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::sites;
use super::work::desired;
use crate::Error;
use crate::manifest::JailPath;
use crate::render;

/// Say which line, preset, program or link brought a path into a jail
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail why site1 /lib/x86_64-linux-gnu/libc.so.6")]
pub(super) struct Why {
    /// The site's name, or the path of its manifest
    #[arg(value_name = "SITE")]
    site: String,
    /// The path as a process inside the jail sees it
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Why {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        let path = JailPath::new(&self.path).map_err(|why| {
            Error::usage(format!("{} cannot be a path in a jail", self.path.display())).because_of(why)
        })?;
        let site = sites::one(context, &self.site)?;
        let desired = match desired(context, &context.resolver()?, &site) {
            Ok(desired) => desired,
            Err(failed) => return Ok(failed.report(context, &site).0),
        };
        let answer = render::why(&desired, &path);
        if answer.mount.is_none() && answer.link.is_none() {
            let nothing =
                Error::failed(format!("{}: nothing brings {path} into {}", site.name, desired.root));
            let on_host = path.on_host();
            let error = if context.host.exists(&on_host) {
                nothing.hint(format!("it is on the host; this line of `mounts` would bring it: - {on_host}"))
            } else {
                nothing.hint("it is not on the host either")
            };
            return Err(error.into());
        }
        let text = if self.json {
            format!("{:#}\n", render::json::why(&path, &answer))
        } else {
            render::text::why(&path, &answer)
        };
        Ok(context.out.print_and(&text, 0))
    }
}
