//! The subjects of messages, as the journal keeps them: `MESSAGE_ID=`, systemd.journal-fields(7).
//! `packaging/monitoring/mountjail.catalog` explains each to the administrator.

/// A kind of message that programs look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A site is up.
    Up,
    /// A site was taken down.
    Down,
    /// The watcher changed mounts of sites, because the host had changed.
    Changed,
    /// Something failed on a site.
    Failed,
    /// A manifest, a preset or the defaults have mistakes.
    Mistake,
    /// A site that failed is as its manifest says.
    InSync,
    /// The watcher cannot do its own work.
    WatcherTrouble,
}

impl Event {
    /// The journal's name for it. It never changes.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Up => "1d66864fc8d544bc927b4619584a73f8",
            Self::Down => "32d6c7b8199e4e70ab5cf07b21e81cef",
            Self::Changed => "c635b043c6b3478a97941fd307e60b6a",
            Self::Failed => "b0dc7ab84b834a3d810dfcde75febfdf",
            Self::Mistake => "84fac930b9014b54a970424f074a5823",
            Self::InSync => "946ed35895a74274827bb560691423f8",
            Self::WatcherTrouble => "ab33429c1c5f46be826612a8109204b9",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_catalog_explains_each_event_and_no_other() {
        let catalog = include_str!("../../packaging/monitoring/mountjail.catalog");
        let explained: Vec<_> = catalog
            .lines()
            .filter_map(|line| line.strip_prefix("-- "))
            .collect();
        let events = [
            Event::Up,
            Event::Down,
            Event::Changed,
            Event::Failed,
            Event::Mistake,
            Event::InSync,
            Event::WatcherTrouble,
        ];
        let ids: Vec<_> = events.iter().map(|event| event.id()).collect();
        assert_eq!(explained, ids);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }
}
