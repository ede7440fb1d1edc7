//! How the shape of an output is written down, and its JSON schema.

use serde_json::{Map, Value, json};

use crate::render::json::VERSION;

/// The output of a command as JSON.
#[derive(Debug)]
pub struct Output {
    /// The command's name.
    pub command: &'static str,
    /// The keys of the object, besides `version`.
    pub keys: &'static [Key],
}

/// A key of an object.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub shape: Shape,
    /// Whether it is always there.
    pub always: bool,
    /// Its meaning.
    pub about: &'static str,
}

/// A value.
#[derive(Debug)]
pub enum Shape {
    /// Text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// One of these values.
    Either(&'static [Shape]),
    /// The value, or null.
    Or(&'static Shape),
    /// A list.
    List(&'static Shape),
    /// An object with these keys.
    Object(&'static [Key]),
    /// An object whose keys are names.
    Map(&'static Shape),
}

/// A key that is always there.
pub(super) const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        name,
        shape,
        always: true,
        about,
    }
}

/// A key that is only there if there is something to say.
pub(super) const fn maybe(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        always: false,
        ..key(name, shape, about)
    }
}

impl Output {
    /// The JSON schema (draft 7) of what the command prints.
    pub fn schema(&self) -> Value {
        let mut schema = object(self.keys);
        schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        schema["title"] = json!(format!("What `mountjail {} --json` prints", self.command));
        let version = json!({
            "description": "Grows when a key is removed or changes its meaning",
            "const": VERSION,
        });
        schema["properties"]["version"] = version;
        if let Some(required) = schema["required"].as_array_mut() {
            required.push(json!("version"));
        }
        // A command that cannot begin prints its errors alone.
        let begun = schema["required"].take();
        schema["required"] = json!(["version"]);
        schema["anyOf"] = json!([{ "required": begun }, { "required": ["errors"] }]);
        schema
    }
}

fn object(keys: &[Key]) -> Value {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|key| {
            let mut shape = schema(&key.shape);
            shape["description"] = json!(key.about);
            (key.name.to_owned(), shape)
        })
        .collect();
    let always = keys.iter().filter(|key| key.always);
    let required: Vec<_> = always.map(|key| key.name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn schema(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::Number => json!({ "type": "integer" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Or(shape) => json!({ "anyOf": [schema(shape), { "type": "null" }] }),
        Shape::Either(shapes) => {
            json!({ "anyOf": shapes.iter().map(schema).collect::<Vec<_>>() })
        }
        Shape::List(shape) => json!({ "type": "array", "items": schema(shape) }),
        Shape::Object(keys) => object(keys),
        Shape::Map(shape) => json!({ "type": "object", "additionalProperties": schema(shape) }),
    }
}
