//! `mountjail import`: manifests out of what there is already.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::out::worst;
use super::work::plural;
use crate::import::{Draft, fpm};
use crate::manifest::{self, SiteName, SourceFile};
use crate::{Error, Result};

/// Make manifests of the PHP-FPM pools that have a chroot
///
/// Reads php-fpm.conf with the files that it includes, a single pool's file, or a directory such as /etc/php/8.2/fpm.
/// Pools that share a chroot become one site. Prints the manifests; nothing that exists is ever overwritten.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mountjail import /etc/php/*/fpm\n  mountjail import --write /etc/php/*/fpm && mountjail \
                  up --all"
)]
pub(super) struct Import {
    /// Write the manifests to the configuration's sites/
    #[arg(long)]
    write: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Configuration files of PHP-FPM, or directories with them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Import {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        let mut pools = vec![];
        for file in &self.files {
            pools.extend(fpm::pools(file)?);
        }
        let jailed = pools.iter().filter(|pool| pool.get("chroot").is_some()).count();
        if jailed < pools.len() {
            let others = plural(pools.len() - jailed, "pool");
            context.out.info(format_args!("{others} without a chroot: nothing to mount"));
        }
        if jailed == 0 {
            return Err(Error::failed("no pool with a chroot was found")
                .hint("name a php-fpm.conf, a pool's file or a directory such as /etc/php/8.2/fpm")
                .into());
        }
        let (mut codes, mut results, mut text) = (vec![], vec![], String::new());
        for draft in fpm::drafts(&pools)? {
            let file = context.config.join("sites").join(format!("{}.yaml", draft.name));
            let done = checked(context, &draft).and_then(|yaml| {
                if self.write {
                    write(&file, &yaml)?;
                    context.out.info(format_args!("{}: wrote {}", draft.name, file.display()));
                }
                Ok(yaml)
            });
            match done {
                Ok(yaml) => {
                    let _ = writeln!(text, "# {}\n{yaml}", file.display());
                    results.push(json!({ "site": draft.name, "file": file, "manifest": yaml }));
                    codes.push(0);
                }
                Err(error) => {
                    codes.push(error.exit_code());
                    results.push(json!({ "site": draft.name, "errors": [error.to_string()] }));
                    context.out.error(&error);
                }
            }
        }
        if self.json {
            text = format!("{:#}\n", json!({ "sites": results }));
        } else if self.write {
            text.clear();
        }
        Ok(context.out.print_and(text, worst(codes)))
    }
}

/// The manifest's text, which reads as a manifest.
fn checked(context: &Context<'_>, draft: &Draft) -> Result<String> {
    let yaml = draft.to_yaml();
    let site = SiteName::new(&draft.name).map_err(|why| {
        Error::failed(format!("the pool's name {:?} cannot be a site's name", draft.name)).because_of(why)
    })?;
    manifest::parse(site, SourceFile::File("import".into()), &yaml, &context.presets).map_err(|wrong| {
        Error::failed(format!("{}: no manifest can say this", draft.name)).because_of(wrong.render(false))
    })?;
    Ok(yaml)
}

fn write(file: &Path, yaml: &str) -> Result<()> {
    let cannot = |error: std::io::Error| {
        let failed = Error::failed(format!("cannot write {}", file.display())).because(&error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failed.hint("import overwrites nothing: compare it by hand"),
            _ => failed,
        }
    };
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).map_err(cannot)?;
    }
    let mut new = fs::File::create_new(file).map_err(cannot)?;
    new.write_all(yaml.as_bytes()).inspect_err(|_| drop(fs::remove_file(file))).map_err(cannot)
}
