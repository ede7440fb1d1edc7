//! Promise: templates that are gone, and records that are lost, leave no mount behind and nothing
//! that `up` and `down` cannot mend.

use std::fs;
use std::path::PathBuf;

use super::templates::{nothing_is_left, read, sites, without_a_gap};
use crate::support::{
    OnEngine, Ran, Sandbox, Tree, for_each_engine, grafts_below, replace, tree, unmount_all,
    where_templates_are,
};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let all: [(&str, OnEngine); 4] = [
        ("sites get new templates when theirs are gone", made_anew),
        ("sites go down when their templates are gone", down),
        ("grafts without any record are recognised", without_records),
        (
            "sites of the other engine go down and come up",
            other_engine,
        ),
    ];
    let all = all.into_iter();
    where_templates_are(
        all.flat_map(|(name, body)| for_each_engine(name, body))
            .collect(),
    )
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

    /// Takes them down.
    fn end(&self) {
        nothing_is_left(&self.sandbox);
        for (bare, root) in self.bare.iter().zip(&self.roots) {
            bare.assert_same(&tree(root));
        }
    }
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
