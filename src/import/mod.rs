//! What people have already → manifests and presets: the pools of PHP-FPM, bind lines of fstab(5),
//! jailkit's sections, and the roots that the configuration of other daemons and the units of
//! systemd name.
//!
//! In: configuration files of other programs, told apart by what is in them. Out: a [`Draft`] for
//! each site and preset, to be shown or written. It reads the files, and looks at what their paths
//! are on this host; it never changes anything.

mod daemons;
mod draft;
mod file_format;
pub mod fpm;
mod fstab;
mod ini;
mod jailkit;
mod lines;
mod logins;
pub(crate) mod php;
mod php_ini;
mod roots;
mod source_properties;
mod unit_file;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) use draft::{Draft, DraftKind};

use crate::base::{HostPath, SiteName};
use crate::manifest::Presets;
use crate::observe::Units;
use crate::resolve::refuse_system;
use crate::{Error, Result, sys};
use daemons::{keys, postfix, sshd};

/// No file of these formats is longer.
const MAX_BYTES: u64 = 4 << 20;

/// Names of directories that tell nothing about the site that they are for.
const NAMELESS: [&str; 6] = ["chroot", "jail", "root", "rootfs", "fs", "htdocs"];

/// What the files have.
#[derive(Debug, Default)]
pub(crate) struct Importer {
    /// The masters of PHP-FPM on this host, which tell how their files are read.
    masters: Vec<fpm::Master>,
    /// Where relative paths of PHP-FPM count from, if that is given.
    prefix: Option<PathBuf>,
    pools: Vec<fpm::Pool>,
    fstabs: Vec<fstab::FstabFile>,
    sections: Vec<jailkit::JailkitSection>,
    /// Sites of all other kinds.
    sites: Vec<Draft>,
    warnings: Vec<String>,
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// Sites first, in the order of the files; then presets.
    pub drafts: Vec<Draft>,
    /// What needs nothing: sentences.
    pub notes: Vec<String>,
    /// What the administrator should look at: sentences.
    pub warnings: Vec<String>,
    /// What could not be imported; it keeps nothing else from being so.
    pub errors: Vec<Error>,
}

impl Importer {
    /// Nothing yet. `prefix` is where relative paths of PHP-FPM count from, in place of what its
    /// masters are told.
    pub fn new(prefix: Option<PathBuf>) -> Self {
        Self {
            masters: fpm::masters(),
            prefix,
            ..Self::default()
        }
    }

    /// The configurations of this host's masters of PHP-FPM.
    pub fn masters(&self) -> impl Iterator<Item = &Path> {
        self.masters.iter().map(|master| master.config.as_path())
    }

    /// Adds what is in `path`: a file of a known kind, or a directory of PHP-FPM's.
    ///
    /// Errors: it cannot be read, or is of no known kind; what is wrong in it, with file and line.
    /// The rest of the file is added all the same.
    pub fn read(&mut self, path: &Path) -> Result<(), Vec<Error>> {
        let one = |error| vec![error];
        if path.is_dir() {
            return self.fpm(path);
        }
        let text = text(path).map_err(one)?;
        match file_format::of(path, &text) {
            Some(file_format::FileFormat::Fpm) => return self.fpm(path),
            Some(file_format::FileFormat::Fstab) => {
                add_new(&mut self.fstabs, [fstab::read(path, &text)?])
            }
            Some(file_format::FileFormat::Jailkit) => {
                add_new(&mut self.sections, jailkit::read(path, &text)?)
            }
            Some(kind) => self.daemon(kind, path, &String::from_utf8_lossy(&text)),
            None => {
                let failed = Error::failed(format!(
                    "{} is not of a kind that import knows",
                    path.display()
                ));
                return Err(one(failed.because_of(file_format::KNOWN)));
            }
        }
        Ok(())
    }

    fn daemon(&mut self, kind: file_format::FileFormat, path: &Path, text: &str) {
        let units = Units::read();
        let read = match kind {
            file_format::FileFormat::Sshd => {
                let logins = sshd::Logins {
                    named: &logins::named,
                    of_group: &logins::of_group,
                };
                sshd::read(path, text, &logins, &units)
            }
            file_format::FileFormat::Postfix => {
                let main = self::text(&path.with_file_name("main.cf")).unwrap_or_default();
                postfix::read(path, text, &String::from_utf8_lossy(&main), &units)
            }
            file_format::FileFormat::Daemon(daemon) => keys::read(daemon, path, text, &units),
            _ => daemons::units::read(path, &unit_file::of_file(path, text), &units),
        };
        add_new(&mut self.sites, read.sites);
        add_new(&mut self.warnings, read.warnings);
    }

    fn fpm(&mut self, path: &Path) -> Result<(), Vec<Error>> {
        let read =
            fpm::read(path, self.prefix.as_deref(), &self.masters).map_err(|error| vec![error])?;
        add_new(&mut self.pools, read.pools);
        add_new(&mut self.warnings, read.warnings);
        if read.errors.is_empty() {
            Ok(())
        } else {
            Err(read.errors)
        }
    }

    /// The sites, one a root whatever files tell of it, and the presets. `presets` are those that
    /// there are.
    pub fn drafts(&self, presets: &Presets) -> Imported {
        let mut imported = Imported {
            warnings: self.warnings.clone(),
            ..Imported::default()
        };
        imported.warnings.extend(
            self.fstabs
                .iter()
                .flat_map(|fstab| fstab.odd.iter().cloned()),
        );
        self.sites(presets, &mut imported);
        let roots: Vec<_> = imported.drafts.iter().filter_map(Draft::root).collect();
        self.count(&roots, &mut imported.notes);
        let others = self.fstabs.iter().flat_map(|fstab| &fstab.others);
        imported
            .warnings
            .extend(others.filter_map(|other| in_jail(other, &roots)));
        unique_names(&mut imported);
        match jailkit::drafts(&self.sections, presets) {
            Ok(drafts) => {
                let renamed = drafts
                    .iter()
                    .filter_map(|draft| Some((draft, draft.renamed.as_ref()?)));
                imported
                    .warnings
                    .extend(renamed.map(|(draft, why)| format!("{}: {why}", draft.place)));
                imported.drafts.extend(drafts);
            }
            Err(errors) => imported.errors.extend(errors),
        }
        imported
    }

    fn count(&self, roots: &[&HostPath], notes: &mut Vec<String>) {
        let outside = |fstab: &fstab::FstabFile| {
            fstab
                .others
                .iter()
                .filter(|other| root_above(other, roots).is_none())
                .count()
        };
        let sum = |count: &dyn Fn(&fstab::FstabFile) -> usize| {
            self.fstabs.iter().map(count).sum::<usize>()
        };
        let counts = [
            (
                self.pools
                    .iter()
                    .filter(|pool| pool.chroot().is_none())
                    .count(),
                "pool",
                "without a chroot: nothing to mount",
            ),
            (
                sum(&outside),
                "line",
                "of fstab without `bind`: not of a jail",
            ),
            (
                sum(&|fstab| fstab.ours),
                "line",
                "in mountjail's own block of fstab",
            ),
        ];
        for (count, what, rest) in counts.into_iter().filter(|(count, ..)| *count > 0) {
            notes.push(format!(
                "{count} {what}{} {rest}",
                if count == 1 { "" } else { "s" }
            ));
        }
        notes.extend(
            self.fstabs
                .iter()
                .flat_map(|fstab| fstab.remarks.iter().cloned()),
        );
    }

    fn sites(&self, presets: &Presets, imported: &mut Imported) {
        let (mut drafts, errors) = fpm::drafts(&self.pools);
        imported.errors.extend(errors);
        for site in &self.sites {
            let mut site = site.clone();
            site.presets
                .retain(|preset| presets.names().any(|known| known == preset));
            if let Some(Err(why)) = site.root().map(refuse_system) {
                imported
                    .warnings
                    .push(format!("{}: {why}; not imported", site.place));
            } else if let Some(draft) = drafts.iter_mut().find(|draft| draft.root() == site.root())
            {
                draft.merge(&site);
            } else {
                drafts.push(site);
            }
        }
        let binds: Vec<_> = self
            .fstabs
            .iter()
            .flat_map(|fstab| fstab.binds.iter().cloned())
            .collect();
        let known: Vec<_> = drafts
            .iter()
            .filter_map(|draft| draft.root().cloned())
            .collect();
        let assigned = roots::assign(&binds, &known);
        for (root, binds) in &assigned.by_root {
            let nth = drafts
                .iter()
                .position(|draft| draft.root() == Some(root))
                .unwrap_or_else(|| {
                    let place = binds[0].place.clone();
                    drafts.push(Draft {
                        place,
                        ..Draft::new(name_of(root), DraftKind::Site(root.clone()))
                    });
                    drafts.len() - 1
                });
            lines::add(&mut drafts[nth], root, binds, presets);
        }
        let left = assigned.left.iter().map(|(bind, why)| {
            format!("{}: {} on {}: {why}", bind.place, bind.source, bind.target)
        });
        imported.warnings.extend(left);
        imported.drafts = drafts;
    }
}

/// The root that the line mounts something in.
fn root_above<'r>(other: &fstab::OtherMount, roots: &[&'r HostPath]) -> Option<&'r HostPath> {
    roots
        .iter()
        .find(|root| {
            other
                .target
                .as_ref()
                .is_some_and(|target| target.starts_with(root))
        })
        .copied()
}

/// What becomes of a line that mounts a file system in a jail.
fn in_jail(other: &fstab::OtherMount, roots: &[&HostPath]) -> Option<String> {
    let root = root_above(other, roots)?;
    let (place, fstype, target) = (&other.place, &other.fstype, other.target.as_ref()?);
    let below_dev = target.as_path().ends_with("dev/pts") || target.as_path().ends_with("dev/shm");
    let order = if below_dev {
        "; take it off before the site comes up, since it lies on the mount of /dev, and mount it again after"
    } else {
        ""
    };
    Some(format!(
        "{place}: {fstype} on {target} is in the root {root}; no bind, not imported: the line has to stay{order}"
    ))
}

/// Adds those of `more` that are not known: a pool may be named by its own file and by
/// php-fpm.conf.
fn add_new<T: PartialEq>(known: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    for one in more {
        if !known.contains(&one) {
            known.push(one);
        }
    }
}

/// The text of a file. A FIFO or device is refused, and no more is read than such a file can have.
fn text(path: &Path) -> Result<Vec<u8>> {
    let file = path.display();
    sys::read_regular(path, MAX_BYTES).map_err(|error| match error.raw_os_error() {
        Some(libc::EISDIR | libc::EINVAL) => Error::failed(format!("{file} is not a regular file")),
        Some(libc::EFBIG) => {
            Error::failed(format!("{file} is longer than 4 MiB: no configuration is"))
        }
        _ => Error::failed(format!("cannot read {file}")).because(&error),
    })
}

/// A site's name out of its root: `site1` for `/srv/www/site1` and for `/srv/www/site1/chroot`.
fn name_of(root: &HostPath) -> String {
    let names: Vec<_> = root
        .as_path()
        .iter()
        .skip(1)
        .map(|name| word(&name.to_string_lossy()))
        .collect();
    let telling = names
        .iter()
        .rev()
        .find(|name| !NAMELESS.contains(&name.as_str()));
    telling
        .or(names.last())
        .cloned()
        .unwrap_or_else(|| "site".to_owned())
}

/// `text` with what no site's name may have replaced.
fn word(text: &str) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "._-@".contains(c) {
            c
        } else {
            '-'
        }
    };
    let word: String = text.chars().map(allowed).collect();
    if SiteName::new(&word).is_ok() {
        word
    } else {
        format!("site{word}")
    }
}

/// Gives a site whose name another one has already a name with a number, and says so.
fn unique_names(imported: &mut Imported) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for draft in &mut imported.drafts {
        let mut name = draft.name.clone();
        let mut nth = 2;
        while taken.contains(&name) {
            name = format!("{}-{nth}", draft.name);
            nth += 1;
        }
        if name != draft.name {
            imported.warnings.push(format!(
                "{}: another site is called {} already; this one is called {name}",
                draft.place, draft.name
            ));
            draft.name.clone_from(&name);
        }
        taken.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(lines in proptest::collection::vec(
            proptest::prop_oneof![
                "[a-z]{0,3}[=:/ ]{0,2}[a-z,%]{0,4}",
                "[/a-z\\\\0-4]{0,8}[ \t]{1,2}/[/a-z.]{0,8}[ \t]none[ \t](r?bind|ro|remount|,){0,4}( [0-9x])?",
                "[\\[\\]a-zD# ;\t]{0,6}",
                "\\PC{0,6}",
            ],
            0..8,
        )) {
            let text = lines.join("\n");
            let file = Path::new("f");
            let presets = Presets::built_in();
            let _ = file_format::of(file, text.as_bytes());
            if let Ok(fstab) = fstab::read(file, text.as_bytes()) {
                let found = Importer { fstabs: vec![fstab], ..Importer::default() };
                for draft in found.drafts(&presets).drafts {
                    let site = SiteName::new(&draft.name).unwrap();
                    let source = crate::manifest::SourceFile::File("f".into());
                    proptest::prop_assert!(crate::manifest::parse(site, source, &draft.to_yaml(), &presets).is_ok());
                }
            }
            if let Ok(sections) = jailkit::read(file, text.as_bytes()) {
                let _ = Importer { sections, ..Importer::default() }.drafts(&presets);
            }
        }
    }

    #[test]
    fn names_come_from_roots() {
        for (root, name) in [
            ("/srv/www/site1", "site1"),
            ("/srv/www/site1/chroot", "site1"),
            ("/srv/ä b", "site--b"),
            ("/root", "root"),
        ] {
            assert_eq!(name_of(&HostPath::new(root).unwrap()), name);
        }
    }
}
