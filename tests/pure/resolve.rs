//! The rule: every path that a process in the jail looks up leads to the same file as on the host.
//! The hosts are made for the tests.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use mountjail::base::{HostPath, SiteName};
use mountjail::manifest::{Presets, SourceFile, parse};
use mountjail::resolve::{Desired, Host, Resolver, Roots};

/// Fails where the files of the test would not be root's: only what is root's brings anything
/// along, and only root can give files to others.
fn needs_root() {
    let is_root = nix::unistd::geteuid().is_root();
    assert!(is_root, "this test makes files of root's: run it as root");
}

/// A host in a temporary directory.
struct MadeHost(tempfile::TempDir);

impl MadeHost {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        made.dir("srv/s");
        made
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dir(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    fn file(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), path).unwrap();
        self
    }

    /// A static program.
    fn program(&self, path: &str) -> &Self {
        self.dir(PathBuf::from(path).parent().unwrap().to_str().unwrap());
        fs::copy("/bin/busybox", self.at(path)).unwrap();
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// A shared object that needs no other.
    fn library(&self, path: &str) -> &Self {
        self.object(path, "", &["-shared"])
    }

    /// An object of this source, without the C library.
    fn object(&self, path: &str, source: &str, arguments: &[&str]) -> &Self {
        let (at, code) = (self.at(path), self.at("source.c"));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&code, source).unwrap();
        let status = Command::new("cc")
            .args(["-nostdlib", "-o"])
            .args([&at, &code])
            .args(arguments)
            .status();
        assert!(status.unwrap().success());
        fs::remove_file(code).unwrap();
        self
    }

    fn link(&self, path: &str, text: &str) -> &Self {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        symlink(text, self.at(path)).unwrap();
        self
    }

    fn resolve(&self, manifest: &str) -> Result<Desired, Vec<String>> {
        let host = Host::at(self.0.path());
        let resolver = Resolver::new(&host, HostPath::new("/var/lib/mountjail").unwrap());
        let file = SourceFile::File("s.yaml".into());
        let text = format!("root: /srv/s\n{manifest}");
        let manifest = parse(
            SiteName::new("s").unwrap(),
            file,
            &text,
            &Presets::built_in(),
        );
        let manifest = manifest.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
        resolver
            .resolve(&manifest, &Roots::default())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    /// `target < source` for each mount, `path -> text` for each link.
    fn shows(&self, manifest: &str) -> Vec<String> {
        let desired = self
            .resolve(manifest)
            .unwrap_or_else(|errors| panic!("{errors:#?}"));
        let mounts = desired
            .mounts
            .iter()
            .map(|mount| format!("{} < {}", mount.target, mount.source));
        let links = desired
            .links
            .iter()
            .map(|link| format!("{} -> {}", link.path, link.destination.display()));
        mounts.chain(links).collect()
    }
}

#[test]
fn what_is_below_run_is_known_below_var_run_too() {
    let host = MadeHost::new();
    host.dir("run/mysqld")
        .dir("run/lock")
        .link("var/run", "/run")
        .link("var/lock", "/run/lock");
    assert_eq!(
        host.shows("mounts: [/run/mysqld]"),
        ["/run/mysqld < /run/mysqld", "/var/run -> /run"]
    );
    assert_eq!(
        host.shows("mounts: [/var/run/mysqld]"),
        ["/run/mysqld < /run/mysqld", "/var/run -> /run"]
    );
    assert_eq!(
        host.shows("mounts: [{ source: /run/mysqld, target: /db }]"),
        ["/db < /run/mysqld"]
    );
    // The root's own file stays.
    host.dir("srv/s/var/run");
    assert_eq!(
        host.shows("mounts: [/run/mysqld]"),
        ["/run/mysqld < /run/mysqld"]
    );
}

#[test]
fn a_link_at_the_end_is_followed() {
    let host = MadeHost::new();
    host.file("run/resolve/stub")
        .link("etc/resolv.conf", "../run/resolve/stub");
    assert_eq!(
        host.shows("etc: [resolv.conf]"),
        ["/etc/resolv.conf < /run/resolve/stub"]
    );
}

#[test]
fn directory_links_on_the_way_are_reproduced() {
    let host = MadeHost::new();
    host.file("usr/lib/x.so").link("lib", "usr/lib");
    assert_eq!(
        host.shows("mounts: [/lib/x.so]"),
        ["/usr/lib/x.so < /usr/lib/x.so", "/lib -> usr/lib"]
    );
}

#[test]
fn a_real_directory_in_the_root_is_used_as_it_is() {
    let host = MadeHost::new();
    host.file("usr/lib/x.so")
        .link("lib", "usr/lib")
        .dir("srv/s/lib");
    assert_eq!(
        host.shows("mounts: [/lib/x.so]"),
        ["/lib/x.so < /usr/lib/x.so"]
    );
    let host = MadeHost::new();
    host.file("usr/lib/x.so")
        .link("lib", "usr/lib")
        .link("srv/s/lib", "/usr/lib");
    assert_eq!(
        host.shows("mounts: [/lib/x.so]"),
        ["/usr/lib/x.so < /usr/lib/x.so", "/lib -> /usr/lib"]
    );
}

#[test]
fn explicit_targets_follow_the_links_of_the_jail() {
    let host = MadeHost::new();
    host.file("usr/lib/x.so")
        .link("lib", "usr/lib")
        .file("opt/y");
    let shown = host.shows("mounts: [/lib/x.so, { source: /opt/y, target: /lib/y }]");
    assert_eq!(
        shown,
        [
            "/usr/lib/x.so < /usr/lib/x.so",
            "/usr/lib/y < /opt/y",
            "/lib -> usr/lib"
        ]
    );
}

#[test]
fn a_chain_of_links_is_walked_to_its_end() {
    let host = MadeHost::new();
    host.file("real/dir/file")
        .link("b", "real/dir")
        .link("a", "/b")
        .link("etc/x", "/a/file");
    assert_eq!(host.shows("etc: [x]"), ["/etc/x < /real/dir/file"]);
    assert_eq!(
        host.shows("mounts: [/a/file]"),
        [
            "/real/dir/file < /real/dir/file",
            "/a -> /b",
            "/b -> real/dir"
        ]
    );
}

#[test]
fn the_first_alternative_that_exists_is_taken() {
    let host = MadeHost::new();
    host.file("b").file("c");
    assert_eq!(
        host.shows("mounts: [{ any_of: [/a, /b, /c] }]"),
        ["/b < /b"]
    );
    let errors = host.resolve("mounts: [{ any_of: [/x, /y] }]").unwrap_err();
    assert!(
        errors[0].contains("none of these is on this host: /x, /y"),
        "{errors:?}"
    );
    let desired = host
        .resolve("mounts: [{ any_of: [/x, /y], optional: true }]")
        .unwrap();
    assert!(desired.notes[0].text.contains("/x, /y"));
}

#[test]
fn patterns_stand_for_what_they_match() {
    let host = MadeHost::new();
    host.file("lib/php/1/a")
        .file("lib/php/2/b")
        .file("lib/php/.hidden/c");
    assert_eq!(
        host.shows("mounts: [\"/lib/php/*/*\"]"),
        ["/lib/php/1/a < /lib/php/1/a", "/lib/php/2/b < /lib/php/2/b"]
    );
}

#[test]
fn what_another_mount_shows_already_is_dropped() {
    let host = MadeHost::new();
    host.file("data/a").file("data/sub/b").file("other");
    assert_eq!(
        host.shows("mounts: [/data, /data/a, /data/sub, /data/sub/b]"),
        ["/data < /data"]
    );
    let rw = "mounts: [{ source: /data, access: read-write }, /data/a]";
    assert_eq!(
        host.shows(rw),
        ["/data < /data", "/data/a < /data/a"],
        "a read-only file in a writable directory"
    );
    let over = "mounts: [/data, { source: /other, target: /data/a }]";
    assert_eq!(host.shows(over), ["/data < /data", "/data/a < /other"]);
}

#[test]
fn a_link_whose_file_is_there_anyway_stays_a_link() {
    let host = MadeHost::new();
    host.file("run/resolve/stub")
        .link("etc/resolv.conf", "../run/resolve/stub");
    let shown = host.shows("etc: [resolv.conf]\nmounts: [/run/resolve]");
    assert_eq!(
        shown,
        [
            "/run/resolve < /run/resolve",
            "/etc/resolv.conf -> ../run/resolve/stub"
        ]
    );
}

#[test]
fn links_that_lead_nowhere_are_errors_and_all_are_told() {
    let host = MadeHost::new();
    host.link("a", "b")
        .link("b", "a")
        .link("c", "nowhere")
        .file("f");
    let errors = host
        .resolve("mounts: [/a, /c, /f/x, /missing]")
        .unwrap_err();
    assert_eq!(errors.len(), 4, "{errors:#?}");
    for (error, words) in errors.iter().zip([
        "circle",
        "/c leads to nowhere",
        "/f is not a directory",
        "/missing does not exist",
    ]) {
        assert!(
            error.contains(words) && error.starts_with("s: s.yaml: mounts["),
            "{error}"
        );
    }
}

#[test]
fn two_sources_for_one_target_are_both_named() {
    let host = MadeHost::new();
    host.file("a").file("b");
    let errors = host
        .resolve("mounts: [{ source: /a, target: /x }, { source: /b, target: /x }]")
        .unwrap_err();
    assert!(
        errors[0].contains("/a, from s.yaml: mounts[0]")
            && errors[0].contains("/b, from s.yaml: mounts[1]")
    );
}

#[test]
fn links_inside_a_bound_directory_bring_their_targets_along() {
    needs_root();
    let host = MadeHost::new();
    for directory in ["certs", "share/ca", "private"] {
        host.dir(directory);
    }
    host.link("certs/one", "/single/one").file("single/one");
    for n in 0..5 {
        host.file(&format!("share/ca/{n}.crt"))
            .link(&format!("certs/{n}.pem"), &format!("../share/ca/{n}.crt"));
    }
    // A file in a directory that others cannot enter is private, whatever its own mode.
    host.file("private/key").link("certs/key", "../private/key");
    fs::set_permissions(host.at("private"), PermissionsExt::from_mode(0o710)).unwrap();
    host.link("certs/inside", "one")
        .link("certs/dangling", "/nowhere")
        .link("certs/proc", "/proc/self");
    assert_eq!(
        host.shows("mounts: [/certs]"),
        [
            "/certs < /certs",
            "/share/ca < /share/ca",
            "/single/one < /single/one",
        ]
    );
    let writable = host.shows("mounts: [{ source: /certs, access: read-write }]");
    assert_eq!(
        writable,
        ["/certs < /certs"],
        "never for what the jail can write"
    );
}

/// A host with one directory for programs and libraries, and alternatives by links, as Debian has
/// them.
fn merged_usr() -> MadeHost {
    let host = MadeHost::new();
    host.file("usr/bin/vim")
        .file("usr/bin/gcc-12")
        .file("usr/lib/libz.so.1.2")
        .file("usr/lib/ld.so");
    host.link("bin", "usr/bin")
        .link("lib", "usr/lib")
        .link("lib64", "usr/lib64");
    host.link("usr/bin/vi", "/etc/alternatives/vi")
        .link("etc/alternatives/vi", "/usr/bin/vim");
    host.link("usr/bin/cc", "/etc/alternatives/cc")
        .link("etc/alternatives/cc", "/usr/bin/gcc");
    host.link("usr/bin/gcc", "gcc-12")
        .link("usr/lib/libz.so.1", "libz.so.1.2");
    host.link("usr/lib64/ld.so", "/lib/ld.so")
        .link("usr/bin/sh", "/bin/vim");
    host
}

#[test]
fn a_directory_that_is_bound_whole_keeps_its_links() {
    needs_root();
    let host = merged_usr();
    let tops = ["/bin -> usr/bin", "/lib -> usr/lib", "/lib64 -> usr/lib64"];
    let shown = host.shows("mounts: [{ source: /usr, executable: true }]");
    // What a link of the host's leads to straight stays a link; through more links the file itself
    // is brought.
    let expected = [
        "/etc/alternatives/cc < /usr/bin/gcc-12",
        "/usr < /usr",
        tops[0],
    ];
    let expected = [
        &expected[..],
        &["/etc/alternatives/vi -> /usr/bin/vim"],
        &tops[1..],
    ]
    .concat();
    assert_eq!(shown, expected);
    // Whatever the names by which other lines want what is in it, there is nothing to add.
    let lines = "mounts: [{ source: /usr, executable: true }, /bin/vi, /usr/lib/libz.so.1, \
                 /lib64/ld.so, /usr/bin/sh, \
                 /usr/bin/cc, /lib]";
    assert_eq!(host.shows(lines), expected);
}

#[test]
fn many_alternatives_come_by_their_directory_and_bring_only_what_is_needed() {
    needs_root();
    let host = MadeHost::new();
    for n in 0..4 {
        host.link(&format!("usr/bin/{n}"), &format!("/etc/alternatives/{n}"));
        host.link(
            &format!("etc/alternatives/{n}"),
            &format!("/usr/bin/{n}.real"),
        )
        .file(&format!("usr/bin/{n}.real"));
    }
    host.link("usr/bin/dir", "/etc/alternatives/dir")
        .link("etc/alternatives/dir", "../../opt/app/lib");
    host.link("opt/app/lib/out", "/opt/other/file")
        .file("opt/other/file");
    host.link("etc/alternatives/unused", "/opt/unused")
        .file("opt/unused");
    let expected = [
        "/etc/alternatives < /etc/alternatives",
        "/opt/app/lib < /opt/app/lib",
    ];
    let expected = [
        &expected[..],
        &["/opt/other/file < /opt/other/file", "/usr < /usr"],
    ]
    .concat();
    assert_eq!(host.shows("mounts: [/usr]"), expected);
    // Under another name absolute links lead to the host's names, others to what is beside the new
    // one.
    host.link("usr/bin/up", "../../srv/up").file("srv/up");
    let mut elsewhere: Vec<_> = expected[..3].iter().map(ToString::to_string).collect();
    elsewhere.extend((0..4).map(|n| format!("/usr/bin/{n}.real < /usr/bin/{n}.real")));
    elsewhere.extend(["/x/srv/up < /srv/up".to_owned(), "/x/y < /usr".to_owned()]);
    assert_eq!(
        host.shows("mounts: [{ source: /usr, target: /x/y }]"),
        elsewhere
    );
}

#[test]
fn only_links_of_roots_bring_anything_from_a_directory_that_they_share() {
    needs_root();
    let host = MadeHost::new();
    for n in 0..5 {
        host.link(&format!("usr/bin/{n}"), &format!("/srv/bin/{n}"))
            .file(&format!("opt/{n}"));
        host.link(&format!("srv/bin/{n}"), &format!("/opt/{n}"));
    }
    let bound = ["/srv/bin < /srv/bin", "/usr < /usr"];
    let opt: Vec<_> = (0..5).map(|n| format!("/opt/{n} < /opt/{n}")).collect();
    std::os::unix::fs::lchown(host.at("srv/bin/3"), Some(33), None).unwrap();
    let expected = [&opt[..3], &opt[4..], &bound.map(str::to_owned)[..]].concat();
    assert_eq!(
        host.shows("mounts: [/usr]"),
        expected,
        "a link of another user's"
    );
    std::os::unix::fs::chown(host.at("srv/bin"), Some(33), None).unwrap();
    assert_eq!(
        host.shows("mounts: [/usr]"),
        bound,
        "links in another user's directory"
    );
}

#[test]
fn whoever_can_change_what_a_loader_preloads_decides_what_it_needs() {
    needs_root();
    let host = MadeHost::new();
    fs::set_permissions(host.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let directory = format!("-L{}", host.at("lib").display());
    // A stub such as gcompat's.
    let starts = r#"const char starts[] = "\0/lib/ld-musl-x86_64.so.1\0/lib/libgcompat.so.0";"#;
    host.library("lib/libprivate.so")
        .library("lib/ld-musl-x86_64.so.1")
        .object("lib/stub.so", starts, &["-shared"])
        .object(
            "lib/libgcompat.so.0",
            "",
            &["-shared", "-Wl,--no-as-needed", &directory, "-lprivate"],
        )
        .object(
            "bin/program",
            "void _start(void) {}",
            &["-pie", "-Wl,--dynamic-linker=/lib/stub.so"],
        );
    let private = host.at("lib/libprivate.so");
    fs::set_permissions(private, fs::Permissions::from_mode(0o600)).unwrap();

    let lines = "programs: [/bin/program]";
    let shown = host.shows(lines);
    assert!(shown.contains(&"/lib/libprivate.so < /lib/libprivate.so".to_owned()));

    std::os::unix::fs::chown(host.at("lib/libgcompat.so.0"), Some(33), None).unwrap();
    let errors = host.resolve(lines).unwrap_err();
    let refusal = "/bin/program asks for /lib/libprivate.so, which not everybody may read";
    assert!(errors[0].contains(refusal), "{errors:?}");
}

#[test]
fn what_is_a_link_inside_another_mount_is_mounted_where_the_link_leads() {
    let host = merged_usr();
    // Nothing in a writable directory brings anything along, and on a link nothing can be mounted.
    let usr = "{ source: /usr, access: read-write }";
    assert_eq!(
        host.shows(&format!("mounts: [{usr}, /usr/bin/vi, /lib/libz.so.1]")),
        [
            "/etc/alternatives/vi < /usr/bin/vim",
            "/usr < /usr",
            "/usr/lib/libz.so.1.2 < /usr/lib/libz.so.1.2",
            "/bin -> usr/bin",
            "/lib -> usr/lib",
            "/lib64 -> usr/lib64",
        ]
    );
}

#[test]
fn a_target_that_is_a_link_to_something_else_is_an_error() {
    let host = merged_usr();
    host.file("own");
    let errors = |lines: &str| host.resolve(lines).unwrap_err().join("; ");
    let own = "{ source: /own, target: /usr/bin/gcc }";
    let said = errors(&format!("mounts: [/usr, {own}]"));
    assert!(
        said.contains("/usr/bin/gcc is a link there, to gcc-12"),
        "{said}"
    );
    // Where the link leads out of what is mounted, the file is found by its name; but not in place
    // of another line's.
    let elsewhere = "{ source: /own, target: /srv/out/there }";
    host.link("usr/out", "/srv/out").file("other");
    let other = "{ source: /other, target: /usr/out/there }";
    let usr = "{ source: /usr, access: read-write }";
    assert!(
        host.shows(&format!("mounts: [{usr}, {other}]"))
            .contains(&"/srv/out/there < /other".to_owned())
    );
    let said = errors(&format!(
        "mounts: [{usr}, /usr/bin/vi, {{ source: /own, target: /etc/alternatives/vi }}]"
    ));
    assert!(
        said.contains("two sources for /etc/alternatives/vi"),
        "{said}"
    );
    let said = errors(&format!("mounts: [{usr}, {elsewhere}, {other}]"));
    assert!(
        said.contains("/srv/out/there") && said.contains("mounts[1]") && said.contains("mounts[2]"),
        "{said}"
    );
}

#[test]
fn links_of_the_host_into_a_bound_directory_are_not_forced_on_a_root() {
    let host = merged_usr();
    let lines = "mounts: [{ source: /usr, access: read-write }]";
    host.dir("srv/s/lib")
        .link("srv/s/bin", "elsewhere")
        .link("srv/s/lib64", "/usr/lib64");
    assert_eq!(host.shows(lines), ["/usr < /usr", "/lib64 -> /usr/lib64"]);
    let below = "mounts: [{ source: /usr, access: read-write }, { source: /usr/bin/vim, target: \
                 /lib64/x }]";
    assert_eq!(
        host.shows(below),
        ["/lib64/x < /usr/bin/vim", "/usr < /usr"]
    );
}

#[test]
fn a_socket_behind_a_link_comes_by_its_directory() {
    let host = MadeHost::new();
    host.dir("run/systemd/journal")
        .link("dev/log", "/run/systemd/journal/dev-log");
    let _daemon =
        std::os::unix::net::UnixListener::bind(host.at("run/systemd/journal/dev-log")).unwrap();
    let expected = [
        "/run/systemd/journal < /run/systemd/journal",
        "/dev/log -> /run/systemd/journal/dev-log",
    ];
    assert_eq!(host.shows("presets: [syslog]"), expected);
    // A socket that is not a link can only be bound itself, which is reported.
    let desired = host
        .resolve("mounts: [/run/systemd/journal/dev-log]")
        .unwrap();
    assert!(
        desired.notes[0].text.contains("bind its directory instead"),
        "{:?}",
        desired.notes
    );
}

#[test]
fn name_services_bring_their_modules() {
    let host = Host::new();
    let manifest = "root: /srv/mountjail-no-such-root\nnss: [passwd]\n";
    let file = SourceFile::File("s.yaml".into());
    let manifest = parse(
        SiteName::new("s").unwrap(),
        file,
        manifest,
        &Presets::built_in(),
    )
    .unwrap();
    let resolver = Resolver::new(&host, HostPath::new("/var/lib/mountjail").unwrap());
    let brought = resolver.resolve_preset(&manifest.entries).unwrap();
    let modules: Vec<_> = brought
        .mounts
        .iter()
        .filter_map(|mount| mount.target.file_name()?.to_str())
        .collect();
    let named = fs::read_to_string("/etc/nsswitch.conf").unwrap();
    let named = named
        .lines()
        .find_map(|line| line.strip_prefix("passwd:"))
        .unwrap()
        .to_owned();
    for service in named.split_whitespace() {
        let module = format!("libnss_{service}.so.2");
        let exists = glob::glob(&format!("/usr/lib/*/{module}"))
            .unwrap()
            .next()
            .is_some();
        assert_eq!(
            modules.iter().any(|found| *found == module),
            exists,
            "{module}: {modules:?}"
        );
    }
}

#[test]
fn name_services_bring_what_their_modules_talk_to() {
    let host = MadeHost::new();
    let services = ["sss", "winbind", "ldap", "mdns4_minimal", "resolve"];
    host.dir("bin").dir("lib64");
    for (file, at) in [
        ("/bin/sh", "bin/sh"),
        ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ] {
        fs::copy(file, host.at(at)).unwrap();
    }
    host.library("usr/lib/libc.so.6"); // modules are beside it
    for service in services {
        host.library(&format!("usr/lib/libnss_{service}.so.2"));
    }
    let text = "passwd: files sss winbind\ngroup: files ldap\n\
                hosts: files mdns4_minimal [NOTFOUND=return] resolve\n";
    host.dir("etc");
    fs::write(host.at("etc/nsswitch.conf"), text).unwrap();
    let talked_to = [
        "/run/avahi-daemon",
        "/run/nslcd",
        "/run/samba/winbindd",
        "/run/systemd/resolve",
        "/var/lib/sss/mc",
        "/var/lib/sss/pipes",
    ];
    for directory in talked_to {
        host.dir(&directory[1..]);
    }

    let shown = host.shows("nss: [passwd, group, hosts]");
    for service in services {
        let module = format!("/libnss_{service}.so.2 < ");
        assert!(
            shown.iter().any(|line| line.contains(&module)),
            "{module}: {shown:#?}"
        );
    }
    for directory in talked_to {
        let line = format!("{directory} < {directory}");
        assert!(shown.contains(&line), "{line}: {shown:#?}");
    }
}

#[test]
fn the_same_host_gives_the_same_answer() {
    let host = MadeHost::new();
    host.file("b").file("a").link("lib", "usr").file("usr/x");
    let manifest = "mounts: [/b, /lib/x, /a]";
    assert_eq!(
        host.resolve(manifest).unwrap(),
        host.resolve(manifest).unwrap()
    );
}

/// A program that a link in another directory names is where it really is, behind the same links.
#[test]
fn programs_behind_links_stay_behind_links() {
    let host = MadeHost::new();
    host.program("usr/lib/jvm/17/bin/java")
        .link("etc/alternatives/java", "/usr/lib/jvm/17/bin/java")
        .link("usr/bin/java", "/etc/alternatives/java")
        .program("usr/bin/dash")
        .link("usr/bin/sh", "dash");
    let expected = [
        "/usr/lib/jvm/17/bin/java < /usr/lib/jvm/17/bin/java",
        "/etc/alternatives/java -> /usr/lib/jvm/17/bin/java",
        "/usr/bin/java -> /etc/alternatives/java",
    ];
    assert_eq!(host.shows("programs: [/usr/bin/java]"), expected);
    assert_eq!(host.shows("programs: [java]"), expected);
    assert_eq!(
        host.shows("programs: [sh]"),
        ["/usr/bin/sh < /usr/bin/dash"]
    );
    let errors = host.resolve("programs: [nothing]").unwrap_err();
    assert!(
        errors[0].contains("nothing is not on this host"),
        "{errors:?}"
    );
    assert_eq!(
        host.shows("programs: [{ path: nothing, optional: true }]")
            .len(),
        0
    );
}

/// Where a root has a directory or file of its own in place of one of the links, the program is
/// mounted at the name by which it is called.
#[test]
fn programs_are_at_their_names_where_roots_have_their_own() {
    let names = |in_root: &str| {
        let host = MadeHost::new();
        host.link("bin", "usr/bin")
            .link("lib", "usr/lib")
            .link("usr/bin/tool", "/lib/tool/run")
            .program("usr/lib/tool/run")
            .dir(in_root);
        host.shows("programs: [/bin/tool]")
    };
    let behind_links = [
        "/usr/lib/tool/run < /usr/lib/tool/run",
        "/bin -> usr/bin",
        "/lib -> usr/lib",
        "/usr/bin/tool -> /lib/tool/run",
    ];
    assert_eq!(names("srv/s/etc"), behind_links);
    let at_its_name = ["/usr/bin/tool < /usr/lib/tool/run", "/bin -> usr/bin"];
    assert_eq!(names("srv/s/lib"), at_its_name);
    assert_eq!(names("srv/s/bin"), ["/bin/tool < /usr/lib/tool/run"]);
}

#[test]
fn a_literal_source_is_no_pattern() {
    let host = MadeHost::new();
    host.dir("data[1]").dir("data1");
    assert_eq!(
        host.shows("mounts: [{ source: '/data[1]', literal: true, target: /d }]"),
        ["/d < /data[1]"]
    );
    assert_eq!(host.shows("mounts: ['/data[1]']"), ["/data1 < /data1"]);
    host.file("a/b/c/x.so").file("a/y.so");
    assert_eq!(
        host.shows("mounts: ['/a/**/*.so']"),
        ["/a/b/c/x.so < /a/b/c/x.so", "/a/y.so < /a/y.so"]
    );
}

#[test]
fn openssl_brings_what_its_configuration_includes() {
    needs_root();
    let host = MadeHost::new();
    host.file("etc/ssl/extra.d/legacy.cnf")
        .file("etc/policy/openssl.config")
        .file("etc/secret/key");
    let text = ".include /etc/ssl/extra.d\n.include = /etc/policy/openssl.config\n\
                .include /etc/none\n.include /etc/secret/key\n";
    fs::write(host.at("etc/ssl/openssl.cnf"), text).unwrap();
    fs::set_permissions(host.at("etc/secret/key"), fs::Permissions::from_mode(0o600)).unwrap();
    let shown = host.shows("etc: [ssl/openssl.cnf]");
    assert_eq!(
        shown,
        [
            "/etc/policy/openssl.config < /etc/policy/openssl.config",
            "/etc/ssl/extra.d < /etc/ssl/extra.d",
            "/etc/ssl/openssl.cnf < /etc/ssl/openssl.cnf",
        ],
        "and nothing that not everybody may read"
    );
}

#[test]
fn openssl_brings_the_modules_that_its_configuration_names() {
    needs_root();
    let host = MadeHost::new();
    host.library("opt/own/provider.so")
        .library("opt/own/engine.so")
        .library("opt/own/unused.so")
        .file("opt/own/damaged.so");
    fs::create_dir_all(host.at("etc/ssl/more")).unwrap();
    for (file, text) in [
        (
            "openssl.cnf",
            "own = /opt/own\nmore = /etc/ssl/more\n.include $more/engines.cnf\n\
             [provider]\nmodule = ${own}/provider.so # ours\n[legacy]\nmodule = legacy.so\n\
             [bad]\nmodule = /opt/own/damaged.so\n[gone]\nmodule = /opt/own/gone.so\n",
        ),
        (
            "more/engines.cnf",
            "[e]\ndynamic_path = /opt/own/engine.so\n",
        ),
    ] {
        fs::write(host.at(&format!("etc/ssl/{file}")), text).unwrap();
    }
    let desired = host.resolve("etc: [ssl/openssl.cnf]").unwrap();
    let shown: Vec<_> = desired
        .mounts
        .iter()
        .map(|mount| (mount.target.to_string(), mount.attributes.noexec))
        .collect();
    let expected = [
        ("/etc/ssl/more/engines.cnf", true),
        ("/etc/ssl/openssl.cnf", true),
        ("/opt/own/engine.so", false),
        ("/opt/own/provider.so", false),
    ];
    assert_eq!(
        shown,
        expected.map(|(path, noexec)| (path.to_owned(), noexec))
    );
}

#[test]
fn kerberos_and_mysql_bring_what_their_configurations_include() {
    needs_root();
    let host = MadeHost::new();
    host.file("usr/share/policy/krb5.config")
        .file("etc/krb5.more/x")
        .file("etc/krb5.conf.d/realm.conf.rpmsave")
        .link("etc/krb5.conf.d/policy", "/usr/share/policy/krb5.config")
        .file("etc/my.cnf.d/client.cnf")
        .link("etc/mysql/my.cnf", "/etc/alternatives/my.cnf")
        .link("etc/alternatives/my.cnf", "/etc/mysql/mariadb.cnf");
    for (file, text) in [
        ("krb5.conf", "includedir /etc/krb5.conf.d/\n[libdefaults]\n"),
        ("krb5.conf.d/realm", "include /etc/krb5.more/x\n"),
        ("mysql/mariadb.cnf", "[client]\n!includedir /etc/my.cnf.d\n"),
    ] {
        fs::write(host.at(&format!("etc/{file}")), text).unwrap();
    }
    assert_eq!(
        host.shows("etc: [krb5.conf]"),
        [
            "/etc/krb5.conf < /etc/krb5.conf",
            "/etc/krb5.conf.d < /etc/krb5.conf.d",
            "/etc/krb5.more/x < /etc/krb5.more/x",
            "/usr/share/policy/krb5.config < /usr/share/policy/krb5.config",
        ]
    );
    assert_eq!(
        host.shows("etc: [mysql/my.cnf]"),
        [
            "/etc/my.cnf.d < /etc/my.cnf.d",
            "/etc/mysql/my.cnf < /etc/mysql/mariadb.cnf",
        ]
    );
}

#[test]
fn what_is_made_in_a_root_contradicts_nothing() {
    let host = MadeHost::new();
    host.dir("usr/share").link("var/run", "/run").dir("run/x");
    host.file("etc/passwd").file("etc/group");
    fs::write(host.at("etc/passwd"), "bob:x:7:8::/:\n").unwrap();
    fs::write(host.at("etc/group"), "web:x:9:\n").unwrap();

    let desired = host
        .resolve("directories: [{ path: /a, user: bob }, { path: /b, user: bob, group: web }]")
        .unwrap();
    let owners = desired.directories.iter().map(|own| own.owner.to_string());
    assert_eq!(owners.collect::<Vec<_>>(), ["7:8 0755", "7:9 0755"]);

    for (manifest, said) in [
        ("directories: [{ path: /a, user: eve }]", "no user eve"),
        ("directories: [{ path: /a, group: eve }]", "no group eve"),
        (
            "directories: [/a, { path: /a, mode: \"0700\" }]",
            "differently",
        ),
        (
            "mounts: [/usr/share]\ndirectories: [/usr/share/x]",
            "is mounted on /usr/share",
        ),
        ("mounts: [/usr/share]\ntmpfs: [/usr/share]", "differently"),
        ("tmpfs: [/tmp]\ndirectories: [/tmp/x]", "is mounted on /tmp"),
        ("mounts: [/run/x]\ntmpfs: [/run]", "is mounted on /run"),
    ] {
        let errors = host.resolve(manifest).unwrap_err();
        assert!(
            errors.iter().any(|error| error.contains(said)),
            "{manifest}: {errors:?}"
        );
    }
    let linked = host
        .resolve("mounts: [/run/x]\ndirectories: [/var/run/y]")
        .unwrap();
    assert_eq!(linked.directories[0].path.to_string(), "/run/y");
}
