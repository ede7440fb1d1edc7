//! Promise: `import` reads PHP-FPM's configuration as PHP-FPM does. `php-fpm -tt` is asked about
//! each configuration too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Sandbox, on_shared_root, overlay, soon, trials};
use libtest_mimic::Trial;
use mountjail::import::fpm::{self, Pool};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

pub fn all() -> Vec<Trial> {
    let mut trials = trials([
        (
            "any value, key and section is read as PHP-FPM reads it",
            any_line,
        ),
        (
            "any configuration of many files is read as PHP-FPM reads it",
            any_configuration,
        ),
        (
            "configurations of panels and distributions are read",
            real_ones,
        ),
        ("an odd pool does not hide the others", one_odd_pool),
        ("pools that cannot work are reported at once", reported),
        (
            "the prefix of a running master is that of its workers' roots",
            prefix_of_a_running_master,
        ),
        ("include finds what glob(3) finds", includes),
        (
            "an included file that cannot be read is no pool's mistake",
            unreadable_include,
        ),
        ("what PHP-FPM refuses is noted, and nothing else", refusals),
    ]);
    // Run alone, because they mount on /run and /etc.
    trials.push(on_shared_root(
        "a pool comes with the needs of its PHP",
        needs_of_php,
    ));
    trials.push(on_shared_root(
        "masters are found by what runs and by units",
        found_masters,
    ));
    trials
}

/// The program of Debian's package.
fn php_fpm() -> PathBuf {
    glob::glob("/usr/sbin/php-fpm*")
        .unwrap()
        .next()
        .expect("Debian's php-fpm is installed")
        .unwrap()
}

/// What PHP-FPM makes of a configuration: its pools, each with its directives; `Err`: why it
/// refuses it.
type Dump = Result<BTreeMap<String, BTreeMap<String, String>>, String>;

/// `php-fpm -tt`, with `MJ_TEST=/from/env`.
fn dump(file: &Path, prefix: Option<&Path>) -> Dump {
    let mut command = Command::new(php_fpm());
    command.env("MJ_SANDBOX", prefix.unwrap_or(Path::new("/")));
    command
        .args(["-tt", "-n", "-y"])
        .arg(file)
        .env("MJ_TEST", "/from/env")
        .env_remove("MJ_NONE");
    if let Some(prefix) = prefix {
        command.arg("-p").arg(prefix);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(text);
    }
    let mut pools: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut open = None;
    for line in text.lines() {
        let Some((_, line)) = line.split_once("] NOTICE: ") else {
            continue;
        };
        if let Some(directive) = line.strip_prefix('\t') {
            if let Some((key, value)) = directive.split_once(" = ") {
                let pool: &mut BTreeMap<_, _> =
                    pools.entry(open.clone().unwrap_or_default()).or_default();
                // The last definition of an array is printed first, and takes effect.
                pool.entry(key.to_owned())
                    .or_insert_with(|| value.to_owned());
            }
        } else if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            open = Some(name.to_owned());
        }
    }
    pools.remove("global");
    Ok(pools)
}

/// Fails unless `pools` have the names and the values that PHP-FPM has.
fn assert_same(theirs: &BTreeMap<String, BTreeMap<String, String>>, ours: &[Pool]) {
    let names: Vec<_> = ours.iter().map(|pool| pool.name.as_str()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        theirs.keys().map(String::as_str).collect::<Vec<_>>()
    );
    for pool in ours {
        for (key, value) in &theirs[&pool.name] {
            let simple = [
                "prefix",
                "user",
                "group",
                "chroot",
                "listen.owner",
                "access.format",
            ]
            .contains(&key.as_str());
            if simple || key.starts_with("env[") || key.starts_with("php_admin_value[") {
                // A line end can be a part of a value, and is one in what is printed.
                let printed = pool.get(key).map(|value| format!("{value}\n"));
                let ours = printed
                    .as_deref()
                    .and_then(|printed| printed.lines().next());
                let ours = ours.unwrap_or("undefined");
                let theirs = if value.is_empty() { "undefined" } else { value };
                assert_eq!(ours, theirs, "{key} of {}", pool.name);
            }
        }
    }
}

fn runner(cases: u32) -> TestRunner {
    let persistence = Some(Box::new(FileFailurePersistence::Off) as Box<_>);
    TestRunner::new(Config {
        cases,
        failure_persistence: persistence,
        max_shrink_iters: 400,
        ..Config::default()
    })
}

/// As many cases as `MJ_CASES` says.
fn cases(usual: u32) -> u32 {
    std::env::var("MJ_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(usual)
}

/// Characters with a meaning in PHP's dialect of ini files.
const ODD: &[&str] = &[
    "yes",
    "No",
    "on",
    "OFF",
    "none",
    "null",
    "true",
    "False",
    "E_ALL",
    "PHP_OS",
    "M_PI",
    "$pool",
    "${MJ_TEST}",
    "${MJ_NONE}",
    "$",
    "${",
    "}",
    "\"",
    "\"",
    "'",
    "'a b'",
    "\"c d\"",
    "\\",
    "\\\\",
    "\\\"",
    "\\$",
    ";",
    " ;",
    "=",
    "&",
    "|",
    "^",
    "~",
    "!",
    "(",
    ")",
    "1",
    "-5",
    "1.5",
    "[",
    "]",
    "{",
    "#",
    ",",
    ":",
    "\t",
    " ",
    "  ",
    "ä",
    "?",
    "*",
    "%",
    "@",
    "+",
    "<",
    "\r",
];

/// Pieces that PHP's dialect reads differently than they look.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z/0-9._-]{1,5}",
        2 => prop::sample::select(ODD.to_vec()).prop_map(str::to_owned),
    ]
}

fn text(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..most).prop_map(|pieces| pieces.concat())
}

/// A line for a pool.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => text(6).prop_map(|value| format!("env[X] = {value}")),
        2 => text(6).prop_map(|value| format!("access.format={value}")),
        2 => (text(4), text(3)).prop_map(|(key, value)| format!("env[{key}] = x{value}")),
        1 => (text(3), text(3)).prop_map(|(name, value)| format!("{name}listen.owner{value} = x")),
        1 => text(4).prop_map(|name| format!("[{name}]")),
        1 => text(6),
    ]
}

fn any_line() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("fpm.conf");
    // Safe: the trials of this program neither read nor change the environment meanwhile.
    let ask = |line: &str| {
        let text = format!(
            "[global]\nerror_log = /dev/null\n[a]\nuser = www-data\nlisten = 127.0.0.1:9377\n\
             pm = ondemand\npm.max_children \
             = 1\n{line}\nuser = www-data\nlisten = 127.0.0.1:9377\npm = ondemand\n\
             pm.max_children = 1\n"
        );
        std::fs::write(&file, text).unwrap();
        (
            dump(&file, None),
            fpm::read(&file, None, &[master(&file)]).unwrap(),
        )
    };
    runner(cases(150))
        .run(&line(), |line| {
            if let (Ok(theirs), ours) = ask(&line) {
                prop_assert!(ours.errors.is_empty(), "{:?}", ours.errors);
                assert_same(&theirs, &ours.pools);
            }
            Ok(())
        })
        .unwrap();
}

/// A master whose environment is what [`dump`] sets.
fn master(file: &Path) -> fpm::Master {
    fpm::Master::with_environment(
        file.to_owned(),
        "/usr".into(),
        [("MJ_TEST".to_owned(), "/from/env".to_owned())],
    )
}

/// Directives of a pool that PHP-FPM accepts, most of the time, and a section now and then.
fn directive() -> impl Strategy<Value = String> {
    let user = prop::sample::select(vec!["www-data", "'games'", "\"nobody\"", "33", "$pool"]);
    let path = prop::sample::select(vec![
        "SANDBOX/srv/one",
        "SANDBOX/srv/$pool",
        "'SANDBOX/srv/two'",
        "\"SANDBOX/srv/\"two",
        "srv/one",
        "$prefix/srv/two",
        "$prefix",
        "SANDBOX/srv/../srv/one",
        "SANDBOX/srv/two/",
        "srv/$pool ; its own",
        "${MJ_SANDBOX}/srv/one",
        "\"\"",
        "SANDBOX/link",
        "/",
    ]);
    let prefix = prop::sample::select(vec!["SANDBOX", "SANDBOX/other", "other", "\"\"", "$pool"]);
    let section = prop::sample::select(vec!["one", "ONE", "two", "Two", "global", "GLOBAL", "a b"]);
    let include = prop::sample::select(vec![
        "inner.inc",
        "SANDBOX/inner.inc",
        "none*.conf",
        "\"inn*r.inc\"",
        "${MJ_SANDBOX}/inner.inc",
        "inn[e-f]r.inc",
    ]);
    prop_oneof![
        2 => section.prop_map(|name| format!("[{name}]\nuser = nobody\nlisten = $pool.sock\n\
                                              pm = static\npm.max_children=1")),
        2 => user.prop_map(|user| format!("user = {user}")),
        1 => Just("Group = games".to_owned()),
        3 => path.prop_map(|path| format!("chroot = {path}")),
        1 => prefix.prop_map(|prefix| format!("PREFIX = {prefix}")),
        1 => include.prop_map(|include| format!("include = {include}")),
        1 => Just("php_admin_value[sendmail_path] = /log/$pool".to_owned()),
        1 => Just("; a comment\n\n".to_owned()),
    ]
}

fn any_configuration() {
    let sandbox = Sandbox::new();
    for directory in ["one", "ONE", "two", "Two", "a b", "global"] {
        for above in [
            "srv",
            "other/srv",
            "one/srv",
            "ONE/srv",
            "two/srv",
            "Two/srv",
        ] {
            sandbox.directory(format!("{above}/{directory}"));
        }
    }
    std::os::unix::fs::symlink("srv/one", sandbox.path("link")).unwrap();
    let prefix = sandbox.path("").components().collect::<PathBuf>();
    let place = prefix.to_str().unwrap();
    let main = sandbox.path("php-fpm.conf");
    let lines = |most| prop::collection::vec(directive(), 0..most);
    let accepted = std::cell::Cell::new(0);
    runner(cases(150))
        .run(
            &(lines(4), lines(6), lines(6), lines(2)),
            |(first, a, b, inner)| {
                let write = |name: &str, head: &str, lines: &[String]| {
                    sandbox.file(
                        name,
                        format!(
                            "{head}\n\
                             {}\n",
                            lines.join("\n")
                        )
                        .replace("SANDBOX", place),
                    );
                };
                let head = "[global]\nerror_log = /dev/null\ninclude = inc/*.conf\n[one]\n\
                        user = nobody\nlisten = o.sock\npm = \
                        static\npm.max_children = 1";
                write("php-fpm.conf", head, &first);
                write("inc/a.conf", "", &a);
                write("inc/b.conf", "", &b);
                write("inc/.c.conf", "[hidden]", &b);
                write("inner.inc", "", &inner);
                if let Ok(theirs) = dump(&main, Some(&prefix)) {
                    accepted.set(accepted.get() + 1);
                    let variables = [("MJ_SANDBOX".to_owned(), place.to_owned())];
                    let master =
                        fpm::Master::with_environment(main.clone(), prefix.clone(), variables);
                    let ours = fpm::read(&main, None, &[master]).unwrap();
                    prop_assert!(ours.errors.is_empty(), "{:?}", ours.errors);
                    assert_same(&theirs, &ours.pools);
                }
                Ok(())
            },
        )
        .unwrap();
    assert!(accepted.get() > 0, "PHP-FPM refused all");
    eprintln!("{} accepted", accepted.get());
}

/// What `import` and `php-fpm -tt` are given: files below a prefix, `PREFIX` in them standing for
/// it, and the first of them.
fn same(files: &[(&str, &str)]) {
    let sandbox = Sandbox::new();
    let prefix = sandbox.path("").components().collect::<PathBuf>();
    for root in [
        "srv/one",
        "srv/two",
        "srv/link-end",
        "srv/a b",
        "web/var",
        "run",
    ] {
        sandbox.directory(root);
    }
    for (name, text) in files {
        let rest = "pm = ondemand\npm.max_children = 2\n";
        let text = text
            .replace("PREFIX", prefix.to_str().unwrap())
            .replace("REST\n", rest);
        sandbox.file(name, text);
    }
    let main = prefix.join(files[0].0);
    let theirs = dump(&main, Some(&prefix))
        .unwrap_or_else(|why| panic!("PHP-FPM refuses {}: {why}", files[0].1));
    let variables = [("MJ_SANDBOX".to_owned(), prefix.display().to_string())];
    let master = fpm::Master::with_environment(main.clone(), prefix.clone(), variables);
    let ours = fpm::read(&main, Some(&prefix), &[master]).unwrap();
    assert!(ours.errors.is_empty(), "{:?}", ours.errors);
    assert_same(&theirs, &ours.pools);
    // Also by the command, which gets the prefix.
    let mut import = sandbox.command();
    import
        .env("MJ_NONE", "")
        .args(["import", "--prefix"])
        .arg(&prefix)
        .arg(&main);
    let text = crate::support::Ran::of(&mut import).exits(0).stdout;
    for pool in ours.pools.iter().filter_map(Pool::chroot) {
        let root = std::fs::canonicalize(pool).unwrap();
        let line = format!("root: {}", root.display());
        assert!(
            text.contains(&line) || text.contains(&format!("root: \"{}\"", root.display())),
            "{line}\n{text}"
        );
    }
}

fn real_ones() {
    let global = "; FPM\n[global]\npid = run/fpm.pid\nerror_log = /dev/null\n";
    // The arrays of PHP-FPM's own tests.
    same(&[(
        "etc/php-fpm.conf",
        "[global]\nerror_log = /dev/null\n[unconfined]\nlisten = run/sock\nuser = games\n\
         chroot = PREFIX/srv/one\naccess.suppress_path[] = /ping\n\
         access.suppress_path[] = /health_check.php\nREST\n\
         php_value[date.timezone] = Europe/London\n\
         php_admin_value[disable_functions] = eval\nphp_flag[display_errors] = On\n\
         php_admin_flag[log_errors] = 1\n",
    )]);
    // Debian, and Virtualmin and ISPConfig on it: an absolute include, one file a site.
    same(&[
        (
            "etc/php/8.2/fpm/php-fpm.conf",
            &format!("{global}include=PREFIX/etc/php/8.2/fpm/pool.d/*.conf\n"),
        ),
        (
            "etc/php/8.2/fpm/pool.d/web1.conf",
            "[web1]\n\nlisten = PREFIX/run/web1.sock\nlisten.owner = www-data\nlisten.mode = 0660\n\
             \nuser = games\ngroup = \
             www-data\n\nREST\nchroot = PREFIX/srv/one\n\
             php_admin_value[sendmail_path] = \"/usr/sbin/sendmail -t -i -f \
             webmaster@example.org\"\nphp_admin_value[open_basedir] = /web:/tmp ; inside\n\
             php_admin_flag[allow_url_fopen] = \
             on\n",
        ),
        (
            "etc/php/8.2/fpm/pool.d/1612345.conf",
            "[1612345]\nuser = \"nobody\"\ngroup = 'nogroup'\nlisten = 127.0.0.1:8000\nREST\n\
             php_value[upload_tmp_dir] = \
             /tmp\n",
        ),
        (
            "etc/php/8.2/fpm/pool.d/.old.conf",
            "[old]\nchroot = /nowhere\n",
        ),
        ("etc/php/8.2/fpm/pool.d/readme.txt", "not read at all\n"),
    ]);
    // PHP's own build, as in docker-library's images: a relative include, pools in several files
    // that are read in order.
    same(&[
        (
            "etc/php-fpm.conf",
            &format!("{global}include=etc/php-fpm.d/*.conf\n"),
        ),
        (
            "etc/php-fpm.d/docker.conf",
            "[global]\nerror_log = /dev/null\n[www]\nclear_env = no\ncatch_workers_output = yes\n",
        ),
        (
            "etc/php-fpm.d/www.conf",
            "[www]\nuser = www-data\ngroup = www-data\nlisten = 127.0.0.1:9000\nREST\n",
        ),
        (
            "etc/php-fpm.d/zz-docker.conf",
            "[global]\ndaemonize = no\n\n[WWW]\nListen = 9000\nchroot = $prefix/srv/$pool/../one\n",
        ),
        ("srv/www/x", ""),
    ]);
    // HestiaCP and Froxlor: `$pool`, comments behind values, variables, a common file in each pool.
    same(&[
        ("php-fpm.conf", &format!("{global}include = pool.d/*\n")),
        (
            "common.inc",
            "REST\nchroot = PREFIX/srv/$pool\nenv[TMP] = /tmp\n",
        ),
        (
            "pool.d/one.conf",
            "[one]\nlisten = run/$pool.sock\nuser = games ; the owner\ninclude = common.inc\n",
        ),
        (
            "pool.d/two.conf",
            "[two]\nuser = ${MJ_NONE}games\ninclude = \"PREFIX/\"common.inc\n\
             listen = run/$pool.sock\nprefix = web\n",
        ),
        (
            "pool.d/three.conf",
            "[three]\nuser = games\nlisten = 9003\nREST\nprefix = web\nchroot = var\n\
             user = nobody\n",
        ),
    ]);
    // Gentoo, Arch, Remi: one file with everything; a section that the next file goes on with;
    // quotes; Windows' line ends.
    same(&[
        (
            "php-fpm.conf",
            &format!("{global}[one]\r\nuser = games\r\nlisten = 9001\ninclude = more/*.conf\n"),
        ),
        ("more/1.conf", "REST\nchroot = 'PREFIX/srv/one'\n"),
        (
            "more/2.conf",
            "access.format = \"%R - \\\"%m\\\" $pool\"\n[two]\nuser=games\nlisten=9002\nREST\n",
        ),
        (
            "more/3.conf",
            "chroot = \"PREFIX/srv/\"two\n[a b]\nuser = games\nlisten = 9003\nREST\n",
        ),
    ]);
}

/// Each pattern is tried alone, among files with odd names.
fn includes() {
    let pool = |name: &str| {
        format!("[{name}]\nuser = games\nlisten = {name}.sock\nREST\nchroot = PREFIX/srv/one\n")
    };
    let files = ["1", ".2", ".b", "B", "a b", "a[", "-", "ä"].map(|name| {
        let pool = pool(&format!("of {}", name.replace('[', "bracket")));
        (format!("p/{name}.conf"), pool)
    });
    for pattern in [
        ".*.conf",
        ".[0-9].conf",
        ".?.conf",
        "[.]2.conf",
        "?2.conf",
        "*.conf",
        "**.conf",
        "[[:digit:]].conf",
        "[[:alpha:]_]*.conf",
        "[![:digit:]].conf",
        "[^[:upper:]].conf",
        "[[.-.]].conf",
        "a[[].conf",
        "a[.conf",
        "a[]x[].conf",
        "[]-a].conf",
        "\\.2.conf",
        "[a-",
        "../p/1.conf",
        ".",
        "{1,B}.conf",
        "~",
    ] {
        let main = format!(
            "[global]\nerror_log = /dev/null\ninclude = \"PREFIX/p/{pattern}\"\n{}",
            pool("main")
        );
        let mut all = vec![("php-fpm.conf", main.as_str())];
        all.extend(
            files
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_str())),
        );
        same(&all);
    }
}

fn unreadable_include() {
    let sandbox = Sandbox::new();
    let root = |name: &str| {
        sandbox
            .directory(format!("srv/{name}"))
            .display()
            .to_string()
    };
    for (file, name) in [("1", "one"), ("3", "two")] {
        let text = format!(
            "[{name}]\nuser = games\nlisten = {name}.sock\npm = static\npm.max_children = 1\n\
             chroot = {}\n",
            root(name)
        );
        sandbox.file(format!("p/{file}.conf"), text);
    }
    std::os::unix::fs::symlink("/nonexistent", sandbox.path("p/2.conf")).unwrap();
    let pools = sandbox.path("p");
    let included = format!("include = {}/*.conf\n", pools.display());
    let main = sandbox.file("php-fpm.conf", format!("[global]\n{included}"));
    let main = main.display().to_string();
    let wrong = format!("error: {main}:2: include = {}/*.conf", pools.display());
    sandbox
        .run(&["import", &main])
        .exits(1)
        .says(&wrong)
        .says("2.conf: No such file or directory")
        .prints(&format!("root: {}\n", root("one")))
        .prints(&format!("root: {}\n", root("two")));

    let directory = format!("include = {}\n", pools.display());
    sandbox.file("php-fpm.conf", format!("[global]\n{directory}"));
    sandbox
        .run(&["import", &main])
        .exits(1)
        .says("PHP-FPM reads no file of a directory");
}

/// Each line is tried alone, after lines that PHP-FPM accepts.
fn refusals() {
    let sandbox = Sandbox::new();
    sandbox.directory("srv/one/app");
    let prefix = sandbox.path("").components().collect::<PathBuf>();
    let mut lines = vec![];
    let values = [
        "",
        "5",
        "-5",
        "banana",
        "yes",
        "off",
        "2m",
        "1x",
        "1.5",
        "unlimited",
        "static",
    ];
    for name in [
        "foo.bar",
        "listen.backlog",
        "process.priority",
        "process.dumpable",
        "pm",
        "pm.max_requests",
        "pm.max_children",
        "pm.process_idle_timeout",
        "request_terminate_timeout",
        "rlimit_files",
        "rlimit_core",
        "catch_workers_output",
        "decorate_workers_output",
        "clear_env",
        "access.suppress_path",
        "php_admin_flag[x]",
        "php_value[x]",
        "env[x]",
    ] {
        lines.extend(values.map(|value| format!("{name} = {value}")));
    }
    lines.extend(
        [
            "pm = dynamic",
            "pm = Dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 2",
            "pm = dynamic\npm.min_spare_servers = 2\npm.max_spare_servers = 1",
            "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 9",
            "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 2\n\
             pm.start_servers = 3",
            "pm = ondemand\npm.process_idle_timeout = 0",
            "pm = weird\npm = static",
            "chdir = /app",
            "chdir = /none",
            "chdir = /",
            "pm.status_path = /s",
            "pm.status_path = s",
            "ping.path = /",
            "ping.path = /a b",
            "request_slowlog_timeout = 5",
            "request_slowlog_timeout = 0",
            "request_slowlog_timeout = 5\nslowlog = PREFIX/slow",
            "chdir[x] = /app",
            "",
        ]
        .map(str::to_owned),
    );
    let mut wrong = vec![];
    for line in lines {
        let pool = format!("{}{line}\n", good_pool());
        wrong.extend(difference(&sandbox, &prefix, &pool));
    }
    for missing in ["pm =", "listen =", "user =", "pm.max_children ="] {
        let pool = good_pool();
        let good = pool.lines().filter(|line| !line.starts_with(missing));
        let text = good.collect::<Vec<_>>().join("\n");
        wrong.extend(difference(&sandbox, &prefix, &format!("{text}\n")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let file = sandbox.file(
        "note.conf",
        "[a]\nlisten = 9000\nuser = games\npm = weird\n\
                                          chroot = /srv/none\n",
    );
    sandbox
        .ok(&["import", file.to_str().unwrap()])
        .prints("note.conf:4: `pm = weird`: PHP-FPM needs `static`, `dynamic` or `ondemand`.");
}

fn good_pool() -> String {
    "[one]\nuser = games\nlisten = PREFIX/s.sock\nchroot = PREFIX/srv/one\npm = static\n\
     pm.max_children = 2\n"
        .to_owned()
}

/// How import differs from PHP-FPM about this pool.
fn difference(sandbox: &Sandbox, prefix: &Path, pool: &str) -> Option<String> {
    let pool = pool.replace("PREFIX", prefix.to_str().unwrap());
    let file = sandbox.file(
        "refused.conf",
        format!("[global]\nerror_log = /dev/null\n{pool}"),
    );
    let theirs = dump(&file, Some(prefix));
    let read = fpm::read(&file, Some(prefix), &[]).unwrap();
    let mut ours: Vec<_> = read.errors.iter().map(ToString::to_string).collect();
    ours.extend(read.pools.iter().flat_map(Pool::refusals));
    let difference = format!("{pool}{theirs:?}\n{ours:?}\n");
    (theirs.is_err() == ours.is_empty()).then_some(difference)
}

fn one_odd_pool() {
    let sandbox = Sandbox::new();
    for root in ["good", "dots", "fine"] {
        sandbox.directory(format!("srv/{root}"));
    }
    std::os::unix::fs::symlink("fine", sandbox.path("srv/link")).unwrap();
    let srv = sandbox.path("srv").display().to_string();
    let file = sandbox.file(
        "php-fpm.conf",
        format!(
            "[global]\ninclude = {srv}/none*.conf\n[good]\nuser = games\nchroot = {srv}/good\n\
             [env]\nuser = games\nchroot = \
             ${{MJ_NOBODY_SETS}}/x\n[dots]\nuser = games\nchroot = {srv}/good/../dots\n[link]\n\
             user = games\nchroot = \
             {srv}/link\n[broken]\nchroot = \"x\n[pre]\nchroot = {srv}/$prefix\n[mid]\n\
             chroot = x/$prefix\n[Ünï]\nuser = \
             games\nchroot = {srv}/fine\n[system]\nchroot = /usr\n[build]\nchroot = PHP_PREFIX\n\
             [nokey]\nchroot = {srv}/fine\nphp_value[] = x\n\
             [key]\nchroot = {srv}/fine\naccess.suppress_path[x] = /x\n\
             [path]\nchroot = {srv}/fine\naccess.suppress_path[] = x\n"
        ),
    );
    let ran = sandbox
        .run(&["import", "--write", file.to_str().unwrap()])
        .exits(1);
    for said in [
        "none*.conf: no file matches",
        "pool env: chroot: ${MJ_NOBODY_SETS} stands for a variable",
        "php-fpm.conf:16: `chroot = \"x`: the quote does not end",
        "pool mid: chroot = x/$prefix: PHP-FPM knows `$prefix` only at the beginning of a value",
        "`php_value[] = x`: the brackets have no key",
        "`access.suppress_path[x] = /x`: the brackets have a key",
        "`access.suppress_path[] = x`: the path does not begin with /",
        "pool system: chroot = /usr: ",
        "pool build: chroot: PHP_PREFIX is a constant",
        "/link of the pool link leads to ",
    ] {
        assert!(ran.stderr.contains(said), "{said}\n{ran}");
    }
    for (site, root) in [("good", "good"), ("dots", "dots"), ("link", "fine")] {
        let text =
            std::fs::read_to_string(sandbox.config().join(format!("sites/{site}.yaml"))).unwrap();
        assert!(text.contains(&format!("root: {srv}/{root}\n")), "{text}");
    }
}

fn reported() {
    let sandbox = Sandbox::new();
    let (one, two) = (sandbox.directory("srv/one"), sandbox.root("two"));
    sandbox.file("conf.d/10-opcache.ini", "zend_extension=opcache.so\n");
    sandbox.file("php.ini", "[opcache]\n;opcache.validate_root=0\n");
    let file = sandbox.file(
        "php-fpm.conf",
        format!(
            "[one]\nuser = games\ngroup = adm\nenv[SSL_CERT_FILE] = /etc/ssl/openssl.cnf\n\
             env[CACHE] = \"/var/cache\"\nenv[NOTHING] = /no/such/file\nenv[PATH] = /usr/bin\n\
             env[HOSTNAME] = $HOSTNAME\nenv[LANG] = C.UTF-8\nchroot = {}\n\
             [two]\nuser = nobody-here\n\
             group = none-here\nchroot = {}\n",
            one.display(),
            two.display()
        ),
    );
    let ran = sandbox.run(&["import", file.to_str().unwrap()]).exits(0);
    for said in [
        "The pool one runs with the group adm, which its user is not a member of",
        "The pool two runs as the user nobody-here, whom this host does not have",
        "The pool two runs with the group none-here, which this host does not have",
        "two of the pool two is not there: `mountjail up --create` makes it",
        "The pool one sets SSL_CERT_FILE to /etc/ssl/openssl.cnf, which the site does not have",
        "The pool one sets CACHE to /var/cache, which the site does not have",
    ] {
        assert!(ran.stdout.contains(said), "{said}\n{ran}");
    }
    for name in ["NOTHING", "PATH", "HOSTNAME", "LANG"] {
        assert!(
            !ran.stdout.contains(&format!("sets {name}")),
            "{name}\n{ran}"
        );
    }
    let ran =
        ran.says("opcache.validate_root is off: PHP-FPM serves one site's scripts in another");
    ran.says("the unit that starts its master process is not known");
    sandbox.file("php.ini", "opcache.validate_root = On\n");
    let ran = sandbox.ok(&["import", file.to_str().unwrap()]);
    assert!(!ran.stderr.contains("validate_root"), "{ran}");

    // What PHP-FPM refuses outside the pools, and paths of the host in a pool.
    sandbox.directory("srv/one/var/log");
    sandbox.file(format!("srv/one{}/twice", one.display()), "");
    let text = format!(
        "chroot = {0}\n[global]\nrlimit_files = 64\nphp_admin_value[memory_limit] = 1M\n\
         [one]\nuser = games\nchroot = {0}\n\
         php_admin_value[sendmail_path] = /opt/no/mini_sendmail -t\n\
         php_admin_value[open_basedir] = /tmp:{0}/www:{0}/x\n\
         php_value[error_log] = {0}/twice\nenv[HOME] = {0}/h\nenv[LIKE] = {0}x\n",
        one.display()
    );
    let file = sandbox.file("php-fpm.conf", text);
    let ran = sandbox.ok(&["import", file.to_str().unwrap()]);
    let one = one.display();
    let ran = ran
        .says("php-fpm.conf:1: `chroot` belongs to a pool")
        .says("php-fpm.conf:4: `php_admin_value` belongs to a pool")
        .prints("mail() starts /opt/no/mini_sendmail, which neither the root nor this host has")
        .prints(&format!(
            "php_admin_value[open_basedir] of the pool one names {one}/www, a path of the host: \
             inside, that file is /www."
        ))
        .prints(&format!(
            "env[HOME] of the pool one names {one}/h, a path of the host: inside"
        ));
    assert!(!ran.stderr.contains("rlimit_files"), "{ran}");
    assert_eq!(ran.stdout.matches("a path of the host").count(), 2, "{ran}");

    // A group that a user of the same name gives a name.
    let text = format!("[one]\nuser = games\ngroup = www-data\nchroot = {one}\n");
    let file = sandbox.file("php-fpm.conf", text);
    let ran = sandbox.ok(&["import", file.to_str().unwrap()]);
    let _ = ran.prints("users: [games, www-data]").prints("one");
}

/// Sockets of databases, files of extensions, mail, directories to write to.
fn needs_of_php() {
    let run = ["-t", "tmpfs", "-o", "mode=755", "run", "/run"];
    crate::support::Ran::of(Command::new("mount").args(run)).exits(0);
    for directory in ["/run/mysqld", "/run/php"] {
        std::fs::create_dir(directory).unwrap();
    }
    let sandbox = Sandbox::new();
    sandbox.file(
        "fpm/php.ini",
        "extension=pdo_mysql.so\nextension=imagick\nextension=redis.so\nextension=ldap.so\n",
    );
    let pool = |name: &str, lines: &str| {
        let root = sandbox.directory(format!("srv/{name}"));
        let text = format!(
            "[{name}]\nuser = games\nlisten = 127.0.0.1:9000\npm = static\n\
             pm.max_children = 1\nchroot = {}\n{lines}",
            root.display()
        );
        sandbox.file(format!("fpm/pool.d/{name}.conf"), text);
        root
    };
    sandbox.file("fpm/php-fpm.conf", {
        let pools = sandbox.path("fpm/pool.d/*.conf");
        format!(
            "[global]\nerror_log = /dev/null\ninclude={}\n",
            pools.display()
        )
    });
    pool("plain", "");
    let own = pool(
        "own",
        "php_admin_value[sendmail_path] = \"/usr/bin/tee -a '/etc/hosts'\"\n\
         php_value[session.save_path] = \"2;0600;/data/sessions\"\nenv[TMPDIR] = /data/tmp\n\
         php_admin_value[error_log] = syslog\n",
    );
    let code = sandbox.directory("code").display().to_string();
    let lines = format!(
        "php_value[include_path] = .:/no:{code}:/own\nphp_value[auto_append_file] = /no/a.php\n\
         php_value[error_log] = /var/log/php/e.log\nenv[TMPDIR] = $NO\n"
    );
    std::fs::create_dir(pool("paths", &lines).join("own")).unwrap();
    std::fs::create_dir_all(own.join("data/tmp")).unwrap();
    pool(
        "none",
        "php_value[disable_functions] = exec, mail\nphp_value[session.save_handler] = redis\n",
    );

    let script = sandbox.file(
        "mailer",
        "#!/bin/sh\nexec /usr/bin/msmtp -C /etc/hosts \"$@\"\n",
    );
    let script = script.display().to_string();
    let behind = [
        (
            "env",
            "/usr/bin/env -i /usr/sbin/sendmail -t -i",
            "/bin/sh, /usr/bin/env",
        ),
        (
            "nice",
            "nice -n 5 timeout -k 9 5 /usr/bin/msmtp -t",
            "/bin/sh, /usr/bin/nice",
        ),
        ("shell", "sh -c 'exec /usr/bin/msmtp -t'", "/bin/sh"),
        (
            "script",
            &format!("{script} -t"),
            &format!("/bin/sh, {script}"),
        ),
    ];
    for (name, command, _) in &behind {
        let line = format!("php_admin_value[sendmail_path] = \"{command}\"\n");
        pool(name, &line);
    }

    sandbox.ok(&["import", "--write", sandbox.path("fpm").to_str().unwrap()]);
    let manifest = |name: &str| {
        let file = sandbox.config().join(format!("sites/{name}.yaml"));
        std::fs::read_to_string(file).unwrap()
    };
    let has = |name: &str, lines: &[&str]| {
        let manifest = manifest(name);
        for line in lines {
            assert!(
                manifest.lines().any(|known| known == *line),
                "{line}\n{manifest}"
            );
        }
    };
    // Redis is not on this host, and of LDAP there may be no configuration.
    has(
        "plain",
        &[
            "# PHP loads pdo_mysql, which needs the preset mysql.",
            "presets: [php-fpm, mysql, php-imagick, mail]",
            r#"  - { path: /tmp, mode: "1777" }"#,
            r#"  - { path: /var/lib/php/sessions, mode: "1733" }"#,
        ],
    );
    has(
        "own",
        &[
            "presets: [php-fpm, mysql, php-imagick, syslog]",
            "programs: [/bin/sh, /usr/bin/tee]",
            r#"  - { path: /data/sessions, mode: "1733" }"#,
        ],
    );
    assert!(manifest("own").contains("hosts"), "{}", manifest("own"));
    has(
        "paths",
        &[
            &format!("  - {code}"),
            r#"  - { path: /tmp, mode: "1777" }"#,
            r#"  - { path: /var/log/php, mode: "1733" }"#,
            "# PHP's auto_append_file names /no/a.php, which neither the root nor this host has: \
             PHP answers no request without it.",
        ],
    );
    assert!(!manifest("paths").contains("/own"), "{}", manifest("paths"));
    // It is there already.
    assert!(
        !manifest("own").contains("/data/tmp"),
        "{}",
        manifest("own")
    );
    has("none", &["presets: [php-fpm, mysql, php-imagick]"]);
    for (name, _, programs) in &behind {
        let presets = "presets: [php-fpm, mysql, php-imagick, mail]";
        has(name, &[presets]);
        let programs = format!("programs: [{programs}");
        assert!(manifest(name).contains(&programs), "{}", manifest(name));
    }
    assert!(
        manifest("script").contains("hosts]\n"),
        "{}",
        manifest("script")
    );
    assert!(
        !manifest("none").contains("sessions"),
        "{}",
        manifest("none")
    );
    sandbox.ok(&["up", "--all"]);
    assert!(own.join("data/sessions").is_dir());
}

/// A configuration whose pools and roots are below a prefix that only the command of the master
/// names, which PHP-FPM overwrites.
fn prefix_of_a_running_master() {
    let sandbox = Sandbox::new();
    let place = sandbox.path("").components().collect::<PathBuf>();
    for root in ["r/b", "r/c", "usr", "m"] {
        sandbox.directory(root);
    }
    let pool = |name: &str, how: &str, chroot: &str| {
        format!(
            "[{name}]\nuser = games\nlisten = {name}.sock\n{how}\npm.max_children = 1\n\
             chroot = {chroot}\n"
        )
    };
    let global = "[global]\nerror_log = /dev/null\n";
    let main = sandbox.file(
        "m/fpm.conf",
        format!(
            "{global}include = pools/*.conf\n{}",
            pool("b", "pm = static", "$prefix/r/b")
        ),
    );
    sandbox.file("pools/c.conf", pool("c", "pm = ondemand", "r/c"));
    let lone = sandbox.file(
        "m/lone.conf",
        format!("{global}{}", pool("d", "pm = ondemand", "r/c")),
    );
    for (config, known) in [(&main, true), (&lone, false)] {
        let mut master = Command::new(php_fpm())
            .args(["-n", "-F", "-p"])
            .arg(&place)
            .arg("-y")
            .arg(config)
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", master.id());
        let title = format!("/proc/{}/cmdline", master.id());
        soon("the master and its workers run", || {
            let title = std::fs::read_to_string(&title).unwrap_or_default();
            let children = std::fs::read_to_string(&children).unwrap_or_default();
            let child = children.split_whitespace().next().unwrap_or("none");
            let worker = std::fs::read_to_string(format!("/proc/{child}/cmdline"));
            let in_root = std::fs::read_link(format!("/proc/{child}/root"));
            let is_there = worker.unwrap_or_default().contains("pool b")
                && in_root.is_ok_and(|root| root != Path::new("/"));
            if title.contains("master process") && (is_there || !known) {
                Ok(())
            } else {
                Err(format!("{title} {children}"))
            }
        });
        let ran = sandbox.run(&["import", config.to_str().unwrap()]);
        let named = sandbox.run(&[
            "import",
            "--prefix",
            place.to_str().unwrap(),
            config.to_str().unwrap(),
        ]);
        let pid = nix::unistd::Pid::from_raw(i32::try_from(master.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        master.wait().unwrap();
        let c = format!("root: {}/r/c\n", place.display());
        named.exits(0).prints(&c);
        if known {
            let b = format!("root: {}/r/b\n", place.display());
            ran.exits(0).prints(&b).prints(&c);
        } else {
            ran.exits(1)
                .says("pool d: chroot = r/c: it begins at the prefix of PHP-FPM's master process")
                .says("mountjail import --prefix DIRECTORY");
        }
    }
}

/// A master that runs, an instance of a template, a unit with a prefix, and places without either.
fn found_masters() {
    let sandbox = Sandbox::new();
    for directory in ["/etc", "/opt", "/usr/local"] {
        overlay(&sandbox, Path::new(directory));
    }
    let place = sandbox
        .path("")
        .components()
        .collect::<PathBuf>()
        .display()
        .to_string();
    let write = |path: &str, text: &str| {
        let path = Path::new(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.replace("PLACE", &place)).unwrap();
    };
    let pool = |name: &str, chroot: &str| {
        sandbox.directory(format!("srv/{name}"));
        format!(
            "[{name}]\nuser = games\nlisten = PLACE/{name}.sock\npm = ondemand\n\
             pm.max_children = 1\nchroot = {chroot}\n"
        )
    };
    let php = php_fpm();
    write(
        "/etc/systemd/system/php8.2-fpm@.service",
        &format!(
            "[Service]\nExecStart={} --nodaemonize \\\n  --fpm-config \
             /etc/php/8.2/fpm/fpm-%i.conf\n",
            php.display()
        ),
    );
    write(
        "/etc/php/8.2/fpm/fpm-KEY.conf",
        &pool("instance", "PLACE/srv/instance"),
    );
    write(
        "/etc/systemd/system/shop.service",
        "[Service]\nExecStart=-/opt/shop/sbin/php-fpm -y /etc/shop.conf $OPTIONS\n",
    );
    write(
        "/etc/systemd/system/shop.service.d/more.conf",
        "[Service]\nEnvironment=\"SITES=PLACE/srv\" \"OPTIONS=-p PLACE/prefix\"\n",
    );
    write(
        "/etc/shop.conf",
        &format!("include = pools/*.conf\n{}", pool("shop", "${SITES}/$pool")),
    );
    // A template, of which one instance is enabled.
    write(
        "/etc/systemd/system/asked@.service",
        "[Service]\nExecStart=/usr/sbin/php-fpm8.2 -F -y PLACE/t/%i.conf\n",
    );
    write(
        &format!("{place}/t/one.conf"),
        &pool("asked", "PLACE/srv/asked"),
    );
    write(
        &format!("{place}/t/fpm.conf"),
        &pool("asked", "PLACE/srv/asked"),
    );
    write(
        "/etc/systemd/system/multi-user.target.wants/asked@one.service",
        "",
    );
    // Behind other programs.
    let started = [
        (
            "wrapped",
            "/usr/bin/env ROOT=PLACE/srv/wrapped nice -n 5 FPM",
        ),
        (
            "shell",
            "/bin/sh -c 'ROOT=PLACE/srv/shell; export ROOT; exec FPM'",
        ),
        ("script", "PLACE/start-it"),
        ("unknown", "/opt/unknown --option FPM"),
    ];
    for (name, command) in started {
        let fpm = format!("/usr/sbin/php-fpm8.2 -F -y /etc/{name}.conf");
        let unit = format!(
            "[Service]\nEnvironment=ROOT=PLACE/srv/{name}\nExecStart={}\n",
            command.replace("FPM", &fpm)
        );
        write(&format!("/etc/systemd/system/{name}.service"), &unit);
        write(&format!("/etc/{name}.conf"), &pool(name, "${ROOT}"));
    }
    let script = "#!/bin/sh -e\nmkdir -p /run/php\nexec /usr/sbin/php-fpm8.2 -F -y \\\n \
                  /etc/script.conf \"$@\"\n";
    write(&format!("{place}/start-it"), script);
    sandbox.directory("prefix/srv/relative");
    write(
        &format!("{place}/prefix/pools/relative.conf"),
        &pool("relative", "srv/$pool"),
    );
    for (name, config) in [
        ("remi", "/etc/opt/remi/php83/php-fpm.conf"),
        ("collection", "/etc/opt/rh/rh-php73/php-fpm.conf"),
        ("panel", "/usr/local/php83/etc/php-fpm83.conf"),
        ("versions", "/opt/php-8.2/etc/php-fpm.conf"),
    ] {
        write(config, &pool(name, &format!("PLACE/srv/{name}")));
    }
    write(
        &format!("{place}/running.conf"),
        &format!(
            "[global]\nerror_log = /dev/null\n{}",
            pool("running", "PLACE/srv/running")
        ),
    );
    let mut master = Command::new(&php)
        .args(["-n", "-F", "-y", &format!("{place}/running.conf")])
        .spawn()
        .unwrap();
    let title = format!("/proc/{}/cmdline", master.id());
    soon("the master runs", || {
        let text = std::fs::read_to_string(&title).unwrap_or_default();
        if text.contains("master process") {
            Ok(())
        } else {
            Err(text)
        }
    });
    let ran = sandbox.run(&["import"]);
    master.kill().unwrap();
    master.wait().unwrap();
    for (root, unit) in [
        ("srv/instance", "services: [php8.2-fpm@KEY.service]"),
        ("srv/shop", "services: [shop.service]"),
        ("prefix/srv/relative", "services: [shop.service]"),
        ("srv/remi", "services: [php83-php-fpm.service]"),
        ("srv/collection", "services: [rh-php73-php-fpm.service]"),
        ("srv/panel", ""),
        ("srv/versions", ""),
        ("srv/running", ""),
        ("srv/asked", "services: [asked@one.service]"),
        ("srv/wrapped", "services: [wrapped.service]"),
        ("srv/shell", "services: [shell.service]"),
        ("srv/script", "services: [script.service]"),
        ("srv/unknown", "services: [unknown.service]"),
    ] {
        let (_, manifest) = ran
            .stdout
            .split_once(&format!("root: {place}/{root}\n"))
            .unwrap_or_else(|| panic!("{root}\n{ran}"));
        let manifest = manifest.split("\n# /").next().unwrap();
        assert!(manifest.contains(unit), "{unit}\n{manifest}");
    }
}
