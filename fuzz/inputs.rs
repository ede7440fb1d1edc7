// What each target does with an input; the ordinary tests replay the corpus through the same functions.

use mountjail::manifest::{Presets, SiteName, SourceFile, parse, root_of};
use mountjail::observe::parse_mountinfo;
use mountjail::resolve::ldso::{cache, elf, script};

/// A manifest: read or refused, and a refusal can be shown.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut presets = Presets::default();
    presets.add("self", SourceFile::File("self.yaml".into()), text.to_owned());
    let site = SiteName::new("s").unwrap();
    match parse(site, SourceFile::File("s.yaml".into()), text, &presets) {
        Ok(manifest) => assert_eq!(root_of(text), Some(manifest.root)),
        Err(wrong) => assert!(!wrong.render(false).is_empty() && wrong.count() > 0),
    }
}

/// A mount table: one entry for each line that is not empty, or the number of a line.
pub fn mountinfo(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n');
    match parse_mountinfo(bytes) {
        Ok(mounts) => assert_eq!(mounts.len(), lines.filter(|line| !line.is_empty()).count()),
        Err(line) => assert!((1..=lines.count()).contains(&line)),
    }
}

/// An ELF file, which may as well be a script.
pub fn elf(bytes: &[u8]) {
    let _ = elf::parse(bytes); // read or refused
    let _ = script::parse(bytes).map(|script| script.program_of_env().map(<[u8]>::len));
}

/// A loader's cache: what it lists can be asked for.
pub fn ld_so_cache(bytes: &[u8]) {
    if let Ok(cache) = cache::parse(bytes) {
        assert!(cache.len() <= bytes.len());
        let _ = cache.find(b"libc.so.6", 0x303, &["x86-64-v2"]);
    }
}
