//! Promise: no site ever shows what the manifest of another one names, whatever became of a change
//! to a template that they shared.
//!
//! One site's change of its template fails or is killed, at each of its system calls in turn.
//! Another site takes the template over, and changes it; then the first site tries its change
//! again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::faults::{CALLS, chosen, counted, injected};
use crate::support::{Ran, Sandbox, for_each_engine, mounts_below, replace};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let each = [("failed", "error=EIO"), ("was killed", "signal=SIGKILL")];
    let each = each.into_iter().flat_map(|(what, fault)| {
        let name = format!("a change of a template that {what} concerns nobody else");
        for_each_engine(&name, move |engine| each_call(engine, fault))
    });
    let full = for_each_engine("a full mount table keeps the old files in each site", full);
    each.chain(full).collect()
}

/// What both sites show.
const BOTH: &[&str] = &["one", "two"];

fn each_call(engine: &'static str, fault: &str) {
    let sites = Sites::new(engine);
    let log = sites.sandbox.path("strace");
    sites.change_of_first(&log, &[]).exits(0);
    for (call, count) in counted(&log) {
        for nth in chosen(1..=count, 0) {
            let sites = Sites::new(engine);
            let fault = format!("inject={call}:{fault}:when={nth}");
            let ran = sites.change_of_first(Path::new("/dev/null"), &[&fault]);

            sites.shows("second", BOTH);
            let down = sites.sandbox.run(&["down", "first"]);
            assert!(down.code == 0, "{fault}\n{ran}\n{down}");
            let second = [BOTH, &["second"]].concat();
            sites.shows("second", &second);
            sites.shows("first", &[BOTH, &["first"]].concat());
            sites.has("second", &second, &format!("{fault}\n{ran}"));

            sites.sandbox.ok(&["down", "--all"]);
            assert_eq!(mounts_below(&sites.sandbox.path("srv")), [], "{fault}");
        }
    }
}

/// The host has replaced a file of both sites. When it is swapped in the template, a mount
/// namespace with a site has as many mounts as it may have (`fs.mount-max`), for a moment or for
/// good.
fn full(engine: &'static str) {
    let replaced = || {
        let sites = Sites::new(engine);
        sites.shows("second", BOTH);
        let one = sites.sandbox.path("host/one");
        fs::rename(&one, one.with_extension("old")).unwrap();
        replace(&one, "one, replaced");
        sites
    };
    let sites = replaced();
    let log = sites.sandbox.path("strace");
    sites.up_of_first(&log, &[]).exits(0);
    let mut faults = 0;
    for (call, count) in counted(&log) {
        if !["move_mount", "mount", "open_tree"].contains(&call.as_str()) {
            continue;
        }
        for nth in chosen(1..=count, 0) {
            for how_long in ["", "+"] {
                faults += 1;
                let sites = replaced();
                let fault = format!("inject={call}:error=ENOSPC:when={nth}{how_long}");
                let ran = sites.up_of_first(&log, &[&fault]);
                let what = format!("{fault}\n{ran}");
                assert!(
                    ran.code == 0 || ran.stderr.contains("error: first: "),
                    "{what}"
                );
                assert!(
                    ran.code == 0 || ran.stderr.contains("`sysctl fs.mount-max"),
                    "{what}"
                );
                // The classic engine needs the room of the old mount.
                let stays = engine == "detached" || injected(&log) == 1;
                for site in ["first", "second"].into_iter().filter(|_| stays) {
                    let text = |path: &str| {
                        let path = sites.sandbox.root(site).join(path);
                        fs::read_to_string(path).unwrap_or_default()
                    };
                    assert!(text("etc/one").starts_with("one"), "{site}: {what}");
                    assert_eq!(text("etc/two"), "two", "{site}: {what}");
                    assert!(text("own/2").starts_with("one"), "{site}: {what}");
                }
                sites.sandbox.ok(&["up", "--all"]);
                sites.sandbox.ok(&["status"]);
                for site in ["first", "second"] {
                    sites.has(site, &["one, replaced", "two"], &what);
                }
                sites.sandbox.ok(&["down", "--all"]);
                assert_eq!(mounts_below(&sites.sandbox.path("srv")), [], "{what}");
            }
        }
    }
    assert!(faults > 3, "hardly anything was mounted");
}

/// Two sites. A directory of each is in the root, so that one mount comes from no template.
struct Sites {
    sandbox: Sandbox,
}

impl Sites {
    /// The first one is up.
    fn new(engine: &'static str) -> Self {
        let sandbox = Sandbox::with_engine(engine);
        for file in ["one", "two", "first", "second"] {
            sandbox.file(format!("host/{file}"), file);
        }
        for site in ["first", "second"] {
            fs::create_dir_all(sandbox.root(site).join("own")).unwrap();
        }
        let sites = Self { sandbox };
        sites.shows("first", BOTH);
        sites
    }

    /// Writes the manifest of `site` with these files in `/etc`.
    fn names(&self, site: &str, files: &[&str]) {
        let host = self.sandbox.path("host");
        let mut text = format!("root: {}\nmounts:\n", self.sandbox.root(site).display());
        for file in files {
            let (source, file) = (host.join(file), format!("/etc/{file}"));
            let source = source.display();
            writeln!(text, "  - {{ source: {source}, target: {file} }}").unwrap();
        }
        let count = files.len();
        let source = host.join("one");
        let source = source.display();
        writeln!(text, "  - {{ source: {source}, target: /own/{count} }}").unwrap();
        self.sandbox.manifest(site, text);
    }

    /// Brings `site` up with these files.
    fn shows(&self, site: &str, files: &[&str]) {
        self.names(site, files);
        let ran = self.sandbox.ok(&["up", site]);
        self.has(site, files, &ran.to_string());
    }

    /// `site` shows these files and no others.
    fn has(&self, site: &str, files: &[&str], what: &str) {
        let etc = self.sandbox.root(site).join("etc");
        let mut found = BTreeSet::new();
        for mount in mounts_below(&etc) {
            found.insert(fs::read_to_string(mount.point).unwrap());
        }
        let wanted = files.iter().map(|file| (*file).to_owned()).collect();
        assert_eq!(found, wanted, "{site}, after {what}");
    }

    /// `up` of the first site, with a file of its own, under strace(1).
    fn change_of_first(&self, log: &Path, faults: &[&str]) -> Ran {
        self.names("first", &[BOTH, &["first"]].concat());
        self.up_of_first(log, faults)
    }

    /// `up` of the first site under strace(1).
    fn up_of_first(&self, log: &Path, faults: &[&str]) -> Ran {
        let (trace, log) = (format!("trace={CALLS}"), log.to_str().unwrap());
        let mut runner = vec!["strace", "-f", "-q", "-e", "signal=none", "-o", log];
        runner.extend(["-e", &trace]);
        runner.extend(faults.iter().flat_map(|fault| ["-e", fault]));
        Ran::of(self.sandbox.command_under(&runner).args(["up", "first"]))
    }
}
