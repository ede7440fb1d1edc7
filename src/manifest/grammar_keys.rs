//! The keys of manifests, templates of sites, presets and the defaults, and of their items.

pub(super) const SITE_KEYS: [&str; 14] = [
    "root",
    "scope",
    "presets",
    "devices",
    "etc",
    "programs",
    "libraries",
    "users",
    "nss",
    "mounts",
    "directories",
    "tmpfs",
    "proc",
    "services",
];
/// Those of a template of sites.
pub(super) const TEMPLATE_KEYS: [&str; 15] = [
    "root",
    "instances",
    "scope",
    "presets",
    "devices",
    "etc",
    "programs",
    "libraries",
    "users",
    "nss",
    "mounts",
    "directories",
    "tmpfs",
    "proc",
    "services",
];
/// Those of the defaults of all sites.
pub(super) const DEFAULTS_KEYS: [&str; 13] = [
    "scope",
    "presets",
    "devices",
    "etc",
    "programs",
    "libraries",
    "users",
    "nss",
    "mounts",
    "directories",
    "tmpfs",
    "proc",
    "services",
];
pub(super) const PRESET_KEYS: [&str; 12] = [
    "description",
    "presets",
    "devices",
    "etc",
    "programs",
    "libraries",
    "users",
    "nss",
    "mounts",
    "directories",
    "tmpfs",
    "proc",
];
pub(super) const MOUNT_KEYS: [&str; 10] = [
    "source",
    "any_of",
    "target",
    "access",
    "recursive",
    "optional",
    "executable",
    "devices",
    "setuid",
    "literal",
];
pub(super) const DIRECTORY_KEYS: [&str; 4] = ["path", "user", "group", "mode"];
pub(super) const TMPFS_KEYS: [&str; 3] = ["target", "size", "mode"];
pub(super) const NAME_KEYS: [&str; 3] = ["name", "any_of", "optional"];
pub(super) const PATH_KEYS: [&str; 3] = ["path", "any_of", "optional"];
