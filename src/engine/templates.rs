//! The templates: which sites hold each, and what each shows.
//!
//! `<run>/templates` has the records of the templates, and one directory per template, on which the
//! template itself is mounted: a tmpfs whose mount is shared. `NAME.sites` beside it has an empty
//! directory per site with a graft of the template.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sys_mount::MountFlags;

use super::backend::{mount, set_propagation};
use super::features::Choice;
use super::journal;
use super::lock::Lock;
use super::template_place::{FLAGS, TemplatePlace, make_tmpfs};
use crate::base::hints::Doing;
use crate::base::{Error, ErrorContext, Extent, HostPath, JailPath, Result, SiteName};
use crate::observe::{BootId, Contents, StateDir, Table, Unknown, template_with, templates_in};
use crate::resolve::FileId;
use crate::sys;

/// A template, and the files of its mounts.
pub(crate) type ShownTemplate = (SiteName, Vec<Option<FileId>>);

/// The templates of one mount namespace.
pub(crate) struct TemplateStore {
    state: StateDir,
    /// The records of the sites.
    sites: StateDir,
    /// The file whose lock is held while the place is made, used for one more site, or removed.
    lock: PathBuf,
    place: TemplatePlace,
    boot: BootId,
}

impl TemplateStore {
    /// The place for an engine with the records `state`.
    pub(super) fn new(state: &StateDir, choice: Choice, boot: &BootId) -> Self {
        let lock = state.run.join("templates.lock");
        let sites = state.clone();
        let state = state.templates();
        Self {
            sites,
            place: TemplatePlace::new(state.run.clone(), choice),
            state,
            lock,
            boot: boot.clone(),
        }
    }

    /// Registers `site` as one with a graft of a template with these contents, and returns the
    /// template's name. Until the site releases it, the template stays. A new one is made if there
    /// is none.
    pub(crate) fn hold(&self, contents: &str, site: &SiteName) -> Result<SiteName> {
        let _lock = Lock::take(&self.lock, || ())?;
        if !self.place.is_still_open() {
            self.place.make()?;
        }
        if let Some(template) = self.find(contents) {
            let hold = self.register_also(&template, site);
            self.explained("use", &template, hold)?;
            return Ok(template);
        }

        let template = self.unused_name(contents)?;
        let registered = self.register_first(contents, &template, site);
        self.explained("use", &template, registered)?;
        Ok(template)
    }

    fn register_also(&self, template: &SiteName, site: &SiteName) -> io::Result<()> {
        self.restore_sites(template)?;
        fs::create_dir_all(self.state.sites_of(template).join(site.as_str()))
    }

    fn register_first(
        &self,
        contents: &str,
        template: &SiteName,
        site: &SiteName,
    ) -> io::Result<()> {
        let sites = self.state.sites_of(template);
        fs::create_dir_all(&self.state.lib)?;
        fs::create_dir_all(&sites)?;
        self.index(contents, template)?;
        fs::create_dir_all(sites.join(site.as_str()))
    }

    /// Registers the sites with a graft of the template again, if it is lost which they are. A site
    /// whose record cannot be used may be one of them.
    fn restore_sites(&self, template: &SiteName) -> io::Result<()> {
        let sites = self.state.sites_of(template);
        if sites.exists() {
            return Ok(());
        }
        for site in self.sites.sites_of_boot().map_err(io::Error::other)? {
            if self.sites.may_graft(&site, template) {
                fs::create_dir_all(sites.join(site.as_str()))?;
            }
        }
        Ok(())
    }

    /// The template with these contents, if this engine can use it.
    fn find(&self, contents: &str) -> Option<SiteName> {
        let template = self.held(contents)?;
        self.may_show(&template, contents).then_some(template)
    }

    /// As [`Self::find`], if a site that [holds](Self::hold) it asks: then it has these contents.
    pub(super) fn held(&self, contents: &str) -> Option<SiteName> {
        let name = fs::read_link(template_with(&self.state.run, contents)).ok()?;
        let template = SiteName::new(name.to_str()?).ok()?;
        let is_usable = self.is_there(&template) && self.place.can_use(&self.root_of(&template));
        is_usable.then_some(template)
    }

    /// Whether there is a template of this name. One that is being made has no directory yet.
    fn is_there(&self, template: &SiteName) -> bool {
        self.state.sites_of(template).exists() || self.root_of(template).exists()
    }

    /// Whether nothing else than `contents` is recorded of the template. A new one has no record of
    /// its contents until it is complete.
    fn may_show(&self, template: &SiteName, contents: &str) -> bool {
        let Ok(Some(known)) = self.state.known_template(template, &self.boot) else {
            return true;
        };
        let Some(known) = &known.contents else {
            return true;
        };
        known.key.as_deref() == Some(contents)
    }

    /// Marks the template, of which `site` has a graft, as one whose contents change: no other site
    /// can get a graft of it until it is [published](Self::publish) again.
    ///
    /// Errors: another site has one already.
    pub(crate) fn begin_change(&self, template: &SiteName, site: &SiteName) -> Result<()> {
        let _lock = Lock::take(&self.lock, || ())?;
        let restored = self.restore_sites(template);
        let sites = restored.and_then(|()| fs::read_dir(self.state.sites_of(template)));
        for other in self.explained("change", template, sites)?.flatten() {
            if other.file_name() != site.as_str() {
                return Err(Error::failed(format!(
                    "another site came to share {template} while the command ran"
                ))
                .overtaken()
                .hint("run the command again"));
            }
        }

        self.unindex(template);
        let Some(mut record) = self.state.template(template, &self.boot) else {
            return Ok(());
        };
        let Some(contents) = record.contents.as_mut() else {
            return Ok(());
        };
        if contents.key.take().is_some() {
            journal::write_record(&self.state, template, &record)?;
        }
        Ok(())
    }

    /// Records what the template shows now, and the peer groups of its mounts, by which the mounts
    /// of grafts are recognised. It is called where the templates are.
    pub(crate) fn end_change(
        &self,
        template: &SiteName,
        contents: &str,
        at: &JailPath,
    ) -> Result<()> {
        let Some(mut record) = self.state.template(template, &self.boot) else {
            return Ok(());
        };
        let before = record.clone();
        let table = Table::read()?;
        for mount in &mut record.mounts {
            let point = record.root.inside(&mount.target);
            mount.peer_group = table.peer_group_at(point.as_path(), mount.unique_id);
        }
        let directory = self.open_in(template, at).and_then(sys::stat_fd);
        let directory = self.explained("look at", template, directory)?;
        record.contents = Some(Contents {
            key: Some(contents.to_owned()),
            at: at.clone(),
            directory: Some(directory.file),
            more: Unknown::new(),
        });
        if record != before {
            journal::write_record(&self.state, template, &record)?;
        }
        Ok(())
    }

    /// Makes the template, of which this is recorded to be shown, one that other sites can use.
    pub(crate) fn publish(&self, template: &SiteName, contents: &str) -> Result<()> {
        self.explained("use", template, self.index(contents, template))
    }

    /// Makes `template` the one that is found by its contents, in place of one that is gone.
    /// Another command may do the same for a template of its own: either is right, so the last one
    /// stays.
    fn index(&self, contents: &str, template: &SiteName) -> io::Result<()> {
        if self.find(contents).is_some() {
            return Ok(());
        }
        let new = self.state.run.join(format!("{template}.is"));
        let _ = fs::remove_file(&new); // of a killed run
        symlink(template.as_str(), &new)?;
        fs::rename(new, template_with(&self.state.run, contents))
    }

    /// Makes the template one that is not found by any contents.
    fn unindex(&self, template: &SiteName) {
        let entries = fs::read_dir(&self.state.run)
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let entry = entry.path();
            if is_link_to(&entry, template) {
                let _ = fs::remove_file(entry);
            }
        }
    }

    /// A name that no template has.
    fn unused_name(&self, contents: &str) -> Result<SiteName> {
        for nth in 0.. {
            let name = match nth {
                0 => format!("template-{contents}"),
                nth => format!("template-{contents}-{nth}"),
            };
            if let Ok(name) = SiteName::new(&name)
                && !self.is_there(&name)
            {
                return Ok(name);
            }
        }
        Err(Error::failed("no name is left for a template"))
    }

    /// Releases all templates that `site` holds, besides `used`. Templates that no site holds are
    /// removed, also those that a killed run left, and with the last one the place.
    pub(crate) fn release_besides(&self, used: &HashSet<SiteName>, site: &SiteName) -> Result<()> {
        self.remove_after(|template| {
            if used.contains(template) {
                return Ok(());
            }
            self.release(template, site)
        })
    }

    /// Removes the templates that no site holds, and with the last one the place.
    pub(crate) fn remove_unheld(&self) -> Result<()> {
        self.remove_after(|_| Ok(()))
    }

    /// Does `release` for each template, and removes those that no site holds then.
    fn remove_after(&self, release: impl Fn(&SiteName) -> Result<()>) -> Result<()> {
        let lock = Lock::take(&self.lock, || ())?;
        let mut any = false;
        for template in templates_in(&self.state.run) {
            self.explained("release", &template, self.restore_sites(&template))?;
            release(&template)?;
            match fs::remove_dir(self.state.sites_of(&template)) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => any = true,
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.cannot("release", &template, &error));
                }
                _ => self.remove(&template)?,
            }
        }
        if !any {
            self.place.remove()?;
            lock.remove_file(&self.lock);
        }
        Ok(())
    }

    /// Releases a template that `site` holds, if it does. The template stays, even if no other site
    /// holds it.
    pub(crate) fn release(&self, template: &SiteName, site: &SiteName) -> Result<()> {
        match fs::remove_dir(self.state.sites_of(template).join(site.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.cannot("release", template, &error))
            }
            _ => Ok(()),
        }
    }

    /// The templates that each site holds.
    pub(crate) fn held_by_sites(&self) -> HashMap<SiteName, Vec<SiteName>> {
        let mut held: HashMap<_, Vec<_>> = HashMap::new();
        for template in templates_in(&self.state.run) {
            let sites = fs::read_dir(self.state.sites_of(&template));
            for site in sites.into_iter().flatten().flatten() {
                if let Some(site) = site.file_name().to_str()
                    && let Ok(site) = SiteName::new(site)
                {
                    held.entry(site).or_default().push(template.clone());
                }
            }
        }
        held
    }

    /// Takes the lock of a template: it is made, changed or removed by one at a time.
    pub(crate) fn lock_of(&self, template: &SiteName) -> Result<Option<Lock>> {
        if !self.state.run.exists() {
            return Ok(None);
        }
        Lock::take(&self.state.lock(template), || ()).map(Some)
    }

    /// Does `work` where `template` is, or is to be.
    ///
    /// Errors: the namespace of the templates is lost.
    pub(crate) fn within<T: Send>(
        &self,
        template: &SiteName,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        self.place.within(&self.root_of(template), work)
    }

    /// Opens the directory `at` of a template. It is called where the templates are.
    pub(super) fn open_in(&self, template: &SiteName, at: &JailPath) -> io::Result<OwnedFd> {
        let root = self.root_of(template);
        let root = sys::open_host(&root, libc::O_PATH | libc::O_DIRECTORY)?;
        sys::open_beneath(&root, at.relative(), libc::O_PATH)
    }

    /// Makes the empty tmpfs of a template, if it is not there. It is called where the templates
    /// are. Until it is [sealed](Self::seal), things can be made in it.
    pub(crate) fn make_root(&self, template: &SiteName) -> Result<()> {
        let made = make_root(&self.root_of(template));
        self.explained("make", template, made)
    }

    /// Whether the template, whose grafts show `at`, has lost its record. It is called where the
    /// templates are.
    ///
    /// Errors: the record cannot be read now, or not by this mountjail.
    pub(crate) fn lacks_record(&self, template: &SiteName, at: &JailPath) -> Result<bool> {
        let record = self.state.read(template, &self.boot)?.record;
        Ok(record.is_none() && self.open_in(template, at).is_ok())
    }

    /// Writes the record of a template by what that shows. It is called on the host.
    pub(crate) fn restore_record(&self, template: &SiteName, at: &JailPath) -> Result<()> {
        match self.state.template_by_looking(template, &self.boot, at) {
            Some(record) => journal::write_record(&self.state, template, &record),
            None => Ok(()),
        }
    }

    /// Makes the file system of a template writable, to change it.
    pub(crate) fn unseal(&self, template: &SiteName) -> Result<()> {
        let flags = FLAGS | MountFlags::REMOUNT;
        let mounted = mount(Path::new("none"), &self.root_of(template), flags);
        self.explained("change", template, mounted)
    }

    /// Makes the file system of a template read-only, also for whoever gets hold of a writable
    /// mount of it.
    pub(crate) fn seal(&self, template: &SiteName) -> Result<()> {
        let flags = FLAGS | MountFlags::REMOUNT | MountFlags::RDONLY;
        let mounted = mount(Path::new("none"), &self.root_of(template), flags);
        self.explained("seal", template, mounted)
    }

    fn remove(&self, template: &SiteName) -> Result<()> {
        self.unindex(template);
        let root = self.root_of(template);
        match self.place.unmount(&root)? {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.cannot("remove", template, &error))
            }
            _ => {
                journal::remove(&self.state.kept(template))?;
                let _ = fs::remove_file(self.state.lock(template));
                journal::remove_record(&self.state, template)
            }
        }
    }

    fn root_of(&self, template: &SiteName) -> PathBuf {
        self.state.run.join(template.as_str())
    }

    /// `result`, of which an error is that of [`Self::cannot`].
    fn explained<T>(&self, what: &str, template: &SiteName, result: io::Result<T>) -> Result<T> {
        result.map_err(|error| self.cannot(what, template, &error))
    }

    fn cannot(&self, what: &str, template: &SiteName, error: &io::Error) -> Error {
        let root = self.root_of(template);
        Error::failed(format!("cannot {what} the template {}", root.display()))
            .because(error)
            .hint_while(Doing::MakingTemplates)
    }
}

/// Makes the empty tmpfs of a template on `root`, if it is not there.
fn make_root(root: &Path) -> io::Result<()> {
    make_tmpfs(root, "mode=0755")?;
    set_propagation(root, libc::MS_SHARED, Extent::Mount)
}

fn is_link_to(entry: &Path, template: &SiteName) -> bool {
    fs::read_link(entry).is_ok_and(|name| name.as_os_str() == template.as_str())
}

/// Does `work` in a mount namespace in which the `grafts` of the root are not mounted, so that what
/// is beneath them can be seen and made.
pub(crate) fn without_grafts<T: Send>(
    root: &HostPath,
    grafts: &[&JailPath],
    work: impl FnOnce() -> T + Send,
) -> Result<T> {
    let done = sys::on_thread(|| {
        sys::new_mount_namespace()?;
        for graft in grafts {
            let graft = root.inside(graft);
            sys::umount_at(sys::open_host(graft.as_path(), libc::O_PATH)?)?;
        }
        Ok(work())
    });
    done.context(format_args!("cannot look beneath the grafts in {root}"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::observe;

    #[test]
    fn templates_that_come_to_have_the_same_contents_at_once_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        let boot = observe::boot_id().unwrap();
        let store = &TemplateStore::new(&state, Choice::Classic, &boot);
        let templates = ["template-a", "template-b"].map(|name| SiteName::new(name).unwrap());
        for template in &templates {
            fs::create_dir_all(store.state.sites_of(template)).unwrap();
        }

        for round in 0..500 {
            let contents = &format!("{round}");
            symlink("template-gone", template_with(&store.state.run, contents)).unwrap();
            thread::scope(|scope| {
                for template in &templates {
                    scope.spawn(|| store.index(contents, template).unwrap());
                }
            });
            assert!(templates.contains(&store.find(contents).unwrap()));
        }
    }
}
