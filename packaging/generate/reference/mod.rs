//! What the manual pages and the reference of the book say, from the program's own definitions.

mod commands;
mod files;
mod json;
mod manifest;
mod page;
mod presets;

use std::io;

/// The manual pages: file names and texts.
pub fn manual_pages() -> io::Result<Vec<(String, String)>> {
    let mut pages = commands::manual_pages()?;
    pages.push(("mountjail.yaml.5".into(), manifest::page().to_roff()));
    pages.push(("mountjail-presets.7".into(), presets::page().to_roff()));
    Ok(pages)
}

/// The pages of the book in `docs/reference` that are generated: file names and texts.
pub fn book_pages() -> Vec<(&'static str, String)> {
    vec![
        ("commands.md", commands::chapter()),
        ("json.md", json::chapter()),
        ("manifest.md", manifest::page().to_markdown()),
        ("presets.md", presets::page().to_markdown()),
        ("files.md", files::page().to_markdown()),
    ]
}
