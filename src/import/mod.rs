//! What people have already → manifests and presets: the pools of PHP-FPM, bind lines of fstab(5), jailkit's sections.
//!
//! In: configuration files of other programs, told apart by what is in them. Out: a [`Draft`] for each site and
//! preset, to be shown or written. It reads the files, and looks at what their paths are on this host; it never
//! changes anything.

mod draft;
pub mod fpm;
pub mod fstab;
mod ini;
pub mod jailkit;
mod lines;
mod look;
pub mod php;
mod roots;

use std::collections::BTreeSet;
use std::path::Path;

pub(crate) use draft::scalar;
pub use draft::{Draft, Item, Kind, Mount};

use crate::manifest::{HostPath, Presets, SiteName};
use crate::{Error, Result, sys};

/// No file of these formats is longer.
const MAX_BYTES: u64 = 4 << 20;

/// Names of directories that tell nothing about the site that they are for.
const NAMELESS: [&str; 6] = ["chroot", "jail", "root", "rootfs", "fs", "htdocs"];

/// What the files have.
#[derive(Debug, Default)]
pub struct Found {
    pools: Vec<fpm::Pool>,
    fstabs: Vec<fstab::Fstab>,
    sections: Vec<jailkit::Section>,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Imported {
    /// Sites first, in the order of the files; then presets.
    pub drafts: Vec<Draft>,
    /// What needs nothing: sentences.
    pub notes: Vec<String>,
    /// What the administrator should look at: sentences.
    pub warnings: Vec<String>,
}

/// Which format a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Fpm,
    Fstab,
    Jailkit,
}

impl Found {
    /// Adds what is in `path`: a file of a known format, or a directory of PHP-FPM's.
    ///
    /// Errors: it cannot be read, or is of no known format; every line that is wrong, with file and line.
    pub fn read(&mut self, path: &Path) -> Result<(), Vec<Error>> {
        let one = |error| vec![error];
        if path.is_dir() {
            add_new(&mut self.pools, fpm::pools(path).map_err(one)?);
            return Ok(());
        }
        let text = text(path).map_err(one)?;
        match format(&text) {
            Some(Format::Fpm) => add_new(&mut self.pools, fpm::pools(path).map_err(one)?),
            Some(Format::Fstab) => add_new(&mut self.fstabs, [fstab::read(path, &text)?]),
            Some(Format::Jailkit) => add_new(&mut self.sections, jailkit::read(path, &text)?),
            None => {
                let failed = Error::failed(format!("{}: no format that is known", path.display()));
                return Err(one(failed.hint(
                    "it has neither pools of PHP-FPM, nor lines of fstab(5), nor sections of jailkit's jk_init.ini",
                )));
            }
        }
        Ok(())
    }

    /// The sites, one a root whatever files tell of it, and the presets. `presets` are those that there are.
    pub fn drafts(&self, presets: &Presets) -> Result<Imported, Vec<Error>> {
        let mut imported = Imported::default();
        self.count(&mut imported.notes);
        self.sites(presets, &mut imported)?;
        unique_names(&mut imported);
        for draft in jailkit::drafts(&self.sections, presets)? {
            imported.warnings.extend(draft.renamed.iter().map(|why| format!("{}: {why}", draft.place)));
            imported.drafts.push(draft);
        }
        Ok(imported)
    }

    fn count(&self, notes: &mut Vec<String>) {
        let sum = |count: fn(&fstab::Fstab) -> usize| self.fstabs.iter().map(count).sum::<usize>();
        let counts = [
            (
                self.pools.iter().filter(|pool| pool.get("chroot").is_none()).count(),
                "pool",
                "without a chroot: nothing to mount",
            ),
            (sum(|fstab| fstab.others), "line", "of fstab without `bind`: no business of a jail's"),
            (sum(|fstab| fstab.ours), "line", "in mountjail's own block of fstab"),
        ];
        for (count, what, rest) in counts.into_iter().filter(|(count, ..)| *count > 0) {
            notes.push(format!("{count} {what}{} {rest}", if count == 1 { "" } else { "s" }));
        }
        notes.extend(self.fstabs.iter().flat_map(|fstab| fstab.remarks.iter().cloned()));
    }

    fn sites(&self, presets: &Presets, imported: &mut Imported) -> Result<(), Vec<Error>> {
        let mut drafts = fpm::drafts(&self.pools).map_err(|error| vec![error])?;
        let binds: Vec<_> = self.fstabs.iter().flat_map(|fstab| fstab.binds.iter().cloned()).collect();
        let known: Vec<_> = drafts.iter().filter_map(|draft| draft.root().cloned()).collect();
        let assigned = roots::assign(&binds, &known);
        for (root, binds) in &assigned.by_root {
            let nth = drafts.iter().position(|draft| draft.root() == Some(root)).unwrap_or_else(|| {
                let place = binds[0].place.clone();
                drafts.push(Draft { place, ..Draft::new(name_of(root), Kind::Site(root.clone())) });
                drafts.len() - 1
            });
            lines::add(&mut drafts[nth], root, binds, presets);
        }
        let left = assigned
            .left
            .iter()
            .map(|(bind, why)| format!("{}: {} on {}: {why}", bind.place, bind.source, bind.target));
        imported.warnings.extend(left);
        imported.drafts = drafts;
        Ok(())
    }
}

/// Adds those of `more` that are not known: a pool may be named by its own file and by php-fpm.conf.
fn add_new<T: PartialEq>(known: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    for one in more {
        if !known.contains(&one) {
            known.push(one);
        }
    }
}

/// The format, by the first line that can only be of one.
fn format(text: &[u8]) -> Option<Format> {
    let mut found = None;
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
            continue;
        }
        let line_text = String::from_utf8_lossy(line);
        if found == Some(Format::Fpm) {
            if jailkit::looks_like(&line_text) {
                return Some(Format::Jailkit);
            }
        } else if line.starts_with(b"[") || line_text.starts_with("include") {
            found = Some(Format::Fpm);
        } else if fstab::looks_like(line) {
            return Some(Format::Fstab);
        }
    }
    found
}

/// The text of a file. A FIFO or device is refused, and no more is read than such a file can have.
fn text(path: &Path) -> Result<Vec<u8>> {
    let file = path.display();
    sys::read_regular(path, MAX_BYTES).map_err(|error| match error.raw_os_error() {
        Some(libc::EISDIR | libc::EINVAL) => Error::failed(format!("{file} is not a regular file")),
        Some(libc::EFBIG) => Error::failed(format!("{file} is longer than 4 MiB: no configuration is")),
        _ => Error::failed(format!("cannot read {file}")).because(&error),
    })
}

/// A site's name out of its root: `site1` for `/srv/www/site1` and for `/srv/www/site1/chroot`.
fn name_of(root: &HostPath) -> String {
    let names: Vec<_> = root.as_path().iter().skip(1).map(|name| word(&name.to_string_lossy())).collect();
    let telling = names.iter().rev().find(|name| !NAMELESS.contains(&name.as_str()));
    telling.or(names.last()).cloned().unwrap_or_else(|| "site".to_owned())
}

/// `text` with what no site's name may have replaced.
fn word(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-@".contains(c) { c } else { '-' };
    let word: String = text.chars().map(allowed).collect();
    if SiteName::new(&word).is_ok() { word } else { format!("site{word}") }
}

/// Gives a site whose name another one has already a name with a number, and says so.
fn unique_names(imported: &mut Imported) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for draft in &mut imported.drafts {
        let mut name = draft.name.clone();
        let mut nth = 2;
        while taken.contains(&name) {
            name = format!("{}-{nth}", draft.name);
            nth += 1;
        }
        if name != draft.name {
            imported.warnings.push(format!(
                "{}: another site is called {} already; this one is called {name}",
                draft.place, draft.name
            ));
            draft.name.clone_from(&name);
        }
        taken.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_what_is_in_the_file() {
        for (text, expected) in [
            ("", None),
            ("# only\n; comments\n", None),
            ("nothing that is known", None),
            ("; a\n[www]\nuser = x\n", Some(Format::Fpm)),
            ("include=/etc/php-fpm.d/*.conf\n", Some(Format::Fpm)),
            ("[www\n", Some(Format::Fpm)),
            ("# x\n[ssh]\ncomment = y\npaths = ssh\n", Some(Format::Jailkit)),
            ("[ssh]\nnonsense\nPaths: ssh\n", Some(Format::Jailkit)),
            ("# /etc/fstab\nUUID=1-2 / ext4 defaults 0 1\n", Some(Format::Fstab)),
            ("/etc/x\t/srv/a/etc/x\n", Some(Format::Fstab)),
            ("broken\n/dev/sda2 none swap sw 0 0\n", Some(Format::Fstab)),
        ] {
            assert_eq!(format(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(lines in proptest::collection::vec(
            proptest::prop_oneof![
                "[a-z]{0,3}[=:/ ]{0,2}[a-z,%]{0,4}",
                "[/a-z\\\\0-4]{0,8}[ \t]{1,2}/[/a-z.]{0,8}[ \t]none[ \t](r?bind|ro|remount|,){0,4}( [0-9x])?",
                "[\\[\\]a-zD# ;\t]{0,6}",
                "\\PC{0,6}",
            ],
            0..8,
        )) {
            let text = lines.join("\n");
            let file = Path::new("f");
            let presets = Presets::built_in();
            let _ = format(text.as_bytes());
            if let Ok(fstab) = fstab::read(file, text.as_bytes()) {
                let found = Found { fstabs: vec![fstab], ..Found::default() };
                for draft in found.drafts(&presets).unwrap().drafts {
                    let site = SiteName::new(&draft.name).unwrap();
                    let source = crate::manifest::SourceFile::File("f".into());
                    proptest::prop_assert!(crate::manifest::parse(site, source, &draft.to_yaml(), &presets).is_ok());
                }
            }
            if let Ok(sections) = jailkit::read(file, text.as_bytes()) {
                let _ = Found { sections, ..Found::default() }.drafts(&presets);
            }
        }
    }

    #[test]
    fn names_come_from_roots() {
        for (root, name) in [
            ("/srv/www/site1", "site1"),
            ("/srv/www/site1/chroot", "site1"),
            ("/srv/ä b", "site--b"),
            ("/root", "root"),
        ] {
            assert_eq!(name_of(&HostPath::new(root).unwrap()), name);
        }
    }
}
