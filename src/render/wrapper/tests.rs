use super::*;

fn lines(text: &[(&str, &str)]) -> Vec<UnitLine> {
    let line = |(key, value): &(&str, &str)| UnitLine {
        file: "/etc/systemd/system/a.service".into(),
        section: "Service".to_owned(),
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    text.iter().map(line).collect()
}

fn starts(values: &[&str]) -> Result<Vec<String>, StartObstacle> {
    let call = Call {
        program: "/usr/bin/mountjail".into(),
        options: vec![],
    };
    let values: Vec<_> = values.iter().map(|value| ("ExecStart", *value)).collect();
    let names = ["a\\x2d.service".to_owned()];
    let text = wrapper(&names, &lines(&values), &call)?.text;
    let (_, starts) = text.split_once("[Service]\nExecStart=\n").unwrap();
    Ok(starts
        .trim_end()
        .split("\nExecStart=")
        .map(ToOwned::to_owned)
        .collect())
}

#[test]
fn command_lines_stay_as_they_are_written() {
    let run = "/usr/bin/mountjail run --unit a\\\\x2d.service";
    let cases = [
        ("/bin/a", format!("ExecStart={run} -- /bin/a")),
        (
            "-/bin/a $ARGS \"${B}\" 'c d' %i \\x20",
            format!("ExecStart=-{run} -- /bin/a $ARGS \"${{B}}\" 'c d' %i \\x20"),
        ),
        (
            "@/bin/a name x",
            format!("ExecStart={run} --argv0 -- /bin/a name x"),
        ),
        (
            "+:@-!!/bin/a n",
            format!("ExecStart=+:-!!{run} --argv0 -- /bin/a n"),
        ),
        (
            "\"-/bin/a b\" c",
            format!("ExecStart=-{run} -- \"/bin/a b\" c"),
        ),
        (
            "/bin/a \\\n  -b \\\n  -c",
            format!("ExecStart={run} -- /bin/a \\\n  -b \\\n  -c"),
        ),
        (
            "/bin/a \\; ';' b;",
            format!("ExecStart={run} -- /bin/a \\; ';' b;"),
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(starts(&[value]).unwrap(), [expected], "{value}");
    }
    let two = starts(&["/bin/old", "", "/bin/a 1 ; -/bin/b 2", "/bin/c"]).unwrap();
    let ends: Vec<_> = two
        .iter()
        .map(|line| line.split_once(" -- ").unwrap().1)
        .collect();
    assert_eq!(ends, ["/bin/a 1", "/bin/b 2", "/bin/c"]);
    for refused in [&["|/bin/a"][..], &["$A"], &[]] {
        assert!(starts(refused).is_err(), "{refused:?}");
    }
}

#[test]
fn hardening_that_forbids_mounts_is_named_with_what_lets_it() {
    let of = |text: &[(&str, &str)]| -> Vec<String> {
        let found = obstacles(&lines(text), &[Path::new("/home/a/root")]);
        found.into_iter().map(|obstacle| obstacle.remedy).collect()
    };
    let allowed: &[&[(&str, &str)]] = &[
        &[
            ("User", "root"),
            ("NoNewPrivileges", "yes"),
            ("MemoryDenyWriteExecute", "yes"),
        ],
        &[("User", "x"), ("ExecStart", "-!/bin/a")],
        &[("RestrictNamespaces", "yes"), ("RestrictNamespaces", "mnt")],
        &[("RestrictNamespaces", "mnt uts")],
        &[("RestrictNamespaces", "~user")],
        &[("RestrictNamespaces", "no")],
        &[("RestrictNamespaces", "No"), ("PrivateUsers", "False")],
        &[
            ("CapabilityBoundingSet", "CAP_CHOWN"),
            ("CapabilityBoundingSet", "CAP_SYS_ADMIN"),
        ],
        &[("CapabilityBoundingSet", "~CAP_CHOWN")],
        &[
            ("SystemCallFilter", "@system-service"),
            ("SystemCallFilter", "@mount"),
        ],
        &[("SystemCallFilter", "~@clock")],
        &[
            ("SystemCallFilter", "~@mount"),
            ("SystemCallFilter", "@mount"),
        ],
        &[("ProtectSystem", "strict"), ("ProtectHome", "read-only")],
        &[
            ("PrivateUsers", "yes"),
            ("PrivateUsers", "no"),
            ("RootDirectory", "/"),
        ],
    ];
    for text in allowed {
        assert_eq!(of(text), Vec::<String>::new(), "{text:?}");
    }
    let forbidden: &[(&[(&str, &str)], &str)] = &[
        (&[("User", "www-data")], "User=root"),
        (&[("DynamicUser", "yes")], "scope: host"),
        (&[("DynamicUser", "True")], "scope: host"),
        (&[("RestrictNamespaces", "yes")], "RestrictNamespaces=mnt"),
        (&[("RestrictNamespaces", "~mnt")], "RestrictNamespaces=mnt"),
        (&[("RestrictNamespaces", "uts")], "RestrictNamespaces=mnt"),
        (&[("CapabilityBoundingSet", "CAP_CHOWN")], "CAP_SYS_ADMIN"),
        (&[("CapabilityBoundingSet", "")], "CAP_SYS_ADMIN"),
        (
            &[("CapabilityBoundingSet", "~CAP_SYS_ADMIN")],
            "CAP_SYS_ADMIN",
        ),
        (
            &[("SystemCallFilter", "@system-service")],
            "`SystemCallFilter=@mount`",
        ),
        (
            &[("SystemCallFilter", "@basic-io")],
            "`SystemCallFilter=@mount @process`",
        ),
        (
            &[("SystemCallFilter", "~@mount")],
            "`SystemCallFilter=@mount`",
        ),
        (&[("PrivateUsers", "yes")], "PrivateUsers=no"),
        (&[("RootDirectory", "/srv/a")], "scope: host"),
        (&[("ProcSubset", "pid")], "ProcSubset=all"),
        (&[("ProtectHome", "tmpfs")], "ProtectHome=no"),
    ];
    for (text, remedy) in forbidden {
        let found = of(text);
        assert!(
            found.len() == 1 && found[0].contains(remedy),
            "{text:?}: {found:?}"
        );
    }
}
