//! A picture of what `tests/boot/run scale` measured: `systemctl daemon-reload` by the number of
//! sites, in both scopes. The figures are in `target/scale.tsv`.

#[path = "support/plot.rs"]
mod plot;

use std::fs;
use std::path::{Path, PathBuf};

use plot::{Plot, machine};
use plotters::prelude::SeriesLabelPosition;
use serde_json::json;

/// One farm: its scope, its sites, and the seconds of a reload with it.
struct Farm {
    scope: String,
    sites: f64,
    reload: f64,
}

fn main() {
    let table = table();
    let Ok(text) = fs::read_to_string(&table) else {
        println!(
            "no picture of daemon-reload: `tests/boot/run scale` writes {}",
            table.display()
        );
        return;
    };
    let farms: Vec<_> = text.lines().skip(1).map(farm).collect();
    let slowest = farms.iter().map(|farm| farm.reload).fold(1.0, f64::max);
    let plot = Plot {
        name: "performance-reload",
        x: ("sites", 1.0..1200.0),
        // Room for the names above the lines. From 0.1 itself there is no label at 0.1.
        y: ("s", 0.0999..slowest * 20.0),
        log_y: true,
        names: SeriesLabelPosition::UpperLeft,
        lines: vec![
            ("scope host", line(&farms, "host")),
            ("scope services", line(&farms, "services")),
        ],
    };
    plot.write(&json!({ "machine": machine(), "figures": text }));
}

fn table() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("scale.tsv")
}

/// A row of the table: scope, sites, lines, `up`, reload, and others.
fn farm(row: &str) -> Farm {
    let columns: Vec<_> = row.split('\t').collect();
    let milliseconds: f64 = columns[4].parse().unwrap();
    Farm {
        scope: columns[0].to_owned(),
        sites: columns[1].parse().unwrap(),
        reload: milliseconds / 1e3,
    }
}

/// The farms with this scope. A logarithmic axis has no place for none at all.
fn line(farms: &[Farm], scope: &str) -> Vec<(f64, f64)> {
    let of_scope = farms.iter().filter(|farm| farm.scope == scope);
    of_scope
        .filter(|farm| farm.sites > 0.0)
        .map(|farm| (farm.sites, farm.reload))
        .collect()
}
