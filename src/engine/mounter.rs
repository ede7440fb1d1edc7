//! The two ways to mount, each with the mounts that it has prepared.

use super::backend::Backend;
use super::classic::Classic;
use super::detached::Detached;
use super::sources::Sources;

/// How many sites an engine serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    /// One. Nothing is kept.
    OneSite,
    /// Several. Prepared mounts are kept for the next sites.
    ManySites,
}

/// A backend with the mounts that it has prepared.
pub(super) struct Mounter<B: Backend> {
    pub backend: B,
    pub sources: Sources<B>,
}

impl<B: Backend> Mounter<B> {
    pub(super) fn new(backend: B, serves: Serves) -> Self {
        let sources = Sources::new(serves == Serves::ManySites);
        Self { backend, sources }
    }
}

/// The two ways to mount.
pub(super) enum Way {
    Detached(Mounter<Detached>),
    Classic(Mounter<Classic>),
}
