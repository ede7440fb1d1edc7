//! Where the records are, and what they say.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use super::record::{BootId, BootRecord, PersistentRecord, Unreadable};
use crate::base::{HostPath, SiteName};
use crate::{Error, Result};

/// The directories of records and locks (`run`, gone with the boot) and of what outlives one
/// (`lib`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    /// `/run/mountjail`
    pub run: PathBuf,
    /// `/var/lib/mountjail`
    pub lib: PathBuf,
}

impl Default for StateDir {
    fn default() -> Self {
        Self {
            run: "/run/mountjail".into(),
            lib: "/var/lib/mountjail".into(),
        }
    }
}

impl StateDir {
    /// Both below `dir`: what `--state-dir` means.
    pub fn under(dir: &Path) -> Self {
        Self {
            run: dir.join("run"),
            lib: dir.join("lib"),
        }
    }

    /// The record of the site's mounts.
    pub fn record(&self, site: &SiteName) -> PathBuf {
        self.run.join(format!("{site}.json"))
    }

    /// The site's lock.
    pub fn lock(&self, site: &SiteName) -> PathBuf {
        self.run.join(format!("{site}.lock"))
    }

    /// The lock of who edits a file of the host's, such as `/etc/fstab`. No site is called so.
    pub fn edit_lock(&self) -> PathBuf {
        self.run.join(".edit.lock")
    }

    /// The record of what outlives a boot.
    pub fn kept(&self, site: &SiteName) -> PathBuf {
        self.lib.join(format!("{site}.json"))
    }

    /// Makes the directories, with mode 0700, which those that are there get as well: who can look
    /// into them hears, by inotify(7), when something is about to be made in his root.
    pub fn create(&self) -> Result<()> {
        for dir in [&self.run, &self.lib] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|error| {
                    let failed =
                        Error::failed(format!("cannot make the state directory {}", dir.display()))
                            .because(&error);
                    match error.raw_os_error() {
                        Some(libc::EACCES | libc::EPERM) => {
                            failed.hint("mountjail needs to run as root")
                        }
                        _ => failed.hint("another one can be named with --state-dir"),
                    }
                })?;
            refuse_others(dir)?;
            close(dir)?;
        }
        Ok(())
    }

    /// The sites of which there is a record.
    pub fn recorded_sites(&self) -> Vec<SiteName> {
        let names = |dir: &PathBuf| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let stems = entries.filter_map(|entry| {
                Some(
                    entry
                        .file_name()
                        .to_str()?
                        .strip_suffix(".json")?
                        .to_owned(),
                )
            });
            stems
                .filter_map(|stem| SiteName::new(&stem).ok())
                .collect::<Vec<_>>()
        };
        let mut sites = names(&self.run);
        sites.extend(names(&self.lib));
        sites.sort();
        sites.dedup();
        sites
    }

    /// What is recorded of `site`. A record that is damaged, or of another boot, counts as lost;
    /// one that cannot be read just now, or not by this mountjail, does not: it would be written
    /// over.
    pub fn read(&self, site: &SiteName, boot: &BootId) -> Result<Records> {
        let (run, lib) = (self.record(site), self.kept(site));
        let (record, kept) = (file(&run)?, file(&lib)?);
        let (record, kept) = (
            record.map(|bytes| BootRecord::parse(&bytes)),
            kept.map(|bytes| PersistentRecord::parse(&bytes)),
        );
        let versions = [
            (&run, record.as_ref().and_then(newer)),
            (&lib, kept.as_ref().and_then(newer)),
        ];
        refuse_newer(site, &versions)?;
        let mut warnings = vec![];
        let record = record.and_then(|record| or_lost(record, &run, &mut warnings));
        let kept = kept.and_then(|kept| or_lost(kept, &lib, &mut warnings));
        Ok(Records {
            record: record.filter(|record| record.boot == *boot),
            kept,
            warnings,
        })
    }
}

/// Refuses a directory in which somebody else could write records: these say what is unmounted and
/// removed.
fn refuse_others(dir: &Path) -> Result<()> {
    let cannot = || Error::failed(format!("cannot use the state directory {}", dir.display()));
    let found = fs::metadata(dir).map_err(|error| cannot().because(&error))?;
    let own = nix::unistd::geteuid().as_raw();
    if found.uid() == own && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(cannot()
        .because_of("somebody else can write in it, and so have anything unmounted and removed")
        .hint(format!(
            "make it root's alone: `chown root {0} && chmod go-w {0}`",
            dir.display()
        )))
}

/// Lets nobody else look into a directory of ours.
fn close(dir: &Path) -> Result<()> {
    let cannot = |error: io::Error| {
        Error::failed(format!(
            "cannot keep others from looking into the state directory {}",
            dir.display()
        ))
        .because(&error)
    };
    if fs::metadata(dir).map_err(cannot)?.mode() & 0o777 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(cannot)
}

/// What is recorded of one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Of this boot.
    pub record: Option<BootRecord>,
    /// Over all boots.
    pub kept: Option<PersistentRecord>,
    /// What could not be read: sentences.
    pub warnings: Vec<String>,
}

impl Records {
    /// The root that the records are about, if they tell of anything.
    pub fn root(&self) -> Option<&HostPath> {
        self.record
            .as_ref()
            .map(|record| &record.root)
            .or_else(|| self.kept.as_ref().map(|kept| &kept.root))
    }

    /// The manifest that the site was brought up by, if they tell.
    pub fn manifest(&self) -> Option<&Path> {
        let of_record = self
            .record
            .as_ref()
            .and_then(|record| record.manifest.as_deref());
        of_record.or_else(|| self.kept.as_ref()?.manifest.as_deref())
    }
}

/// Larger than any record: of 100,000 mounts it has some 40 MB.
const LONGEST: u64 = 256 << 20;

/// What the record at `path` says, in bytes; `None`: there is none.
fn file(path: &Path) -> Result<Option<Vec<u8>>> {
    let cannot = |error: &io::Error| {
        Error::failed(format!("cannot read the record {}", path.display()))
            .because(error)
            .hint("if that lasts, remove it: mounts are found by looking, placeholders that it told of stay")
    };
    match read_regular(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot(&error)),
    }
}

/// All of a regular file, without waiting for anybody, and not more than a record can have.
pub(super) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)?;
    let metadata = file.metadata()?;
    match () {
        () if metadata.is_dir() => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
        () if !metadata.is_file() => return Err(io::Error::other("it is not a regular file")),
        () if metadata.len() > LONGEST => return Err(io::Error::from_raw_os_error(libc::EFBIG)),
        () => {}
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn newer<T>(read: &Result<T, Unreadable>) -> Option<u32> {
    match read {
        Err(Unreadable::Newer(version)) => Some(*version),
        _ => None,
    }
}

/// Refuses records that only a newer mountjail understands, and says how to go on without them.
fn refuse_newer(site: &SiteName, versions: &[(&PathBuf, Option<u32>)]) -> Result<()> {
    let newer: Vec<_> = versions
        .iter()
        .filter_map(|(path, version)| Some((path.display(), (*version)?)))
        .collect();
    let Some((first, version)) = newer.first() else {
        return Ok(());
    };
    let aside: Vec<_> = newer
        .iter()
        .map(|(path, _)| format!("mv {path} {path}.newer"))
        .collect();
    Err(Error::failed(format!("the record {first} was written by a newer mountjail"))
        .because_of(Unreadable::Newer(*version))
        .hint(format!(
            "use the newer one; or go on without its records: `{}`; `mountjail down {site}` finds the mounts by looking \
             then, and placeholders stay",
            aside.join(" && ")
        )))
}

/// What was read; one that is damaged is lost.
fn or_lost<T>(read: Result<T, Unreadable>, path: &Path, warnings: &mut Vec<String>) -> Option<T> {
    let damaged = |why| {
        warnings.push(format!(
            "the record {} is damaged ({why}) and counts as lost: what it told of is found by looking at the mounts; \
             placeholders that it told of stay",
            path.display()
        ));
    };
    read.map_err(damaged).ok()
}

/// Seconds since 1970, for what is recorded; 0 of a clock that is before.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Milliseconds since boot, by a clock that nobody sets (`CLOCK_BOOTTIME`).
pub fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// The identity of this boot.
pub fn boot_id() -> Result<BootId> {
    let path = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(path)
        .map(|text| BootId(text.trim().to_owned()))
        .map_err(|error| {
            Error::failed(format!("cannot read {path}"))
                .because(&error)
                .hint("is /proc mounted?")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_record_counts_as_lost_and_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        state.create().unwrap();
        let site = SiteName::new("a").unwrap();
        let boot = BootId("b".into());
        assert_eq!(state.read(&site, &boot), Ok(Records::default()));
        fs::write(state.record(&site), "{\"version\":1,").unwrap();
        fs::write(state.kept(&site), "\0\0\0").unwrap();
        let records = state.read(&site, &boot).unwrap();
        assert_eq!(
            (records.record, records.kept, records.warnings.len()),
            (None, None, 2)
        );
        assert_eq!(state.recorded_sites(), [site]);
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        state.create().unwrap();
        for mode in [0o775, 0o757, 0o755] {
            fs::set_permissions(&state.lib, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(state.create().is_ok(), mode == 0o755, "{mode:o}");
        }
        for dir in [&state.run, &state.lib] {
            assert_eq!(
                fs::metadata(dir).unwrap().mode() & 0o777,
                0o700,
                "nobody else looks into it"
            );
        }
    }

    #[test]
    fn a_record_of_a_newer_mountjail_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        state.create().unwrap();
        let (site, boot) = (SiteName::new("a").unwrap(), BootId("b".into()));
        fs::write(
            state.kept(&site),
            "{\"version\": 7, \"something\": \"new\"}",
        )
        .unwrap();
        let error = state.read(&site, &boot).unwrap_err();
        assert!(error.to_string().contains("version 7"), "{error}");
        let aside = format!("`mv {0} {0}.newer`", state.kept(&site).display());
        assert!(
            error.hint_text().is_some_and(|hint| hint.contains(&aside)),
            "{error:?}"
        );
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        let site = SiteName::new("a").unwrap();
        fs::create_dir_all(state.kept(&site)).unwrap();
        let error = state
            .read(&site, &BootId("b".into()))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read the record ") && error.ends_with("Is a directory"),
            "{error}"
        );
    }

    #[test]
    fn a_record_of_another_boot_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        state.create().unwrap();
        let site = SiteName::new("a").unwrap();
        fs::write(
            state.record(&site),
            r#"{"version":1,"boot":"old","root":"/srv/a","mounts":[]}"#,
        )
        .unwrap();
        assert_eq!(
            state.read(&site, &BootId("new".into())),
            Ok(Records::default())
        );
        let old = state
            .read(&site, &BootId("old".into()))
            .unwrap()
            .record
            .unwrap();
        assert_eq!(old.history, None, "as it was written before there was one");
    }
}
