//! The generated pages, and the book as a whole.

use std::fs;

use super::{read, top, updates};
use crate::support::scratch;

#[path = "../../../packaging/generate/book.rs"]
mod book;
#[allow(dead_code)] // the manual pages are made when packages are built
#[path = "../../../packaging/generate/reference/mod.rs"]
mod reference;

/// Fails unless the pages in `docs/reference` are those that the program's definitions give.
pub fn the_reference_is_up_to_date() {
    for (name, text) in reference::book_pages() {
        let path = top().join("docs/reference").join(name);
        if updates() {
            fs::write(&path, &text).unwrap();
        }
        assert!(
            read(&path) == text,
            "docs/reference/{name} is not what its sources say; \
             BOOK_UPDATE=1 cargo test --test commands -- '[book]' writes it anew"
        );
    }
    for (name, text) in reference::manual_pages().unwrap() {
        assert!(
            text.contains(".SH \"SEE ALSO\"") || text.contains(".SH SEE ALSO"),
            "{name}"
        );
    }
}

/// Fails if mdBook has anything to say about the book.
pub fn without_warnings() {
    let target = scratch();
    assert_eq!(book::build(top(), &target), "");
    assert!(target.join("index.html").exists() && target.join("404.html").exists());
}
