//! What `/proc` tells about processes, their threads and their open files: `proc(5)`.
//!
//! `proc` is always the directory of a process or of a thread, such as `/proc/812`.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The directories of all processes, each with its process id.
pub fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    numbers_in("/proc").map(|pid| (pid, of(pid)))
}

/// The directory of the process `pid`.
pub fn of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// The directory of a thread of this process.
pub fn of_own_thread(thread: libc::pid_t) -> PathBuf {
    PathBuf::from(format!("/proc/self/task/{thread}"))
}

/// The ids of the process's threads.
pub fn threads(proc: &Path) -> impl Iterator<Item = libc::pid_t> {
    numbers_in(proc.join("task"))
}

/// The open descriptors of this process. Errors: `/proc` is not mounted.
pub fn own_descriptors() -> io::Result<impl Iterator<Item = RawFd>> {
    fs::read_dir("/proc/self/fd").map(numbers)
}

/// The path by which system calls take this process's open file `fd` where they take no descriptor.
pub fn path_of_descriptor(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// The name of this process's open file `fd`. The kernel gives it without asking a file system.
pub fn name_of_descriptor(fd: RawFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{fd}"))
}

/// Opens with `O_PATH` what `link` of a process leads to, such as `/proc/812/root`. The path in the
/// link does not matter.
pub fn open_link(link: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_PATH).open(link)
}

/// A text with one field per line: `NAME: VALUE`.
pub struct Fields(String);

impl Fields {
    /// The value of the field `name`, without the spaces around it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value.trim())
    }
}

/// `proc_pid_fdinfo(5)` for this process's open file `fd`.
pub fn descriptor_info(fd: RawFd) -> io::Result<Fields> {
    text(format!("/proc/self/fdinfo/{fd}")).map(Fields)
}

/// `proc_pid_status(5)`; `None`: the process has ended.
pub fn status(proc: &Path) -> Option<Fields> {
    text(proc.join("status")).ok().map(Fields)
}

/// The control groups of the process, one per hierarchy: `proc_pid_cgroup(5)`.
pub fn control_groups(proc: &Path) -> Option<String> {
    text(proc.join("cgroup")).ok()
}

/// The name of the program, as `ps` shows it: `proc_pid_comm(5)`. The process may choose it.
pub fn name(proc: &Path) -> Option<String> {
    Some(text(proc.join("comm")).ok()?.trim_end().to_owned())
}

/// When the process began, in ticks since boot: field 22 of `proc_pid_stat(5)`.
pub fn start_time(proc: &Path) -> Option<u64> {
    stat(proc)?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The state of the process, one letter: field 3 of `proc_pid_stat(5)`.
pub fn state(proc: &Path) -> Option<char> {
    stat(proc)?.chars().next()
}

/// A name for the process's mount namespace: `ns/mnt`. Equal names are the same namespace.
pub fn mount_namespace(proc: &Path) -> io::Result<PathBuf> {
    fs::read_link(proc.join("ns/mnt"))
}

/// The fields of `proc_pid_stat(5)` from the third on. The second one is the name of the program in
/// parentheses, which may contain anything.
fn stat(proc: &Path) -> Option<String> {
    let text = text(proc.join("stat")).ok()?;
    let (_, after_name) = text.rsplit_once(')')?;
    Some(after_name.trim_start().to_owned())
}

/// The text of a file. Parts of it are chosen by processes, in any encoding: bytes that are not
/// UTF-8 are replaced by U+FFFD.
fn text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// The entries of a directory whose names are numbers. It is empty if the directory cannot be read.
fn numbers_in<N: FromStr>(directory: impl AsRef<Path>) -> impl Iterator<Item = N> {
    fs::read_dir(directory).into_iter().flat_map(numbers)
}

fn numbers<N: FromStr>(entries: fs::ReadDir) -> impl Iterator<Item = N> {
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_among_all_and_is_described() {
        let own = of(std::process::id());
        assert!(processes().any(|(pid, proc)| pid == std::process::id() && proc == own));
        let fields = status(&own).unwrap();
        assert_eq!(
            fields.get("Pid"),
            Some(std::process::id().to_string().as_str())
        );
        assert_eq!(fields.get("Pi"), None);
        assert!(state(&own).is_some_and(|state| state.is_ascii_uppercase()));
        assert!(start_time(&own) > Some(0));
        let thread = nix::unistd::gettid().as_raw();
        assert!(threads(&own).any(|id| id == thread));
        let fields = status(&of_own_thread(thread)).unwrap();
        assert_eq!(fields.get("Pid"), Some(thread.to_string().as_str()));
    }

    #[test]
    fn a_name_in_another_encoding_hides_nothing() {
        let thread = std::thread::spawn(|| {
            nix::sys::prctl::set_name(c"caf\xe9 ) Z").unwrap();
            let own = of_own_thread(nix::unistd::gettid().as_raw());
            assert_eq!(name(&own).unwrap(), "caf\u{fffd} ) Z");
            assert_eq!(state(&own), Some('R'));
            assert!(status(&own).unwrap().get("Uid").is_some());
        });
        thread.join().unwrap();
    }

    #[test]
    fn an_open_file_is_described() {
        let file = File::open("/proc/self/exe").unwrap();
        let fd = file.as_raw_fd();
        assert!(own_descriptors().unwrap().any(|open| open == fd));
        assert!(name_of_descriptor(fd).unwrap().is_absolute());
        assert!(path_of_descriptor(&file).exists());
        assert!(descriptor_info(fd).unwrap().get("flags").is_some());
        assert!(descriptor_info(-1).is_err());
    }
}
