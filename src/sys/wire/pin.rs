//! Trust in a server by the SHA-256 of its certificate: no authority signs a rack's certificates, and none is asked.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

/// Makes ring the process's cryptography. Every call after the first changes nothing.
pub fn install_crypto() {
    if CryptoProvider::get_default().is_none() {
        // Only another thread doing the same can have come between: either way ring is installed.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

/// A certificate's pin: SHA-256 of its DER encoding.
#[must_use]
pub fn pin_of(certificate: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut pin = [0; 32];
    pin.copy_from_slice(digest.as_ref());
    pin
}

/// The pin of the certificate that a server shows now; clones share it.
#[derive(Clone, Debug)]
pub struct ShownPin(Arc<Mutex<[u8; 32]>>);

impl ShownPin {
    /// Of a server that shows the certificate with this pin.
    #[must_use]
    pub fn new(pin: [u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(pin)))
    }

    /// The pin.
    #[must_use]
    pub fn get(&self) -> [u8; 32] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pin as 64 hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> String {
        hex::encode(self.get())
    }

    /// The server shows another certificate from now on.
    pub fn set(&self, pin: [u8; 32]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pin;
    }
}

/// The server showed another certificate than the pinned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinMismatch {
    /// The pin that was expected.
    pub known: [u8; 32],
    /// The pin of the certificate that was shown.
    pub seen: [u8; 32],
}

impl std::fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the server's certificate has SHA-256 {}, and {} was expected",
            hex::encode(self.seen),
            hex::encode(self.known)
        )
    }
}

impl std::error::Error for PinMismatch {}

/// Accepts exactly the pinned certificate, or, without a pin, any; remembers what it saw. The handshake's signature
/// is verified in both cases, so whoever answers holds the certificate's key.
#[derive(Debug)]
pub struct PinVerifier {
    known: Option<[u8; 32]>,
    seen: Mutex<Option<[u8; 32]>>,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    /// A verifier for one server; `None` trusts on first use, and the caller stores what [`Self::seen`] answers.
    #[must_use]
    pub fn new(known: Option<[u8; 32]>) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self { known, seen: Mutex::new(None), provider })
    }

    /// The pin of the certificate that was shown last.
    #[must_use]
    pub fn seen(&self) -> Option<[u8; 32]> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A TLS configuration that trusts by this verifier alone, speaking HTTP/1.1.
    #[must_use]
    pub fn tls_config(self: Arc<Self>) -> rustls::ClientConfig {
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring supports the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(self)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = pin_of(end_entity);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        match self.known {
            Some(known) if known != seen => {
                let mismatch = OtherError(Arc::new(PinMismatch { known, seen }));
                Err(Error::InvalidCertificate(CertificateError::Other(mismatch)))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
