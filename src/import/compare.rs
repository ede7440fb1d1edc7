//! The imported lines that an existing manifest lacks: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::draft::Draft;
use crate::base::quote::shell_path;
use crate::manifest::{Entry, Manifest, Request};
use crate::{Error, Result};

/// Compares the manifest `there`, in `file`, with the draft of a site and its manifest `wanted`.
/// Returns a warning besides the result, since anything else than users and services may have been
/// left out on purpose.
///
/// Errors: it has another root, or lacks users or services.
pub(crate) fn compare(
    draft: &Draft,
    wanted: &Manifest,
    there: &Manifest,
    file: &Path,
) -> (Option<Error>, Result<()>) {
    let exists = format!("{}: {}: it exists already", draft.place, file.display());
    if let Some(root) = draft.root()
        && there.root != *root
    {
        let other = Error::failed(format!(
            "{exists}, with another root: {}, not {root}",
            there.root
        ));
        let hint = format!(
            "rename one of the two: import overwrites nothing; `cat {}`",
            shell_path(file)
        );
        return (None, Err(other.hint(hint)));
    }

    let items = lacking_items(wanted, there);
    let warning = (!items.is_empty())
        .then(|| Error::failed(format!("{exists}, and lacks {}", as_list(&items))));

    let lacking = lacking_names(draft, there).join(" and ");
    if lacking.is_empty() {
        return (warning, Ok(()));
    }
    let error = Error::failed(format!("{exists}, and lacks {lacking}"));
    let hint = format!("add {lacking} to {}", file.display());
    (warning, Err(error.hint(hint)))
}

/// The users and services that the manifest `there` lacks, as it would have them.
fn lacking_names(draft: &Draft, there: &Manifest) -> Vec<String> {
    let mut known_users = BTreeSet::new();
    for entry in &there.entries {
        if let Request::User(wanted) = &entry.request {
            known_users.extend(&wanted.any_of);
        }
    }
    let mut users: Vec<&str> = vec![];
    for name in draft.users.iter().flat_map(|user| &user.any_of) {
        if !known_users.contains(name) {
            users.push(name);
        }
    }
    let mut services: Vec<&str> = vec![];
    for service in &draft.services {
        if !there.services.contains(service) {
            services.push(service);
        }
    }
    let mut lacking = vec![];
    for (key, names) in [("users", users), ("services", services)] {
        if !names.is_empty() {
            lacking.push(format!("`{key}: [{}]`", names.join(", ")));
        }
    }
    lacking
}

/// The other lines of `wanted` that bring something that `there` does not bring: its own lines,
/// and the presets with such a line. By their keys.
fn lacking_items(wanted: &Manifest, there: &Manifest) -> BTreeMap<String, BTreeSet<String>> {
    let brought: Vec<_> = there.entries.iter().map(|entry| &entry.request).collect();
    let mut lacking: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Entry { request, origin } in wanted.entries.iter().map(AsRef::as_ref) {
        let is_named = matches!(request, Request::User(_) | Request::NameService(_));
        if is_named || origin.defaults || brings(&brought, request) {
            continue;
        }
        let key = origin.key.split('[').next().unwrap_or_default();
        let (key, item) = match origin.presets.first() {
            None => (key, format!("{}{}", origin.text, on_target(request))),
            Some(preset) if !is_optional(request) => ("presets", preset.clone()),
            Some(_) => continue,
        };
        lacking.entry(key.to_owned()).or_default().insert(item);
    }
    lacking
}

/// ``"`etc`: hosts, services; `mounts`: /srv/x on /x"``
fn as_list(items: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut keys = vec![];
    for (key, items) in items {
        let items: Vec<_> = items.iter().map(String::as_str).collect();
        keys.push(format!("`{key}`: {}", items.join(", ")));
    }
    keys.join("; ")
}

/// Whether one of the requests brings what `wanted` brings, at the same place inside.
fn brings(requests: &[&Request], wanted: &Request) -> bool {
    let is_code = matches!(wanted, Request::Program(_) | Request::Library(_));
    let mut wanted = places(wanted);
    if let [path] = wanted.as_slice()
        && let Some(name) = Path::new(path).file_name()
        && is_code
    {
        // A program or library may be named without its directory.
        wanted.push(name.to_string_lossy().into_owned());
    }
    for request in requests {
        let is_tree = matches!(request, Request::Mount(_));
        for place in places(request) {
            if wanted.contains(&place) || is_tree && is_above_any(&place, &wanted) {
                return true;
            }
        }
    }
    false
}

fn is_above_any(place: &str, paths: &[String]) -> bool {
    paths.iter().any(|path| Path::new(path).starts_with(place))
}

/// Where the request brings something, inside, or the name of the program or library.
fn places(request: &Request) -> Vec<String> {
    match request {
        Request::Device(wanted) => texts("/dev/", &wanted.any_of),
        Request::Etc(wanted) => texts("/etc/", &wanted.any_of),
        Request::Program(wanted) | Request::Library(wanted) => texts("", &wanted.any_of),
        Request::Mount(mount) => match &mount.target {
            Some(target) => vec![target.to_string()],
            None => texts("", &mount.sources.any_of),
        },
        Request::Directory(directory) => vec![directory.path.to_string()],
        Request::FileSystem(target, _) => vec![target.to_string()],
        Request::User(wanted) => wanted.any_of.clone(),
        Request::NameService(name) => vec![name.clone()],
    }
}

fn texts(before: &str, names: &[impl ToString]) -> Vec<String> {
    names
        .iter()
        .map(|name| format!("{before}{}", name.to_string()))
        .collect()
}

fn on_target(request: &Request) -> String {
    if let Request::Mount(mount) = request
        && let Some(target) = &mount.target
    {
        return format!(" on {target}");
    }
    String::new()
}

fn is_optional(request: &Request) -> bool {
    match request {
        Request::Device(wanted) | Request::Etc(wanted) | Request::User(wanted) => wanted.optional,
        Request::Program(wanted) | Request::Library(wanted) => wanted.optional,
        Request::Mount(mount) => mount.sources.optional,
        Request::NameService(_) | Request::Directory(_) | Request::FileSystem(..) => false,
    }
}
