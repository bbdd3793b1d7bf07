//! The appliance's own certificate: made on the first start, kept beside the data, and known to nodes by its digest.
//! No authority signs it and no name in it is checked; a node trusts the pin that its boot region carries.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::sys::wire::{self, TlsError};

/// The file in the data folder that holds the key and the certificate, readable by its owner only.
pub const IDENTITY_FILE: &str = "identity.pem";

const OWNER_ONLY: u32 = 0o600;

/// Why the appliance has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("the server's identity {} cannot be {action}; check the folder's owner and free space", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the key.
    #[error("{} can be read by others (mode {mode:03o}); run `chmod 600` on it, and consider the key as known", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a key and a certificate.
    #[error("{} does not hold a PKCS #8 key and a certificate in PEM form; restore it, or move it away to have a new one made (nodes that are being installed must then be started again)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("the server's certificate cannot be made")]
    Make(#[source] rcgen::Error),
    /// The key and the certificate do not belong together.
    #[error("the server's identity is unusable")]
    Tls(#[source] TlsError),
}

/// The certificate and key of this appliance.
#[derive(Clone)]
pub struct ServerIdentity {
    pin: [u8; 32],
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerIdentity").field("pin", &self.pin_text()).finish_non_exhaustive()
    }
}

impl ServerIdentity {
    /// Reads the identity kept in `folder`, or makes one and keeps it there.
    pub fn load_or_create(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(IDENTITY_FILE);
        let text = match fs::read(&path) {
            Ok(text) => {
                refuse_exposed(&path)?;
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(folder, &path)?,
            Err(source) => return Err(IdentityError::Io { action: "read", path, source }),
        };
        Self::from_pem(&text, &path)
    }

    fn from_pem(text: &[u8], path: &Path) -> Result<Self, IdentityError> {
        let damaged = || IdentityError::Damaged { path: path.to_owned() };
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| damaged())?;
        let certificate = CertificateDer::from_pem_slice(text).map_err(|_| damaged())?;
        let pin = wire::pin_of(&certificate);
        let acceptor = wire::tls_acceptor(certificate.to_vec(), key.secret_pkcs8_der()).map_err(IdentityError::Tls)?;
        Ok(Self { pin, acceptor })
    }

    /// SHA-256 of the certificate's DER encoding.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// The pin as 64 hexadecimal digits.
    #[must_use]
    pub fn pin_text(&self) -> String {
        hex::encode(self.pin)
    }

    /// The TLS side of the control door.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

fn refuse_exposed(path: &Path) -> Result<(), IdentityError> {
    let metadata =
        fs::metadata(path).map_err(|source| IdentityError::Io { action: "read", path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Makes an identity and keeps it so that a crash leaves either none or a whole one.
fn create(folder: &Path, path: &Path) -> Result<Vec<u8>, IdentityError> {
    let names = ["bedplate", "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).map_err(IdentityError::Make)?;
    let text = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem()).into_bytes();
    let failed = |source| IdentityError::Io { action: "written", path: path.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let unfinished = folder.join(format!("{IDENTITY_FILE}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(OWNER_ONLY)
        .open(&unfinished)
        .map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    //! The identity survives a restart, is its owner's alone, and a damaged or exposed one stops the start.
    use super::*;

    #[test]
    fn is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let first = ServerIdentity::load_or_create(&folder.path().join("data")).unwrap();
        let again = ServerIdentity::load_or_create(&folder.path().join("data")).unwrap();
        assert_eq!(first.pin(), again.pin());
        let other = ServerIdentity::load_or_create(&folder.path().join("other")).unwrap();
        assert_ne!(first.pin(), other.pin());
        let mode = fs::metadata(folder.path().join("data").join(IDENTITY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
    }

    #[test]
    fn refuses_damage_and_exposure() {
        let folder = tempfile::tempdir().unwrap();
        ServerIdentity::load_or_create(folder.path()).unwrap();
        let path = folder.path().join(IDENTITY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = ServerIdentity::load_or_create(folder.path()).unwrap_err();
        assert!(matches!(refused, IdentityError::Exposed { mode: 0o644, .. }), "{refused}");
        fs::set_permissions(&path, fs::Permissions::from_mode(OWNER_ONLY)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(ServerIdentity::load_or_create(folder.path()), Err(IdentityError::Damaged { .. })));
    }
}
