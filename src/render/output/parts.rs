//! Parts of several outputs.

use super::shape::Shape::{Flag, List, Map, Number, Object, Or, Text, Word};
use super::shape::{Key, Shape, key, maybe};

pub(super) const TEXTS: Shape = List(&Text);

pub(super) const ERROR: &[Key] = &[
    key(
        "code",
        Word(&[
            "usage",
            "manifest",
            "no-such-site",
            "conflict",
            "in-use",
            "overtaken",
            "interrupted",
            "silent",
            "failed",
        ]),
        "what went wrong, as a class",
    ),
    key("site", Or(&Text), "the site that it is about"),
    key("path", Or(&Text), "the path that it is about"),
    key("reason", Text, "the whole error, as it is shown to people"),
    key("remedy", Or(&Text), "what to type or edit next"),
    maybe("line", Or(&Number), "of a mistake in a manifest: its line"),
    maybe("column", Or(&Number), "its column, in characters"),
    maybe("key", Text, "its key, such as `mounts[3].target`"),
    maybe("used_by", TEXTS, "of a site in use: who uses it"),
];

pub(super) const ERRORS: Shape = List(&Object(ERROR));

pub(super) const MOUNT: &[Key] = &[
    key("target", Text, "the path inside"),
    key(
        "source",
        Text,
        "the path on the host, or the type of the file system",
    ),
    key("options", Text, "as those of mount(8)"),
    key("recursive", Flag, "whether submounts come along"),
    maybe(
        "file_system",
        Text,
        "a file system of the site's own, with its options",
    ),
];

pub(super) const LINK: &[Key] = &[
    key("path", Text, "where it is"),
    key("text", Text, "where it leads"),
];

pub(super) const STEP: &[Key] = &[
    key(
        "step",
        Word(&[
            "write-file",
            "detach",
            "detach-covered",
            "remove-placeholder",
            "remove-link",
            "remove-file",
            "create-placeholder",
            "create-directory",
            "create-link",
            "refresh",
            "graft",
            "attach",
            "swap-graft",
            "swap",
        ]),
        "what is done",
    ),
    maybe(
        "path",
        Text,
        "the path in the root, or of the file on the host",
    ),
    maybe("target", Text, "the path inside"),
    maybe("source", Or(&Text), "what is or was mounted there"),
    maybe("options", Text, "as those of mount(8)"),
    maybe("recursive", Flag, "whether submounts come along"),
    maybe(
        "file_system",
        Text,
        "a file system of the site's own, with its options",
    ),
    maybe("because", Text, "the state of the mount that is swapped"),
    maybe(
        "with_files",
        Flag,
        "of a tmpfs that replaces another: whether it has its files",
    ),
    maybe("moved_to", Or(&Text), "where the mount was moved to"),
    maybe("text", Text, "where a link leads"),
    maybe(
        "kind",
        Word(&["file", "directory"]),
        "the kind of a placeholder",
    ),
    maybe("uid", Number, "the owner of a directory"),
    maybe("gid", Number, "its group"),
    maybe("mode", Text, "its mode, in octal"),
    maybe(
        "attach",
        List(&Object(MOUNT)),
        "of a graft: mounts that come",
    ),
    maybe("swap", List(&Object(MOUNT)), "mounts that are replaced"),
    maybe("detach", TEXTS, "targets that go"),
];

pub(super) const STEPS: Shape = List(&Object(STEP));

// The changes of a run to mounts.
pub(super) const MOUNTS: Key = maybe("mounts", Number, "how many mounts it has");
pub(super) const ATTACHED: Key = maybe("attached", Number, "mounts that were made");
pub(super) const SWAPPED: Key = maybe("swapped", Number, "mounts that were replaced");
pub(super) const GAPS: Key = maybe("gaps", Number, "mounts that were absent for a moment");
pub(super) const DETACHED: Key = maybe("detached", Number, "mounts that were taken away");

/// The changes of a run for a service.
pub(super) const UP_PLACE: &[Key] = &[
    key("unit", Text, "the service"),
    key("pid", Number, "a process of it"),
    maybe("up", Flag, "whether the site is up there"),
    maybe("changed", Flag, "whether anything was done there"),
    MOUNTS,
    ATTACHED,
    SWAPPED,
    GAPS,
    DETACHED,
    maybe("site", Text, "the site"),
    maybe("root", Text, "its root"),
    maybe("steps", STEPS, "with --dry-run: what would be done there"),
    maybe(
        "conflicts",
        ERRORS,
        "with --dry-run: what is in the way there",
    ),
];

pub(super) const PLACES: Shape = List(&Object(UP_PLACE));

pub(super) const STATE: Shape = Word(&["up", "drifted", "down", "not answering"]);

pub(super) const MOUNT_STATE: &[Key] = &[
    key("target", Text, "the path inside"),
    key(
        "source",
        Or(&Text),
        "the path on the host; null for a mount that is not mountjail's",
    ),
    key(
        "state",
        Word(&[
            "ok",
            "missing",
            "stale",
            "wrong-source",
            "wrong-options",
            "shadowed",
            "absent",
            "orphan",
            "hidden",
            "foreign",
        ]),
        "see [states](states.md)",
    ),
    key("detail", Or(&Text), "what was found, if it is not ok"),
    key("options", Or(&Text), "the options that it should have"),
];

pub(super) const OUTDATED: &[Key] = &[
    key("name", Or(&Text), "the program"),
    key("unit", Or(&Text), "its unit"),
    key("pids", List(&Number), "its processes"),
    key("files", TEXTS, "the old files that it uses"),
    key("more_files", Flag, "whether there are more"),
    key("hint", Or(&Text), "what to do"),
];

/// Processes of one unit that ran inside before there were all the mounts.
const RUNNING: &[Key] = &[
    key("name", Text, "the program"),
    key("unit", Or(&Text), "its unit"),
    key("pids", List(&Number), "its processes"),
    key("hint", Text, "what to do"),
];

pub(super) const RAN_INSIDE: Key = maybe(
    "ran_inside",
    List(&Object(RUNNING)),
    "processes inside that may remember what was missing",
);

pub(super) const STATUS_PLACE: &[Key] = &[
    key("unit", Text, "the service"),
    key("pid", Number, "a process of it"),
    key("site", Text, "the site"),
    maybe("root", Text, "its root"),
    maybe("state", STATE, "the state there"),
    maybe("reasons", TEXTS, "why it is not up there"),
    maybe("mounts", List(&Object(MOUNT_STATE)), "the mounts there"),
    maybe(
        "outdated",
        List(&Object(OUTDATED)),
        "processes that use old files",
    ),
    maybe(
        "processes_not_looked_at",
        Number,
        "how many could not be looked at",
    ),
];

pub(super) const FAILURE: &[Key] = &[
    key("error", Text, "the error"),
    key("since", Number, "the time of the first failure"),
    key("attempts", Number, "how many attempts there were since"),
    key("next_try", Or(&Number), "the time of the next one"),
];

pub(super) const WATCH: &[Key] = &[
    key("version", Number, "of this object"),
    key("pid", Number, "the watcher's process"),
    key(
        "start_time",
        Number,
        "when it started, in the kernel's ticks",
    ),
    key("since", Number, "when it began to watch"),
    key(
        "mount_events",
        Text,
        "how it learns of mounts: `fanotify`, or `poll`",
    ),
    key("directories", Number, "how many are watched"),
    key("blind", Or(&Text), "why some cannot be watched"),
    key("sites", Number, "how many are up and kept in order"),
    key(
        "last_full_pass",
        Number,
        "the time of the last pass over all sites",
    ),
    key("passes", Number, "how many passes there were"),
    key("attached", Number, "mounts that it made"),
    key("swapped", Number, "mounts that it replaced"),
    key("detached", Number, "mounts that it took away"),
    key("failures", Map(&Object(FAILURE)), "by site: the failure"),
];

pub(super) const MANIFEST: Shape = Object(&[
    key("file", Text, "the manifest"),
    key(
        "changed",
        Flag,
        "whether it was, or would be, written or removed",
    ),
]);

pub(super) const DIFF: Shape = Object(&[
    key(
        "manifest",
        Object(&[
            key("file", Text, "the manifest"),
            key("before", Or(&Text), "its text; null: there was none"),
            key("after", Or(&Text), "its text; null: there is none"),
        ]),
        "the manifest",
    ),
    key(
        "mounts",
        Or(&Object(&[
            key("before", TEXTS, "a line per mount"),
            key("after", TEXTS, "a line per mount"),
        ])),
        "the mounts; null: they are not known",
    ),
]);

pub(super) const MISS: &[Key] = &[
    key("path", Text, "the path"),
    key("call", Text, "the system call"),
    key("lookups", Number, "how often"),
    key("programs", TEXTS, "by which programs"),
    maybe("why", Text, "why it cannot be brought in"),
];

pub(super) const MISSES: Shape = List(&Object(MISS));
