//! One unit, and the order that it has by its files and by its kind.

use std::collections::BTreeSet;
use std::path::Path;

use super::graph::Ordering;
use super::mount_units::{is_network_type, mounts_of};
use crate::observe::unit_lines::for_each_setting;

/// The targets that every service waits for unless it has `DefaultDependencies=no`:
/// systemd.service(5).
const EARLY_TARGETS: [&str; 2] = ["sysinit.target", "basic.target"];

/// The settings in a unit's files that determine its order.
#[derive(Default)]
pub(super) struct Unit {
    name: String,
    after: Vec<String>,
    before: Vec<String>,
    /// `Wants=`, `Requires=` and the like.
    needs: Vec<String>,
    /// The unit that a socket, timer or path starts.
    starts: Option<String>,
    paths: Vec<String>,
    no_defaults: bool,
    on_bus: bool,
    /// A file system on the network.
    is_remote: bool,
}

impl Unit {
    pub(super) fn of(name: &str, texts: &[String]) -> Self {
        let mut unit = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        for text in texts {
            for_each_setting(text, |section, key, value| {
                let value = specified(&value.replace("\\\n", " "), name);
                unit.take(section, key, &value);
            });
        }
        unit
    }

    fn stem_and_kind(&self) -> (&str, &str) {
        self.name.rsplit_once('.').unwrap_or((&self.name, ""))
    }

    fn take(&mut self, section: &str, key: &str, value: &str) {
        let words = || value.split_whitespace().map(ToOwned::to_owned);
        match (section, key) {
            ("Unit", "After") => self.after.extend(words()),
            ("Unit", "Before") => self.before.extend(words()),
            ("Unit", "Wants" | "Requires" | "Requisite" | "BindsTo" | "Upholds") => {
                self.needs.extend(words());
            }
            ("Unit", "RequiresMountsFor" | "WantsMountsFor") => self.paths.extend(words()),
            ("Unit", "DefaultDependencies") => {
                self.no_defaults = ["no", "false", "off", "0"].contains(&value);
            }
            ("Socket", "Service") | ("Timer" | "Path", "Unit") => {
                self.starts = Some(value.to_owned());
            }
            ("Service", "BusName") => self.on_bus = true,
            ("Service", "Type") => self.on_bus |= value == "dbus",
            ("Mount", "Options") => {
                self.is_remote |= value.split(',').any(|option| option == "_netdev");
            }
            ("Mount", "Type") => self.is_remote |= is_network_type(value),
            _ => {}
        }
    }

    /// Adds the order that the unit has by its settings and by its kind. The latter is in the
    /// sections on dependencies of systemd.service(5), systemd.socket(5) and so on.
    pub(super) fn put_into(&self, ordering: &mut Ordering, wanted: Option<&BTreeSet<String>>) {
        self.put_settings_into(ordering);
        if self.no_defaults {
            ordering.early.insert(self.name.clone());
        } else {
            self.put_defaults_into(ordering, wanted);
        }
    }

    fn put_settings_into(&self, ordering: &mut Ordering) {
        let name = self.name.as_str();
        for first in &self.after {
            ordering.add(first, name);
        }
        for then in &self.before {
            ordering.add(name, then);
        }
        for path in &self.paths {
            for mount in mounts_of(Path::new(path)) {
                ordering.add(&mount, name);
            }
        }
        let (stem, kind) = self.stem_and_kind();
        if ["socket", "timer", "path"].contains(&kind) {
            match &self.starts {
                Some(started) => ordering.add(name, started),
                None => ordering.add(name, &format!("{stem}.service")),
            }
        }
        if self.on_bus {
            ordering.add("dbus.socket", name);
        }
    }

    /// Adds the order that units of this kind have unless they have `DefaultDependencies=no`.
    fn put_defaults_into(&self, ordering: &mut Ordering, wanted: Option<&BTreeSet<String>>) {
        let name = self.name.as_str();
        let (_, kind) = self.stem_and_kind();
        match kind {
            "service" => {
                for target in EARLY_TARGETS {
                    ordering.add(target, name);
                }
            }
            "socket" | "timer" | "path" => {
                ordering.add("sysinit.target", name);
                ordering.add(name, &format!("{kind}s.target"));
            }
            "target" => {
                for need in self.needs.iter().chain(wanted.into_iter().flatten()) {
                    ordering.add(need, name);
                }
            }
            "mount" if self.is_remote => {
                for target in [
                    "remote-fs-pre.target",
                    "network.target",
                    "network-online.target",
                ] {
                    ordering.add(target, name);
                }
            }
            "mount" => ordering.add("local-fs-pre.target", name),
            _ => {}
        }
    }
}

/// The value for the unit `name`, with the specifiers expanded that occur in names of units.
fn specified(value: &str, name: &str) -> String {
    if !value.contains('%') {
        return value.to_owned();
    }
    let (stem, _) = name.rsplit_once('.').unwrap_or((name, ""));
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let specifiers = [
        ("%n", name),
        ("%N", stem),
        ("%p", prefix),
        ("%i", instance),
        ("%I", instance),
    ];
    let mut value = value.to_owned();
    for (specifier, text) in specifiers {
        value = value.replace(specifier, text);
    }
    value
}
