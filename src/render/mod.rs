//! Desired or Plan → text and JSON: pure.
