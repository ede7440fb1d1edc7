//! `mountjail doctor`: does a site work inside? Without a site: what this machine offers.

mod machine;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anstyle::Style;
use clap::Args;
use serde_json::{Value, json};

use machine::{MachineReport, UnservedPool};

use super::complete;
use super::jail_command;
use super::report::{DIFFERENT, Report};
use super::run_as;
use crate::base::text::plural;
use crate::base::{ErrorContext, HostPath, SiteName, style};
use crate::doctor::{self, CheckVerdict, ExamOptions, ExaminedSite, Finding, Machine};
use crate::import::fpm::{self, PoolUser};
use crate::jail::{self, JailUser};
use crate::manifest::Manifest;
use crate::observe::{self, BootRecord};
use crate::patience::Stop;
use crate::plan::SiteState;
use crate::render::text::{line, row};
use crate::resolve::ProgramLines;
use crate::site::context::{Context, is_set, stop_flag};
use crate::site::pipeline::{MountLookup, Pipeline, Planned};
use crate::site::wrappers::Complaints;
use crate::site::{
    Site, SiteError, configuration, cost, fstab, gated_start, manifest_file, parallel, select,
};
use crate::{Error, Result};

/// Test whether a site works inside; exit code 3 if a check failed
///
/// All checks are made in the site's root, as the user of its PHP-FPM pool, by a process that
/// enters the root as a worker of PHP-FPM does: name servers, certificates, users, time zones,
/// character sets, locales, devices, mail, sockets, libraries, and PHP's own settings. The host's
/// PHP loads the pool's extensions, enters the root, and tries there those that open files late.
/// For other daemons the units under `services` are examined. Each failed check is shown with the
/// line that the manifest lacks, or with another remedy. Nothing is changed and no mail is sent.
/// Without a site it shows what this kernel offers, how much room there is for mounts, and the
/// configuration.
///
/// Without --user the checks run as the user of the PHP-FPM pool with this chroot, else as that of
/// a unit under `services`, else as the first of the manifest's `users`, else as nobody. Modules of
/// the C library inside run as that user.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  mountjail doctor site1\n  \
                  mountjail doctor --host db.example.org --tls example.org:443 site1\n  \
                  mountjail doctor")]
pub(super) struct DoctorArgs {
    /// A name that must resolve inside, besides localhost
    #[arg(long, value_name = "NAME", requires = "site")]
    host: Option<String>,
    /// A TLS server that must be trusted inside
    #[arg(long, value_name = "HOST:PORT", requires = "site", value_parser = host_and_port)]
    tls: Option<(String, u16)>,
    /// Check as this user of the host, by name or id [default: the pool's user]
    #[arg(short, long, value_name = "USER", requires = "site", add = complete::user())]
    user: Option<String>,
    /// PHP-FPM's configuration, a file or directory [default: all of this host]
    #[arg(long, value_name = "FILE")]
    fpm: Vec<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// The site's name, or the path of its manifest
    #[arg(value_name = "SITE", add = complete::site())]
    site: Option<String>,
}

/// How long the checks may take at most: a name server may not answer.
const LONGEST_LOOK: Duration = Duration::from_secs(600);

/// `example.org:443`, `[2001:db8::1]:443`
fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("there is no port; for https it is 443")?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port = port
        .parse()
        .map_err(|_| format!("`{port}` is not a port"))?;
    if host.is_empty() {
        Err("there is no host".to_owned())
    } else {
        Ok((host.to_owned(), port))
    }
}

impl DoctorArgs {
    pub(super) fn site_inside(&self) -> Option<&str> {
        self.site.as_deref()
    }

    pub(super) fn run(&self, context: &'static Context) -> anyhow::Result<u8> {
        let Some(site) = &self.site else {
            return Ok(self.machine(context)?);
        };
        let site = select::site_set_up(context, site)?;
        jail_command::prepare()?;
        let complaints = if context.state.is_of_namespace() {
            Complaints::find(context).of(&site.name)
        } else {
            Ok(vec![])
        };
        for complaint in complaints.iter().flatten() {
            context.out.site(&site.name).warn(complaint);
        }
        let (doctor, stop) = (self.clone(), stop_flag()?);
        let signal = stop.clone();
        let examine = move |site: &Site, _: &Stop| doctor.site(context, site, &signal);
        let mut report = Report::new(context, self.json);
        match parallel::one(context, &site, &stop, examine) {
            Ok(result) => {
                report.styled(result.text);
                report.site(result.code, result.object);
            }
            Err(failed) => report.failed(&site, &failed, json!({})),
        }
        if let Err(error) = complaints {
            report.also_failed(&site, &error.into());
        }
        Ok(report.finish())
    }

    /// Examines the site.
    fn site(
        &self,
        context: &Context,
        site: &Site,
        stop: &Arc<AtomicBool>,
    ) -> Result<SiteResult, SiteError> {
        let pipeline = Pipeline::new(context.clone(), MountLookup::WholeTable)?;
        let Planned {
            manifest,
            mut desired,
            observed,
            plan,
        } = pipeline.plan(site)?;
        let table = pipeline.table.unwrap_or_default();
        desired.warnings.extend(observe::left_out(&desired, &table));
        let lines_in = observed.kept.as_ref().and_then(|kept| kept.fstab.as_ref());
        let outdated = lines_in.and_then(|file| fstab::outdated(context, site, file));
        desired.warnings.extend(outdated);
        context.out.warnings(&desired);
        if plan.site_state() == SiteState::Down {
            let down = Error::failed(format!(
                "{}: the site is not up, so nothing inside can be tried",
                site.name
            ));
            return Err(down.hint(format!("mountjail up {}", site.name)).into());
        }
        let pools = fpm::pool_users(&self.masters(), &desired.root).map_err(|error| {
            run_as::unreadable(error, "the right one with --fpm").context(&site.name)
        })?;
        for error in &pools.left_out {
            let out = context.out.site(&site.name);
            out.warn(format_args!("left out: {error}"));
        }
        let user = self.user(&pools.found, &manifest).context(&site.name)?;
        let examined = ExaminedSite {
            manifest: &manifest,
            desired: &desired,
            plan: &plan,
            pool_users: &pools.found,
            table: &table,
            user,
            since: observed.record.as_ref().and_then(BootRecord::since),
            program_lines: ProgramLines::new(&context.host, &pipeline.resolver, &context.presets),
        };
        Ok(self.examine(context, &examined, stop)?)
    }

    fn examine(
        &self,
        context: &Context,
        examined: &ExaminedSite<'_>,
        stop: &Arc<AtomicBool>,
    ) -> Result<SiteResult> {
        let limit = context.limit.unwrap_or(LONGEST_LOOK).min(LONGEST_LOOK);
        let options = ExamOptions {
            limit,
            name: self.host.clone(),
            tls: self.tls.clone(),
            stop: stop.clone(),
        };
        let findings = doctor::examine(examined, &options, &context.host);
        let (site, root) = (&examined.desired.site, &examined.desired.root);
        if is_set(&options.stop) {
            return Err(Error::interrupted(format!("{site}: stopped by a signal")));
        }
        let failed = count(&findings, CheckVerdict::Failed) > 0;
        let user = &examined.user.name;
        let object = json!({
            "site": site,
            "root": root,
            "user": user,
            "ok": !failed,
            "checks": findings.iter().map(as_json).collect::<Vec<_>>(),
        });
        let code = if failed { DIFFERENT } else { 0 };
        Ok(SiteResult {
            code,
            text: text(site, root, user, &findings),
            object,
        })
    }

    /// The user that the checks run as.
    fn user(&self, pools: &[PoolUser], manifest: &Manifest) -> Result<JailUser> {
        match &self.user {
            Some(name) => jail::user(name),
            None => run_as::choose(pools, manifest),
        }
    }

    fn masters(&self) -> Vec<PathBuf> {
        if self.fpm.is_empty() {
            fpm::configurations()
        } else {
            self.fpm.clone()
        }
    }

    /// Reports on the machine; returns the exit code.
    fn machine(&self, context: &Context) -> Result<u8> {
        let report = MachineReport {
            machine: Machine::look(std::env::var("MOUNTJAIL_ENGINE").ok().as_deref())?,
            config: &context.config,
            sites: select::all(context),
            unserved: self.without_site(context),
            cost: cost::of_mounts(context, cost::mounts_of_sites(context)),
            waiting: gated_start::left_over(),
        };

        let code = match &report.machine.engine {
            Err(error) => {
                context.out.error(error);
                error.exit_code()
            }
            Ok(_) if report.machine.is_full() || !report.waiting.is_empty() => DIFFERENT,
            Ok(_) => 0,
        };
        let text = if self.json {
            report.json()
        } else {
            report.text()
        };
        Ok(context.out.print_and(text, code))
    }

    /// The pools whose chroot is not the root of a site, each once: several versions of PHP may
    /// have it. Configurations that cannot be read are reported.
    fn without_site(&self, context: &Context) -> Vec<UnservedPool> {
        let sites = configuration::list(&context.config)
            .unwrap_or_default()
            .sites;
        let roots: Vec<_> = sites.iter().filter_map(manifest_file::root_of).collect();
        let mut found = vec![];
        for master in self.masters() {
            match fpm::pools(&master) {
                Ok(pools) => {
                    for pool in pools {
                        if let Some(pool) = unserved(context, pool, &roots)
                            && !found.contains(&pool)
                        {
                            found.push(pool);
                        }
                    }
                }
                Err(error) => context.out.warn(&error),
            }
        }
        found
    }
}

/// The pool, if it has a chroot that is none of `roots`.
fn unserved(context: &Context, pool: fpm::Pool, roots: &[HostPath]) -> Option<UnservedPool> {
    let root = HostPath::new(pool.chroot()?).ok()?;
    for known in roots {
        if pool.lives_in(&context.host, known) {
            return None;
        }
    }
    Some(UnservedPool {
        pool: pool.name,
        root,
    })
}

/// The report on a site.
struct SiteResult {
    code: u8,
    text: String,
    /// For JSON.
    object: Value,
}

/// `{check, verdict, detail, remedy: […]}`
fn as_json(finding: &Finding) -> Value {
    let remedy: Vec<_> = finding.remedies.iter().map(ToString::to_string).collect();
    json!({
        "check": finding.check,
        "verdict": finding.verdict,
        "detail": finding.detail,
        "remedy": remedy,
    })
}

fn style_of(verdict: CheckVerdict) -> Style {
    match verdict {
        CheckVerdict::Ok => style::RIGHT,
        CheckVerdict::Failed => style::WRONG,
        CheckVerdict::CouldNotCheck => style::WARNING,
        CheckVerdict::NotNeeded => Style::new(),
    }
}

fn count(findings: &[Finding], verdict: CheckVerdict) -> usize {
    findings
        .iter()
        .filter(|finding| finding.verdict == verdict)
        .count()
}

/// `30 checks ok, 2 not possible`
fn summary(findings: &[Finding]) -> String {
    let needed = findings.len() - count(findings, CheckVerdict::NotNeeded);
    let mut summary = match count(findings, CheckVerdict::Failed) {
        0 => format!("{} ok", plural(count(findings, CheckVerdict::Ok), "check")),
        failed => format!("{failed} of {} failed", plural(needed, "check")),
    };
    let not_possible = count(findings, CheckVerdict::CouldNotCheck);
    if not_possible > 0 {
        let _ = write!(summary, ", {not_possible} not possible");
    }
    summary
}

fn text(site: &SiteName, root: &HostPath, user: &str, findings: &[Finding]) -> String {
    let mut text = String::new();
    let summary = summary(findings);
    line(
        &mut text,
        format_args!("{site}: {summary}, in {root} as {user}"),
    );
    for Finding {
        check,
        verdict,
        detail,
        remedies,
    } in findings
    {
        let (word, style) = (verdict.to_string(), style_of(*verdict));
        let rest = format_args!("{check:<11} {detail}");
        row(&mut text, (&word, style), 15, rest);
        for remedy in remedies {
            let what = match remedy {
                doctor::Remedy::Manifest { .. } | doctor::Remedy::ManifestLine(_) => "manifest:",
                doctor::Remedy::Do(_) => "try:",
            };
            line(&mut text, format_args!("  {:<15} {what:<11} {remedy}", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        assert_eq!(
            host_and_port("example.org:443"),
            Ok(("example.org".into(), 443))
        );
        assert_eq!(host_and_port("[::1]:8443"), Ok(("::1".into(), 8443)));
        for bad in ["example.org", ":443", "example.org:", "example.org:70000"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
