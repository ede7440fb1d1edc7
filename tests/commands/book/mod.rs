//! The book in `docs/` and the pages around it: their commands print what they show, their links
//! lead somewhere, and what is generated is up to date.
//!
//! `BOOK_UPDATE=1 cargo test --test commands -- '[book]'` writes what differs into the pages;
//! `git diff docs` shows what people will read. `CONTRIBUTING.md` describes how pages are written.

mod build;
mod links;
mod page;
mod session;
mod snippets;

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::support::{alone, trials};
use page::{Item, Page};

/// How many blocks are marked `not run`: each has a reason, and there should be few.
const NOT_RUN: usize = 0;

/// How many lines README may have.
const README_LINES: usize = 150;

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        (
            "every link of the book leads somewhere",
            links::lead_somewhere,
        ),
        (
            "every path of the repository in the book exists",
            links::paths_exist,
        ),
        (
            "errors in the book are those of the program",
            links::quoted_errors_are_printed,
        ),
        (
            "every page of the book is two clicks away",
            links::are_short,
        ),
        (
            "a page's output is compared strictly",
            session::patterns_are_strict,
        ),
        ("the book has all its pages", all_pages_are_in_the_summary),
        ("README is short", readme_is_short),
        ("few blocks of the book are not run", few_are_not_run),
        (
            "the reference is up to date",
            build::the_reference_is_up_to_date,
        ),
        ("the book builds without warnings", build::without_warnings),
    ]);
    all.push(alone(
        "the snippet for cloud-init",
        snippets::for_cloud_init,
    ));
    all.push(alone("the snippet for NixOS", snippets::for_nixos));
    for path in pages().filter(|path| runs(path)) {
        let name = path.strip_prefix(top()).unwrap().display().to_string();
        let page = path.clone();
        all.push(alone(format!("commands of {name}"), move || {
            session::prints_what_it_shows(&page);
        }));
    }
    all
}

/// The top of the repository.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a new text is to be written in place of one that differs.
fn updates() -> bool {
    std::env::var_os("BOOK_UPDATE").is_some_and(|value| value == "1")
}

/// The pages of the book, and README.
fn pages() -> impl Iterator<Item = PathBuf> {
    let pattern = top().join("docs/**/*.md");
    let found = glob::glob(pattern.to_str().unwrap()).unwrap();
    found.map(Result::unwrap).chain([top().join("README.md")])
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a page has commands to run.
fn runs(path: &Path) -> bool {
    let page = Page::parse(&read(path));
    page.items
        .iter()
        .any(|item| matches!(item, Item::Command { .. }))
}

fn all_pages_are_in_the_summary() {
    let summary = read(&top().join("docs/SUMMARY.md"));
    for page in pages() {
        let Ok(page) = page.strip_prefix(top().join("docs")) else {
            continue;
        };
        let link = format!("({})", page.display());
        assert!(
            page == Path::new("SUMMARY.md") || summary.contains(&link),
            "docs/SUMMARY.md lacks {link}"
        );
    }
}

fn readme_is_short() {
    let lines = read(&top().join("README.md")).lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines");
}

fn few_are_not_run() {
    let mut reasons = Vec::new();
    for path in pages() {
        for reason in Page::parse(&read(&path)).not_run {
            reasons.push(format!("{}: {reason}", path.display()));
        }
    }
    assert_eq!(reasons.len(), NOT_RUN, "{reasons:#?}");
}
