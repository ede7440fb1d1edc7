//! The kernel's events and the index put together: which dependents are due.

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

/// The directory above reports one that disappeared during a pass; if not, it is looked for after
/// this time.
const GONE: Duration = Duration::from_secs(1);

const LOST_FILES: &str = "changes of files came faster than they could be read, and some were \
                          lost; all sites are checked";
const LOST_MOUNTS: &str = "changes of mounts came faster than they could be read, and some were \
                           lost; all sites are checked";

/// Waits for changes, and makes those due that depend on them.
pub(super) struct Watcher {
    index: Index,
    directories: WatchedDirectories,
    mounts: MountSource,
    ids: MountIds,
    sites: HashMap<SiteName, WatchedSite>,
    /// Those of the sites that are up.
    roots: BTreeMap<HostPath, SiteName>,
    /// The directory of the records.
    run: PathBuf,
}

/// The knowledge of a site that is up.
struct WatchedSite {
    root: Option<HostPath>,
    record: Option<RecordId>,
}

impl Watcher {
    /// A watcher of nothing yet but the records in the directory `run`.
    pub(super) fn new(mounts: MountSource, run: PathBuf) -> Result<Self> {
        let mut watcher = Self {
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

    pub(super) fn mount_source(&self) -> &'static str {
        self.mounts.name()
    }

    pub(super) fn directories(&self) -> usize {
        self.directories.count()
    }

    /// Why not everything can be watched; `None`: it can.
    pub(super) fn blindness(&self) -> Option<Error> {
        self.directories.blindness()
    }

    /// Waits until something happens, `wake` can be read, or it is `until`. Returns which events of
    /// mounts can be read.
    pub(super) fn wait(
        &self,
        wake: BorrowedFd<'_>,
        until: Option<Instant>,
    ) -> io::Result<MountsChanged> {
        let mut fds = self.mounts.poll_fds();
        let mounts = fds.len();
        fds.push(PollFd::new(wake, PollFlags::POLLIN));
        if let Some(fd) = self.directories.fd() {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        let until = [until, self.directories.poll_at]
            .into_iter()
            .flatten()
            .min();
        let timeout =
            until.map(|until| TimeSpec::from(until.saturating_duration_since(Instant::now())));
        match ppoll(&mut fds, timeout, None) {
            Ok(_) => Ok(MountsChanged::of(&fds[..mounts])),
            Err(Errno::EINTR) => Ok(MountsChanged::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the events, and makes those due that depend on them. Returns sentences for the
    /// administrator.
    ///
    /// Errors: events cannot be read. Then everything is due.
    ///
    /// `undone`: sites in whose roots mounts came and went just now because a pass failed and was
    /// undone. That is not a reason to try again at once.
    pub(super) fn collect(
        &mut self,
        scheduler: &mut Scheduler<Dependent>,
        mounts: MountsChanged,
        undone: &BTreeSet<&SiteName>,
    ) -> Result<Vec<&'static str>> {
        let now = Instant::now();
        if let Some(at) = self.directories.poll_at
            && at <= now
        {
            self.directories.poll_at = None;
            everything(scheduler, now);
        }
        let notes = self.take_events(scheduler, mounts, undone, now);
        if notes.is_err() {
            everything(scheduler, now); // nobody knows what was missed
        }
        notes
    }

    fn take_events(
        &mut self,
        scheduler: &mut Scheduler<Dependent>,
        mounts: MountsChanged,
        undone: &BTreeSet<&SiteName>,
        now: Instant,
    ) -> Result<Vec<&'static str>> {
        let mut notes = vec![];
        let changes = self.directories.read();
        for change in changes.map_err(|errno| cannot_read("inotify", &errno.into()))? {
            self.change(scheduler, change, now, &mut notes);
        }
        if mounts.events || self.swallows(undone) {
            let events = self.mounts.read();
            let events = events.map_err(|error| cannot_read("the mount table", &error))?;
            self.mount_events(scheduler, &events, undone, now, &mut notes)?;
        }
        if mounts.table {
            self.table_changed(scheduler, now);
        }
        Ok(notes)
    }

    /// The sites that are up.
    pub(super) fn sites(&self) -> impl Iterator<Item = &SiteName> {
        self.sites.keys()
    }

    pub(super) fn is_up(&self, site: &SiteName) -> bool {
        self.sites.contains_key(site)
    }

    /// Makes all sites due that are up.
    fn everybody(&self, scheduler: &mut Scheduler<Dependent>, now: Instant) {
        let sites = self.sites.keys().map(Dependent::of);
        scheduler.event(sites, now, Duration::ZERO);
    }

    /// Whether events of the mount table are to be read because of what was undone. The kernel
    /// reports once that the table changed, so one poll takes that report away.
    fn swallows(&self, undone: &BTreeSet<&SiteName>) -> bool {
        if undone.is_empty() {
            return false;
        }
        if !self.mounts.tells_each() {
            // At worst it is reported again.
            let _ = ppoll(
                &mut self.mounts.poll_fds(),
                Some(TimeSpec::from(Duration::ZERO)),
                None,
            );
        }
        self.mounts.tells_each()
    }

    /// fanotify reports each mount, but not that one was remounted with other attributes.
    fn table_changed(&self, scheduler: &mut Scheduler<Dependent>, now: Instant) {
        if self.mounts.tells_each() {
            scheduler.event(self.index.remounted(forbidden), now, Duration::ZERO);
        } else {
            self.everybody(scheduler, now);
        }
    }

    /// Takes in what a pass found out. Those that depend on a directory which is watched only from
    /// now on are due once more: what happened before was not seen.
    pub(super) fn learn(
        &mut self,
        scheduler: &mut Scheduler<Dependent>,
        all: Vec<PassResult>,
        now: Instant,
    ) {
        let mut lookups = vec![];
        for result in all {
            if let Dependent::Site(site) = &result.user {
                let known = WatchedSite {
                    root: result.root,
                    record: result.record,
                };
                self.learn_site(site, result.ids, result.is_up.then_some(known));
            }
            lookups.push((result.user, result.lookups));
        }
        let users: Vec<_> = lookups.iter().map(|(user, _)| user).collect();
        self.index.set_all(&lookups);
        let unseen = self.directories.watch(&self.run, &self.index, &users, now);
        for user in unseen.before {
            scheduler.at(user, now);
        }
        for user in unseen.gone {
            scheduler.at(user, now + GONE);
        }
    }

    /// `known`: the knowledge of the site, if it is up; `ids`: those of its mounts.
    fn learn_site(&mut self, site: &SiteName, ids: Vec<u64>, known: Option<WatchedSite>) {
        // Another site may have come up in the same root meanwhile.
        if let Some(old) = self.sites.remove(site)
            && let Some(root) = old.root
            && self.roots.get(&root) == Some(site)
        {
            self.roots.remove(&root);
        }
        if self.mounts.tells_each() {
            self.ids.set(site, ids);
        }
        let Some(known) = known else {
            return;
        };
        if let Some(root) = &known.root {
            self.roots.insert(root.clone(), site.clone());
        }
        self.sites.insert(site.clone(), known);
    }

    fn change(
        &self,
        scheduler: &mut Scheduler<Dependent>,
        change: FileChange,
        now: Instant,
        notes: &mut Vec<&'static str>,
    ) {
        match change {
            FileChange::Name {
                directory,
                name,
                event,
                half_done,
            } => {
                let patience = if half_done { PATIENCE } else { Duration::ZERO };
                if directory == self.run {
                    self.record_changed(scheduler, Path::new(&name), now);
                }
                let users = self.index.at(&directory, &name, event);
                scheduler.event(users, now, patience);
            }
            FileChange::Lost(directory) => {
                if directory == self.run {
                    everything(scheduler, now);
                }
                let users = self.index.inside(&directory);
                scheduler.event(users, now, PATIENCE);
            }
            FileChange::Overflow => {
                notes.push(LOST_FILES);
                everything(scheduler, now);
            }
        }
    }

    /// A record was written or removed, perhaps by this process.
    fn record_changed(&self, scheduler: &mut Scheduler<Dependent>, name: &Path, now: Instant) {
        let Some(site) = record_of(name) else {
            return;
        };
        let found = RecordId::of(&self.run.join(name));
        if let Some(known) = self.sites.get(&site)
            && known.record == found
        {
            return;
        }
        scheduler.event([Dependent::Site(site)], now, Duration::ZERO);
    }

    fn mount_events(
        &mut self,
        scheduler: &mut Scheduler<Dependent>,
        events: &[MountEvent],
        undone: &BTreeSet<&SiteName>,
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
                Affected::Site(site) if undone.contains(&&site) => {}
                Affected::Site(site) => {
                    scheduler.event([Dependent::Site(site)], now, Duration::ZERO);
                }
                Affected::At(point) => {
                    let mut users = self.users_at(&point);
                    users.retain(
                        |user| !matches!(user, Dependent::Site(site) if undone.contains(&site)),
                    );
                    scheduler.event(users, now, Duration::ZERO);
                }
                Affected::Anybody => self.everybody(scheduler, now),
            }
        }
        Ok(())
    }

    /// The sites whose root is above the mount point, and those that depend on something below it.
    fn users_at(&self, point: &Path) -> BTreeSet<Dependent> {
        let mut users = self.index.below(point);
        for above in point.ancestors() {
            if let Ok(above) = HostPath::new(above)
                && let Some(site) = self.roots.get(&above)
            {
                users.insert(Dependent::of(site));
            }
        }
        users
    }

    /// Notes the mount points of all mounts that are not mountjail's, so that their end can be
    /// assigned.
    fn list_mounts(&mut self) -> Result<()> {
        if !self.mounts.tells_each() {
            return Ok(());
        }
        let mounts = sys::list_mounts().map_err(|error| {
            Error::failed("cannot list the mounts of this namespace").because(&error)
        })?;
        for id in mounts {
            if let Ok(mount) = sys::stat_mount(id) {
                self.ids.add_other(id, mount.point);
            }
        }
        Ok(())
    }
}

fn cannot_read(what: &str, error: &io::Error) -> Error {
    Error::failed(format!("cannot read the events of {what}")).because(error)
}

/// What a mount forbids, if it exists.
fn forbidden(id: u64) -> Option<MountAttributes> {
    let attributes = sys::stat_mount(id).ok()?.attributes;
    Some(MountAttributes::OPEN.within(MountAttributes::from_statmount(attributes)))
}

/// The site whose record has the name `file`.
fn record_of(file: &Path) -> Option<SiteName> {
    let stem = file.to_str()?.strip_suffix(".json")?;
    SiteName::new(stem).ok()
}

/// Makes the configuration due, and with it all sites.
fn everything(scheduler: &mut Scheduler<Dependent>, now: Instant) {
    let both = [Dependent::Presets, Dependent::Sites];
    scheduler.event(both, now, Duration::ZERO);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resolve::{Aspect, Dependencies};

    fn site(name: &str) -> SiteName {
        SiteName::new(name).unwrap()
    }

    fn polling() -> (Watcher, tempfile::TempDir) {
        let run = tempfile::tempdir().unwrap();
        let mounts = MountSource::open(Some("poll")).unwrap();
        let watcher = Watcher::new(mounts, run.path().to_owned()).unwrap();
        (watcher, run)
    }

    /// What a pass found out about a site that is up in `/srv/a`, or is down.
    fn found(name: &str, up: bool, ids: Vec<u64>) -> PassResult {
        let mut lookups = Dependencies::default();
        lookups.add(Path::new("/etc/hosts"), Aspect::NAME);
        PassResult {
            user: Dependent::Site(site(name)),
            is_up: up,
            lookups: if up { vec![Arc::new(lookups)] } else { vec![] },
            root: up.then(|| HostPath::new("/srv/a").unwrap()),
            ids,
            record: None,
        }
    }

    #[test]
    fn a_root_stays_with_the_site_that_came_up_in_it() {
        let (mut watcher, _run) = polling();
        let (mut scheduler, now) = (Scheduler::default(), Instant::now());
        watcher.learn(&mut scheduler, vec![found("old", true, vec![])], now);
        // In the order of their names: the new one first.
        let renamed = vec![found("new", true, vec![]), found("old", false, vec![])];
        watcher.learn(&mut scheduler, renamed, now);
        let due = watcher.users_at(Path::new("/srv/a/etc/hosts"));
        assert_eq!(due, BTreeSet::from([Dependent::Site(site("new"))]));
        watcher.learn(&mut scheduler, vec![found("new", false, vec![])], now);
        assert!(watcher.users_at(Path::new("/srv/a/etc/hosts")).is_empty());
    }

    #[test]
    fn ids_are_kept_only_if_the_kernel_reports_them() {
        let (mut watcher, _run) = polling();
        let (mut scheduler, now) = (Scheduler::default(), Instant::now());
        for id in 0..100 {
            watcher.learn(&mut scheduler, vec![found("a", true, vec![id])], now);
        }
        assert!(watcher.ids.is_empty());
    }

    #[test]
    fn events_that_cannot_be_read_make_everything_due() {
        let (mut watcher, _run) = polling();
        watcher.mounts = MountSource::unreadable();
        let (mut scheduler, now) = (Scheduler::default(), Instant::now());
        let events = MountsChanged {
            table: false,
            events: true,
        };
        let collected = watcher.collect(&mut scheduler, events, &BTreeSet::new());
        assert!(collected.is_err());
        let later = now + Duration::from_secs(1);
        assert_eq!(
            scheduler.take(later),
            [Dependent::Presets, Dependent::Sites]
        );
    }
}
