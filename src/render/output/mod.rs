//! The shapes of what commands print as JSON: for the JSON schemas, and for the book.

mod commands;
mod parts;
mod shape;

pub use commands::OUTPUTS;
pub use shape::{Key, Output, Shape};

/// The objects that are in several outputs, by their names.
pub const PARTS: &[(&str, &[Key])] = &[
    ("error", parts::ERROR),
    ("mount", parts::MOUNT),
    ("step", parts::STEP),
    ("place", parts::UP_PLACE),
    ("miss", parts::MISS),
    ("mount-state", parts::MOUNT_STATE),
    ("outdated", parts::OUTDATED),
    ("status-place", parts::STATUS_PLACE),
    ("watch", parts::WATCH),
    ("draft", commands::DRAFT),
];

/// The output of `command`.
pub fn output(command: &str) -> Option<&'static Output> {
    OUTPUTS.iter().find(|output| output.command == command)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::ErrorCode;

    #[test]
    fn the_codes_of_errors_are_known() {
        let Shape::Word(words) = &parts::ERROR[0].shape else {
            panic!("{:?}", parts::ERROR[0]);
        };
        let codes = ErrorCode::ALL.map(|code| json!(code));
        assert_eq!(json!(words), json!(codes));
    }
}
