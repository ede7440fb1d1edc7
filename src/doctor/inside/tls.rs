//! The certificates of authorities in the places where OpenSSL looks, and a handshake that trusts
//! only these.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::probe::{InsideError, Probe, reason};
use super::tls_library;
use crate::base::{HostPath, lexical};
use crate::resolve::{Host, LookupError};
use crate::sys::FileId;

/// Where OpenSSL looks: in one file of certificates, and in a directory of files whose names are
/// hashes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Anchors {
    pub file: Option<PathBuf>,
    pub directory: Option<PathBuf>,
}

impl Anchors {
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.file.iter().chain(&self.directory)
    }
}

/// Which certificates are there.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Certificates(pub Anchors);

/// A link to a file that is not inside.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct DanglingLink {
    pub link: String,
    pub target: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct FoundCertificates {
    /// How many different certificates OpenSSL trusts.
    pub trusted: usize,
    /// How many files of the directory have certificates and no hash as their name: OpenSSL does
    /// not open them.
    pub unhashed: usize,
    /// The files that cannot be used, and why: clauses.
    pub broken: Vec<String>,
    pub dangling: Vec<DanglingLink>,
}

impl Probe for Certificates {
    type Answer = FoundCertificates;

    fn run(&self) -> FoundCertificates {
        let mut store = TrustStore::read(&self.0);
        store.found.trusted = store.certificates.len();
        store.found
    }
}

#[derive(Default)]
struct TrustStore {
    certificates: BTreeSet<Vec<u8>>,
    /// The files that were read.
    files: HashSet<FileId>,
    found: FoundCertificates,
}

impl TrustStore {
    fn read(anchors: &Anchors) -> Self {
        let mut store = Self::default();
        if let Some(file) = &anchors.file
            && file.symlink_metadata().is_ok()
        {
            store.add(file, true);
        }

        let mut paths = vec![];
        if let Some(directory) = &anchors.directory {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            paths.extend(entries.map(|entry| entry.path()));
        }
        // Those with hashes first, so that a file which one of them links to is known by then.
        paths.sort();
        paths.sort_by_key(|path| !is_hashed(path));
        for path in paths {
            store.add(&path, is_hashed(&path));
        }
        store
    }

    /// `opened`: whether OpenSSL opens the file.
    fn add(&mut self, path: &Path, opened: bool) {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.dangling(path),
            Err(error) => return self.broken(path, &InsideError::from(error).to_string()),
        };
        let is_new = self.files.insert(FileId::of(&metadata));
        if !metadata.is_file() || !is_new {
            return;
        }

        match certificates(path) {
            Ok(found) if !opened => self.found.unhashed += usize::from(!found.is_empty()),
            Ok(found) if found.is_empty() => self.broken(path, "there is no certificate in it"),
            Ok(found) => self.certificates.extend(found),
            Err(why) if opened => self.broken(path, &why),
            Err(_) => {}
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
            let directory = link.parent().unwrap_or_else(HostPath::slash);
            self.found.dangling.push(DanglingLink {
                link: path.display().to_string(),
                target: lexical(directory.as_path(), &destination),
            });
        }
    }
}

/// Whether a name is one such as `5ed36f99.0`: OpenSSL looks up no others in a directory.
fn is_hashed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split_once('.').is_some_and(|(hash, nth)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !nth.is_empty()
            && nth.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The certificates of a file, or why it is damaged.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let bytes = fs::read(path).map_err(|error| InsideError::from(error).to_string())?;
    let mut found = vec![];
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| format!("it is damaged: {error}"))?;
        if tls_library::is_damaged(&certificate) {
            return Err("a certificate in it is damaged".to_owned());
        }
        found.push(certificate.to_vec());
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

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) enum HandshakeResult {
    /// The server's certificate is trusted; the version of the protocol.
    Verified(String),
    /// There was no connection, and why.
    Unreachable(String),
    /// There was a connection, and the handshake failed.
    Refused(String),
}

impl Probe for Handshake {
    type Answer = HandshakeResult;

    fn run(&self) -> HandshakeResult {
        if !tls_library::HAS_HANDSHAKES {
            return HandshakeResult::Unreachable("mountjail was built without TLS".to_owned());
        }
        let mut stream = match self.connect() {
            Ok(stream) => stream,
            Err(error) => return HandshakeResult::Unreachable(reason(error)),
        };
        let trusted = TrustStore::read(&self.anchors).certificates;
        match tls_library::shake(&self.host, trusted, &mut stream) {
            Ok(version) => HandshakeResult::Verified(version),
            Err(why) => HandshakeResult::Refused(why),
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
