//! System calls that no crate wraps, or not completely. Each has one small safe function.
//!
//! This is the only folder with unsafe code. There is no policy here: arguments go to the kernel,
//! and its answers are returned as [`std::io::Result`]. Each function names its manual page and the
//! kernel that introduced it.

#![allow(unsafe_code)]
// Descriptors and flags cross the system call boundary as machine words; the kernel returns small
// values.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod descriptors;
mod events;
mod file;
mod glob;
mod inherited;
mod journald;
mod leave;
mod memory;
mod mount;
mod namespace;
mod open;
mod owner;
mod privileges;
pub mod proc;
mod quiet;
mod result;
mod schedule;
mod seccomp;
mod stat;
mod statmount;
mod text;
mod trace;

pub use descriptors::close_on_exec;
pub use events::{MountEvent, read_mount_events, watch_mounts};
pub use file::{FileId, FileKind, open_regular, read_at_most, read_regular};
pub use glob::files_matching;
pub use inherited::{
    give_back_inherited, give_back_signals, is_ignored, survive_file_size_limit, wait_for_children,
};
pub use journald::send_to_journal;
pub use leave::{abandon, leave};
pub use memory::share_one_heap;
pub use mount::{
    IfInUse, MountAttr, clone_mount, mount_setattr, move_mount, move_mount_beneath, probe, umount,
    umount_at, umount_expire_probe,
};
pub use namespace::{
    change_root, enter_mount_namespace, enter_root, mount_namespace, new_mount_namespace,
    on_thread, pinned_namespace, run_on, usable_processors,
};
pub use open::{open_beneath, open_host, open_in_root, open_unmounted, stat_beneath};
pub use owner::{is_roots, maps_all_users, may_look_everywhere, mode_in_words};
pub use privileges::{drop_capabilities, leave_session_keyring};
pub use quiet::{OnMount, mount_of, mounted_at, reopen_on};
pub use schedule::undisturbed;
pub use seccomp::forbid_typing;
pub use stat::{
    Stat, entry_at, file_known_at, is_immutable, mount_id_in_table, stat_at, stat_fd,
    stat_fd_unsynced,
};
pub use statmount::{
    MountOutline, StatMount, list_mounts, list_mounts_in, list_newer_mounts, list_newer_mounts_in,
    list_some_mounts_in, mount_exists, mount_outline, mount_point, stat_mount,
};
pub use text::{iconv, load_locale};
pub use trace::{Resume, SystemCall, fork, next_signal, resume, stopped_or_ended, system_call};

/// Whether the C library of this program is musl. musl looks users and groups up in the files of
/// `/etc` and through nscd, and hosts in those files and through DNS; it does not use NSS. Its
/// character sets are built in, and it accepts any locale.
pub const MUSL: bool = cfg!(target_env = "musl");
