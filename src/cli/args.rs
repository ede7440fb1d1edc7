//! Arguments that commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice, ValueEnum};

use super::complete;
use crate::site::out::{Out, Verbosity};
use crate::site::trust::Trust;
use crate::site::{Context, Selection};

/// How many seconds a site's file systems may be silent before the site is given up.
const DEFAULT_LIMIT: u64 = 10;

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Directory of sites/, presets/ and defaults.yaml
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "MOUNTJAIL_CONFIG_DIR",
        default_value = "/etc/mountjail"
    )]
    config_dir: PathBuf,
    /// Directory of the records [default: /run/mountjail and /var/lib/mountjail]
    #[arg(long, global = true, value_name = "DIR", env = "MOUNTJAIL_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Give up on a site whose file systems do not answer for this long; 0: never [default: 10]
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(..=86400)
    )]
    timeout: Option<u64>,
    /// Report each step
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Report errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// When words have colours; auto: on a terminal
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    /// The id of the mount namespace that this process is in, if it is that of a service.
    #[arg(skip)]
    pub(super) namespace: Option<String>,
    /// Whether the root directory of this process is that of an image.
    #[arg(skip)]
    pub(super) is_in_image: bool,
}

impl Global {
    pub(super) fn verbosity(&self) -> Verbosity {
        match (self.verbose, self.quiet) {
            (true, _) => Verbosity::Verbose,
            (_, true) => Verbosity::Quiet,
            _ => Verbosity::Normal,
        }
    }

    /// `--color`, as the streams take it.
    pub(super) fn anstream_color(&self) -> anstream::ColorChoice {
        match self.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        }
    }

    /// How long a file system may be silent; `None`: for ever.
    pub(super) fn limit(&self) -> Option<Duration> {
        let seconds = self.timeout.unwrap_or(DEFAULT_LIMIT);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// The context that the commands share, for as long as this process lives.
    pub(super) fn context(
        self,
        trust: Trust,
        out: &'static Out,
    ) -> crate::Result<&'static Context> {
        let limit = self.limit();
        let mut context = Context::new(self.config_dir, self.state_dir, limit, trust, out)?;
        context.is_in_image = self.is_in_image;
        if let Some(namespace) = &self.namespace {
            context = context.with_state(context.state.of_namespace(namespace));
        }
        Ok(Box::leak(Box::new(context)))
    }
}

/// The image that a command works on, in place of the host.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ImageRoot {
    /// Work on an image that is being built: PREFIX is its root, and all paths are in it
    #[arg(long, value_name = "PREFIX")]
    pub(super) root: Option<PathBuf>,
}

/// Which sites a command is for.
#[derive(Clone, Debug, Default, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// Names of sites, or paths of manifests (with a `/`, or ending in `.yaml`); NAME@: all sites
    /// of a template
    #[arg(value_name = "SITE", add = complete::site())]
    pub(super) sites: Vec<String>,
    /// All sites of the configuration
    #[arg(long)]
    pub(super) all: bool,
}

impl Which {
    pub(super) fn selection(&self) -> Selection {
        if self.all {
            Selection::All
        } else {
            Selection::Named(self.sites.clone())
        }
    }
}

/// The sites that a command is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnlyScope {
    /// Those whose mounts are on the host.
    Host,
}
