//! The kernel's events, the index and the gathering put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::files::{Change, Files};
use super::gather::Gather;
use super::ids::{Affected, MountIds};
use super::index::{Index, User};
use super::mounts::{MountSource, MountsChanged};
use crate::manifest::{HostPath, SiteName};
use crate::resolve::{Lookups, Options};
use crate::sys::{self, MountEvent};
use crate::{Error, Result};

/// How long a change that looks half done may take to be whole.
const PATIENCE: Duration = Duration::from_millis(20);

/// A directory that went during a pass is told of by the one above; if not, it is looked for after this time.
const GONE: Duration = Duration::from_secs(1);

const LOST_FILES: &str =
    "changes of files came faster than they could be read, and some were lost: all sites are looked at";
const LOST_MOUNTS: &str =
    "mounts came and went faster than they could be read, and some were lost: all sites are looked at";

/// Where the kernel cannot tell of changes, they are looked for so often.
const POLL: Duration = Duration::from_secs(5);

/// Waits for changes and tells who is due.
pub struct Watcher {
    /// Who is due, and when.
    pub gather: Gather<User>,
    index: Index,
    /// `None`: the kernel gives no inotify instance.
    files: Option<Files>,
    mounts: MountSource,
    ids: MountIds,
    sites: HashMap<SiteName, Site>,
    /// Of the sites that are up.
    roots: BTreeMap<HostPath, SiteName>,
    /// Where records are.
    run: PathBuf,
    /// Directories that could not be watched, and why.
    unwatched: Option<(usize, Errno)>,
    poll_at: Option<Instant>,
}

/// What is known of a site that is up.
struct Site {
    root: Option<HostPath>,
    record: Option<RecordId>,
}

/// What a pass found out about one user.
pub struct Learned {
    /// Who.
    pub user: User,
    /// What its state depends on; nothing, if it is not of interest any more.
    pub lookups: Vec<Arc<Lookups>>,
    /// Of a site: where it is.
    pub root: Option<HostPath>,
    /// The never reused ids of its mounts.
    pub ids: Vec<u64>,
    /// Its record as it is now: another one will be somebody else's.
    pub record: Option<RecordId>,
}

impl Watcher {
    /// A watcher of nothing yet, but for the records in the directory `run`.
    pub fn new(mounts: MountSource, run: PathBuf) -> Result<Self> {
        let mut watcher = Self {
            gather: Gather::default(),
            index: Index::default(),
            files: None,
            mounts,
            ids: MountIds::default(),
            sites: HashMap::new(),
            roots: BTreeMap::new(),
            run,
            unwatched: None,
            poll_at: None,
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
        self.files.as_ref().map_or(0, Files::count)
    }

    /// Why not everything can be watched, if so.
    pub fn blindness(&self) -> Option<Error> {
        let (count, errno) = self.unwatched?;
        let what = if count == 1 { "1 directory".to_owned() } else { format!("{count} directories") };
        let error = Error::failed(format!(
            "cannot watch {what}, so changes are looked for every {} s",
            POLL.as_secs()
        ));
        Some(match errno {
            Errno::ENOSPC => error.because_of("the limit fs.inotify.max_user_watches is reached").hint(
                "raise it: `sysctl fs.inotify.max_user_watches=524288`, and in /etc/sysctl.d to keep it",
            ),
            Errno::EMFILE => error.because_of("the limit fs.inotify.max_user_instances is reached").hint(
                "raise it: `sysctl fs.inotify.max_user_instances=1024`, and in /etc/sysctl.d to keep it",
            ),
            errno => error.because_of(errno.desc()),
        })
    }

    /// Waits until something happens, `wake` can be read, somebody is due, or it is `until`. Returns what of the mount
    /// table is new.
    pub fn wait(&self, wake: BorrowedFd<'_>, until: Option<Instant>) -> io::Result<MountsChanged> {
        let mut fds = self.mounts.poll_fds();
        let mounts = fds.len();
        fds.push(PollFd::new(wake, PollFlags::POLLIN));
        fds.extend(self.files.as_ref().map(|files| PollFd::new(files.as_fd(), PollFlags::POLLIN)));
        let until = [until, self.next()].into_iter().flatten().min();
        let timeout = until.map(|until| TimeSpec::from(until.saturating_duration_since(Instant::now())));
        match ppoll(&mut fds, timeout, None) {
            Ok(_) => Ok(MountsChanged::of(&fds[..mounts])),
            Err(Errno::EINTR) => Ok(MountsChanged::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// When somebody will be due.
    fn next(&self) -> Option<Instant> {
        [self.gather.next(), self.poll_at].into_iter().flatten().min()
    }

    /// Takes in what happened. Returns what an administrator should know of it: sentences.
    ///
    /// `undone`: sites in whose roots mounts came and went just now because a pass failed and was undone. That is no
    /// reason to try again at once.
    pub fn collect(
        &mut self,
        mounts: MountsChanged,
        undone: &BTreeSet<SiteName>,
    ) -> Result<Vec<&'static str>> {
        let now = Instant::now();
        let mut notes = vec![];
        if self.poll_at.is_some_and(|at| at <= now) {
            self.poll_at = None;
            self.everything(now);
        }
        let failed = |what: &str| format!("cannot read the events of {what}");
        let changes = self.files.as_mut().map(Files::read).transpose();
        for change in changes
            .map_err(|error| Error::failed(failed("inotify")).because(&error.into()))?
            .unwrap_or_default()
        {
            self.change(change, now, &mut notes);
        }
        if mounts.events || self.swallows(undone) {
            let events = self.mounts.read();
            let events = events.map_err(|error| Error::failed(failed("the mount table")).because(&error))?;
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
        let users: Vec<_> = self.sites.keys().cloned().map(User::Site).collect();
        self.gather.event(users, now, Duration::ZERO);
    }

    /// Configuration and sites are due.
    fn everything(&mut self, now: Instant) {
        self.gather.event([User::Presets, User::Sites], now, Duration::ZERO);
    }

    /// Whether events of the mount table are to be read because of what was undone. That the table changed is told
    /// once, so asking is enough to be told no more.
    fn swallows(&self, undone: &BTreeSet<SiteName>) -> bool {
        if undone.is_empty() {
            return false;
        }
        if !self.mounts.tells_each() {
            // At worst it is told once more.
            let _ = ppoll(&mut self.mounts.poll_fds(), Some(TimeSpec::from(Duration::ZERO)), None);
        }
        self.mounts.tells_each()
    }

    /// Where mounts are told one by one, only other attributes of one are not.
    fn table_changed(&mut self, now: Instant) {
        if self.mounts.tells_each() {
            let forbids =
                |id| Some(Options::OPEN.within(Options::of_attributes(sys::stat_mount(id).ok()?.attributes)));
            self.gather.event(self.index.remounted(forbids), now, Duration::ZERO);
        } else {
            self.everybody(now);
        }
    }

    /// Takes in what a pass found out. Who depends on a directory that is watched only from now on is due once more:
    /// what happened before was not seen.
    pub fn learn(&mut self, all: Vec<Learned>, now: Instant) {
        let mut lookups = vec![];
        for Learned { user, lookups: set, root, ids, record } in all {
            if let User::Site(site) = &user {
                self.learn_site(site, root, ids, record, !set.is_empty());
            }
            lookups.push((user, set));
        }
        let users: Vec<User> = lookups.iter().map(|(user, _)| user.clone()).collect();
        self.index.set_all(&lookups);
        self.watch(&users, now);
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
            self.roots.extend(root.clone().map(|root| (root, site.clone())));
            self.sites.insert(site.clone(), Site { root, record });
        }
    }

    fn watch(&mut self, users: &[User], now: Instant) {
        if self.files.is_none() {
            match Files::new() {
                Ok(files) => self.files = Some(files),
                Err(errno) => {
                    self.unwatched = Some((self.index.directories().count(), errno));
                    self.poll_at = Some(now + POLL);
                    return;
                }
            }
        }
        let Some(files) = &mut self.files else { return };
        let (run, index) = (&self.run, &self.index);
        // Where some could not be watched, all are tried again.
        let mut wanted: BTreeMap<&Path, bool> = if self.unwatched.is_some() {
            index.directories().collect()
        } else {
            index.directories_of(users)
        };
        wanted.insert(run, false);
        files.retain(|path| path == run || index.has(path));
        let (mut new, mut gone, mut failed, mut why) = (BTreeSet::new(), BTreeSet::new(), 0, None);
        for (path, contents) in wanted {
            match files.watch(path, contents) {
                Ok(true) => new.extend(index.inside(path)),
                Ok(false) => {}
                // It went while the pass was under way.
                Err(Errno::ENOENT | Errno::ENOTDIR) => gone.extend(index.inside(path)),
                Err(errno) => (failed, why) = (failed + 1, Some(errno)),
            }
        }
        self.unwatched = why.map(|errno| (failed, errno));
        self.poll_at = why.map(|_| now + POLL);
        for user in new {
            self.gather.at(user, now);
        }
        for user in gone {
            self.gather.at(user, now + GONE);
        }
    }

    fn change(&mut self, change: Change, now: Instant, notes: &mut Vec<&'static str>) {
        match change {
            Change::Name { directory, name, event, half_done } => {
                let patience = if half_done { PATIENCE } else { Duration::ZERO };
                if directory == self.run {
                    self.record_changed(Path::new(&name), now);
                }
                let users = self.index.at(&directory, &name, event);
                self.gather.event(users, now, patience);
            }
            Change::Lost(directory) => {
                if directory == self.run {
                    self.everything(now);
                }
                let users = self.index.inside(&directory);
                self.gather.event(users, now, PATIENCE);
            }
            Change::Overflow => {
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
        let stem = name.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let Ok(site) = SiteName::new(&stem) else { return };
        let found = RecordId::of(&self.run.join(name));
        if self.sites.get(&site).is_none_or(|known| known.record != found) {
            self.gather.event([User::Site(site)], now, Duration::ZERO);
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
                MountEvent::Attached(id) => self.ids.attached(*id, || Some(sys::stat_mount(*id).ok()?.point)),
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
                Affected::Site(site) => self.gather.event([User::Site(site)], now, Duration::ZERO),
                Affected::At(point) => {
                    let mut users = self.users_at(&point);
                    users.retain(|user| !matches!(user, User::Site(site) if undone.contains(site)));
                    self.gather.event(users, now, Duration::ZERO);
                }
                Affected::Anybody => self.everybody(now),
            }
        }
        Ok(())
    }

    /// Whose root is above the mount point, or who depends on what is below it.
    fn users_at(&self, point: &Path) -> BTreeSet<User> {
        let above = point.ancestors().filter_map(|above| self.roots.get(&HostPath::new(above).ok()?));
        let mut users: BTreeSet<User> = above.cloned().map(User::Site).collect();
        users.extend(self.index.below(point));
        users
    }

    /// Where all mounts are that are no site's, so that their end means something.
    fn list_mounts(&mut self) -> Result<()> {
        if !self.mounts.tells_each() {
            return Ok(());
        }
        let cannot =
            |error: io::Error| Error::failed("cannot list the mounts of this namespace").because(&error);
        for id in sys::list_mounts().map_err(cannot)? {
            if let Ok(mount) = sys::stat_mount(id) {
                self.ids.add_other(id, mount.point);
            }
        }
        Ok(())
    }
}

/// Which file a record is. It is replaced, never changed; its inode may be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId(u64, i64, i64);

impl RecordId {
    /// The record at `path`; `None`: there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        Some(Self(found.ino(), found.mtime(), found.mtime_nsec()))
    }
}
