//! The TLS side of a door, whose certificate can be exchanged while it is open.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::serve::ALPN_HTTP2;

/// The certificate or its key is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Each is well, but they are not each other's.
    #[error("the private key is not the certificate's: give the key that the certificate was made for")]
    Mismatch,
    /// One of them is not what it should be.
    #[error("the server's certificate and key do not make a TLS server")]
    Unusable(#[source] rustls::Error),
}

/// The certificate that a door shows; clones share it.
#[derive(Clone)]
pub struct ServerTls {
    shown: Arc<Shown>,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl ServerTls {
    /// From the certificate, with those that vouch for it after it, and its key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let shown = Arc::new(Shown(RwLock::new(Arc::new(certified(chain, key)?))));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self { shown, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Shows another certificate from the next connection on. The one that is shown stays where the new one is unusable.
    pub fn exchange(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), TlsError> {
        let fresh = Arc::new(certified(chain, key)?);
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What [`super::serve`] takes.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, TlsError> {
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
        error => TlsError::Unusable(error),
    })
}

/// The TLS side of a door, from a certificate and its PKCS #8 key in DER encoding.
pub fn tls_acceptor(certificate: Vec<u8>, key: &[u8]) -> Result<TlsAcceptor, TlsError> {
    let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
    Ok(ServerTls::new(vec![CertificateDer::from(certificate)], key)?.acceptor())
}
