//! Promise: `doctor` tries inside what a site needs, names exactly what does not work with the line
//! that repairs it, and changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::{self, Fpm, NAME, PORT, Server};
use crate::support::{Ran, Sandbox, on_shared_root, tree, wait_until};
use libtest_mimic::Trial;
use mountjail::base::HostPath;
use mountjail::observe::{self, Process};
use mountjail::resolve::root_id;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub fn all() -> Vec<Trial> {
    let trials: [(&str, fn()); 37] = [
        ("a healthy site passes every check", well),
        ("a missing resolv.conf is reported", no_resolv_conf),
        ("a dead name server is reported", dead_name_server),
        ("missing certificates are reported", no_certificates),
        (
            "a dangling link to a certificate is reported",
            dangling_certificate,
        ),
        ("missing time zones are reported", no_time_zones),
        ("a missing NSS module is reported", missing_nss_module),
        ("a missing library is reported", missing_library),
        (
            "a library that only its program's search path completes is right",
            completed_by_the_program,
        ),
        (
            "a program that cannot be executed is reported",
            closed_program,
        ),
        (
            "an interpreter without its own files is reported with its preset",
            languages,
        ),
        ("a missing /dev/urandom is reported", no_urandom),
        ("a dead MySQL socket is reported", dead_mysql),
        ("mail() without sendmail is reported", no_sendmail),
        ("a mailer of the pool's own is tried", own_mailer),
        ("a mailer behind other programs is found", mailer_behind),
        (
            "sessions, code and logs that PHP's settings name are tried",
            named_by_settings,
        ),
        ("Imagick and LDAP without their files are reported", imagick),
        ("PHP's default socket is tried", default_socket),
        (
            "curl without its authorities is reported",
            curls_certificates,
        ),
        (
            "certificates that a pool's settings name are asked for by name",
            own_certificates,
        ),
        ("groups without a name inside are reported", strange_group),
        ("missing users and character sets are reported", no_data),
        ("missing character sets for PHP are reported", no_iconv),
        ("a missing locale is reported", no_locale),
        ("a log that nobody reads is reported", syslog),
        ("PHP's own settings are checked", php_settings),
        (
            "processes that started before the site came up are named",
            old_processes,
        ),
        ("a root that is closed to the user is reported", closed),
        (
            "a path to the root that now leads elsewhere is reported",
            led_elsewhere,
        ),
        ("a stale mount is reported", stale),
        (
            "an untrusted certificate and an unknown name are reported",
            strangers,
        ),
        ("bad input is reported clearly", bad_input),
        ("checks that hang are ended, and nothing is left", hanging),
        (
            "programs of the site's owner get no terminal, and end",
            hostile,
        ),
        ("without a site, the machine is described", machine),
        (
            "scripts in a bound directory are not programs that cannot start",
            scripts,
        ),
    ];
    let of_musl: Option<(&str, fn())> =
        cfg!(target_env = "musl").then_some(("musl on a host of musl's", host_of_musl));
    // Each in namespaces of its own: they change the same files of their host and use the same
    // ports.
    trials
        .into_iter()
        .chain(of_musl)
        .map(|(name, body)| on_shared_root(name, body))
        .collect()
}

/// A site in the laboratory with one pool, and a manifest that grows by the lines that doctor
/// prints.
struct Site {
    sandbox: Sandbox,
    root: PathBuf,
    lists: BTreeMap<String, Vec<String>>,
    _dns: Server,
}

/// The directory of PHP-FPM's pools.
fn pools() -> PathBuf {
    glob::glob("/etc/php/*/fpm/pool.d")
        .unwrap()
        .next()
        .expect("PHP-FPM is installed")
        .unwrap()
}

/// What the preset php-fpm consists of.
const PRESETS: [&str; 6] = ["base", "dns", "tls", "timezone", "locale", "iconv"];

/// The checks that a mountjail which is built with musl cannot make, where the host's programs are
/// glibc's.
const UNTRIED: &[&str] = if cfg!(target_env = "musl") {
    &["dns", "nss", "iconv", "locale"]
} else {
    &[]
};

impl Site {
    /// Does `work` while the site is down: directories that come from templates are read-only.
    fn while_down(&self, work: impl FnOnce()) {
        self.sandbox.ok(&["down", "site1"]);
        work();
        self.sandbox.ok(&["up", "site1"]);
    }

    /// A site that is up, with the preset php-fpm.
    fn new() -> Self {
        Self::with("presets: [php-fpm]\nusers: [www-data]\n")
    }

    /// A site that is up, with everything that the preset php-fpm brings except `preset`.
    fn without(preset: &str) -> Self {
        let presets: Vec<_> = PRESETS.into_iter().filter(|name| *name != preset).collect();
        Self::with(&format!(
            "presets: [{}]\nusers: [www-data]\n",
            presets.join(", ")
        ))
    }

    fn with(manifest: &str) -> Self {
        let sandbox = Sandbox::new();
        lab::prepare(&sandbox);
        let root = sandbox.site("site1", manifest);
        for (path, mode) in [("tmp", 0o1777), ("var/lib/php/sessions", 0o1733)] {
            fs::create_dir_all(root.join(path)).unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        let lists = manifest.lines().map(list).collect();
        let site = Self {
            sandbox,
            root,
            lists,
            _dns: lab::dns(),
        };
        for file in fs::read_dir(pools()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        // Extensions that open files late have trials of their own.
        for extension in ["imagick", "ldap"] {
            let files = format!("/etc/php/*/fpm/conf.d/*-{extension}.ini");
            for file in glob::glob(&files).unwrap() {
                fs::remove_file(file.unwrap()).unwrap();
            }
        }
        site.pool("site1", "");
        site.sandbox.ok(&["up", "site1"]);
        site
    }

    /// Writes the pool `name` in the site's root.
    fn pool(&self, name: &str, directives: &str) {
        let text = format!(
            "[{name}]\nuser = www-data\ngroup = www-data\nlisten = /run/{name}.sock\nchroot = {}\n\
             {directives}",
            self.root.display()
        );
        fs::write(pools().join(format!("{name}.conf")), text).unwrap();
    }

    fn doctor(&self, arguments: &[&str]) -> Ran {
        // Longer than a loaded machine takes, except in trials about the limit.
        let patient: &[&str] = if arguments.contains(&"--timeout") {
            &[]
        } else {
            &["--timeout", "60"]
        };
        self.sandbox
            .run(&[&["doctor", "--json", "site1"], patient, arguments].concat())
    }

    /// Fails if a check failed, or was impossible and is not one of [`UNTRIED`]; returns the
    /// checks that the site needs.
    #[track_caller]
    fn is_well(&self, arguments: &[&str]) -> Vec<String> {
        let ran = self.doctor(arguments).exits(0);
        let checks = checks(&ran);
        for check in checks
            .iter()
            .filter(|check| check["verdict"] == "could-not-check")
        {
            let (name, why) = (
                check["check"].as_str().unwrap(),
                check["detail"].as_str().unwrap(),
            );
            assert!(
                UNTRIED.contains(&name) && why.contains("this mountjail is built with musl"),
                "{ran}"
            );
        }
        let needed = checks
            .iter()
            .filter(|check| check["verdict"] != "not-needed");
        needed
            .map(|check| check["check"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Fails unless `check` alone failed, with `remedy`.
    #[track_caller]
    fn fails(&self, check: &str, remedy: &str) -> String {
        let ran = self.doctor(&[]).exits(3);
        let checks = checks(&ran);
        let bad: Vec<_> = checks
            .iter()
            .filter(|check| check["verdict"] == "failed")
            .collect();
        assert!(
            bad.len() == 1 && bad[0]["check"] == check,
            "not {check} alone\n{ran}"
        );
        let remedies: Vec<_> = bad[0]["remedy"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r.as_str().unwrap())
            .collect();
        assert_eq!(remedies, [remedy], "{ran}");
        bad[0]["detail"].as_str().unwrap().to_owned()
    }

    /// Adds a line that doctor printed, and brings the site up.
    #[track_caller]
    fn apply(&mut self, line: &str) {
        let (key, items) = list(line);
        self.lists.entry(key).or_default().extend(items);
        let mut text = format!("root: {}\n", self.root.display());
        for (key, items) in &self.lists {
            writeln!(text, "{key}: [{}]", items.join(", ")).unwrap();
        }
        self.sandbox.manifest("site1", text);
        self.sandbox.ok(&["up", "site1"]);
    }

    /// Fails unless `check` alone fails, `line` is advised, and adding it repairs the site.
    #[track_caller]
    fn is_mended_by(&mut self, check: &str, line: &str) -> String {
        let detail = self.fails(check, line);
        self.apply(line);
        self.is_well(&[]);
        detail
    }
}

impl Site {
    /// As [`Site::is_mended_by`]; and PHP in the pool could not do `php` before, and can
    /// afterwards.
    #[track_caller]
    fn is_mended_for_php(&mut self, check: &str, line: &str, php: &str) -> String {
        let answer = |site: &Self| Fpm::start(&site.sandbox, &site.root).eval(&site.root, php);
        let before = answer(self);
        assert!(
            before == "OK: false" || before.starts_with("FAILED: "),
            "it works before: {before}"
        );
        let detail = self.is_mended_by(check, line);
        assert_eq!(answer(self), "OK: true");
        detail
    }
}

/// `key: [a, b]`
fn list(line: &str) -> (String, Vec<String>) {
    let (key, items) = line.split_once(": ").unwrap();
    let items = items
        .strip_prefix('[')
        .and_then(|items| items.strip_suffix(']'))
        .unwrap();
    (
        key.to_owned(),
        items.split(", ").map(ToOwned::to_owned).collect(),
    )
}

fn checks(ran: &Ran) -> Vec<Value> {
    ran.json()["sites"][0]["checks"]
        .as_array()
        .unwrap_or_else(|| panic!("no checks\n{ran}"))
        .clone()
}

/// msmtp's configuration.
fn msmtprc() {
    let text = "account default\nhost localhost\nfrom web@lab.test\n";
    fs::write("/etc/msmtprc", text).unwrap();
}

fn well() {
    let site = Site::with(
        "presets: [php-fpm, mail, mysql, shell]\nusers: [www-data]\n\
         libraries: [/usr/lib/php/*/*.so]\n",
    );
    site.pool(
        "site1",
        "php_admin_value[sendmail_path] = \"/usr/sbin/sendmail -t -i\"\nenv[LANG] = C.UTF-8\n",
    );
    msmtprc();
    let (_mysql, _tls) = (lab::mysql(&site.sandbox), lab::tls(&site.sandbox));
    site.sandbox.ok(&["up", "site1"]);
    let fpm = Fpm::start(&site.sandbox, &site.root);
    let before = tree(&site.root);
    let server = format!("{NAME}:{PORT}");
    let needed = site.is_well(&["--host", NAME, "--tls", &server]);
    let all = [
        "entry",
        "mounts",
        "processes",
        "libraries",
        "devices",
        "dns",
        "nss",
        "tls",
        "users",
        "timezone",
        "iconv",
        "locale",
        "mail",
        "sockets",
        "php",
        "directories",
        "opcache",
        "web-root",
    ];
    assert_eq!(needed, all);
    let text = site
        .sandbox
        .ok(&["doctor", "site1", "--tls", &server])
        .stdout;
    let ok = if UNTRIED.is_empty() {
        "18 checks ok"
    } else {
        "15 checks ok, 3 not possible"
    };
    let begin = format!("site1: {ok}, in {} as www-data\n", site.root.display());
    assert!(text.starts_with(&begin), "{text}");
    assert!(
        text.contains("tls         ") && text.contains(&format!("{server} is trusted (TLSv1_3)")),
        "{text}"
    );
    assert!(
        text.contains("  not needed      syslog      no `error_log = syslog`"),
        "{text}"
    );
    before.assert_same(&tree(&site.root));
    drop(fpm);
}

fn no_resolv_conf() {
    let php = format!("gethostbyname('{NAME}') === '127.0.0.1'");
    let detail = Site::without("dns").is_mended_for_php("dns", "presets: [dns]", &php);
    assert_eq!(detail, "/etc/resolv.conf: No such file or directory");
}

fn dead_name_server() {
    let site = Site::new();
    let conf = "/run/systemd/resolve/stub-resolv.conf";
    let good = fs::read_to_string(conf).unwrap();
    let remedy = format!("name a server that answers in {conf}");
    fs::write(conf, format!("nameserver 127.0.0.77\n{good}")).unwrap();
    let detail = site.fails("dns", &remedy);
    assert_eq!(
        detail,
        "name server 127.0.0.77 does not answer: Connection refused"
    );
    // A server that runs and does not answer.
    let _silent = UdpSocket::bind("127.0.0.78:53").unwrap();
    fs::write(conf, format!("{good}nameserver 127.0.0.78\n")).unwrap();
    site.sandbox
        .run(&["doctor", "--timeout", "1", "site1"])
        .exits(3)
        .prints("127.0.0.78 does not answer: timed out");
    fs::write(conf, good).unwrap();
    site.is_well(&[]);
}

fn no_certificates() {
    let mut site = Site::without("tls");
    let _tls = lab::tls(&site.sandbox);
    let php = format!("is_resource(stream_socket_client('ssl://{NAME}:{PORT}'))");
    let detail = site.is_mended_for_php("tls", "presets: [tls]", &php);
    assert_eq!(
        detail,
        "no certificate of an authority is in /usr/lib/ssl/cert.pem or /usr/lib/ssl/certs"
    );
}

fn dangling_certificate() {
    let mut site = Site::new();
    // Below /tmp, so that no link alone brings it.
    let target = site.sandbox.path("pki/ca.crt");
    symlink(&target, "/etc/ssl/certs/deadbeef.0").unwrap();
    let detail = site.is_mended_by("tls", &format!("mounts: [{}]", target.display()));
    let link = "the link /usr/lib/ssl/certs/deadbeef.0 leads to ";
    assert_eq!(
        detail,
        format!("{link}{}, which is not inside", target.display())
    );
    symlink("/nowhere/at-all.pem", "/etc/ssl/certs/deadbeef.1").unwrap();
    site.fails(
        "tls",
        "run `update-ca-certificates --fresh`: the link dangles on the host, too",
    );
    fs::remove_file("/etc/ssl/certs/deadbeef.1").unwrap();
    fs::write(
        "/etc/ssl/certs/deadbeef.2",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let remedy = "remove the damaged file, or run `update-ca-certificates --fresh`";
    let detail = site.fails("tls", remedy);
    assert_eq!(
        detail,
        "/usr/lib/ssl/certs/deadbeef.2: a certificate in it is damaged"
    );
}

fn no_time_zones() {
    let php =
        "(new DateTime('2026-07-01', new DateTimeZone('Europe/Zurich')))->getOffset() === 7200";
    let detail =
        Site::without("timezone").is_mended_for_php("timezone", "presets: [timezone]", php);
    assert_eq!(detail, "/usr/share/zoneinfo/UTC: No such file or directory");
}

/// Debian's C library has two modules as files; `hesiod` stands for those of other packages.
fn missing_nss_module() {
    let by_hand = "presets: [base, tls, timezone, locale, iconv]\n\
                   etc: [resolv.conf, hosts, nsswitch.conf]\n\
                   users: [www-data]\n";
    let mut site = Site::with(by_hand);
    site.is_well(&[]);
    let text = fs::read_to_string("/etc/nsswitch.conf").unwrap();
    let lines = text.lines().map(|line| {
        if line.starts_with("hosts:") {
            "hosts: files hesiod dns"
        } else {
            line
        }
    });
    fs::write("/etc/nsswitch.conf", lines.collect::<Vec<_>>().join("\n")).unwrap();
    let detail = site.is_mended_by("nss", "nss: [hosts]");
    assert!(detail.ends_with(
        "libnss_hesiod.so.2 is not inside: `hesiod` answers for `hosts` in nsswitch.conf"
    ));
}

fn closed_program() {
    let mut site = Site::new();
    let program = site
        .sandbox
        .program("host/id", fs::read("/usr/bin/id").unwrap());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    site.apply(&format!("programs: [{}]", program.display()));
    let remedy = format!("chmod a+x {}", program.display());
    let detail = site.fails("libraries", &remedy);
    assert!(detail.contains("is of mode 0644, root:root"), "{detail}");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o750)).unwrap();
    let remedy = format!("setfacl -m u:www-data:rx {}", program.display());
    site.fails("libraries", &remedy);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    site.is_well(&[]);
}

fn missing_library() {
    let mut site = Site::new();
    let program = "/usr/bin/id";
    let mount = "mounts: [{ source: /usr/bin/id, executable: true }]";
    site.apply(mount);
    let detail = site.is_mended_by("libraries", "programs: [/usr/bin/id]");
    let loader = detail.starts_with("cannot find the ELF interpreter ");
    assert!(loader && detail.contains(" of /usr/bin/id: "), "{detail}");
    site.sandbox
        .ok(&["exec", "site1", "--", program])
        .prints("www-data");
    // A copy that somebody made by hand: its directory of libraries is brought, not each of them.
    let copy = site.root.join("usr/local/bin/tty");
    site.while_down(|| {
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        Ran::of(Command::new("cp").arg("/usr/bin/curl").arg(&copy)).exits(0);
    });
    let ran = site.doctor(&[]).exits(3);
    let failed = checks(&ran)
        .into_iter()
        .find(|check| check["verdict"] == "failed")
        .unwrap();
    assert_eq!(failed["check"], "libraries", "{ran}");
    let lines = failed["remedy"].as_array().unwrap();
    assert!(lines.len() < 4, "{ran}");
    for line in lines {
        site.apply(line.as_str().unwrap());
    }
    site.is_well(&[]);
    site.sandbox
        .ok(&["exec", "site1", "--", "/usr/local/bin/tty", "--version"])
        .prints("curl ");
    // A copy of a program that the host has at the same path.
    let copy = site.root.join("usr/bin/msmtp");
    site.while_down(|| {
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        Ran::of(Command::new("cp").arg("/usr/bin/msmtp").arg(&copy)).exits(0);
        let library = "/nowhere/libnone.so";
        let mut patch = Command::new("sed");
        let script = format!("s#libgnutls.so.30#{}#", &library[..15]);
        Ran::of(patch.args(["-i", &script]).arg(&copy)).exits(0);
    });
    let ran = site.doctor(&[]).exits(3);
    ran.prints(".old: the host has the file, too, and this line brings the host's own")
        .prints("programs: [/usr/bin/msmtp]");
    site.while_down(|| fs::remove_file(&copy).unwrap());
    site.is_well(&[]);
    // Files that the owner put there must not be run by root, nor read by root's shell.
    site.sandbox
        .program("srv/site1/usr/local/bin/$(id)", "#!/nowhere/at-all\n");
    let file = format!("'{}/usr/local/bin/$(id)'", site.root.display());
    let remedy =
        format!("remove it, or bring what it needs: `readelf -d {file}` lists its libraries");
    site.fails("libraries", &remedy);
}

fn completed_by_the_program() {
    let mut site = Site::new();
    let at = site.sandbox.directory("opt");
    let build = "echo 'int low(void) { return 42; }' >low.c
        echo 'int low(void); int high(void) { return low(); }' >high.c
        echo 'int high(void); int low(void); int main(void) { return high() != low(); }' >main.c
        gcc -shared -fPIC -Wl,-soname,liblow.so low.c -o liblow.so
        gcc -shared -fPIC -Wl,-soname,libhigh.so high.c -o libhigh.so -L. -llow
        gcc main.c -o runpath -L. -lhigh -llow -Wl,--enable-new-dtags,-rpath,$PWD
        gcc main.c -o rpath -L. -lhigh -Wl,--allow-shlib-undefined -Wl,-rpath-link,. \
            -Wl,--disable-new-dtags,-rpath,$PWD -Wl,--no-as-needed -llow";
    Ran::of(Command::new("sh").args(["-ec", build]).current_dir(&at)).exits(0);
    for name in ["runpath", "rpath"] {
        let program = at.join(name).display().to_string();
        site.apply(&format!("programs: [{program}]"));
        site.sandbox.ok(&["exec", "site1", "--", &program]);
        site.is_well(&[]);
    }
    // Without a program that brings it along, the library does find nothing.
    let library = at.join("libhigh.so").display().to_string();
    let mut other = Site::new();
    other.apply(&format!(
        "mounts: [{{ source: {library}, executable: true }}]"
    ));
    other.fails("libraries", &format!("libraries: [{library}]"));
}

fn languages() {
    let sandbox = Sandbox::new();
    let script = "#!/usr/bin/env -S -i FOO=bar python3 -I\n";
    let script = sandbox.program("host/script", script);
    let script = script.display().to_string();
    for (program, preset, says) in [
        ("/usr/bin/python3", "python3", "No module named 'encodings'"),
        (&script, "python3", "No module named 'encodings'"),
        ("/usr/bin/perl", "perl", "does not work: "),
        (
            "/usr/bin/ruby",
            "ruby",
            "uninitialized constant Gem::VERSION",
        ),
        ("/usr/bin/php", "php-cli", "is not inside"),
        ("/usr/bin/java", "java", "libjli.so"),
    ] {
        let languages = |manifest: &str| {
            sandbox.site("s", manifest);
            sandbox.ok(&["up", "s"]);
            let ran = sandbox.run(&["doctor", "--json", "--timeout", "60", "s"]);
            sandbox.ok(&["down", "s"]);
            let mut checks = checks(&ran).into_iter();
            checks.find(|check| check["check"] == "languages").unwrap()
        };
        let bare = languages(&format!("programs: [{program}]\n"));
        assert_eq!(bare["verdict"], "failed", "{program}: {bare}");
        assert!(bare["detail"].as_str().unwrap().contains(says), "{bare}");
        let remedy = format!("presets: [{preset}]");
        assert_eq!(bare["remedy"], serde_json::json!([remedy]), "{program}");
        let mended = languages(&format!("programs: [{program}]\n{remedy}\n"));
        if preset != "php-cli" {
            assert_eq!(mended["verdict"], "ok", "{program}: {mended}");
            continue;
        }
        // Its extension opens files of its own.
        assert_eq!(mended["verdict"], "failed", "{mended}");
        let remedy = "presets: [php-imagick]";
        assert_eq!(mended["remedy"], serde_json::json!([remedy]), "{mended}");
        let mended = languages("presets: [php-cli, php-imagick]\n");
        assert_eq!(mended["verdict"], "ok", "{mended}");
    }
}

fn no_urandom() {
    let by_hand = "presets: [tls, timezone, locale, iconv]\n\
                   etc: [resolv.conf, hosts, nsswitch.conf, ld.so.cache]\n\
                   nss: [hosts]\ndevices: [\"null\", zero, random]\nusers: [www-data]\n";
    let mut site = Site::with(by_hand);
    let detail = site.is_mended_by("devices", "devices: [urandom]");
    assert_eq!(detail, "/dev/urandom: No such file or directory");
}

fn dead_mysql() {
    let mut site = Site::new();
    let mysql = lab::mysql(&site.sandbox);
    site.apply("presets: [mysql]");
    site.is_well(&[]);
    drop(mysql);
    let detail = site.fails(
        "sockets",
        &format!("start the server of {}: nothing listens there", lab::MYSQL),
    );
    assert_eq!(detail, format!("{}: Connection refused", lab::MYSQL));
    fs::set_permissions(lab::MYSQL, fs::Permissions::from_mode(0o700)).unwrap();
    let remedy = format!(
        "give www-data the right to it, most often by its group: `ls -l {}`",
        lab::MYSQL
    );
    site.fails("sockets", &remedy);
    fs::remove_file(lab::MYSQL).unwrap();
    let detail = site.fails(
        "sockets",
        "start MySQL or MariaDB, then run `mountjail up site1`",
    );
    assert_eq!(
        detail,
        "preset mysql: there is no socket of MySQL or MariaDB"
    );
    let _mysql = lab::mysql(&site.sandbox);
    site.is_well(&[]);
}

fn no_sendmail() {
    let mut site = Site::new();
    let mail = |site: &Site| {
        let checks = checks(&site.doctor(&[]).exits(0));
        let mail = checks.into_iter().find(|check| check["check"] == "mail");
        mail.unwrap()
    };
    // PHP's own default names a mailer that does not work on the host either.
    let not_needed = mail(&site);
    assert_eq!(not_needed["verdict"], "not-needed");
    let why = not_needed["detail"].as_str().unwrap();
    assert!(
        why.contains("/usr/sbin/sendmail does not work on this host either: "),
        "{why}"
    );
    // It does, and nothing in the manifest or in PHP's settings asks for it.
    msmtprc();
    let detail = site.is_mended_by("mail", "presets: [mail]");
    assert_eq!(
        detail,
        "/bin/sh, which starts it: No such file or directory; /usr/sbin/sendmail is not inside"
    );
    assert_eq!(mail(&site)["detail"], "/usr/sbin/sendmail would send");
    fs::set_permissions("/etc/msmtprc", fs::Permissions::from_mode(0o600)).unwrap();
    let remedy = "leave /etc/msmtprc private, and mount another file or directory there that \
                  www-data may read: `mounts: [{ source: PATH, target: /etc/msmtprc }]`";
    let detail = site.fails("mail", remedy);
    assert!(
        detail.ends_with("; /etc/msmtprc is of mode 0600, root:root"),
        "{detail}"
    );
    site.pool("site1", "php_admin_value[disable_functions] = exec,mail\n");
    assert_eq!(mail(&site)["verdict"], "not-needed");
}

/// Sets the pool's `sendmail_path`.
fn mailer(site: &Site, line: &str) {
    let setting = format!("php_admin_value[sendmail_path] = {line}\n");
    site.pool("site1", &setting);
}

/// A mailer of its own, in a jail without a shell.
fn own_mailer() {
    let mut site = Site::new();
    msmtprc();
    fs::write(
        "/etc/msmtp-web",
        "account default\nhost localhost\nfrom a@b.c\n",
    )
    .unwrap();
    mailer(&site, "/usr/bin/msmtp -t");
    let ran = site.doctor(&[]).exits(3);
    let failed: Vec<_> = checks(&ran)
        .into_iter()
        .filter(|check| check["verdict"] == "failed")
        .collect();
    assert_eq!(failed[0]["remedy"], serde_json::json!(["presets: [mail]"]));
    site.apply("programs: [/bin/sh, /usr/bin/msmtp]");
    site.is_mended_by("mail", "etc: [msmtprc]");
    mailer(&site, "/usr/bin/msmtp -C /etc/msmtp-web -t");
    site.is_mended_by("mail", "etc: [msmtp-web]");
    fs::write("/etc/msmtp-web", "nonsense here\n").unwrap();
    let ran = site.doctor(&[]).exits(3);
    ran.prints("make it work on the host first");

    // glibc's loader ends with 5 if it is to show the libraries of such a program.
    let exim = site.sandbox.path("exim");
    fs::copy("/bin/true", &exim).unwrap();
    fs::set_permissions(&exim, fs::Permissions::from_mode(0o4755)).unwrap();
    let exim = exim.display();
    let mount = format!("{{ source: {exim}, executable: true, setuid: true }}");
    site.lists.entry("mounts".into()).or_default().push(mount);
    mailer(&site, &format!("{exim} -t -i"));
    site.apply("programs: [/bin/sh]");
    let all = checks(&site.doctor(&[]));
    let mail = all.iter().find(|check| check["check"] == "mail").unwrap();
    let verdict = &mail["verdict"];
    assert_eq!(verdict, "could-not-check");
}

/// Programs and scripts that start the mailer in turn.
fn mailer_behind() {
    let mut site = Site::new();
    let script = "#!/bin/sh\nexec /usr/bin/msmtp -C /etc/msmtp-web \"$@\"\n";
    let script = site.sandbox.program("host/mailer", script);
    let script = script.display();
    msmtprc();
    fs::copy("/etc/msmtprc", "/etc/msmtp-web").unwrap();
    for (line, remedies) in [
        (
            "/usr/bin/env -i /usr/sbin/sendmail -t -i",
            vec!["programs: [/bin/sh, /usr/bin/env]", "presets: [mail]"],
        ),
        (
            "nice -n 5 /usr/bin/msmtp -t",
            vec!["programs: [/usr/bin/nice]"],
        ),
        ("sh -c 'exec /usr/bin/msmtp -t'", vec![]),
        (
            &format!("{script} -t"),
            vec![&format!("programs: [{script}]"), "etc: [msmtp-web]"],
        ),
    ] {
        mailer(&site, &format!("\"{line}\""));
        let mail = |site: &Site| {
            let mut checks = checks(&site.doctor(&[])).into_iter();
            checks.find(|check| check["check"] == "mail").unwrap()
        };
        let found = mail(&site);
        assert_eq!(found["remedy"], serde_json::json!(remedies), "{found}");
        for line in remedies {
            site.apply(line);
        }
        let found = mail(&site);
        assert_eq!(found["verdict"], "ok", "{found}");
        assert!(found["detail"].as_str().unwrap().ends_with("would send"));
    }
    mailer(&site, "no-such-mailer -t");
    let detail = site.fails(
        "mail",
        "correct `sendmail_path`, or install no-such-mailer: it is not on this host either",
    );
    assert_eq!(detail, "no-such-mailer is not inside");
}

/// Each setting, the check that fails with its remedy, and PHP's own opinion of it.
fn named_by_settings() {
    let mut site = Site::new();
    let inside = |path: &str| format!("{}{path}", site.root.display());
    let (log, logs) = (inside("/var/log/php/e.log"), inside("/var/log/php"));
    let set = |site: &Site, line: &str| site.pool("site1", &format!("{line}\n"));

    set(&site, "env[LC_ALL] = $MJ_NO_SUCH_VARIABLE");
    site.is_well(&[]);

    set(&site, "php_value[session.save_handler] = redis");
    let detail = site.fails(
        "php",
        "install PHP's extension redis and load it, or correct `session.save_handler`",
    );
    let why = "session.save_handler: no extension that is loaded keeps sessions in redis";
    assert_eq!(detail, why);

    set(&site, "php_admin_value[error_log] = /var/log/php/e.log");
    let remedy = format!("install -d -m 1733 {logs}");
    let detail = site.fails("directories", &remedy);
    let why = "/var/log/php/e.log for error_log, as www-data: No such file or directory";
    assert_eq!(detail, why);
    Ran::of(Command::new("sh").args(["-c", &remedy])).exits(0);
    site.is_well(&[]);
    fs::write(&log, "").unwrap();
    let remedy = format!("setfacl -m u:www-data:rw {log}");
    site.fails("directories", &remedy);
    Ran::of(Command::new("sh").args(["-c", &remedy])).exits(0);
    site.is_well(&[]);
    set(&site, "php_admin_value[error_log] = /e.log");
    let ran = site.doctor(&[]).exits(3);
    ran.prints("name a file in a directory in `error_log`");

    let code = site.sandbox.directory("code");
    fs::write(code.join("before.php"), "<?php").unwrap();
    let code = code.display().to_string();
    let line = format!("php_admin_value[auto_prepend_file] = {code}/before.php");
    set(&site, &line);
    let line = format!("mounts: [{code}/before.php]");
    let detail = site.is_mended_by("php", &line);
    assert!(detail.contains("which auto_prepend_file names: No such"));
    let more = site.sandbox.directory("more").display().to_string();
    set(&site, &format!("php_value[include_path] = .:/no:{more}"));
    site.is_mended_by("php", &format!("mounts: [{more}]"));
    set(&site, "php_value[auto_append_file] = /no/after.php");
    site.fails(
        "php",
        "correct `auto_append_file`, or put the file there: this host has no /no/after.php either",
    );
    set(&site, "php_value[auto_append_file] = none");
    site.is_well(&[]);
}

/// An extension that is loaded, and whose files are not inside.
fn imagick() {
    let mut site = Site::new();
    let file = |name: &str| {
        let conf = pools().parent().unwrap().join("conf.d");
        fs::write(
            conf.join(format!("20-{name}.ini")),
            format!("extension={name}.so\n"),
        )
        .unwrap();
    };
    file("imagick");
    let php = "strlen((function() { $i = new Imagick; $i->newImage(1, 1, 'red'); \
               $i->setImageFormat('png'); return $i->getImageBlob(); })()) > 8";
    site.is_mended_for_php("php", "presets: [php-imagick]", php);
    let programs = fs::read_dir(site.root.join("usr/bin"));
    let programs = programs.map_or(0, Iterator::count);
    assert_eq!(programs, 0, "PHP needs no program of ImageMagick's");
    file("ldap");
    let detail = site.is_mended_by("php", "etc: [ldap/ldap.conf]");
    assert!(
        detail.contains("ldaps:// trusts, is not inside"),
        "{detail}"
    );
}

/// PHP's default socket, which no setting names, and a server that listens there.
fn default_socket() {
    let mut site = Site::new();
    let _mysql = lab::mysql(&site.sandbox);
    let php = "mysqli_connect('localhost', 'root') instanceof mysqli";
    let detail = site.is_mended_for_php("sockets", "presets: [mysql]", php);
    assert!(
        detail.contains("mysqld.sock, which mysqli connects to, is not"),
        "{detail}"
    );
}

/// curl reads its authorities from a file of its own.
fn curls_certificates() {
    let site = Site::new();
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    fs::remove_file(bundle).unwrap();
    site.sandbox.ok(&["up", "site1"]);
    let detail = site.fails("tls", "run `update-ca-certificates --fresh`");
    assert!(detail.starts_with("curl: "), "{detail}");
}

/// Files of a pool's own, which the preset tls does not bring.
fn own_certificates() {
    let mut site = Site::new();
    fs::copy("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/mine.pem").unwrap();
    for key in ["curl.cainfo", "openssl.cafile"] {
        let set = |file: &str| format!("php_admin_value[{key}] = {file}\n");
        site.pool("site1", &set("/etc/ssl/none.pem"));
        let remedy = format!("correct `{key}`: this host does not have /etc/ssl/none.pem either");
        site.fails("tls", &remedy);
        site.pool("site1", &set("/etc/ssl/mine.pem"));
        let line = "etc: [ssl/mine.pem]";
        if key == "curl.cainfo" {
            site.fails("tls", line);
        } else {
            site.is_mended_by("tls", line);
        }
    }
}

/// The pool's group is nobody's primary group, then no group of the host at all.
fn strange_group() {
    let site = Site::new();
    Ran::of(Command::new("groupadd").args(["-g", "7654", "labgroup"])).exits(0);
    site.pool("site1", "group = labgroup\n");
    let remedy = "usermod -a -G labgroup www-data && mountjail up site1";
    let detail = site.fails("users", remedy);
    assert_eq!(detail, "the group 7654 (labgroup) has no name inside");
    Ran::of(Command::new("usermod").args(["-a", "-G", "labgroup", "www-data"])).exits(0);
    site.sandbox.ok(&["up", "site1"]);
    site.is_well(&[]);
    site.pool("site1", "group = 7655\n");
    site.is_well(&[]);
}

fn no_data() {
    let mut site = Site::with("presets: [base, dns, tls, timezone, locale]\n");
    let ran = site.doctor(&[]).exits(3);
    let failed = checks(&ran)
        .into_iter()
        .filter(|check| check["verdict"] == "failed");
    let lines: Vec<_> = failed
        .map(|check| check["remedy"][0].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(lines, ["users: [www-data]", "presets: [iconv]"], "{ran}");
    for line in &lines {
        site.apply(line);
    }
    site.is_well(&[]);
    // A second pool, with a user and a group of its own.
    site.pool("second", "user = games\ngroup = mail\n");
    let detail = site.is_mended_by("users", "users: [games, mail]");
    assert_eq!(
        detail,
        "the user 5 (games) has no name inside; the group 8 (mail) has no name inside"
    );
    // No check runs as root.
    site.pool("root", "user = root\n");
    let ran = site.doctor(&[]).exits(0);
    let users = checks(&ran)
        .into_iter()
        .find(|check| check["check"] == "users")
        .unwrap();
    assert!(
        !users["detail"].as_str().unwrap().contains("0 is root"),
        "{ran}"
    );
}

fn no_iconv() {
    let mut site = Site::without("iconv");
    let php = "bin2hex(iconv('UTF-8', 'EUC-JP', \"\\u{65e5}\")) === 'c6fc'";
    site.is_mended_for_php("iconv", "presets: [iconv]", php);
}

/// A locale that only the host has, and one that neither has.
fn no_locale() {
    let mut site = Site::without("locale");
    let locales = site.sandbox.directory("locales");
    Ran::of(
        Command::new("cp")
            .args(["-a", "/usr/lib/locale/."])
            .arg(&locales),
    )
    .exits(0);
    Ran::of(
        Command::new("mount")
            .args(["--bind"])
            .arg(&locales)
            .arg("/usr/lib/locale"),
    )
    .exits(0);
    Ran::of(Command::new("localedef").args(["-i", "de_CH", "-f", "UTF-8", "de_CH.UTF-8"])).exits(0);
    site.pool("site1", "env[LC_ALL] = de_CH.UTF-8\n");
    if UNTRIED.contains(&"locale") {
        assert!(site.is_well(&[]).contains(&"locale".to_owned()));
        return;
    }
    site.is_mended_by("locale", "presets: [locale]");
    site.pool("site1", "env[LC_ALL] = tlh_QO\n");
    site.fails(
        "locale",
        "generate it: the host has no locale tlh_QO either (`locale -a`)",
    );
}

fn syslog() {
    let mut site = Site::new();
    fs::create_dir("/run/lab").unwrap();
    let server = UnixDatagram::bind("/run/lab/log").unwrap();
    fs::set_permissions("/run/lab/log", fs::Permissions::from_mode(0o666)).unwrap();
    site.pool("site1", "php_admin_value[error_log] = syslog\n");
    site.apply("mounts: [{ source: /run/lab/log, target: /dev/log }]");
    assert!(site.is_well(&[]).contains(&"syslog".to_owned()));
    drop(server);
    let detail = site.fails(
        "syslog",
        "start the system's log service, then run `mountjail up site1`",
    );
    assert_eq!(detail, "/dev/log: Connection refused");
}

fn php_settings() {
    let site = Site::new();
    let fpm = pools().parent().unwrap().to_owned();
    let directory = |path: &str| format!("install -d -m 1777 {}{path}", site.root.display());
    fs::set_permissions(site.root.join("tmp"), fs::Permissions::from_mode(0o755)).unwrap();
    let detail = site.fails("directories", &directory("/tmp"));
    assert_eq!(
        detail,
        "/tmp for temporary files, as www-data: Permission denied"
    );
    Ran::of(Command::new("sh").args(["-c", &directory("/tmp")])).exits(0);
    site.pool("site1", "php_value[session.save_path] = \"1;/sessions\"\n");
    let remedy = format!("install -d -m 1733 {}/sessions", site.root.display());
    site.fails("directories", &remedy);
    Ran::of(Command::new("sh").args(["-c", &remedy])).exits(0);
    site.is_well(&[]);
    // A link that the site's owner puts there does not lead root elsewhere.
    chown(&site.root, Some(33), Some(33)).unwrap();
    fs::remove_dir(site.root.join("sessions")).unwrap();
    let remedy = format!("setpriv --reuid=33 --regid=33 --clear-groups {remedy}");
    site.fails("directories", &remedy);
    Ran::of(Command::new("sh").args(["-c", &remedy])).exits(0);
    site.is_well(&[]);

    fs::write(site.root.join("index.php"), "<?php").unwrap();
    let detail = site.fails(
        "web-root",
        &format!(
            "move the site's files to {0}/htdocs, and name that directory in the web server's \
             configuration",
            site.root.display()
        ),
    );
    assert!(
        detail.ends_with("seems to be the web root: /index.php is there"),
        "{detail}"
    );
    fs::remove_file(site.root.join("index.php")).unwrap();

    fs::write(
        fpm.join("pool.d/other.conf"),
        "[other]\nuser = www-data\nlisten = /run/other.sock\n",
    )
    .unwrap();
    let ini = fpm.join("php.ini");
    let detail = site.fails(
        "opcache",
        &format!(
            "set `opcache.validate_root = 1` in {}, then restart PHP-FPM",
            ini.display()
        ),
    );
    assert!(
        detail.ends_with("scripts are mixed up with those of the same path in pool other"),
        "{detail}"
    );
    let warning = format!(
        "warning: opcache.validate_root is off: PHP-FPM serves one site's scripts in another if \
         their paths inside are equal; set `opcache.validate_root = 1` in {}",
        ini.display()
    );
    let sandbox = &site.sandbox;
    sandbox.ok(&["down", "site1"]);
    sandbox.ok(&["up", "--all"]).says(&warning);
    sandbox.ok(&["check"]).says(&warning);
    let again = sandbox.ok(&["up", "--all"]);
    assert!(!again.stderr.contains("opcache"), "{again}");
    let text = fs::read_to_string(&ini).unwrap();
    fs::write(&ini, format!("{text}\nopcache.validate_root = 1\n")).unwrap();
    sandbox.ok(&["down", "site1"]);
    for command in [&["up", "--all"][..], &["check"]] {
        let ran = sandbox.ok(command);
        assert!(!ran.stderr.contains("opcache"), "{ran}");
    }
    site.is_well(&[]);

    site.pool("site1", "php_admin_value[date.timezone] = Mars/Olympus\n");
    site.fails(
        "timezone",
        "correct `date.timezone`: the host has no time zone Mars/Olympus either",
    );
    site.pool("site1", "php_admin_value[error_log] = syslog\n");
    let ran = site.doctor(&[]).exits(3);
    let syslog = checks(&ran)
        .into_iter()
        .find(|check| check["check"] == "syslog")
        .unwrap();
    assert_eq!(
        syslog["detail"], "/dev/log: No such file or directory",
        "{ran}"
    );
    site.pool(
        "site1",
        "php_admin_value[mysqli.default_socket] = /run/mysqld/mysqld.sock\n",
    );
    let _mysql = lab::mysql(&site.sandbox);
    let mut site = site;
    site.is_mended_by("sockets", "presets: [mysql]");
}

fn processes_inside(root: &Path) -> Vec<Process> {
    observe::inside(root_id(&HostPath::new(root).unwrap()).unwrap())
}

fn old_processes() {
    let site = Site::new();
    site.sandbox.ok(&["down", "site1"]);
    // A lock's file may exist already; its time means nothing.
    fs::write(site.sandbox.path("state/run/site1.lock"), "").unwrap();
    // A process in a mount namespace that receives no mounts.
    Ran::of(
        Command::new("cp")
            .arg("/bin/busybox")
            .arg(site.root.join("busybox")),
    )
    .exits(0);
    let mut blind = Command::new("unshare");
    blind
        .args(["--mount", "--propagation=private", "chroot"])
        .arg(&site.root);
    let blind = Server::start(blind.args(["/busybox", "sleep", "1000"]));
    let is_inside = |process: &Process| process.name == "busybox";
    wait_until("it is inside", || {
        processes_inside(&site.root).iter().any(is_inside)
    });
    let fpm = Fpm::start(&site.sandbox, &site.root);
    let pid = fpm
        .eval(&site.root, "getmypid()")
        .trim_start_matches("OK: ")
        .to_owned();
    std::thread::sleep(std::time::Duration::from_millis(100)); // the clock of processes is coarse
    site.sandbox.ok(&["up", "site1"]);
    let ran = site.sandbox.run(&["doctor", "site1"]).exits(3);
    let ran = ran
        .prints(&format!("(pid {pid})"))
        .prints("was inside before the site came up");
    let ran = ran.prints(&format!("try:        restart the process {pid}"));
    let text = format!(
        "busybox (pid {}) has a mount namespace that does not receive the mounts",
        blind.0.id()
    );
    ran.prints(&text)
        .prints(&format!("try:        restart the process {}", blind.0.id()));
    drop((fpm, blind));
    let fpm = Fpm::start(&site.sandbox, &site.root);
    site.is_well(&[]);
    drop(fpm);
}

fn closed() {
    let site = Site::new();
    fs::set_permissions(&site.root, fs::Permissions::from_mode(0o700)).unwrap();
    let detail = site.fails("entry", &format!("chmod o+x {}", site.root.display()));
    assert!(
        detail.starts_with("www-data may not enter ") && detail.ends_with(": Permission denied"),
        "{detail}"
    );
    site.sandbox
        .run(&["doctor", "site1"])
        .exits(3)
        .prints("could not check tls         the root cannot be entered");
    let exec = ["exec", "site1", "--", "/bin/no-such"];
    let said = format!("may not enter {0}: `chmod o+x {0}`", site.root.display());
    site.sandbox.run(&exec).exits(126).says(&said);
    fs::set_permissions(&site.root, fs::Permissions::from_mode(0o755)).unwrap();
    site.is_well(&[]);

    // The mode lets everybody enter, an access list keeps this user out.
    let root = site.root.display().to_string();
    Ran::of(Command::new("setfacl").args(["-m", "u:www-data:---", &root])).exits(0);
    let remedy = format!("setfacl -m u:www-data:x {root}");
    let detail = site.fails("entry", &remedy);
    assert!(detail.contains("with an access list"), "{detail}");
    site.sandbox.run(&exec).exits(126).says(&remedy);
    Ran::of(Command::new("sh").args(["-c", &remedy])).exits(0);
    site.is_well(&[]);
}

/// The process inside gets the paths that were looked at before, because the way there may belong
/// to the site's owner.
fn led_elsewhere() {
    let site = Site::new();
    let enter = |root: &Path| {
        let job = format!(
            r#"{{"root": "{}", "question": {{"Enter": []}},
                "who": {{"name": "www-data", "uid": 33, "gid": 33, "home": "/"}}}}"#,
            root.display()
        );
        let job = File::open(site.sandbox.file("job", job)).unwrap();
        Ran::of(site.sandbox.command().arg("probe-inside").stdin(job))
            .exits(0)
            .stdout
    };
    assert_eq!(enter(&site.root), r#"{"Ok":{"Ok":null}}"#);
    let (link, above) = (site.sandbox.path("link"), site.sandbox.path("above"));
    symlink(&site.root, &link).unwrap();
    symlink(site.root.parent().unwrap(), &above).unwrap();
    for root in [link, above.join("site1")] {
        let refused = format!(
            "cannot enter the root {}: Too many symbolic links encountered",
            root.display()
        );
        assert_eq!(enter(&root), format!(r#"{{"Err":"{refused}"}}"#));
    }
}

fn stale() {
    let site = Site::new();
    fs::copy("/etc/hosts", "/etc/hosts.new").unwrap();
    fs::rename("/etc/hosts.new", "/etc/hosts").unwrap();
    let detail = site.fails("mounts", "mountjail up site1");
    assert_eq!(detail, "/etc/hosts is stale");
    site.sandbox.ok(&["up", "site1"]);
    site.is_well(&[]);
}

fn strangers() {
    let site = Site::new();
    let tls = lab::tls(&site.sandbox);
    let server = format!("{NAME}:{PORT}");
    fs::remove_file("/usr/local/share/ca-certificates/lab.crt").unwrap();
    Ran::of(Command::new("update-ca-certificates").arg("--fresh")).exits(0);
    site.sandbox.ok(&["up", "site1"]);
    let ran = site.doctor(&["--tls", &server]).exits(3);
    let bad: Vec<_> = checks(&ran)
        .into_iter()
        .filter(|check| check["verdict"] == "failed")
        .collect();
    assert!(bad.len() == 1 && bad[0]["check"] == "tls", "{ran}");
    assert!(
        bad[0]["detail"].as_str().unwrap().contains("UnknownIssuer"),
        "{ran}"
    );
    drop(tls);
    let ran = site.doctor(&["--tls", &server]).exits(0);
    let tls = checks(&ran)
        .into_iter()
        .find(|check| check["check"] == "tls")
        .unwrap();
    assert_eq!(tls["verdict"], "could-not-check");
    assert!(
        tls["detail"]
            .as_str()
            .unwrap()
            .ends_with(&format!("no connection to {server}: Connection refused"))
    );
    let ran = site
        .sandbox
        .run(&["doctor", "--host", "absent.lab.test", "site1"]);
    if UNTRIED.contains(&"dns") {
        ran.exits(0)
            .prints("could not check dns         127.0.0.53 answers; more cannot be tried: ");
        return;
    }
    ran.exits(3)
        .prints("absent.lab.test does not resolve")
        .prints("try:        try it on the host: `getent hosts absent.lab.test`");
}

/// Where the host's shell has musl's loader, musl's answers are those that programs get.
fn host_of_musl() {
    let site = Site::new();
    let shell = site.sandbox.path("shell");
    let source = site
        .sandbox
        .file("shell.c", "int main(void) { return 0; }\n");
    Ran::of(Command::new("musl-gcc").arg("-o").arg(&shell).arg(source)).exits(0);
    Ran::of(
        Command::new("mount")
            .arg("--bind")
            .arg(&shell)
            .arg("/bin/sh"),
    )
    .exits(0);
    let checks = checks(&site.doctor(&["--host", NAME]).exits(0));
    assert!(
        checks
            .iter()
            .all(|check| check["verdict"] != "could-not-check"),
        "{checks:?}"
    );
    let dns = checks.iter().find(|check| check["check"] == "dns").unwrap();
    assert_eq!(
        dns["detail"],
        format!("127.0.0.53 answers; localhost is 127.0.0.1; {NAME} is 127.0.0.1")
    );
}

fn bad_input() {
    let site = Site::new();
    let doctor = |arguments: &[&str]| site.sandbox.run(&[&["doctor"], arguments].concat());
    doctor(&["absent"]).exits(2).says("there is no site absent");
    doctor(&["--user", "ghost", "site1"])
        .exits(2)
        .says("site1: cannot run as the user ghost: there is no such user ");
    doctor(&["--tls", "example.org", "site1"])
        .exits(2)
        .says("there is no port; for https it is 443");
    doctor(&["--timeout", "never", "site1"]).exits(2);
    doctor(&["--host", "x"]).exits(2);
    let long = "x".repeat(70);
    doctor(&["--host", &long, "site1"])
        .exits(3)
        .prints("does not answer: ");

    site.pool("ghost", "user = ghost\n");
    doctor(&["site1"])
        .exits(2)
        .says("pool ghost of ")
        .says("cannot run as the user ghost");
    // A pool that cannot be understood is reported and does not hide the others.
    fs::write(
        pools().join("ghost.conf"),
        b"[ghost]\nuser = www-data\nchroot = /\xff\n",
    )
    .unwrap();
    doctor(&["site1"])
        .exits(0)
        .says("warning: site1: left out: ")
        .says("ghost.conf");
    fs::remove_file(pools().join("ghost.conf")).unwrap();

    let setpriv = ["setpriv", "--reuid=www-data", "--clear-groups"];
    let mut command = site.sandbox.command_under(&setpriv);
    Ran::of(command.args(["doctor", "site1"]))
        .exits(1)
        .says("entering a root needs root");
    site.sandbox
        .run(&["probe-inside"])
        .exits(0)
        .prints("this command is only for `mountjail doctor`");
    site.sandbox.ok(&["down", "site1"]);
    doctor(&["site1"])
        .exits(1)
        .says("site1: the site is not up, so nothing inside can be tried")
        .says("try: mountjail up site1");
    assert!(mountjail_children().is_empty());
}

/// A jail's shell that sleeps for ever, and so does its child; and an endless time zone file.
fn hanging() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let site = Site::without("timezone");
    site.pool(
        "site1",
        "php_admin_value[sendmail_path] = /usr/bin/msmtp -t\n",
    );
    site.while_down(|| {
        site.sandbox.compile(
            "srv/site1/bin/sh",
            "#include <unistd.h>\nint main(void) { fork(); for (;;) pause(); }\n",
        );
        let zones = site.root.join("usr/share/zoneinfo");
        fs::create_dir_all(&zones).unwrap();
        nix::unistd::mkfifo(
            &zones.join("UTC"),
            nix::sys::stat::Mode::from_bits_truncate(0o644),
        )
        .unwrap();
    });
    let before = mountjail_children();
    let ran = site.doctor(&["--timeout", "1"]);
    for check in ["mail", "timezone"] {
        let found = checks(&ran)
            .into_iter()
            .find(|found| found["check"] == check)
            .unwrap();
        assert_eq!(
            (&found["verdict"], &found["detail"]),
            (&"could-not-check".into(), &"no answer within 1 s".into())
        );
    }
    assert_eq!(processes_inside(&site.root), [], "nobody is left inside");
    assert_eq!(mountjail_children(), before, "nobody is left to be reaped");

    let mut doctor = site.sandbox.command();
    doctor
        .args(["doctor", "--timeout", "600", "site1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut doctor = doctor.spawn().unwrap();
    let shells = || {
        processes_inside(&site.root)
            .iter()
            .filter(|process| process.name == "sh")
            .count()
    };
    wait_until("the shell and its child hang", || shells() == 2);
    kill(
        Pid::from_raw(i32::try_from(doctor.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(doctor.wait().unwrap().code(), Some(1));
    assert_eq!(
        processes_inside(&site.root),
        [],
        "nobody is left inside after a signal"
    );
    assert_eq!(
        mountjail_children(),
        before,
        "nobody is left to be reaped after a signal"
    );
    nix::sys::prctl::set_child_subreaper(false).unwrap();
}

/// Files that the site's owner put where doctor looks are run, and do what they can.
fn hostile() {
    let site = Site::new();
    site.pool(
        "site1",
        "php_admin_value[sendmail_path] = /usr/bin/msmtp -t\n",
    );
    // Two in a session of their own, with nothing open; one of them is another process each moment.
    let shell = |last: &str| {
        let program = format!(
            "#include <unistd.h>\nint main(void) {{ if (!fork()) {{ setsid(); for (int fd = 0; fd \
             < 1024; fd++) close(fd); \
             if (!fork()) for (;;) pause(); for (;;) if (fork()) _exit(0); else usleep(1000); }} \
             {last} }}\n"
        );
        site.sandbox.compile("srv/site1/bin/sh.new", &program);
        fs::rename(site.root.join("bin/sh.new"), site.root.join("bin/sh")).unwrap();
    };
    let shells = || {
        processes_inside(&site.root)
            .into_iter()
            .filter(|process| process.name == "sh")
    };
    // By its number in proc_pid_stat(5), where the second one is the name.
    let field = |pid: u32, nth: usize| -> Option<i32> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(nth - 3)?
            .parse()
            .ok()
    };
    let (parent, session, terminal) = (4, 6, 7);
    // It waits for the shell that it has started. Other questions come and go.
    let probe = || -> Option<u32> {
        let inside = processes_inside(&site.root);
        let parents: Vec<_> = shells().map(|shell| field(shell.pid, parent)).collect();
        let starts_shell = |process: &&Process| {
            process.name != "sh" && parents.contains(&i32::try_from(process.pid).ok())
        };
        Some(inside.iter().find(starts_shell)?.pid)
    };

    shell("pause();");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let line = "exec 7</etc/shadow 8</; exec $MOUNTJAIL doctor --timeout 600 site1";
        let mut script = site.sandbox.command_on_a_terminal(line);
        let mut script = script.stdout(Stdio::null()).spawn().unwrap();
        wait_until("the shell and its children hang", || {
            shells().count() >= 3 && probe().is_some()
        });
        let inside = processes_inside(&site.root);
        let probe = probe().unwrap();
        let first = field(probe, parent).unwrap();
        let doctor = field(first.unsigned_abs(), parent).unwrap();
        for process in &inside {
            assert!(
                field(process.pid, terminal).is_none_or(|number| number == 0),
                "{process} has a terminal"
            );
            assert_ne!(
                field(process.pid, session),
                Some(doctor),
                "{process} is in doctor's session"
            );
        }
        // Pipes, and what it found inside.
        let harmless = |file: &PathBuf| {
            !file.exists() || file == Path::new("/dev/null") || file.starts_with(&site.root)
        };
        let open = fs::read_dir(format!("/proc/{probe}/fd")).unwrap().flatten();
        let open: Vec<_> = open
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect();
        assert!(open.iter().all(harmless), "{open:?}");
        wait_until("hundreds have lived and died", || {
            shells().any(|shell| own_number(shell.pid).is_some_and(|number| number > 300))
        });
        assert!(
            dead_children(first) < 100,
            "the first process inside reaps the others"
        );
        kill(Pid::from_raw(doctor), signal).unwrap();
        script.wait().unwrap();
        wait_until("nobody is left inside", || {
            processes_inside(&site.root).is_empty()
        });
    }
    shell("");
    site.doctor(&[]);
    assert_eq!(processes_inside(&site.root), [], "nobody is left inside");
    shell("pause();");
    site.doctor(&["--timeout", "1"]);
    assert_eq!(
        processes_inside(&site.root),
        [],
        "nobody is left inside after its time is over"
    );
}

/// The number of a process in its own PID namespace.
fn own_number(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last()?.parse().ok()
}

/// How many children of the process have ended and were not waited for.
fn dead_children(pid: i32) -> usize {
    let dead = format!(" Z {pid} ");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let texts = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    texts.filter(|text| text.contains(&dead)).count()
}

/// The children of this process, dead ones too, by name.
fn mountjail_children() -> Vec<String> {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let texts = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let child = |text: String| {
        let (name, rest) = text.rsplit_once(')')?;
        (rest.split_whitespace().nth(1) == Some(&own))
            .then(|| name.split_once('(').unwrap().1.to_owned())
    };
    let mut names: Vec<_> = texts.filter_map(child).collect();
    names.retain(|name| !["dnsmasq", "openssl", "mariadbd"].contains(&name.as_str()));
    names
}

fn machine() {
    let site = Site::new();
    let doctor = |arguments: &[&str]| site.sandbox.run(&[&["doctor"], arguments].concat());
    let text = doctor(&[]).exits(0).stdout;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(text.starts_with(&format!("kernel: {kernel}")), "{text}");
    assert!(
        text.contains("yes openat2")
            && text.contains(" (fs.mount-max)\n")
            && text.contains(", 1 site\n"),
        "{text}"
    );
    let json = doctor(&["--json"]).exits(0).json();
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .count();
    assert_eq!(json["mounts"], mounts);
    assert_eq!(json["sites"], serde_json::json!(["site1"]));
    assert_eq!(json["pools_without_site"], serde_json::json!([]));
    fs::write(
        pools().join("shop.conf"),
        "[shop]\nuser = www-data\nchroot = /srv/shop\n",
    )
    .unwrap();
    doctor(&[])
        .exits(0)
        .prints("no site for the pool shop in /srv/shop: `mountjail import` makes one");
    // Two versions of PHP have it.
    let both = ["--fpm", "/etc/php/*/fpm", "--fpm", "/etc/php/*/fpm"];
    let fpm = pools().parent().unwrap().display().to_string();
    let both = both.map(|word| word.replace("/etc/php/*/fpm", &fpm));
    let both: Vec<_> = both.iter().map(String::as_str).collect();
    let named = doctor(&both).exits(0).stdout;
    assert_eq!(
        named.matches("no site for the pool shop").count(),
        1,
        "{named}"
    );
    let link = site.sandbox.path("link");
    symlink(&site.root, &link).unwrap();
    fs::write(
        pools().join("shop.conf"),
        format!("[shop]\nuser = www-data\nchroot = {}\n", link.display()),
    )
    .unwrap();
    assert_eq!(
        doctor(&["--json"]).json()["pools_without_site"],
        serde_json::json!([])
    );
    let classic = Ran::of(
        site.sandbox
            .command()
            .args(["doctor"])
            .env("MOUNTJAIL_ENGINE", "classic"),
    )
    .exits(0);
    classic.prints("engine: classic\n");
    let wrong = Ran::of(
        site.sandbox
            .command()
            .args(["doctor"])
            .env("MOUNTJAIL_ENGINE", "fast"),
    )
    .exits(2);
    wrong.says("MOUNTJAIL_ENGINE=fast is not an engine");
    let mut command =
        site.sandbox
            .command_under(&["setpriv", "--reuid=www-data", "--clear-groups"]);
    Ran::of(command.arg("doctor")).exits(0).prints("mounts: ");
}

/// Modules of Python and the like are often executable.
fn scripts() {
    let site = Site::new();
    let helpers = site.sandbox.directory("helpers");
    let script = helpers.join("base64.py");
    fs::write(&script, "#!/usr/bin/no-such-python\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mount = format!(
        "mounts: [{{ source: {}, executable: true }}]\n",
        helpers.display()
    );
    site.sandbox
        .site("s", &format!("presets: [base]\nusers: [www-data]\n{mount}"));
    site.sandbox.ok(&["up", "s"]);
    let ran = site.sandbox.ok(&["doctor", "--user", "www-data", "s"]);
    assert!(!ran.stdout.contains("base64.py"), "{ran}");
}
