//! A site's manifest is written and the site brought up: both, or neither.
//!
//! The new manifest is written beside its place first. Then the site is brought up by it, and as
//! the last step it takes its place, all while the site's lock is held. A run that is killed leaves
//! the old manifest, by which the next `up` goes on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use super::bring_up::{BringUp, Brought, FinalStep, lock};
use super::context::Context;
use super::left_behind::{self, Leaving};
use super::pipeline::{self, MountLookup, Pipeline};
use super::services::{Located, Namespaces, ServicePlace};
use super::up::Done;
use super::{Site, SiteError, load, manifest_file};
use crate::base::sync::lock as locked;
use crate::base::{ErrorContext, HostPath, hints};
use crate::engine::{MadeDirectories, OwnNamespace, StagedFile};
use crate::manifest::{Manifest, Scope};
use crate::observe::{Process, RunNamespace};
use crate::patience::Stop;
use crate::plan::Plan;
use crate::resolve::{Desired, Host, Resolver};
use crate::{Error, Result, engine};

/// A manifest that is to be applied.
pub(crate) struct NewManifest {
    /// The site, with the file that the manifest gets.
    pub site: Site,
    /// Where the text is from, for messages about it.
    pub given: PathBuf,
    pub text: String,
}

impl NewManifest {
    /// An error about the site, whose manifest is not in its place yet.
    fn about_new(&self, error: Error) -> Error {
        let Site { name, file } = &self.site;
        let there = manifest_file::bytes(file).ok().flatten();
        if there.is_some_and(|bytes| bytes == self.text.as_bytes()) {
            return error;
        }
        error.map_hint(|hint| hints::while_applied(hint, name, file))
    }

    fn of_new(&self, failed: SiteError) -> SiteError {
        failed.map(|error| self.about_new(error))
    }
}

/// A manifest's text before and after.
pub(crate) struct ManifestChange {
    pub file: PathBuf,
    /// `None`: the site has no manifest of its own.
    pub before: Option<Vec<u8>>,
    pub after: Option<String>,
}

impl ManifestChange {
    /// Whether the file is written, or removed.
    pub(crate) fn is_change(&self) -> bool {
        self.before.as_deref() != self.after.as_deref().map(str::as_bytes)
    }
}

/// What a site would need to be as the new manifest asks for.
pub(crate) struct Looked {
    pub site: Site,
    pub manifest: ManifestChange,
    pub desired: Option<Desired>,
    /// On the host, or for each service of the site that runs.
    pub plans: Vec<(Option<ServicePlace>, Plan)>,
    /// How it leaves the places where its mounts do not belong any more.
    pub leaves: Vec<(Option<ServicePlace>, Leaving)>,
    /// The services, if the mounts belong to these.
    pub for_services: Option<Vec<String>>,
    /// The root that is made first.
    pub new_root: Option<HostPath>,
}

impl Looked {
    /// Whether anything has to be done.
    pub(crate) fn is_change(&self) -> bool {
        let has_steps = self.plans.iter().any(|(_, plan)| !plan.steps.is_empty());
        let leaves = self.leaves.iter().any(|(_, leaving)| leaving.is_change());
        has_steps || leaves || self.manifest.is_change() || self.new_root.is_some()
    }
}

/// A site that is as its new manifest asks for.
pub(crate) struct Applied {
    pub manifest: ManifestChange,
    /// How it was before, if that was asked for.
    pub looked: Option<Looked>,
    pub up: AppliedUp,
}

/// Where it came up.
pub(crate) enum AppliedUp {
    Host(Box<Done>),
    Services(Box<InServices>),
}

/// Where a site with scope `services` came up.
pub(crate) struct InServices {
    pub desired: Desired,
    /// The services that its manifest names.
    pub units: Vec<String>,
    /// Those of them that run in a mount namespace for their sites.
    pub places: Vec<(ServicePlace, Done)>,
    /// Processes of those that run without, one per unit.
    pub blind: Vec<Process>,
}

/// Applies manifests.
pub(crate) struct Applier {
    pub context: &'static Context,
    /// A root directory that does not exist is made.
    pub create_root: bool,
    /// How the site was before is wanted.
    pub look: bool,
}

impl Applier {
    /// What would be done.
    pub(crate) fn look(&self, new: &NewManifest) -> Result<Looked, SiteError> {
        let looked = self.validated(new);
        let looked = looked.and_then(|manifest| self.look_at(new, &manifest));
        let mut looked = looked.map_err(|failed| new.of_new(failed))?;
        for (_, plan) in &mut looked.plans {
            for conflict in &mut plan.conflicts {
                *conflict = new.about_new(conflict.clone());
            }
        }
        Ok(looked)
    }

    /// Writes the manifest and brings the site up, or leaves both as they were.
    pub(crate) fn apply(&self, new: &NewManifest, stop: &Stop) -> Result<Applied, SiteError> {
        let applied = self.try_apply(new, stop);
        applied.map_err(|failed| new.of_new(failed))
    }

    fn try_apply(&self, new: &NewManifest, stop: &Stop) -> Result<Applied, SiteError> {
        let (context, site) = (self.context, &new.site);
        let manifest = self.validated(new)?;
        let mut run = BringUp::new(context.clone(), MountLookup::OneByOne, 1)?;

        // Lock: another mountjail finishes its work on the site first.
        let _lock = lock(context, &run.engine, &site.name, stop)?;
        let before = Self::manifest_change(new)?;
        let made = if self.create_root {
            MadeDirectories::above(&manifest.root)
        } else {
            MadeDirectories::default()
        };

        // Write the manifest beside its place. Any trouble with the disk is found now.
        let staged = if before.is_change() {
            Some(StagedFile::write(&site.file, new.text.as_bytes()).context(&site.name)?)
        } else {
            None
        };

        // Bring the site up, and put the manifest into its place as the last step.
        run.create_root = self.create_root;
        run.then = staged.map(takes_place);
        let looked = self.look.then(|| self.look_at(new, &manifest)).transpose();
        let up = looked.and_then(|looked| {
            let up = match manifest.scope {
                Scope::Host => on_host(&run, site, manifest, stop)?,
                Scope::Services => self.in_services(&run, site, manifest, stop)?,
            };
            Ok((looked, up))
        });
        match up {
            Ok((looked, up)) => Ok(Applied {
                manifest: before,
                looked,
                up,
            }),
            Err(failed) => {
                made.remove();
                Err(failed)
            }
        }
    }

    /// The new manifest, without mistakes.
    fn validated(&self, new: &NewManifest) -> Result<Manifest, SiteError> {
        let context = self.context;
        // A mistake is reported where the text is from.
        let given = Site {
            file: new.given.clone(),
            ..new.site.clone()
        };
        let of_given = load::manifest_from(context, &given, &new.text)?;
        let manifest = load::manifest_from(context, &new.site, &new.text)?;
        let file = &new.site.file;
        let place = match file.symlink_metadata() {
            Ok(_) => file,
            Err(_) => file.parent().unwrap_or(file),
        };
        if let Some(warning) = context.trust.admit_or_warn(place)? {
            context.out.site(&new.site.name).warn(warning);
        }
        let name = new.site.name.clone();
        context.roots().come_up(std::iter::once(name));
        let resolver = self.for_new_roots(context.resolver()?);
        pipeline::resolve(context, &resolver, &of_given)?;
        Ok(manifest)
    }

    /// The resolver knows if a root that does not exist is made.
    fn for_new_roots(&self, resolver: Resolver) -> Resolver {
        if self.create_root {
            resolver.making_roots()
        } else {
            resolver
        }
    }

    /// A pipeline for a look at all mounts.
    fn pipeline(&self, context: Context) -> Result<Pipeline> {
        let pipeline = Pipeline::new(context, MountLookup::WholeTable)?;
        Ok(Pipeline {
            resolver: self.for_new_roots(pipeline.resolver),
            ..pipeline
        })
    }

    fn manifest_change(new: &NewManifest) -> Result<ManifestChange> {
        let file = new.site.file.clone();
        let before = manifest_file::bytes(&file).context(&new.site.name)?;
        Ok(ManifestChange {
            file,
            before,
            after: Some(new.text.clone()),
        })
    }

    fn look_at(&self, new: &NewManifest, manifest: &Manifest) -> Result<Looked, SiteError> {
        let mut looked = Looked {
            site: new.site.clone(),
            manifest: Self::manifest_change(new)?,
            desired: None,
            plans: vec![],
            leaves: vec![],
            for_services: None,
            new_root: None,
        };
        if manifest.scope == Scope::Services {
            looked.for_services = Some(manifest.services.clone());
        }
        if self.create_root && is_missing(manifest) {
            looked.new_root = Some(manifest.root.clone());
        }
        let pipeline = self.pipeline(self.context.clone())?;
        let desired = pipeline.resolve(manifest)?;
        if manifest.scope == Scope::Host {
            looked.plans = vec![(None, pipeline.observe_and_plan(&desired)?.1)];
            let sites = std::slice::from_ref(&new.site);
            let left = left_behind::plans_in_services(self.context, sites)?;
            for (place, leaving) in left.into_values().flatten() {
                looked
                    .leaves
                    .extend(leaving?.map(|leaving| (Some(place), leaving)));
            }
        } else {
            let plan = |own: Context, here: &[Site]| {
                let pipeline = self.pipeline(own)?;
                let plan = |_| Ok(pipeline.observe_and_plan(&pipeline.resolve(manifest)?)?.1);
                Ok(here.iter().map(plan).collect::<Vec<Result<_, SiteError>>>())
            };
            let served = [(new.site.clone(), manifest.services.clone())];
            let mut found = Namespaces::find(self.context)?.each(self.context, &served, plan);
            for (place, plan) in found.remove(&new.site.name).unwrap_or_default() {
                let mut plan = plan?;
                place.locate_all(&plan.site, &mut plan.conflicts);
                looked.plans.push((Some(place), plan));
            }
            let is_served = !looked.plans.is_empty();
            let leaving = left_behind::plan_on_host(self.context, &new.site, is_served)?;
            looked.leaves.extend(leaving.map(|leaving| (None, leaving)));
        }
        looked.desired = Some(desired);
        Ok(looked)
    }

    /// Brings the site up in the mount namespaces of all its services that run, or in none.
    fn in_services(
        &self,
        run: &BringUp,
        site: &Site,
        manifest: Manifest,
        stop: &Stop,
    ) -> Result<AppliedUp, SiteError> {
        if run.create_root {
            run.make_root(site, &manifest.root)?;
        }
        let desired = run.pipeline.resolve(&manifest)?;
        let units = manifest.services.clone();
        let namespaces = Namespaces::find(self.context)?;
        let of_site = namespaces.of(self.context, &site.name, &units);
        let all = Arc::new(InAll {
            context: self.context,
            namespaces: of_site.into_iter().cloned().collect(),
            host: OwnNamespace::open()?,
            site: site.clone(),
            manifest,
            stop: stop.clone(),
            then: run.then.clone(),
            done: Mutex::default(),
        });
        all.up_from(0)?;
        let places = std::mem::take(&mut *locked(&all.done));
        Ok(AppliedUp::Services(Box::new(InServices {
            desired,
            blind: namespaces.without(&units),
            units,
            places,
        })))
    }
}

/// A site that comes up in all of some mount namespaces, and `then` something is done; or else all
/// is as it was. The last step in one namespace is the work in the next one, so if one fails, those
/// before it undo their own.
struct InAll {
    context: &'static Context,
    namespaces: Vec<RunNamespace>,
    host: OwnNamespace,
    site: Site,
    manifest: Manifest,
    stop: Stop,
    then: Option<FinalStep>,
    done: Mutex<Vec<(ServicePlace, Done)>>,
}

impl InAll {
    /// Brings the site up in the namespaces from the `nth` on.
    fn up_from(self: &Arc<Self>, nth: usize) -> Result<(), SiteError> {
        let Some(namespace) = self.namespaces.get(nth) else {
            let then = self.then.as_ref().map_or(Ok(()), |then| then());
            return Ok(then.context(&self.site.name)?);
        };
        let own = self
            .context
            .with_state(namespace.state(&self.context.state));
        match engine::within(namespace, || self.up_in(own, nth)) {
            Ok(done) => {
                let place = ServicePlace::of(namespace);
                let done = done.map_err(|failed| failed.located(&self.site.name, &place))?;
                locked(&self.done).insert(0, (place, done));
                Ok(())
            }
            Err(error) if error.is_overtaken() => {
                self.context.out.detail(error);
                self.up_from(nth + 1)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Brings the site up in the `nth` namespace, which is that of this thread, and in those after
    /// it.
    fn up_in(self: &Arc<Self>, own: Context, nth: usize) -> Result<Done, SiteError> {
        let mut run = BringUp::new(own, MountLookup::OneByOne, 1)?;
        let (all, failed) = (self.clone(), Arc::new(Mutex::new(None)));
        let failure = failed.clone();
        run.then = Some(Arc::new(move || {
            let rest = all.host.within(|| all.up_from(nth + 1))?;
            rest.map_err(|error| {
                *locked(&failure) = Some(error);
                Error::failed("its mounts in another service")
            })
        }));
        let brought = run.locked(&self.site, self.manifest.clone(), &self.stop);
        match (brought, locked(&failed).take()) {
            (Ok(Brought::Up(done)), _) => Ok(*done),
            (Ok(_), _) => Err(given_up(&self.site)),
            (Err(SiteError::Engine(own)), Some(failed)) => Err(failed.and_not_undone(*own)),
            (Err(failed), _) => Err(failed),
        }
    }
}

fn on_host(
    run: &BringUp,
    site: &Site,
    manifest: Manifest,
    stop: &Stop,
) -> Result<AppliedUp, SiteError> {
    match run.locked(site, manifest, stop)? {
        Brought::Up(done) => Ok(AppliedUp::Host(done)),
        _ => Err(given_up(site)),
    }
}

/// This cannot happen, since no such site is asked for.
fn given_up(site: &Site) -> SiteError {
    Error::failed(format!("{}: it was left as it is", site.name)).into()
}

/// Has the staged manifest take its place, once: a run that is tried again gets the same result.
fn takes_place(staged: StagedFile) -> FinalStep {
    let (staged, placed) = (Mutex::new(Some(staged)), OnceLock::new());
    Arc::new(move || {
        let place = || {
            locked(&staged)
                .take()
                .map_or(Ok(()), StagedFile::take_place)
        };
        placed.get_or_init(place).clone()
    })
}

/// Whether the root does not exist.
fn is_missing(manifest: &Manifest) -> bool {
    match Host::new().walk(&manifest.root) {
        Ok(_) => false,
        Err(error) => error.is_missing(),
    }
}
