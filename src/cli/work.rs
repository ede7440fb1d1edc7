//! What several commands do with one site: resolve it, look at it, say what failed.

use super::context::Context;
use super::out::worst;
use super::sites::{self, Site, Unusable};
use crate::engine::{Engine, Failure, Lock};
use crate::error::Kind;
use crate::manifest::{HostPath, Manifest, SiteName};
use crate::observe::{self, BootId, Records, Table};
use crate::plan::{self, Plan};
use crate::resolve::{Desired, Resolver};
use crate::{Error, Result};

/// Why a command did not do what it was for on one site.
pub(super) enum Failed {
    Manifest(Unusable),
    Errors(Vec<Error>),
    Engine(Box<Failure>),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Errors(vec![error])
    }
}

/// What the site's manifest asks for on this host.
pub(super) fn desired(
    context: &Context<'_>,
    resolver: &Resolver,
    site: &Site,
) -> Result<Desired, Failed> {
    let manifest = sites::load(context, site).map_err(Failed::Manifest)?;
    resolved(context, resolver, &manifest)
}

/// What `manifest` asks for on this host.
pub(super) fn resolved(
    context: &Context<'_>,
    resolver: &Resolver,
    manifest: &Manifest,
) -> Result<Desired, Failed> {
    resolver
        .resolve(manifest, context.roots())
        .map_err(Failed::Errors)
}

/// What the site needs, and the plan for it by the whole table: what `plan` and `status` show.
pub(super) fn planned(
    context: &Context<'_>,
    resolver: &Resolver,
    site: &Site,
    boot: &BootId,
    table: &Table,
) -> Result<(Desired, Plan), Failed> {
    let desired = desired(context, resolver, site)?;
    let (_, plan) = observe_and_plan(context, &desired, boot, Some(table))?;
    Ok((desired, plan))
}

/// The site's lock; says so before it waits for another mountjail.
pub(super) fn lock(context: &Context<'_>, engine: &Engine, site: &Site) -> Result<Lock> {
    let waiting = || {
        context.out.info(format_args!(
            "{}: waiting for another mountjail to finish",
            site.name
        ))
    };
    engine
        .lock(&site.name, context.limit, waiting)
        .map_err(|error| error.context(&site.name))
}

/// How the site stands, and what is to be done.
pub(super) fn observe_and_plan(
    context: &Context<'_>,
    desired: &Desired,
    boot: &BootId,
    table: Option<&Table>,
) -> Result<(observe::Observed, Plan)> {
    let named = |error: Error| error.context(&desired.site);
    let records = readable(context, &desired.site, boot).map_err(named)?;
    for warning in &records.warnings {
        context
            .out
            .warn(format_args!("{}: {warning}", desired.site));
    }
    let records = at_its_root(context, desired, records)?;
    let observed = observe::observe(desired, records, table).map_err(named)?;
    let plan = plan::up(desired, &observed);
    if plan.removals() > 0
        && observe::shared_storage(&desired.root)
            .map_err(named)?
            .is_some()
    {
        return Ok((observed, plan.keeping_placeholders()));
    }
    Ok((observed, plan))
}

/// The records as those of the root that the manifest names: it may have been moved there, or the
/// recorded one be gone.
///
/// Errors: the site was set up in another directory, which is there.
fn at_its_root(context: &Context<'_>, desired: &Desired, records: Records) -> Result<Records> {
    let Desired { site, root, .. } = desired;
    let kept_at = records.kept.as_ref().map(|kept| &kept.root);
    if records.root().is_none_or(|recorded| recorded == root)
        && kept_at.is_none_or(|kept| kept == root)
    {
        return Ok(records);
    }
    match (records.home(|| Some(root.clone())), records.root()) {
        (Some(home), _) if home == *root => Ok(records.moved_to(root)),
        (None, Some(recorded)) if !records.is_mounted() => {
            context.out.warn(format_args!(
                "{site}: the root {recorded} is not there any more; what mountjail made in it is forgotten"
            ));
            Ok(Records::default())
        }
        (home, _) => Err(elsewhere(
            &home.unwrap_or_else(|| root.clone()),
            desired,
            &records,
        )),
    }
}

/// What is recorded. Who is not root cannot read it, and changes nothing: what he is shown is found
/// by looking.
pub(super) fn readable(context: &Context<'_>, site: &SiteName, boot: &BootId) -> Result<Records> {
    match context.state.read(site, boot) {
        Err(error) if error.errno() == Some(libc::EACCES) && !nix::unistd::geteuid().is_root() => {
            Ok(Records {
                warnings: vec![error.to_string()],
                ..Records::default()
            })
        }
        result => result,
    }
}

/// The site was set up at `home`, and is to be at another root.
pub(super) fn elsewhere(home: &HostPath, desired: &Desired, records: &Records) -> Error {
    let Desired { site, root, .. } = desired;
    let fstab = records
        .kept
        .as_ref()
        .is_some_and(|kept| kept.fstab.is_some());
    let how = match (&records.record, fstab) {
        (_, true) => format!("`mountjail fstab --uninstall {site}`, then `mountjail down {site}`"),
        (Some(_), false) => format!("`mountjail down {site}`"),
        (None, false) => format!("`mountjail down --remove-placeholders {site}`"),
    };
    Error::failed(format!(
        "{site}: the manifest now says root {root}, but the site was set up at {home}"
    ))
    .hint(format!("take it away there first: {how}"))
}

/// What the user should know of what was resolved. Of presets most of it with `-v` only: their
/// optional lines are many.
pub(super) fn notes(context: &Context<'_>, desired: &Desired) {
    for warning in &desired.warnings {
        context
            .out
            .warn(format_args!("{}: {warning}", desired.site));
    }
    for note in &desired.notes {
        if note.always || note.origin.presets.is_empty() {
            context.out.info(format_args!(
                "{}: {} ({})",
                desired.site, note.text, note.origin
            ));
        } else {
            context.out.detail(format_args!(
                "{}: {} ({})",
                desired.site, note.text, note.origin
            ));
        }
    }
}

/// `1 mount`, `30 mounts`.
pub(super) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl Failed {
    /// What failed, in one piece of text.
    pub(super) fn text(&self, site: &Site) -> String {
        match self {
            Self::Manifest(unusable) => unusable.as_text(),
            Self::Errors(errors) => errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
            Self::Engine(failure) => failure.error.clone().context(&site.name).to_string(),
        }
    }

    /// Whether it failed because of something that changed after it was looked at, and left the
    /// site as it was before.
    pub(super) fn is_overtaken(&self) -> bool {
        match self {
            Self::Manifest(_) => false,
            Self::Errors(errors) => errors.iter().any(Error::is_overtaken),
            Self::Engine(failure) => {
                failure.error.is_overtaken()
                    && failure.also.is_empty()
                    && failure.lasting.is_empty()
            }
        }
    }

    /// Whether it was given up because something did not answer.
    pub(super) fn is_silent(&self) -> bool {
        let Self::Errors(errors) = self else {
            return false;
        };
        errors.iter().any(|error| error.kind() == Kind::Silent)
    }

    /// How many errors there are.
    pub(super) fn count(&self) -> usize {
        if let Self::Errors(errors) = self {
            errors.len()
        } else {
            1
        }
    }

    /// The same with no more than the first `most` errors.
    pub(super) fn in_short(self, site: &SiteName, most: usize) -> Self {
        match self {
            Self::Errors(mut errors) if errors.len() > most + 1 => {
                let more = plural(errors.len() - most, "more error");
                errors.truncate(most);
                let hint = format!("`mountjail status {site}` shows all");
                errors.push(Error::failed(format!("{site}: {more}")).hint(hint));
                Self::Errors(errors)
            }
            short => short,
        }
    }

    /// As one error, in one line.
    pub(super) fn as_error(&self, site: &Site) -> Error {
        match self {
            Self::Manifest(unusable) => Error::usage(unusable.brief()),
            Self::Errors(errors) if errors.len() == 1 => errors[0].clone(),
            Self::Errors(_) | Self::Engine(_) => Error::failed(self.text(site)),
        }
    }

    /// Says what failed; gives the exit code and the messages.
    pub(super) fn report(&self, context: &Context<'_>, site: &Site) -> (u8, Vec<String>) {
        match self {
            Self::Manifest(unusable) => (
                unusable.report(context, &site.name),
                vec![unusable.as_text()],
            ),
            Self::Errors(errors) => {
                for error in errors {
                    context.out.error(error);
                }
                let code = worst(errors.iter().map(Error::exit_code));
                (code, errors.iter().map(ToString::to_string).collect())
            }
            Self::Engine(failure) => {
                let error = failure.error.clone().context(&site.name);
                context.out.error(&error);
                // On a full disk an undo fails for the same reason.
                let also: Vec<_> = failure
                    .also
                    .iter()
                    .filter(|also| **also != failure.error)
                    .collect();
                for also in &also {
                    context.out.error(&Error::clone(also).context(&site.name));
                }
                say_undone(context, site, failure);
                let also = also.iter().map(ToString::to_string);
                let lasting = failure.lasting.iter().cloned();
                (
                    error.exit_code(),
                    [error.to_string()]
                        .into_iter()
                        .chain(also)
                        .chain(lasting)
                        .collect(),
                )
            }
        }
    }
}

fn say_undone(context: &Context<'_>, site: &Site, failure: &Failure) {
    let (name, steps) = (&site.name, plural(failure.undone.len(), "step"));
    if !failure.lasting.is_empty() {
        let lasting = failure.lasting.join("; ");
        context.out.warn(format_args!(
            "{name}: undid {steps}; the site is not as it was before: {lasting}"
        ));
    } else if failure.also.is_empty() && !failure.undone.is_empty() {
        context.out.info(format_args!(
            "{name}: undid {steps}; the site is as it was before"
        ));
    }
}
