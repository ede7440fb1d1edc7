//! The outcome for the sites of one run: the one place for exit codes, JSON, and sites that were
//! not begun.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::base::SiteName;
use crate::base::text::plural;
use crate::site::out::{Out, worst};
use crate::site::{Context, Reported, Site, SiteError};
use crate::{Error, engine, render};

/// Exit code: differences were found.
pub(super) const DIFFERENT: u8 = 3;

/// The reported errors of `site`, as JSON.
pub(super) fn error_objects(site: &SiteName, reported: &[Reported]) -> Vec<Value> {
    let object = |reported: &Reported| match reported {
        Reported::Error(error) => render::json::error(Some(site), error),
        Reported::Mistake(mistake) => render::json::mistake(Some(site), mistake),
    };
    reported.iter().map(object).collect()
}

/// Reports why the command failed on the one site that it is for; returns the exit code.
pub(super) fn failed_alone(context: &Context, site: &Site, failed: &SiteError) -> u8 {
    let (code, errors) = failed.report(context.out, site);
    let errors = error_objects(&site.name, &errors);
    context.out.failure_of(code, &errors)
}

/// Reports errors that belong to no site; returns the exit code, and the errors as JSON.
pub(super) fn report_all(context: &Context, errors: &[Error]) -> (u8, Vec<Value>) {
    let mut objects = vec![];
    for error in errors {
        context.out.error(error);
        objects.push(render::json::error(None, error));
    }
    (worst(errors.iter().map(Error::exit_code)), objects)
}

/// Collects what is printed on the standard output, and the exit code.
pub(super) struct Report {
    out: &'static Out,
    json: bool,
    /// The command is for all sites of the configuration, whichever these are.
    of_all: bool,
    code: u8,
    sites: Vec<Value>,
    /// The errors that belong to no site, as JSON.
    errors: Vec<Value>,
    /// Other keys beside `sites`.
    more: Map<String, Value>,
    text: Vec<u8>,
}

impl Report {
    /// An empty one. `json`: data is printed as JSON, and text is not printed.
    pub(super) fn new(context: &Context, json: bool) -> Self {
        Self {
            out: context.out,
            json,
            of_all: false,
            code: 0,
            sites: vec![],
            errors: vec![],
            more: Map::new(),
            text: vec![],
        }
    }

    /// The same, of a command for all sites of the configuration if `all`: one that is removed
    /// before its turn comes is passed over.
    pub(super) fn of_all(self, all: bool) -> Self {
        Self {
            of_all: all,
            ..self
        }
    }

    /// Adds a site that ended with the exit code `code`, and its object for JSON.
    pub(super) fn site(&mut self, code: u8, object: Value) {
        self.code(code);
        self.sites.push(object);
    }

    /// Adds a site that failed, and reports its errors. `more`: the other keys of its object.
    pub(super) fn failed(&mut self, site: &Site, failed: &SiteError, more: Value) {
        if self.of_all && failed.is_of_no_site() {
            self.out.site(&site.name).info("it was removed meanwhile");
            return;
        }
        let (code, errors) = failed.report(self.out, site);
        self.site_with_errors(code, site, &errors, more);
    }

    /// As [`failed`](Self::failed), for a site that was added already.
    pub(super) fn also_failed(&mut self, site: &Site, failed: &SiteError) {
        let (code, errors) = failed.report(self.out, site);
        self.code(code);
        for error in error_objects(&site.name, &errors) {
            self.add_to(&site.name, "errors", error);
        }
    }

    /// As [`failed`](Self::failed), for a site whose error is a difference that was looked for.
    pub(super) fn refused(&mut self, site: &Site, refused: &SiteError, more: Value) {
        let (_, errors) = refused.report(self.out, site);
        self.site_with_errors(DIFFERENT, site, &errors, more);
    }

    fn site_with_errors(&mut self, code: u8, site: &Site, errors: &[Reported], more: Value) {
        let mut object = more;
        object["site"] = json!(site.name);
        object["errors"] = json!(error_objects(&site.name, errors));
        self.site(code, object);
    }

    /// Reports the sites that were not begun because a signal asked to stop, if there are any.
    pub(super) fn not_begun(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.error(&Error::interrupted(format!(
            "stopped by a signal; {} not begun",
            plural(count, "site")
        )));
    }

    /// Reports an error that belongs to no site.
    pub(super) fn error(&mut self, error: &Error) {
        self.out.error(error);
        self.code(error.exit_code());
        self.errors.push(render::json::error(None, error));
    }

    /// Adds an exit code that belongs to no site.
    pub(super) fn code(&mut self, code: u8) {
        self.code = worst([self.code, code]);
    }

    /// The exit code so far.
    pub(super) fn code_so_far(&self) -> u8 {
        self.code
    }

    /// Adds an item to the list `key` of the object of `site`.
    pub(super) fn add_to(&mut self, site: &SiteName, key: &str, item: Value) {
        let mut sites = self.sites.iter_mut();
        let Some(object) = sites.find(|object| object["site"] == json!(site)) else {
            return;
        };
        match object[key].as_array_mut() {
            Some(list) => list.push(item),
            None => object[key] = json!([item]),
        }
    }

    /// Says of a site that was added already that something was done.
    pub(super) fn changed(&mut self, site: &SiteName) {
        let mut sites = self.sites.iter_mut();
        if let Some(object) = sites.find(|object| object["site"] == json!(site)) {
            object["changed"] = json!(true);
        }
    }

    /// Whether data is printed as JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Adds a key of the JSON beside `sites`.
    pub(super) fn key(&mut self, key: &str, value: Value) {
        self.more.insert(key.to_owned(), value);
    }

    /// Adds text for people, which may have colours.
    pub(super) fn styled(&mut self, text: String) {
        let text = self.out.for_people(text);
        self.text(text);
    }

    /// Adds text to be printed.
    pub(super) fn text(&mut self, text: impl AsRef<[u8]>) {
        self.text.extend_from_slice(text.as_ref());
    }

    /// Prints the data, and returns the worst exit code.
    pub(super) fn finish(self) -> u8 {
        let (out, code) = (self.out, self.code);
        out.print_and(self.data(), code)
    }

    /// Writes the data to `file`, which is replaced as a whole; the exit code tells whether that
    /// succeeded.
    pub(super) fn finish_in(self, file: &Path) -> u8 {
        let out = self.out;
        let data = anstream::adapter::strip_bytes(&self.data()).into_vec();
        match engine::replace_file(file, &data) {
            Ok(()) => 0,
            Err(error) => out.failure(&error.into()),
        }
    }

    fn data(mut self) -> Vec<u8> {
        if self.json {
            self.more.insert("sites".to_owned(), json!(self.sites));
            if !self.errors.is_empty() {
                self.more.insert("errors".to_owned(), json!(self.errors));
            }
            self.text = render::json::document(Value::Object(self.more)).into_bytes();
        }
        self.text
    }
}
