//! The reasons for which PHP-FPM refuses a pool, and with it its whole configuration: its list of
//! directives with their types, and its rules for a pool. Later versions know a few more.

use std::path::Path;

use super::pool::Pool;
use crate::import::php_ini::PhpValue;

/// The type of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectiveType {
    Text,
    Number,
    Time,
    Switch,
    CoreSize,
    ProcessManager,
}

use DirectiveType::{CoreSize, Number, ProcessManager, Switch, Text, Time};

/// The directives of a pool.
const DIRECTIVES: [(&str, DirectiveType); 44] = [
    ("prefix", Text),
    ("user", Text),
    ("group", Text),
    ("listen", Text),
    ("listen.allowed_clients", Text),
    ("listen.backlog", Number),
    ("listen.acl_users", Text),
    ("listen.acl_groups", Text),
    ("listen.owner", Text),
    ("listen.group", Text),
    ("listen.mode", Text),
    ("process.priority", Number),
    ("process.dumpable", Switch),
    ("apparmor_hat", Text),
    ("pm", ProcessManager),
    ("pm.max_children", Number),
    ("pm.start_servers", Number),
    ("pm.min_spare_servers", Number),
    ("pm.max_spare_servers", Number),
    ("pm.max_spawn_rate", Number),
    ("pm.process_idle_timeout", Time),
    ("pm.max_requests", Number),
    ("pm.status_path", Text),
    ("pm.status_listen", Text),
    ("ping.path", Text),
    ("ping.response", Text),
    ("access.log", Text),
    ("access.format", Text),
    ("slowlog", Text),
    ("request_slowlog_timeout", Time),
    ("request_slowlog_trace_depth", Number),
    ("request_terminate_timeout", Time),
    ("request_terminate_timeout_track_finished", Switch),
    ("rlimit_files", Number),
    ("rlimit_core", CoreSize),
    ("chroot", Text),
    ("chdir", Text),
    ("catch_workers_output", Switch),
    ("decorate_workers_output", Switch),
    ("clear_env", Switch),
    ("security.limit_extensions", Text),
    ("php_value", Text),
    ("php_admin_value", Text),
    ("env", Text),
];

/// The directives of a pool that may also stand before the first pool.
const ALSO_GLOBAL: [&str; 3] = ["process.priority", "rlimit_core", "rlimit_files"];

/// Whether a directive may only stand in a pool.
pub(super) fn is_of_pool(name: &str) -> bool {
    let is_known = DIRECTIVES.iter().any(|(known, _)| *known == name);
    is_known && !ALSO_GLOBAL.contains(&name)
}

/// Why PHP-FPM refuses a value of a pool.
pub(super) fn of_value(name: &str, value: &PhpValue) -> Option<String> {
    let (base, key) = name.split_once('[').unwrap_or((name, ""));
    let directive = DIRECTIVES.iter().find(|(known, _)| *known == base);
    let arrays = ["env", "php_value", "php_admin_value"];
    let Some((_, kind)) = directive.filter(|_| arrays.contains(&base) != key.is_empty()) else {
        return Some(format!("PHP-FPM has no directive `{name}`"));
    };
    if value.unknown.is_some() {
        return None;
    }
    if base == "env" && value.text.is_empty() {
        return Some(format!("`{name}` has no value"));
    }
    let text = value.text.as_str();
    let is_right = match kind {
        Text => return None,
        Number => is_number(text),
        Time => is_time(text),
        Switch => is_switch(text),
        CoreSize => text.eq_ignore_ascii_case("unlimited") || is_number(text) && number(text) >= 0,
        ProcessManager => is_process_manager(text),
    };
    let needs = match kind {
        Text | Number => "a number",
        Time => "a time, such as 10s",
        Switch => "`yes` or `no`",
        CoreSize => "a number or `unlimited`",
        ProcessManager => "`static`, `dynamic` or `ondemand`",
    };
    (!is_right).then(|| format!("`{name} = {text}`: PHP-FPM needs {needs}"))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_time(text: &str) -> bool {
    text.ends_with(|c: char| c.is_ascii_digit() || "smhd".contains(c))
}

fn is_switch(text: &str) -> bool {
    let known = [
        "1", "yes", "true", "on", "", "0", "no", "none", "false", "off",
    ];
    known.iter().any(|known| text.eq_ignore_ascii_case(known))
}

fn is_process_manager(text: &str) -> bool {
    let known = ["static", "dynamic", "ondemand"];
    known.iter().any(|known| text.eq_ignore_ascii_case(known))
}

/// Why PHP-FPM refuses the value of a `php_flag` or `php_admin_flag`.
pub(super) fn of_flag(name: &str, value: &PhpValue) -> Option<String> {
    let text = &value.text;
    let is_right = value.unknown.is_some() || is_switch(text);
    (!is_right).then(|| format!("`{name} = {text}`: PHP-FPM needs `yes` or `no`"))
}

/// The number at the beginning, as atoi(3) reads it.
fn number(text: &str) -> i64 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    sign * digits[..end].parse().unwrap_or(0)
}

impl Pool {
    /// Why PHP-FPM does not start with this pool, as far as its own list of directives and their
    /// types tells.
    pub fn refusals(&self) -> Vec<String> {
        let mut why = self.refused_values.clone();
        if why.is_empty() {
            why = of_pool(self);
        }
        why
    }
}

/// Why PHP-FPM refuses a pool whose values are all right.
fn of_pool(pool: &Pool) -> Vec<String> {
    let mut why = vec![];
    let is_unknown = |name: &str| match pool.directives.get(name) {
        Some(value) => value.unknown.is_some(),
        None => false,
    };
    for name in ["listen", "user", "pm"] {
        if pool.get(name).is_none() && !is_unknown(name) {
            why.push(format!("it has no `{name}`"));
        }
    }
    let value = |name: &str| pool.get(name).map_or(0, number);
    if value("pm.max_children") < 1 && !is_unknown("pm.max_children") {
        why.push("`pm.max_children` has to be 1 or more".to_owned());
    }
    match pool.get("pm") {
        Some(pm) if pm.eq_ignore_ascii_case("dynamic") => why.extend(of_dynamic(&value)),
        Some(pm) if pm.eq_ignore_ascii_case("ondemand") => {
            let idle = pool.get("pm.process_idle_timeout");
            if idle.is_some_and(|idle| number(idle) < 1) {
                why.push("`pm.process_idle_timeout` has to be 1 or more".to_owned());
            }
        }
        _ => {}
    }
    if value("request_slowlog_timeout") > 0 && pool.get("slowlog").is_none() {
        why.push("`request_slowlog_timeout` needs `slowlog`".to_owned());
    }
    for name in ["ping.path", "pm.status_path"] {
        if let Some(path) = pool.get(name)
            && !is_path_of_page(path)
        {
            why.push(format!(
                "`{name} = {path}` has to be `/` and letters, digits or `/-_.~`"
            ));
        }
    }
    why.extend(of_chdir(pool));
    why
}

fn of_dynamic(value: &dyn Fn(&str) -> i64) -> Option<String> {
    let [start, min, max, children] = [
        "pm.start_servers",
        "pm.min_spare_servers",
        "pm.max_spare_servers",
        "pm.max_children",
    ]
    .map(value);
    if min < 1 || max < min || children < max {
        let why = "`pm = dynamic` needs 1 <= pm.min_spare_servers <= pm.max_spare_servers <= \
                   pm.max_children";
        return Some(why.to_owned());
    }
    let is_between = (min..=max).contains(&start);
    (start > 0 && !is_between).then(|| {
        "`pm.start_servers` has to be between pm.min_spare_servers and pm.max_spare_servers"
            .to_owned()
    })
}

fn is_path_of_page(path: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    path.starts_with('/') && path.len() > 1 && path.chars().all(is_allowed)
}

/// A `chdir` that is not in the root, which PHP-FPM looks for on the host.
fn of_chdir(pool: &Pool) -> Option<String> {
    let (chroot, chdir) = (pool.chroot()?, pool.get("chdir")?);
    let is_there = Path::new(chroot).is_dir();
    let inside = format!("{chroot}/{chdir}");
    if !is_there || !chdir.starts_with('/') || Path::new(&inside).is_dir() {
        return None;
    }
    Some(format!("`chdir = {chdir}` is not a directory in its root"))
}
