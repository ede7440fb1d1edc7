//! Builds the book with mdBook's library.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mdbook_driver::MDBook;

/// Builds the book of the repository `top` into `target`, and returns what mdBook complains about.
pub fn build(top: &Path, target: &Path) -> String {
    let complaints = Complaints::default();
    let writer = complaints.clone();
    let listener = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let result = tracing_subscriber::util::SubscriberInitExt::set_default(listener);
    let built = MDBook::load(top).and_then(|mut book| {
        target.clone_into(&mut book.config.build.build_dir);
        book.build()
    });
    drop(result);
    let mut text = complaints.text();
    if let Err(error) = built {
        text.extend(["mdBook failed: ", &format!("{error:#}"), "\n"]);
    }
    text
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<Vec<u8>>>);

impl Complaints {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Complaints {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
