//! The manifest, from its schema.

use mountjail::manifest::{preset_schema, site_schema, template_schema};
use serde_json::Value;

use super::page::Page;

pub fn page() -> Page {
    let mut page = Page::new("mountjail.yaml", "5", "the manifest of a mountjail site");
    page.heading("Synopsis");
    page.example(
        "text",
        "/etc/mountjail/sites/SITE.yaml\n/etc/mountjail/sites/NAME@.yaml\n\
         /etc/mountjail/defaults.yaml\n/etc/mountjail/presets/NAME.yaml\n\
         /usr/share/mountjail/presets/NAME.yaml",
    );
    page.heading("Description");
    page.text(
        "A site is one jail: a root directory and what it needs of the host. Its manifest is a \
         YAML file. Every path that a process in the jail looks up leads to the same file as on \
         the host. Links are followed, and directory links on the way are reproduced. Links inside \
         a mounted directory bring along the files that they lead to, and programs their \
         interpreter and libraries. A file that another mount shows already is not mounted again.",
    );
    page.text(
        "Libraries and programs are mounted `ro,nosuid,nodev`; devices `ro,nosuid,noexec`; \
         everything else `ro,nosuid,nodev,noexec`. If the host's own mount is `noexec` or \
         `nodev`, so is the jail's.",
    );
    page.text(
        "A site's name is that of its file without .yaml: 1 to 200 letters, digits, dots, \
         underscores, hyphens and @. It begins with a letter or a digit.",
    );
    keys(&mut page);
    page.heading("Patterns and names");
    page.text(
        "In `programs`, `libraries` and the sources of `mounts`, `*`, `?` and `[...]` stand for \
         names, as in glob(7), and `**` for directories at any depth. A name without a slash is \
         looked up: a program in the default PATH, a library as the loader does it, in ld.so.cache \
         and the directories of ld.so.conf.",
    );
    page.heading("Items with alternatives");
    page.text(
        "Items of `devices`, `etc` and `users` may be written `{ name: NAME, optional: true }` or \
         `{ any_of: [NAME, NAME] }`, those of `programs` and `libraries` with `path` in place of \
         `name`.",
    );
    templates(&mut page);
    page.heading("Defaults");
    page.text(
        "The file /etc/mountjail/defaults.yaml has the keys of a site without `root`, all of them \
         optional. It is merged under every site. Lists are joined, the defaults first, and what \
         both have counts once. The site's `scope` overrides that of the defaults.",
    );
    page.text(
        "A site cannot take out what the defaults have. With a mistake in the file no site comes \
         up; sites that are up stay as they are, and can be taken down.",
    );
    page.heading("Presets");
    page.text("A preset has the same keys without `root`, `scope` and `services`, and besides:");
    page.keys(&only(preset_schema(), "description"));
    page.heading("Example");
    page.example(
        "yaml",
        include_str!("../../../manifests/sites/example.yaml"),
    );
    page.see_also(&[
        ("mountjail", "8"),
        ("mountjail-presets", "7"),
        ("mount", "8"),
    ]);
    page
}

fn keys(page: &mut Page) {
    let schema = site_schema();
    page.heading("Keys of a site");
    page.keys(&schema);
    for (title, key, text) in [
        (
            "Keys of a mount",
            "mounts",
            "An item of `mounts` is a path, or a mapping with these keys.",
        ),
        (
            "Keys of a directory",
            "directories",
            "An item of `directories` is a path, or a mapping with these keys. Owner and mode are \
             set when the directory is made. `mountjail down` removes it if it is empty.",
        ),
        (
            "Keys of a tmpfs",
            "tmpfs",
            "An item of `tmpfs` is a path, or a mapping with these keys. With another size it \
             keeps its files; with another mode it is replaced by a new, empty one.",
        ),
    ] {
        page.heading(title);
        page.text(text);
        page.keys(&schema["properties"][key]["items"]["anyOf"][1]);
    }
}

fn templates(page: &mut Page) {
    page.heading("Templates of sites");
    page.text(
        "A file NAME@.yaml is the manifest of many sites, as a unit NAME@.service of systemd is \
         many services. The name of each site is NAME@INSTANCE. In every value `%i` stands for the \
         instance's name, and `%%` for a percent sign; any other specifier is a mistake. In other \
         files `%` has no meaning. A template has the keys of a site, and besides:",
    );
    page.keys(&only(template_schema(), "instances"));
    page.text(
        "A list may have names and patterns. A pattern is a path with one `*`, in any part. `*` \
         matches the instance's name and, as in a shell, no hidden entry at its \
         beginning. Directories that match are instances; other files and lost+found are not. \
         Links are not followed, and are reported, as are names that a site cannot have. A name \
         that several patterns give is one site. A pattern that matches more than 10000 \
         directories gives no site.",
    );
    page.text(
        "A file NAME@INSTANCE.yaml is an ordinary manifest, and overrides the template for this \
         site. A site whose instance is gone is left as it is, as one whose manifest was deleted: \
         `mountjail down NAME@INSTANCE` takes it down.",
    );
}

/// The schema with this property alone.
fn only(mut schema: Value, key: &str) -> Value {
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.retain(|name, _| name == key);
    }
    schema
}
