//! The directory of the templates, and the mount namespace that they are in.
//!
//! Templates are in a mount namespace of their own, so that the host's mount table does not have
//! them, and nobody but root can reach them. The namespace has no mount of the host, except for
//! `/proc`. A bind mount pins it while there are templates (`namespaces(7)`). The classic engine
//! cannot clone mounts of another namespace; there, the templates are in the host's.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::fcntl::AT_FDCWD;
use sys_mount::{Mount, MountFlags};

use super::backend::{make_private, mount};
use super::features::Choice;
use crate::base::hints::Doing;
use crate::base::sync::lock;
use crate::base::{Error, ErrorContext, Extent, Result};
use crate::observe::{self, TEMPLATE_SOURCE};
use crate::sys;

/// The flags of all tmpfs mounts here and of templates.
pub(super) const FLAGS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// The mount namespace of a template.
enum TemplateNamespace {
    /// This one, the host's.
    Here,
    /// One of the templates' own.
    Apart(Arc<OwnedFd>),
    /// One of the templates' own that nothing pins any more.
    Lost,
}

/// Where templates are.
pub(super) struct TemplatePlace {
    /// A private tmpfs.
    directory: PathBuf,
    /// This engine makes templates in a namespace of their own.
    apart: bool,
    /// That namespace, once it is open.
    namespace: Mutex<Option<Arc<OwnedFd>>>,
}

impl TemplatePlace {
    pub(super) fn new(directory: PathBuf, choice: Choice) -> Self {
        Self {
            directory,
            apart: choice == Choice::Detached,
            namespace: Mutex::default(),
        }
    }

    /// Whether the namespace that is open is the one that is pinned. Then the place is whole, since
    /// it is made and removed with the pin.
    pub(super) fn is_still_open(&self) -> bool {
        let open = match lock(&self.namespace).as_ref() {
            Some(namespace) => sys::stat_fd(namespace),
            None => return false,
        };
        let Ok(open) = open else {
            return false;
        };
        match sys::stat_at(AT_FDCWD, &self.pin()) {
            Ok(pinned) => pinned.file == open.file,
            Err(_) => false,
        }
    }

    /// Whether this engine can use the template that is mounted on `root`, if one is.
    pub(super) fn can_use(&self, root: &Path) -> bool {
        self.apart || !self.pin().exists() || is_mounted(root).unwrap_or(false)
    }

    /// Does `work` in the namespace of the template whose directory is `root`.
    ///
    /// Errors: the namespace of the templates is lost.
    pub(super) fn within<T: Send>(
        &self,
        root: &Path,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        match self.namespace_of(root)? {
            TemplateNamespace::Here => Ok(work()),
            TemplateNamespace::Apart(namespace) => sys::on_thread(|| {
                sys::enter_mount_namespace(&namespace)?;
                Ok(work())
            })
            .context("cannot enter the mount namespace of the templates"),
            TemplateNamespace::Lost => {
                let pin = self.pin();
                Err(Error::failed(format!(
                    "the mount namespace of the templates is lost: {} does not pin it any more",
                    pin.display()
                ))
                .hint("make new templates: `mountjail up --all`"))
            }
        }
    }

    /// Unmounts the template, and removes the directory `root` that it is mounted on. Nothing is
    /// mounted there if the namespace is lost.
    pub(super) fn unmount(&self, root: &Path) -> Result<io::Result<()>> {
        match self.namespace_of(root)? {
            TemplateNamespace::Lost => Ok(fs::remove_dir(root)),
            _ => self.within(root, || {
                unmount_all(root)?;
                fs::remove_dir(root)
            }),
        }
    }

    fn namespace_of(&self, root: &Path) -> Result<TemplateNamespace> {
        if !self.apart || is_mounted(root).unwrap_or(false) {
            return Ok(TemplateNamespace::Here);
        }
        let mut known = lock(&self.namespace);
        if let Some(namespace) = known.as_ref() {
            return Ok(TemplateNamespace::Apart(Arc::clone(namespace)));
        }
        let pinned = sys::pinned_namespace(&self.pin())
            .context("cannot open the mount namespace of the templates")?;
        Ok(match pinned {
            Some(pinned) => TemplateNamespace::Apart(Arc::clone(known.insert(Arc::new(pinned)))),
            None => TemplateNamespace::Lost,
        })
    }

    /// Makes the directory and the namespace, or what of them is missing.
    pub(super) fn make(&self) -> Result<()> {
        let directory = self.directory.display();
        let cannot = format_args!("cannot make a place for templates in {directory}");
        self.make_io()
            .context(cannot)
            .map_err(|error| error.hint_while(Doing::MakingTemplates))
    }

    fn make_io(&self) -> io::Result<()> {
        let directory = &self.directory;
        make_tmpfs(directory, "mode=0700")?;
        make_private(directory, Extent::Mount)?;
        if self.apart {
            self.make_namespace()?;
        }
        Ok(())
    }

    /// Removes the directory with all that is in it.
    pub(super) fn remove(&self) -> Result<()> {
        *lock(&self.namespace) = None;
        self.remove_io().context(format_args!(
            "cannot remove the place of the templates, {}",
            self.directory.display()
        ))
    }

    fn remove_io(&self) -> io::Result<()> {
        for path in [&self.pin(), &self.directory] {
            if path.exists() {
                unmount_all(path)?;
            }
        }
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn make_namespace(&self) -> io::Result<()> {
        let pin = self.pin();
        if let Some(pinned) = sys::pinned_namespace(&pin)? {
            *lock(&self.namespace) = Some(Arc::new(pinned));
            return Ok(());
        }

        let directory = &self.directory;
        let mut namespace = sys::on_thread(|| new_namespace(directory))?;
        fs::write(&pin, "")?;
        let mut pinned = bind_namespace(&namespace, &pin);
        // The kernel pins a namespace only in one with a smaller id. Each processor gives ids that
        // rise, but another one may give smaller ones (Linux 6.18).
        for processor in sys::usable_processors()? {
            let Err(error) = &pinned else { break };
            if error.raw_os_error() != Some(libc::EINVAL) {
                break;
            }
            namespace = sys::on_thread(|| {
                sys::enter_mount_namespace(&namespace)?;
                sys::run_on(processor)?;
                sys::new_mount_namespace()?;
                sys::mount_namespace()
            })?;
            pinned = bind_namespace(&namespace, &pin);
        }
        pinned?;
        *lock(&self.namespace) = Some(Arc::new(namespace));
        Ok(())
    }

    fn pin(&self) -> PathBuf {
        observe::pin(&self.directory)
    }
}

/// Keeps the namespace by a bind mount on `pin`.
fn bind_namespace(namespace: &OwnedFd, pin: &Path) -> io::Result<()> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", namespace.as_raw_fd()));
    mount(&path, pin, MountFlags::BIND)
}

/// A mount namespace with nothing but `/proc` and the directory of the templates. This thread is in
/// it afterwards.
fn new_namespace(directory: &Path) -> io::Result<OwnedFd> {
    sys::new_mount_namespace()?;
    let root = directory.join("root");
    fs::create_dir_all(&root)?;
    Mount::builder()
        .fstype("tmpfs")
        .data("mode=0700")
        .flags(FLAGS)
        .mount(TEMPLATE_SOURCE, &root)?;
    bind_inside(&root, directory, MountFlags::BIND)?;
    let all = MountFlags::BIND | MountFlags::REC;
    bind_inside(&root, Path::new("/proc"), all)?;
    sys::change_root(&root)?;
    sys::mount_namespace()
}

/// Binds the directory `path` to where it is in `root`.
fn bind_inside(root: &Path, path: &Path, flags: MountFlags) -> io::Result<()> {
    let inside = root.join(path.strip_prefix("/").unwrap_or(path));
    fs::create_dir_all(&inside)?;
    mount(path, &inside, flags)
}

/// Makes the directory, with an empty tmpfs on it that has the options `data`, if none is there.
pub(super) fn make_tmpfs(directory: &Path, data: &str) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    if !is_mounted(directory)? {
        Mount::builder()
            .fstype("tmpfs")
            .data(data)
            .flags(FLAGS)
            .mount(TEMPLATE_SOURCE, directory)?;
    }
    Ok(())
}

/// Whether `path` is the root of a mount.
fn is_mounted(path: &Path) -> io::Result<bool> {
    let stat = sys::stat_fd(sys::open_host(path, libc::O_PATH)?)?;
    Ok(stat.mount_root == Some(true))
}

fn unmount_all(path: &Path) -> io::Result<()> {
    while is_mounted(path)? {
        sys::umount_at(sys::open_host(path, libc::O_PATH)?)?;
    }
    Ok(())
}
