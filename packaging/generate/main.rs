//! Writes what packages ship besides the program and what lies in this folder: manual pages,
//! completions and the manifest's schema. `cargo run --example generate -- target/packaging`
//!
//! `cargo run --example generate -- --book` writes the generated pages of the book in
//! `docs/reference` anew, and builds the book into `target/book`, as `mdbook build` does, which
//! then need not be installed.

mod book;
mod reference;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;
use mountjail::cli::{OUTPUTS, completion_script};
use mountjail::manifest::{defaults_schema, preset_schema, site_schema, template_schema};

fn main() -> io::Result<ExitCode> {
    let target = std::env::args_os()
        .nth(1)
        .unwrap_or_else(|| "target/packaging".into());
    if target == "--book" {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (name, text) in reference::book_pages() {
            fs::write(top.join("docs/reference").join(name), text)?;
        }
        let complaints = book::build(top, &top.join("target/book"));
        eprint!("{complaints}");
        let failed = !complaints.is_empty();
        return Ok(ExitCode::from(u8::from(failed)));
    }
    packages(Path::new(&target))?;
    Ok(ExitCode::SUCCESS)
}

fn packages(target: &Path) -> io::Result<()> {
    for directory in ["man", "completions", "schema"] {
        fs::create_dir_all(target.join(directory))?;
    }
    for (name, text) in reference::manual_pages()? {
        fs::write(target.join("man").join(name), text)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let file = clap_complete::Generator::file_name(&shell, "mountjail");
        fs::write(
            target.join("completions").join(file),
            completion_script(shell),
        )?;
    }
    for (name, schema) in [
        ("mountjail.schema.json", site_schema()),
        ("template.schema.json", template_schema()),
        ("defaults.schema.json", defaults_schema()),
        ("preset.schema.json", preset_schema()),
    ] {
        fs::write(target.join("schema").join(name), format!("{schema:#}\n"))?;
    }
    fs::create_dir_all(target.join("schema/output"))?;
    for output in OUTPUTS {
        let file = format!("schema/output/{}.schema.json", output.command);
        fs::write(target.join(file), format!("{:#}\n", output.schema()))?;
    }
    Ok(())
}
