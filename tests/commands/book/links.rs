//! Links between pages.

use std::collections::BTreeSet;
use std::path::Path;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::{pages, read, top};

/// The pages at the top of the repository.
const TOP: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "tests/README.md",
];

/// Fails unless each relative link, in the book and around it, leads to a file, and to a heading
/// if it has a fragment. The book's own pages link to pages of the book alone, since the others
/// are not where it is published.
pub fn lead_somewhere() {
    let book = top().join("docs");
    let around = TOP.iter().map(|name| top().join(name));
    let mut wrong = Vec::new();
    for path in pages().chain(around) {
        for link in links(&read(&path)) {
            if let Err(why) = leads(&book, &path, &link) {
                wrong.push(format!("{}: {link}: {why}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Fails unless each page of the book is at most two links away from README, and from the book's
/// first page. The list of all pages does not count as one.
pub fn are_short() {
    let book = top().join("docs");
    let summary = book.join("SUMMARY.md");
    for start in [top().join("README.md"), book.join("README.md")] {
        let mut reached = BTreeSet::from([start.clone()]);
        for _ in 0..2 {
            for from in reached.clone() {
                let directory = from.parent().unwrap();
                let files = links(&read(&from)).into_iter();
                let files = files.filter_map(|link| {
                    let file = directory.join(link.split('#').next()?);
                    let is_page = file.extension().is_some_and(|end| end == "md");
                    file.canonicalize().ok().filter(|_| is_page)
                });
                reached.extend(files.filter(|file| *file != summary));
            }
        }
        reached.insert(summary.clone());
        let of_book = pages().filter(|page| page.starts_with(&book));
        let far: Vec<_> = of_book.filter(|page| !reached.contains(page)).collect();
        assert!(far.is_empty(), "too far from {}: {far:#?}", start.display());
    }
}

fn leads(book: &Path, from: &Path, link: &str) -> Result<(), &'static str> {
    if link.starts_with("https://") {
        return Ok(());
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let to = if file.is_empty() {
        from.to_owned()
    } else {
        from.parent().unwrap().join(file)
    };
    let to = to.canonicalize().map_err(|_| "there is no such file")?;
    if from.starts_with(book) && !to.starts_with(book) {
        return Err("it leads out of the book");
    }
    if heading.is_empty() || headings(&read(&to)).contains(heading) {
        return Ok(());
    }
    Err("there is no such heading")
}

fn parse(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// Where links and pictures of a page lead.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for event in parse(text) {
        if let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event {
            links.push(dest_url.into_string());
        }
    }
    links
}

/// The headings' ids, as mdBook and forges make them.
fn headings(text: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in parse(text) {
        match (event, &mut heading) {
            (Event::Start(Tag::Heading { .. }), _) => heading = Some(String::new()),
            (Event::Text(text) | Event::Code(text), Some(heading)) => heading.push_str(&text),
            (Event::End(TagEnd::Heading(_)), Some(text)) => {
                ids.insert(id(text));
                heading = None;
            }
            _ => {}
        }
    }
    ids
}

fn id(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}
