//! The kernel's mount table and the records → [`Observed`].
//!
//! In: a [`Desired`](crate::resolve::Desired), which tells it where to look, the kernel and the
//! records. Out: what is at each target, each directory on the way and each link, and what of it is
//! recorded. This stage only reads and never changes anything.

mod clock;
mod clone_ids;
mod file_systems;
mod holders;
mod home;
mod late;
mod left_out;
mod look;
mod lost;
mod lost_grafts;
mod lost_placeholders;
mod mountinfo;
mod namespace;
mod observed;
mod ordering;
mod outdated;
mod outline;
mod outside;
mod process;
mod processes;
mod read_cache;
mod record;
mod record_file;
mod recorded;
mod records_ahead;
mod run_namespaces;
mod settled;
mod shared_storage;
mod space;
mod standing;
mod state;
mod strays;
mod submounts;
mod table;
mod template_files;
mod template_look;
mod template_records;
mod unit_files;
mod unit_lines;
mod unmounting;
mod unwritable;
mod users;
mod watching;

pub use clock::{boot_id, now, since_boot};
pub use clone_ids::CloneIds;
pub(crate) use file_systems::file_system_at;
pub use late::FileSystems;
pub(crate) use left_out::left_out;
pub(crate) use look::look_into_grafts;
pub use look::observe;
pub(crate) use lost_grafts::TEMPLATE_SOURCE;
pub(crate) use mountinfo::count as mount_count;
pub use mountinfo::{MountInfo, parse as parse_mountinfo};
pub use observed::{Holder, Observed, ObservedMount, PathState, Stray};
pub use ordering::{Ordering, is_network_type, mounts_of};
pub use outdated::{Inside, Outdated, ProcessesIn, outdated};
pub use outside::users_outside;
pub use process::Process;
pub(crate) use process::own_unit;
pub use processes::{
    apart_from_first, holds_manager, inside, inside_each, is_managers, of_unit, owners_are_hidden,
    php_fpm_masters, root_of, sees_same, without_mounts,
};
pub use record::{
    BootId, BootRecord, Contents, CreatedKind, CreatedPath, History, Identity, KnownGraft,
    PersistentRecord, RecordedMount, RootDirectory, Submount, Unknown, Unreadable, VERSION,
};
pub(crate) use recorded::{as_recorded, clones_of, mount_ids};
pub(crate) use run_namespaces::NamespaceDirectories;
pub use run_namespaces::{
    NAMESPACE_VERSION, NamespaceId, NamespaceRecord, RunNamespace, RunNamespaces, namespace_inode,
    namespace_record, of_units,
};
pub(crate) use settled::Settled;
pub use shared_storage::shared_storage;
pub use standing::standing;
pub use state::{SiteRecords, StateDir};
pub use submounts::submounts;
pub use table::Table;
pub(crate) use template_files::{pin, template_with, templates_in};
pub use unit_files::Units;
pub use unit_lines::{UnitLine, unit_lines};
pub(crate) use unmounting::unmount_command;
pub(crate) use unwritable::{how_to_write, unwritable};
pub use users::{Depth, Used, User, Users};
pub use watching::{WatchFailure, WatchState};
