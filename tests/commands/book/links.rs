//! Links between pages, and paths in them.

use std::collections::BTreeSet;
use std::path::Path;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

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

/// Fails unless each path of the repository that a page has in code font exists, from the top of
/// the repository or below `src`.
pub fn paths_exist() {
    let around = TOP.iter().map(|name| top().join(name));
    let mut wrong = Vec::new();
    for page in pages().chain(around) {
        for code in codes(&read(&page)) {
            if let Some(path) = path_in_the_repository(&code).filter(|path| !exists(path)) {
                wrong.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The path that a text in code font names, if it is one of the repository: it begins with one of
/// its directories, or ends like a source. Words in capitals stand for something else.
fn path_in_the_repository(code: &str) -> Option<&str> {
    let path = code.split(' ').next()?;
    let (first, _) = path.split_once('/')?;
    let is_literal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c);
    let is_source = Path::new(path).extension().is_some_and(|end| end == "rs");
    let is_ours = is_source || first != "target" && exists(first);
    (!first.is_empty() && path.chars().all(is_literal) && is_ours).then_some(path)
}

fn exists(path: &str) -> bool {
    top().join(path).exists() || top().join("src").join(path).exists()
}

/// Fails unless `docs/guide/rescue.md` quotes errors as the program prints them: each is in a
/// snapshot, or its text is in the sources.
pub fn quoted_errors_are_printed() {
    let rescue = read(&top().join("docs/guide/rescue.md"));
    let (_, table) = rescue.split_once("| the error says |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let texts = texts();
    for row in table.lines().skip(2) {
        let cell = row.trim_start_matches("| ").split(" | ").next().unwrap();
        let quoted = codes(cell);
        let [quoted] = quoted.as_slice() else {
            panic!("one error for each row: {row}");
        };
        let parts: Vec<_> = quoted.split('…').map(regex::escape).collect();
        let pattern = Regex::new(&parts.join(".*")).unwrap();
        assert!(texts.iter().any(|text| pattern.is_match(text)), "{quoted}");
    }
}

/// All snapshots and sources. A text of the sources that goes on in the next line is one line.
fn texts() -> Vec<String> {
    let goes_on = Regex::new(r"\\\n\s*").unwrap();
    let files = ["tests/commands/snapshots/*.snap", "src/**/*.rs"].map(|pattern| {
        let pattern = top().join(pattern);
        glob::glob(pattern.to_str().unwrap()).unwrap()
    });
    let files = files.into_iter().flatten().map(|file| read(&file.unwrap()));
    files
        .map(|text| goes_on.replace_all(&text, "").into_owned())
        .collect()
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

/// What a page has in code font.
fn codes(text: &str) -> Vec<String> {
    let codes = parse(text).filter_map(|event| match event {
        Event::Code(code) => Some(code.into_string()),
        _ => None,
    });
    codes.collect()
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
