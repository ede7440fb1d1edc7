//! A list of sites, and what is wrong with the files that should tell more of them.

use std::collections::HashSet;

use super::Site;
use super::manifest_error::ManifestError;
use super::out::{Out, worst};

/// Sites, as the files of a configuration or a template give them.
#[derive(Default)]
pub(crate) struct SiteList {
    pub sites: Vec<Site>,
    /// Why files are not sites, or do not tell which sites they are for.
    pub errors: Vec<ManifestError>,
    /// What else the administrator should know.
    pub warnings: Vec<String>,
    /// Something did not answer, so there may be more sites.
    pub is_partial: bool,
}

impl From<Site> for SiteList {
    fn from(site: Site) -> Self {
        Self {
            sites: vec![site],
            ..Self::default()
        }
    }
}

impl SiteList {
    /// Adds another list, each site once, in the order of the lists.
    pub(super) fn extend(&mut self, mut other: Self) {
        let known: HashSet<_> = self.sites.iter().collect();
        other.sites.retain(|site| !known.contains(site));
        self.append(other);
    }

    /// Adds what templates give. A site that has a manifest of its own is there already.
    pub(super) fn add_instances(&mut self, mut found: Self) {
        let known: HashSet<_> = self.sites.iter().map(|site| &site.name).collect();
        found.sites.retain(|site| !known.contains(&site.name));
        self.append(found);
    }

    fn append(&mut self, other: Self) {
        self.sites.extend(other.sites);
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
        self.is_partial |= other.is_partial;
    }

    /// Reports the errors and warnings; returns the exit code.
    pub(crate) fn report(&self, out: &Out) -> u8 {
        for warning in &self.warnings {
            out.warn(warning);
        }
        let mut codes = vec![];
        for error in &self.errors {
            codes.push(error.report(out, &"a file of sites"));
        }
        worst(codes)
    }
}
