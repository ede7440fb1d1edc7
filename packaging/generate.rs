//! Writes what packages ship besides the program and what lies in this folder: manual pages, completions and the
//! manifest's schema. `cargo run --example generate -- target/packaging`

use std::fs;
use std::io;
use std::path::Path;

use clap_complete::Shell;
use mountjail::cli::command;
use mountjail::manifest::{Presets, preset_schema, site_schema};
use roff::{Roff, bold, italic, roman};
use serde_json::Value;

fn main() -> io::Result<()> {
    let target = std::env::args_os().nth(1).unwrap_or_else(|| "target/packaging".into());
    let target = Path::new(&target);
    for directory in ["man", "completions", "schema"] {
        fs::create_dir_all(target.join(directory))?;
    }
    let man = target.join("man");
    commands(&man)?;
    fs::write(man.join("mountjail.yaml.5"), manifest_page().to_roff())?;
    fs::write(man.join("mountjail-presets.7"), presets_page().to_roff())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command(), "mountjail", target.join("completions"))?;
    }
    for (name, schema) in [("mountjail.schema.json", site_schema()), ("preset.schema.json", preset_schema())]
    {
        fs::write(target.join("schema").join(name), format!("{schema:#}\n"))?;
    }
    Ok(())
}

/// mountjail(8) and one page a command: mountjail-up(8).
fn commands(directory: &Path) -> io::Result<()> {
    let mut program = command().disable_help_subcommand(true);
    program.build();
    for inner in program.get_subcommands() {
        let name = format!("mountjail-{}", inner.get_name());
        let inner = inner.clone().bin_name(format!("mountjail {}", inner.get_name()));
        command_page(directory, inner, &name, "EXAMPLE")?;
    }
    command_page(directory, program, "mountjail", "EXIT STATUS")
}

/// The page `name`(8), without a date, so that it is the same each time; `last`: what the help ends with.
fn command_page(directory: &Path, command: clap::Command, name: &str, last: &str) -> io::Result<()> {
    let file = directory.join(format!("{name}.8"));
    let mut text = vec![];
    clap_mangen::Man::new(command.name(&*name.to_owned().leak()))
        .title(name.to_uppercase())
        .section("8")
        .date("")
        .source(concat!("mountjail ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration")
        .render(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace(".SH EXTRA\n", &format!(".SH \"{last}\"\n"));
    fs::write(file, text.replace("\nExample:\n", "\n").replace("\nExit codes:\n", "\n"))
}

fn page(name: &str, section: &str, summary: &str) -> Roff {
    let mut page = Roff::new();
    let source = concat!("mountjail ", env!("CARGO_PKG_VERSION"));
    page.control("TH", [name.to_uppercase().as_str(), section, "", source, "File Formats"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {summary}"))]);
    page
}

fn manifest_page() -> Roff {
    let mut page = page("mountjail.yaml", "5", "the manifest of a mountjail site");
    page.control("SH", ["SYNOPSIS"]);
    page.text([italic("/etc/mountjail/sites/SITE.yaml")]);
    page.control("br", []);
    page.text([italic("/etc/mountjail/presets/NAME.yaml")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "A site is one jail: a root directory and what it needs of the host. Its manifest is a YAML file. Every path \
         that a process in the jail looks up leads to the same file as on the host: links are followed, directory \
         links on the way are reproduced, links inside a mounted directory bring along what they lead to, programs come \
         with their interpreter and libraries. What another mount shows already is not mounted again.",
    )]);
    page.control("PP", []);
    page.text([roman(
        "Libraries and programs are mounted ro,nosuid,nodev; devices ro,nosuid,noexec; everything else \
         ro,nosuid,nodev,noexec. Where the host's own mount is noexec or nodev, the jail's is as well.",
    )]);
    page.control("SH", ["KEYS OF A SITE"]);
    keys(&mut page, &site_schema());
    page.control("SH", ["KEYS OF A MOUNT"]);
    page.text([roman("An item of "), bold("mounts"), roman(" is a path, or a mapping with these keys.")]);
    let mounts = &site_schema()["properties"]["mounts"]["items"]["anyOf"][1];
    keys(&mut page, mounts);
    page.control("SH", ["ITEMS WITH ALTERNATIVES"]);
    page.text([roman("Items of "), bold("devices"), roman(", "), bold("etc"), roman(" and "), bold("users")]);
    page.text([roman(
        "may be written { name: NAME, optional: true } or { any_of: [NAME, NAME] }, those of ",
    )]);
    page.text([bold("programs"), roman(" and "), bold("libraries"), roman(" with path in place of name.")]);
    page.control("SH", ["PRESETS"]);
    page.text([
        roman("A preset has the same keys without "),
        bold("root"),
        roman(" and "),
        bold("services"),
        roman(","),
    ]);
    page.text([roman("and besides:")]);
    let mut preset = preset_schema();
    if let Some(properties) = preset["properties"].as_object_mut() {
        properties.retain(|key, _| key == "description");
    }
    keys(&mut page, &preset);
    page.control("SH", ["EXAMPLE"]);
    example(&mut page, include_str!("../manifests/sites/example.yaml"));
    see_also(&mut page, &[("mountjail", "8"), ("mountjail-presets", "7"), ("mount", "8")]);
    page
}

fn presets_page() -> Roff {
    let mut page = page("mountjail-presets", "7", "the built-in presets of mountjail");
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman("A site names presets under "), bold("presets"), roman(" in its manifest. A file")]);
    page.text([
        italic("/etc/mountjail/presets/NAME.yaml"),
        roman(" replaces the built-in one of that name."),
    ]);
    page.text([bold("mountjail presets NAME"), roman(" shows what one brings on this host.")]);
    page.control("SH", ["PRESETS"]);
    let presets = Presets::built_in();
    for name in presets.names() {
        page.control("SS", [name]);
        page.text([roman(presets.description(name).unwrap_or_default())]);
        let text = presets.text(name).unwrap_or_default();
        let rest: Vec<_> = text.lines().filter(|line| !line.starts_with("description:")).collect();
        example(&mut page, &rest.join("\n"));
    }
    see_also(&mut page, &[("mountjail", "8"), ("mountjail.yaml", "5")]);
    page
}

/// A paragraph for each key: its description, what it takes, an example.
fn keys(page: &mut Roff, schema: &Value) {
    for (key, about) in schema["properties"].as_object().into_iter().flatten() {
        page.control("TP", []);
        page.text([bold(key)]);
        page.text([roman(about["description"].as_str().unwrap_or_default())]);
        if let Some(sample) = about["examples"].get(0) {
            page.control("br", []);
            page.text([roman("Example: "), italic(sample.to_string())]);
        }
    }
}

fn example(page: &mut Roff, text: &str) {
    page.control("PP", []);
    page.control("EX", []);
    for line in text.lines() {
        page.text([roman(line)]);
    }
    page.control("EE", []);
}

fn see_also(page: &mut Roff, pages: &[(&str, &str)]) {
    page.control("SH", ["SEE ALSO"]);
    for (nth, (name, section)) in pages.iter().enumerate() {
        page.text([
            bold(*name),
            roman(format!("({section}){}", if nth + 1 < pages.len() { "," } else { "" })),
        ]);
    }
}
