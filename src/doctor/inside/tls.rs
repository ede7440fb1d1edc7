//! Certificates of authorities where OpenSSL looks for them, and a handshake that trusts these
//! alone.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use serde::{Deserialize, Serialize};

use super::Probe;
use crate::base::{HostPath, lexical};
use crate::resolve::{Host, LookupError};

/// Where OpenSSL looks: one file of certificates, and a directory of files that are named by
/// hashes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Anchors {
    pub file: Option<PathBuf>,
    pub directory: Option<PathBuf>,
}

/// What is there.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Certificates(pub Anchors);

/// A link that leads nowhere.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Dangling {
    pub link: String,
    pub text: PathBuf,
}

/// The certificates that OpenSSL would find.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct Found {
    /// How many different ones it trusts.
    pub trusted: usize,
    /// Files of the directory that have certificates but no hash for a name, so that OpenSSL opens
    /// none.
    pub unhashed: usize,
    /// What cannot be used, each a clause.
    pub broken: Vec<String>,
    pub dangling: Vec<Dangling>,
}

impl Probe for Certificates {
    type Answer = Found;

    fn run(&self) -> Found {
        let mut store = Store::default();
        store.read_all(&self.0);
        store.found.trusted = store.certificates.len();
        store.found
    }
}

#[derive(Default)]
struct Store {
    certificates: BTreeSet<Vec<u8>>,
    files: HashSet<(u64, u64)>,
    found: Found,
}

impl Store {
    fn read_all(&mut self, anchors: &Anchors) {
        if let Some(file) = anchors
            .file
            .as_deref()
            .filter(|file| file.symlink_metadata().is_ok())
        {
            self.entry(file, true);
        }
        let entries = anchors
            .directory
            .iter()
            .filter_map(|path| fs::read_dir(path).ok())
            .flatten()
            .flatten();
        let mut entries: Vec<_> = entries.map(|entry| entry.path()).collect();
        entries.sort();
        // Those with hashes first: the files that they lead to are then known.
        entries.sort_by_key(|path| !is_hashed(path));
        for path in entries {
            self.entry(&path, is_hashed(&path));
        }
    }

    fn entry(&mut self, path: &Path, used: bool) {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.dangling(path),
            Err(error) => return self.broken(path, &super::Trouble::from(error).text),
        };
        if !metadata.is_file() || !self.files.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        match certificates(path) {
            Ok(found) if used && found.is_empty() => {
                self.broken(path, "there is no certificate in it");
            }
            Ok(found) if used => self.certificates.extend(found),
            Ok(found) => self.found.unhashed += usize::from(!found.is_empty()),
            Err(why) if used => self.broken(path, &why),
            Err(_) => {} // OpenSSL never opens it
        }
    }

    fn broken(&mut self, path: &Path, why: &str) {
        self.found.broken.push(format!("{}: {why}", path.display()));
    }

    fn dangling(&mut self, path: &Path) {
        let Ok(inside) = HostPath::new(path) else {
            return;
        };
        if let Err(LookupError::Dangling { link, destination }) = Host::new().walk(&inside) {
            let at = link.parent().unwrap_or_else(HostPath::slash);
            let text = lexical(at.as_path(), &destination);
            self.found.dangling.push(Dangling {
                link: path.display().to_string(),
                text,
            });
        }
    }
}

/// `5ed36f99.0`: the only names that OpenSSL looks up in a directory.
fn is_hashed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split_once('.').is_some_and(|(hash, nth)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !nth.is_empty()
            && nth.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The certificates of a file that parse as authorities, or why one does not.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let bytes = fs::read(path).map_err(|error| super::Trouble::from(error).text)?;
    let mut found = vec![];
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| format!("it is damaged: {error}"))?;
        match RootCertStore::empty().add(certificate.clone()) {
            Err(rustls::Error::InvalidCertificate(CertificateError::BadEncoding)) => {
                return Err("a certificate in it is damaged".to_owned());
            }
            // What this library does not take for an authority, OpenSSL may.
            Ok(()) | Err(_) => found.push(certificate.to_vec()),
        }
    }
    Ok(found)
}

/// A handshake with a server.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Handshake {
    pub host: String,
    pub port: u16,
    pub anchors: Anchors,
    pub limit: Duration,
}

/// How the handshake went.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) enum Shaken {
    /// The server's certificate is good; the protocol's version.
    Verified(String),
    /// There was no connection.
    Unreachable(String),
    /// There was one, and then this.
    Refused(String),
}

impl Probe for Handshake {
    type Answer = Shaken;

    fn run(&self) -> Shaken {
        match self.connect() {
            Ok(mut stream) => self
                .shake(&mut stream)
                .map_or_else(Shaken::Refused, Shaken::Verified),
            Err(error) => Shaken::Unreachable(super::reason(error)),
        }
    }
}

impl Handshake {
    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::other("the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.limit) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(self.limit))?;
                    stream.set_write_timeout(Some(self.limit))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn shake(&self, stream: &mut TcpStream) -> Result<String, String> {
        let mut store = Store::default();
        store.read_all(&self.anchors);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(store.certificates.into_iter().map(CertificateDer::from));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let mut connection =
            ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        while connection.is_handshaking() {
            connection
                .complete_io(stream)
                .map_err(|error| error.to_string())?;
        }
        Ok(connection
            .protocol_version()
            .map(|version| format!("{version:?}"))
            .unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_hashes() {
        assert!(is_hashed(Path::new("/etc/ssl/certs/5ed36f99.0")));
        for name in [
            "ca-certificates.crt",
            "5ed36f99",
            "5ed36f99.",
            "5ed36f9x.0",
            "5ed36f99.r0",
            "lab.pem",
        ] {
            assert!(!is_hashed(Path::new(name)), "{name}");
        }
    }
}
