//! What commands print as JSON, against the schemas that are published.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use jsonschema::Validator;
use mountjail::cli::OUTPUTS;
use serde_json::Value;

/// How `json`, which mountjail printed with these arguments, differs from its schema. It must not
/// have keys that the schema does not name, either.
pub fn mistakes(arguments: &[String], json: &Value) -> Vec<String> {
    if !arguments.iter().any(|argument| argument == "--json") {
        return vec![];
    }
    let mut known = arguments.iter();
    let Some(validator) = known.find_map(|argument| validators().get(argument.as_str())) else {
        return vec![];
    };
    let errors = validator.iter_errors(json);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn validators() -> &'static BTreeMap<&'static str, Validator> {
    static VALIDATORS: OnceLock<BTreeMap<&'static str, Validator>> = OnceLock::new();
    VALIDATORS.get_or_init(|| {
        let validator = |schema: &Value| {
            let complaint = jsonschema::draft7::meta::validate(schema);
            complaint.unwrap_or_else(|error| panic!("not a schema: {error}"));
            jsonschema::draft7::new(schema).unwrap()
        };
        OUTPUTS
            .iter()
            .map(|output| {
                let mut schema = output.schema();
                close(&mut schema);
                (output.command, validator(&schema))
            })
            .collect()
    })
}

/// Has the objects of the schema have no other keys than those that it names.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            keys.values_mut().for_each(close);
            if keys.contains_key("properties") && keys.contains_key("type") {
                keys.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
