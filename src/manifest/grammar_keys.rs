//! The keys of manifests, templates of sites, presets and the defaults, and of their items.

pub(super) const SITE_KEYS: [&str; 11] = [
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
    "services",
];
/// Those of a template of sites.
pub(super) const TEMPLATE_KEYS: [&str; 12] = [
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
    "services",
];
/// Those of the defaults of all sites.
pub(super) const DEFAULTS_KEYS: [&str; 10] = [
    "scope",
    "presets",
    "devices",
    "etc",
    "programs",
    "libraries",
    "users",
    "nss",
    "mounts",
    "services",
];
pub(super) const PRESET_KEYS: [&str; 9] = [
    "description",
    "presets",
    "devices",
    "etc",
    "programs",
    "libraries",
    "users",
    "nss",
    "mounts",
];
pub(super) const MOUNT_KEYS: [&str; 9] = [
    "source",
    "any_of",
    "target",
    "access",
    "recursive",
    "optional",
    "executable",
    "devices",
    "setuid",
];
pub(super) const NAME_KEYS: [&str; 3] = ["name", "any_of", "optional"];
pub(super) const PATH_KEYS: [&str; 3] = ["path", "any_of", "optional"];
