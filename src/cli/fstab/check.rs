//! `mountjail fstab --check`: the file against what `--install` would write.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{FstabArgs, no_lines};
use crate::base::text::plural;
use crate::base::{SiteName, style};
use crate::cli::report::{DIFFERENT, Report};
use crate::render;
use crate::render::text::{line, row};
use crate::site::context::Context;
use crate::site::fstab::{FstabRun, NoLines, SiteLines, block};
use crate::site::{Site, SiteError, parallel};
use crate::{Error, Result};

/// The lines that one site has in the file, and should have.
struct Comparison {
    site: SiteName,
    /// The file has lines for the site.
    found: bool,
    same: bool,
    lines: usize,
    /// Lines that are only wanted, and lines that are only in the file; blanks do not count.
    missing: Vec<Vec<u8>>,
    unexpected: Vec<Vec<u8>>,
    /// How many placeholders, links and files the lines would not find.
    absent: usize,
}

impl FstabArgs {
    pub(super) fn check(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let text = fs::read(&self.file).map_err(|error| {
            Error::failed(format!("cannot read {}", self.file.display()))
                .because(&error)
                .hint("name the file that has the lines with --file")
        })?;
        let block = Arc::new(block(&self.file, &text)?);
        let (run, found) = (Arc::new(FstabRun::new(context, &sites)?), block.clone());
        let sites = self.of_the_host(context, sites, &run);
        let checking = run.clone();
        let check = move |site: &Site| {
            let lines = checking.lines(site)?;
            compare(&checking, &lines, found.get(&site.name)).map_err(NoLines::from)
        };
        let checked = parallel::look(context, &sites, check);

        let mut report = Report::new(context, self.json);
        for (site, checked) in sites.iter().zip(checked) {
            if let Some(failed) = self.add_checked(&mut report, site, checked) {
                self.report_installed(context, site, &block, &failed);
            }
        }
        if self.which.all {
            for name in block.sites() {
                if sites.iter().all(|site| site.name != *name) {
                    add_unwanted(&mut report, name, no_lines(context, &run, name));
                }
            }
        }
        Ok(report.finish())
    }
}

impl FstabArgs {
    /// Adds a site; returns why it should have no lines, if that is so.
    fn add_checked(
        &self,
        report: &mut Report,
        site: &Site,
        checked: Result<Comparison, NoLines>,
    ) -> Option<SiteError> {
        match checked {
            Ok(compared) => {
                report.styled(compared.text(&self.file));
                let code = if compared.in_sync() { 0 } else { DIFFERENT };
                report.site(code, compared.json());
                None
            }
            Err(NoLines::Failed(failed)) => {
                report.failed(site, &failed, json!({}));
                Some(failed)
            }
            Err(NoLines::Refused(errors)) => {
                let refused = SiteError::Errors(errors);
                report.refused(site, &refused, json!({}));
                Some(refused)
            }
        }
    }
}

/// Adds a site that has lines in the file and should not.
fn add_unwanted(report: &mut Report, name: &SiteName, error: String) {
    report.text(format!("{error}\n"));
    let error = render::json::error(Some(name), &Error::failed(error));
    let object = json!({ "site": name, "in_sync": false, "errors": [error] });
    report.site(DIFFERENT, object);
}

fn compare(run: &FstabRun, wanted: &SiteLines, found: Option<&[u8]>) -> Result<Comparison> {
    let has = words(found.unwrap_or_default());
    let wants = words(&wanted.section);
    Ok(Comparison {
        site: wanted.desired.site.clone(),
        found: found.is_some(),
        same: found == Some(wanted.section.as_slice()),
        lines: wanted.lines.len(),
        missing: only(&wants, &has),
        unexpected: only(&has, &wants),
        absent: run.placeholders(wanted)?.steps.len(),
    })
}

/// Those of the lines that are not among the `others`.
fn only(lines: &[Vec<u8>], others: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut only = lines.to_vec();
    only.retain(|line| !others.contains(line));
    only
}

/// The lines that are not empty, with single blanks.
fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = vec![];
    for line in text.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        let mut words: Vec<_> = line.split(|byte| b" \t".contains(byte)).collect();
        words.retain(|word| !word.is_empty());
        lines.push(words.join(&b' '));
    }
    lines
}

impl Comparison {
    fn in_sync(&self) -> bool {
        self.same && self.absent == 0
    }

    /// A sentence, and the lines that differ.
    fn text(&self, file: &Path) -> String {
        let file = file.display();
        let what = if self.in_sync() {
            format!("in sync, {} in {file}", plural(self.lines, "line"))
        } else if !self.found {
            format!("not in {file}")
        } else if !self.missing.is_empty() || !self.unexpected.is_empty() {
            format!("differs in {file}")
        } else if self.absent > 0 {
            format!("{} to mount on missing", plural(self.absent, "placeholder"))
        } else {
            format!("the lines in {file} are in another order or form")
        };
        let mut text = String::new();
        line(&mut text, format_args!("{}: {what}", self.site));
        if !self.found {
            return text;
        }
        let unexpected = (("-", style::WRONG), &self.unexpected);
        let missing = (("+", style::RIGHT), &self.missing);
        for (sign, lines) in [unexpected, missing] {
            for only in lines {
                let only = String::from_utf8_lossy(only);
                row(&mut text, sign, 0, format_args!("{only}"));
            }
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "site": self.site,
            "in_sync": self.in_sync(),
            "missing": render::json::fstab_text(&self.missing),
            "unexpected": render::json::fstab_text(&self.unexpected),
            "missing_placeholders": self.absent,
        })
    }
}
