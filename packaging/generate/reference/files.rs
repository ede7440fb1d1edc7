//! Files, environment and exit codes.

use super::page::Page;

/// The page of the book, and the last sections of mountjail(8).
pub fn page() -> Page {
    let mut page = Page::new("mountjail", "8", "files and environment");
    page.heading("Files");
    page.entries(&[
        (
            "/etc/mountjail/sites/SITE.yaml",
            "The manifest of a site: mountjail.yaml(5).",
        ),
        (
            "/etc/mountjail/sites/NAME@.yaml",
            "A template of sites, whose names are NAME@INSTANCE.",
        ),
        ("/etc/mountjail/defaults.yaml", "What all sites have."),
        (
            "/etc/mountjail/presets/NAME.yaml",
            "A preset of this host's own: mountjail-presets(7).",
        ),
        (
            "/usr/share/mountjail/presets/NAME.yaml",
            "A preset that a package brings.",
        ),
        (
            "/usr/share/mountjail/monitoring",
            "Alert rules of Prometheus and a dashboard of Grafana.",
        ),
        (
            "/run/mountjail",
            "Records of what is mounted, and locks. They do not survive a reboot.",
        ),
        (
            "/run/mountjail/templates",
            "Records of the mounts that sites share, and the mount namespace that these are in.",
        ),
        (
            "/run/mountjail/watch",
            "What a running `mountjail watch` reports about itself.",
        ),
        (
            "/var/lib/mountjail",
            "Records of what was made in roots, and generated files of users and groups.",
        ),
        (
            "ROOT/.mountjail-adopted",
            "Copies that `mountjail adopt` moved aside.",
        ),
    ]);
    page.text(
        "`--config-dir` moves /etc/mountjail; `--state-dir DIR` moves the records to DIR/run and \
         DIR/lib. Only root may be able to write these directories, or commands refuse them.",
    );
    page.heading("Environment");
    page.entries(&[
        ("MOUNTJAIL_CONFIG_DIR", "The default of `--config-dir`."),
        ("MOUNTJAIL_STATE_DIR", "The default of `--state-dir`."),
        (
            "MOUNTJAIL_ENGINE",
            "How to mount, `detached` or `classic`, instead of the best way that the kernel \
             offers.",
        ),
        (
            "MOUNTJAIL_MOUNT_EVENTS",
            "How `watch` learns about mounts, `fanotify` or `poll`, instead of the best way that \
             the kernel offers.",
        ),
        ("NO_COLOR", "No colours, if it is not empty."),
    ]);
    page
}
