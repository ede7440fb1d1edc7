//! `mountjail presets`: the presets that manifests can include.

use std::fmt::Write;

use clap::Args;
use serde_json::json;

use super::complete;
use crate::manifest::{Diagnostics, Presets};
use crate::resolve::ResolvedPreset;
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
        let text = if self.json {
            list_as_json(presets)
        } else {
            list_as_text(presets)
        };
        context.out.print_and(&text, worst(codes))
    }

    fn one(&self, context: &Context, name: &str) -> Result<u8> {
        let entries = match context.presets.entries(name) {
            Some(Ok(entries)) => entries,
            Some(Err(mistakes)) => return Ok(report_mistakes(context, name, mistakes)),
            None => return Err(unknown(&context.presets, name)),
        };
        match context.resolver()?.resolve_preset(&entries) {
            Ok(resolved) => Ok(self.print(context, name, &resolved)),
            Err(errors) => Ok(report_errors(context, name, errors)),
        }
    }

    fn print(&self, context: &Context, name: &str, resolved: &ResolvedPreset) -> u8 {
        let presets = &context.presets;
        let description = presets.description(name).unwrap_or_default();
        let text = if self.json {
            let file = presets.file(name).map(ToString::to_string);
            let mut value = render::json::preset(resolved);
            value["name"] = json!(name);
            value["description"] = json!(description);
            value["file"] = json!(file);
            render::json::document(value)
        } else {
            format!(
                "# {name}: {description}\n{}",
                render::text::preset(resolved)
            )
        };
        context.out.print_and(&text, 0)
    }
}

fn list_as_json(presets: &Presets) -> String {
    let mut list = vec![];
    for (group, names) in presets.groups() {
        for name in names {
            let file = presets.file(name).map(ToString::to_string);
            list.push(json!({
                "name": name, "group": group, "description": presets.description(name),
                "file": file,
            }));
        }
    }
    render::json::document(json!({ "presets": list }))
}

fn list_as_text(presets: &Presets) -> String {
    let width = presets.names().map(str::len).max().unwrap_or(0);
    let mut groups = vec![];
    for (group, names) in presets.groups() {
        let mut text = format!("{group}:\n");
        for name in names {
            let description = presets.description(name).unwrap_or("(has mistakes)");
            let _ = writeln!(text, "  {name:width$}  {description}");
        }
        groups.push(text);
    }
    groups.join("\n")
}

fn unknown(presets: &Presets, name: &str) -> Error {
    let missing = Error::usage(format!("there is no preset {name}"));
    match presets.nearest(name) {
        Some(near) => missing.hint(format!("did you mean {near}?")),
        None => missing.hint("`mountjail presets` lists all presets"),
    }
}

/// Reports a preset with mistakes; returns the exit code.
fn report_mistakes(context: &Context, name: &str, mistakes: Diagnostics) -> u8 {
    let mut objects = vec![];
    for mistake in mistakes.iter() {
        objects.push(render::json::mistake(None, mistake));
    }
    let code = ManifestError::Mistakes(mistakes).report(context.out, &name);
    context.out.failure_of(code, &objects)
}

/// Reports why the preset cannot be used on this host; returns the exit code.
fn report_errors(context: &Context, name: &str, errors: Vec<Error>) -> u8 {
    let (mut codes, mut objects) = (vec![], vec![]);
    for error in errors {
        let error = error.context(format_args!("preset {name} on this host"));
        context.out.error(&error);
        codes.push(error.exit_code());
        objects.push(render::json::error(None, &error));
    }
    context.out.failure_of(worst(codes), &objects)
}
