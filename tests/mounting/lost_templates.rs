//! Promise: templates that are gone, and records that are lost, leave no mount behind and nothing
//! that `up` and `down` cannot mend.

use std::fs;
use std::path::PathBuf;

use crate::support::{
    Ran, Sandbox, Tree, for_each_engine, grafts_below, mounts_below, replace, tree, unmount_all,
    where_templates_are,
};
use libtest_mimic::Trial;

/// A trial that is made for each engine.
type OnEngine = fn(&'static str);

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
        let (one, two) = (
            sandbox.file("host/one", "one"),
            sandbox.file("host/two", "two"),
        );
        let manifest = format!(
            "mounts:\n- {{ source: {}, target: /x/one }}\n\
             - {{ source: {}, target: /x/deep/two }}\n",
            one.display(),
            two.display()
        );
        let roots: Vec<_> = ["a", "b"].map(|name| sandbox.site(name, &manifest)).into();
        let bare = roots.iter().map(|root| tree(root)).collect();
        sandbox.ok(&["up", "--all"]);
        assert!(roots.iter().all(|root| grafts_below(root).len() == 1));
        Self {
            sandbox,
            roots,
            bare,
        }
    }

    fn templates(&self) -> PathBuf {
        self.sandbox.state().join("run/templates")
    }

    /// Unmounts the templates; their records stay. Those of the classic engine are in the host's
    /// namespace, so that what came along with the grafts goes as well.
    fn lose_templates(&self) {
        for entry in fs::read_dir(self.templates()).unwrap() {
            unmount_all(&entry.unwrap().path());
        }
    }

    fn lose_records(&self) {
        for directory in [self.sandbox.state().join("run"), self.templates()] {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|ending| ending == "json") {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }

    fn are_down(&self) {
        for (bare, root) in self.bare.iter().zip(&self.roots) {
            bare.assert_same(&tree(root));
        }
        assert!(mounts_below(&self.sandbox.path("")).is_empty());
        assert!(grafts_below(&self.sandbox.path("")).is_empty());
        assert!(!self.templates().exists());
    }
}

fn made_anew(engine: &'static str) {
    let sites = Sites::up(engine);
    let sandbox = &sites.sandbox;
    sites.lose_templates();
    let status = sandbox.run(&["status", "a"]).exits(3);
    let up = sandbox.ok(&["up", "--all"]);
    if engine == "detached" {
        status.prints("what is mounted in /x follows no template, and so not the host");
        up.says("a: up, 2 mounts: 2 swapped");
    }
    sandbox.ok(&["up", "--all"]).says("nothing to do");

    // They follow the host again.
    replace(&sandbox.path("host/one"), "new");
    sandbox.ok(&["up", "a"]);
    for root in &sites.roots {
        assert_eq!(fs::read_to_string(root.join("x/one")).unwrap(), "new");
    }
    sandbox.ok(&["down", "--all"]);
    sites.are_down();
}

fn down(engine: &'static str) {
    let sites = Sites::up(engine);
    sites.lose_templates();
    sites.sandbox.ok(&["down", "a"]);
    sites.sandbox.ok(&["down", "--all"]);
    sites.are_down();
}

fn without_records(engine: &'static str) {
    for first in ["up", "down"] {
        let sites = Sites::up(engine);
        sites.lose_templates();
        sites.lose_records();
        sites.sandbox.ok(&[first, "--all"]);
        sites.sandbox.ok(&["up", "--all"]);
        sites.sandbox.ok(&["status", "--all"]);
        sites.sandbox.ok(&["down", "--all"]);
        sites.are_down();
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
    sites.are_down();
}
