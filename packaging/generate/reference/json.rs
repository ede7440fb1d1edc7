//! What commands print as JSON, from the definition of their outputs.

use std::fmt::Write;

use mountjail::cli::{Key, OUTPUTS, Output, PARTS, Shape};

/// How many keys of an object are named on its line.
const MOST: usize = 5;

/// Before the tables.
const HEAD: &str = include_str!("json.md");

/// The chapter of the book.
pub fn chapter() -> String {
    let mut text = HEAD.to_owned();
    for output in OUTPUTS {
        let _ = write!(text, "\n## {}\n", output.command);
        table(&mut text, &keys_of(output));
    }
    text.push_str("\n## Parts of several outputs\n");
    for (name, keys) in PARTS {
        let _ = write!(text, "\n### {name}\n");
        let keys: Vec<_> = keys.iter().map(|key| (key.name.to_owned(), key)).collect();
        table(&mut text, &keys);
    }
    text
}

/// The keys of the object, and of the objects in its lists, without the errors of all commands.
fn keys_of(output: &'static Output) -> Vec<(String, &'static Key)> {
    let mut all = vec![];
    for key in output.keys.iter().filter(|key| key.name != "errors") {
        all.push((key.name.to_owned(), key));
        let inner = objects(&key.shape);
        let inner = inner.iter().filter(|inner| inner.name != "errors");
        all.extend(inner.map(|inner| (format!("{}[].{}", key.name, inner.name), inner)));
    }
    all
}

/// The keys of the objects in a list.
fn objects(shape: &'static Shape) -> &'static [Key] {
    match shape {
        Shape::Or(shape) => objects(shape),
        Shape::List(Shape::Object(keys)) => keys,
        Shape::Either(shapes) => objects(&shapes[0]),
        _ => &[],
    }
}

fn table(text: &mut String, keys: &[(String, &Key)]) {
    text.push_str("\n| key | value | meaning |\n|---|---|---|\n");
    for (name, key) in keys {
        let often = if key.always { "" } else { ", or not there" };
        let (shape, about) = (words(&key.shape), key.about);
        let _ = writeln!(text, "| `{name}` | {shape}{often} | {about} |");
    }
}

fn words(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Number => "number".to_owned(),
        Shape::Flag => "true or false".to_owned(),
        Shape::Word(words) => format!("`{}`", words.join("`, `")),
        Shape::Or(shape) => format!("{}, or null", words(shape)),
        Shape::Either(shapes) => {
            let shapes: Vec<_> = shapes.iter().map(words).collect();
            shapes.join(", or ")
        }
        Shape::List(shape) => format!("list of {}", words(shape)),
        Shape::Map(shape) => format!("by name: {}", words(shape)),
        Shape::Object(keys) => of_object(keys),
    }
}

fn of_object(keys: &[Key]) -> String {
    if let Some((name, _)) = PARTS.iter().find(|(_, part)| is_same(part, keys)) {
        return format!("[{name}](#{name})");
    }
    if keys.len() > MOST {
        return "object".to_owned(); // its keys follow
    }
    let names: Vec<_> = keys.iter().map(|key| format!("`{}`", key.name)).collect();
    format!("object ({})", names.join(", "))
}

fn is_same(one: &[Key], other: &[Key]) -> bool {
    let names = |keys: &'_ [Key]| keys.iter().map(|key| key.name).collect::<Vec<_>>();
    names(one) == names(other)
}
