//! Promise: the rooms of `src` are as ARCHITECTURE.md says: no two of them use each other, and
//! neither do the files of a room, directly or by others; no type name is used twice.
//!
//! The sources are scanned, not parsed: comments and test modules are left out, and a name that a
//! file only imports counts as that of the file that defines it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

/// A module, by its path from the crate's root on: `["engine", "up"]`.
type Module = Vec<String>;

/// Modules, and those that each of them uses.
type Uses = BTreeMap<Module, BTreeSet<Module>>;

/// A file of `src`.
struct Source {
    text: String,
    /// The names that it defines.
    defined: BTreeSet<String>,
    /// The paths that it imports, by the names that they have in it.
    imported: BTreeMap<String, Vec<String>>,
}

/// All files of `src`, without their tests.
static SOURCES: LazyLock<BTreeMap<Module, Source>> = LazyLock::new(sources);

static COMMENT: LazyLock<Regex> = LazyLock::new(|| regex(r"//[^\n]*"));
static TESTS: LazyLock<Regex> = LazyLock::new(|| regex(r"(?s)#\[cfg\(test\)\]\s*mod [a-z_]+ \{.*"));
static VISIBLE_IN: LazyLock<Regex> = LazyLock::new(|| regex(r"pub\(in [^)]*\)"));
static IMPORT: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?-u:\b)(pub(?:\([^)]*\))? )?use ([^;]+);"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

fn sources() -> BTreeMap<Module, Source> {
    let mut texts = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read_all(&root, &mut vec![], &mut texts);
    let modules: BTreeSet<_> = texts.keys().cloned().collect();
    let name = regex(r"\b(?:fn|struct|enum|type|trait|const|static|union|macro_rules!) (\w+)");
    let mut sources = BTreeMap::new();
    for (module, text) in texts {
        let defined = name.captures_iter(&text).map(|found| found[1].to_owned());
        let mut imported = BTreeMap::new();
        for path in imports(&text) {
            if let (Some(name), Some(path)) = (path.last(), from_root(&module, &path, &modules)) {
                imported.insert(name.clone(), path);
            }
        }
        let source = Source {
            defined: defined.collect(),
            imported,
            text,
        };
        sources.insert(module, source);
    }
    sources
}

fn read_all(directory: &Path, module: &mut Module, texts: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            module.push(name);
            read_all(&path, module, texts);
            module.pop();
        } else if path.extension().is_some_and(|ending| ending == "rs") && name != "tests" {
            let mut own = module.clone();
            if !["mod", "lib"].contains(&name.as_str()) {
                own.push(name);
            }
            let text = fs::read_to_string(&path).unwrap();
            texts.insert(own, without_tests(&text));
        }
    }
}

/// The text without comments, its test module, and `in PATH` of visibilities.
fn without_tests(text: &str) -> String {
    let text = COMMENT.replace_all(text, "");
    let text = TESTS.replace(&text, "");
    VISIBLE_IN.replace_all(&text, "pub").into_owned()
}

/// The paths of all `use` declarations.
fn imports(text: &str) -> Vec<Vec<String>> {
    let mut paths = vec![];
    for found in IMPORT.captures_iter(text) {
        add_paths(&found[2], &[], &mut paths);
    }
    paths
}

/// Adds the paths of the tree `a::{b, c::{self, d}}`, which is below `above`.
fn add_paths(tree: &str, above: &[String], paths: &mut Vec<Vec<String>>) {
    let (path, group) = match tree.split_once('{') {
        Some((path, group)) => (path, Some(group.trim_end().trim_end_matches('}'))),
        None => (tree, None),
    };
    let path = path.split(" as ").next().unwrap();
    let mut full = above.to_vec();
    for part in path.split("::").map(str::trim) {
        if !["", "self"].contains(&part) || (part == "self" && full.is_empty()) {
            full.push(part.to_owned());
        }
    }
    match group {
        Some(group) => items(group)
            .iter()
            .for_each(|item| add_paths(item, &full, paths)),
        None => paths.push(full),
    }
}

/// The items of a group, which may have groups in them.
fn items(group: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if letter == ',' && depth == 0 {
            items.push(String::new());
        } else {
            items.last_mut().unwrap().push(letter);
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

/// The path from the crate's root on; `None`: it is another crate's, or a name of the module.
fn from_root(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Vec<String>> {
    let child = || [&module[..], &path[..1]].concat();
    let (mut base, rest) = match path.first()?.as_str() {
        "crate" => (vec![], &path[1..]),
        "self" => (module.clone(), &path[1..]),
        "super" => (module.clone(), path),
        _ if modules.contains(&child()) => (module.clone(), path),
        _ => return None,
    };
    for part in rest {
        if part == "super" {
            base.pop();
        } else {
            base.push(part.clone());
        }
    }
    Some(base)
}

/// The module that defines what is at `path`.
fn home(path: &[String], sources: &BTreeMap<Module, Source>) -> Module {
    let mut length = path.len();
    while !sources.contains_key(&path[..length]) {
        length -= 1;
    }
    let (module, rest) = path.split_at(length);
    let source = &sources[module];
    match rest.first().and_then(|name| source.imported.get(name)) {
        Some(other) if !source.defined.contains(&rest[0]) && !path.starts_with(other) => {
            home(&[other, &rest[1..]].concat(), sources)
        }
        _ => module.to_vec(),
    }
}

/// The modules that each one uses: what it names by a path, and what it imports and names. What it
/// only hands on is not used by it.
fn uses(sources: &BTreeMap<Module, Source>) -> Uses {
    let modules: BTreeSet<_> = sources.keys().cloned().collect();
    let inline = regex(r"(?-u:\b[a-z_0-9]+(?:::\w+)+)");
    let mut all = Uses::new();
    for (module, source) in sources {
        let body = IMPORT.replace_all(&source.text, "");
        let words = body.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let words: HashSet<_> = words.collect();
        let is_named = |path: &[String]| path.last().is_some_and(|name| words.contains(&**name));
        let mut paths: Vec<Vec<String>> = vec![];
        for found in IMPORT.captures_iter(&source.text) {
            let is_handed_on = found.get(1).is_some();
            let mut own = imports(&found[0]);
            own.retain(|path| !is_handed_on || is_named(path));
            paths.extend(own);
        }
        for found in inline.find_iter(&body) {
            paths.push(found.as_str().split("::").map(str::to_owned).collect());
        }
        let used = all.entry(module.clone()).or_default();
        for path in paths {
            if let Some(path) = from_root(module, &path, &modules) {
                used.insert(home(&path, sources));
            }
        }
        used.remove(module);
    }
    all
}

/// Checks that nothing uses itself by way of others.
fn assert_no_circle(mut uses: Uses) {
    loop {
        let known: BTreeSet<_> = uses.keys().cloned().collect();
        for others in uses.values_mut() {
            others.retain(|module| known.contains(module));
        }
        uses.retain(|_, others| !others.is_empty());
        if uses.len() == known.len() {
            break;
        }
    }
    let mut circle = String::new();
    for (module, others) in &uses {
        let others: Vec<_> = others.iter().map(|other| other.join("::")).collect();
        let _ = writeln!(circle, "{} uses {}", module.join("::"), others.join(", "));
    }
    assert!(uses.is_empty(), "in a circle, or above one:\n{circle}");
}

#[test]
fn files_of_a_room_use_each_other_in_one_direction() {
    let mut uses = uses(&SOURCES);
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 1000);
    for (module, used) in &mut uses {
        used.retain(|other| other.first() == module.first());
    }
    assert_no_circle(uses);
}

#[test]
fn rooms_use_each_other_in_one_direction() {
    let mut rooms = Uses::new();
    for (module, used) in uses(&SOURCES) {
        let room = module[..module.len().min(1)].to_vec();
        let others = used
            .into_iter()
            .map(|other| other[..other.len().min(1)].to_vec());
        let others = others.filter(|other| *other != room && !other.is_empty());
        rooms.entry(room.clone()).or_default().extend(others);
    }
    assert!(rooms[&vec!["cli".to_owned()]].contains(&vec!["site".to_owned()]));
    assert_no_circle(rooms);
}

#[test]
fn circles_are_found() {
    let of = |module: &str, used: &[&str]| {
        let name = |name: &str| vec![name.to_owned()];
        (name(module), used.iter().map(|used| name(used)).collect())
    };
    let line = Uses::from([of("a", &["b"]), of("b", &["c"]), of("c", &[])]);
    assert_no_circle(line);
    let circle = Uses::from([of("a", &["b"]), of("b", &["c"]), of("c", &["a"])]);
    let found = std::panic::catch_unwind(|| assert_no_circle(circle));
    assert!(found.is_err());
}

#[test]
fn no_type_name_is_used_twice() {
    // Associated types are indented.
    let definition =
        regex(r"(?m)^(?:pub(?:\([^)]*\))? )?(?:unsafe )?(?:struct|enum|union|type|trait) (\w+)");
    let mut homes: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    for (module, source) in &*SOURCES {
        for found in definition.captures_iter(&source.text) {
            let homes = homes.entry(found[1].to_owned()).or_default();
            homes.push(module.clone());
        }
    }
    assert!(homes.len() > 300, "{}", homes.len());
    homes.retain(|_, modules| modules.len() > 1);
    assert!(homes.is_empty(), "{homes:?}");
}
