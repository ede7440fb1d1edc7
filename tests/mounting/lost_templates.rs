//! Promise: templates that are gone, and records that are lost, leave no mount behind and nothing
//! that `up` and `down` cannot mend.

use std::fs;
use std::path::{Path, PathBuf};

use super::templates::{nothing_is_left, read, sites, without_a_gap};
use crate::support::{
    OnEngine, Ran, Sandbox, Tree, for_each_engine, for_each_engine_alone, grafts_below,
    mounts_below, replace, tree, unmount_all, where_templates_are,
};
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

pub fn all() -> Vec<Trial> {
    let all: [(&str, OnEngine); 9] = [
        ("sites get new templates when theirs are gone", made_anew),
        ("sites go down when their templates are gone", down),
        ("grafts without any record are recognised", without_records),
        (
            "what is in grafts is known without the templates' records",
            without_template_records,
        ),
        (
            "what is in grafts is known without templates and their records",
            without_templates_and_records,
        ),
        (
            "templates of a newer mountjail are left alone and reported",
            newer_template_records,
        ),
        (
            "sites keep their grafts when it is lost which sites have them",
            without_the_list_of_sites,
        ),
        (
            "the directories beneath grafts are known without their record",
            without_kept_records,
        ),
        (
            "sites of the other engine go down and come up",
            other_engine,
        ),
    ];
    let all = all.into_iter();
    let mut trials: Vec<_> = all
        .flat_map(|(name, body)| for_each_engine(name, body))
        .collect();
    trials.extend(for_each_engine_alone(
        "a run that fails in a copy of the root changes no record",
        in_a_copy,
    ));
    where_templates_are(trials)
}

/// Two sites that share a template, and that are up.
struct Sites {
    sandbox: Sandbox,
    roots: Vec<PathBuf>,
    bare: Vec<Tree>,
}

impl Sites {
    fn up(engine: &'static str) -> Self {
        let sandbox = Sandbox::with_engine(engine);
        let roots = sites(&sandbox, &["a", "b"], "");
        let bare = roots.iter().map(|root| tree(root)).collect();
        sandbox.ok(&["up", "--all"]);
        assert!(roots.iter().all(|root| grafts_below(root).len() == 1));
        Self {
            sandbox,
            roots,
            bare,
        }
    }

    /// Unmounts the templates; their records stay. Those of the classic engine are in the host's
    /// namespace, so that what came along with the grafts goes as well.
    fn lose_templates(&self) {
        for entry in fs::read_dir(self.sandbox.state().join("run/templates")).unwrap() {
            unmount_all(&entry.unwrap().path());
        }
    }

    fn lose_records(&self) {
        for directory in ["run", "run/templates"] {
            for entry in fs::read_dir(self.sandbox.state().join(directory)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|ending| ending == "json") {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }

    /// What is in the directory of the templates and ends so.
    fn files_of_templates(&self, ending: &str) -> Vec<PathBuf> {
        files_in(&self.sandbox.state().join("run/templates"), ending)
    }

    fn change_template_records(&self, change: impl Fn(&Path)) {
        for record in self.files_of_templates("json") {
            change(&record);
        }
    }

    /// Takes them down.
    fn end(&self) {
        nothing_is_left(&self.sandbox);
        for (bare, root) in self.bare.iter().zip(&self.roots) {
            bare.assert_same(&tree(root));
        }
    }
}

/// What is in the directory and ends so.
fn files_in(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    assert!(!files.is_empty());
    files
}

fn made_anew(engine: &'static str) {
    let sites = Sites::up(engine);
    let sandbox = &sites.sandbox;
    sites.lose_templates();
    let status = sandbox.run(&["status", "a"]).exits(3);
    if engine == "detached" {
        status.prints("what is mounted in /x follows no template, and so not the host");
        without_a_gap(&sites.roots[0].join("x/one"), || {
            sandbox.ok(&["up", "a"]).says("a: up, 2 mounts: 2 swapped");
        });
    }
    sandbox.ok(&["up", "--all"]);
    sandbox.ok(&["up", "--all"]).says("nothing to do");

    // They follow the host again.
    replace(&sandbox.path("host/one"), "new");
    sandbox.ok(&["up", "a"]);
    for root in &sites.roots {
        assert_eq!(read(root, "x/one"), "new");
    }
    sites.end();
}

fn down(engine: &'static str) {
    let sites = Sites::up(engine);
    sites.lose_templates();
    sites.sandbox.ok(&["down", "a"]);
    sites.end();
}

fn without_records(engine: &'static str) {
    for first in ["up", "down"] {
        let sites = Sites::up(engine);
        sites.lose_templates();
        sites.lose_records();
        let _ = sites.sandbox.run(&["status", "a"]).exits(3);
        sites.sandbox.ok(&[first, "--all"]);
        sites.sandbox.ok(&["up", "--all"]);
        sites.sandbox.ok(&["status", "--all"]);
        sites.end();
    }
}

/// What can become of a record.
const LOSSES: [fn(&Path); 2] = [
    |record| fs::remove_file(record).unwrap(),
    |record| fs::write(record, "{").unwrap(),
];

fn without_template_records(engine: &'static str) {
    for lose in LOSSES {
        for first in ["up", "down"] {
            let sites = Sites::up(engine);
            let sandbox = &sites.sandbox;
            sites.change_template_records(lose);
            sandbox.ok(&["status", "--all"]);
            replace(&sandbox.path("host/one"), "new");
            sandbox.ok(&[first, "--all"]);
            sandbox.ok(&["up", "--all"]);
            sandbox.ok(&["status", "--all"]);
            for root in &sites.roots {
                assert_eq!(read(root, "x/one"), "new");
            }
            sites.end();
        }
    }
}

fn without_templates_and_records(engine: &'static str) {
    for first in ["up", "down"] {
        let sites = Sites::up(engine);
        sites.change_template_records(LOSSES[0]);
        sites.lose_templates();
        sites.sandbox.ok(&[first, "--all"]);
        sites.sandbox.ok(&["up", "--all"]);
        sites.sandbox.ok(&["status", "--all"]);
        sites.end();
    }
}

fn newer_template_records(engine: &'static str) {
    let sites = Sites::up(engine);
    let sandbox = &sites.sandbox;
    sites.change_template_records(|record| {
        let text = fs::read_to_string(record).unwrap();
        fs::write(record, text.replacen("\"version\":", "\"version\":9", 1)).unwrap();
    });
    super::templates::sites(sandbox, &["c"], "");
    let before = mounts_below(&sandbox.path("."));
    for command in ["status", "up", "down"] {
        let said = sandbox.run(&[command, "a"]).exits(1);
        said.says("was written by a newer mountjail")
            .says(".newer`");
    }
    let said = sandbox.run(&["up", "c"]).exits(1);
    said.says("was written by a newer mountjail")
        .says("found by looking at it");
    assert_eq!(mounts_below(&sandbox.path(".")), before);

    sites.change_template_records(|record| {
        fs::rename(record, record.with_extension("json.newer")).unwrap();
    });
    sandbox.ok(&["up", "--all"]);
    sandbox.ok(&["status", "--all"]);
    sites.end();
}

fn without_kept_records(engine: &'static str) {
    let sites = Sites::up(engine);
    let sandbox = &sites.sandbox;
    let record = sandbox.state().join("lib/a.json");
    let lose = || fs::remove_file(&record).unwrap();
    lose();
    let told = "is lost: of what mountjail made in";
    sandbox.ok(&["up", "--all"]).says(told).says("a: in sync");
    let up = sandbox.ok(&["up", "--all"]);
    assert!(!up.stderr.contains("lost") && record.exists(), "{up}");

    lose();
    sandbox.ok(&["status", "a"]).says(told);
    sandbox.ok(&["down", "a"]).says(told);
    sites.bare[0].assert_same(&tree(&sites.roots[0]));
    sites.end();
}

fn without_the_list_of_sites(engine: &'static str) {
    let lose = |sites: &Sites| {
        for list in sites.files_of_templates("sites") {
            fs::remove_dir_all(list).unwrap();
        }
    };
    let sites = Sites::up(engine);
    let sandbox = &sites.sandbox;
    lose(&sites);
    sandbox.ok(&["down", "a"]);
    sandbox.ok(&["status", "b"]);

    lose(&sites);
    sandbox.ok(&["up", "a"]);
    sandbox.ok(&["down", "a"]);
    sandbox.ok(&["status", "b"]);
    sites.end();
}

fn in_a_copy(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sites(&sandbox, &["a"], "").remove(0);
    let bare = tree(&root);
    let copy = sandbox.directory("copy");
    let (none, all): (Option<&str>, _) = (None, MsFlags::MS_BIND | MsFlags::MS_REC);
    mount(Some("/"), &copy, none, all, none).unwrap();
    sandbox.ok(&["up", "a"]);
    let records = || {
        let text = |path: &str| fs::read_to_string(sandbox.state().join(path)).unwrap();
        let of_template = sandbox.state().join("run/templates");
        let template = files_in(&of_template, "json").remove(0);
        let template = fs::read_to_string(template).unwrap();
        [text("run/a.json"), text("lib/a.json"), template]
    };
    let before = records();

    for command in ["up", "down"] {
        let mut inside = sandbox.command_under(&["chroot", copy.to_str().unwrap()]);
        let _ = Ran::of(inside.args([command, "a"])).exits(1);
        assert_eq!(records(), before, "{command}");
    }

    umount2(&copy, MntFlags::MNT_DETACH).unwrap();
    sandbox.ok(&["status", "a"]);
    sandbox.ok(&["down", "a"]);
    fs::remove_dir(&copy).unwrap();
    bare.assert_same(&tree(&root));
}

fn other_engine(engine: &'static str) {
    let sites = Sites::up(engine);
    let other = if engine == "classic" {
        "detached"
    } else {
        "classic"
    };
    let run = |arguments: &[&str]| {
        let mut command = sites.sandbox.command();
        Ran::of(command.env("MOUNTJAIL_ENGINE", other).args(arguments)).exits(0)
    };
    run(&["status", "--all"]);
    run(&["down", "a"]).says("a: down, 2 mounts detached");
    run(&["up", "a"]);
    run(&["status", "--all"]);
    sites.sandbox.ok(&["status", "--all"]);
    run(&["down", "--all"]);
    sites.end();
}
