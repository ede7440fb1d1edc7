//! `mountjail schema` and `mountjail completions`: for editors and shells.

use clap::Args;
use clap_complete::Shell;

use super::complete;
use crate::manifest::{defaults_schema, preset_schema, site_schema, template_schema};
use crate::site::out::Out;

/// Print the JSON schema of manifests, for editors
///
/// With a first line like `# yaml-language-server: $schema=mountjail.schema.json`, editors complete
/// and check manifests. `mountjail check` checks more.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail schema >mountjail.schema.json")]
pub(super) struct Schema {
    /// Print the schema of presets instead
    #[arg(long, group = "of")]
    preset: bool,
    /// Print the schema of templates of sites (NAME@.yaml) instead
    #[arg(long, group = "of")]
    template: bool,
    /// Print the schema of defaults.yaml instead
    #[arg(long, group = "of")]
    defaults: bool,
}

impl Schema {
    pub(super) fn run(&self, out: &Out) -> u8 {
        let schema = if self.preset {
            preset_schema()
        } else if self.template {
            template_schema()
        } else if self.defaults {
            defaults_schema()
        } else {
            site_schema()
        };
        out.print_and(format!("{schema:#}\n"), 0)
    }
}

/// Print a shell's completions of commands, options, sites, presets and users
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail completions bash >/etc/bash_completion.d/mountjail")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, out: &Out) -> u8 {
        out.print_and(complete::script(self.shell), 0)
    }
}
