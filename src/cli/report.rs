//! What became of the sites of one run: one place for exit codes, JSON, and sites that were not
//! begun.

use serde_json::{Value, json};

use crate::Error;
use crate::base::text::plural;
use crate::site::out::{Out, worst};
use crate::site::{Context, Site, SiteError};

/// Collects what is printed on the standard output, and the exit code.
pub(super) struct Report {
    out: &'static Out,
    json: bool,
    codes: Vec<u8>,
    sites: Vec<Value>,
    text: String,
}

impl Report {
    /// An empty one. `json`: data is printed as JSON.
    pub(super) fn new(context: &Context, json: bool) -> Self {
        Self {
            out: context.out,
            json,
            codes: vec![],
            sites: vec![],
            text: String::new(),
        }
    }

    /// Adds a site that ended with the exit code `code`, and its object for JSON.
    pub(super) fn site(&mut self, code: u8, object: Value) {
        self.code(code);
        self.sites.push(object);
    }

    /// Adds a site that failed, and reports its errors. `more`: the other keys of its object.
    pub(super) fn failed(&mut self, site: &Site, failed: &SiteError, more: Value) {
        let (code, errors) = failed.report(self.out, site);
        let mut object = more;
        object["site"] = json!(site.name);
        object["errors"] = json!(errors);
        self.site(code, object);
    }

    /// Reports sites that were not begun because a signal asked to stop; none, if `count` is 0.
    pub(super) fn not_begun(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.out.error(&Error::interrupted(format!(
            "stopped by a signal; {} not begun",
            plural(count, "site")
        )));
        self.code(1);
    }

    /// Adds the exit code of what is no site.
    pub(super) fn code(&mut self, code: u8) {
        self.codes.push(code);
    }

    /// What is printed, unless as JSON.
    pub(super) fn text(&mut self) -> &mut String {
        &mut self.text
    }

    /// Prints the data, and returns the worst exit code.
    pub(super) fn finish(self) -> u8 {
        let code = worst(self.codes);
        let text = if self.json {
            format!("{:#}\n", json!({ "sites": self.sites }))
        } else {
            self.text
        };
        self.out.print_and(text, code)
    }
}
