//! The inputs that the fuzzers kept are tried again, with the functions that the fuzzers use.

#[path = "../../fuzz/inputs.rs"]
mod inputs;

use std::fs;
use std::path::Path;

fn replay(name: &str, input: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut count = 0;
    for entry in
        fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
    {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        input(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 10, "{}: a corpus of {count}", directory.display());
}

#[test]
fn manifests() {
    replay("manifest", inputs::manifest);
}

#[test]
fn mountinfo() {
    replay("mountinfo", inputs::mountinfo);
}

#[test]
fn elf() {
    replay("elf", inputs::elf);
}

#[test]
fn records() {
    replay("record", inputs::record);
}

#[test]
fn ld_so_cache() {
    replay("ld_so_cache", inputs::ld_so_cache);
}
