//! `mountjail fstab --check`: the file against what `--install` would write.

use std::fs;

use serde_json::json;

use super::{Fstab, Rendered, Run, block, no_manifest};
use crate::cli::DIFFERENT;
use crate::cli::context::Context;
use crate::cli::out::worst;
use crate::cli::sites;
use crate::cli::work::{observe_and_plan, plural};
use crate::observe::{self, BootId};
use crate::{Error, Result};

impl Fstab {
    pub(super) fn check(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        let sites = sites::which(context, &self.which)?;
        let file = self.file.display();
        let text = fs::read(&self.file)
            .map_err(|error| Error::failed(format!("cannot read {file}")).because(&error))?;
        let block = block(&self.file, &text)?;
        let (run, boot) = (Run::new(context)?, observe::boot_id()?);
        let (mut codes, mut results, mut text) = (vec![], vec![], vec![]);
        for site in &sites {
            let rendered = match run.rendered(site) {
                Ok(rendered) => rendered,
                Err(failed) => {
                    let (code, errors) = failed.report(context, site);
                    codes.push(code);
                    results.push(json!({ "site": site.name, "errors": errors }));
                    continue;
                }
            };
            let found = block.get(&site.name);
            let (missing, unexpected) = differences(found.unwrap_or_default(), &rendered);
            let absent = absent(&run, &rendered, &boot)?;
            let in_sync = found == Some(rendered.section.as_slice()) && absent == 0;
            codes.push(if in_sync { 0 } else { DIFFERENT });
            let what = match (found.is_some(), in_sync, missing.len() + unexpected.len()) {
                (_, true, _) => format!("in sync, {} in {file}", plural(rendered.lines.len(), "line")),
                (false, ..) => format!("not in {file}"),
                (_, _, 0) if absent > 0 => {
                    format!("{} to mount on are missing", plural(absent, "placeholder"))
                }
                (_, _, 0) => format!("the lines in {file} are in another order or form"),
                _ => format!("differs in {file}"),
            };
            text.extend(format!("{}: {what}\n", site.name).bytes());
            for (sign, lines) in [(b"  - ", &unexpected), (b"  + ", &missing)] {
                for line in lines.iter().filter(|_| found.is_some()) {
                    text.extend([sign, line.as_slice(), b"\n"].concat());
                }
            }
            let shown = |lines: Vec<Vec<u8>>| -> Vec<_> {
                lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
            };
            results.push(json!({
                "site": site.name, "in_sync": in_sync, "missing": shown(missing), "unexpected": shown(unexpected),
                "missing_placeholders": absent,
            }));
        }
        for name in
            block.sites().filter(|name| self.which.all && sites.iter().all(|site| site.name != **name))
        {
            text.extend(format!("{}\n", no_manifest(context, name)).bytes());
            results.push(json!({ "site": name, "in_sync": false, "errors": [no_manifest(context, name)] }));
            codes.push(DIFFERENT);
        }
        Ok(self.finish(context, &results, &text, worst(codes)))
    }
}

/// How many placeholders, links and files the lines would not find.
fn absent(run: &Run<'_>, rendered: &Rendered, boot: &BootId) -> Result<usize> {
    let (_, plan) = observe_and_plan(run.context, &rendered.desired, boot, Some(&run.table))?;
    Ok(plan.without_mounts().steps.len())
}

/// The lines that only what is wanted has, and those that only the file has; blanks do not count.
fn differences(found: &[u8], rendered: &Rendered) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let words = |line: &[u8]| -> Vec<u8> {
            let words: Vec<_> =
                line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).collect();
            words.join(&b' ')
        };
        text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(words).collect()
    };
    let (found, wanted) = (lines(found), lines(&rendered.section));
    let only = |these: &[Vec<u8>], those: &[Vec<u8>]| -> Vec<Vec<u8>> {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    (only(&wanted, &found), only(&found, &wanted))
}
