//! Postfix's master.cf (master(5)): services with `y` in the fifth column run in the queue
//! directory.

use std::path::Path;

use super::{DaemonSites, FileLine, Needs};
use crate::observe::Units;

/// The queue directory, if main.cf does not set it.
const QUEUE: &str = "/var/spool/postfix";

/// Whether a line is one of master.cf.
pub(in crate::import) fn looks_like(line: &str) -> bool {
    let fields: Vec<_> = line.split_whitespace().collect();
    let kinds = ["inet", "unix", "unix-dgram", "fifo", "pass"];
    fields.len() >= 8
        && kinds.contains(&fields[1])
        && fields[2..5]
            .iter()
            .all(|field| ["y", "n", "-"].contains(field))
}

/// The site of a master.cf. `main`: the text of the main.cf beside it.
pub(in crate::import) fn read(file: &Path, text: &str, main: &str, units: &Units) -> DaemonSites {
    let mut read = DaemonSites::default();
    let jailed = jailed_services(text, main);
    let Some((line, _)) = jailed.first() else {
        read.warnings.push(format!(
            "{}: no service runs in a chroot: nothing to mount",
            file.display()
        ));
        return read;
    };

    let root = parameter(main, "queue_directory").unwrap_or(QUEUE.to_owned());
    let names: Vec<_> = jailed.iter().map(|(_, name)| *name).collect();
    let verb = if names.len() == 1 { "runs" } else { "run" };
    let what = format!("{} {verb} in {root}", names.join(", "));
    let place = FileLine { file, line: *line };
    if let Some(draft) = read.site(place, &what, &root) {
        "postfix".clone_into(&mut draft.name);
        let owner = parameter(main, "mail_owner").unwrap_or("postfix".to_owned());
        let needs = Needs {
            presets: &["postfix", "dns", "tls", "timezone"],
            users: &[&owner],
            services: &["postfix@-.service", "postfix.service"],
        };
        needs.add_to(draft, units);
    }
    read
}

/// The services that run in the queue directory, with their lines.
fn jailed_services<'t>(text: &'t str, main: &str) -> Vec<(usize, &'t str)> {
    let default_is_yes = default_is_yes(main);
    let mut services = vec![];
    for (nth, fields) in entries(text) {
        let [name, _, _, _, chroot, ..] = fields.as_slice() else {
            continue;
        };
        if *chroot == "y" || (*chroot == "-" && default_is_yes) {
            services.push((nth, *name));
        }
    }
    services
}

/// The services of master.cf: their fields, and their first lines. An indented line continues the
/// one before, also over empty lines and comments.
fn entries(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut entries: Vec<(usize, Vec<&str>)> = vec![];
    for (line, nth) in text.lines().zip(1..) {
        let fields = line.split_whitespace();
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match entries.last_mut() {
            Some((_, entry)) if line.starts_with([' ', '\t']) => entry.extend(fields),
            _ => entries.push((nth, fields.collect())),
        }
    }
    entries
}

/// Whether `-` in the column chroot is `y`. Since Postfix 3.0 that depends on
/// `compatibility_level`, whose default is 0: it is `n` from level 1 on.
fn default_is_yes(main: &str) -> bool {
    let level = parameter(main, "compatibility_level").unwrap_or_default();
    let major = level.split('.').next().unwrap_or_default();
    major.trim().trim_start_matches('0').is_empty()
}

/// The last value of a parameter in main.cf. An indented line continues the one before.
fn parameter(main: &str, name: &str) -> Option<String> {
    let mut lines: Vec<String> = vec![];
    for line in main.lines() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some(whole) if line.starts_with([' ', '\t']) => whole.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    let is_it = |line: &String| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    lines.iter().rev().find_map(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: &str = "# service type private unpriv chroot wakeup maxproc command\n\
                          smtp      inet  n       -       y       -       -       smtpd\n\
                          #628      inet  n       -       y       -       -       qmqpd\n\
                          pickup    unix  n       -       n       60      1       pickup\n\
                          cleanup   unix  n       -       -       -       0       cleanup\n\
                          uucp      unix  -       n       n       -       -       pipe\n  \
                          flags=Fqhu user=uucp\n";

    fn read_with(main: &str) -> DaemonSites {
        read(Path::new("master.cf"), MASTER, main, &Units::default())
    }

    #[test]
    fn the_root_is_the_queue_directory() {
        let read = read_with("compatibility_level = 3.6\n");
        let [site] = read.sites.as_slice() else {
            panic!("{read:?}")
        };
        assert_eq!(
            (site.root().unwrap().to_string(), site.name.as_str()),
            (QUEUE.into(), "postfix")
        );
        assert_eq!(
            site.found,
            ["smtp runs in /var/spool/postfix of master.cf:2."]
        );
        let read = read_with("queue_directory =\n# or\n  /srv/queue\nmail_owner = mail\n");
        assert_eq!(read.sites[0].root().unwrap().to_string(), "/srv/queue");
        assert_eq!(read.sites[0].users[0].any_of, ["mail"]);
    }

    #[test]
    fn the_default_is_yes_below_level_one() {
        for (main, both) in [
            ("", true),
            ("#compatibility_level = 2\n", true),
            ("compatibility_level = 2\ncompatibility_level = 0\n", true),
            ("compatibility_level = 0.9\n", true),
            ("compatibility_level=1\n", false),
            ("compatibility_level =\n\t3.6\n", false),
            ("compatibility_level = 10\n", false),
        ] {
            let read = read_with(main);
            let found = &read.sites[0].found[0];
            assert_eq!(found.starts_with("smtp, cleanup run in "), both, "{main}");
        }
    }

    #[test]
    fn an_indented_line_continues_a_service() {
        let text = "smtp inet n -\n# y\n\n  y - - smtpd\n  -o chroot=n\nx unix - - n - - x\n";
        assert_eq!(jailed_services(text, ""), [(1, "smtp")]);
    }
}
