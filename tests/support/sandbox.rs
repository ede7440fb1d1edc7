//! One trial's own configuration, state and sites, and the `mountjail` command run on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{schemas, scratch};

/// The variables of the environment of `cargo test` that are passed on to commands.
const KEPT: [&str; 4] = ["PATH", "HOME", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"];

/// A configuration directory, a state directory and room for sites, all new.
pub struct Sandbox {
    dir: PathBuf,
    engine: Option<&'static str>,
}

impl Sandbox {
    /// An empty one.
    pub fn new() -> Self {
        let sandbox = Self {
            dir: scratch(),
            engine: None,
        };
        // Daemons of other users must be able to reach the sites' roots.
        fs::set_permissions(
            &sandbox.dir,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        for dir in ["config/sites", "config/presets", "srv"] {
            sandbox.directory(dir);
        }
        sandbox
    }

    /// As [`Sandbox::new`], with this `MOUNTJAIL_ENGINE`.
    pub fn with_engine(engine: &'static str) -> Self {
        Self {
            engine: Some(engine),
            ..Self::new()
        }
    }

    /// A path in the sandbox.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.join(relative)
    }

    /// What stands for `/etc/mountjail`.
    pub fn config(&self) -> PathBuf {
        self.path("config")
    }

    /// The `--state-dir`.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The root of the site `name`.
    pub fn root(&self, name: &str) -> PathBuf {
        self.path("srv").join(name)
    }

    /// Writes the file `relative`, with its directories, and returns its path.
    pub fn file(&self, relative: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    /// Writes the program `relative`. Another process does it: one that a thread forks in the
    /// meantime would keep the file open for writing, and it could not be executed (`ETXTBSY`).
    pub fn program(&self, relative: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let (text, path) = (self.file("program.new", contents), self.path(relative));
        Ran::of(
            Command::new("install")
                .args(["-D", "-m755"])
                .arg(text)
                .arg(&path),
        )
        .exits(0);
        path
    }

    /// Makes the directory `relative`, with those above it, and returns its path.
    pub fn directory(&self, relative: impl AsRef<Path>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Makes the site `name` with an empty root; `manifest` is what follows the `root:` line.
    pub fn site(&self, name: &str, manifest: &str) -> PathBuf {
        let root = self.root(name);
        fs::create_dir_all(&root).unwrap();
        self.manifest(name, format!("root: {}\n{manifest}", root.display()));
        root
    }

    /// Writes the complete manifest of the site `name`, and returns its path.
    pub fn manifest(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        self.file(format!("config/sites/{name}.yaml"), text)
    }

    /// Writes a preset of this sandbox's own.
    pub fn preset(&self, name: &str, text: &str) -> PathBuf {
        self.file(format!("config/presets/{name}.yaml"), text)
    }

    /// The program, with the environment that makes it use this sandbox; arguments are to be added.
    pub fn command(&self) -> Command {
        self.prepared(Command::new(env!("CARGO_BIN_EXE_mountjail")))
    }

    /// The program run by another one, such as `strace -f`.
    pub fn command_under(&self, runner: &[&str]) -> Command {
        let mut command = Command::new(runner[0]);
        command
            .args(&runner[1..])
            .arg(env!("CARGO_BIN_EXE_mountjail"));
        self.prepared(command)
    }

    /// The program under strace(1) with a fault, such as `mount:error=ENOSPC:when=3`. `more`: other
    /// arguments of strace(1).
    pub fn command_with_fault(&self, fault: &str, more: &[&str]) -> Command {
        let calls = fault.split(':').next().unwrap_or_default();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={fault}"));
        let mut runner = vec![
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
        ];
        runner.extend(more);
        self.command_under(&runner)
    }

    /// A line of the shell, in which `$MOUNTJAIL` is the program, on a terminal of its own:
    /// script(1).
    pub fn command_on_a_terminal(&self, line: &str) -> Command {
        let mut script = self.prepared(Command::new("script"));
        script
            .env("SHELL", "/bin/sh")
            .env("MOUNTJAIL", env!("CARGO_BIN_EXE_mountjail"));
        script.args(["--quiet", "--return", "--command", line, "/dev/null"]);
        script
    }

    /// Runs a line of the shell as [`Sandbox::command_on_a_terminal`].
    #[must_use = "check the exit code, or what it wrote"]
    #[track_caller]
    pub fn on_a_terminal(&self, line: &str) -> Ran {
        Ran::of(&mut self.command_on_a_terminal(line))
    }

    /// Compiles a C program, with all that it needs in it, to the file `relative`.
    pub fn compile(&self, relative: impl AsRef<Path>, source: &str) -> PathBuf {
        let (text, path) = (self.file("program.c", source), self.path(relative));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Ran::of(
            Command::new("gcc")
                .args(["-static", "-pthread", "-w", "-o"])
                .arg(&path)
                .arg(text),
        )
        .exits(0);
        path
    }

    fn prepared(&self, mut command: Command) -> Command {
        let passed_on = KEPT.map(|name| (name, std::env::var_os(name)));
        command
            .env_clear()
            .envs(
                passed_on
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("MOUNTJAIL_CONFIG_DIR", self.config())
            .env("MOUNTJAIL_STATE_DIR", self.state())
            .env("NO_COLOR", "1")
            .env("LC_ALL", "C.UTF-8")
            .stdin(std::process::Stdio::null());
        if let Some(engine) = self.engine {
            command.env("MOUNTJAIL_ENGINE", engine);
        }
        command
    }

    /// Runs `mountjail` with these arguments.
    #[must_use = "check the exit code, or what it wrote"]
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command().args(arguments))
    }

    /// Runs `mountjail` with these arguments; anything but exit code 0 fails the trial.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Ran {
        self.run(arguments).exits(0)
    }
}

/// The result of a finished command.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The exit code; 128 and the signal's number, if one ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ran {
    /// Runs `command` to its end.
    #[must_use = "check the exit code, or what it wrote"]
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command
            .output()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        Self {
            command: format!("{command:?}"),
            arguments: command
                .get_args()
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect(),
            code: status.code().or(signal.map(|n| 128 + n)).unwrap(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "exit code {} instead of {code}\n{self}",
            self.code
        );
        self
    }

    /// Fails unless the standard output contains `text`.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "stdout lacks {text:?}\n{self}");
        self
    }

    /// Fails unless the standard error contains `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "stderr lacks {text:?}\n{self}");
        self
    }

    /// The standard output as JSON, which is as the schema of the command's output says.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let json = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON: {error}\n{self}"));
        let mistakes = schemas::mistakes(&self.arguments, &json);
        assert!(mistakes.is_empty(), "{mistakes:#?}\n{self}");
        json
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
            ..
        } = self;
        write!(
            f,
            "{command}\nexit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}"
        )
    }
}
