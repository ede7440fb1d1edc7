//! Promise: jails as hosting panels make them with jailkit become sites by `import` and `adopt`
//! alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::{Ran, Sandbox, alone, bind, empty_run, tree};

pub fn all() -> Vec<Trial> {
    vec![
        alone("ISPConfig's jail", ispconfig),
        alone("Virtualmin's jail", virtualmin),
    ]
}

/// Where the panel's files are: all directories above are root's alone, as jailkit asks for.
const MNT: &str = "/mnt";

/// The program's socket, and the `/var/run` that is a link on the host.
const SOCKET: &str = "mysqld/mysqld.sock";

/// The panel's jail `site`, which `commands` make, with a database's socket on the host.
struct Panel {
    sandbox: Sandbox,
    site: &'static str,
    _mysql: UnixListener,
}

impl Panel {
    fn new(site: &'static str, commands: &str) -> Self {
        let sandbox = Sandbox::new();
        bind(&sandbox.path(""), Path::new(MNT));
        empty_run();
        fs::create_dir(Path::new("/run").join("mysqld")).unwrap();
        let mysql = UnixListener::bind(Path::new("/run").join(SOCKET)).unwrap();
        fs::set_permissions("/run/mysqld", fs::Permissions::from_mode(0o755)).unwrap();
        sandbox.directory(format!("srv/{site}"));
        sandbox.file("fpm/php.ini", "extension=mysqli\n");
        sandbox.file(
            "fpm/php-fpm.conf",
            format!(
                "[{site}]\nuser = games\nlisten = /run/{site}.sock\npm = ondemand\n\
                 pm.max_children = 2\nchroot = {MNT}/srv/{site}\n\
                 php_value[upload_tmp_dir] = /home/{site}/tmp\n\
                 php_value[session.save_path] = /tmp\n"
            ),
        );
        let commands = format!("exec >>log 2>&1; R={MNT}/srv/{site}\n{commands}");
        let mut shell = Command::new("sh");
        Ran::of(shell.args(["-exc", &commands]).current_dir(MNT)).exits(0);
        Self {
            sandbox,
            site,
            _mysql: mysql,
        }
    }

    /// The whole set-up, and back. `socket`: where PHP finds the database inside.
    fn becomes_a_site(&self, socket: &str) {
        let Self { sandbox, site, .. } = self;
        let root = Path::new(MNT).join("srv").join(site);
        let before = tree(&root);
        sandbox.ok(&["adopt", "--all", "--write"]);
        sandbox.ok(&["up", "--all"]).says("in sync");
        UnixStream::connect(root.join(socket)).unwrap();
        let hosts = "cat /etc/hosts && id -un && cat /etc/services | head -n1";
        let ran = sandbox.ok(&["exec", site, "--", "/bin/sh", "-c", hosts]);
        let _ = ran.prints("localhost").prints("games");
        for name in ["hosts", "ld.so.cache", "resolv.conf"] {
            let inside = fs::read(root.join("etc").join(name)).unwrap();
            assert_eq!(inside, fs::read(Path::new("/etc").join(name)).unwrap());
        }
        sandbox.ok(&["adopt", "--undo", site]);
        before.assert_same(&tree(&root));
    }

    fn import(&self) -> Ran {
        self.sandbox
            .ok(&["import", "--write", &format!("{MNT}/fpm")])
    }

    fn manifest(&self) -> String {
        let file = format!("sites/{}.yaml", self.site);
        fs::read_to_string(self.sandbox.config().join(file)).unwrap()
    }
}

/// Hard links, a `/var/run` of the jail's own with a socket that died, a home in the jail.
fn ispconfig() {
    let panel = Panel::new(
        "web1",
        "jk_init -f -k -c /etc/jailkit/jk_init.ini -j $R basicshell extendedshell netbasics jk_lsh
         jk_cp -k $R /usr/bin/id
         jk_cp -k -v -j $R /usr/share/zoneinfo/Europe
         mkdir -p $R/web $R/tmp $R/home/web1/tmp $R/var/run/mysqld
         chmod a+rwx $R/tmp; chmod g-w $R/bin; chown games $R/web $R/home/web1 $R/home/web1/tmp
         perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un($ARGV[0]))' \\
             $R/var/run/mysqld/mysqld.sock
         jk_update -j $R",
    );
    let _ = panel.import();
    let line = "  - { source: /var/run/mysqld, optional: true }\n";
    assert!(panel.manifest().contains(line), "{}", panel.manifest());
    panel.becomes_a_site(&format!("var/run/{SOCKET}"));
}

/// Copies, accounts of all system users, and the home mounted from the host.
fn virtualmin() {
    let panel = Panel::new(
        "1234",
        "for section in basicshell extendedshell netbasics logbasics; do
             jk_init -f -j $R $section
         done
         jk_cp -f -j $R /usr/bin/id
         mkdir -p home/public_html $R/home/1234 $R/tmp $R/usr/share $R/run/mysqld
         chmod 1777 $R/tmp
         cp -a /usr/share/zoneinfo $R/usr/share; chmod -R g-w $R
         awk -F: '$3 < 500' /etc/passwd >$R/etc/passwd
         awk -F: '$3 < 500 { print $1 \":!:::::::\" }' /etc/passwd >$R/etc/shadow
         awk -F: '$3 < 500' /etc/group >$R/etc/group
         perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un($ARGV[0]))' \\
             $R/run/mysqld/mysqld.sock
         mount --bind home $R/home/1234",
    );
    // Nothing of ours is made in the owner's home, which is a mount.
    let ran = panel.import();
    let _ = ran.says("PHP writes to /home/1234/tmp, which is not there: make it by hand");
    assert!(
        !panel.manifest().contains("directories:"),
        "{}",
        panel.manifest()
    );
    panel.becomes_a_site(&format!("run/{SOCKET}"));
    assert!(
        Path::new(MNT)
            .join("srv/1234/home/1234/public_html")
            .is_dir()
    );
}
