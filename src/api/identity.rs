//! The appliance's certificate: one that it was given, or its own, made on the first start and kept beside the data. Nodes
//! know either by its digest: no name in it is checked, and a node trusts the pin that its boot region carries.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use crate::sys::wire::{self, ServerTls, ShownPin, TlsError};
use crate::sys::worker::blocking;

/// The file in the data folder that holds the key and the certificate, readable by its owner only.
pub const IDENTITY_FILE: &str = "identity.pem";

const OWNER_ONLY: u32 = 0o600;
/// Between two looks at the files of a certificate that was given.
const LOOK_EVERY: Duration = Duration::from_secs(5);

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
    /// A file that was given cannot be read.
    #[error("{} cannot be read: name a {what} in PEM form that this user may read", path.display())]
    Unreadable {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that was given is not what it should be.
    #[error("{} does not hold a {what} in PEM form", path.display())]
    NotPem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("the server's certificate cannot be made")]
    Make(#[source] rcgen::Error),
    /// The key and the certificate do not belong together.
    #[error("the server's certificate cannot be used")]
    Tls(#[source] TlsError),
}

/// The certificate and key of this appliance; clones share them.
#[derive(Clone)]
pub struct ServerIdentity {
    pin: ShownPin,
    tls: ServerTls,
    /// Where they were given.
    given: Option<GivenFiles>,
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
        let damaged = || IdentityError::Damaged { path: path.clone() };
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| damaged())?;
        let certificate = CertificateDer::from_pem_slice(&text).map_err(|_| damaged())?;
        Self::new(Pair { chain: vec![certificate], key }, None)
    }

    /// Reads a certificate, with those that vouch for it after it, and its key.
    pub fn given(files: GivenFiles) -> Result<Self, IdentityError> {
        Self::new(files.read()?, Some(files))
    }

    fn new(pair: Pair, given: Option<GivenFiles>) -> Result<Self, IdentityError> {
        let pin = ShownPin::new(pair.pin());
        let tls = ServerTls::new(pair.chain, pair.key).map_err(IdentityError::Tls)?;
        Ok(Self { pin, tls, given })
    }

    /// SHA-256 of the certificate's DER encoding.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.pin.get()
    }

    /// The pin as 64 hexadecimal digits.
    #[must_use]
    pub fn pin_text(&self) -> String {
        self.pin.text()
    }

    /// The pin, which changes with the certificate.
    #[must_use]
    pub fn shown_pin(&self) -> ShownPin {
        self.pin.clone()
    }

    /// The TLS side of a door.
    #[must_use]
    pub fn tls(&self) -> &ServerTls {
        &self.tls
    }

    /// Takes up a certificate that was given whenever its files change, until `token` is cancelled. What is unusable is
    /// logged, and the one before stays.
    pub async fn follow(self, token: CancellationToken) {
        let Some(files) = self.given.clone() else { return };
        let mut seen = files.stamp();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let stamp = files.stamp();
            if stamp == seen {
                continue;
            }
            seen = stamp;
            let (identity, files) = (self.clone(), files.clone());
            match blocking(move || identity.exchange(&files)).await {
                Ok(Ok(())) => tracing::info!(pin = self.pin_text(), "the certificate has changed"),
                Ok(Err(error)) => {
                    tracing::error!(
                        error = describe(&error),
                        "the changed certificate is not used: the one before stays"
                    );
                }
                Err(error) => tracing::error!(%error, "the changed certificate was not read"),
            }
        }
    }

    fn exchange(&self, files: &GivenFiles) -> Result<(), IdentityError> {
        let pair = files.read()?;
        let pin = pair.pin();
        self.tls.exchange(pair.chain, pair.key).map_err(IdentityError::Tls)?;
        self.pin.set(pin);
        Ok(())
    }
}

fn describe(error: &IdentityError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// The files of a certificate that was given.
#[derive(Clone, Debug)]
pub struct GivenFiles {
    /// The certificate, and after it those that vouch for it, in PEM form.
    pub certificate: PathBuf,
    /// Its key, in PEM form.
    pub key: PathBuf,
}

impl GivenFiles {
    fn read(&self) -> Result<Pair, IdentityError> {
        let bytes = |path: &Path, what| {
            fs::read(path).map_err(|source| IdentityError::Unreadable { what, path: path.to_owned(), source })
        };
        let not_pem = |path: &Path, what| IdentityError::NotPem { what, path: path.to_owned() };
        let text = bytes(&self.certificate, "certificate")?;
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().unwrap_or_default();
        if chain.is_empty() {
            return Err(not_pem(&self.certificate, "certificate"));
        }
        let text = bytes(&self.key, "private key")?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| not_pem(&self.key, "private key"))?;
        Ok(Pair { chain, key })
    }

    /// When both were written, and how long they are.
    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

/// A certificate, with those that vouch for it, and its key.
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Pair {
    fn pin(&self) -> [u8; 32] {
        self.chain.first().map(|certificate| wire::pin_of(certificate)).unwrap_or_default()
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
    fn a_given_certificate_needs_its_own_key() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            let (certificate, key) =
                (folder.path().join(format!("{name}.crt")), folder.path().join(format!("{name}.key")));
            fs::write(&certificate, made.cert.pem()).unwrap();
            fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            (GivenFiles { certificate, key }, wire::pin_of(made.cert.der()))
        };
        let ((a, pin_a), (b, pin_b)) = (make("a"), make("b"));
        let identity = ServerIdentity::given(a.clone()).unwrap();
        assert_eq!(identity.pin(), pin_a);
        let mixed = GivenFiles { key: b.key.clone(), ..a.clone() };
        assert!(matches!(ServerIdentity::given(mixed.clone()), Err(IdentityError::Tls(TlsError::Mismatch))));
        assert!(matches!(identity.exchange(&mixed), Err(IdentityError::Tls(TlsError::Mismatch))));
        assert_eq!(identity.pin(), pin_a, "an unusable certificate was taken up");
        identity.exchange(&b).unwrap();
        assert_eq!(identity.pin(), pin_b);
        let swapped = GivenFiles { certificate: a.key.clone(), key: a.certificate.clone() };
        assert!(matches!(ServerIdentity::given(swapped), Err(IdentityError::NotPem { .. })));
        let absent = GivenFiles { certificate: folder.path().join("absent"), ..a };
        assert!(matches!(ServerIdentity::given(absent), Err(IdentityError::Unreadable { .. })));
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
