//! The built-in presets.

use mountjail::manifest::Presets;

use super::page::Page;

pub fn page() -> Page {
    let mut page = Page::new(
        "mountjail-presets",
        "7",
        "the built-in presets of mountjail",
    );
    page.heading("Description");
    page.text(
        "A site names presets under `presets` in its manifest. A file \
         /etc/mountjail/presets/NAME.yaml replaces the built-in one of that name, and so does one \
         of a package in /usr/share/mountjail/presets. `mountjail presets NAME` shows what one \
         brings on this host.",
    );
    page.heading("Presets");
    let presets = Presets::built_in();
    for name in presets.names() {
        page.item(name);
        page.text(presets.description(name).unwrap_or_default());
        let text = presets.text(name).unwrap_or_default();
        let rest: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with("description:"))
            .collect();
        page.example("yaml", rest.join("\n"));
    }
    page.see_also(&[
        ("mountjail", "8"),
        ("mountjail-presets", "8"),
        ("mountjail.yaml", "5"),
    ]);
    page
}
