// What each target does with an input; the ordinary tests replay the corpus through the same
// functions.

use std::path::Path;

use mountjail::base::SiteName;
use mountjail::manifest::{Presets, SourceFile, parse, root_of};
use mountjail::observe::{
    BootRecord, PersistentRecord, Unreadable, VERSION, WatchState, parse_mountinfo,
};
use mountjail::resolve::ldso::{cache, elf, script};

/// A manifest: read or refused, and a refusal can be shown.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut presets = Presets::default();
    presets.add(
        "self",
        SourceFile::File("self.yaml".into()),
        text.to_owned(),
    );
    let site = SiteName::new("s").unwrap();
    let instance = SiteName::new("s@i").unwrap();
    for (site, file) in [(site, "s.yaml"), (instance, "s@.yaml")] {
        match parse(site.clone(), SourceFile::File(file.into()), text, &presets) {
            Ok(manifest) => assert_eq!(root_of(&site, Path::new(file), text), Some(manifest.root)),
            Err(wrong) => assert!(!wrong.render(false).is_empty() && wrong.count() > 0),
        }
    }
    presets.set_defaults(SourceFile::File("defaults.yaml".into()), text.to_owned());
    let site = SiteName::new("s").unwrap();
    let with_defaults = parse(
        site,
        SourceFile::File("s.yaml".into()),
        "root: /s",
        &presets,
    );
    if with_defaults.is_ok() {
        assert_eq!(presets.mistakes_in_defaults(), None);
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

/// An ELF file, which may also be a script.
pub fn elf(bytes: &[u8]) {
    let _ = elf::parse(bytes); // read or refused
    let _ = script::parse(bytes).map(|script| script.program_of_env().map(<[u8]>::len));
}

/// A loader's cache: libraries in it can be looked up.
pub fn ld_so_cache(bytes: &[u8]) {
    if let Ok(cache) = cache::parse(bytes) {
        assert!(cache.len() <= bytes.len());
        let _ = cache.find(b"libc.so.6", 0x303, &["x86-64-v2"]);
    }
}

/// A record, of either kind or the watcher's: a record that was read is the same after it is
/// written and read again, and no field is lost; a newer record is reported with its version.
pub fn record(bytes: &[u8]) {
    let named = |unreadable: &Unreadable| match unreadable {
        Unreadable::Newer(version) => *version > VERSION,
        Unreadable::Damaged(why) => !why.is_empty(),
    };
    match BootRecord::parse(bytes) {
        Ok(record) => assert_eq!(
            BootRecord::parse(&again(bytes, &record)).as_ref(),
            Ok(&record)
        ),
        Err(unreadable) => assert!(named(&unreadable)),
    }
    match PersistentRecord::parse(bytes) {
        Ok(kept) => assert_eq!(
            PersistentRecord::parse(&again(bytes, &kept)).as_ref(),
            Ok(&kept)
        ),
        Err(unreadable) => assert!(named(&unreadable)),
    }
    if let Some(state) = WatchState::parse(bytes) {
        let text = serde_json::to_vec(&state).unwrap();
        assert_eq!(WatchState::parse(&text), Some(state));
    }
}

/// `value`, which was read from `bytes`, as it is written. It must have all the names of the
/// outermost object there.
fn again(bytes: &[u8], value: &impl serde::Serialize) -> Vec<u8> {
    let written = serde_json::to_value(value).unwrap();
    let read: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    for (name, value) in read.as_object().unwrap() {
        assert!(written.get(name).is_some() || value.is_null(), "{name}");
    }
    written.to_string().into_bytes()
}
