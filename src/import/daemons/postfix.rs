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
            "{}: no service has `y` in the column chroot: nothing to mount",
            file.display()
        ));
        return read;
    };

    let root = parameter(main, "queue_directory").unwrap_or(QUEUE);
    let names: Vec<_> = jailed.iter().map(|(_, name)| *name).collect();
    let verb = if names.len() == 1 { "runs" } else { "run" };
    let what = format!("{} {verb} in {root}", names.join(", "));
    let place = FileLine { file, line: *line };
    if let Some(draft) = read.site(place, &what, root) {
        "postfix".clone_into(&mut draft.name);
        let needs = Needs {
            presets: &["postfix", "dns", "tls", "timezone"],
            users: &[parameter(main, "mail_owner").unwrap_or("postfix")],
            services: &["postfix@-.service", "postfix.service"],
        };
        needs.add_to(draft, units);
    }
    read
}

/// The services that run in the queue directory, with their lines.
fn jailed_services<'t>(text: &'t str, main: &str) -> Vec<(usize, &'t str)> {
    // `-` is `n` since Postfix 3.0, unless main.cf asks for the older defaults.
    let default_is_yes = parameter(main, "compatibility_level") == Some("0");
    let mut services = vec![];
    for (line, nth) in text.lines().zip(1..) {
        if line.starts_with([' ', '\t', '#']) || !looks_like(line) {
            continue;
        }
        let fields: Vec<_> = line.split_whitespace().collect();
        if fields[4] == "y" || (fields[4] == "-" && default_is_yes) {
            services.push((nth, fields[0]));
        }
    }
    services
}

/// The last value of a parameter in main.cf.
fn parameter<'m>(main: &'m str, name: &str) -> Option<&'m str> {
    let mut last = None;
    for line in main.lines() {
        if let Some((key, value)) = line.split_once('=')
            && key.trim_end() == name
        {
            last = Some(value.trim());
        }
    }
    last
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
        let read = read_with("");
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
        let read =
            read_with("queue_directory = /srv/queue\nmail_owner = mail\ncompatibility_level = 0\n");
        assert_eq!(read.sites[0].root().unwrap().to_string(), "/srv/queue");
        assert!(
            read.sites[0].found[0].starts_with("smtp, cleanup run in "),
            "{read:?}"
        );
    }
}
