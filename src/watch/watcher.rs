//! The kernel's events, the index and the gathering put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::directories::WatchedDirectories;
use super::ids::{Affected, MountIds};
use super::index::{Dependent, Index};
use super::inotify::FileChange;
use super::mount_events::{MountSource, MountsChanged};
use super::pass_result::{PassResult, RecordId};
use super::scheduler::Scheduler;
use crate::base::{HostPath, MountAttributes, SiteName};
use crate::sys::{self, MountEvent};
use crate::{Error, Result};

/// How long a change that looks half done may take to be whole.
const PATIENCE: Duration = Duration::from_millis(20);

/// A directory that went during a pass is told of by the one above; if not, it is looked for after
/// this time.
const GONE: Duration = Duration::from_secs(1);

const LOST_FILES: &str = "changes of files came faster than they could be read, and some were lost: all sites are looked at";
const LOST_MOUNTS: &str = "mounts came and went faster than they could be read, and some were lost: all sites are looked at";

/// Waits for changes and tells who is due.
pub struct Watcher {
    /// Who is due, and when.
    pub gather: Scheduler<Dependent>,
    index: Index,
    directories: WatchedDirectories,
    mounts: MountSource,
    ids: MountIds,
    sites: HashMap<SiteName, WatchedSite>,
    /// Of the sites that are up.
    roots: BTreeMap<HostPath, SiteName>,
    /// Where records are.
    run: PathBuf,
}

/// What is known of a site that is up.
struct WatchedSite {
    root: Option<HostPath>,
    record: Option<RecordId>,
}

impl Watcher {
    /// A watcher of nothing yet, but for the records in the directory `run`.
    pub fn new(mounts: MountSource, run: PathBuf) -> Result<Self> {
        let mut watcher = Self {
            gather: Scheduler::default(),
            index: Index::default(),
            directories: WatchedDirectories::default(),
            mounts,
            ids: MountIds::default(),
            sites: HashMap::new(),
            roots: BTreeMap::new(),
            run,
        };
        watcher.list_mounts()?;
        Ok(watcher)
    }

    /// How changes of the mount table are seen.
    pub fn mount_source(&self) -> &'static str {
        self.mounts.name()
    }

    /// How many directories are watched.
    pub fn directories(&self) -> usize {
        self.directories.count()
    }

    /// Why not everything can be watched, if so.
    pub fn blindness(&self) -> Option<Error> {
        self.directories.blindness()
    }

    /// Waits until something happens, `wake` can be read, somebody is due, or it is `until`.
    /// Returns what of the mount table is new.
    pub fn wait(&self, wake: BorrowedFd<'_>, until: Option<Instant>) -> io::Result<MountsChanged> {
        let mut fds = self.mounts.poll_fds();
        let mounts = fds.len();
        fds.push(PollFd::new(wake, PollFlags::POLLIN));
        fds.extend(
            self.directories
                .fd()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        let until = [until, self.next()].into_iter().flatten().min();
        let timeout =
            until.map(|until| TimeSpec::from(until.saturating_duration_since(Instant::now())));
        match ppoll(&mut fds, timeout, None) {
            Ok(_) => Ok(MountsChanged::of(&fds[..mounts])),
            Err(Errno::EINTR) => Ok(MountsChanged::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// When somebody will be due.
    fn next(&self) -> Option<Instant> {
        [self.gather.next(), self.directories.poll_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes in what happened. Returns what an administrator should know of it: sentences.
    ///
    /// `undone`: sites in whose roots mounts came and went just now because a pass failed and was
    /// undone. That is no reason to try again at once.
    pub fn collect(
        &mut self,
        mounts: MountsChanged,
        undone: &BTreeSet<SiteName>,
    ) -> Result<Vec<&'static str>> {
        let now = Instant::now();
        let mut notes = vec![];
        if self.directories.poll_at.is_some_and(|at| at <= now) {
            self.directories.poll_at = None;
            self.everything(now);
        }
        let failed = |what: &str| format!("cannot read the events of {what}");
        let changes = self.directories.read();
        for change in
            changes.map_err(|error| Error::failed(failed("inotify")).because(&error.into()))?
        {
            self.change(change, now, &mut notes);
        }
        if mounts.events || self.swallows(undone) {
            let events = self.mounts.read();
            let events =
                events.map_err(|error| Error::failed(failed("the mount table")).because(&error))?;
            self.mount_events(&events, undone, now, &mut notes)?;
        }
        if mounts.table {
            self.table_changed(now);
        }
        Ok(notes)
    }

    /// The sites that are up.
    pub fn sites(&self) -> impl Iterator<Item = &SiteName> {
        self.sites.keys()
    }

    /// All sites that are up are due.
    pub fn everybody(&mut self, now: Instant) {
        let users: Vec<_> = self.sites.keys().cloned().map(Dependent::Site).collect();
        self.gather.event(users, now, Duration::ZERO);
    }

    /// Configuration and sites are due.
    fn everything(&mut self, now: Instant) {
        self.gather
            .event([Dependent::Presets, Dependent::Sites], now, Duration::ZERO);
    }

    /// Whether events of the mount table are to be read because of what was undone. That the table
    /// changed is told once, so asking is enough to be told no more.
    fn swallows(&self, undone: &BTreeSet<SiteName>) -> bool {
        if undone.is_empty() {
            return false;
        }
        if !self.mounts.tells_each() {
            // At worst it is told once more.
            let _ = ppoll(
                &mut self.mounts.poll_fds(),
                Some(TimeSpec::from(Duration::ZERO)),
                None,
            );
        }
        self.mounts.tells_each()
    }

    /// Where mounts are told one by one, only other attributes of one are not.
    fn table_changed(&mut self, now: Instant) {
        if self.mounts.tells_each() {
            let forbids = |id| {
                Some(MountAttributes::OPEN.within(MountAttributes::of_attributes(
                    sys::stat_mount(id).ok()?.attributes,
                )))
            };
            self.gather
                .event(self.index.remounted(forbids), now, Duration::ZERO);
        } else {
            self.everybody(now);
        }
    }

    /// Takes in what a pass found out. Who depends on a directory that is watched only from now on
    /// is due once more: what happened before was not seen.
    pub fn learn(&mut self, all: Vec<PassResult>, now: Instant) {
        let mut lookups = vec![];
        for PassResult {
            user,
            lookups: set,
            root,
            ids,
            record,
        } in all
        {
            if let Dependent::Site(site) = &user {
                self.learn_site(site, root, ids, record, !set.is_empty());
            }
            lookups.push((user, set));
        }
        let users: Vec<Dependent> = lookups.iter().map(|(user, _)| user.clone()).collect();
        self.index.set_all(&lookups);
        let unseen = self.directories.watch(&self.run, &self.index, &users, now);
        unseen
            .before
            .into_iter()
            .for_each(|user| self.gather.at(user, now));
        unseen
            .gone
            .into_iter()
            .for_each(|user| self.gather.at(user, now + GONE));
    }

    fn learn_site(
        &mut self,
        site: &SiteName,
        root: Option<HostPath>,
        ids: Vec<u64>,
        record: Option<RecordId>,
        up: bool,
    ) {
        if let Some(old) = self.sites.remove(site).and_then(|old| old.root) {
            self.roots.remove(&old);
        }
        self.ids.set(site, ids);
        if up {
            self.roots
                .extend(root.clone().map(|root| (root, site.clone())));
            self.sites
                .insert(site.clone(), WatchedSite { root, record });
        }
    }

    fn change(&mut self, change: FileChange, now: Instant, notes: &mut Vec<&'static str>) {
        match change {
            FileChange::Name {
                directory,
                name,
                event,
                half_done,
            } => {
                let patience = if half_done { PATIENCE } else { Duration::ZERO };
                if directory == self.run {
                    self.record_changed(Path::new(&name), now);
                }
                let users = self.index.at(&directory, &name, event);
                self.gather.event(users, now, patience);
            }
            FileChange::Lost(directory) => {
                if directory == self.run {
                    self.everything(now);
                }
                let users = self.index.inside(&directory);
                self.gather.event(users, now, PATIENCE);
            }
            FileChange::Overflow => {
                notes.push(LOST_FILES);
                self.everything(now);
            }
        }
    }

    /// Somebody wrote or removed a record: it may have been us.
    fn record_changed(&mut self, name: &Path, now: Instant) {
        if name.extension().is_none_or(|extension| extension != "json") {
            return;
        }
        let stem = name
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let Ok(site) = SiteName::new(&stem) else {
            return;
        };
        let found = RecordId::of(&self.run.join(name));
        if self
            .sites
            .get(&site)
            .is_none_or(|known| known.record != found)
        {
            self.gather
                .event([Dependent::Site(site)], now, Duration::ZERO);
        }
    }

    fn mount_events(
        &mut self,
        events: &[MountEvent],
        undone: &BTreeSet<SiteName>,
        now: Instant,
        notes: &mut Vec<&'static str>,
    ) -> Result<()> {
        for event in events {
            let affected = match event {
                MountEvent::Attached(id) => self
                    .ids
                    .attached(*id, || Some(sys::stat_mount(*id).ok()?.point)),
                MountEvent::Detached(id) => self.ids.detached(*id),
                MountEvent::Overflow => {
                    notes.push(LOST_MOUNTS);
                    self.ids.lost();
                    self.list_mounts()?;
                    Affected::Anybody
                }
            };
            match affected {
                Affected::Nobody => {}
                Affected::Site(site) if undone.contains(&site) => {}
                Affected::Site(site) => {
                    self.gather
                        .event([Dependent::Site(site)], now, Duration::ZERO)
                }
                Affected::At(point) => {
                    let mut users = self.users_at(&point);
                    users.retain(
                        |user| !matches!(user, Dependent::Site(site) if undone.contains(site)),
                    );
                    self.gather.event(users, now, Duration::ZERO);
                }
                Affected::Anybody => self.everybody(now),
            }
        }
        Ok(())
    }

    /// Whose root is above the mount point, or who depends on what is below it.
    fn users_at(&self, point: &Path) -> BTreeSet<Dependent> {
        let above = point
            .ancestors()
            .filter_map(|above| self.roots.get(&HostPath::new(above).ok()?));
        let mut users: BTreeSet<Dependent> = above.cloned().map(Dependent::Site).collect();
        users.extend(self.index.below(point));
        users
    }

    /// Where all mounts are that are no site's, so that their end means something.
    fn list_mounts(&mut self) -> Result<()> {
        if !self.mounts.tells_each() {
            return Ok(());
        }
        let cannot = |error: io::Error| {
            Error::failed("cannot list the mounts of this namespace").because(&error)
        };
        for id in sys::list_mounts().map_err(cannot)? {
            if let Ok(mount) = sys::stat_mount(id) {
                self.ids.add_other(id, mount.point);
            }
        }
        Ok(())
    }
}
