//! Looks at what stands in the way, beside what the host has there.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::readlinkat;
use rustix::fs::{AtFlags, statat};

use super::compare::{are_equal, forms, is_dead_socket, open};
use super::judge::{
    self, is_of_packages, is_other_version, is_roots_alone, lost_names, names_only_hosts_users,
};
use super::survey::{Class, OwnThing, Standing, Survey};
use super::tree::{self, DEEPEST, MOST};
use crate::base::text::few;
use crate::base::{Error, ErrorContext, JailPath, Result, in_words, lexical};
use crate::observe::Observed;
use crate::resolve::{Desired, FileId, FileKind};
use crate::sys::{self, Stat};

/// How many users are named.
const SHOWN: usize = 10;

/// Where links of packages lead, which update-alternatives(1) makes.
const ALTERNATIVES: &str = "/etc/alternatives";

/// The things at the paths `in_the_way`, where the site `desired` needs something else.
///
/// Errors: the root cannot be opened, or far too much is in the way.
pub(crate) fn survey(
    desired: &Desired,
    in_the_way: &[JailPath],
    observed: &Observed,
) -> Result<Survey> {
    let Desired { site, root, .. } = desired;
    let failed = format_args!("cannot look at the root {root}");
    let mut found = Survey {
        site: site.clone(),
        root: root.clone(),
        standing: vec![],
        nodes: device_nodes(desired, observed),
    };
    if in_the_way.is_empty() {
        return Ok(found);
    }

    let opened = sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY);
    let dir = opened.context(failed)?;
    let mount = sys::stat_fd(&dir).context(failed)?;
    let look = Surveyor { desired, mount };
    let mut seen = 0;
    for path in in_the_way {
        let standing = look.standing(&dir, path);
        let standing = standing.context(format_args!("cannot look at {}", root.inside(path)))?;
        if let Some(standing) = standing {
            seen += standing.tree.len();
            found.standing.push(standing);
        }
        if seen > MOST {
            return Err(Error::failed(format!(
                "more than {MOST} files stand in the way in {root}"
            )));
        }
    }
    Ok(found)
}

/// The device nodes in the root where devices are to be mounted.
fn device_nodes(desired: &Desired, observed: &Observed) -> Vec<JailPath> {
    let mut nodes = vec![];
    for mount in &desired.mounts {
        if mount.kind == FileKind::Device
            && let Some(seen) = observed.paths.get(&mount.target)
            && seen.kind == FileKind::Device
        {
            nodes.push(mount.target.clone());
        }
    }
    nodes
}

struct Surveyor<'d> {
    desired: &'d Desired,
    /// That of the root directory.
    mount: Stat,
}

/// The host's file in the place of a file.
struct Hosts<'d> {
    /// The file itself; links are followed.
    file: &'d Path,
    /// The same path, where the host may have a link.
    link: &'d Path,
    /// The contents of a file that is generated for the site.
    generated: Option<&'d [u8]>,
}

impl<'d> Hosts<'d> {
    /// The host has it at the same path as the jail.
    fn at(path: &'d Path) -> Self {
        Self {
            file: path,
            link: path,
            generated: None,
        }
    }
}

/// A file in the root that is looked at.
struct RootEntry<'l> {
    dir: &'l OwnedFd,
    name: &'l OsStr,
    path: JailPath,
    /// From the path in the way.
    below: PathBuf,
    stat: Stat,
}

impl Surveyor<'_> {
    /// The thing at `path`. `None`: nothing is there any more.
    fn standing(&self, root: &OwnedFd, path: &JailPath) -> io::Result<Option<Standing>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let dir = match sys::open_unmounted(root, parent.relative(), flags) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                return Ok(Some(elsewhere(path)));
            }
            result => result?,
        };
        let stat = match sys::stat_at(&dir, Path::new(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let mut found = Standing::at(path, stat.kind);
        let entry = RootEntry {
            dir: &dir,
            name,
            path: path.clone(),
            below: PathBuf::new(),
            stat,
        };
        let hosts = self.hosts(path);
        self.entry(&entry, &hosts, &mut found)?;
        found.tree.sort();
        if found.files == 0 {
            found.class = found.class.max(Class::Same); // empty directories
        }
        Ok(Some(found))
    }

    /// The host's file in the place of `path`, by the mount that is desired there.
    fn hosts<'a>(&'a self, path: &'a JailPath) -> Hosts<'a> {
        let same = Hosts::at(path.as_path());
        let Some(mount) = self.desired.mount_at(path) else {
            return same;
        };
        let mut files = self.desired.files.iter();
        match files.find(|file| file.path == mount.source) {
            Some(file) => Hosts {
                generated: Some(&file.contents),
                ..same
            },
            None => Hosts {
                file: mount.source.as_path(),
                ..same
            },
        }
    }

    fn entry(
        &self,
        entry: &RootEntry<'_>,
        hosts: &Hosts<'_>,
        found: &mut Standing,
    ) -> io::Result<()> {
        let RootEntry {
            path, below, stat, ..
        } = entry;
        if found.tree.len() >= MOST || below.components().count() > DEEPEST {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        found.tree.push((below.clone(), stat.file));
        if stat.mount_root == Some(true) || !stat.is_on_mount_of(&self.mount) {
            found.cannot_move(path, "something is mounted on it");
            return Ok(());
        }
        if stat.kind == FileKind::Directory {
            return self.directory(entry, hosts, found);
        }

        found.files += 1;
        match class_of(entry, hosts, &mut found.note) {
            Ok(class) => found.class = found.class.max(class),
            Err(why) => found.is_own(path, why),
        }
        Ok(())
    }

    fn directory(
        &self,
        entry: &RootEntry<'_>,
        hosts: &Hosts<'_>,
        found: &mut Standing,
    ) -> io::Result<()> {
        let in_the_way = entry.below.as_os_str().is_empty();
        if in_the_way && !hosts.file.is_dir() {
            found.is_own(&entry.path, "it is a directory, where the host has none");
        }
        let inner = match tree::open_directory(entry.dir, Path::new(entry.name)) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                found.cannot_move(&entry.path, "something is mounted on it");
                return Ok(());
            }
            result => result?,
        };
        for name in tree::entries(&inner)? {
            let stat = match sys::stat_at(&inner, Path::new(&name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result?,
            };
            let inside = RootEntry {
                dir: &inner,
                name: &name,
                path: JailPath::normal(entry.path.as_path().join(&name)),
                below: entry.below.join(&name),
                stat,
            };
            let host = hosts.file.join(&name);
            self.entry(&inside, &Hosts::at(&host), found)?;
        }
        Ok(())
    }
}

impl Standing {
    fn at(path: &JailPath, kind: FileKind) -> Self {
        Self {
            path: path.clone(),
            kind,
            class: Class::HardLink,
            files: 0,
            own: vec![],
            note: None,
            tree: vec![],
        }
    }

    fn is_own(&mut self, path: &JailPath, why: impl Into<String>) {
        self.add_own(path, why.into(), true);
    }

    fn cannot_move(&mut self, path: &JailPath, why: &str) {
        self.add_own(path, why.to_owned(), false);
    }

    fn add_own(&mut self, path: &JailPath, why: String, movable: bool) {
        self.class = Class::Own;
        let path = path.clone();
        self.own.push(OwnThing { path, why, movable });
    }
}

/// The things in a volume of the site's own.
fn elsewhere(path: &JailPath) -> Standing {
    let mut found = Standing::at(path, FileKind::File);
    found.cannot_move(path, "it is on another mount than the root");
    found
}

/// The class of a file that is not a directory. Errors: the site's own, and why.
fn class_of(
    entry: &RootEntry<'_>,
    hosts: &Hosts<'_>,
    note: &mut Option<String>,
) -> Result<Class, String> {
    match entry.stat.kind {
        FileKind::File => class_of_file(entry, hosts, note),
        FileKind::Symlink => class_of_link(entry, hosts),
        FileKind::Device => class_of_device(entry, hosts),
        FileKind::Socket => class_of_socket(entry, hosts),
        kind => Err(format!("it is a {kind}")),
    }
}

fn class_of_file(
    entry: &RootEntry<'_>,
    hosts: &Hosts<'_>,
    note: &mut Option<String>,
) -> Result<Class, String> {
    let unread = |error: io::Error| format!("it cannot be read: {}", in_words(&error));
    let mine = open_entry(entry).map_err(unread)?;
    if let Some(generated) = hosts.generated
        && let Some(class) = class_of_names(&mine, generated, hosts, note).map_err(unread)?
    {
        return Ok(class);
    }
    let (host, kind) = hosts_file(hosts)?;
    if host == entry.stat.file {
        return Ok(Class::HardLink);
    }
    if kind != FileKind::File {
        return Err(format!("the host has a {kind} there"));
    }
    if are_equal(&mine, hosts.file).map_err(unread)? {
        return Ok(Class::Same);
    }

    let path = entry.path.as_path();
    let of_packages = is_of_packages(path) && is_of_packages(hosts.file);
    if of_packages && is_roots_alone(&entry.stat) {
        let (mine, hosts) = forms(&mine, hosts.file).map_err(unread)?;
        return if mine == hosts {
            Ok(Class::OldCopy)
        } else {
            Err(format!("it is {mine}, where the host has {hosts}"))
        };
    }
    let (mine, hosts) = (
        contents(&mine),
        sys::read_regular(hosts.file, judge::LONGEST),
    );
    match (mine, hosts) {
        (Ok(mine), Ok(hosts)) if is_other_version(path, &mine, &hosts) => Ok(Class::OldCopy),
        _ => Err("it differs from the host's".to_owned()),
    }
}

/// The class of the file `mine` in the place of the site's passwd or group. `None`: unknown.
fn class_of_names(
    mine: &OwnedFd,
    generated: &[u8],
    hosts: &Hosts<'_>,
    note: &mut Option<String>,
) -> io::Result<Option<Class>> {
    let mine = contents(mine)?;
    if mine == generated {
        return Ok(Some(Class::Same));
    }
    let Ok(host) = sys::read_regular(hosts.file, judge::LONGEST) else {
        return Ok(None);
    };
    if !names_only_hosts_users(&mine, &host) {
        return Ok(None);
    }
    let lost = lost_names(&mine, generated);
    if !lost.is_empty() {
        *note = Some(format!(
            "`users:` lacks these, which will have no names inside: {}",
            few(lost, SHOWN)
        ));
    }
    Ok(Some(if mine == host {
        Class::Same
    } else {
        Class::OldCopy
    }))
}

fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn class_of_link(entry: &RootEntry<'_>, hosts: &Hosts<'_>) -> Result<Class, String> {
    let leads = readlinkat(entry.dir, entry.name)
        .map_err(|error| format!("it cannot be read: {}", error.desc()))?;
    if let Ok(host) = fs::read_link(hosts.link) {
        let path = entry.path.as_path();
        let same = Path::new(&leads) == host
            || lexical(above(path), Path::new(&leads)) == lexical(above(hosts.link), &host);
        if same {
            return Ok(Class::Same);
        }
    }
    let end = lexical(above(entry.path.as_path()), Path::new(&leads));
    let is_to_packages = is_of_packages(&end) || end.starts_with(ALTERNATIVES);
    let of_packages = is_of_packages(entry.path.as_path()) && is_of_packages(hosts.link);
    if of_packages
        && is_to_packages
        && sys::is_roots(entry.stat.uid)
        && fs::symlink_metadata(hosts.link).is_ok()
    {
        return Ok(Class::OldCopy);
    }
    Err(format!(
        "it is a symbolic link to {}, and not one of the host's",
        Path::new(&leads).display()
    ))
}

fn class_of_device(entry: &RootEntry<'_>, hosts: &Hosts<'_>) -> Result<Class, String> {
    let mine = statat(entry.dir, entry.name, AtFlags::SYMLINK_NOFOLLOW);
    let host = fs::metadata(hosts.file);
    match (mine, host) {
        (Ok(mine), Ok(host))
            if mine.st_rdev == host.rdev() && same_type(mine.st_mode, host.mode()) =>
        {
            Ok(Class::Same)
        }
        _ => Err("it is a device node, and not one of the host's".to_owned()),
    }
}

fn same_type(a: u32, b: u32) -> bool {
    a & libc::S_IFMT == b & libc::S_IFMT
}

/// Whether no process listens at the socket any more.
fn is_dead(entry: &RootEntry<'_>) -> bool {
    open_entry(entry).is_ok_and(|socket| is_dead_socket(&socket))
}

fn class_of_socket(entry: &RootEntry<'_>, hosts: &Hosts<'_>) -> Result<Class, String> {
    let (host, kind) = hosts_file(hosts)?;
    if host == entry.stat.file {
        return Ok(Class::HardLink);
    }
    match kind {
        FileKind::Socket if is_dead(entry) => Ok(Class::OldCopy),
        FileKind::Socket => Err("it is a socket that a process listens at".to_owned()),
        kind => Err(format!("it is a socket; the host has a {kind} there")),
    }
}

/// The host's file and its type.
fn hosts_file(hosts: &Hosts<'_>) -> Result<(FileId, FileKind), String> {
    match fs::metadata(hosts.file) {
        Ok(found) => match FileKind::from_mode(found.mode()) {
            Some(kind) => Ok((FileId::of(&found), kind)),
            None => Err("the host has something else there".to_owned()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("the host has no such file".to_owned())
        }
        Err(error) => Err(format!(
            "the host's file cannot be looked at: {}",
            in_words(&error)
        )),
    }
}

/// Opens the file with `O_PATH`, if it is the one that was looked at.
fn open_entry(entry: &RootEntry<'_>) -> io::Result<OwnedFd> {
    let file = sys::open_unmounted(entry.dir, Path::new(entry.name), libc::O_PATH)?;
    let found = sys::stat_fd(&file)?;
    if found.file != entry.stat.file || found.kind != entry.stat.kind {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    Ok(file)
}

fn contents(file: &OwnedFd) -> io::Result<Vec<u8>> {
    sys::read_at_most(open(file)?, judge::LONGEST)
}
