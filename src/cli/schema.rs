//! `mountjail schema` and `mountjail completions`: for editors and shells.

use clap::Args;
use clap_complete::Shell;

use super::complete;
use crate::manifest::{defaults_schema, preset_schema, site_schema, template_schema};
use crate::render::output::{OUTPUTS, Output, output};
use crate::site::out::Out;
use crate::{Error, Result};

/// Print the JSON schema of manifests, for editors, or of what commands print
///
/// With a first line like `# yaml-language-server: $schema=mountjail.schema.json`, editors complete
/// and check manifests. `mountjail check` checks more.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mountjail schema >mountjail.schema.json\n  \
                  mountjail schema --output status >status.schema.json"
)]
pub(super) struct SchemaArgs {
    /// Print the schema of presets instead
    #[arg(long, group = "of")]
    preset: bool,
    /// Print the schema of templates of sites (NAME@.yaml) instead
    #[arg(long, group = "of")]
    template: bool,
    /// Print the schema of defaults.yaml instead
    #[arg(long, group = "of")]
    defaults: bool,
    /// Print the schema of what COMMAND prints with --json instead
    #[arg(long, value_name = "COMMAND", group = "of", value_parser = output_of)]
    output: Option<&'static Output>,
}

/// The JSON output of the command with this name.
fn output_of(name: &str) -> Result<&'static Output> {
    output(name).ok_or_else(|| {
        let known: Vec<_> = OUTPUTS.iter().map(|output| output.command).collect();
        let known = known.join(", ");
        Error::usage(format!("{name} prints no JSON; these commands do: {known}"))
    })
}

impl SchemaArgs {
    pub(super) fn run(&self, out: &Out) -> u8 {
        let schema = if let Some(output) = self.output {
            output.schema()
        } else if self.preset {
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
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(&self, out: &Out) -> u8 {
        out.print_and(complete::script(self.shell), 0)
    }
}
