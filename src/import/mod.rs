//! Existing configuration → manifests and presets: the pools of PHP-FPM, bind lines of fstab(5),
//! jailkit's sections, and the roots that the configuration of other daemons and systemd's units
//! name.
//!
//! In: configuration files of other programs; the format is detected from the contents. Out: a
//! [`Draft`] for each site and preset, to be shown or written. The files are read, and their paths
//! are looked up on this host; nothing is changed.

mod circles;
mod command_line;
mod compare;
mod daemons;
mod draft;
mod file_format;
mod files;
pub mod fpm;
mod fstab;
mod glob3;
mod hidden;
mod ini;
mod jailkit;
mod lines;
mod logins;
mod mount_options;
mod own_lines;
pub(crate) mod php;
mod php_ini;
mod real;
mod roots;
mod site_names;
mod source_properties;
pub(crate) mod unit_file;
pub(crate) mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) use command_line::{CommandLine, chain};
pub(crate) use compare::compare;
pub(crate) use draft::{Draft, DraftKind};

use crate::base::HostPath;
use crate::base::text::plural;
use crate::manifest::Presets;
use crate::observe::Units;
use crate::resolve::{Host, refuse_system};
use crate::{Error, Result};
use daemons::{DaemonSites, keys, postfix, sshd};
use draft::add_new;
use file_format::FileFormat;
use files::{included_by_sshd, is_of_fpm, text};
use fstab::{Bind, FstabFile, OtherMount};

/// Reads configuration files, and then makes drafts of all that they have.
#[derive(Debug, Default)]
pub(crate) struct Importer {
    /// The masters of PHP-FPM on this host, which decide how their files are read.
    masters: Vec<fpm::Master>,
    /// Where relative paths of PHP-FPM begin, if that is given.
    prefix: Option<PathBuf>,
    pools: Vec<fpm::Pool>,
    fstabs: Vec<FstabFile>,
    sections: Vec<jailkit::JailkitSection>,
    /// Sites of all other formats.
    sites: Vec<Draft>,
    warnings: Vec<String>,
}

/// The result of an import.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// Sites first, in the order of the files; then presets.
    pub drafts: Vec<Draft>,
    /// Remarks that need no attention: sentences.
    pub notes: Vec<String>,
    /// Warnings for the administrator: sentences.
    pub warnings: Vec<String>,
    /// The lines that could not be imported. The rest is imported anyway.
    pub errors: Vec<Error>,
}

impl Importer {
    /// `prefix`: where relative paths of PHP-FPM begin, whatever its masters are told.
    pub(crate) fn new(prefix: Option<PathBuf>) -> Self {
        Self {
            masters: fpm::masters(),
            prefix,
            ..Self::default()
        }
    }

    /// The configurations of the masters of PHP-FPM on this host.
    pub(crate) fn masters(&self) -> impl Iterator<Item = &Path> {
        self.masters.iter().map(|master| master.config.as_path())
    }

    /// Adds the contents of `path`: a file of a known format, or a directory of PHP-FPM's.
    ///
    /// Errors: it cannot be read, or has no known format; what is wrong in it, with file and line.
    /// The rest of the file is added anyway.
    pub(crate) fn read(&mut self, path: &Path) -> Result<(), Vec<Error>> {
        if path.is_dir() {
            is_of_fpm(path).map_err(|error| vec![error])?;
            return self.read_fpm(path);
        }
        let contents = text(path).map_err(|error| vec![error])?;
        let Some(format) = FileFormat::detect(path, &contents) else {
            let failed = format!("{} is not in a format that import knows", path.display());
            return Err(vec![Error::failed(failed).because_of(file_format::KNOWN)]);
        };

        let utf8 = String::from_utf8_lossy(&contents);
        match format {
            FileFormat::Fpm => return self.read_fpm(path),
            FileFormat::Fstab => return self.read_fstab(path, &contents),
            FileFormat::Jailkit => {
                let (sections, errors) = jailkit::read(path, &contents);
                add_new(&mut self.sections, sections);
                if !errors.is_empty() {
                    return Err(errors);
                }
            }
            FileFormat::Sshd => {
                let host = sshd::SshdHost {
                    user: &logins::named,
                    users_of_group: &logins::of_group,
                    included: &included_by_sshd,
                };
                self.add_sites(sshd::read(path, &utf8, &host, &Units::read()));
            }
            FileFormat::Postfix => {
                let main = match text(&path.with_file_name("main.cf")) {
                    Err(error) if error.errno() == Some(libc::ENOENT) => vec![],
                    main => main.map_err(|error| vec![error])?,
                };
                let main = String::from_utf8_lossy(&main);
                self.add_sites(postfix::read(path, &utf8, &main, &Units::read()));
            }
            FileFormat::Daemon(daemon) => {
                self.add_sites(keys::read(daemon, path, &utf8, &Units::read()));
            }
            FileFormat::Unit => {
                let unit = unit_file::of_file(path);
                if let Some(line) = unit.mount_line() {
                    return self.read_fstab(path, line.as_bytes());
                }
                self.add_sites(daemons::root_directory::read(path, &unit, &Units::read()));
            }
        }
        Ok(())
    }

    fn add_sites(&mut self, read: DaemonSites) {
        add_new(&mut self.sites, read.sites);
        add_new(&mut self.warnings, read.warnings);
    }

    fn read_fstab(&mut self, path: &Path, text: &[u8]) -> Result<(), Vec<Error>> {
        let host = Host::new();
        let without_parents =
            |path: &Path| real::without_parents(&host, path).map_err(|error| error.to_string());
        let mut fstab = fstab::read(path, text, &without_parents)?;
        real::follow_targets(&mut fstab, &host);
        add_new(&mut self.fstabs, [fstab]);
        Ok(())
    }

    fn read_fpm(&mut self, path: &Path) -> Result<(), Vec<Error>> {
        let read = fpm::read(path, self.prefix.as_deref(), &self.masters);
        let read = read.map_err(|error| vec![error])?;
        add_new(&mut self.pools, read.pools);
        add_new(&mut self.warnings, read.warnings);
        if read.errors.is_empty() {
            Ok(())
        } else {
            Err(read.errors)
        }
    }

    /// The sites, one per root whatever number of files name it, and the presets. `presets`: those
    /// that exist already.
    pub(crate) fn drafts(&self, presets: &Presets) -> Imported {
        let mut imported = Imported {
            warnings: self.warnings.clone(),
            ..Imported::default()
        };
        for fstab in &self.fstabs {
            imported.warnings.extend_from_slice(&fstab.odd);
        }
        let mut drafts = self.site_drafts(presets, &mut imported);
        let taken = self.add_own(&mut drafts);
        let roots: Vec<_> = drafts.iter().filter_map(Draft::root).collect();
        self.count_others(&roots, &mut imported.notes);
        for mount in self.others() {
            if !taken.contains(&mount.place) {
                imported.warnings.extend(warning_in_jail(mount, &roots));
            }
        }
        imported.drafts = drafts;
        unique_names(&mut imported);

        let (drafts, errors) = jailkit::drafts(&self.sections, presets);
        for draft in &drafts {
            if let Some(why) = &draft.renamed {
                imported.warnings.push(format!("{}: {why}", draft.place));
            }
        }
        imported.drafts.extend(drafts);
        imported.errors.extend(errors);
        imported
    }

    /// The lines of fstab that mount a file system, not a directory of another one.
    fn others(&self) -> impl Iterator<Item = &OtherMount> {
        self.fstabs.iter().flat_map(|fstab| &fstab.others)
    }

    /// Notes how much was read that is not of any jail.
    fn count_others(&self, roots: &[&HostPath], notes: &mut Vec<String>) {
        let pools = self.pools.iter().filter(|pool| pool.chroot().is_none());
        let others = self.others();
        let others = others.filter(|mount| root_above(mount, roots).is_none());
        let ours: usize = self.fstabs.iter().map(|fstab| fstab.ours).sum();

        for (count, what, rest) in [
            (pools.count(), "pool", "without a chroot: nothing to mount"),
            (
                others.count(),
                "line",
                "of fstab without `bind`: not of a jail",
            ),
            (ours, "line", "in mountjail's own block of fstab"),
        ] {
            if count > 0 {
                notes.push(format!("{} {rest}", plural(count, what)));
            }
        }
        for fstab in &self.fstabs {
            notes.extend_from_slice(&fstab.remarks);
        }
    }

    fn site_drafts(&self, presets: &Presets, imported: &mut Imported) -> Vec<Draft> {
        let (mut drafts, errors) = fpm::drafts(&self.pools);
        imported.errors.extend(errors);

        let host = Host::new();
        for site in &self.sites {
            let mut site = site.clone();
            if let Err(error) = follow_root(&host, &mut site) {
                imported.errors.push(error);
                continue;
            }
            if let Some(root) = site.root().filter(|root| !root.as_path().is_dir()) {
                let missing = "is not there: `mountjail up --create` makes it";
                let remark = format!("The root {root} {missing}.");
                site.remarks.push(remark);
            }
            site.presets
                .retain(|name| presets.names().any(|known| known == name));
            if let Some(Err(why)) = site.root().map(refuse_system) {
                let warning = format!("{}: {why}; not imported", site.place);
                imported.warnings.push(warning);
                continue;
            }
            match drafts.iter_mut().find(|draft| draft.root() == site.root()) {
                Some(draft) => draft.merge(site),
                None => drafts.push(site),
            }
        }

        self.add_binds(presets, &mut drafts, &mut imported.warnings);
        drafts
    }

    /// Adds what lines of fstab mount for jails alone to the drafts. Returns the places of these
    /// lines.
    fn add_own(&self, drafts: &mut [Draft]) -> BTreeSet<String> {
        let mut taken = BTreeSet::new();
        let binds = self.fstabs.iter().flat_map(|fstab| &fstab.binds);
        for mount in self.others() {
            let target = mount.target.as_ref();
            let has_bind = target
                .is_some_and(|target| binds.clone().any(|bind| is_inside(&bind.target, target)));
            if has_bind {
                continue; // nothing is ever made in a mount of ours
            }
            for draft in drafts.iter_mut() {
                if let Some(root) = draft.root().cloned()
                    && own_lines::add(draft, &root, mount)
                {
                    taken.insert(mount.place.clone());
                    break;
                }
            }
        }
        taken
    }

    /// Whether a line mounts a tmpfs in the root, in which the line `bind` mounts something.
    fn is_in_tmpfs(&self, bind: &Bind, root: &HostPath) -> bool {
        self.others().any(|mount| {
            let target = mount.target.as_ref();
            mount.fstype == "tmpfs"
                && target.is_some_and(|target| {
                    is_inside(target, root) && is_inside(&bind.target, target)
                })
        })
    }

    /// Adds the bind lines of fstab to the drafts of their roots.
    fn add_binds(&self, presets: &Presets, drafts: &mut Vec<Draft>, warnings: &mut Vec<String>) {
        let mut binds = vec![];
        for fstab in &self.fstabs {
            binds.extend_from_slice(&fstab.binds);
        }
        let known: Vec<_> = drafts.iter().filter_map(Draft::root).cloned().collect();
        let assigned = roots::assign(&binds, &known);

        for (root, binds) in &assigned.by_root {
            let (within, binds): (Vec<_>, Vec<_>) = binds
                .iter()
                .copied()
                .partition(|bind| self.is_in_tmpfs(bind, root));
            warnings.extend(within.into_iter().map(warning_in_tmpfs));
            let Some(first) = binds.first() else {
                continue;
            };
            let known = drafts.iter().position(|draft| draft.root() == Some(root));
            let at = known.unwrap_or(drafts.len());
            if known.is_none() {
                let mut draft =
                    Draft::new(site_names::of_root(root), DraftKind::Site(root.clone()));
                draft.place.clone_from(&first.place);
                drafts.push(draft);
            }
            let draft = &mut drafts[at];
            lines::add(draft, root, &binds, presets);
            draft
                .remarks
                .extend(hidden::remark(&draft.name, root, &binds));
        }
        for (bind, why) in &assigned.left {
            let Bind {
                place,
                source,
                target,
                ..
            } = bind;
            warnings.push(format!("{place}: {source} on {target}: {why}"));
        }
    }
}

/// Has the draft name the directory that its root leads to.
fn follow_root(host: &Host, site: &mut Draft) -> Result<()> {
    let Some(root) = site.root().cloned() else {
        return Ok(());
    };
    let real = real::real_as_far(host, &root)
        .map_err(|error| error.error(format!("{}: the root {root}", site.place)))?;
    if real != root {
        let remark = format!("The root {root} leads to {real}.");
        site.found.push(remark);
        site.kind = DraftKind::Site(real);
    }
    Ok(())
}

/// The root that the line mounts something in.
fn root_above<'r>(mount: &OtherMount, roots: &[&'r HostPath]) -> Option<&'r HostPath> {
    let target = mount.target.as_ref()?;
    roots.iter().copied().find(|root| target.starts_with(root))
}

/// Whether `path` is in the directory `above`, and not that directory.
fn is_inside(path: &HostPath, above: &HostPath) -> bool {
    path != above && path.starts_with(above)
}

/// The warning about a bind line whose target is in a tmpfs.
fn warning_in_tmpfs(bind: &Bind) -> String {
    let Bind {
        place,
        source,
        target,
        ..
    } = bind;
    format!(
        "{place}: {source} on {target}: it is in the tmpfs of another line, and nothing is ever \
         made there; not imported: both lines have to stay"
    )
}

/// The warning about a line that mounts a file system in a jail.
fn warning_in_jail(mount: &OtherMount, roots: &[&HostPath]) -> Option<String> {
    let root = root_above(mount, roots)?;
    let OtherMount {
        place,
        fstype,
        source,
        ..
    } = mount;
    let target = mount.target.as_ref()?;
    if mount.lacks_bind() {
        return Some(format!(
            "{place}: {source} on {target}: the line lacks the option `bind`, without which \
             mount(8) does not mount it; not imported: add `bind`, then import it again, or remove \
             the line"
        ));
    }

    let path = target.as_path();
    let order = if path.ends_with("dev/pts") || path.ends_with("dev/shm") {
        "; unmount it before the site comes up, because it lies on the mount of /dev, and mount it \
         again afterwards"
    } else {
        ""
    };
    Some(format!(
        "{place}: {fstype} on {target} is in the root {root}; it is not a bind mount and not \
         imported: the line has to stay{order}"
    ))
}

/// Appends a number to a name that another site has already, and warns about it.
fn unique_names(imported: &mut Imported) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for draft in &mut imported.drafts {
        let mut name = draft.name.clone();
        let mut number = 2;
        while taken.contains(&name) {
            name = format!("{}-{number}", draft.name);
            number += 1;
        }
        if name != draft.name {
            imported.warnings.push(format!(
                "{}: another site already has the name {}; this one gets the name {name}",
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
    use crate::base::SiteName;

    #[test]
    fn a_main_cf_that_cannot_be_read_may_name_another_queue() {
        let dir = tempfile::tempdir().unwrap();
        let master = dir.path().join("master.cf");
        std::fs::write(&master, "smtp inet n - y - - smtpd\n").unwrap();
        assert!(Importer::default().read(&master).is_ok(), "without main.cf");
        std::fs::create_dir(dir.path().join("main.cf")).unwrap();
        let errors = Importer::default().read(&master).unwrap_err();
        assert!(
            errors[0].to_string().contains("main.cf is not a regular"),
            "{errors:?}"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(lines in proptest::collection::vec(
            proptest::prop_oneof![
                "[a-z]{0,3}[=:/ ]{0,2}[a-z,%]{0,4}",
                "[/a-z\\\\0-4]{0,8}[ \t]{1,2}/[/a-z.]{0,8}[ \t]none[ \
                 \t](r?bind|ro|remount|,){0,4}( [0-9x])?",
                "[\\[\\]a-zD# ;\t]{0,6}",
                "\\PC{0,6}",
            ],
            0..8,
        )) {
            let text = lines.join("\n");
            let file = Path::new("f");
            let presets = Presets::built_in();
            let _ = FileFormat::detect(file, text.as_bytes());
            if let Ok(fstab) = fstab::read(file, text.as_bytes(), &|_| Err(String::new())) {
                let found = Importer { fstabs: vec![fstab], ..Importer::default() };
                for draft in found.drafts(&presets).drafts {
                    let site = SiteName::new(&draft.name).unwrap();
                    let source = crate::manifest::SourceFile::File("f".into());
                    let parsed = crate::manifest::parse(site, source, &draft.to_yaml(), &presets);
                    proptest::prop_assert!(parsed.is_ok());
                }
            }
            let (sections, _) = jailkit::read(file, text.as_bytes());
            let _ = Importer { sections, ..Importer::default() }.drafts(&presets);
        }
    }
}
