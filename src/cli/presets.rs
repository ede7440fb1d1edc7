//! `mountjail presets`: the presets that manifests can include.

use clap::Args;
use serde_json::json;

use super::complete;
use crate::site::ManifestError;
use crate::site::context::Context;
use crate::site::out::worst;
use crate::{Error, Result, render};

/// List the presets, or show what one brings on this host
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mountjail presets\n  mountjail presets dns")]
pub(super) struct PresetsArgs {
    /// The preset to show
    #[arg(value_name = "NAME", add = complete::preset())]
    name: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl PresetsArgs {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        match &self.name {
            None => Ok(self.list(context)),
            Some(name) => Ok(self.one(context, name)?),
        }
    }

    fn list(&self, context: &Context) -> u8 {
        let presets = &context.presets;
        let names: Vec<_> = presets.names().collect();
        let mut codes = vec![0];
        for name in &names {
            if let Some(Err(mistakes)) = presets.entries(name) {
                codes.push(ManifestError::Mistakes(mistakes).report(context.out, &name));
            }
        }
        let described = |name: &str| presets.description(name).unwrap_or("(has mistakes)");
        let text = if self.json {
            let groups = presets.groups();
            let one = |group: &str, name: &str| {
                let file = presets.file(name).map(ToString::to_string);
                json!({
                    "name": name, "group": group, "description": presets.description(name),
                    "file": file,
                })
            };
            let list = groups
                .iter()
                .flat_map(|(group, names)| names.iter().map(move |name| one(group, name)));
            render::json::document(json!({ "presets": list.collect::<Vec<_>>() }))
        } else {
            let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
            let line = |name: &&str| format!("  {name:width$}  {}\n", described(name));
            let groups = presets.groups();
            let groups = groups.iter().map(|(group, names)| {
                let lines: String = names.iter().map(line).collect();
                format!("{group}:\n{lines}")
            });
            groups.collect::<Vec<_>>().join("\n")
        };
        context.out.print_and(&text, worst(codes))
    }

    fn one(&self, context: &Context, name: &str) -> Result<u8> {
        let presets = &context.presets;
        let entries = match presets.entries(name) {
            Some(Ok(entries)) => entries,
            Some(Err(mistakes)) => {
                let mistake = |mistake| render::json::mistake(None, mistake);
                let errors: Vec<_> = mistakes.iter().map(mistake).collect();
                let code = ManifestError::Mistakes(mistakes).report(context.out, &name);
                return Ok(context.out.failure_of(code, &errors));
            }
            None => {
                let missing = Error::usage(format!("there is no preset {name}"));
                return Err(match presets.nearest(name) {
                    Some(near) => missing.hint(format!("did you mean {near}?")),
                    None => missing.hint("`mountjail presets` lists all presets"),
                });
            }
        };
        let description = presets.description(name).unwrap_or_default();
        match context.resolver()?.resolve_preset(&entries) {
            Ok(resolved) => {
                let text = if self.json {
                    let file = presets.file(name).map(ToString::to_string);
                    let mut value = render::json::preset(&resolved);
                    value["name"] = json!(name);
                    value["description"] = json!(description);
                    value["file"] = json!(file);
                    render::json::document(value)
                } else {
                    format!(
                        "# {name}: {description}\n{}",
                        render::text::preset(&resolved)
                    )
                };
                Ok(context.out.print_and(&text, 0))
            }
            Err(mut errors) => {
                for error in &mut errors {
                    *error = error
                        .clone()
                        .context(format_args!("preset {name} on this host"));
                    context.out.error(error);
                }
                let code = worst(errors.iter().map(Error::exit_code));
                let error = |error| render::json::error(None, error);
                let errors: Vec<_> = errors.iter().map(error).collect();
                Ok(context.out.failure_of(code, &errors))
            }
        }
    }
}
