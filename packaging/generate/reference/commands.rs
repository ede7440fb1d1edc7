//! The commands, from the definition of the command line.

use std::io;

use clap::{Arg, Command};
use mountjail::cli::command;
use roff::{Roff, roman};

use super::files;
use super::page::{escaped, see_also};

/// mountjail(8), and one page per command, such as mountjail-up(8).
pub fn manual_pages() -> io::Result<Vec<(String, String)>> {
    let mut program = command().disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    for inner in program.get_subcommands() {
        let name = format!("mountjail-{}", inner.get_name());
        let inner = inner
            .clone()
            .bin_name(format!("mountjail {}", inner.get_name()));
        let mut also = vec![("mountjail", "8"), ("mountjail.yaml", "5")];
        if name == "mountjail-presets" {
            also.push(("mountjail-presets", "7")); // man(1) shows section 8 first
        }
        let last = match inner.get_after_help().map(ToString::to_string) {
            Some(examples) if examples.starts_with("Examples:") => "EXAMPLES",
            _ => "EXAMPLE",
        };
        pages.push(manual_page(inner, &name, last, &Roff::new(), &also)?);
    }
    let also = [
        ("mountjail.yaml", "5"),
        ("mountjail-presets", "7"),
        ("mount", "8"),
        ("chroot", "2"),
    ];
    let mut more = Roff::new();
    files::page().body(&mut more);
    let of_all = manual_page(program, "mountjail", "EXIT STATUS", &more, &also)?;
    pages.push(of_all);
    Ok(pages)
}

/// The page `name`(8). It has no date, so that it is the same each time. `last` names the last
/// section of the help; `more` are sections after it.
fn manual_page(
    mut command: Command,
    name: &str,
    last: &str,
    more: &Roff,
    also: &[(&str, &str)],
) -> io::Result<(String, String)> {
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    for line in usage(&mut command) {
        synopsis.text([roman(line)]);
        synopsis.control("br", []);
    }
    let man = clap_mangen::Man::new(command.name(&*name.to_owned().leak()))
        .title(name.to_uppercase())
        .section("8")
        .date("")
        .source(concat!("mountjail ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut text = vec![];
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis.to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if name == "mountjail" {
        man.render_subcommands_section(&mut text)?;
    }
    man.render_extra_section(&mut text)?;
    more.to_writer(&mut text)?;
    let mut end = Roff::new();
    see_also(&mut end, also);
    end.to_writer(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace(".SH EXTRA\n", &format!(".SH \"{last}\"\n"));
    let text = text
        .replace("\nExample:\n", "\n")
        .replace("\nExamples:\n", "\n")
        .replace("\nExit codes:\n", "\n");
    Ok((format!("{name}.8"), text))
}

/// The lines of a command's usage.
fn usage(command: &mut Command) -> Vec<String> {
    let usage = command.render_usage().to_string();
    let lines = usage.trim_start_matches("Usage:").lines();
    lines.map(|line| line.trim().to_owned()).collect()
}

/// The chapter of the book about all commands.
pub fn chapter() -> String {
    let mut program = command().disable_help_subcommand(true);
    program.build();
    let mut text = String::from(
        "# Command line\n\nEach command also has a manual page, such as mountjail-up(8). Where \
         a command takes a site, it takes a name or the path of a manifest. Data goes to the \
         standard output, everything else to the standard error.\n\n## Options of every \
         command\n\n",
    );
    for arg in program.get_arguments().filter(|arg| arg.is_global_set()) {
        text.push_str(&option(arg));
    }
    let commands = program.get_subcommands().filter(|it| !it.is_hide_set());
    for inner in commands {
        let name = format!("mountjail {}", inner.get_name());
        text.push_str(&of_command(inner.clone().bin_name(&name), &name));
    }
    text
}

fn of_command(mut command: Command, name: &str) -> String {
    let usage = usage(&mut command).join("\n");
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let mut text = format!("\n## {name}\n\n{}\n\n", paragraphs(&about));
    text.extend(["```text\n", &usage, "\n```\n\n"]);
    let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help";
    for arg in command.get_arguments().filter(own) {
        text.push_str(&option(arg));
    }
    if let Some(after) = command.get_after_help() {
        let after = after.to_string();
        let (title, lines) = after.split_once('\n').unwrap_or_default();
        let lines: Vec<_> = lines.lines().map(str::trim_start).collect();
        text.extend(["\n", title, "\n\n```sh\n", &lines.join("\n"), "\n```\n"]);
    }
    text
}

/// A text of the help, whose lists and examples stay as they are.
fn paragraphs(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        if paragraph.lines().any(|line| line.starts_with("  ")) {
            format!("```text\n{paragraph}\n```")
        } else {
            escaped(paragraph)
        }
    });
    let text = paragraphs.collect::<Vec<_>>().join("\n\n");
    text.trim_end().trim_end_matches('.').to_owned() + "."
}

/// An option or an argument, with what it means.
fn option(arg: &Arg) -> String {
    let names = [
        arg.get_short().map(|short| format!("-{short}")),
        arg.get_long().map(|long| format!("--{long}")),
    ];
    let mut names = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() {
        let values = arg.get_value_names().unwrap_or_default();
        let value = values.first().map_or("", |name| name.as_str());
        if !names.is_empty() {
            names.push(' ');
        }
        names.push_str(value);
    }
    let about = arg.get_long_help().or(arg.get_help());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let about = escaped(&about.replace("\n\n", "\n").replace('\n', " "));
    let mut text = format!("- `{names}`: {about}");
    let values = arg.get_possible_values();
    let values: Vec<_> = values
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        text.extend([" (", &values.join(", "), ")"]);
    }
    let default = arg.get_default_values().first();
    if let Some(default) = default.filter(|_| arg.get_action().takes_values()) {
        text.extend([" [default: ", &default.to_string_lossy(), "]"]);
    }
    text + "\n"
}
