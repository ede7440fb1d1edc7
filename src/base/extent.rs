//! How far a call on a mount goes.

/// Which mounts a call concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// The mount alone.
    Mount,
    /// The mount and all mounts below it (`AT_RECURSIVE`, `MS_REC`).
    Tree,
}

impl Extent {
    /// Takes the value of a key or an option `recursive`.
    pub(crate) fn from_recursive(recursive: bool) -> Self {
        if recursive { Self::Tree } else { Self::Mount }
    }

    /// Whether the mounts below are also concerned.
    pub(crate) fn is_recursive(self) -> bool {
        self == Self::Tree
    }
}
