//! The services of sites with scope `services`, and the drop-ins that start them by `mountjail
//! run`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::boot::{self, BootUnits, UNITS};
use super::context::Context;
use super::{Site, configuration, systemctl};
use crate::base::{SEARCH_PATH, SiteName};
use crate::manifest::{Manifest, Scope};
use crate::observe::{StateDir, unit_lines};
use crate::render::systemd::{DropIn, HEADER};
use crate::render::wrapper::{Call, StartObstacle, obstacles, wrapper};
use crate::{Error, Result};

/// Where packages have the program.
const INSTALLED: &str = "/usr/bin/mountjail";

/// A service that is started by `mountjail run`.
pub(crate) struct WrappedService {
    /// By its own name, which may not be the one in the manifests.
    pub unit: String,
    /// Each once.
    pub sites: Vec<SiteName>,
    /// `Err`: it cannot be started so, for these reasons.
    pub drop_in: Result<DropIn, Vec<StartObstacle>>,
}

/// The services of the sites with scope `services`, and errors of sites that name others.
#[derive(Default)]
pub(crate) struct WrappedServices {
    pub services: Vec<WrappedService>,
    pub errors: BTreeMap<SiteName, Vec<Error>>,
}

impl WrappedServices {
    /// By the host's units, where those in `directory` take precedence.
    pub(crate) fn find(
        context: &Context,
        directory: &Path,
        boot: &BootUnits,
        manifests: &[(Site, Manifest)],
    ) -> Self {
        let mut found = Self::default();
        let mut users: BTreeMap<&str, Vec<(&Site, &Manifest, &String)>> = BTreeMap::new();
        for (site, manifest) in manifests {
            if manifest.scope != Scope::Services {
                continue;
            }
            for service in &manifest.services {
                match boot.refuse_unit(site, manifest, service) {
                    Ok(()) => {
                        let unit = boot.ordering.name(service);
                        users
                            .entry(unit)
                            .or_default()
                            .push((site, manifest, service));
                    }
                    Err(error) => found.add_error(&site.name, error),
                }
            }
        }
        let call = call(context);
        for (unit, users) in users {
            let service = wrapped(directory, &call, unit, &users);
            for obstacle in service.drop_in.as_ref().err().into_iter().flatten() {
                for site in &service.sites {
                    found.add_error(site, error_of(site, unit, obstacle));
                }
            }
            found.services.push(service);
        }
        found
    }

    fn add_error(&mut self, site: &SiteName, error: Error) {
        self.errors.entry(site.clone()).or_default().push(error);
    }

    /// Those of the site.
    pub(crate) fn of(&self, site: &SiteName) -> Vec<&WrappedService> {
        let mut own = vec![];
        for service in &self.services {
            if service.sites.contains(site) {
                own.push(service);
            }
        }
        own
    }
}

fn wrapped(
    directory: &Path,
    call: &Call,
    unit: &str,
    users: &[(&Site, &Manifest, &String)],
) -> WrappedService {
    let (mut names, mut sites) = (vec![unit.to_owned()], vec![]);
    for (site, _, name) in users {
        if !names.contains(name) {
            names.push((*name).clone());
        }
        // A site may list it by several names.
        if !sites.contains(&site.name) {
            sites.push(site.name.clone());
        }
    }
    // A unit without a file, as of an init script before systemd has run, has no lines.
    let lines = unit_lines(directory, unit, HEADER).unwrap_or_default();
    let roots: Vec<_> = users
        .iter()
        .map(|(_, manifest, _)| manifest.root.as_path())
        .collect();
    let in_the_way = obstacles(&lines, &roots);
    let drop_in = if in_the_way.is_empty() {
        wrapper(&names, &lines, call).map_err(|obstacle| vec![obstacle])
    } else {
        Err(in_the_way)
    };
    WrappedService {
        unit: unit.to_owned(),
        sites,
        drop_in,
    }
}

fn error_of(site: &SiteName, unit: &str, obstacle: &StartObstacle) -> Error {
    Error::failed(format!(
        "{site}: {unit} cannot mount it: {}: {}",
        obstacle.what, obstacle.why
    ))
    .hint(format!(
        "{}; the unit's lines: `systemctl edit {unit}`",
        obstacle.remedy
    ))
}

/// How this mountjail is called, with its configuration and records.
fn call(context: &Context) -> Call {
    let own = std::env::current_exe().unwrap_or_else(|_| INSTALLED.into());
    let program = if context.is_in_image {
        program_of_image(context, &own)
    } else {
        not_deleted(&own)
    };
    let mut options = vec![];
    if context.config != Path::new(configuration::DEFAULT) {
        options.push(format!("--config-dir={}", context.config.display()));
    }
    if context.state.shared != StateDir::default().shared
        && let Some(directory) = context.state.shared.parent()
    {
        options.push(format!("--state-dir={}", directory.display()));
    }
    Call { program, options }
}

/// The mountjail of the image that this process works on, which does not have its `own` program.
fn program_of_image(context: &Context, own: &Path) -> PathBuf {
    let others = SEARCH_PATH
        .iter()
        .map(|directory| Path::new(directory).join("mountjail"));
    let mut programs = std::iter::once(own.to_owned()).chain(others);
    programs
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            context.out.warn(format_args!(
                "the image has no mountjail; the drop-ins name {INSTALLED}, where packages have it"
            ));
            INSTALLED.into()
        })
}

/// The path of a program that was replaced meanwhile, as by an upgrade.
fn not_deleted(program: &Path) -> PathBuf {
    let text = program.to_str();
    let replaced = text.and_then(|path| path.strip_suffix(" (deleted)"));
    replaced.map_or(program, Path::new).to_owned()
}

/// The faults in how the services of sites with scope `services` are started: they are not wrapped,
/// their own lines have changed since, or something keeps them from mounting.
pub(crate) struct Complaints(Result<BTreeMap<SiteName, Vec<String>>>);

impl Complaints {
    /// Those about all sites of the configuration; none without systemd.
    pub(crate) fn find(context: &Context) -> Self {
        Self(if systemctl::is_running() {
            complaints(context)
        } else {
            Ok(BTreeMap::new())
        })
    }

    /// Those about the site.
    ///
    /// Errors: they are unknown, because the sites cannot be listed.
    pub(crate) fn of(&self, site: &SiteName) -> Result<Vec<String>> {
        match &self.0 {
            Ok(found) => Ok(found.get(site).cloned().unwrap_or_default()),
            Err(error) => Err(error.clone().context(format_args!(
                "{site}: cannot tell how its services are started"
            ))),
        }
    }
}

fn complaints(context: &Context) -> Result<BTreeMap<SiteName, Vec<String>>> {
    let mut found: BTreeMap<SiteName, Vec<String>> = BTreeMap::new();
    let directory = Path::new(UNITS);
    let manifests = boot::manifests(context, &[])?.known;
    let boot = BootUnits::read(directory, &manifests);
    let wrapped = WrappedServices::find(context, directory, &boot, &manifests);
    for (site, errors) in wrapped.errors {
        let complaints = errors.iter().map(|error| without_site(&site, error));
        found.insert(site.clone(), complaints.collect());
    }
    for service in &wrapped.services {
        if let Some(complaint) = complaint(directory, service) {
            for site in &service.sites {
                found
                    .entry(site.clone())
                    .or_default()
                    .push(complaint.clone());
            }
        }
    }
    Ok(found)
}

/// The error about `site` as a reason, with what is to be done.
fn without_site(site: &SiteName, error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix(&format!("{site}: ")).unwrap_or(&text);
    match error.hint_text() {
        Some(hint) => format!("{text}: {hint}"),
        None => text.to_owned(),
    }
}

fn complaint(directory: &Path, service: &WrappedService) -> Option<String> {
    let drop_in = service.drop_in.as_ref().ok()?;
    let unit = &service.unit;
    let what = match fs::read(directory.join(&drop_in.path)) {
        Ok(text) if text == drop_in.text.as_bytes() => return None,
        Ok(_) => format!("{unit} has other lines than `mountjail units --install` found"),
        Err(_) => format!("{unit} is not started by `mountjail run`"),
    };
    Some(format!(
        "{what}: `mountjail units --all --install`, then `systemctl restart {unit}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Presets, SourceFile, parse};

    #[test]
    fn a_site_that_lists_a_service_by_two_names_has_it_once() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("mountjail-test.service");
        fs::write(unit, "[Service]\nExecStart=/bin/true\n").unwrap();
        let site = Site {
            name: SiteName::new("a").unwrap(),
            file: "/a.yaml".into(),
        };
        let text = "root: /srv/a\nscope: services\nservices: [mountjail-test.service]\n";
        let file = SourceFile::File(site.file.clone());
        let manifest = parse(site.name.clone(), file, text, &Presets::built_in()).unwrap();
        let names = ["mountjail-test.service", "alias.service"].map(ToOwned::to_owned);
        let users = names.each_ref().map(|name| (&site, &manifest, name));
        let call = Call {
            program: "/usr/bin/mountjail".into(),
            options: vec![],
        };

        let service = wrapped(dir.path(), &call, &names[0], &users);
        assert_eq!(service.sites, std::slice::from_ref(&site.name));
        let text = service.drop_in.unwrap().text;
        assert!(text.contains("run --unit mountjail-test.service --unit alias.service -- /bin/"));
    }
}
