//! Promise: what `packaging/monitoring` has works with what the program prints: each query finds
//! its metrics, each alert fires when it should and at no other time; the journal gets fields.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use regex::Regex;
use serde_json::Value;

use crate::support::{Ran, Sandbox, Watcher, alone, empty_run, replace, soon, trials};

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        ("a file of metrics is replaced as a whole", in_a_file),
        ("all queries name metrics that are printed", queries),
        (
            "alerts fire for what they are about, and not otherwise",
            alerts,
        ),
    ]);
    all.push(alone("messages in the journal have fields", journal));
    all.push(alone(
        "without a journal messages have priorities",
        no_journal,
    ));
    all
}

fn monitoring(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/monitoring")
        .join(name)
}

fn metrics(sandbox: &Sandbox) -> String {
    Ran::of(sandbox.command().args(["status", "--format", "prometheus"])).stdout
}

fn in_a_file() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "devices: [zero]\n");
    sandbox.manifest("wrong", "root: relative\n");
    let directory = sandbox.directory("textfiles");
    let file = directory.join("mountjail.prom");
    // The arguments of the unit, but for the file.
    let unit = fs::read_to_string(monitoring("mountjail-metrics.service")).unwrap();
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/mountjail "))
        .unwrap();
    let (arguments, _) = start.rsplit_once(' ').unwrap();
    let write = || {
        let mut command = sandbox.command();
        command.args(arguments.split(' ')).arg(&file);
        Ran::of(&mut command).exits(0)
    };
    // Whatever is wrong with sites, a timer need not report it each minute.
    let ran = write();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("", ""),
        "{ran}"
    );
    let first = fs::File::open(&file).unwrap();
    sandbox.ok(&["up", "s"]);
    write();
    let text = std::io::read_to_string(first).unwrap();
    assert!(
        text.contains("mountjail_sites{state=\"down\"} 1\n"),
        "{text}"
    );
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("mountjail_sites{state=\"up\"} 1\n"), "{text}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);

    fs::remove_dir_all(&directory).unwrap();
    let mut command = sandbox.command();
    command.args(arguments.split(' ')).arg(&file);
    let cannot = format!("cannot write {}: No such file", file.display());
    Ran::of(&mut command).exits(1).says(&cannot);
}

/// A host with one site in each state, and a watcher that fails on one.
struct Host {
    sandbox: Sandbox,
    watcher: Option<Watcher>,
}

impl Host {
    fn healthy() -> Self {
        let sandbox = Sandbox::new();
        let file = sandbox.file("host/file", "old");
        let two = format!("devices: [zero]\nmounts: [{}]\n", file.display());
        sandbox.site("two", &two);
        sandbox.site("one", "devices: [zero]\n");
        sandbox.ok(&["up", "--all"]);
        let watcher = Some(Watcher::start(&sandbox));
        Self { sandbox, watcher }
    }

    /// The watcher has a site that it cannot bring right.
    fn make_watcher_fail(&self) {
        self.sandbox
            .site("one", "devices: [zero]\nmounts: [/no/such/file]\n");
        soon("the watcher fails", || {
            let text = metrics(&self.sandbox);
            if text.contains("mountjail_watch_failing_sites 1\n") {
                Ok(())
            } else {
                Err(text)
            }
        });
    }

    /// No watcher; a site each that is down, drifted, and unknown.
    fn make_ill(&mut self) {
        self.watcher.take().unwrap().end();
        self.sandbox.site("one", "devices: [zero]\n");
        self.sandbox.ok(&["down", "one"]);
        replace(&self.sandbox.path("host/file"), "new");
        self.sandbox.manifest("wrong", "root: relative\n");
    }
}

/// The names of the metrics that are printed, all of which are documented.
fn names(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect()
}

fn queries() {
    let mut host = Host::healthy();
    replace(&host.sandbox.path("host/file"), "new");
    soon("the watcher has healed", || {
        let text = metrics(&host.sandbox);
        if text.contains("mountjail_watch_heals_total{change=\"swap\"} 1\n") {
            Ok(())
        } else {
            Err(text)
        }
    });
    let text = metrics(&host.sandbox);
    host.watcher.take().unwrap().end();

    let dashboard = fs::read_to_string(monitoring("dashboard.json")).unwrap();
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/monitoring.md");
    let guide = fs::read_to_string(guide).unwrap();
    let name = Regex::new(r"\bmountjail_[a-z_]+\b").unwrap();
    let named = |text: &str| -> BTreeSet<String> {
        name.find_iter(text)
            .map(|found| found.as_str().to_owned())
            .collect()
    };
    let printed: BTreeSet<String> = names(&text).into_iter().map(ToOwned::to_owned).collect();
    let alerts = fs::read_to_string(monitoring("alerts.yaml")).unwrap();
    for (what, text) in [("alerts", &alerts), ("dashboard", &dashboard)] {
        let absent: Vec<_> = named(text).difference(&printed).cloned().collect();
        assert!(absent.is_empty(), "{what} names {absent:?}");
    }
    assert_eq!(named(&guide), printed, "the guide explains all metrics");

    // Each query of the dashboard finds series. Whether there are any that are not right is no
    // matter of the query.
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut tests = String::new();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<_> = targets
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(queries.len() > 12, "{queries:?}");
    for query in queries {
        let query = query
            .replace("$instance", ".*")
            .replace("$__rate_interval", "5m");
        let query = query.trim_end_matches(" == 0").trim_end_matches(" > 0");
        let found = serde_json::to_string(&format!("count({query}) > bool 0")).unwrap();
        writeln!(
            tests,
            "      - {{ expr: {found}, eval_time: 10m, exp_samples:"
        )
        .unwrap();
        writeln!(tests, "          [{{ labels: '{{}}', value: 1 }}] }}").unwrap();
    }
    let tests = format!("    promql_expr_test:\n{tests}");
    promtool(&host.sandbox, &series(&text, &[]), &tests);
}

fn alerts() {
    let mut host = Host::healthy();
    let healthy = metrics(&host.sandbox);
    fires(&host.sandbox, &series(&healthy, &[]), &[]);
    let old_files = "mountjail_site_outdated_processes{site=\"one\"}";
    for (sample, value, alert) in [
        (
            "mountjail_watch_blind",
            1,
            "alertname=\"MountjailWatcherBlind\"",
        ),
        (
            old_files,
            2,
            "alertname=\"MountjailOldFilesInUse\", site=\"one\"",
        ),
        // The clock of a test begins in 1970.
        (
            "mountjail_last_check_timestamp_seconds",
            0,
            "alertname=\"MountjailMetricsOld\"",
        ),
    ] {
        fires(
            &host.sandbox,
            &series(&healthy, &[(sample, value)]),
            &[alert],
        );
    }

    host.make_watcher_fail();
    let failing = metrics(&host.sandbox);
    let of_watcher = "alertname=\"MountjailWatcherFails\"";
    let drifted = "alertname=\"MountjailSiteDrifted\", site=\"one\"";
    fires(
        &host.sandbox,
        &series(&failing, &[]),
        &[of_watcher, drifted],
    );

    host.make_ill();
    fires(
        &host.sandbox,
        &series(&metrics(&host.sandbox), &[]),
        &[
            "alertname=\"MountjailSiteDown\", site=\"one\"",
            "alertname=\"MountjailSiteDrifted\", site=\"two\"",
            "alertname=\"MountjailSiteUnknown\"",
            "alertname=\"MountjailWatcherNotRunning\"",
        ],
    );
}

/// The metrics as they would be scraped each minute for a day and longer. `others`: samples with
/// another value than the one that was printed.
fn series(metrics: &str, others: &[(&str, u64)]) -> String {
    let mut series = String::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (sample, printed) = line.rsplit_once(' ').unwrap();
        let other = others.iter().find(|(name, _)| *name == sample);
        let value = other.map_or_else(|| printed.to_owned(), |(_, value)| value.to_string());
        writeln!(
            series,
            "      - {{ series: '{sample}', values: '{value}+0x1600' }}"
        )
        .unwrap();
    }
    for (name, _) in others {
        assert!(series.contains(name), "{name}\n{series}");
    }
    series
}

/// These alerts fire after a day, and no others.
#[track_caller]
fn fires(sandbox: &Sandbox, series: &str, alerts: &[&str]) {
    let firing = "count by (alertname, site) (ALERTS{alertstate=\"firing\"})";
    let mut tests = format!(
        "    promql_expr_test:\n      - expr: '{firing}'\n        eval_time: 25h\n        \
         exp_samples:\n"
    );
    for labels in alerts {
        writeln!(tests, "          - {{ labels: '{{{labels}}}', value: 1 }}").unwrap();
    }
    promtool(sandbox, series, &tests);
}

#[track_caller]
fn promtool(sandbox: &Sandbox, series: &str, tests: &str) {
    let rules = monitoring("alerts.yaml");
    let file = sandbox.file(
        "alerts.test.yaml",
        format!(
            "rule_files: [{}]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    \
             input_series:\n{series}{tests}",
            rules.display()
        ),
    );
    let ran = Ran::of(Command::new("promtool").args(["test", "rules"]).arg(&file));
    assert_eq!(ran.code, 0, "{ran}\n{}", fs::read_to_string(&file).unwrap());
}

/// The program's end of a stream to the journal, and what names it.
fn stream_to_journal() -> (UnixStream, OwnedFd, String) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let stat = nix::sys::stat::fstat(&theirs).unwrap();
    (ours, theirs, format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Runs mountjail as systemd starts it; returns what it wrote to the stream.
fn under_systemd(sandbox: &Sandbox, arguments: &[&str], code: i32) -> String {
    let (ours, theirs, name) = stream_to_journal();
    let mut command = sandbox.command();
    command.args(arguments).env("JOURNAL_STREAM", name);
    let status = command.stderr(Stdio::from(theirs)).status().unwrap();
    drop(command); // the last one who could write
    assert_eq!(status.code(), Some(code), "{arguments:?}");
    std::io::read_to_string(ours).unwrap()
}

/// The fields of the next entry, which is there already.
fn entry(journal: &UnixDatagram) -> Vec<(String, String)> {
    let mut buffer = vec![0; 65536];
    let length = journal.recv(&mut buffer).unwrap();
    let mut rest = &buffer[..length];
    let mut fields = vec![];
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap();
        let (name, after) = (&rest[..end], &rest[end + 1..]);
        let (length, after) = after.split_first_chunk().unwrap();
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.push((text(name), text(&after[..length])));
        assert_eq!(after[length], b'\n');
        rest = &after[length + 1..];
    }
    fields
}

fn journal() {
    empty_run();
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    journal
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let sandbox = Sandbox::new();
    sandbox.site("s", "devices: [zero]\n");
    let catalog =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring/mountjail.catalog");
    let catalog = fs::read_to_string(catalog).unwrap();
    // The subject, for which the catalog has the id of the message.
    let expect = |priority: &str, message: &str, subject: &str| {
        let entry = entry(&journal);
        let field = |name: &str| {
            let found = entry.iter().find(|(known, _)| known == name);
            let absent = || panic!("{name}: {entry:?}");
            found.map_or_else(absent, |(_, value)| value.as_str())
        };
        assert!(field("MESSAGE").contains(message), "{entry:?}");
        assert_eq!(field("PRIORITY"), priority, "{entry:?}");
        assert_eq!(field("MOUNTJAIL_SITE"), "s", "{entry:?}");
        assert_eq!(field("SYSLOG_IDENTIFIER"), "mountjail", "{entry:?}");
        let explained = format!("-- {}\nSubject: {subject}\n", field("MESSAGE_ID"));
        assert!(catalog.contains(&explained), "{explained}");
    };

    assert_eq!(under_systemd(&sandbox, &["up", "s"], 0), "");
    expect(
        "6",
        "s: up, 1 mount: 1 attached",
        "The site @MOUNTJAIL_SITE@ is up",
    );
    assert_eq!(under_systemd(&sandbox, &["down", "s"], 0), "");
    let down = "The site @MOUNTJAIL_SITE@ was taken down";
    expect("6", "s: down, 1 mount detached", down);
    fs::write(sandbox.root("s").join("dev"), "in the way").unwrap();
    assert_eq!(under_systemd(&sandbox, &["up", "s"], 1), "");
    // With the remedy, which is a line of its own.
    let failed = "Something failed on the site @MOUNTJAIL_SITE@";
    expect("3", "\n  try: ", failed);
    sandbox.manifest("s", "root: relative\n");
    assert_eq!(under_systemd(&sandbox, &["up", "s"], 2), "");
    let mistakes = "The configuration of the site @MOUNTJAIL_SITE@ has mistakes";
    expect("3", "relative", mistakes);
}

fn no_journal() {
    empty_run();
    let sandbox = Sandbox::new();
    sandbox.site("s", "devices: [zero]\n");
    let said = under_systemd(&sandbox, &["up", "s"], 0);
    assert_eq!(said, "<6>s: up, 1 mount: 1 attached\n");
}
