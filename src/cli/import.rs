//! `mountjail import`: manifests from existing configuration.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::report::report_all;
use crate::base::SiteName;
use crate::engine::create_file;
use crate::import::{self, Draft, DraftKind, Importer};
use crate::manifest::{self, Manifest, Presets, SourceFile};
use crate::resolve::{Overlap, Roots};
use crate::site::context::Context;
use crate::site::out::worst;
use crate::site::{Site, configuration, load};
use crate::{Error, Result, render};

/// Write manifests from PHP-FPM's pools, bind mounts in fstab, jailkit's sections, daemons' roots
///
/// A FILE is a php-fpm.conf (with the files that it includes), a single pool's file, a directory
/// such as /etc/php/8.2/fpm, a file in the format of fstab(5), a file with jailkit's sections,
/// `sshd_config`, Postfix's master.cf, a unit with `RootDirectory=`, or the configuration of named
/// (/etc/default/named), unbound, nsd, haproxy, squid, rsyncd, vsftpd or uwsgi. The format is
/// detected from the contents. Without a FILE, PHP-FPM's configurations are found by its running
/// processes, by its units, and at the places that distributions use.
///
/// Pools with the same chroot and bind mounts into it become one site, and jailkit's sections
/// become presets. They are printed. --write writes new files and never overwrites one, so it can
/// be run again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mountjail import --write && mountjail up --all\n  \
                  mountjail import /etc/fstab\n  \
                  mountjail import --write /etc/jailkit/jk_init.ini && mountjail presets"
)]
pub(super) struct ImportArgs {
    /// Write the manifests to the configuration's sites/ and presets/
    #[arg(long)]
    write: bool,
    /// Print as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Where PHP-FPM's relative paths start [default: as its units and processes tell]
    #[arg(short, long, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// Where the sites' mounts exist: on the host, or for their services alone
    #[arg(long, value_name = "SCOPE", default_value = "host")]
    scope: NewScope,
    /// Configuration files, or directories of PHP-FPM [default: PHP-FPM's configurations]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The scope of new sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NewScope {
    Host,
    Services,
}

impl ImportArgs {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let mut found = Importer::new(self.prefix.clone());
        let files = match self.files.as_slice() {
            [] => found.masters().map(Path::to_owned).collect(),
            files => files.to_owned(),
        };
        let mut wrong = vec![];
        for file in &files {
            if let Err(errors) = found.read(file) {
                wrong.extend(errors);
            }
        }
        let imported = found.drafts(&context.presets);
        wrong.extend(imported.errors);
        let (code, errors) = report_all(context, &wrong);
        for note in &imported.notes {
            context.out.info(note);
        }
        for warning in &imported.warnings {
            context.out.warn(warning);
        }
        if imported.drafts.is_empty() {
            if code != 0 {
                return Ok(context.out.failure_of(code, &errors));
            }
            return Err(nothing_found().into());
        }
        let mut drafts = imported.drafts;
        if self.scope == NewScope::Services {
            for_services(context, &mut drafts);
        }
        Ok(worst([code, self.each(context, &drafts, &errors)?]))
    }

    /// Prints or writes all drafts; a failure of one does not stop the others. `errors`: what could
    /// not be imported.
    fn each(&self, context: &Context, drafts: &[Draft], errors: &[Value]) -> anyhow::Result<u8> {
        warn_of_overlaps(context, drafts);
        let presets = with_new(context, drafts)?;
        let (mut codes, mut results, mut text) = (vec![0], vec![], String::new());
        for draft in drafts {
            let file = file_of(context, draft);
            match self.one(context, draft, &file, &presets) {
                Ok(yaml) => {
                    let _ = writeln!(text, "# {}\n{yaml}", file.display());
                    results.push((draft, json!({ "file": file, "manifest": yaml })));
                }
                Err(error) => {
                    let (code, errors) = report_all(context, std::slice::from_ref(&error));
                    codes.push(code);
                    results.push((draft, json!({ "errors": errors })));
                }
            }
        }
        if self.json {
            let mut object = as_json(results);
            if !errors.is_empty() {
                object["errors"] = json!(errors);
            }
            text = render::json::document(object);
        } else if self.write {
            text.clear();
        }
        Ok(context.out.print_and(text, worst(codes)))
    }

    /// The text of one draft, which is a valid manifest. It is written if that was asked for and no
    /// file exists yet.
    fn one(
        &self,
        context: &Context,
        draft: &Draft,
        file: &Path,
        presets: &Presets,
    ) -> Result<String> {
        let yaml = draft.to_yaml();
        let wanted = check(draft, &yaml, presets)?;
        for overlap in overlaps(context, draft) {
            if !overlap.is_same() {
                context.out.warn(format_args!("{}: {overlap}", draft.place));
            }
        }
        if let Some(there) = existing(context, draft, file) {
            let compared = match &wanted {
                Some(wanted) => compare(context, draft, wanted, &there),
                None => Ok(()), // presets are not compared
            };
            match compared {
                Err(error) if !self.write => context.out.warn(&error),
                compared => compared?,
            }
            let name = if there.file == file {
                draft.name.clone()
            } else {
                format!("{}: {}", draft.name, there.file.display())
            };
            context
                .out
                .info(format_args!("{name}: exists already, left as it is"));
        } else if self.write {
            write_new(context, draft, file, &yaml)?;
        }
        Ok(yaml)
    }
}

/// Writes the draft, which has no file yet, and reports what to know about it.
fn write_new(context: &Context, draft: &Draft, file: &Path, yaml: &str) -> Result<()> {
    write(draft, file, yaml)?;
    let (out, name) = (context.out, &draft.name);
    out.info(format_args!("{name}: wrote {}", file.display()));
    for remark in &draft.remarks {
        if Some(remark) != draft.renamed.as_ref() {
            out.warn(format_args!("{name}: {remark}"));
        }
    }
    Ok(())
}

/// Whether the manifest of `site`, which exists, has what the draft asks for, whose manifest is
/// `wanted`.
fn compare(context: &Context, draft: &Draft, wanted: &Manifest, site: &Site) -> Result<()> {
    let file = &site.file;
    let there = load::manifest(context, site).map_err(|error| {
        Error::failed(format!(
            "{}: {}: it exists already, and is not a manifest",
            draft.place,
            file.display()
        ))
        .because_of(error)
    })?;
    let (warning, result) = import::compare(draft, wanted, &there, file);
    if let Some(warning) = warning {
        context.out.warn(warning);
    }
    result
}

/// The site that exists for the draft already, perhaps as another site of its root.
fn existing(context: &Context, draft: &Draft, file: &Path) -> Option<Site> {
    let name = SiteName::new(&draft.name).ok()?;
    for overlap in overlaps(context, draft) {
        if overlap.is_same() {
            let site = configuration::site_named(&context.config, overlap.site);
            if site.file.exists() {
                return Some(site);
            }
        }
    }
    if !file.exists() {
        return None;
    }
    let file = file.to_owned();
    Some(Site { name, file })
}

/// The sites whose root is that of `draft`, or is inside or around it.
fn overlaps(context: &Context, draft: &Draft) -> Vec<Overlap> {
    match (SiteName::new(&draft.name), draft.root()) {
        (Ok(name), Some(root)) => context.roots().overlaps(&name, root),
        _ => vec![],
    }
}

/// Has the mounts of the sites exist for their services alone, if these are known.
fn for_services(context: &Context, drafts: &mut [Draft]) {
    for draft in drafts {
        if draft.root().is_none() {
            continue;
        }
        draft.for_services = !draft.services.is_empty();
        if !draft.for_services {
            context.out.warn(format_args!(
                "{}: its service is not known, so its mounts are for the host: write \
                 `services` and `scope: services` in its manifest",
                draft.name
            ));
        }
    }
}

/// Warns of drafts whose roots are the same directory, or one inside the other: such sites cannot
/// both be up.
fn warn_of_overlaps(context: &Context, drafts: &[Draft]) {
    let mut roots = Roots::default();
    let mut named = vec![];
    for draft in drafts {
        if let (Ok(name), Some(root)) = (SiteName::new(&draft.name), draft.root()) {
            roots.add(name.clone(), root.clone());
            named.push((draft, name, root));
        }
    }
    // Each pair once: of a draft with those before it.
    let mut before = HashSet::new();
    for (draft, name, root) in &named {
        for overlap in roots.overlaps(name, root) {
            if before.contains(&overlap.site) {
                context.out.warn(format_args!("{}: {overlap}", draft.place));
            }
        }
        before.insert(name);
    }
}

fn nothing_found() -> Error {
    let nothing = Error::failed(
        "no pool with a chroot, no bind line into a jail, no section and no other root was found",
    );
    nothing.hint(
        "name a directory such as /etc/php/8.2/fpm, /etc/fstab, /etc/jailkit/jk_init.ini, or a \
         daemon's file",
    )
}

/// `{sites: […], presets: […]}`
fn as_json(results: Vec<(&Draft, Value)>) -> Value {
    let (mut sites, mut presets) = (vec![], vec![]);
    for (draft, mut json) in results {
        let (key, list) = match draft.kind {
            DraftKind::Site(_) => ("site", &mut sites),
            DraftKind::Preset(_) => ("preset", &mut presets),
        };
        json[key] = json!(draft.name);
        list.push(json);
    }
    json!({ "sites": sites, "presets": presets })
}

fn file_of(context: &Context, draft: &Draft) -> PathBuf {
    let directory = match draft.kind {
        DraftKind::Site(_) => "sites",
        DraftKind::Preset(_) => "presets",
    };
    context
        .config
        .join(directory)
        .join(format!("{}.yaml", draft.name))
}

/// The existing presets and the new ones.
fn with_new(context: &Context, drafts: &[Draft]) -> Result<Presets> {
    let mut presets = configuration::presets(&context.config, &context.trust)?;
    for draft in drafts {
        let file = file_of(context, draft);
        if matches!(draft.kind, DraftKind::Preset(_)) && !file.exists() {
            presets.add(&draft.name, SourceFile::File(file), draft.to_yaml());
        }
    }
    Ok(presets)
}

/// The manifest that is the text of a site's draft; `None`: it is a preset's.
///
/// Errors: it has mistakes.
fn check(draft: &Draft, yaml: &str, presets: &Presets) -> Result<Option<Manifest>> {
    let name = SiteName::new(&draft.name).map_err(|why| {
        Error::failed(format!(
            "{}: {:?} cannot be a site's name",
            draft.place, draft.name
        ))
        .because_of(why)
    })?;
    let checked = match draft.kind {
        DraftKind::Site(_) => {
            manifest::parse(name, SourceFile::File("import".into()), yaml, presets).map(Some)
        }
        DraftKind::Preset(_) => {
            let entries = presets.entries(&draft.name).transpose();
            entries.map(|_| None)
        }
    };
    checked.map_err(|wrong| {
        let failed = Error::failed(format!(
            "{}: a manifest cannot express {}",
            draft.place, draft.name
        ));
        failed.because_of(wrong.brief())
    })
}

fn write(draft: &Draft, file: &Path, yaml: &str) -> Result<()> {
    create_file(file, yaml.as_bytes()).map_err(|error| {
        let failed = Error::failed(format!("{}: cannot write {}", draft.place, file.display()))
            .because(&error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                failed.hint("import overwrites nothing: compare it by hand")
            }
            _ => failed,
        }
    })
}
