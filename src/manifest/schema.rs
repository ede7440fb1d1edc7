//! The grammar as a JSON schema (draft 7, which editors know), with a sentence for each key.
//!
//! It accepts every file that [`parse`](super::parse) accepts. It refuses what a schema can tell:
//! wrong keys, types and forms of words, but not, for example, a preset that does not exist.

use serde_json::{Value, json};

use super::grammar_keys::{
    DEFAULTS_KEYS, DIRECTORY_KEYS, MOUNT_KEYS, NAME_KEYS, PATH_KEYS, PRESET_KEYS, SITE_KEYS,
    TEMPLATE_KEYS, TMPFS_KEYS,
};

/// The schema of a site's manifest.
pub fn site_schema() -> Value {
    let title = "mountjail: the manifest of a site";
    document(title, &SITE_KEYS, &["root"], Words::Plain)
}

/// The schema of a template of sites.
pub fn template_schema() -> Value {
    let title = "mountjail: a template of sites";
    let required = ["root", "instances"];
    document(title, &TEMPLATE_KEYS, &required, Words::WithSpecifiers)
}

/// The schema of the defaults of all sites.
pub fn defaults_schema() -> Value {
    let title = "mountjail: the defaults of all sites";
    let mut schema = document(title, &DEFAULTS_KEYS, &[], Words::Plain);
    schema["type"] = json!(["object", "null"]); // a file of comments alone
    schema
}

/// The schema of a preset.
pub fn preset_schema() -> Value {
    let title = "mountjail: a preset";
    document(title, &PRESET_KEYS, &["description"], Words::Plain)
}

/// How names are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Plain,
    /// With `%i` and `%%`.
    WithSpecifiers,
}

impl Words {
    /// A text whose characters match `first` and then `rest`, the insides of two brackets.
    fn text(self, first: &str, rest: &str) -> Value {
        let percent = match self {
            Self::Plain => "",
            Self::WithSpecifiers => "%",
        };
        text(&format!("^[{percent}{first}][{percent}{rest}"))
    }
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn document(title: &str, keys: &[&str], required: &[&str], words: Words) -> Value {
    let properties: serde_json::Map<_, _> = keys
        .iter()
        .map(|key| ((*key).to_owned(), section(key, words)))
        .collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

/// The schema of a key's value in a file.
fn section(key: &str, words: Words) -> Value {
    with(form(key, words), description(key), examples(key))
}

fn form(key: &str, words: Words) -> Value {
    match key {
        "root" if words == Words::WithSpecifiers => {
            let mut path = path();
            path["allOf"] = json!([{ "pattern": "%i" }]);
            path
        }
        "root" => path(),
        "instances" => {
            let pattern = text(r"^/[^*?\[]*\*[^*?\[]*$");
            let name = text(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,199}$");
            json!({ "anyOf": [pattern, list(&json!({ "anyOf": [name, pattern] }))] })
        }
        "scope" => json!({ "enum": ["host", "services"], "default": "host" }),
        "description" => text(r"^[^\n\r]*\S[^\n\r]*$"),
        "presets" => list(&json!({ "type": "string", "minLength": 1 })),
        "devices" => {
            let name = json!({ "type": ["string", "null"], "minLength": 1, "pattern": "^[^/]" });
            items(&NAME_KEYS, &name)
        }
        "etc" => items(&NAME_KEYS, &text("^[^/*?][^*?]*$")),
        "programs" | "libraries" => {
            let name = text(r"^[^/*?\s~][^/*?\s]*$");
            items(&PATH_KEYS, &json!({ "anyOf": [path(), name] }))
        }
        "users" => items(&NAME_KEYS, &login(words)),
        "nss" => list(&json!({ "enum": super::words::DATABASES })),
        "mounts" => list(&json!({ "anyOf": [path(), mount()] })),
        "directories" => own(&DIRECTORY_KEYS, |key| directory_key(key, words)),
        "tmpfs" => own(&TMPFS_KEYS, tmpfs_key),
        "proc" => json!({ "type": "boolean", "default": false }),
        "services" => {
            let usable = r"A-Za-z0-9:._\\@-";
            let mut unit = words.text(usable, &format!(r"{usable}]*\.[a-z]+$"));
            unit["maxLength"] = 255.into();
            list(&unit)
        }
        other => unreachable!("{other} is not a key of the grammar"),
    }
}

fn description(key: &str) -> &'static str {
    match key {
        "root" => {
            "The jail's directory on the host: an absolute path of a directory that exists, is not \
             a link and does not hold the system."
        }
        "instances" => {
            "The names of the sites: a list, or a path with one `*`, of which each directory that \
             matches is a site. `%i` in a value stands for the name, `%%` for a percent sign."
        }
        "scope" => {
            "Where the mounts are. host: in the host's own mount namespace. services: only in \
             those of the site's services, which must be named under `services`."
        }
        "description" => "What the preset is for, on one line.",
        "presets" => {
            "Named parts, built in or of /etc/mountjail/presets; `mountjail presets` lists them."
        }
        "devices" => {
            "Names under /dev. Mounted ro,nosuid,noexec; writing to /dev/null still works."
        }
        "etc" => "Names under /etc, files or directories; links are followed.",
        "programs" => {
            "Executables: paths, patterns, or names that are looked up in the default PATH. Each \
             comes with its ELF or #! interpreter and the shared libraries that ld.so would load."
        }
        "libraries" => {
            "Objects that are opened at run time, with the libraries that they need: paths, \
             patterns, or names that are looked up as ld.so does."
        }
        "users" => {
            "Login names of a generated passwd and group: these, their groups and root, without \
             password hashes."
        }
        "nss" => "Databases of nsswitch.conf(5), whose modules come along.",
        "mounts" => {
            "Files and directories. A path alone is mounted read-only at the same path inside. \
             Patterns are allowed."
        }
        "directories" => {
            "Directories of the site's own, made where they are missing. One that exists is left \
             as it is."
        }
        "tmpfs" => {
            "Paths at which the site has a tmpfs(5) of its own, mounted rw,nosuid,nodev,noexec."
        }
        "proc" => {
            "Whether the site has a proc(5) of its own on /proc, read-only and with \
             hidepid=invisible. Default: false."
        }
        "services" => {
            "systemd units that run inside: ordered after the mounts, reloaded by \
             `mountjail up --restart`."
        }
        other => unreachable!("{other} is not a key of the grammar"),
    }
}

fn examples(key: &str) -> Value {
    match key {
        "root" => json!(["/srv/www/site1"]),
        "instances" => json!(["/srv/customers/*", ["alice", "bob"]]),
        "scope" => json!(["services"]),
        "description" => json!(["the directory of MySQL's socket"]),
        "presets" => json!([["php-fpm", "mysql"]]),
        "devices" => json!([["null", "urandom"]]),
        "etc" => json!([["hosts", "resolv.conf", "ssl/certs"]]),
        "programs" => json!([["/usr/sbin/sendmail"]]),
        "libraries" => json!([["/usr/lib/php/*/*.so"]]),
        "users" => json!([["www-data"]]),
        "nss" => json!([["hosts"]]),
        "mounts" => json!([["/usr/share/fonts"]]),
        "directories" => json!([[{ "path": "/tmp", "mode": "1777" }]]),
        "tmpfs" => json!([[{ "target": "/tmp", "size": "64M" }]]),
        "proc" => json!([true]),
        "services" => json!([["php8.2-fpm.service"]]),
        other => unreachable!("{other} is not a key of the grammar"),
    }
}

fn mount() -> Value {
    let properties = MOUNT_KEYS
        .iter()
        .map(|key| ((*key).to_owned(), mount_key(key)))
        .collect();
    one_of("source", &properties)
}

/// The schema of a key's value in a mount.
fn mount_key(key: &str) -> Value {
    let flag = |text: &str| json!({ "type": "boolean", "description": text });
    match key {
        "source" => with(
            path(),
            "What is mounted: a path of the host.",
            json!(["/run/mysqld"]),
        ),
        "any_of" => any_of(&path()),
        "target" => with(
            path(),
            "The mount point inside; by default the path of the source.",
            json!(["/uploads"]),
        ),
        "access" => json!({
            "enum": ["read-only", "read-write"], "default": "read-only",
            "description": "Whether the jail may write through it.",
        }),
        "recursive" => flag("Whether submounts come along, all of them read-only. Default: false."),
        "optional" => optional(),
        "executable" => flag(
            "Whether files in it can be executed. Default: in programs and libraries only, and not \
             where the host's own mount is noexec; `true` allows it there, too.",
        ),
        "devices" => flag(
            "Whether device nodes in it work. Default: for devices only, and not where the host's \
             own mount is nodev; `true` allows it there, too.",
        ),
        "setuid" => flag(
            "Whether setuid bits in it take effect, also where the host's own mount is nosuid. \
             Default: false.",
        ),
        "literal" => {
            flag("Whether `*`, `?` and `[` in the source stand for themselves. Default: false.")
        }
        other => unreachable!("{other} is not a key of a mount"),
    }
}

fn login(words: Words) -> Value {
    let mut name = words.text("A-Za-z0-9_", r"A-Za-z0-9._@-]*\$?$");
    name["maxLength"] = 32.into();
    name
}

/// A list whose items are paths, or mappings with `keys`, of which the first is the path.
fn own(keys: &[&str], form: impl Fn(&str) -> Value) -> Value {
    let properties: serde_json::Map<_, _> = keys
        .iter()
        .map(|key| ((*key).to_owned(), form(key)))
        .collect();
    let item = json!({
        "type": "object", "additionalProperties": false, "properties": properties,
        "required": [keys[0]],
    });
    list(&json!({ "anyOf": [path(), item] }))
}

/// The schema of a key's value in a directory.
fn directory_key(key: &str, words: Words) -> Value {
    match key {
        "path" => with(path(), "The path inside.", json!(["/var/lib/app"])),
        "user" => with(
            login(words),
            "Its owner. Default: root.",
            json!(["www-data"]),
        ),
        "group" => with(
            login(words),
            "Its group. Default: the owner's.",
            json!(["www-data"]),
        ),
        "mode" => mode("0755"),
        other => unreachable!("{other} is not a key of a directory"),
    }
}

/// The schema of a key's value in a tmpfs.
fn tmpfs_key(key: &str) -> Value {
    match key {
        "target" => with(path(), "The mount point inside.", json!(["/tmp"])),
        "size" => {
            let size = json!({ "type": ["string", "integer"], "pattern": "^[0-9]+[kKmMgG]?$" });
            let text = "Its size in bytes, or with k, M or G. Default: half of the memory.";
            with(size, text, json!(["64M"]))
        }
        "mode" => mode("1777"),
        other => unreachable!("{other} is not a key of a tmpfs"),
    }
}

fn mode(default: &str) -> Value {
    let mut mode = text("^[0-7]{3,4}$");
    mode["default"] = default.into();
    with(mode, "Its mode, in quotes.", json!([default]))
}

/// A list whose items are `word`, or mappings with `keys`: the word under the first, `any_of` and
/// `optional`.
fn items(keys: &[&str; 3], word: &Value) -> Value {
    let properties = [
        (keys[0].to_owned(), word.clone()),
        ("any_of".to_owned(), any_of(word)),
        ("optional".to_owned(), optional()),
    ];
    list(&json!({ "anyOf": [word, one_of(keys[0], &properties.into_iter().collect())] }))
}

/// A mapping that has either `name` or `any_of`.
fn one_of(name: &str, properties: &serde_json::Map<String, Value>) -> Value {
    json!({
        "type": "object", "additionalProperties": false, "properties": properties,
        "oneOf": [{ "required": [name] }, { "required": ["any_of"] }],
    })
}

fn any_of(word: &Value) -> Value {
    json!({
        "type": "array", "items": word, "minItems": 1,
        "description":
            "Alternatives for different distributions: the first that exists is taken; \
             none is an error.",
    })
}

fn optional() -> Value {
    json!({
        "type": "boolean", "default": false,
        "description": "Whether it may be absent on this host: it is then skipped with a note.",
    })
}

fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// An absolute path without `..`.
fn path() -> Value {
    json!({ "type": "string", "pattern": r"^/(?!(.*/)?\.\.(/|$))" })
}

fn with(mut value: Value, description: &str, examples: Value) -> Value {
    value["description"] = description.into();
    value["examples"] = examples;
    value
}
