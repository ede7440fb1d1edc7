//! The grammar as a JSON schema (draft 7, which editors know), with a sentence for each key.
//!
//! It accepts every file that [`parse`](super::parse) accepts; of what `parse` refuses it refuses
//! what a schema can tell: wrong keys, types and forms of words, but not, say, a preset that does
//! not exist.

use serde_json::{Value, json};

use super::grammar::{MOUNT_KEYS, NAME_KEYS, PATH_KEYS, PRESET_KEYS, SITE_KEYS};

/// The schema of a site's manifest.
pub fn site_schema() -> Value {
    document("mountjail: the manifest of a site", &SITE_KEYS, "root")
}

/// The schema of a preset.
pub fn preset_schema() -> Value {
    document("mountjail: a preset", &PRESET_KEYS, "description")
}

fn document(title: &str, keys: &[&str], required: &str) -> Value {
    let properties: serde_json::Map<_, _> = keys
        .iter()
        .map(|key| ((*key).to_owned(), section(key)))
        .collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "additionalProperties": false,
        "required": [required],
        "properties": properties,
    })
}

/// What a key of a file takes.
fn section(key: &str) -> Value {
    match key {
        "root" => with(
            path(),
            "The jail's directory on the host: an absolute path of a directory that exists, is no link and does not \
             hold the system.",
            json!(["/srv/www/site1"]),
        ),
        "description" => with(
            json!({ "type": "string", "pattern": r"^[^\n\r]*\S[^\n\r]*$" }),
            "What the preset is for, on one line.",
            json!(["the directory of MySQL's socket"]),
        ),
        "presets" => with(
            list(&json!({ "type": "string", "minLength": 1 })),
            "Named parts, built in or of /etc/mountjail/presets; `mountjail presets` lists them.",
            json!([["php-fpm", "mysql"]]),
        ),
        "devices" => with(
            items(
                &NAME_KEYS,
                &json!({ "type": ["string", "null"], "minLength": 1, "pattern": "^[^/]" }),
            ),
            "Names under /dev. Mounted ro,nosuid,noexec; writing to /dev/null works all the same.",
            json!([["null", "urandom"]]),
        ),
        "etc" => with(
            items(
                &NAME_KEYS,
                &json!({ "type": "string", "pattern": "^[^/*?][^*?]*$" }),
            ),
            "Names under /etc, files or directories; links are followed.",
            json!([["hosts", "resolv.conf", "ssl/certs"]]),
        ),
        "programs" => with(
            items(&PATH_KEYS, &path()),
            "Executables. Each comes with its ELF or #! interpreter and the shared libraries that ld.so would load. \
             Patterns are allowed.",
            json!([["/usr/sbin/sendmail"]]),
        ),
        "libraries" => with(
            items(&PATH_KEYS, &path()),
            "Objects that are opened at run time, with the libraries that they need. Patterns are allowed.",
            json!([["/usr/lib/php/*/*.so"]]),
        ),
        "users" => with(
            items(
                &NAME_KEYS,
                &json!({ "type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9._@-]*\$?$", "maxLength": 32 }),
            ),
            "Login names of a generated passwd and group: these, their groups and root, without password hashes.",
            json!([["www-data"]]),
        ),
        "nss" => with(
            list(&json!({ "enum": super::words::DATABASES })),
            "Databases of nsswitch.conf(5), whose modules come along.",
            json!([["hosts"]]),
        ),
        "mounts" => with(
            list(&json!({ "anyOf": [path(), mount()] })),
            "Files and directories. A path alone is mounted read-only at the same path inside. Patterns are allowed.",
            json!([["/usr/share/fonts"]]),
        ),
        "services" => with(
            list(
                &json!({ "type": "string", "pattern": r"^[A-Za-z0-9:._\\@-]+\.[a-z]+$", "maxLength": 255 }),
            ),
            "systemd units that run inside: ordered after the mounts, reloaded by `mountjail up --restart`.",
            json!([["php8.2-fpm.service"]]),
        ),
        other => unreachable!("{other} is not a key of the grammar"),
    }
}

fn mount() -> Value {
    let properties: serde_json::Map<_, _> = MOUNT_KEYS
        .iter()
        .map(|key| {
            let flag = |text: &str| json!({ "type": "boolean", "description": text });
            let value = match *key {
                "source" => with(path(), "What is mounted: a path of the host.", json!(["/run/mysqld"])),
                "any_of" => any_of(&path()),
                "target" => {
                    with(path(), "Where inside; by default the path of the source.", json!(["/uploads"]))
                }
                "access" => json!({
                    "enum": ["read-only", "read-write"], "default": "read-only",
                    "description": "May the jail write through it.",
                }),
                "recursive" => flag("Take submounts along, all of them read-only. Default: false."),
                "optional" => optional(),
                "executable" => flag(
                    "May files in it be executed. Default: in programs and libraries only, and not where the host's \
                     own mount is noexec; `true` allows it there as well.",
                ),
                "devices" => flag(
                    "Do device nodes in it work. Default: for devices only, and not where the host's own mount is \
                     nodev; `true` allows it there as well.",
                ),
                "setuid" => flag("Do setuid bits in it count, also where the host's own mount is nosuid. Default: false."),
                other => unreachable!("{other} is not a key of a mount"),
            };
            ((*key).to_owned(), value)
        })
        .collect();
    one_of("source", &properties)
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
        "description": "Alternatives for different distributions: the first that exists is taken; none is an error.",
    })
}

fn optional() -> Value {
    json!({
        "type": "boolean", "default": false,
        "description": "Absent on this host: skipped, and said so, in place of an error.",
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
