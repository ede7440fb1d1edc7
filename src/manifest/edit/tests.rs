use proptest::prelude::*;

use super::*;

fn addition(key: &'static str, name: &str) -> Addition {
    Addition {
        key,
        name: name.to_owned(),
        optional: false,
        executable: false,
        owner: None,
    }
}

fn socket() -> Addition {
    Addition {
        key: "mounts",
        name: "/run/app".to_owned(),
        optional: true,
        executable: false,
        owner: None,
    }
}

#[test]
fn a_directory_has_an_owner_and_a_mode() {
    let of = |name: &str, user: Option<&str>, mode| Addition {
        owner: Some(DirectoryOwner {
            user: user.map(ToOwned::to_owned),
            mode,
        }),
        ..addition("directories", name)
    };
    check(
        "root: /s\n",
        &[
            of("/tmp", None, 0o1777),
            of("/var/cache/a", Some("www-data"), 0o750),
        ],
        "root: /s\ndirectories:\n  - { path: /tmp, mode: \"1777\" }\n  \
         - { path: /var/cache/a, user: www-data, mode: \"0750\" }\n",
    );
    check(
        "{\"root\": \"/s\"}",
        &[of("/tmp", None, 0o1777)],
        "{\"root\": \"/s\", \"directories\": [{ \"path\": \"/tmp\", \"mode\": \"1777\" }]}",
    );
}

#[track_caller]
fn check(before: &str, additions: &[Addition], after: &str) {
    assert_eq!(add(before, additions, None).as_deref(), Ok(after));
    let twice = add(after, additions, None);
    assert_eq!(
        twice.as_deref(),
        Ok(after),
        "a second time there is nothing to add"
    );
}

#[test]
fn a_list_in_brackets_grows_at_its_end() {
    let more = [addition("presets", "timezone"), addition("presets", "dns")];
    for (before, after) in [
        (
            "root: /s\npresets: [base]\n",
            "root: /s\npresets: [base, timezone, dns]\n",
        ),
        (
            "presets: [ base ] # x ]\nroot: /s",
            "presets: [ base, timezone, dns ] # x ]\nroot: /s",
        ),
        (
            "root: /s\npresets: []\n",
            "root: /s\npresets: [timezone, dns]\n",
        ),
        (
            "root: /s\npresets: [base,]\n",
            "root: /s\npresets: [base, timezone, dns,]\n",
        ),
        (
            "root: /s\npresets: [ # which, [ones]\n  base, # the 'first\n  users # it's \"last\n\
             ]\nservices: []\n",
            "root: /s\npresets: [ # which, [ones]\n  base, # the 'first\n  users, timezone, dns \
             # it's \"last\n]\nservices: []\n",
        ),
        (
            "{root: /s, presets: ['base', \"users\"]}",
            "{root: /s, presets: ['base', \"users\", timezone, dns]}",
        ),
    ] {
        check(before, &more, after);
    }
    check(
        "root: /s\netc: [{name: a, optional: true}, 'it''s ]', \"q\\\"]\"]\n",
        &[addition("etc", "hosts")],
        "root: /s\netc: [{name: a, optional: true}, 'it''s ]', \"q\\\"]\", hosts]\n",
    );
}

#[test]
fn a_list_of_lines_grows_below_its_last_item() {
    check(
        "root: /s\nmounts:\n  - /a # one\n  - source: /b\n    optional: true # two\n\n    # of \
         b\n\n# of etc\netc: [hosts]\n",
        &[addition("mounts", "/c"), socket()],
        "root: /s\nmounts:\n  - /a # one\n  - source: /b\n    optional: true # two\n  - /c\n  - \
         { source: /run/app, optional: true }\n\n    # of b\n\n# of etc\netc: [hosts]\n",
    );
    check(
        "root: /s\nmounts:\n- { source: /a,\n    optional: true }\netc:\n-   hosts",
        &[addition("mounts", "/c"), addition("etc", "fonts")],
        "root: /s\nmounts:\n- { source: /a,\n    optional: true }\n- /c\netc:\n-   hosts\n-   \
         fonts",
    );
}

#[test]
fn a_missing_key_comes_last() {
    let all = [
        socket(),
        addition("presets", "dns"),
        addition("programs", "/usr/bin/perl"),
    ];
    let lines = "presets: [dns]\nprograms: [/usr/bin/perl]\nmounts:\n  - { source: /run/app, \
    optional: true }\n";
    for (before, after) in [
        (
            "# mine\nroot: /s # here\n".to_owned(),
            format!("# mine\nroot: /s # here\n{lines}"),
        ),
        ("root: /s".to_owned(), format!("root: /s\n{lines}")),
        (
            "root: /s\r\n".to_owned(),
            format!("root: /s\n{lines}").replace('\n', "\r\n"),
        ),
        (
            "\u{feff}root: /s\n# end\n".to_owned(),
            format!("\u{feff}root: /s\n# end\n{lines}"),
        ),
        (
            "---\nroot: /s\n".to_owned(),
            format!("---\nroot: /s\n{lines}"),
        ),
    ] {
        check(&before, &all, &after);
    }
    check(
        "  root: /s\n  etc: []\n",
        &[addition("users", "www-data")],
        "  root: /s\n  etc: []\n  users: [www-data]\n",
    );
    check(
        "{ root: /s }\n",
        &[socket()],
        "{ root: /s, mounts: [{ source: /run/app, optional: true }] }\n",
    );
}

#[test]
fn json_stays_json() {
    let before = "{\n  \"root\": \"/s\",\n  \"presets\": [\n    \"base\"\n  ]\n}\n";
    let after = add(before, &[addition("presets", "dns"), socket()], None).unwrap();
    let json: serde_json::Value = serde_json::from_str(&after).unwrap();
    assert_eq!(json["presets"], serde_json::json!(["base", "dns"]));
    assert_eq!(
        json["mounts"],
        serde_json::json!([{ "source": "/run/app", "optional": true }])
    );
}

#[test]
fn lines_end_as_they_did() {
    check(
        "root: /s\r\nmounts:\r\n  - /a\r\netc: [hosts]\r\n",
        &[addition("mounts", "/b")],
        "root: /s\r\nmounts:\r\n  - /a\r\n  - /b\r\netc: [hosts]\r\n",
    );
}

#[test]
fn what_is_there_is_not_added() {
    let text = "root: /s\nprograms:\n  - \"/usr/bin/perl\"\npresets: [dns]\nmounts: [{source: \
    /run/app, optional: true}]\n";
    check(
        text,
        &[
            addition("programs", "/usr/bin/perl"),
            addition("presets", "dns"),
            socket(),
        ],
        text,
    );
}

#[test]
fn names_that_yaml_would_misread_are_quoted() {
    for (name, text) in [
        ("null", "\"null\""),
        ("1", "\"1\""),
        ("1.5", "\"1.5\""),
        ("yes", "\"yes\""),
        ("0x1f", "\"0x1f\""),
        ("/a b", "\"/a b\""),
        ("/a:b", "\"/a:b\""),
        ("/a\"\\", "\"/a\\\"\\\\\""),
        ("/a\n", "\"/a\\u000A\""),
        ("/ü", "\"/ü\""),
        ("net/tun", "net/tun"),
        ("/usr/lib/x-1.0_a@b+c", "/usr/lib/x-1.0_a@b+c"),
    ] {
        assert_eq!(yaml_scalar(name), text);
        assert_eq!(
            node::read(&yaml_scalar(name)),
            Ok(Node::Text(name.to_owned()))
        );
    }
    check(
        "root: /s\n",
        &[addition("devices", "null")],
        "root: /s\ndevices: [\"null\"]\n",
    );
}

#[test]
fn what_cannot_be_added_to_is_left_alone() {
    for text in [
        "root: /s\netc: &same [hosts]\ndevices: *same\n",
        "root: /s\netc:\n  -\n    hosts\n",
        "root: /s\n...\n",
        "root: relative\n",
        "[]",
        "",
    ] {
        assert_eq!(
            add(text, &[addition("etc", "fonts")], None),
            Err(CannotAdd),
            "{text}"
        );
    }
}

/// A manifest in one of several styles, with comments all over.
fn manifest() -> impl Strategy<Value = String> {
    let name = "[a-z'\"#, -]{0,6}[a-z]";
    let list = (
        proptest::collection::vec(name, 1..4),
        0..4_usize,
        any::<bool>(),
    );
    let keys = proptest::sample::subsequence(vec!["etc", "programs", "mounts", "libraries"], 0..4);
    (
        keys,
        proptest::collection::vec(list, 4),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(keys, lists, crlf, end)| {
            let mut text = "# top\nroot: /s # here\n".to_owned();
            for (key, (names, style, comment)) in keys.into_iter().zip(lists) {
                let path = |name: &String| {
                    if key == "etc" {
                        name.clone()
                    } else {
                        format!("/{name}")
                    }
                };
                let names: Vec<_> = names
                    .iter()
                    .map(path)
                    .map(|name| scalar(&name, Quotes::Always))
                    .collect();
                let comment = if comment {
                    " # it's [a] \"comment\""
                } else {
                    ""
                };
                let block = |dash: &str, end: &str| {
                    names
                        .iter()
                        .map(|n| format!("{dash}{n}{end}\n"))
                        .collect::<Vec<_>>()
                        .concat()
                };
                let list = match style {
                    0 => format!("{key}: [{}]{comment}\n", names.join(", ")),
                    1 => format!(
                        "{key}: [{comment}\n  {}{comment}\n  ]\n",
                        names.join(&format!(",{comment}\n  "))
                    ),
                    2 => format!("{key}:{comment}\n{}", block("- ", comment)),
                    _ => format!("{key}:\n{}\n", block("   - ", comment)),
                };
                text.push_str(&list);
            }
            let text = if end {
                text
            } else {
                text.trim_end().to_owned()
            };
            if crlf {
                text.replace('\n', "\r\n")
            } else {
                text
            }
        })
}

fn additions() -> impl Strategy<Value = Vec<Addition>> {
    let one = (
        proptest::sample::select(vec!["etc", "programs", "mounts", "libraries", "presets"]),
        "[^/\0*?\\[]{1,8}",
    );
    let one = one.prop_map(|(key, name)| {
        let name = if matches!(key, "etc" | "presets") {
            name
        } else {
            format!("/{name}")
        };
        Addition {
            key,
            name,
            optional: key == "mounts",
            executable: false,
            owner: None,
        }
    });
    let usable = |addition: &Addition| meaning(addition, None).is_ok();
    proptest::collection::vec(
        one.prop_filter("a name that a manifest takes", usable),
        0..5,
    )
}

proptest! {
    /// The old text is there byte for byte, in its order, and the new one means the sum, which
    /// `add` itself checks; here it must not give up.
    #[test]
    fn every_manifest_can_be_added_to(text in manifest(), mut more in additions()) {
        more.sort();
        more.dedup();
        prop_assume!(contents(&text, None).is_ok());
        let after = add(&text, &more, None).unwrap();
        let mut rest = after.chars();
        prop_assert!(text.chars().all(|c| rest.any(|found| found == c)));
        prop_assert!(after.len() >= text.len());
        let comments = |text: &str| text.matches("# it's [a] \"comment\"").count();
        prop_assert_eq!(comments(&text), comments(&after));
        prop_assert_eq!(add(&after, &more, None).unwrap(), after);
    }

    #[test]
    fn any_text_is_refused_or_added_to(text in "\\PC{0,80}") {
        let _ = add(&format!("root: /s\netc: {text}"), &[addition("etc", "hosts")], None);
    }
}

#[test]
fn a_template_is_added_to_with_its_specifiers_as_they_are() {
    let text = "root: /srv/%i\ninstances: /srv/*\nusers: [\"%i\"]\nmounts: [/a%%b]\n";
    let added = |name: &str| add(text, &[addition("mounts", name)], Some("alice"));
    let after = text.replace("[/a%%b]", "[/a%%b, \"/c%%d\"]");
    assert_eq!(added("/c%d").as_deref(), Ok(after.as_str()));
    assert_eq!(added("/a%b").as_deref(), Ok(text), "it is there already");
    assert!(
        add(text, &[addition("etc", "hosts")], None).is_err(),
        "no manifest of a site"
    );
}
