//! Promise: on a host with pools and no manifests, `import --write` and `up --all` are the whole
//! set-up.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Sandbox, mounts, mounts_below, on_shared_root, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let mut trials = trials([
        ("pools become sites, and they come up", pools_become_sites),
        ("nothing is overwritten", nothing_is_overwritten),
        ("a second import leaves existing manifests alone", again),
        ("files that cannot be read are named", mistakes),
        ("fstab is read as mount reads it", fstab_as_mount),
        (
            "a daemon's configuration that names a root becomes a site",
            daemons,
        ),
        (
            "units have their drop-ins, and may be named by them",
            drop_ins,
        ),
        ("a file of another format is named as such", other_kinds),
        ("only regular files are opened", opens_files_alone),
        ("an fstab becomes sites with the same mounts", an_fstab),
        ("mounts that exist already are taken over", taken_over),
        ("a pool and its bind lines become one site", merged),
        (
            "jailkit's own sections become presets that work",
            jailkits_own,
        ),
        ("every key of jailkit is imported or reported", jailkit_keys),
        (
            "mistakes in fstab and in sections are named by line",
            wrong_lines,
        ),
        ("names that are taken are reported", names_that_are_taken),
    ]);
    // Run alone, because it mounts on /etc/php.
    trials.push(on_shared_root(
        "Debian's own configuration is imported",
        debians_own,
    ));
    trials
}

/// A php-fpm.conf as Debian has it, with three pools in chroots, two of them sharing one, and one
/// without.
fn fpm(sandbox: &Sandbox) -> PathBuf {
    let srv = sandbox.path("srv");
    let srv = srv.display();
    sandbox.file(
        "fpm/php-fpm.conf",
        format!(
            "; a comment\n[global]\npid = /run/php/php-fpm.pid\n\
             error_log = \"/var/log/php.log\" ; quoted\n\
             include={}\n",
            sandbox.path("fpm/pool.d/*.conf").display()
        ),
    );
    let pool =
        |name: &str, text: String| drop(sandbox.file(format!("fpm/pool.d/{name}.conf"), text));
    pool(
        "www",
        "[www]\nuser = www-data\nlisten = /run/php/www.sock\npm = static\n;chroot =\n".to_owned(),
    );
    pool(
        "one",
        format!(
            "[one]\nuser = $pool\nuser = www-data\nchroot = {srv}/$pool/ ; its own\n\
             listen = 127.0.0.1:9000\npm = static\npm.max_children = 1\n"
        ),
    );
    pool(
        "two",
        format!(
            "[two]\nuser = \"games\"\nchroot = {srv}/shared\nphp_admin_value[open_basedir] = /\n"
        ),
    );
    pool(
        "three",
        format!("[three]\nuser = 33\nlisten = {srv}/shared/php.sock\nchroot = {srv}/shared\n"),
    );
    for root in ["one", "shared"] {
        sandbox.directory(format!("srv/{root}"));
    }
    sandbox.path("fpm")
}

fn pools_become_sites() {
    let sandbox = Sandbox::new();
    let fpm = fpm(&sandbox);
    let printed = sandbox
        .ok(&["import", fpm.to_str().unwrap()])
        .says("1 pool without a chroot");
    assert_eq!(
        fs::read_dir(sandbox.config().join("sites"))
            .unwrap()
            .count(),
        0,
        "printing writes nothing"
    );
    let file = sandbox.config().join("sites/one.yaml");
    let first = format!(
        "# {}\n# The pool one of {}/pool.d/one.conf.\n\
         # PHP's mail() starts /usr/sbin/sendmail, which needs the preset mail.\nroot: {}\n\
         presets: [php-fpm, mail]\nusers: [www-data]\ndirectories:\n",
        file.display(),
        fpm.display(),
        sandbox.root("one").display()
    );
    assert!(printed.stdout.starts_with(&first), "{printed}");
    assert!(
        printed.stdout.contains("users: [games, www-data]\n"),
        "{printed}"
    );
    assert!(
        printed
            .stdout
            .contains("php.sock of the pool three is inside the root"),
        "{printed}"
    );
    sandbox
        .ok(&["import", "--write", fpm.to_str().unwrap()])
        .says("one: wrote ");
    sandbox.ok(&["check"]).prints("one: ok").prints("three: ok");
    sandbox.ok(&["up", "--all"]);
    assert!(
        mounts_below(&sandbox.root("one")).len() > 20
            && mounts_below(&sandbox.root("shared")).len() > 20
    );
    let json = sandbox
        .ok(&["import", "--json", fpm.to_str().unwrap()])
        .json();
    assert_eq!(json["sites"].as_array().unwrap().len(), 2);
}

fn nothing_is_overwritten() {
    let sandbox = Sandbox::new();
    let fpm = fpm(&sandbox);
    sandbox.manifest("one", "root: /srv/mine\n");
    sandbox
        .run(&["import", "--write", fpm.to_str().unwrap()])
        .exits(1)
        .says("one.yaml: it exists already, with another root: /srv/mine, not ")
        .says("three: wrote ");
    assert_eq!(
        fs::read_to_string(sandbox.config().join("sites/one.yaml")).unwrap(),
        "root: /srv/mine\n"
    );
}

fn mistakes() {
    let sandbox = Sandbox::new();
    let import = |path: &Path| sandbox.run(&["import", path.to_str().unwrap()]).exits(1);
    import(&sandbox.path("absent.conf"))
        .says("cannot read ")
        .says("No such file");
    import(&sandbox.file("bad.conf", "[www]\nuser = a\nthis is nothing\n"))
        .says("bad.conf:3: `this is nothing`");
    import(&sandbox.file("none.conf", "[www]\nuser = a\n")).says(
        "no pool with a chroot, no bind line into a jail, no section and no other root was found",
    );
    import(&sandbox.file("system.conf", "[www]\nchroot = /\n"))
        .says("system.conf:1: pool www: chroot = /: the root / is a directory of the system");
    let broken = sandbox.file(
        "some.conf",
        "[good]\nuser = games\nchroot = /srv/good\n[bad]\nchroot = \"x\n",
    );
    import(&broken)
        .says("some.conf:5: `chroot = \"x`: the quote does not end")
        .prints("root: /srv/good");
    import(&sandbox.file("unset.conf", "[a]\nchroot = ${MJ_IS_NOT_SET}/a\n"))
        .says("try: set it for this command as it is set for PHP-FPM: `MJ_IS_NOT_SET=VALUE ");
    let own = sandbox.path("loop.conf");
    import(&sandbox.file(
        "loop.conf",
        format!("[global]\ninclude = {}\n", own.display()),
    ))
    .says("files include each other more than 5 deep");
    let odd = sandbox.file("odd.conf", "[a b/c]\nchroot = /srv/www\n");
    sandbox
        .ok(&["import", odd.to_str().unwrap()])
        .prints("sites/a-b-c.yaml")
        .prints("# The pool a b/c becomes the site a-b-c, because a site's file cannot have");
}

fn again() {
    let sandbox = Sandbox::new();
    let fpm = fpm(&sandbox);
    let fpm = fpm.to_str().unwrap();
    sandbox.ok(&["import", "--write", fpm]);
    let one = sandbox.config().join("sites/one.yaml");
    let mine = format!("{}etc: [hosts]\n", fs::read_to_string(&one).unwrap());
    fs::write(&one, &mine).unwrap();
    let four = sandbox.root("four");
    let pool = format!(
        "[four]\nuser = games\nlisten = four.sock\nchroot = {}\n",
        four.display()
    );
    sandbox.file("fpm/pool.d/four.conf", pool);
    sandbox
        .ok(&["import", "--write", fpm])
        .says("one: exists already, left as it is")
        .says("four: wrote ")
        .says("The root ");
    assert_eq!(fs::read_to_string(&one).unwrap(), mine);
    // A user that the pool has now.
    let pool = fs::read_to_string(sandbox.path("fpm/pool.d/one.conf")).unwrap();
    sandbox.file("fpm/pool.d/one.conf", format!("{pool}user = games\n"));
    let lacks = "one.yaml: it exists already, and lacks `users: [games]`";
    sandbox
        .run(&["import", "--write", fpm])
        .exits(1)
        .says(lacks)
        .says("four: exists already");
    sandbox.ok(&["import", fpm]).says(lacks);
}

fn fstab_as_mount() {
    let sandbox = Sandbox::new();
    for directory in [
        "srv/a/etc",
        "srv/a/lib",
        "srv/a/data",
        "data",
        "srv/a/proc",
        "data[1]",
    ] {
        sandbox.directory(directory);
    }
    sandbox.file("srv/a/etc/hosts", "");
    let fstab = write_fstab(
        &sandbox,
        "/etc/hosts SRV/a/etc/hosts none bind,ro=recursive 0 0\n/usr/lib SRV/a/lib none rbind 0 0\n\
         none SRV/a/lib none remount,bind,ro 0 0\nSRV/../data SRV/a/data none bind\n\
         SRV/data SRV/a/data none bind,x-systemd.requires=data-init.service,nofail 0 0\n\
         proc SRV/a/proc proc defaults,hidepid=2 0 0\ntmpfs SRV/a/tmp tmpfs size=64m 0 0\n\
         nonsense\n\
         tmpfs /tmp tmpfs defaults\n/dev SRV/a/dev none bind 0 0\nnone SRV/b none remount,bind,ro\n\
         SRV/x[1] SRV/a/x none bind 0 0\n",
    );
    let ran = sandbox.ok(&["import", fstab.to_str().unwrap()]);
    for said in [
        "fstab:8: `nonsense`: it has fewer fields than fstab(5) needs: source, target, type \
         and options; ignored",
        "fstab:11: ",
        "no line before it mounts what it remounts; ignored",
        "1 line of fstab without `bind`: not of a jail",
    ] {
        assert!(ran.stderr.contains(said), "{said}\n{ran}");
    }
    for line in [
        "fstab:5 covers it, so it is left out",
        "fstab:5: x-systemd.requires=data-init.service: a manifest has no such options",
        "etc: [hosts]\n",
        "fstab:6: proc on /proc is `proc: true`",
        "fstab:7: tmpfs on /tmp is `tmpfs`",
        "tmpfs:\n  - { target: /tmp, size: \"64m\" }\n",
        "proc: true\n",
        "/x[1]\", target: /x, access: read-write, optional: true, literal: true }",
        "{ source: /usr/lib, target: /lib, recursive: true, executable: true",
        "fstab:10: all of /dev is more than a jail needs: `presets: [base]`",
    ] {
        assert!(ran.stdout.contains(line), "{line}\n{ran}");
    }
}

fn daemons() {
    let sandbox = Sandbox::new();
    let files = daemons_files(&sandbox);
    fs::create_dir(sandbox.path("srv/sftp/games")).unwrap();
    let files = files
        .iter()
        .filter(|file| !file.ends_with("main.cf"))
        .map(|file| file.to_str().unwrap());
    let ran = sandbox.ok(&["import", "--write"]
        .into_iter()
        .chain(files)
        .collect::<Vec<_>>());
    for (site, line) in [
        ("haproxy", "users: [nobody]\n"),
        ("unbound", "users: [nobody]\n"),
        ("nsd", "root: "),
        ("squid", "users: [proxy]\n"),
        ("module", "users: [games]\n"),
        ("ftp", "presets: [timezone, syslog]\n"),
        ("app", "users: [www-data]\n"),
        ("named", "users: [nobody]\n"),
        ("games", "users: [games]\n"),
        ("postfix", "users: [mail]\n"),
        ("x", "mounts:\n  - /etc/hosts\nservices: [x.service]\n"),
    ] {
        let text = fs::read_to_string(sandbox.config().join(format!("sites/{site}.yaml")))
            .unwrap_or_else(|_| panic!("{site}\n{ran}"));
        assert!(text.contains(line), "{site}: {line}\n{text}");
        sandbox.ok(&["check", site]);
    }
}

/// A configuration that names a root, of each daemon.
fn daemons_files(sandbox: &Sandbox) -> [PathBuf; 12] {
    let root = |name: &str| {
        sandbox
            .directory(format!("srv/{name}"))
            .display()
            .to_string()
    };
    sandbox.file(
        "sshd_config.d/sftp.conf",
        format!(
            "Match User games\n  ChrootDirectory {}/%u\n  ForceCommand internal-sftp\n",
            root("sftp")
        ),
    );
    [
        sandbox.file(
            "haproxy.cfg",
            format!(
                "global\n\tlog /dev/log local0\n\tchroot {}\n\
                 \tuser nobody\n",
                root("haproxy")
            ),
        ),
        sandbox.file(
            "unbound.conf",
            format!(
                "server:\n\tchroot: \"{}\"\n\
                 \tusername: \"nobody\"\n",
                root("unbound")
            ),
        ),
        sandbox.file(
            "nsd.conf",
            format!("server:\n  zonesdir: /x\n  chroot: {}\n", root("nsd")),
        ),
        sandbox.file(
            "squid.conf",
            format!(
                "http_port 3128\nchroot {}\n\
                 cache_effective_user proxy\n",
                root("squid")
            ),
        ),
        sandbox.file(
            "rsyncd.conf",
            format!("uid = games\n[m]\npath = {}\n", root("module")),
        ),
        sandbox.file(
            "vsftpd.conf",
            format!(
                "local_enable=YES\nchroot_local_user=YES\n\
                 local_root={}\n",
                root("ftp")
            ),
        ),
        sandbox.file(
            "app.ini",
            format!("[uwsgi]\nchroot = {}\nuid = www-data\n", root("app")),
        ),
        sandbox.file(
            "default/named",
            format!("OPTIONS=\"-u nobody -t {}\"\n", root("named")),
        ),
        sandbox.file(
            "sshd_config",
            format!(
                "Include {}\nUsePAM yes\n",
                sandbox.path("sshd_config.d/*.conf").display()
            ),
        ),
        sandbox.file("postfix/master.cf", "smtp inet n - y - - smtpd\n"),
        sandbox.file(
            "postfix/main.cf",
            format!(
                "queue_directory = {}\n\
                 mail_owner = mail\n",
                root("queue")
            ),
        ),
        sandbox.file(
            "x.service",
            format!(
                "[Service]\nRootDirectory={}\nUser=games\nExecStart=/bin/true\n\
                 BindReadOnlyPaths=/etc/hosts\n",
                root("x")
            ),
        ),
    ]
}

fn drop_ins() {
    let sandbox = Sandbox::new();
    let (a, b) = (sandbox.directory("srv/a"), sandbox.path("srv/b"));
    let root = |root: &Path| format!("[Service]\nRootDirectory={}\n", root.display());
    let unit = sandbox.file("units/mj-x.service", format!("{}User=games\n", root(&a)));
    let import = |file: &Path| sandbox.ok(&["import", file.to_str().unwrap()]);
    import(&unit).prints(&format!("root: {}\n", a.display()));
    let drop_in = sandbox.file("units/mj-x.service.d/10.conf", root(&b));
    for file in [&unit, &drop_in] {
        import(file)
            .prints(&format!("{}:2.", drop_in.display()))
            .prints(&format!("root: {}\n", b.display()))
            .prints("b is not there: `mountjail up --create` makes it")
            .prints("users: [games]\n")
            .prints("services: [mj-x.service]\n");
    }
    let of_all = sandbox.file("units/mj-.service.d/20.conf", root(&a));
    import(&unit).prints(&format!("root: {}\n", a.display()));
    sandbox
        .run(&["import", of_all.to_str().unwrap()])
        .exits(1)
        .says("20.conf: it is for several units; name the file of one of them");
    let odd = sandbox.file("unit.txt", root(&a));
    let ran = import(&odd).prints("the file has no name of a unit: name the unit under");
    assert!(!ran.stdout.contains("services:"), "{ran}");
}

fn other_kinds() {
    let sandbox = Sandbox::new();
    for (name, text) in [
        (
            "nginx.conf",
            "events {}\nhttp {\n  server {\n    root /srv/www;\n  }\n}\n",
        ),
        (
            "named.conf",
            "options {\n  directory \"/var/cache/bind\";\n};\n",
        ),
        (
            "my.cnf",
            "[client]\nport = 3306\n[mysqld]\nchroot = /srv/d\nuser = mysql\n",
        ),
        ("smb.conf", "[x]\npath = /srv/x\nread only = yes\n"),
        (
            "jk_update.ini",
            "[/home/j]\nskips = /usr/bin/x\ndirectories = /usr\n",
        ),
        ("script", "#!/bin/sh\nmount --bind /a /b\n"),
    ] {
        let file = sandbox.file(name, text);
        let ran = sandbox.run(&["import", file.to_str().unwrap()]).exits(1);
        ran.says(&format!("{name} is not in a format that import knows"));
    }
    let nginx = sandbox.path("").join("nginx");
    sandbox.file("nginx/nginx.conf", "user www-data;\nevents {\n}\n");
    let ran = sandbox
        .run(&["import", nginx.to_str().unwrap()])
        .exits(1)
        .says("nginx has no configuration of PHP-FPM, and import reads no other directory");
    assert_eq!(ran.stderr.lines().count(), 2, "{ran}");
    let mount = sandbox.file(
        "a.mount",
        "[Unit]\nDescription=x\n[Mount]\nWhat=/etc/hosts\nWhere=/srv/j/etc/hosts\nType=none\n\
         Options=bind,ro\n",
    );
    sandbox
        .ok(&["import", mount.to_str().unwrap()])
        .prints("a.mount:4: ")
        .prints("root: /srv/j\netc: [hosts]\n");
    let comments = sandbox.file("fstab", "# only comments\n");
    let ran = sandbox
        .run(&["import", comments.to_str().unwrap()])
        .exits(1);
    ran.says("no bind line into a jail");
    let unit = sandbox.file(
        "plain.service",
        "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n",
    );
    let ran = sandbox.run(&["import", unit.to_str().unwrap()]).exits(1);
    ran.says("plain.service: it has no RootDirectory=: nothing to mount");
}

/// `/etc/php/VERSION/fpm` of the package, with three more pools, two of them in one chroot: the
/// unit is known by the place.
fn debians_own() {
    let sandbox = Sandbox::new();
    let upper = [sandbox.directory("upper"), sandbox.directory("work")];
    let options = format!(
        "lowerdir=/etc/php,upperdir={},workdir={}",
        upper[0].display(),
        upper[1].display()
    );
    let overlay = ["-t", "overlay", "-o", &options, "php", "/etc/php"];
    crate::support::Ran::of(Command::new("mount").args(overlay)).exits(0);
    let fpm = glob::glob("/etc/php/*/fpm")
        .unwrap()
        .next()
        .expect("Debian's php-fpm is installed")
        .unwrap();
    let www = fs::read_to_string(fpm.join("pool.d/www.conf")).unwrap();
    for (name, root) in [("shop", "shop"), ("blog", "shared"), ("wiki", "shared")] {
        let root = sandbox.directory(format!("srv/{root}"));
        let pool = www
            .replace("[www]", &format!("[{name}]"))
            .replace("/run/php/", &format!("/run/php/{name}-"));
        fs::write(
            fpm.join(format!("pool.d/{name}.conf")),
            format!("{pool}\nchroot = {}\n", root.display()),
        )
        .unwrap();
    }
    sandbox
        .ok(&["import", "--write", fpm.to_str().unwrap()])
        .says("1 pool without a chroot");
    let version = fpm.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let manifest = fs::read_to_string(sandbox.config().join("sites/blog.yaml")).unwrap();
    assert!(
        manifest.contains(&format!("services: [php{version}-fpm.service]\n")),
        "{manifest}"
    );
    assert!(
        manifest.contains("users: [www-data]\n") && manifest.contains("The pool wiki of "),
        "{manifest}"
    );
    sandbox.ok(&["check"]).prints("blog: ok").prints("shop: ok");
    sandbox.ok(&["up", "--all"]);
}

/// Forty lines as an administrator writes them: `lines` with `SRV` for the directory of the sites.
fn write_fstab(sandbox: &Sandbox, lines: &str) -> PathBuf {
    let text = lines.replace("SRV", sandbox.path("srv").to_str().unwrap());
    sandbox.file("fstab", text)
}

const FORTY_LINES: &str = "\
# /etc/fstab: static file system information.
# <file system> <mount point> <type> <options> <dump> <pass>
UUID=6a0c7a1e-1c5c-4ad2-8f3c-cc06d1e6b8a0 /     ext4  errors=remount-ro 0 1
UUID=9f0f5f0e-7a55-4a3f-a1d4-0f5f5a1e2d11 none  swap  sw                0 0
tmpfs                                     /tmp  tmpfs nosuid,nodev      0 0
/dev/sr0                                  /media/cdrom0 udf,iso9660 user,noauto 0 0

# site1: what PHP needs
/etc/hosts                  SRV/site1/etc/hosts                 none bind,ro 0 0
/etc/resolv.conf            SRV/site1/etc/resolv.conf           none bind,ro 0 0
/etc/nsswitch.conf          SRV/site1/etc/nsswitch.conf         none bind,ro 0 0
/etc/services               SRV/site1/etc/services              none bind,ro,nosuid,nodev,noexec 0 0
/etc/ssl/certs              SRV/site1/etc/ssl/certs             none bind,ro 0 0
/usr/share/ca-certificates  SRV/site1/usr/share/ca-certificates none bind,ro 0 0
/usr/share/zoneinfo         SRV/site1/usr/share/zoneinfo        none bind,ro 0 0
/etc/localtime              SRV/site1/etc/localtime             none bind,ro 0 0
/dev/null                   SRV/site1/dev/null                  none bind 0 0
/dev/zero                   SRV/site1/dev/zero                  none bind 0 0
/dev/urandom                SRV/site1/dev/urandom               none bind 0 0

# site1: its own
SRV/shared\\040files        SRV/site1/uploads                   none bind,nosuid,nodev 0 0
SRV/shared\\040files/logs   SRV/site1/var/log/all               none bind,ro 0 0
/bin/sh                     SRV/site1/bin/sh                    none bind,ro 0 0
/usr/bin/env                SRV/site1/usr/bin/env               none bind,ro 0 0

# site2: less, and in the old way
/etc/hosts      SRV/site2/chroot/etc/hosts      none bind             0 0
/etc/hosts      SRV/site2/chroot/etc/hosts      none remount,bind,ro  0 0
/etc/motd.test  SRV/site2/chroot/etc/motd.test  none bind,ro,nofail   0 0
/dev            SRV/site2/chroot/dev            none rbind            0 0
/usr/share      SRV/site2/chroot/usr/share      none bind,ro,exec     0 0

# not a jail
SRV/disk/www    SRV/elsewhere/www               none bind             0 0
/tmp            /var/tmp                        none noauto,bind      0 0
# BEGIN mountjail
# site3: SRV/site3
/etc/hosts      SRV/site3/etc/hosts             none bind,ro          0 0
# END mountjail
";

/// The bind lines of [`FORTY_LINES`] that mount something in a jail: source, target, and whether it
/// is read-only.
fn binds(sandbox: &Sandbox) -> Vec<(PathBuf, PathBuf, bool)> {
    let srv = sandbox.path("srv");
    let lines = FORTY_LINES
        .lines()
        .take_while(|line| !line.starts_with("# not a jail"));
    let mut binds = vec![];
    for line in lines.filter(|line| {
        line.contains("bind") && !line.contains("remount,") && !line.contains("motd")
    }) {
        let line = line.replace("SRV", srv.to_str().unwrap());
        let fields: Vec<_> = line
            .split_whitespace()
            .map(|field| field.replace("\\040", " "))
            .collect();
        let read_only = fields[3].contains("ro") || fields[1].ends_with("site2/chroot/etc/hosts");
        binds.push((
            fields[0].clone().into(),
            fields[1].clone().into(),
            read_only,
        ));
    }
    binds
}

/// Makes the roots with what the lines mount on, as an administrator does.
fn placeholders(sandbox: &Sandbox) {
    sandbox.directory("srv/shared files/logs");
    for (source, target, _) in binds(sandbox) {
        let directory = if source.is_dir() {
            &target
        } else {
            target.parent().unwrap()
        };
        fs::create_dir_all(directory).unwrap();
        if !source.is_dir() {
            fs::write(&target, "").unwrap();
        }
    }
}

/// Where a target leads to, if it is a link in a jail: the sites' roots are below `srv/site1`,
/// `srv/site2/chroot`.
fn inside(sandbox: &Sandbox, target: &Path) -> PathBuf {
    let target = fs::canonicalize(target.parent().unwrap())
        .unwrap()
        .join(target.file_name().unwrap());
    let Ok(text) = fs::read_link(&target) else {
        return target;
    };
    let root = ["site1", "site2/chroot"]
        .map(|root| sandbox.root(root))
        .into_iter();
    let root = root
        .into_iter()
        .find(|root| target.starts_with(root))
        .unwrap();
    root.join(text.strip_prefix("/").expect("an absolute link"))
}

/// Fails unless each line's target shows the line's source, and can be written to exactly if it
/// could be.
fn same_mounts(sandbox: &Sandbox) {
    let table = mounts();
    for (source, target, read_only) in binds(sandbox) {
        let target = inside(sandbox, &target);
        let (is, was) = (
            fs::metadata(&target).unwrap(),
            fs::metadata(&source).unwrap(),
        );
        assert_eq!(
            (is.dev(), is.ino()),
            (was.dev(), was.ino()),
            "{}",
            target.display()
        );
        // A device on a read-only mount works the same.
        if !was.file_type().is_char_device() {
            let mount = table
                .iter()
                .filter(|mount| target.starts_with(&mount.point))
                .max_by_key(|mount| mount.point.as_os_str().len());
            let mount = mount.unwrap_or_else(|| panic!("{} is not a mount", target.display()));
            assert_eq!(mount.has("ro"), read_only, "{}", target.display());
        }
    }
}

fn an_fstab() {
    let sandbox = Sandbox::new();
    let fstab = write_fstab(&sandbox, FORTY_LINES);
    assert_eq!(FORTY_LINES.lines().count(), 40);
    sandbox.directory("srv/shared files/logs");
    for root in ["srv/site1", "srv/site2/chroot"] {
        sandbox.directory(root);
    }
    let import = ["import", "--write", fstab.to_str().unwrap()];
    sandbox
        .ok(&import)
        .says("4 lines of fstab without `bind`")
        .says("1 line in mountjail's own block")
        .says("fstab:36: `noauto`: it is not mounted at boot; not imported")
        .says("fstab:35: ")
        .says("no other line and no pool shows a jail there")
        .says("site1: wrote ")
        .says("fstab:22: ")
        .says("/shared files is writable, as in fstab")
        .says("site2: wrote ");
    let site1 = fs::read_to_string(sandbox.config().join("sites/site1.yaml")).unwrap();
    assert!(
        site1.contains("# 15 bind lines, from ")
            && site1.contains("presets: [dns, timezone, tls]\n"),
        "{site1}"
    );
    assert!(
        site1.contains("programs: [/bin/sh, /usr/bin/env]\n"),
        "{site1}"
    );
    assert!(
        site1.contains("/shared files\", target: /uploads, access: read-write }\n"),
        "{site1}"
    );
    let site2 = fs::read_to_string(sandbox.config().join("sites/site2.yaml")).unwrap();
    assert!(site2.contains("etc: [hosts]\n"), "{site2}");
    assert!(
        site2.contains("{ source: /dev, access: read-write, recursive: true, devices: true }\n"),
        "{site2}"
    );
    assert!(
        site2.contains("{ source: /etc/motd.test, optional: true }\n"),
        "{site2}"
    );
    assert!(
        !sandbox.config().join("sites/site3.yaml").exists(),
        "mountjail's own lines are not imported"
    );
    sandbox
        .ok(&["check"])
        .prints("site1: ok")
        .prints("site2: ok");
    sandbox.ok(&["up", "--all"]);
    same_mounts(&sandbox);
    sandbox.ok(&["status"]);
    let shell = [
        "-c",
        "exec 3>/dev/null && read hosts </etc/hosts && echo >/uploads/new && ! echo 2>&- \
         >/etc/hosts",
    ];
    crate::support::Ran::of(
        Command::new("chroot")
            .arg(sandbox.root("site1"))
            .arg("/bin/sh")
            .args(shell),
    )
    .exits(0);
    sandbox.ok(&["down", "--all"]);
}

fn taken_over() {
    let sandbox = Sandbox::new();
    let fstab = write_fstab(&sandbox, FORTY_LINES);
    placeholders(&sandbox);
    let text = fs::read_to_string(&fstab).unwrap();
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("# not a jail"));
    for line in lines.filter(|line| line.contains("bind") && !line.contains("motd")) {
        let fields: Vec<_> = line
            .split_whitespace()
            .map(|field| field.replace("\\040", " "))
            .collect();
        crate::support::Ran::of(
            Command::new("mount").args(["-o", &fields[3], &fields[0], &fields[1]]),
        )
        .exits(0);
    }
    same_mounts(&sandbox);
    sandbox.ok(&["import", "--write", fstab.to_str().unwrap()]);
    sandbox.ok(&["up", "--all"]);
    sandbox.ok(&["status"]);
    same_mounts(&sandbox);
    sandbox.ok(&["down", "--all"]);
    assert_eq!(mounts_below(&sandbox.root("site1")).len(), 0);
}

fn merged() {
    let sandbox = Sandbox::new();
    let fpm = fpm(&sandbox);
    let fstab = write_fstab(
        &sandbox,
        "/etc/hosts SRV/one/etc/hosts none bind,ro 0 0\nSRV/up SRV/one/uploads none bind 0 0\n\
         SRV/up SRV/shared/in none bind,ro 0 0\n",
    );
    let up = sandbox.directory("srv/up");
    let (fstab, pools) = (fstab.to_str().unwrap(), fpm.to_str().unwrap());
    let imported = sandbox.ok(&["import", "--json", fstab, pools]).json();
    let pool = fpm.join("pool.d/one.conf");
    let twice = sandbox
        .ok(&[
            "import",
            "--json",
            fstab,
            pools,
            fstab,
            pool.to_str().unwrap(),
        ])
        .json();
    assert_eq!(imported, twice, "a line that is named twice counts once");
    let manifests: Vec<_> = imported["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| site["manifest"].as_str().unwrap())
        .collect();
    let [one, three] = manifests.as_slice() else {
        panic!("{imported:#}")
    };
    assert!(
        one.contains("presets: [php-fpm, mail]\nusers: [www-data]\nmounts:\n"),
        "{one}"
    );
    assert!(
        one.contains("# The pool one of ") && one.contains("# 2 bind lines, from "),
        "{one}"
    );
    assert!(!one.contains("etc:"), "php-fpm brings /etc/hosts\n{one}");
    let mount = format!("  - {{ source: {}, target: /in }}\n", up.display());
    assert!(three.contains(&mount), "{three}");
}

/// `/etc/jailkit/jk_init.ini` as the package has it.
fn jailkits_own() {
    let sandbox = Sandbox::new();
    let ini = "/etc/jailkit/jk_init.ini";
    let imported = sandbox
        .ok(&["import", "--write", ini])
        .says("[git] becomes the preset jk-git, because a built-in preset has that name")
        .says("[ping] becomes the preset jk-ping");
    let sections = fs::read_to_string(ini)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with('['))
        .count();
    assert_eq!(
        imported.stderr.matches(": wrote ").count(),
        sections,
        "{imported}"
    );
    assert_eq!(
        fs::read_dir(sandbox.config().join("presets"))
            .unwrap()
            .count(),
        sections
    );
    sandbox
        .ok(&["presets"])
        .prints("basicshell  ")
        .prints("bash based shell with several basic utilities");
    sandbox
        .ok(&["presets", "git"])
        .prints("git with its helpers"); // still the built-in one
    let names: Vec<_> = fs::read_dir(sandbox.config().join("presets"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let root = sandbox.site("all", &format!("presets: [{}]\n", names.join(", ")));
    sandbox.ok(&["check", "all"]);
    sandbox.ok(&["up", "all"]);
    let shell = "ls / | grep -q usr && id -un && git --version && [ -w /dev/null ] && perl -e \
                 'print 6 * 7'";
    let ran = crate::support::Ran::of(Command::new("chroot").arg(&root).args([
        "/usr/bin/bash",
        "-c",
        &format!("id() {{ whoami; }}; {shell}"),
    ]));
    let ran = ran.exits(0).prints("root\ngit version ");
    assert!(ran.stdout.ends_with("42"), "{ran}");
    sandbox.ok(&["down", "all"]);
    // Existing files are never overwritten.
    let before = fs::read_to_string(sandbox.config().join("presets/ssh.yaml")).unwrap();
    sandbox
        .ok(&["import", "--write", ini])
        .says("ssh: exists already, left as it is");
    assert_eq!(
        fs::read_to_string(sandbox.config().join("presets/ssh.yaml")).unwrap(),
        before
    );
}

fn jailkit_keys() {
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("data/plugins");
    fs::copy("/bin/true", directory.join("plugin")).unwrap();
    let setuid = sandbox.program("bin/setuid", fs::read("/bin/true").unwrap());
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
    let ini = sandbox.file(
        "jk_init.ini",
        format!(
            "# everything\n[DEFAULT]\nComment: of all\n[everything]\n\
             paths = true, /etc/passwd, /etc/hosts,\n  /usr/lib/*-linux-gnu/libz.so.1, \
             /no/such/file, nosuchprogram\n\
             executables = /bin/sh\nregularfiles = /etc/services\nlibraries = /no/lib/x.so.1\n\
             directories = {}\npaths_w_owner = /usr/share/zoneinfo\npaths_w_setuid = {}\n\
             includesections = dns, other, missing\nusers = root, www-data\ngroups = root, disk\n\
             devices = /dev/null, /dev/urandom\nemptydirs = /svr, /var/x y\nneed_logsocket = 1\n\
             need_proc = 1\n\
             odd = 1\n[dns]\nneed_logsocket = 0\n[other]\ncomment = a: \"quoted\" # one\n",
            directory.display(),
            setuid.display()
        ),
    );
    let ran = sandbox.ok(&["import", "--write", ini.to_str().unwrap()]);
    for remark in [
        "jk_init.ini:20: [dns] becomes the preset jk-dns, because a built-in preset has that name",
        "jk_init.ini:13: `includesections`: there is no section [missing]; left out",
        "jk_init.ini:11: `paths_w_owner`: /usr/share/zoneinfo: owner and mode are the host's",
        "jk_init.ini:12: `paths_w_setuid`: ",
        "jk_init.ini:15: `groups`: disk: a manifest cannot name groups",
        "jk_init.ini:20: `odd`: jailkit has no such key; left out",
    ] {
        let remark = remark.replace(":20: [dns]", ":21: [dns]");
        assert!(ran.stderr.contains(&remark), "{remark}\n{ran}");
    }
    let text = fs::read_to_string(sandbox.config().join("presets/everything.yaml")).unwrap();
    for line in [
        "description: \"of all\"\n",
        "presets: [jk-dns, other, syslog]\n",
        "  - { name: \"null\", optional: true }\n",
        "  - { name: hosts, optional: true }\n",
        "  - { path: /usr/bin/true, optional: true }\n",
        "  - { any_of: [/usr/local/sbin/nosuchprogram, ",
        "  - { path: \"/usr/lib/*-linux-gnu/libz.so.1\", optional: true }\n",
        "  - { path: /no/lib/x.so.1, optional: true }\n",
        "  - { source: /no/such/file, optional: true }\n",
        "  - { name: www-data, optional: true }\n",
        "nss: [passwd, group]\n",
        "directories:\n  - { path: /svr, mode: \"0755\" }\n  \
         - { path: \"/var/x y\", mode: \"0755\" }\n",
        "/data/plugins, executable: true, optional: true }\n",
        "/data/plugins/plugin, optional: true }\n",
        "/bin/setuid, executable: true, setuid: true, optional: true }\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("name: passwd"), "made of `users`\n{text}");
    let root = sandbox.site("s", "presets: [everything]\n");
    sandbox.ok(&["check", "s"]);
    sandbox.ok(&["up", "s"]);
    let inside = root.join(setuid.strip_prefix("/").unwrap());
    let mounts = mounts_below(&inside);
    assert!(
        mounts.len() == 1 && mounts[0].has("ro") && !mounts[0].has("nosuid"),
        "{mounts:?}"
    );
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert_eq!(passwd.lines().count(), 2, "{passwd}");
}

fn wrong_lines() {
    let sandbox = Sandbox::new();
    let import = |files: &[&PathBuf]| {
        let files = files.iter().map(|file| file.to_str().unwrap());
        sandbox
            .run(
                &["import", "--write"]
                    .into_iter()
                    .chain(files)
                    .collect::<Vec<_>>(),
            )
            .exits(1)
    };
    let good = sandbox.file("good", "/etc/hosts /srv/a/etc/hosts none bind,ro 0 0\n");
    let fstab = sandbox.file(
        "tab",
        "/etc/hosts /srv/a/etc/hosts none bind,ro 0 0\n/a b /c none bind 0 0\n/etc/x /srv/a\n",
    );
    let ini = sandbox.file("ini", "[a]\npaths = x\n\n[b\nnothing\n[a]\n");
    import(&[&good, &fstab, &ini])
        .says(
            "tab:2: `/a b /c none bind 0 0`: `bind` is not a number: a blank in a path is \
             written as \
             \\040; ignored",
        )
        .says("tab:3: `/etc/x /srv/a`: it has fewer fields")
        .says("ini:4: `[b` begins a section without a name and a `]`")
        .says("ini:5: `nothing` is neither `[section]` nor `key = value`")
        .says("ini:6: the section [a] is already in line 1");
    assert!(
        sandbox.config().join("sites/a.yaml").exists(),
        "the pools that are right are written"
    );
    assert!(
        sandbox.config().join("presets/a.yaml").exists(),
        "the first section [a] has no mistake"
    );
    let value = "[c]\npaths = cat\n[d]\npaths = /usr/lib/%(foo)s\n";
    import(&[&sandbox.file("value", value)])
        .says("value:4: [d]: `paths` has %(foo)s, and there is no such value")
        .says("c: wrote ");
    let binary = sandbox.file("binary", b"[a]\npaths = /x\n\xff\n");
    import(&[&binary]).says("binary:3: it is not UTF-8");
    let marker = sandbox.file("marker", "/a /b none bind\n# END mountjail\n");
    import(&[&marker])
        .says("marker: line 2 ends mountjail's block, and no line before it begins it");
    import(&[&sandbox.file("empty", "# nothing\n")])
        .says("empty is not in a format that import knows: those are PHP-FPM's");
    import(&[&sandbox.file("noise", [0; 5000])]).says("noise is not in a format");
    import(&[&"/dev/zero".into()]).says("/dev/zero is not a regular file");
    import(&[&sandbox.file(
        "nojail",
        "UUID=1 / ext4 defaults 0 1\n/a /var/b none bind 0 0\n",
    )])
    .says("nojail:2: /a on /var/b: no other line and no pool shows a jail there")
    .says("no bind line into a jail");
    let circle = sandbox.file(
        "circle",
        "[a]\nincludesections = b\n[b]\nincludesections = a\n",
    );
    sandbox
        .ok(&["import", "--write", circle.to_str().unwrap()])
        .says("circle:4: `includesections`: [a] includes this section, in a circle; left out");
    sandbox.site("circle", "presets: [a, b]\n");
    sandbox.ok(&["check", "circle"]);
}

fn names_that_are_taken() {
    let sandbox = Sandbox::new();
    let fstab = write_fstab(
        &sandbox,
        "/etc/hosts SRV/a/www/etc/hosts none bind,ro\n/etc/hosts SRV/b/www/etc/hosts none bind,ro\n\
         /etc/hosts SRV/c/taken/etc/hosts none bind,ro\n",
    );
    for root in ["a/www", "b/www", "c/taken"] {
        sandbox.directory(format!("srv/{root}"));
    }
    sandbox.manifest(
        "other",
        format!("root: {}\n", sandbox.path("srv/c/taken").display()),
    );
    let ran = sandbox.ok(&["import", "--write", fstab.to_str().unwrap()]);
    ran.says("fstab:2: another site already has the name www; this one gets the name www-2")
        .says("www: wrote ")
        .says("www-2: wrote ")
        .says("config/sites/other.yaml: exists already, left as it is");
    sandbox
        .ok(&["import", "--write", fstab.to_str().unwrap()])
        .says("www: exists already, left as it is");
    let one = sandbox.file("one", "[x]\npaths = ls\n");
    let two = sandbox.file(
        "two",
        "\n[x]\npaths = ls\n[base]\npaths = ls\n[jk-base]\npaths = ls\n",
    );
    sandbox
        .run(&["import", one.to_str().unwrap(), two.to_str().unwrap()])
        .exits(1)
        .says("two:2: the section [x] is already in ")
        .says("one:1\n");
    let names = sandbox
        .ok(&["import", "--json", two.to_str().unwrap()])
        .json();
    let names: Vec<_> = names["presets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["preset"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["x", "jk-base-2", "jk-base"]);
}

/// A FIFO would be waited for, and some devices act when they are opened.
fn opens_files_alone() {
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("d");
    let fifo = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::copy("/bin/true", directory.join("prog")).unwrap();
    for name in ["pipe", "lib.so.1", "php.ini"] {
        fifo(&directory.join(name));
    }
    let sections = sandbox.file(
        "jk_init.ini",
        format!("[x]\npaths = {}\n", directory.display()),
    );
    let lines = sandbox.file(
        "fstab",
        format!("{0} /srv/x{0} none bind,ro 0 0\n", directory.display()),
    );
    let run = |arguments: &[&Path]| {
        let mut command = sandbox.command_under(&["timeout", "60"]);
        crate::support::Ran::of(command.arg("import").args(arguments))
    };
    run(&[&sections]).exits(0).prints("d/prog");
    run(&[&lines]).exits(0).prints("executable: true");
    fifo(&sandbox.path("fpm.conf"));
    fifo(&directory.join("a.conf"));
    for path in [sandbox.path("fpm.conf"), directory, "/dev/zero".into()] {
        run(&[&path]).exits(1).says("is not a regular file");
    }
}
