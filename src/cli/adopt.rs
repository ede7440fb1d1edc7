//! `mountjail adopt`: a root full of copies becomes a site.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use serde_json::json;

use super::args::Which;
use super::down::DownArgs;
use super::report::{DIFFERENT, Report};
use super::up::UpArgs;
use crate::adopt::DIRECTORY;
use crate::base::text::plural;
use crate::base::{HostPath, JailPath};
use crate::engine::{GoesBack, PutBack};
use crate::patience::Stop;
use crate::render::{self, adoption::Adoption};
use crate::site::adopt::{Adopter, Examined, Examiner, moved_aside, running_inside};
use crate::site::context::{is_set, stop_flag};
use crate::site::{Context, Site, SiteError, parallel};
use crate::{Error, Result};

/// How many processes are named.
const SHOWN: usize = 20;

/// Show what stands in a root where mounts belong; with --write, move copies aside and mount
///
/// Jails are often full of copies of the host's files. Where a mount belongs, adopt tells what
/// stands there: the same as the host's file, a hard link of it, an old copy of it, or something of
/// the site's own. With --write it moves the first three into ROOT/.mountjail-adopted, which is
/// root's alone, and brings the site up, as it does with a site in which nothing is in the way.
/// Nothing of a site is moved as long as anything of its own is in the way that is not named with
/// --also. If the site does not come up, everything is put back.
///
/// Below /usr, /bin, /sbin and /lib*, a file of root's that differs from the host's is an old copy
/// if both are of one form: ELF files, scripts for one interpreter, texts or other data. Otherwise,
/// and elsewhere, such as in /etc, it is the site's own.
///
/// Exit code 3: there are copies to move aside. Exit code 1: something of the site's own is in the
/// way.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
#[command(after_help = "Examples:\n  mountjail adopt site1\n  \
                        mountjail adopt --all --write\n  \
                        mountjail adopt site1 --write --also /etc/hosts\n  \
                        mountjail adopt site1 --undo")]
pub(super) struct AdoptArgs {
    #[command(flatten)]
    which: Which,
    /// Move the copies aside, and bring the sites up
    #[arg(long)]
    write: bool,
    /// Take the sites down, and put back what was moved aside
    #[arg(long, conflicts_with = "write")]
    undo: bool,
    /// Only show what would be done, which is the default without --undo
    #[arg(long, conflicts_with = "write")]
    dry_run: bool,
    /// Move also what is the site's own at PATH, as a process inside sees it, or below
    #[arg(long, value_name = "PATH", value_parser = jail_path(), conflicts_with = "undo")]
    also: Vec<JailPath>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A path inside, of any bytes.
fn jail_path() -> impl TypedValueParser<Value = JailPath> {
    OsStringValueParser::new().try_map(JailPath::new)
}

impl AdoptArgs {
    pub(super) fn run(&self, context: &'static Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let mut report = Report::new(context, self.json);
        if self.undo {
            self.undo(context, &sites, &mut report)?;
        } else if self.write {
            self.write(context, &sites, &mut report)?;
        } else {
            self.show(context, &sites, &mut report)?;
        }
        Ok(report.finish())
    }

    fn show(&self, context: &Context, sites: &[Site], report: &mut Report) -> anyhow::Result<()> {
        let look = Examiner::new(context, self.also.clone())?;
        let found = parallel::look(context, sites, move |site: &Site| look.site(site));
        for (site, found) in sites.iter().zip(found) {
            match found {
                Ok(found) => {
                    let code = self.add(report, context, &found, Adoption::Looked);
                    if code == 0 && found.is_something() {
                        report.code(DIFFERENT);
                    }
                    if found.is_unfinished() {
                        context.out.site(&site.name).info(
                            "an earlier run was killed before the site came up: --write goes on, \
                             --undo puts everything back",
                        );
                    }
                }
                Err(failed) => report.failed(site, &failed, json!({})),
            }
        }
        Ok(())
    }

    /// Adds what was found, and reports what is refused; returns the exit code.
    fn add(
        &self,
        report: &mut Report,
        context: &Context,
        found: &Examined,
        adoption: Adoption,
    ) -> u8 {
        let (survey, record) = (&found.survey, found.record.as_ref());
        if !context.out.is_quiet() {
            report.text(render::adoption::text(survey, record, adoption));
        }
        let mut object = render::adoption::json(survey, record, &self.also);
        match adoption {
            Adoption::Looked => {}
            Adoption::MovedAside => object["adopted"] = json!(true),
            Adoption::Left => object["adopted"] = json!(false),
        }
        for stays in &found.stays {
            context.out.site(&survey.site).warn(stays);
        }
        let mut code = 0;
        if let Some(error) = found.refusal(&self.also) {
            context.out.error(&error);
            let each = found.refusals(&self.also).into_iter();
            let each = each.map(|error| render::json::error(Some(&survey.site), &error));
            object["errors"] = each.collect();
            code = error.exit_code();
        }
        report.site(code, object);
        code
    }

    fn write(
        &self,
        context: &'static Context,
        sites: &[Site],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let stop = stop_flag()?;
        let adopter = Arc::new(Adopter::new(context, sites.len())?);
        let look = Arc::new(Examiner::new(context, self.also.clone())?);
        each(sites, &stop, report, |site, report| {
            let (mover, looks) = (adopter.clone(), look.clone());
            let result = parallel::one(context, site, &stop, move |site, stop| {
                mover.move_aside(&looks, site, stop)
            });
            match result {
                Ok(found) => self.finish(context, site, &found, &adopter, report)?,
                Err(failed) => report.failed(site, &failed, json!({ "adopted": false })),
            }
            Ok(())
        })
    }

    /// Brings the site up, from which things were moved aside, or in which nothing is in the way.
    fn finish(
        &self,
        context: &'static Context,
        site: &Site,
        found: &Examined,
        adopter: &Arc<Adopter>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        if !found.survey.refused(&self.also).is_empty() {
            self.add(report, context, found, Adoption::Left);
            return Ok(());
        }
        if !found.is_something() {
            self.add(report, context, found, Adoption::Left);
            let code = UpArgs::default().run_for(context, std::slice::from_ref(site))?;
            report.code(code);
            return Ok(());
        }
        let root = &found.survey.root;
        let count = plural(found.survey.standing.len(), "thing");
        let out = context.out.site(&site.name);
        out.info(format_args!("{count} moved aside to {root}{DIRECTORY}"));

        let code = UpArgs::to_adopt().run_for(context, std::slice::from_ref(site))?;
        if code == 0 {
            self.settle(context, site, found, adopter, report);
        } else {
            report.code(code);
            self.put_back(context, site, found, adopter, report);
        }
        Ok(())
    }

    /// Leaves aside what was moved there, because the site is up.
    fn settle(
        &self,
        context: &Context,
        site: &Site,
        found: &Examined,
        adopter: &Arc<Adopter>,
        report: &mut Report,
    ) {
        let (mover, root) = (adopter.clone(), found.survey.root.clone());
        let settle = move |site: &Site, stop: &Stop| -> Result<_, SiteError> {
            // A signal that came meanwhile does not stop this.
            Ok(mover.settle(site, &root, &stop.whatever_the_signal())?)
        };
        match parallel::one(context, site, &Arc::default(), settle) {
            Ok(()) => {
                self.add(report, context, found, Adoption::MovedAside);
                report_running(context, site, &found.survey.root);
            }
            Err(failed) => report.failed(site, &failed, json!({ "adopted": true })),
        }
    }

    /// Puts back what was moved aside, because the site did not come up.
    fn put_back(
        &self,
        context: &Context,
        site: &Site,
        found: &Examined,
        adopter: &Arc<Adopter>,
        report: &mut Report,
    ) {
        let root = &found.survey.root;
        let (mover, place) = (adopter.clone(), root.clone());
        let put_back = move |site: &Site, stop: &Stop| -> Result<_, SiteError> {
            // A signal that stopped `up` does not stop this.
            let stop = stop.whatever_the_signal();
            Ok(mover.put_back(site, &place, GoesBack::Unsettled, &stop)?)
        };
        match parallel::one(context, site, &Arc::default(), put_back) {
            Ok(put_back) => {
                self.add(report, context, found, Adoption::Left);
                let error = Error::failed(format!("{}: it could not be brought up", site.name));
                let error = render::json::error(Some(&site.name), &error);
                report.add_to(&site.name, "errors", error);
                if let Some(put_back) = put_back {
                    report.code(report_put_back(context, site, root, &put_back));
                }
            }
            Err(failed) => {
                report.failed(site, &failed, json!({ "adopted": false }));
                let name = &site.name;
                let stays = Error::failed(format!(
                    "{name}: cannot put back what was moved aside to {root}{DIRECTORY}"
                ));
                let undo = format!("`mountjail adopt --undo {name}` puts it back");
                context.out.error(&stays.hint(undo));
            }
        }
    }

    fn undo(
        &self,
        context: &'static Context,
        sites: &[Site],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let stop = stop_flag()?;
        each(sites, &stop, report, |site, report| {
            let known = parallel::one(context, site, &stop, move |site, _| {
                moved_aside(context, site)
            });
            match known {
                Ok(Some((root, record))) if self.dry_run => {
                    let paths: Vec<_> = record.moved.iter().map(|moved| &moved.path).collect();
                    report.text(render::adoption::would_go_back(&site.name, &root, &paths));
                    report.site(
                        DIFFERENT,
                        json!({ "site": site.name, "root": root, "moved": paths }),
                    );
                }
                Ok(Some((root, _))) => undo_one(context, site, &root, &stop, report)?,
                Ok(None) => {
                    context.out.site(&site.name).info("nothing was moved aside");
                    report.site(0, json!({ "site": site.name, "back": [] }));
                }
                Err(failed) => report.failed(site, &failed, json!({})),
            }
            Ok(())
        })
    }
}

/// Does `work` on one site after the other, until a signal stops it.
fn each(
    sites: &[Site],
    stop: &AtomicBool,
    report: &mut Report,
    mut work: impl FnMut(&Site, &mut Report) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (begun, site) in sites.iter().enumerate() {
        if is_set(stop) {
            report.not_begun(sites.len() - begun);
            break;
        }
        work(site, report)?;
    }
    Ok(())
}

/// Takes the site down, and puts back what was moved aside.
fn undo_one(
    context: &'static Context,
    site: &Site,
    root: &HostPath,
    stop: &Arc<AtomicBool>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let code = DownArgs::to_undo().run_for(context, vec![site.clone()])?;
    if code != 0 {
        let error = Error::failed(format!("{}: it could not be taken down", site.name));
        let error = render::json::error(Some(&site.name), &error);
        let object = json!({ "site": site.name, "root": root, "back": [], "errors": [error] });
        report.site(code, object);
        return Ok(());
    }
    let (adopter, place) = (Adopter::new(context, 1)?, root.clone());
    let put_back = move |site: &Site, stop: &Stop| -> Result<_, SiteError> {
        Ok(adopter.put_back(site, &place, GoesBack::All, stop)?)
    };
    match parallel::one(context, site, stop, put_back) {
        Ok(put_back) => {
            let put_back = put_back.unwrap_or_default();
            let code = report_put_back(context, site, root, &put_back);
            let mut left = vec![];
            for (path, why) in &put_back.left {
                left.push(json!({ "path": path, "why": why }));
            }
            let object = json!({
                "site": site.name, "root": root, "back": put_back.back, "left": left,
            });
            report.site(code, object);
            report_running(context, site, root);
        }
        Err(failed) => report.failed(site, &failed, json!({ "root": root })),
    }
    Ok(())
}

/// Reports what was put back, and what was not; returns the exit code.
fn report_put_back(context: &Context, site: &Site, root: &HostPath, put_back: &PutBack) -> u8 {
    let name = &site.name;
    for (path, why) in &put_back.left {
        let place = root.inside(path);
        let error = Error::failed(format!("{name}: cannot put {place} back"));
        context.out.error(&error.because_of(why).hint(format!(
            "if what is at {place} is not needed, move it away, and run `mountjail adopt --undo \
             {name}` again"
        )));
    }
    let count = plural(put_back.back.len(), "thing");
    context
        .out
        .site(&site.name)
        .info(format_args!("{count} put back"));
    u8::from(!put_back.left.is_empty())
}

/// Names the processes that keep files which are not there any more.
fn report_running(context: &Context, site: &Site, root: &HostPath) {
    let running = running_inside(root);
    let out = context.out.site(&site.name);
    for process in running.iter().take(SHOWN) {
        out.warn(format_args!(
            "{process} runs inside, and keeps the files that it has open; {}",
            process.restart()
        ));
    }
    if running.len() > SHOWN {
        let more = plural(running.len() - SHOWN, "more process");
        out.warn(format_args!("and {more} inside"));
    }
}
