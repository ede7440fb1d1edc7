//! `mountjail fstab --check`: the file against what `--install` would write.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Fstab, FstabRun, NoLines, SiteLines, block, no_manifest};
use crate::base::SiteName;
use crate::base::text::plural;
use crate::cli::DIFFERENT;
use crate::observe::{self, BootId};
use crate::patience::Stop;
use crate::site::context::Context;
use crate::site::out::worst;
use crate::site::pipeline::observe_and_plan;
use crate::site::{Site, SiteError, parallel};
use crate::{Error, Result};

/// The lines that one site has in the file, and should have.
struct Comparison {
    site: SiteName,
    /// The file has lines for the site.
    found: bool,
    same: bool,
    lines: usize,
    /// What only the one side has; blanks do not count.
    missing: Vec<Vec<u8>>,
    unexpected: Vec<Vec<u8>>,
    /// Placeholders, links and files that the lines would not find.
    absent: usize,
}

impl Fstab {
    pub(super) fn check(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let text = fs::read(&self.file).map_err(|error| {
            Error::failed(format!("cannot read {}", self.file.display())).because(&error)
        })?;
        let block = Arc::new(block(&self.file, &text)?);
        let (run, boot) = (FstabRun::new(context, &sites)?, observe::boot_id()?);
        let found = block.clone();
        let check = move |site: &Site, _: &Stop| {
            let rendered = run.rendered(site)?;
            Ok(compare(&run, &rendered, found.get(&site.name), &boot)?)
        };
        let threads = parallel::processors();
        let checked = parallel::each(context, &sites, threads, &Arc::default(), check);
        let (mut codes, mut results, mut text) = (vec![], vec![], vec![]);
        for (site, checked) in sites.iter().zip(checked) {
            match checked {
                Ok(compared) => {
                    codes.push(if compared.in_sync() { 0 } else { DIFFERENT });
                    text.extend(compared.text(&self.file));
                    results.push(compared.json());
                }
                Err(why) => {
                    let refused = matches!(why, NoLines::Refused(_));
                    let failed = SiteError::from(why);
                    let (code, errors) = failed.report(context.out, site);
                    self.report_installed(context, site, &block, failed.is_silent());
                    codes.push(if refused { DIFFERENT } else { code });
                    results.push(json!({ "site": site.name, "errors": errors }));
                }
            }
        }
        let no_site = |name: &&SiteName| sites.iter().all(|site| site.name != **name);
        for name in block.sites().filter(|_| self.which.all).filter(no_site) {
            text.extend(format!("{}\n", no_manifest(context, name)).bytes());
            results.push(
                json!({ "site": name, "in_sync": false, "errors": [no_manifest(context, name)] }),
            );
            codes.push(DIFFERENT);
        }
        Ok(self.finish(context, &results, &text, worst(codes)))
    }
}

fn compare(
    run: &FstabRun,
    rendered: &SiteLines,
    found: Option<&[u8]>,
    boot: &BootId,
) -> Result<Comparison, SiteError> {
    let (has, wants) = (words(found.unwrap_or_default()), words(&rendered.section));
    let only = |these: &[Vec<u8>], those: &[Vec<u8>]| -> Vec<Vec<u8>> {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .cloned()
            .collect()
    };
    let (observed, plan) =
        observe_and_plan(&run.context, &rendered.desired, boot, Some(&run.table))?;
    Ok(Comparison {
        site: rendered.desired.site.clone(),
        found: found.is_some(),
        same: found == Some(rendered.section.as_slice()),
        lines: rendered.lines.len(),
        missing: only(&wants, &has),
        unexpected: only(&has, &wants),
        absent: rendered.layout(plan, &observed).steps.len(),
    })
}

/// The lines that are not empty, with single blanks.
fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let line = |line: &[u8]| -> Vec<u8> {
        let words: Vec<_> = line
            .split(|byte| b" \t".contains(byte))
            .filter(|word| !word.is_empty())
            .collect();
        words.join(&b' ')
    };
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(line)
        .collect()
}

impl Comparison {
    fn in_sync(&self) -> bool {
        self.same && self.absent == 0
    }

    /// A sentence, and the lines that differ.
    fn text(&self, file: &Path) -> Vec<u8> {
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
        let mut text = format!("{}: {what}\n", self.site).into_bytes();
        for (sign, lines) in [(b"  - ", &self.unexpected), (b"  + ", &self.missing)] {
            for line in lines.iter().filter(|_| self.found) {
                text.extend([sign, line.as_slice(), b"\n"].concat());
            }
        }
        text
    }

    fn json(&self) -> Value {
        let shown = |lines: &[Vec<u8>]| -> Vec<_> {
            lines
                .iter()
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect()
        };
        json!({
            "site": self.site, "in_sync": self.in_sync(), "missing": shown(&self.missing),
            "unexpected": shown(&self.unexpected), "missing_placeholders": self.absent,
        })
    }
}
