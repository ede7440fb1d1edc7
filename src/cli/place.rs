//! Where `exec`, `doctor` and `trace` work: on the host or, for a site with scope `services`, in
//! the mount namespace of one of its services. If none runs, they have one of their own.

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::args::Global;
use super::run;
use super::supervised::supervise;
use crate::engine::enter;
use crate::manifest::Scope;
use crate::observe::RunNamespace;
use crate::patience::worker::{self, WorkerEnd};
use crate::site::context::Context;
use crate::site::out::Out;
use crate::site::services::{Namespaces, comes_with};
use crate::site::trust::{Effect, Trust};
use crate::site::{load, select};
use crate::{Error, Result};

/// Where a site is that is not on the host.
#[derive(Serialize, Deserialize)]
enum Whereabouts {
    In(RunNamespace),
    /// The command has one of its own, because it restarts a service.
    Apart,
    /// None of its services runs.
    Nowhere(Vec<String>),
}

/// The site in whose root a command works.
pub(super) struct SiteInside<'s> {
    pub site: &'s str,
    /// Whether the command starts a service of the site.
    pub starts_service: bool,
}

/// Puts this process, which has one thread, where the mounts of `site` are, and has it use the
/// records for that place.
///
/// Errors: the exit code, after the error was reported.
pub(super) fn go(
    global: &mut Global,
    SiteInside {
        site,
        starts_service,
    }: SiteInside<'_>,
    out: &'static Out,
) -> Result<(), u8> {
    if !geteuid().is_root() {
        return Ok(()); // the command refuses other users
    }
    let (settings, name) = (global.clone(), site.to_owned());
    let end = supervise(out, global.limit(), move || {
        let context = settings.context(Trust::new(Effect::ReadOnly), out)?;
        find(context, &name, starts_service)
    });
    let found = match end {
        WorkerEnd::Exit(0) => return Ok(()),
        WorkerEnd::Exit(code) => return Err(code),
        WorkerEnd::HandOver(found) => serde_json::from_slice(&found).map_err(|error| {
            let cannot = Error::failed(format!("{site}: cannot find its mount namespace"));
            out.failure(&cannot.because_of(error).into())
        })?,
    };
    let here = std::env::current_dir();
    let namespace = enter_place(global, site, found, out)?;
    // Entering a namespace leads to its root directory.
    if let Ok(here) = here {
        let _ = std::env::set_current_dir(here);
    }
    global.namespace = Some(namespace);
    Ok(())
}

/// Puts this process into the namespace; returns its id.
///
/// Errors: the exit code, after the error was reported.
fn enter_place(
    global: &Global,
    site: &str,
    found: Whereabouts,
    out: &'static Out,
) -> Result<String, u8> {
    match found {
        Whereabouts::In(namespace) => match enter(&namespace) {
            Ok(()) => Ok(namespace.record.id.to_string()),
            Err(error) => Err(out.failure(&error.into())),
        },
        Whereabouts::Apart => run::for_this_process(global, site, out),
        Whereabouts::Nowhere(units) => {
            let text = comes_with(&units);
            out.info(format_args!(
                "{site}: {text}; it is mounted for this command alone"
            ));
            run::for_this_process(global, site, out)
        }
    }
}

/// In a worker: finds the place, and hands it over if it is not the host. The command itself
/// reports what is wrong with the site.
fn find(context: &Context, site: &str, starts_service: bool) -> anyhow::Result<u8> {
    let Ok(site) = select::site_set_up(context, site) else {
        return Ok(0);
    };
    let manifest = match load::manifest(context, &site) {
        Ok(manifest) if manifest.scope == Scope::Services => manifest,
        _ => return Ok(0),
    };
    let namespaces = Namespaces::find(context)?;
    let of_site = namespaces.of(context, &site.name, &manifest.services);
    let found = match of_site.first() {
        _ if starts_service => Whereabouts::Apart,
        Some(namespace) => Whereabouts::In((*namespace).clone()),
        None => Whereabouts::Nowhere(manifest.services),
    };
    worker::hand_over(&serde_json::to_vec(&found)?);
    Ok(0)
}
