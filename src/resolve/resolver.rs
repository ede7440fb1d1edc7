//! Resolves sites on one host. Requests that several sites have are looked up once.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock};

use super::dependencies::Dependencies;
use super::desired::{Desired, Link, Mount, Note, OwnDirectory};
use super::expand::{self, ExpandError, Expansion};
use super::gathered::{Additions, Gathered};
use super::generated;
use super::host::Host;
use super::made;
use super::parts::SharedParts;
use super::proc;
use super::rights;
use super::root::{self, CheckedRoot, MissingRoot};
use super::roots::Roots;
use super::shared::Shared;
use super::too_much;
use crate::base::HostPath;
use crate::base::sync::lock;
use crate::manifest::{Entry, Manifest, Origin, Request, SourceFile};
use crate::{Error, Result};

/// Resolves sites on one host.
pub struct Resolver {
    host: Host,
    shared: Shared,
    /// The directory in which generated files are kept.
    generated: HostPath,
    missing_root: MissingRoot,
    expanded: Mutex<HashMap<Request, Expanded>>,
    /// The items of presets together. Each has a cell of its own, so that a site waits only for
    /// those that it needs.
    gathered: Mutex<HashMap<Same, GatheringCell>>,
}

/// Entries that are known by where they are: presets and defaults are read once, so that all sites
/// have the same ones.
struct Same(Vec<Arc<Entry>>);

impl Same {
    fn places(&self) -> impl Iterator<Item = *const Entry> {
        self.0.iter().map(Arc::as_ptr)
    }
}

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        self.places().eq(other.places())
    }
}

impl Eq for Same {}

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.places().for_each(|place| place.hash(state));
    }
}

/// The items of one request, and their dependencies.
type Expanded = (Result<Arc<Expansion>, ExpandError>, Arc<Dependencies>);

type GatheringCell = Arc<OnceLock<Gathering>>;

/// The items of several entries.
#[derive(Clone)]
struct Gathering {
    /// As far as they can be resolved.
    gathered: Arc<Gathered>,
    additions: Arc<Additions>,
    /// Why some cannot be.
    errors: Arc<[Error]>,
    dependencies: Arc<[Arc<Dependencies>]>,
}

impl Gathering {
    /// With the mounts and links of `others`, because these lines bring none.
    fn and(self, others: Self) -> Self {
        let mut additions = Arc::unwrap_or_clone(self.additions);
        additions.extend(&others.additions);
        Self {
            gathered: others.gathered,
            additions: Arc::new(additions),
            errors: [self.errors, others.errors].concat().into(),
            dependencies: [self.dependencies, others.dependencies].concat().into(),
        }
    }
}

/// The mounts and links of a manifest, as far as they can be resolved.
pub struct Resolution {
    /// `None`: not even the root is known. Lines with an error bring nothing.
    pub desired: Option<Desired>,
    /// All that is wrong, each naming the line that it comes from.
    pub errors: Vec<Error>,
    /// The dependencies of the result, even if it is an error. Sites share those that they have in
    /// common. Empty unless the host is [tracked](Host::tracked).
    pub dependencies: Vec<Arc<Dependencies>>,
}

/// The items of a preset by itself.
#[derive(Clone, Debug)]
pub struct ResolvedPreset {
    /// Sorted by target.
    pub mounts: Vec<Arc<Mount>>,
    /// The links on the way.
    pub links: Vec<Link>,
    /// Directories of the site's own, sorted by path.
    pub directories: Vec<OwnDirectory>,
    /// What was left out and why.
    pub notes: Vec<Note>,
}

impl Resolver {
    /// A resolver for `host`; generated files are to be written to the directory `generated`.
    pub fn new(host: &Host, generated: HostPath) -> Self {
        Self {
            host: host.scope(),
            shared: Shared::default(),
            generated,
            missing_root: MissingRoot::IsError,
            expanded: Mutex::default(),
            gathered: Mutex::default(),
        }
    }

    /// The same, for roots that may have to be made first: one that does not exist is taken as
    /// empty.
    #[must_use]
    pub(crate) fn making_roots(self) -> Self {
        Self {
            missing_root: MissingRoot::IsMade,
            ..self
        }
    }

    /// Everything that `manifest` needs on this host now; `roots` are those of all sites.
    ///
    /// Errors: all that is wrong, each naming the line that it comes from.
    pub fn resolve(&self, manifest: &Manifest, roots: &Roots) -> Result<Desired, Vec<Error>> {
        let Resolution {
            desired, errors, ..
        } = self.resolve_partly(manifest, roots);
        match desired {
            Some(desired) if errors.is_empty() => Ok(desired),
            _ => Err(errors),
        }
    }

    /// As [`Resolver::resolve`], but with all that can be resolved although there are errors.
    pub fn resolve_partly(&self, manifest: &Manifest, roots: &Roots) -> Resolution {
        let host = self.host.scope();
        let gathering = self.gather(&manifest.entries);
        let mut errors = gathering.errors.to_vec();

        let desired = match root::check(&host, manifest, roots, self.missing_root) {
            Ok(root) => {
                let (desired, more) = self.with_root(&host, manifest, root, &gathering);
                if errors.is_empty() {
                    errors = more; // otherwise these may follow from those of the lines
                }
                desired
            }
            Err(error) => {
                errors.insert(0, error);
                None
            }
        };

        let mut dependencies = gathering.dependencies.to_vec();
        dependencies.push(Arc::new(host.into_dependencies()));
        dependencies.retain(|dependencies| !dependencies.is_empty());
        let errors = errors.into_iter();
        Resolution {
            desired,
            errors: errors.map(|error| error.context(&manifest.site)).collect(),
            dependencies,
        }
    }

    fn with_root(
        &self,
        host: &Host,
        manifest: &Manifest,
        root: CheckedRoot,
        gathering: &Gathering,
    ) -> (Option<Desired>, Vec<Error>) {
        let Gathering {
            gathered,
            additions,
            ..
        } = gathering;
        let parts = match gathered.shared_parts(host, &root.path) {
            Ok(parts) => parts,
            Err(errors) => return (None, errors),
        };
        let mut desired = Desired {
            site: manifest.site.clone(),
            root: root.path,
            manifest: match &manifest.file {
                SourceFile::File(file) => Some(file.clone()),
                SourceFile::BuiltIn(_) => None,
            },
            placeholders: vec![],
            directories: vec![],
            mounts: parts.mounts.clone(),
            links: parts.links.clone(),
            files: vec![],
            notes: notes(additions, &parts),
            warnings: root.warnings,
            without_proc: vec![],
        };

        let users = additions.users();
        let added = generated::add_users(&mut desired, &users, host, &self.shared, &self.generated);
        let mut errors = Vec::from_iter(added.err());
        errors.extend(made::add(&mut desired, &additions.made(), host));
        proc::note_programs(&mut desired, &additions.need_proc(), host);
        rights::note_programs(&mut desired, host);
        desired.warnings.extend(too_much::warnings(&desired));
        errors.extend(root::contains_a_source(&desired));
        (Some(desired), errors)
    }

    /// The items of `entries`, those of a preset, on this host, in a root that is empty.
    pub fn resolve_preset(&self, entries: &[Arc<Entry>]) -> Result<ResolvedPreset, Vec<Error>> {
        let Gathering {
            gathered,
            additions,
            errors,
            ..
        } = self.gather(entries);
        if !errors.is_empty() {
            return Err(errors.to_vec());
        }
        let parts = gathered.shared_parts_for(&self.host, &[])?;
        let (mounts, directories) = made::alone(&parts.mounts, &additions.made());
        Ok(ResolvedPreset {
            mounts,
            links: parts.links.clone(),
            directories,
            notes: notes(&additions, &parts),
        })
    }

    /// The items of all entries together. Sites share those of presets and defaults, so these are
    /// remembered, unless the site's own lines bring mounts or links, too.
    fn gather(&self, entries: &[Arc<Entry>]) -> Gathering {
        let is_own = |entry: &Arc<Entry>| entry.origin.is_sites_own();
        let (own, shared): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(is_own);
        if own.is_empty() {
            return self.gather_shared(entries);
        }
        if own.iter().any(|entry| entry.request.may_bring_mounts()) {
            return self.gather_anew(entries);
        }
        self.gather_anew(&own).and(self.gather_shared(&shared))
    }

    fn gather_shared(&self, entries: &[Arc<Entry>]) -> Gathering {
        let key = Same(entries.to_vec());
        let cell = lock(&self.gathered).entry(key).or_default().clone();
        cell.get_or_init(|| self.gather_anew(entries)).clone()
    }

    fn gather_anew(&self, entries: &[Arc<Entry>]) -> Gathering {
        let (mut gathered, mut additions) = (Gathered::default(), Additions::default());
        let mut errors = vec![];
        let mut dependencies = vec![];
        for entry in entries {
            let (expansion, of_entry) = self.expand(&entry.request);
            match expansion {
                Ok(expansion) => {
                    additions.add(&entry.origin, &expansion);
                    gathered.add(&entry.origin, expansion);
                }
                Err(error) => errors.push(of_line(error, &entry.origin)),
            }
            dependencies.push(of_entry);
        }
        Gathering {
            gathered: Arc::new(gathered),
            additions: Arc::new(additions),
            errors: errors.into(),
            dependencies: dependencies.into(),
        }
    }

    fn expand(&self, request: &Request) -> Expanded {
        if let Some(known) = lock(&self.expanded).get(request) {
            return known.clone();
        }
        let host = self.host.scope();
        let expansion = expand::expand(&host, &self.shared, request).map(Arc::new);
        let expanded = (expansion, Arc::new(host.into_dependencies()));

        let mut known = lock(&self.expanded);
        known.entry(request.clone()).or_insert(expanded).clone()
    }
}

/// The error of one line. A line of a preset that is part of the binary cannot be edited.
fn of_line(error: ExpandError, origin: &Origin) -> Error {
    let is_built_in = matches!(origin.file, SourceFile::BuiltIn(_));
    let error = match error {
        ExpandError::Absent(error) if is_built_in => {
            let preset = origin.presets.last().map_or("", String::as_str);
            error.hint(format!(
                "make it on the host, or list what the site needs instead of the preset: \
                 `mountjail presets {preset}` shows the preset's lines"
            ))
        }
        ExpandError::Absent(error) | ExpandError::Failed(error) => error,
    };
    error.context(origin)
}

fn notes(additions: &Additions, parts: &SharedParts) -> Vec<Note> {
    let mut notes = additions.notes();
    notes.extend_from_slice(&parts.notes);
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_edited_is_not_to_be_edited() {
        let hint_for = |file: SourceFile| {
            let origin = Origin {
                file,
                key: "etc[0]".to_owned(),
                text: "resolv.conf".to_owned(),
                presets: vec!["dns".to_owned()],
                defaults: false,
            };
            let error = Error::failed("absent").hint("say `optional: true`");
            of_line(ExpandError::Absent(error), &origin)
                .hint_text()
                .unwrap()
                .to_owned()
        };
        let own = SourceFile::File("/etc/mountjail/presets/dns.yaml".into());
        assert_eq!(hint_for(own), "say `optional: true`");
        let built_in = hint_for(SourceFile::BuiltIn("dns".to_owned()));
        assert!(built_in.contains("`mountjail presets dns`"), "{built_in}");
        assert!(!built_in.contains("optional"), "{built_in}");
    }
}
