//! A site's own authority: BMCs whose certificate it signed are believed by name, and no pin is kept of them.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::BmcError;
use crate::sys::wire::ca_config;

/// The authority.
#[derive(Clone, Debug)]
pub struct SiteCa {
    config: Arc<ClientConfig>,
    /// What tells it from another.
    fingerprint: [u8; 32],
}

impl SiteCa {
    /// Reads its certificates, of which there may be several, from PEM.
    ///
    /// # Errors
    /// [`BmcError::Local`] where there is none.
    pub fn read(file: &Path) -> Result<Self, BmcError> {
        let fail =
            |why: String| BmcError::Local { what: format!("reading the site's authority {}", file.display()), why };
        let text = std::fs::read(file).map_err(|error| fail(error.to_string()))?;
        let found: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let found = found.map_err(|error| fail(format!("it is not in PEM: {error}")))?;
        if found.is_empty() {
            return Err(fail("it holds no certificate in PEM".to_owned()));
        }
        let mut hash = blake3::Hasher::new();
        for certificate in &found {
            hash.update(certificate);
        }
        Ok(Self { config: Arc::new(ca_config(found)), fingerprint: *hash.finalize().as_bytes() })
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }
}

/// What makes a BMC's certificate believed.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// The pin that is kept of it, which is its certificate's when it is first met.
    #[default]
    Known,
    /// A certificate with this SHA-256, and no other.
    Pin([u8; 32]),
    /// A certificate that names the BMC as its address does, and that the site's authority signed.
    Site(SiteCa),
}

impl Trust {
    /// What tells who trusts in one way from who trusts in another.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        match self {
            Self::Known => [0; 32],
            Self::Pin(pin) => *pin,
            Self::Site(site) => site.fingerprint,
        }
    }
}
