//! The closure of a program is what the dynamic loader finds, on this host's programs and on built
//! cases.
//!
//! The tests run the real loader and compilers; mountjail's own code runs nothing. They need gcc
//! with multilib, musl-gcc and ldconfig.

#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use mountjail::base::HostPath;
use mountjail::resolve::Host;
use mountjail::resolve::ldso::{Closure, Loader, RealProgram, cache, elf};

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

fn host_path(path: impl AsRef<Path>) -> HostPath {
    HostPath::new(path).unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What `ld.so --list` prints: real paths. The vdso has none; the loader itself is the interpreter.
fn listed(file: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let output = Command::new(LOADER)
        .arg("--list")
        .arg(file)
        .env_clear()
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.rsplit_once(" (0x")?.0;
        path.starts_with('/')
            .then(|| fs::canonicalize(path).unwrap())
    });
    Ok(paths
        .filter(|path| *path != fs::canonicalize(LOADER).unwrap())
        .collect())
}

fn found(closure: &Closure) -> BTreeSet<PathBuf> {
    closure
        .libraries
        .iter()
        .map(|needed| fs::canonicalize(needed.path.as_path()).unwrap())
        .collect()
}

fn is_dynamic_x86_64(file: &Path) -> bool {
    let Ok(file) = fs::File::open(file) else {
        return false;
    };
    elf::Object::read(&file).is_ok_and(|object| {
        object.interpreter.as_deref() == Some(LOADER.as_bytes()) && object.abi.machine == 62
    })
}

#[test]
fn every_program_of_this_host_has_the_libraries_that_the_loader_lists() {
    let host = Host::new();
    let loader = Loader::read(&host).unwrap();
    let mut files = BTreeSet::new();
    for directory in ["/usr/bin", "/usr/sbin"] {
        for entry in fs::read_dir(directory).unwrap() {
            // The kernel tells a program its real place, `--list` believes its argument.
            files.extend(
                fs::canonicalize(entry.unwrap().path())
                    .ok()
                    .filter(|file| is_dynamic_x86_64(file)),
            );
        }
    }
    let mut compared = 0;
    for file in &files {
        match (loader.closure(&host_path(file)), listed(file)) {
            (Ok(closure), Ok(expected)) => {
                assert_eq!(found(&closure), expected, "{}", file.display());
                assert_eq!(closure.interpreter, Some(host_path(LOADER)));
                compared += 1;
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("{}: {ours:?}, but the loader: {theirs:?}", file.display()),
        }
    }
    assert!(compared > 50, "only {compared} programs were compared");
}

#[test]
fn the_libraries_of_this_host_have_the_libraries_that_the_loader_lists() {
    let host = Host::new();
    let loader = Loader::read(&host).unwrap();
    let directory = Path::new("/usr/lib/x86_64-linux-gnu");
    let mut compared = 0;
    let files: BTreeSet<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for file in files {
        let named = file.to_string_lossy().contains(".so.");
        let Ok(opened) = fs::File::open(&file) else {
            continue;
        };
        if !named
            || !elf::Object::read(&opened).is_ok_and(|o| o.interpreter.is_none() && !o.program)
        {
            continue;
        }
        let Ok(expected) = listed(&file) else {
            continue;
        };
        let closure = loader.closure(&host_path(&file)).unwrap();
        assert_eq!(found(&closure), expected, "{}", file.display());
        compared += 1;
        if compared == 150 {
            break; // as many as a few seconds allow
        }
    }
    assert!(compared > 20, "only {compared} libraries were compared");
}

/// A directory for built programs, without links on the way.
struct Built {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Built {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        Self { _dir: dir, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Compiles `source` to `out` with `cc` and `arguments`; `@` in them stands for the directory.
    fn cc(&self, compiler: &str, out: &str, source: &str, arguments: &[&str]) -> PathBuf {
        let out = self.path(out);
        let code = out.with_extension("in.c");
        fs::write(&code, source).unwrap();
        let root = self.root.to_str().unwrap();
        let arguments = arguments.iter().map(|argument| argument.replace('@', root));
        run(Command::new(compiler)
            .arg("-o")
            .arg(&out)
            .arg(&code)
            .args(arguments));
        out
    }

    fn library(&self, out: &str, arguments: &[&str]) -> PathBuf {
        self.library_by("cc", out, arguments)
    }

    /// A shared library whose soname is its file name, unless `arguments` say otherwise.
    fn library_by(&self, compiler: &str, out: &str, arguments: &[&str]) -> PathBuf {
        let name = Path::new(out).file_name().unwrap().to_str().unwrap();
        let soname = format!("-Wl,-soname,{name}");
        let function = name.split('.').next().unwrap().replace('-', "_");
        let all = [
            &["-shared", "-fPIC", "-Wl,--no-as-needed", &soname][..],
            arguments,
        ]
        .concat();
        self.cc(
            compiler,
            out,
            &format!("int {function}(void) {{ return 0; }}"),
            &all,
        )
    }

    fn program(&self, out: &str, arguments: &[&str]) -> PathBuf {
        let lenient = ["-Wl,--no-as-needed", "-Wl,--unresolved-symbols=ignore-all"];
        self.cc(
            "cc",
            out,
            "int main(void) { return 0; }",
            &[&lenient[..], arguments].concat(),
        )
    }

    /// The closure by ours, after a check that the real loader says the same.
    fn agreed(&self, program: &Path) -> Vec<String> {
        let host = Host::new();
        let closure = Loader::read(&host)
            .unwrap()
            .closure(&host_path(program))
            .unwrap();
        assert_eq!(
            found(&closure),
            listed(program).unwrap(),
            "{}",
            program.display()
        );
        self.names(&closure)
    }

    /// Both refuse; ours with these words.
    fn refused(&self, program: &Path) -> (String, String) {
        assert!(
            listed(program).is_err(),
            "the loader loads {}",
            program.display()
        );
        let host = Host::new();
        let error = Loader::read(&host)
            .unwrap()
            .closure(&host_path(program))
            .unwrap_err();
        (
            error.to_string().replace(self.root.to_str().unwrap(), "@"),
            error.hint_text().unwrap().to_owned(),
        )
    }

    /// The libraries below the directory, relative to it, in the loader's order.
    fn names(&self, closure: &Closure) -> Vec<String> {
        let below = closure
            .libraries
            .iter()
            .filter_map(|l| l.path.as_path().strip_prefix(&self.root).ok());
        below
            .map(|path| path.to_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn rpath_is_inherited_and_runpath_is_not() {
    let built = Built::new();
    built.library("deep/libdeep.so.1", &[]);
    built.library("lib/libouter.so.1", &["@/deep/libdeep.so.1"]);
    let rpath = "-Wl,--disable-new-dtags,-rpath,@/lib:@/deep";
    let runpath = "-Wl,--enable-new-dtags,-rpath,@/lib:@/deep";
    let with_rpath = built.program("bin/rpath", &["@/lib/libouter.so.1", rpath]);
    assert_eq!(
        built.agreed(&with_rpath),
        ["lib/libouter.so.1", "deep/libdeep.so.1"]
    );

    let with_runpath = built.program("bin/runpath", &["@/lib/libouter.so.1", runpath]);
    let (message, hint) = built.refused(&with_runpath);
    let chain = "library libdeep.so.1, needed by @/lib/libouter.so.1, needed by @/bin/runpath, was \
                 not found in: ";
    assert!(message.starts_with(chain), "{message}");
    assert!(
        message.contains("/etc/ld.so.cache, /lib/x86_64-linux-gnu, /usr/lib/x86_64-linux-gnu"),
        "{message}"
    );
    assert!(
        !message.contains("RPATH") && !message.contains("RUNPATH"),
        "{message}"
    );
    assert!(
        hint.contains("install the package that has libdeep.so.1"),
        "{hint}"
    );
}

#[test]
fn an_object_with_a_runpath_does_not_see_its_loaders_rpath() {
    let built = Built::new();
    built.library("deep/libdeep.so.1", &[]);
    let own = "-Wl,--enable-new-dtags,-rpath,/nonexistent";
    built.library("lib/libouter.so.1", &["@/deep/libdeep.so.1", own]);
    let rpath = "-Wl,--disable-new-dtags,-rpath,@/lib:@/deep";
    let program = built.program("bin/prog", &["@/lib/libouter.so.1", rpath]);
    let (message, _) = built.refused(&program);
    assert!(
        message.contains("/nonexistent (RUNPATH of @/lib/libouter.so.1)"),
        "{message}"
    );
}

#[test]
fn origin_and_lib_stand_for_what_the_loader_puts_there() {
    let built = Built::new();
    built.library(
        "app/lib/liba.so.1",
        &["-Wl,-rpath,$ORIGIN/inner", "-L@/app/lib/inner"],
    );
    built.library("app/lib/inner/libb.so.1", &[]);
    built.library(
        "app/lib/liba.so.1",
        &["@/app/lib/inner/libb.so.1", "-Wl,-rpath,${ORIGIN}/inner"],
    );
    built.library("app/lib/x86_64-linux-gnu/libc2.so.1", &[]);
    let rpath = "-Wl,-rpath,$ORIGIN/../lib:${ORIGIN}/../$LIB";
    let libraries = [
        "@/app/lib/liba.so.1",
        "@/app/lib/x86_64-linux-gnu/libc2.so.1",
        rpath,
    ];
    let program = built.program("app/bin/prog", &libraries);
    let expected = [
        "app/lib/liba.so.1",
        "app/lib/x86_64-linux-gnu/libc2.so.1",
        "app/lib/inner/libb.so.1",
    ];
    assert_eq!(built.agreed(&program), expected);

    let link = built.path("elsewhere/prog");
    symlink(&program, &link).unwrap();
    let host = Host::new();
    let closure = Loader::read(&host)
        .unwrap()
        .closure(&host_path(&link))
        .unwrap();
    assert_eq!(
        built.names(&closure),
        expected,
        "the kernel tells a program its real directory"
    );
    let origin = RealProgram {
        program: host_path(&link),
        real: host_path(&program),
    };
    assert_eq!(closure.origins, [origin]);
    assert!(
        Loader::read(&host)
            .unwrap()
            .closure(&host_path(&program))
            .unwrap()
            .origins
            .is_empty()
    );
    run(&mut Command::new(&link));
}

#[test]
fn files_for_another_machine_are_skipped_and_broken_ones_are_fatal() {
    let built = Built::new();
    built.library_by("cc", "narrow/liba.so.1", &["-m32", "-nostdlib"]);
    built.library("wide/liba.so.1", &[]);
    let rpath = "-Wl,-rpath,@/narrow:@/wide";
    let program = built.program("bin/prog", &["@/wide/liba.so.1", rpath]);
    assert_eq!(built.agreed(&program), ["wide/liba.so.1"]);

    let only_narrow = built.program("bin/narrow", &["@/wide/liba.so.1", "-Wl,-rpath,@/narrow"]);
    let (_, hint) = built.refused(&only_narrow);
    assert!(
        hint.contains("narrow/liba.so.1 is for 32-bit x86; install liba.so.1 for x86-64"),
        "{hint}"
    );

    fs::write(built.path("text/liba.so.1"), "GROUP ( /lib/liba.so )").unwrap();
    let stops = built.program(
        "bin/text",
        &["@/wide/liba.so.1", "-Wl,-rpath,@/text:@/wide"],
    );
    let (message, _) = built.refused(&stops);
    let expected = "cannot use @/text/liba.so.1 as the library liba.so.1, needed by @/bin/text: it \
                    is not an ELF file";
    assert_eq!(message, expected);
}

#[test]
fn a_32_bit_program_gets_32_bit_libraries() {
    let built = Built::new();
    let program = built.cc(
        "cc",
        "bin/narrow",
        "int main(void) { return 0; }",
        &["-m32"],
    );
    let host = Host::new();
    let closure = Loader::read(&host)
        .unwrap()
        .closure(&host_path(&program))
        .unwrap();
    assert_eq!(closure.interpreter, Some(host_path("/lib/ld-linux.so.2")));
    let libc = fs::File::open(closure.libraries[0].path.as_path()).unwrap();
    assert!(!elf::Object::read(&libc).unwrap().abi.wide);
}

#[test]
fn a_soname_already_loaded_satisfies_a_later_need() {
    let built = Built::new();
    built.library("lib/libfile.so", &["-Wl,-soname,libreal.so.7"]);
    fs::copy(
        built.path("lib/libfile.so"),
        built.path("link/libreal.so.7"),
    )
    .unwrap();
    built.library("lib/libuser.so.1", &["@/link/libreal.so.7"]);
    // Needed by path, because there is no soname in the copy that is linked against.
    built.library("named/libfile.so", &["-Wl,-soname,@/lib/libfile.so"]);
    let rpath = "-Wl,--disable-new-dtags,-rpath,@/lib";
    let program = built.program(
        "bin/prog",
        &["@/named/libfile.so", "@/lib/libuser.so.1", rpath],
    );
    assert_eq!(
        built.agreed(&program),
        ["lib/libfile.so", "lib/libuser.so.1"]
    );
}

#[test]
fn two_names_of_one_file_are_one_object_and_both_names_are_reported() {
    let built = Built::new();
    built.library("lib/libone.so.1", &[]);
    symlink("libone.so.1", built.path("lib/libtwo.so.1")).unwrap();
    built.library("link/libtwo.so.1", &[]);
    let arguments = [
        "@/lib/libone.so.1",
        "@/link/libtwo.so.1",
        "-Wl,-rpath,@/lib",
    ];
    let program = built.program("bin/prog", &arguments);
    assert_eq!(
        built.agreed(&program),
        ["lib/libone.so.1", "lib/libtwo.so.1"]
    );
}

#[test]
fn libraries_that_need_each_other_come_once() {
    let built = Built::new();
    built.library("lib/liba.so.1", &[]);
    built.library("lib/libb.so.1", &["@/lib/liba.so.1"]);
    built.library("lib/liba.so.1", &["@/lib/libb.so.1"]);
    let rpath = "-Wl,--disable-new-dtags,-rpath,@/lib";
    let program = built.program("bin/prog", &["@/lib/liba.so.1", rpath]);
    assert_eq!(built.agreed(&program), ["lib/liba.so.1", "lib/libb.so.1"]);
}

#[test]
fn an_auxiliary_library_may_be_absent_and_a_filter_may_not() {
    let built = Built::new();
    built.library("lib/libaux.so.1", &["-Wl,--auxiliary,libabsent.so.1"]);
    let program = built.program("bin/aux", &["@/lib/libaux.so.1", "-Wl,-rpath,@/lib"]);
    assert_eq!(built.agreed(&program), ["lib/libaux.so.1"]);
    built.library("lib/libfilter.so.1", &["-Wl,--filter,libabsent.so.1"]);
    let program = built.program("bin/filter", &["@/lib/libfilter.so.1", "-Wl,-rpath,@/lib"]);
    assert!(
        built
            .refused(&program)
            .0
            .starts_with("library libabsent.so.1, needed by @/lib/libfilter.so.1")
    );
}

#[test]
fn without_default_libraries_the_default_directories_are_not_searched() {
    let built = Built::new();
    let program = built.program("bin/prog", &["-Wl,-z,nodefaultlib"]);
    assert!(
        built
            .refused(&program)
            .0
            .starts_with("library libc.so.6, needed by @/bin/prog")
    );
}

#[test]
fn hwcaps_subdirectories_that_the_cpu_can_run_come_first() {
    let built = Built::new();
    built.library("lib/libh.so.1", &[]);
    built.library("lib/glibc-hwcaps/x86-64-v2/libh.so.1", &[]);
    built.library("lib/glibc-hwcaps/x86-64-v3/libh.so.1", &[]);
    let program = built.program("bin/prog", &["@/lib/libh.so.1", "-Wl,-rpath,@/lib"]);
    let names = built.agreed(&program);
    let help = run(Command::new(LOADER).arg("--help"));
    let best = ["x86-64-v3", "x86-64-v2"]
        .iter()
        .find(|level| help.contains(&format!("{level} (supported")));
    let expected = best.map_or("lib/libh.so.1".to_owned(), |l| {
        format!("lib/glibc-hwcaps/{l}/libh.so.1")
    });
    assert_eq!(names, [expected]);
}

#[test]
fn static_programs_need_nothing() {
    let built = Built::new();
    let source = "int main(void) { return 0; }";
    let host = Host::new();
    for kind in ["-static", "-static-pie"] {
        let program = built.cc("cc", &format!("bin/a{kind}"), source, &[kind]);
        assert_eq!(
            Loader::read(&host)
                .unwrap()
                .closure(&host_path(program))
                .unwrap(),
            Closure::default(),
            "{kind}"
        );
    }
}

#[test]
fn a_musl_program_gets_musls_loader_and_no_glibc() {
    let built = Built::new();
    built.library_by("musl-gcc", "lib/libm2.so.1", &[]);
    built.library_by("musl-gcc", "lib/libouter.so.1", &["@/lib/libm2.so.1"]);
    let source = "int main(void) { return 0; }";
    let arguments = [
        "-Wl,--no-as-needed",
        "-Wl,-rpath-link,@/lib",
        "@/lib/libouter.so.1",
    ];
    // musl inherits RUNPATH, glibc does not.
    let arguments = [
        &arguments[..],
        &["-Wl,--enable-new-dtags,-rpath,$ORIGIN/../lib"],
    ]
    .concat();
    let program = built.cc("musl-gcc", "bin/prog", source, &arguments);
    run(&mut Command::new(&program));
    let host = Host::new();
    let closure = Loader::read(&host)
        .unwrap()
        .closure(&host_path(&program))
        .unwrap();
    assert_eq!(
        closure.interpreter,
        Some(host_path("/lib/ld-musl-x86_64.so.1"))
    );
    assert_eq!(
        built.names(&closure),
        ["lib/libouter.so.1", "lib/libm2.so.1"]
    );
    assert_eq!(
        closure.libraries.len(),
        2,
        "libc.so is the loader: {closure:?}"
    );
    assert_eq!(
        closure.loader_configuration,
        [host_path("/etc/ld-musl-x86_64.path")]
    );
}

#[test]
fn scripts_bring_their_interpreter_and_envs_program() {
    let built = Built::new();
    let script = |name: &str, text: &str| {
        let path = built.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let host = Host::new();
    let loader = Loader::read(&host).unwrap();
    let programs = |path: &Path| {
        let closure = loader.closure(&host_path(path)).unwrap();
        assert!(!closure.libraries.is_empty() && closure.interpreter.is_some());
        closure
            .script_interpreters
            .iter()
            .map(|needed| needed.path.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(programs(&script("plain", "#!/bin/sh -e\n")), ["/bin/sh"]);
    assert_eq!(
        programs(&script("env", "#!/usr/bin/env sh\n")),
        ["/usr/bin/env", "/usr/bin/sh"]
    );
    let inner = script("inner", "#!/bin/sh\n");
    let outer = script("outer", &format!("#!{}\n", inner.display()));
    assert_eq!(programs(&outer), [inner.to_str().unwrap(), "/bin/sh"]);

    let error = loader
        .closure(&host_path(script(
            "none",
            "#!/usr/bin/env no-such-program\n",
        )))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("program no-such-program, needed by the script "),
        "{error}"
    );
    let error = loader
        .closure(&host_path(script("gone", "#!/no/such/sh\n")))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("cannot read /no/such/sh: /no does not exist"),
        "{error}"
    );
    let error = loader
        .closure(&host_path(script("data", "hello\n")))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is neither an ELF file nor a script"),
        "{error}"
    );
}

#[test]
fn scripts_nest_as_deep_as_the_kernel_allows() {
    let built = Built::new();
    let host = Host::new();
    let mut program = PathBuf::from("/bin/true");
    for depth in 1..=7 {
        let path = built.path(&format!("script{depth}"));
        fs::write(&path, format!("#!{}\n", program.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let kernel = loop {
            // A process that another test starts has the script open for writing for an instant.
            match Command::new(&path).status() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
                status => break status.is_ok(),
            }
        };
        let ours = Loader::read(&host).unwrap().closure(&host_path(&path));
        assert_eq!(ours.is_ok(), kernel, "{depth} deep: {ours:?}");
        program = path;
    }
}

/// A tree with its own loader, libc and `/opt/lib`, which `ld.so.conf.d` names.
fn tree(built: &Built) -> Host {
    for file in [LOADER, "/lib/x86_64-linux-gnu/libc.so.6"] {
        fs::copy(file, built.path(&format!("tree{file}"))).unwrap();
    }
    fs::write(
        built.path("tree/etc/ld.so.conf"),
        "include /etc/ld.so.conf.d/*.conf\n",
    )
    .unwrap();
    fs::write(built.path("tree/etc/ld.so.conf.d/opt.conf"), "/opt/lib\n").unwrap();
    built.library("tree/opt/lib/libopt.so.1", &[]);
    built.program("tree/bin/prog", &["@/tree/opt/lib/libopt.so.1"]);
    Host::at(built.root.join("tree"))
}

fn ldconfig(built: &Built) {
    let ldconfig = ["/sbin/ldconfig", "/usr/sbin/ldconfig"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    run(Command::new(ldconfig.unwrap())
        .arg("-r")
        .arg(built.root.join("tree")));
}

#[test]
fn a_directory_of_ld_so_conf_counts_once_ldconfig_has_run() {
    let built = Built::new();
    let before = tree(&built);
    let error = Loader::read(&before)
        .unwrap()
        .closure(&host_path("/bin/prog"))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("library libopt.so.1, needed by /bin/prog, was not found in: ")
    );
    assert_eq!(
        error.hint_text().unwrap(),
        "/opt/lib, which /etc/ld.so.conf.d/opt.conf names, has it, but /etc/ld.so.cache does not: \
         run `ldconfig`"
    );

    ldconfig(&built);
    let after = Host::at(built.root.join("tree"));
    let closure = Loader::read(&after)
        .unwrap()
        .closure(&host_path("/bin/prog"))
        .unwrap();
    let paths: Vec<_> = closure
        .libraries
        .iter()
        .map(|needed| needed.path.to_string())
        .collect();
    assert_eq!(
        paths,
        ["/opt/lib/libopt.so.1", "/lib/x86_64-linux-gnu/libc.so.6"]
    );
    let files: Vec<_> = closure
        .loader_configuration
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        files,
        [
            "/etc/ld.so.cache",
            "/etc/ld.so.conf",
            "/etc/ld.so.conf.d/opt.conf"
        ]
    );
}

#[test]
fn the_cache_of_every_format_is_read() {
    let built = Built::new();
    tree(&built);
    built.library("tree/opt/lib/glibc-hwcaps/x86-64-v2/libopt.so.1", &[]);
    for format in ["new", "compat"] {
        let root = built.root.join("tree");
        run(Command::new("/sbin/ldconfig")
            .args(["-c", format, "-r"])
            .arg(&root));
        let cache = cache::parse(&fs::read(root.join("etc/ld.so.cache")).unwrap()).unwrap();
        let find = |caps: &[&str]| cache.find(b"libopt.so.1", 0x0303, caps).map(<[u8]>::to_vec);
        assert_eq!(find(&[]).unwrap(), b"/opt/lib/libopt.so.1", "{format}");
        let best = find(&["x86-64-v3", "x86-64-v2"]).unwrap();
        assert_eq!(
            best, b"/opt/lib/glibc-hwcaps/x86-64-v2/libopt.so.1",
            "{format}"
        );
    }
}

#[test]
fn the_cache_of_this_host_has_what_ldconfig_prints() {
    let bytes = fs::read("/etc/ld.so.cache").unwrap();
    let cache = cache::parse(&bytes).unwrap();
    let printed = run(Command::new("/sbin/ldconfig").arg("-p"));
    let names: BTreeSet<_> = printed
        .lines()
        .filter_map(|l| l.strip_prefix('\t')?.split(' ').next())
        .collect();
    assert_eq!(cache.len(), names.len());
    assert!(!cache.is_empty());
    let step = (bytes.len() / 400).max(1);
    for at in (0..bytes.len()).step_by(step) {
        let _ = cache::parse(&bytes[..at]);
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x80;
        let _ = cache::parse(&flipped);
    }
}

#[test]
fn the_default_directories_are_the_loaders_own() {
    let built = Built::new();
    for (flag, loader) in [("-m64", LOADER), ("-m32", "/lib/ld-linux.so.2")] {
        let diagnostics = run(Command::new(loader).arg("--list-diagnostics"));
        let own = diagnostics.lines().filter_map(|line| {
            let (_, path) = line.strip_prefix("path.system_dirs[")?.split_once('=')?;
            Some(path.trim_matches('"').trim_end_matches('/').to_owned())
        });
        let own: Vec<_> = own.collect();
        assert!(!own.is_empty());
        let source = "int main(void) { return 0; }";
        let absent = built.library(&format!("lib{flag}/libabsent.so.1"), &[flag, "-nostdlib"]);
        let arguments = [
            flag,
            "-nostdlib",
            "-Wl,--no-as-needed",
            absent.to_str().unwrap(),
        ];
        let program = built.cc("cc", &format!("bin/prog{flag}"), source, &arguments);
        let host = Host::new();
        let error = Loader::read(&host)
            .unwrap()
            .closure(&host_path(program))
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with(&format!("in: /etc/ld.so.cache, {}", own.join(", "))),
            "{error}"
        );
    }
}

#[test]
fn needs_that_are_paths_are_opened_as_they_stand() {
    let built = Built::new();
    built.library("lib/liba.so.1", &["-Wl,-soname,$ORIGIN/../lib/liba.so.1"]);
    let program = built.program("bin/prog", &["@/lib/liba.so.1"]);
    assert_eq!(built.agreed(&program), ["lib/liba.so.1"]);

    let relative = built.library("lib/libr.so.1", &["-Wl,-soname,lib/libr.so.1"]);
    let program = built.program("bin/relative", &[relative.to_str().unwrap()]);
    let message = built.refused(&program).0;
    assert!(
        message.starts_with("library lib/libr.so.1, needed by @/bin/relative, is a path"),
        "{message}"
    );
    assert!(
        message.ends_with("relative to a working directory that is not known"),
        "{message}"
    );

    let absolute = built.library("lib/libs.so.1", &["-Wl,-soname,@/lib/libs.so.1"]);
    let program = built.program("bin/absolute", &[absolute.to_str().unwrap()]);
    assert_eq!(built.agreed(&program), ["lib/libs.so.1"]);
    fs::remove_file(absolute).unwrap();
    let message = built.refused(&program).0;
    assert!(
        message.ends_with("needed by @/bin/absolute, does not exist for this machine"),
        "{message}"
    );
}

#[test]
fn a_dangling_link_on_the_search_path_is_named() {
    let built = Built::new();
    built.library("lib/libd.so.1", &[]);
    let program = built.program("bin/prog", &["@/lib/libd.so.1", "-Wl,-rpath,@/lib"]);
    fs::remove_file(built.path("lib/libd.so.1")).unwrap();
    symlink("libd.so.1.2.3", built.path("lib/libd.so.1")).unwrap();
    let (_, hint) = built.refused(&program);
    assert!(
        hint.ends_with("lib/libd.so.1 leads to libd.so.1.2.3, which does not exist"),
        "{hint}"
    );
}

#[test]
fn a_damaged_library_is_an_error_and_never_a_panic() {
    let built = Built::new();
    let runpath = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/inner";
    let file = built.library("lib/liba.so.1", &[runpath, "-Wl,-z,nodefaultlib"]);
    let bytes = fs::read(file).unwrap();
    let whole = elf::parse(&bytes).unwrap();
    assert_eq!(whole.soname.as_deref(), Some(&b"liba.so.1"[..]));
    assert_eq!(whole.runpath.as_deref(), Some(&b"$ORIGIN/inner"[..]));
    assert_eq!(whole.needs[0].name, b"libc.so.6");
    assert!(whole.no_default_directories && !whole.program && whole.dynamic);
    let mut refused = 0;
    let mut changed = bytes.clone();
    for (at, original) in bytes.iter().enumerate() {
        for flip in [0x01, 0x80, 0xff] {
            changed[at] = original ^ flip;
            refused += usize::from(elf::parse(&changed).is_err());
        }
        changed[at] = *original;
        if at % 7 == 0 {
            refused += usize::from(elf::parse(&bytes[..at]).is_err());
        }
    }
    assert!(refused > 100, "{refused} damaged copies were refused");
}

#[test]
fn one_host_serves_many_threads() {
    fn shared<T: Sync>(value: &T) -> &T {
        value
    }
    let host = Host::new();
    let host = shared(&host);
    let closures = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    Loader::read(host)
                        .unwrap()
                        .closure(&host_path("/bin/sh"))
                        .unwrap()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(
        closures
            .iter()
            .all(|closure| *closure == closures[0] && !closure.libraries.is_empty())
    );
}

#[test]
fn a_loader_is_what_its_name_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    // As on a host with musl alone, where programs for glibc's loader are to run.
    let musl = fs::canonicalize("/lib/ld-musl-x86_64.so.1").unwrap();
    fs::copy(musl, at("usr/lib/libc.so")).unwrap();
    symlink("../usr/lib/libc.so", at("lib64/ld-linux-x86-64.so.2")).unwrap();
    fs::write(at("etc/ld-musl-x86_64.path"), "/opt/lib\n").unwrap();
    let source = at("build/l.c");
    fs::write(&source, "int f(void) { return 1; }\n").unwrap();
    let library = at("opt/lib/libf.so");
    let shared = ["-shared", "-nostdlib", "-Wl,-soname,libf.so", "-o"];
    run(Command::new("gcc").args(shared).arg(&library).arg(&source));
    let main = at("build/m.c");
    fs::write(&main, "int f(void); int _start(void) { return f(); }\n").unwrap();
    let program = at("bin/prog");
    run(Command::new("gcc")
        .args(["-nostdlib", "-o"])
        .args([&program, &main, &library]));

    let host = Host::at(dir.path());
    let closure = Loader::read(&host)
        .unwrap()
        .closure(&host_path("/bin/prog"))
        .unwrap();
    let libraries: Vec<_> = closure
        .libraries
        .iter()
        .map(|found| found.path.to_string())
        .collect();
    assert_eq!(libraries, ["/opt/lib/libf.so"], "by musl's own search path");
    let configuration: Vec<_> = closure
        .loader_configuration
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(configuration, ["/etc/ld-musl-x86_64.path"]);
}

#[test]
fn programs_that_ask_the_kernel_where_they_are_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let (library, source) = (dir.path().join("libh.so"), dir.path().join("l.c"));
    fs::write(&source, "int h(void) { return 42; }\n").unwrap();
    let shared = ["-shared", "-fPIC", "-Wl,-soname,libh.so", "-o"];
    run(Command::new("gcc").args(shared).args([&library, &source]));
    let main = dir.path().join("m.c");
    fs::write(&main, "int h(void); int main(void) { return h(); }\n").unwrap();
    let program = |name: &str, search: &str| {
        let program = dir.path().join(name);
        let mut gcc = Command::new("gcc");
        run(gcc
            .arg(format!("-Wl,-rpath,{search}"))
            .arg("-o")
            .args([&program, &main, &library]));
        host_path(program)
    };
    let host = Host::new();
    let needs_proc = |program: &HostPath| {
        let closure = Loader::read(&host).unwrap().closure(program).unwrap();
        closure.needs_proc
    };
    let relative = program("relative", "$ORIGIN");
    assert_eq!(needs_proc(&relative), Some(relative.clone()));
    let absolute = program(
        "absolute",
        &format!("{}:$ORIGIN/none", dir.path().display()),
    );
    assert_eq!(needs_proc(&absolute), None, "nothing is found by it");
}
