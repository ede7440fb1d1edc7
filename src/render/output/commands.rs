//! The output of each command.

use super::parts::{
    ATTACHED, DETACHED, DIFF, ERRORS, GAPS, LINK, MANIFEST, MISSES, MOUNT, MOUNT_STATE, MOUNTS,
    OUTDATED, PLACES, RAN_INSIDE, STATE, STATUS_PLACE, STEPS, SWAPPED, TEXTS, WATCH,
};
use super::shape::Shape::{Either, Flag, List, Map, Number, Object, Or, Text, Word};
use super::shape::{Key, Output, Shape, key, maybe};

const SITE: Key = key("site", Text, "the site's name");
const ROOT: Key = maybe("root", Text, "its root");
const SITE_ERRORS: Key = maybe("errors", ERRORS, "why the command failed on this site");
const ALL_ERRORS: Key = maybe("errors", ERRORS, "why the command failed as a whole");
const SCOPE: Key = maybe(
    "scope",
    Word(&["services"]),
    "where its mounts are, if not on the host",
);
const CHANGED: Key = maybe("changed", Flag, "whether anything was done");
const CHANGED_OR_WOULD: Key = maybe(
    "changed",
    Flag,
    "whether anything was, or with --dry-run would be, done",
);
const MANIFEST_FILE: Key = maybe("manifest", MANIFEST, "the manifest");
const DIFFERENCE: Key = maybe("diff", DIFF, "with --diff");
const LEFT: Key = maybe("left", TEXTS, "sentences about what stays in the root");
const PLAN_STEPS: Key = maybe("steps", STEPS, "what would be done");
const CONFLICTS: Key = maybe("conflicts", ERRORS, "what is in the way");
const PLACED: Key = maybe(
    "places",
    PLACES,
    "with `scope: services`: each service that runs",
);

/// `sites` alone.
const fn sites(item: &'static Shape) -> [Key; 2] {
    [key("sites", List(item), "an object per site"), ALL_ERRORS]
}

const UP: Shape = Object(&[
    SITE,
    ROOT,
    maybe("up", Flag, "whether it is up now"),
    CHANGED_OR_WOULD,
    MOUNTS,
    ATTACHED,
    SWAPPED,
    GAPS,
    DETACHED,
    RAN_INSIDE,
    SCOPE,
    PLACED,
    PLAN_STEPS,
    CONFLICTS,
    maybe(
        "unit",
        Text,
        "with --dry-run: the service that the steps are for",
    ),
    maybe("pid", Number, "a process of it"),
    SITE_ERRORS,
]);

const DOWN: Shape = Object(&[
    SITE,
    ROOT,
    key("down", Flag, "whether it is down now"),
    CHANGED,
    DETACHED,
    LEFT,
    SITE_ERRORS,
]);

const APPLY: Shape = Object(&[
    SITE,
    ROOT,
    key(
        "applied",
        Flag,
        "whether the site is now as its manifest asks",
    ),
    CHANGED_OR_WOULD,
    MANIFEST_FILE,
    MOUNTS,
    ATTACHED,
    SWAPPED,
    GAPS,
    DETACHED,
    RAN_INSIDE,
    SCOPE,
    PLACED,
    maybe(
        "new_root",
        Or(&Text),
        "with --dry-run: the root that is made first",
    ),
    PLAN_STEPS,
    CONFLICTS,
    DIFFERENCE,
    SITE_ERRORS,
]);

const REMOVE: Shape = Object(&[
    SITE,
    ROOT,
    key("removed", Flag, "whether it was removed"),
    CHANGED_OR_WOULD,
    MANIFEST_FILE,
    maybe("drop_ins", TEXTS, "the drop-ins that are removed"),
    DETACHED,
    LEFT,
    PLAN_STEPS,
    CONFLICTS,
    DIFFERENCE,
    SITE_ERRORS,
]);

const PLAN: Shape = Object(&[
    SITE,
    ROOT,
    SCOPE,
    maybe("changed", Flag, "whether `up` would do anything"),
    PLAN_STEPS,
    CONFLICTS,
    maybe("unit", Text, "the service that the steps are for"),
    maybe("pid", Number, "a process of it"),
    SITE_ERRORS,
]);

const STATUS: Shape = Object(&[
    SITE,
    maybe("root", Or(&Text), "its root"),
    maybe("state", STATE, "see [states](states.md)"),
    maybe("reasons", TEXTS, "why it is not up, if no mount shows it"),
    maybe("mounts", List(&Object(MOUNT_STATE)), "its mounts"),
    maybe(
        "outdated",
        List(&Object(OUTDATED)),
        "processes inside that use old files",
    ),
    maybe(
        "processes_not_looked_at",
        Number,
        "how many could not be looked at",
    ),
    SCOPE,
    maybe("services", TEXTS, "its services"),
    maybe(
        "places",
        List(&Object(STATUS_PLACE)),
        "each service that runs",
    ),
    SITE_ERRORS,
]);

const CHECK: Shape = Object(&[
    SITE,
    ROOT,
    key("ok", Flag, "whether `up` would work"),
    MOUNTS,
    maybe("links", Number, "how many links it has"),
    maybe(
        "notes",
        List(&Object(&[
            key("text", Text, "the note"),
            key("line", Text, "the manifest's line that it is about"),
        ])),
        "such as optional lines without a file",
    ),
    maybe("warnings", TEXTS, "what should be known"),
    SITE_ERRORS,
]);

const PRESET: Shape = Object(&[
    key("name", Text, "the preset"),
    key("group", Text, "its group"),
    key("description", Or(&Text), "null: it has mistakes"),
    key("file", Or(&Text), "where it is from"),
]);

const REASON: Shape = Object(&[
    key("line", Text, "the manifest's line, in words"),
    key("file", Text, "its file"),
    key("key", Text, "its key"),
    key("presets", TEXTS, "the presets that lead to it"),
    key("defaults", Flag, "whether it comes from defaults.yaml"),
    key("chain", TEXTS, "what needs it"),
]);

const DOCTOR: Shape = Object(&[
    SITE,
    ROOT,
    maybe("user", Text, "the user that the checks ran as"),
    maybe("ok", Flag, "whether no check failed"),
    maybe(
        "checks",
        List(&Object(&[
            key("check", Text, "its name"),
            key(
                "verdict",
                Word(&["ok", "failed", "could-not-check", "not-needed"]),
                "how it ended",
            ),
            key("detail", Text, "what was found"),
            key("remedy", TEXTS, "what would mend it"),
        ])),
        "the checks",
    ),
    SITE_ERRORS,
]);

const LINES: Shape = Either(&[
    Number,
    List(&Object(&[
        key("source", Text, "what is mounted"),
        key("target", Text, "where, on the host"),
        key("options", Text, "as in the file"),
    ])),
]);

const DOCTOR_SITES: Shape = Or(&Either(&[List(&DOCTOR), TEXTS]));

const FSTAB: Shape = Object(&[
    SITE,
    ROOT,
    maybe("lines", LINES, "the lines; with --install their number"),
    maybe(
        "installed",
        Flag,
        "with --install: whether the lines are in the file",
    ),
    maybe(
        "uninstalled",
        Flag,
        "with --uninstall: whether there were lines",
    ),
    maybe(
        "in_sync",
        Flag,
        "with --check: whether the file has these lines",
    ),
    maybe("missing", TEXTS, "lines that the file lacks"),
    maybe("unexpected", TEXTS, "lines that it should not have"),
    maybe(
        "missing_placeholders",
        Number,
        "how many files and directories to mount on are missing",
    ),
    SITE_ERRORS,
]);

const UNITS: Shape = Object(&[SITE, key("files", TEXTS, "its drop-ins"), SITE_ERRORS]);

const UNIT_FILE: Shape = Object(&[
    key("file", Text, "the drop-in"),
    key(
        "how",
        Word(&["missing", "differs", "unneeded"]),
        "how it differs",
    ),
    key("missing", TEXTS, "lines that it lacks"),
    key("unexpected", TEXTS, "lines that it should not have"),
]);

const ADOPT: Shape = Object(&[
    SITE,
    ROOT,
    maybe(
        "standing",
        List(&Object(STANDING)),
        "what stands where mounts belong",
    ),
    maybe("nodes", TEXTS, "device nodes, which stay"),
    maybe("directory", Text, "where copies are moved to"),
    maybe(
        "moved_before",
        List(&Object(&[
            key("path", Text, "the path"),
            key("to", Text, "where it is now"),
        ])),
        "what was moved aside before",
    ),
    maybe("adopted", Flag, "with --write: whether it was moved aside"),
    maybe(
        "moved",
        TEXTS,
        "with --undo --dry-run: what would be put back",
    ),
    maybe("back", TEXTS, "with --undo: what was put back"),
    maybe(
        "left",
        List(&Object(&[
            key("path", Text, "the path"),
            key("why", Text, "why"),
        ])),
        "what could not be put back",
    ),
    // `up` and `down` add what they did.
    maybe("up", Flag, "whether it is up"),
    maybe("down", Flag, "whether it is down"),
    SITE_ERRORS,
]);

const STANDING: &[Key] = &[
    key("path", Text, "the path inside"),
    key("class", Text, "`same`, `hard-link`, `old-copy`, or `own`"),
    key("kind", Text, "file, directory, link, …"),
    key("files", Number, "how many files are in it"),
    maybe(
        "own",
        List(&Object(&[
            key("path", Text, "the path"),
            key("why", Text, "why it is the site's own"),
            key("movable", Flag, "whether --also can move it"),
        ])),
        "what is the site's own",
    ),
    maybe("goes", Flag, "whether --also names it"),
    maybe("note", Text, "what else should be known"),
];

pub(super) const DRAFT: &[Key] = &[
    maybe("site", Text, "the site's name"),
    maybe("preset", Text, "the preset's name"),
    maybe("file", Text, "the file that it gets"),
    maybe("manifest", Text, "its text"),
    maybe("errors", ERRORS, "why there is none"),
];

const fn output(command: &'static str, keys: &'static [Key]) -> Output {
    Output { command, keys }
}

/// The outputs of commands, by their names.
pub const OUTPUTS: &[Output] = &[
    output("up", &sites(&UP)),
    output("down", &sites(&DOWN)),
    output("apply", &sites(&APPLY)),
    output("remove", &sites(&REMOVE)),
    output("adopt", &sites(&ADOPT)),
    output("plan", &sites(&PLAN)),
    output(
        "status",
        &[
            key("sites", List(&STATUS), "an object per site"),
            key("watch", Or(&Object(WATCH)), "the watcher; null: none runs"),
            ALL_ERRORS,
        ],
    ),
    output("check", &sites(&CHECK)),
    output(
        "presets",
        &[
            maybe("presets", List(&PRESET), "all presets"),
            maybe("name", Text, "with a name: that preset"),
            maybe("description", Text, "what it is for"),
            maybe("file", Or(&Text), "where it is from"),
            maybe(
                "mounts",
                List(&Object(MOUNT)),
                "what it brings on this host",
            ),
            maybe("links", List(&Object(LINK)), "links"),
            maybe("directories", TEXTS, "directories of the site's own"),
            maybe("notes", TEXTS, "such as optional lines without a file"),
            ALL_ERRORS,
        ],
    ),
    output(
        "why",
        &[
            key("path", Text, "the path inside"),
            key("leads_to", Text, "where it leads"),
            maybe("link", Or(&Object(LINK)), "the link that it is"),
            maybe("mount", Or(&Object(MOUNT)), "the mount that it is in"),
            maybe(
                "directory",
                Or(&Text),
                "the owner of the site's own directory that it is",
            ),
            maybe("reasons", List(&REASON), "the lines that bring it"),
            maybe("nothing_at", Text, "where it leads, if nothing is there"),
            maybe(
                "below",
                List(&Object(&[
                    key("line", Text, "the manifest's line"),
                    key("paths", TEXTS, "what it brings there"),
                ])),
                "of a directory on the way: what is in it",
            ),
            ALL_ERRORS,
        ],
    ),
    output(
        "doctor",
        &[
            key(
                "sites",
                DOCTOR_SITES,
                "an object per site; without a site: the names of all",
            ),
            maybe("kernel", Text, "without a site: the kernel's release"),
            maybe(
                "calls",
                Map(&Or(&Flag)),
                "which system calls it has; null: only root can tell",
            ),
            maybe("engine", Or(&Text), "how mounts are made"),
            maybe("mounts", Number, "how many mounts there are"),
            maybe("mount_max", Or(&Number), "how many there may be"),
            maybe("config_dir", Text, "the configuration"),
            maybe(
                "pools_without_site",
                List(&Object(&[
                    key("pool", Text, "the pool"),
                    key("root", Text, "its chroot"),
                ])),
                "pools of PHP-FPM whose chroot is not the root of a site",
            ),
            maybe(
                "waiting_units",
                TEXTS,
                "units that a killed `trace --start` left waiting",
            ),
            ALL_ERRORS,
        ],
    ),
    output("fstab", &sites(&FSTAB)),
    output(
        "units",
        &[
            maybe("sites", List(&UNITS), "an object per site"),
            maybe("in_sync", Flag, "with --check: whether all files are right"),
            maybe(
                "files",
                List(&UNIT_FILE),
                "with --check: those that are not",
            ),
            maybe(
                "errors",
                ERRORS,
                "files that cannot be read, written or removed, or why the command failed",
            ),
            maybe(
                "removed",
                TEXTS,
                "with --uninstall: the files that were removed",
            ),
        ],
    ),
    output(
        "trace",
        &[
            key("site", Text, "the site's name"),
            key("root", Text, "its root"),
            key("exit_code", Or(&Number), "the program's"),
            key(
                "written",
                Flag,
                "whether the lines were added to the manifest",
            ),
            key(
                "lines",
                List(&Object(&[
                    key("line", Text, "the line"),
                    key("key", Text, "its key"),
                    key("name", Text, "its item"),
                    key("optional", Flag, "whether it is optional"),
                    key("misses", MISSES, "what it brings"),
                ])),
                "lines that bring what was missing",
            ),
            key(
                "not_mounted",
                MISSES,
                "what the manifest has, but is not mounted",
            ),
            key("refused", MISSES, "what no line can bring"),
            key("not_followed", TEXTS, "programs of another architecture"),
            key("without_proc", TEXTS, "programs that need `proc: true`"),
            maybe(
                "nowhere",
                MISSES,
                "with --all-misses: what the host does not have either",
            ),
            ALL_ERRORS,
        ],
    ),
    output(
        "import",
        &[
            key("sites", List(&Object(DRAFT)), "manifests"),
            key("presets", List(&Object(DRAFT)), "presets"),
            ALL_ERRORS,
        ],
    ),
];
