//! The part of rustls in the checks of TLS. Without the cargo feature `tls` certificates are read
//! all the same, but not looked into, and there is no handshake.

use std::collections::BTreeSet;
use std::net::TcpStream;

use rustls_pki_types::CertificateDer;

/// Whether handshakes are possible.
pub(super) const HAS_HANDSHAKES: bool = cfg!(feature = "tls");

/// Whether what a certificate says cannot be read.
#[cfg(feature = "tls")]
pub(super) fn is_damaged(certificate: &CertificateDer<'static>) -> bool {
    use rustls::{CertificateError, Error, RootCertStore};

    // OpenSSL may take it for an authority even where this library does not.
    matches!(
        RootCertStore::empty().add(certificate.clone()),
        Err(Error::InvalidCertificate(CertificateError::BadEncoding))
    )
}

#[cfg(not(feature = "tls"))]
pub(super) fn is_damaged(_: &CertificateDer<'static>) -> bool {
    false
}

/// Makes a handshake with `host` that trusts these certificates alone, and returns the version of
/// the protocol, or why it failed.
#[cfg(feature = "tls")]
pub(super) fn shake(
    host: &str,
    trusted: BTreeSet<Vec<u8>>,
    stream: &mut TcpStream,
) -> Result<String, String> {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use rustls_pki_types::ServerName;

    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.into_iter().map(CertificateDer::from));

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let mut connection =
        ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    while connection.is_handshaking() {
        connection
            .complete_io(stream)
            .map_err(|error| error.to_string())?;
    }
    Ok(match connection.protocol_version() {
        Some(version) => format!("{version:?}"),
        None => String::new(),
    })
}

#[cfg(not(feature = "tls"))]
pub(super) fn shake(_: &str, _: BTreeSet<Vec<u8>>, _: &mut TcpStream) -> Result<String, String> {
    Err("mountjail was built without TLS".to_owned())
}
