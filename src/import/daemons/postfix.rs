//! Postfix's master.cf (master(5)): services with `y` in the fifth column run in the queue
//! directory.

use std::path::Path;

use super::{DaemonSites, FileLine, add};
use crate::observe::Units;

/// Where Postfix's queue is, if main.cf does not tell.
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

/// The site of a master.cf. `main` is the text of the main.cf beside it.
pub(in crate::import) fn read(file: &Path, text: &str, main: &str, units: &Units) -> DaemonSites {
    let of_main = |key: &str| {
        let lines = main
            .lines()
            .filter(|line| !line.starts_with(['#', ' ', '\t']));
        let mut pairs = lines
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim()));
        pairs
            .rfind(|(known, _)| *known == key)
            .map(|(_, value)| value.to_owned())
    };
    // `-` is `n` since Postfix 3.0, unless main.cf asks for what was before.
    let default = of_main("compatibility_level").is_some_and(|level| level == "0");
    let jailed: Vec<_> = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.starts_with([' ', '\t', '#']) && looks_like(line))
        .filter_map(|(line, nth)| {
            let fields: Vec<_> = line.split_whitespace().collect();
            (fields[4] == "y" || (fields[4] == "-" && default)).then(|| (fields[0].to_owned(), nth))
        })
        .collect();
    let mut read = DaemonSites::default();
    let Some((_, line)) = jailed.first() else {
        read.warnings.push(format!(
            "{}: no service has `y` in the column chroot: nothing to mount",
            file.display()
        ));
        return read;
    };
    let root = of_main("queue_directory").unwrap_or_else(|| QUEUE.to_owned());
    let names: Vec<_> = jailed.iter().map(|(name, _)| name.as_str()).collect();
    let said = format!(
        "{} {} in {root}, of",
        names.join(", "),
        if names.len() == 1 { "runs" } else { "run" }
    );
    if let Some(draft) = read.site(
        FileLine { file, line: *line },
        said.trim_end_matches(", of"),
        &root,
    ) {
        "postfix".clone_into(&mut draft.name);
        let owner = of_main("mail_owner").unwrap_or_else(|| "postfix".to_owned());
        let services = ["postfix@-.service", "postfix.service"];
        add(
            draft,
            &["postfix", "dns", "tls", "timezone"],
            &[&owner],
            &services,
            units,
        );
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: &str = "# service type private unpriv chroot wakeup maxproc command\n\
                          smtp      inet  n       -       y       -       -       smtpd\n\
                          #628      inet  n       -       y       -       -       qmqpd\n\
                          pickup    unix  n       -       n       60      1       pickup\n\
                          cleanup   unix  n       -       -       -       0       cleanup\n\
                          uucp      unix  -       n       n       -       -       pipe\n  flags=Fqhu user=uucp\n";

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
