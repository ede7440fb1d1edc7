//! The needs of PHP in a pool besides PHP-FPM itself: sockets of databases, files of extensions, a
//! program that sends mail, directories to write to.

use std::fs;
use std::path::Path;

use super::paths::{Included, included_by, mode_of_written, written_by};
use super::pool::Pool;
use crate::base::HostPath;
use crate::import::command_line::{CommandLine, chain};
use crate::import::draft::{Draft, DraftDirectory, DraftItem, DraftMount};
use crate::import::php::PhpSettings;
use crate::resolve::Host;

/// Presets by the extensions that they are for, and directories of the host of which they bring
/// what is there.
const OF_EXTENSIONS: [(&[&str], &str, &[&str]); 5] = [
    (
        &["mysqli", "pdo_mysql"],
        "mysql",
        &["/run/mysqld", "/run/mariadb", "/run/mysql"],
    ),
    (&["pgsql", "pdo_pgsql"], "postgresql", &["/run/postgresql"]),
    (
        &["redis"],
        "redis",
        &["/run/redis", "/run/valkey", "/run/redis-server"],
    ),
    (&["memcached", "memcache"], "memcached", &["/run/memcached"]),
    (
        &["imagick"],
        "php-imagick",
        &["/etc/ImageMagick-6", "/etc/ImageMagick-7"],
    ),
];

/// The programs that the preset `mail` brings.
const MAILERS: [&str; 3] = ["/usr/sbin/sendmail", "/usr/lib/sendmail", "/usr/bin/msmtp"];

/// The configuration of the LDAP library.
const LDAP_CONF: [&str; 2] = ["ldap/ldap.conf", "openldap/ldap.conf"];

/// Adds to the draft of the site with this root what the pool's PHP needs.
pub(super) fn add(draft: &mut Draft, root: &HostPath, pool: &Pool) {
    let settings = PhpSettings::new(pool);
    add_extensions(draft, root, &settings);
    if !settings.disables("mail") {
        add_mail(draft, root, &settings);
    }
    if settings.get("error_log") == Some("syslog") {
        add_preset(draft, "syslog");
    }
    for written in written_by(pool, &settings) {
        if written.directory() != Path::new("/") {
            add_directory(draft, root, written.directory());
        }
    }
    for code in included_by(&settings) {
        add_code(draft, root, &code);
    }
}

fn add_extensions(draft: &mut Draft, root: &HostPath, settings: &PhpSettings) {
    for (extensions, preset, directories) in OF_EXTENSIONS {
        let loaded = extensions.iter().find(|name| settings.loads(name));
        let there = directories.iter().find(|path| Path::new(path).is_dir());
        if let Some(extension) = loaded
            && let Some(directory) = there
            && add_preset(draft, preset)
        {
            let found = format!("PHP loads {extension}, which needs the preset {preset}.");
            draft.found.push(found);
            draft.mounts.extend(below_var_run(root, directory));
        }
    }
    if settings.loads("ldap")
        && let Some(name) = LDAP_CONF.iter().find(|name| is_in_etc(name))
    {
        add_item(&mut draft.etc, name);
    }
}

/// The mount of a daemon's `/run/NAME` on `/var/run/NAME`, where PHP looks for it, if the root has
/// a directory `/var/run` of its own, as jailkit makes it. Elsewhere that is a link to `/run`.
fn below_var_run(root: &HostPath, directory: &str) -> Option<DraftMount> {
    let name = directory.strip_prefix("/run/")?;
    let own = root.as_path().join("var/run").symlink_metadata().ok()?;
    let is_link_on_host = Path::new("/var/run").is_symlink();
    (own.is_dir() && is_link_on_host).then(|| DraftMount {
        source: format!("/var/run/{name}"),
        optional: true, // made when the service starts, as in the preset
        ..DraftMount::default()
    })
}

/// Adds the programs that PHP's `mail()` starts, which the host has. PHP starts the command of
/// `sendmail_path` by a shell, and `env`, `nice` or a script may stand before the mailer.
fn add_mail(draft: &mut Draft, root: &HostPath, settings: &PhpSettings) {
    let set = settings.get("sendmail_path");
    let command = set.unwrap_or(MAILERS[0]);
    let shell = ["/bin/sh", "-c", command].map(str::to_owned);
    for command in chain(CommandLine::new(shell.into())).iter().skip(1) {
        let Some(program) = command.program() else {
            if set.is_some() {
                draft.remarks.extend(missing_mailer(root, &command.words));
            }
            continue;
        };
        add_mailer(draft, &program.to_string_lossy());
        // Such as the configuration that `-C` names.
        for word in &command.words {
            if let Some((_, name)) = word.split_once("/etc/")
                && is_in_etc(name)
            {
                add_item(&mut draft.etc, name);
            }
        }
    }
}

/// The remark about a program that `mail()` starts, and that neither the host nor the root has.
fn missing_mailer(root: &HostPath, command: &[String]) -> Option<String> {
    let program = command.first()?;
    let inside = root.as_path().join(program.strip_prefix('/')?);
    inside.symlink_metadata().is_err().then(|| {
        format!(
            "PHP's mail() starts {program}, which neither the root nor this host has: it sends \
             nothing."
        )
    })
}

/// Adds one of the programs that `mail()` starts.
fn add_mailer(draft: &mut Draft, program: &str) {
    let real = fs::canonicalize(program).ok();
    if MAILERS
        .iter()
        .any(|mailer| fs::canonicalize(mailer).ok() == real)
    {
        if add_preset(draft, "mail") {
            let found = format!("PHP's mail() starts {program}, which needs the preset mail.");
            draft.found.push(found);
        }
        return;
    }
    add_item(&mut draft.programs, "/bin/sh"); // PHP starts the program by it
    if !program.ends_with("/bin/sh") {
        add_item(&mut draft.programs, program);
    }
}

fn is_in_etc(name: &str) -> bool {
    Path::new("/etc").join(name).is_file()
}

/// Adds the mount of code that a setting names, which the host has and the root lacks.
fn add_code(draft: &mut Draft, root: &HostPath, code: &Included) {
    let Included { path, setting, .. } = code;
    let inside = root.as_path().join(path.trim_start_matches('/'));
    if inside.symlink_metadata().is_ok() {
        return;
    }
    if !Path::new(path).exists() {
        if code.is_needed {
            draft.remarks.push(format!(
                "PHP's {setting} names {path}, which neither the root nor this host has: PHP \
                 answers no request without it."
            ));
        }
        return;
    }
    let mount = DraftMount::of_path(path);
    if !draft.mounts.contains(&mount) {
        draft.found.push(format!("PHP's {setting} names {path}."));
        draft.mounts.push(mount);
    }
}

/// Adds a directory that is not in the root yet.
fn add_directory(draft: &mut Draft, root: &HostPath, path: &Path) {
    let known = |directory: &DraftDirectory| Path::new(&directory.path) == path;
    let mode = mode_of_written(path);
    let Some(path) = path.to_str().filter(|path| path.starts_with('/')) else {
        return;
    };
    let inside = root.as_path().join(path.trim_start_matches('/'));
    if inside.symlink_metadata().is_ok() || draft.directories.iter().any(known) {
        return;
    }
    if !is_on_mount_of(root, &inside) {
        draft.remarks.push(format!(
            "PHP writes to {path}, which is not there: make it by hand, because another mount is \
             above it."
        ));
        return;
    }
    draft.directories.push(DraftDirectory {
        path: path.to_owned(),
        mode: mode.to_owned(),
    });
}

/// Whether the directory above `inside`, or the next one above that is there, is on the mount of
/// `root`. A mount of others, such as that of a home, is not for us to write to.
fn is_on_mount_of(root: &HostPath, inside: &Path) -> bool {
    let host = Host::new();
    let stat = |path: &Path| {
        let path = HostPath::new(path).ok()?;
        Some(host.walk(&path).ok()?.stat)
    };
    let above = inside.ancestors().find_map(stat);
    match (above, stat(root.as_path())) {
        (Some(above), Some(root)) => above.is_on_mount_of(&root),
        _ => true, // there is no root yet
    }
}

/// Whether it is new.
fn add_preset(draft: &mut Draft, preset: &str) -> bool {
    let is_new = draft.presets.iter().all(|known| known != preset);
    if is_new {
        draft.presets.push(preset.to_owned());
    }
    is_new
}

fn add_item(items: &mut Vec<DraftItem>, name: &str) {
    let item = DraftItem::new(name);
    if !items.contains(&item) {
        items.push(item);
    }
}
