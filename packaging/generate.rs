//! Writes what packages ship besides the program and what lies in this folder: manual pages,
//! completions and the manifest's schema. `cargo run --example generate -- target/packaging`

use std::fs;
use std::io;
use std::path::Path;

use clap_complete::Shell;
use mountjail::cli::{command, completion_script};
use mountjail::manifest::{Presets, defaults_schema, preset_schema, site_schema, template_schema};
use roff::{Roff, bold, italic, roman};
use serde_json::Value;

fn main() -> io::Result<()> {
    let target = std::env::args_os()
        .nth(1)
        .unwrap_or_else(|| "target/packaging".into());
    let target = Path::new(&target);
    for directory in ["man", "completions", "schema"] {
        fs::create_dir_all(target.join(directory))?;
    }
    let man = target.join("man");
    commands(&man)?;
    fs::write(man.join("mountjail.yaml.5"), manifest_page().to_roff())?;
    fs::write(man.join("mountjail-presets.7"), presets_page().to_roff())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let file = clap_complete::Generator::file_name(&shell, "mountjail");
        fs::write(
            target.join("completions").join(file),
            completion_script(shell),
        )?;
    }
    for (name, schema) in [
        ("mountjail.schema.json", site_schema()),
        ("template.schema.json", template_schema()),
        ("defaults.schema.json", defaults_schema()),
        ("preset.schema.json", preset_schema()),
    ] {
        fs::write(target.join("schema").join(name), format!("{schema:#}\n"))?;
    }
    Ok(())
}

/// mountjail(8), and one page per command, such as mountjail-up(8).
fn commands(directory: &Path) -> io::Result<()> {
    let mut program = command().disable_help_subcommand(true);
    program.build();
    for inner in program.get_subcommands() {
        let name = format!("mountjail-{}", inner.get_name());
        let inner = inner
            .clone()
            .bin_name(format!("mountjail {}", inner.get_name()));
        let mut also = vec![("mountjail", "8"), ("mountjail.yaml", "5")];
        if name == "mountjail-presets" {
            also.push(("mountjail-presets", "7")); // man(1) shows section 8 first
        }
        command_page(directory, inner, &name, "EXAMPLE", &Roff::new(), &also)?;
    }
    let also = [
        ("mountjail.yaml", "5"),
        ("mountjail-presets", "7"),
        ("mount", "8"),
        ("chroot", "2"),
    ];
    command_page(
        directory,
        program,
        "mountjail",
        "EXIT STATUS",
        &files_and_environment(),
        &also,
    )
}

/// The page `name`(8). It has no date, so that it is the same each time. `last` names the last
/// section of the help; `more` are sections after it.
fn command_page(
    directory: &Path,
    mut command: clap::Command,
    name: &str,
    last: &str,
    more: &Roff,
    also: &[(&str, &str)],
) -> io::Result<()> {
    let usage = command.render_usage().to_string();
    let usage = usage
        .trim_start_matches("Usage:")
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>();
    let man = clap_mangen::Man::new(command.name(&*name.to_owned().leak()))
        .title(name.to_uppercase())
        .section("8")
        .date("")
        .source(concat!("mountjail ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut text = vec![];
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    for line in usage {
        synopsis.text([roman(line)]);
        synopsis.control("br", []);
    }
    synopsis.to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if name == "mountjail" {
        man.render_subcommands_section(&mut text)?;
    }
    man.render_extra_section(&mut text)?;
    more.to_writer(&mut text)?;
    let mut end = Roff::new();
    see_also(&mut end, also);
    end.to_writer(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace(".SH EXTRA\n", &format!(".SH \"{last}\"\n"));
    let file = directory.join(format!("{name}.8"));
    fs::write(
        file,
        text.replace("\nExample:\n", "\n")
            .replace("\nExamples:\n", "\n")
            .replace("\nExit codes:\n", "\n"),
    )
}

fn files_and_environment() -> Roff {
    let mut page = Roff::new();
    let entries = |page: &mut Roff, entries: &[(&str, &str)]| {
        for (name, about) in entries {
            page.control("TP", []);
            page.text([bold(*name)]);
            page.text([roman(*about)]);
        }
    };
    page.control("SH", ["FILES"]);
    entries(
        &mut page,
        &[
            (
                "/etc/mountjail/sites/SITE.yaml",
                "The manifest of a site: mountjail.yaml(5).",
            ),
            (
                "/etc/mountjail/sites/NAME@.yaml",
                "A template of sites, whose names are NAME@INSTANCE.",
            ),
            ("/etc/mountjail/defaults.yaml", "What all sites have."),
            (
                "/etc/mountjail/presets/NAME.yaml",
                "A preset of this host's own: mountjail-presets(7).",
            ),
            (
                "/run/mountjail",
                "Records of what is mounted, and locks. They do not survive a reboot.",
            ),
            (
                "/var/lib/mountjail",
                "Records of what was made in roots, and generated files of users and groups.",
            ),
        ],
    );
    page.control("SH", ["ENVIRONMENT"]);
    entries(
        &mut page,
        &[
            ("MOUNTJAIL_CONFIG_DIR", "The default of --config-dir."),
            ("MOUNTJAIL_STATE_DIR", "The default of --state-dir."),
            (
                "MOUNTJAIL_ENGINE",
                "How to mount, detached or classic, instead of the best way that the kernel \
                 offers.",
            ),
            (
                "MOUNTJAIL_MOUNT_EVENTS",
                "How watch is told about mounts, fanotify or poll, instead of the best way that \
                 the kernel offers.",
            ),
            ("NO_COLOR", "No colours, if it is not empty."),
        ],
    );
    page
}

fn page(name: &str, section: &str, summary: &str) -> Roff {
    let mut page = Roff::new();
    let source = concat!("mountjail ", env!("CARGO_PKG_VERSION"));
    page.control(
        "TH",
        [
            name.to_uppercase().as_str(),
            section,
            "",
            source,
            "File Formats",
        ],
    );
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {summary}"))]);
    page
}

fn manifest_page() -> Roff {
    let mut page = page("mountjail.yaml", "5", "the manifest of a mountjail site");
    page.control("SH", ["SYNOPSIS"]);
    for (nth, file) in [
        "/etc/mountjail/sites/SITE.yaml",
        "/etc/mountjail/sites/NAME@.yaml",
        "/etc/mountjail/defaults.yaml",
        "/etc/mountjail/presets/NAME.yaml",
        "/usr/share/mountjail/presets/NAME.yaml",
    ]
    .iter()
    .enumerate()
    {
        if nth > 0 {
            page.control("br", []);
        }
        page.text([italic(*file)]);
    }
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "A site is one jail: a root directory and what it needs of the host. Its manifest is a \
         YAML file. Every path that a process in the jail looks up leads to the same file as on \
         the host. Links are followed, and directory links on the way are reproduced. Links inside \
         a mounted directory bring along the files that they lead to, and programs their \
         interpreter and libraries. A file that another mount shows already is not mounted again.",
    )]);
    page.control("PP", []);
    page.text([roman(
        "Libraries and programs are mounted ro,nosuid,nodev; devices ro,nosuid,noexec; everything \
         else ro,nosuid,nodev,noexec. If the host's own mount is noexec or nodev, so is the \
         jail's.",
    )]);
    page.control("PP", []);
    page.text([roman(
        "A site's name is that of its file without .yaml: 1 to 200 letters, digits, dots, \
         underscores, hyphens and @. It begins with a letter or a digit.",
    )]);
    page.control("SH", ["KEYS OF A SITE"]);
    keys(&mut page, &site_schema());
    page.control("SH", ["KEYS OF A MOUNT"]);
    page.text([
        roman("An item of "),
        bold("mounts"),
        roman(" is a path, or a mapping with these keys."),
    ]);
    let mounts = &site_schema()["properties"]["mounts"]["items"]["anyOf"][1];
    keys(&mut page, mounts);
    made(&mut page);
    patterns(&mut page);
    page.control("SH", ["ITEMS WITH ALTERNATIVES"]);
    page.text([
        roman("Items of "),
        bold("devices"),
        roman(", "),
        bold("etc"),
        roman(" and "),
        bold("users"),
    ]);
    page.text([roman(
        "may be written { name: NAME, optional: true } or { any_of: [NAME, NAME] }, those of ",
    )]);
    page.text([
        bold("programs"),
        roman(" and "),
        bold("libraries"),
        roman(" with path in place of name."),
    ]);
    templates(&mut page);
    defaults(&mut page);
    page.control("SH", ["PRESETS"]);
    page.text([
        roman("A preset has the same keys without "),
        bold("root"),
        roman(", "),
        bold("scope"),
        roman(" and "),
        bold("services"),
        roman(","),
    ]);
    page.text([roman("and besides:")]);
    let mut preset = preset_schema();
    if let Some(properties) = preset["properties"].as_object_mut() {
        properties.retain(|key, _| key == "description");
    }
    keys(&mut page, &preset);
    page.control("SH", ["EXAMPLE"]);
    example(&mut page, include_str!("../manifests/sites/example.yaml"));
    see_also(
        &mut page,
        &[
            ("mountjail", "8"),
            ("mountjail-presets", "7"),
            ("mount", "8"),
        ],
    );
    page
}

fn patterns(page: &mut Roff) {
    page.control("SH", ["PATTERNS AND NAMES"]);
    page.text([roman(
        "In programs, libraries and the sources of mounts, *, ? and [...] stand for names, as in \
         glob(7), and ** for directories at any depth. A name without a slash is looked up: a \
         program in the default PATH, a library as the loader does it, in ld.so.cache and the \
         directories of ld.so.conf.",
    )]);
}

/// What a site has for itself.
fn made(page: &mut Roff) {
    let schema = site_schema();
    for (title, key, text) in [
        (
            "KEYS OF A DIRECTORY",
            "directories",
            "An item is a path, or a mapping with these keys. Owner and mode are set when the \
             directory is made. mountjail down removes it if it is empty.",
        ),
        (
            "KEYS OF A TMPFS",
            "tmpfs",
            "An item is a path, or a mapping with these keys. With another size or mode it is \
             replaced by a new, empty one.",
        ),
    ] {
        page.control("SH", [title]);
        page.text([roman(text)]);
        keys(page, &schema["properties"][key]["items"]["anyOf"][1]);
    }
}

fn templates(page: &mut Roff) {
    page.control("SH", ["TEMPLATES OF SITES"]);
    page.text([roman(
        "A file NAME@.yaml is the manifest of many sites, as a unit NAME@.service of systemd is \
         many services. The name of each site is NAME@INSTANCE. In every value %i stands for the \
         instance's name, and %% for a percent sign; any other specifier is a mistake. In other \
         files % has no meaning. A template has the keys of a site, and besides:",
    )]);
    let mut template = template_schema();
    if let Some(properties) = template["properties"].as_object_mut() {
        properties.retain(|key, _| key == "instances");
    }
    keys(page, &template);
    page.control("PP", []);
    page.text([roman(
        "A list may have names and patterns. A pattern is a path with one *, in any part. What * \
         matches is the instance's name; as in a shell, it matches no hidden entry at its \
         beginning. Directories that match are instances; other files and lost+found are not. \
         Links are not followed, and are reported, as are names that a site cannot have. A name \
         that several patterns give is one site. A pattern that matches more than 10000 \
         directories gives no site.",
    )]);
    page.control("PP", []);
    page.text([roman(
        "A file NAME@INSTANCE.yaml is an ordinary manifest, and overrides the template for this \
         site. A site whose instance is gone is left as it is, as one whose manifest was deleted: \
         mountjail down NAME@INSTANCE takes it down.",
    )]);
}

fn defaults(page: &mut Roff) {
    page.control("SH", ["DEFAULTS"]);
    page.text([
        roman("The file "),
        italic("/etc/mountjail/defaults.yaml"),
        roman(" has the keys of a site without "),
        bold("root"),
        roman(", all of them optional."),
    ]);
    page.text([
        roman(
            "It is merged under every site. Lists are joined, the defaults first, and what both \
             have counts once. The site's ",
        ),
        bold("scope"),
        roman(" overrides that of the defaults."),
    ]);
    page.text([roman(
        "A site cannot take out what the defaults have. With a mistake in the file no site comes \
         up; sites that are up stay as they are, and can be taken down.",
    )]);
}

fn presets_page() -> Roff {
    let mut page = page(
        "mountjail-presets",
        "7",
        "the built-in presets of mountjail",
    );
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("A site names presets under "),
        bold("presets"),
        roman(" in its manifest. A file"),
    ]);
    page.text([
        italic("/etc/mountjail/presets/NAME.yaml"),
        roman(" replaces the built-in one of that name, and so does one of a package in"),
    ]);
    page.text([italic("/usr/share/mountjail/presets"), roman(".")]);
    page.text([
        bold("mountjail presets NAME"),
        roman(" shows what one brings on this host."),
    ]);
    page.control("SH", ["PRESETS"]);
    let presets = Presets::built_in();
    for name in presets.names() {
        page.control("SS", [name]);
        page.text([roman(presets.description(name).unwrap_or_default())]);
        let text = presets.text(name).unwrap_or_default();
        let rest: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with("description:"))
            .collect();
        example(&mut page, &rest.join("\n"));
    }
    see_also(
        &mut page,
        &[
            ("mountjail", "8"),
            ("mountjail-presets", "8"),
            ("mountjail.yaml", "5"),
        ],
    );
    page
}

/// A paragraph per key, required keys first: its description, its values, an example.
fn keys(page: &mut Roff, schema: &Value) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let is_required = |key: &str| required.iter().any(|required| *required == *key);
    let mut keys: Vec<_> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .collect();
    keys.sort_by_key(|(key, _)| !is_required(key));
    for (key, about) in keys {
        page.control("TP", []);
        page.text([
            bold(key),
            roman(if is_required(key) { " (required)" } else { "" }),
        ]);
        page.text([roman(about["description"].as_str().unwrap_or_default())]);
        if let Some(values) = about["enum"].as_array() {
            let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
            page.control("br", []);
            page.text([roman("One of: "), italic(values.join(", "))]);
        }
        if let Some(sample) = about["examples"].get(0) {
            page.control("br", []);
            page.text([roman("Example: "), italic(sample.to_string())]);
        }
    }
}

fn example(page: &mut Roff, text: &str) {
    page.control("PP", []);
    page.control("EX", []);
    for line in text.lines() {
        page.text([roman(line)]);
    }
    page.control("EE", []);
}

fn see_also(page: &mut Roff, pages: &[(&str, &str)]) {
    page.control("SH", ["SEE ALSO"]);
    for (nth, (name, section)) in pages.iter().enumerate() {
        page.text([
            bold(*name),
            roman(format!(
                "({section}){}",
                if nth + 1 < pages.len() { "," } else { "" }
            )),
        ]);
    }
}
