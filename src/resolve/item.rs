//! One file or directory that a request brings into the jail.

use std::borrow::Cow;

use super::desired::{Cause, FileId, FileKind};
use super::host::Host;
use super::lookup_error::{LookupError, found};
use super::walk::{LinkOnTheWay, Walk};
use crate::base::{HostPath, JailPath, MountAttributes, lexical};
use crate::manifest::{Origin, SourceFile};

/// One file or directory that the jail is to have.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The name by which the jail looks it up.
    pub path: JailPath,
    /// The host's directory links on the way to `path`, and where its directory really is; `None`:
    /// the manifest names a target of its own, so the host's links do not count.
    pub way: Option<WayTo>,
    /// The file on the host, all links followed.
    pub source: HostPath,
    pub file: FileId,
    pub kind: FileKind,
    /// As requested.
    pub attributes: MountAttributes,
    /// The attributes of the host's mount that `source` lies on; [`MountAttributes::DATA`] where
    /// nothing is requested that they could forbid.
    pub host: MountAttributes,
    /// The manifest sets the attributes, not the class.
    pub fixed: bool,
    pub recursive: bool,
    /// The one link that `path` itself is, if it leads straight to `source`.
    pub leaf: Option<LinkOnTheWay>,
    /// All links between `path` and `source`, if the jail is to have the same links and the file at
    /// its real path. Where a root has something of its own in place of one of them, the file is at
    /// `path`.
    pub links: Option<Vec<LinkOnTheWay>>,
    pub chain: Vec<Cause>,
}

/// How the host comes to the directory that holds a path.
#[derive(Clone, Debug)]
pub(super) struct WayTo {
    pub links: Vec<LinkOnTheWay>,
    pub directory: HostPath,
}

impl Item {
    /// The item that the jail has to find at `path`, the host's own name for it.
    pub(super) fn at(
        host: &Host,
        path: &HostPath,
        attributes: MountAttributes,
        chain: Vec<Cause>,
    ) -> Result<Self, LookupError> {
        let name = JailPath::new(path.as_path()).unwrap_or_else(|_| JailPath::slash());
        Self::named(host, path, name, attributes, chain)
    }

    /// The item for `source` on the host, in the jail at `name`, which the host also knows.
    pub(super) fn named(
        host: &Host,
        source: &HostPath,
        name: JailPath,
        attributes: MountAttributes,
        chain: Vec<Cause>,
    ) -> Result<Self, LookupError> {
        let walk = host.walk(source)?;
        let way = match name.on_host().parent() {
            Some(directory) => found(host.walk(&directory))?.map(|walk| WayTo {
                links: walk.links,
                directory: walk.real,
            }),
            None => None,
        };
        Ok(Self {
            way,
            chain,
            ..Self::new(host, walk, name, attributes)?
        })
    }

    /// The item for `source` on the host, in the jail at the `target` that the manifest names.
    pub(super) fn with_target(
        host: &Host,
        source: &HostPath,
        target: JailPath,
        attributes: MountAttributes,
    ) -> Result<Self, LookupError> {
        Self::new(host, host.walk(source)?, target, attributes)
    }

    fn new(
        host: &Host,
        walk: Walk,
        path: JailPath,
        attributes: MountAttributes,
    ) -> Result<Self, LookupError> {
        host.refuse_strange_links(&walk)?;
        let leaf = match walk.links.last() {
            Some(link) if leads_straight(link, &walk.real) => Some(link.clone()),
            _ => None,
        };
        let host = if attributes.within(MountAttributes::DATA) == attributes {
            MountAttributes::DATA
        } else {
            host.mount_attributes(&walk.real, &walk.stat)?
        };
        Ok(Self {
            path,
            way: None,
            source: walk.real,
            file: walk.stat.file,
            kind: walk.stat.kind,
            attributes,
            host,
            fixed: false,
            recursive: false,
            leaf,
            links: None,
            chain: vec![],
        })
    }

    /// The steps from a line to something that this item brings along because of `cause`.
    pub(super) fn chain_to(&self, cause: Cause) -> Vec<Cause> {
        [self.chain.as_slice(), &[cause]].concat()
    }

    /// The attributes that its mount gets.
    pub(super) fn effective(&self) -> MountAttributes {
        self.attributes.within(self.host)
    }

    /// The same as the line at `origin` requests it. Attributes that an administrator sets for a
    /// mount override those of the host's mount; attributes of files that come along with it, and
    /// those in a built-in preset, do not.
    pub(super) fn requested_at(&self, origin: &Origin) -> Cow<'_, Self> {
        let overrides =
            self.fixed && self.chain.is_empty() && matches!(origin.file, SourceFile::File(_));
        if overrides {
            Cow::Owned(Self {
                host: MountAttributes::OPEN,
                ..self.clone()
            })
        } else {
            Cow::Borrowed(self)
        }
    }
}

/// Whether a link stands for a file itself, and no other link comes after it.
fn leads_straight(link: &LinkOnTheWay, real: &HostPath) -> bool {
    match link.path.parent() {
        Some(directory) if link.last => {
            lexical(directory.as_path(), &link.destination) == real.as_path()
        }
        _ => false,
    }
}
