//! `mountjail why`: what brings a path into a jail.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::args::ImageRoot;
use super::complete;
use super::trace;
use crate::base::hints::is_absent;
use crate::base::{JailPath, MAX_LINKS, lexical};
use crate::manifest::{Entry, Origin, Pattern, Request};
use crate::resolve::Desired;
use crate::site::context::Context;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::{Site, load, select};
use crate::trace::{Miss, look};
use crate::{Error, render, resolve};

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

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let path = JailPath::new(&self.path).map_err(|why| {
            Error::usage(format!(
                "{} cannot be a path in a jail",
                self.path.display()
            ))
            .because_of(why)
        })?;
        let site = select::site(context, &self.site)?;
        let pipeline = Pipeline::new(context.clone(), MountLookup::OneByOne)?;
        let desired = match pipeline.desired(&site) {
            Ok(desired) => desired,
            Err(failed) => return Ok(failed.report(context.out, &site).0),
        };
        let answer = resolve::why(&desired, &path);
        let is_brought = answer.mount.is_some() || answer.directory.is_some();
        let below = if is_brought {
            vec![]
        } else {
            resolve::below(&desired, &answer.leads_to)
        };
        if !is_brought && answer.link.is_none() && below.is_empty() {
            return Err(nothing_brings(context, &site, &desired, path).into());
        }
        let (text, object) = if below.is_empty() {
            let mut object = render::json::why(&path, &answer);
            let mut text = render::text::why(&path, &answer);
            if let Some(end) = nothing_at(&desired, &answer.leads_to) {
                text += &render::text::nothing_at(&answer.leads_to, &end);
                object["nothing_at"] = json!(end);
            }
            (text, object)
        } else {
            let link = answer.link.map(|_| render::text::why(&path, &answer));
            let text = render::text::below(&answer.leads_to, &below);
            let object = render::json::below(&path, &answer.leads_to, &below);
            (link.unwrap_or_default() + &text, object)
        };
        let text = if self.json {
            render::json::document(object)
        } else {
            text
        };
        Ok(context.out.print_and(&text, 0))
    }
}

/// Where `path`, which something brings, leads by the links in mounted directories, if nothing is
/// there: neither in a mount nor in the root itself.
fn nothing_at(desired: &Desired, path: &JailPath) -> Option<JailPath> {
    let mut at = path.clone();
    for _ in 0..MAX_LINKS {
        let answer = resolve::why(desired, &at);
        at = answer.leads_to;
        let Some(mount) = answer.mount else {
            let own = desired.root.inside(&at);
            let is_there = answer.directory.is_some() || own.as_path().symlink_metadata().is_ok();
            return (!is_there).then_some(at);
        };
        if mount.file_system.is_some() || mount.target == at {
            return None;
        }
        let source = mount.source.as_path().join(at.below(&mount.target)?);
        match source.symlink_metadata() {
            Err(error) if is_absent(&error) => return Some(at),
            Ok(found) if found.is_symlink() => {
                let to = lexical(at.parent()?.as_path(), &source.read_link().ok()?);
                at = JailPath::new(to).ok()?;
            }
            _ => return None,
        }
    }
    Some(at)
}

/// The error that nothing brings `path`, with the line that would as its hint.
fn nothing_brings(context: &Context, site: &Site, desired: &Desired, path: JailPath) -> Error {
    let nothing = Error::failed(format!(
        "{}: nothing brings {path} into {}",
        site.name, desired.root
    ));
    if let Some(origin) = waiting_for(context, site, &path) {
        return nothing.hint(format!(
            "it is not on the host; once it is, this line brings it: {origin}"
        ));
    }
    let Ok(resolver) = context.resolver() else {
        return nothing;
    };
    let Some(found) = look(
        &context.host,
        context.roots(),
        &desired.root,
        &Miss::new(path),
    ) else {
        return nothing.hint("it is not on the host either");
    };
    let advice = trace::advice(context, &resolver, desired, vec![found]);
    match (advice.lines.first(), advice.refused.first()) {
        (Some(line), _) => nothing.hint(format!(
            "it is on the host; this line would bring it: {}",
            line.addition
        )),
        (None, Some((_, why))) => {
            nothing.hint(format!("it is on the host, but no line is advised: {why}"))
        }
        (None, None) => nothing,
    }
}

/// The optional line that names `path`, or a directory above it, which does not exist.
fn waiting_for(context: &Context, site: &Site, path: &JailPath) -> Option<Arc<Origin>> {
    let manifest = load::manifest(context, site).ok()?;
    let names = |entry: &&Arc<Entry>| match &entry.request {
        Request::Mount(mount) => {
            let source = |pattern: &Pattern| path.on_host().starts_with(pattern.path());
            let target = mount
                .target
                .as_ref()
                .is_some_and(|target| path.starts_with(target));
            mount.sources.optional && (target || mount.sources.any_of.iter().any(source))
        }
        Request::Etc(wanted) => {
            let named = |name: &String| path.as_path().starts_with(Path::new("/etc").join(name));
            wanted.optional && wanted.any_of.iter().any(named)
        }
        _ => false,
    };
    manifest
        .entries
        .iter()
        .find(names)
        .map(|entry| entry.origin.clone())
}
