//! What the master key does: AES-256-GCM for what is stored or handed out, HMAC-SHA-256 for what is derived.
//!
//! Each use has a key of its own, by HKDF-SHA-256 from the master key. What is sealed is a fresh 96-bit nonce, the
//! ciphertext, and the 128-bit tag; the context that it was sealed in must be told again to open it.

use ring::aead::{self, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};

use super::master::MasterKey;
use crate::sys::entropy;

/// Bytes of a sealed text beyond the text's own.
const OVERHEAD: usize = NONCE_LEN + 16;

/// A key that seals and opens.
pub(super) struct Sealer(LessSafeKey);

/// All keys of this appliance.
pub(super) struct Vault {
    /// Seals the secrets of access keys in their rows.
    pub(super) rows: Sealer,
    /// Seals session tokens.
    pub(super) tokens: Sealer,
    /// Makes a session's secret key out of its access key.
    pub(super) session_secrets: hmac::Key,
    /// Marks the access keys of sessions as ours.
    pub(super) session_ids: hmac::Key,
    /// Tells whether the key that a session came from is still the same.
    pub(super) parents: hmac::Key,
    /// Makes the keys that seal the data keys of objects.
    pub(super) objects: hmac::Key,
}

impl Vault {
    pub(super) fn new(master: &MasterKey) -> Self {
        let derive = Derive(hkdf::Salt::new(hkdf::HKDF_SHA256, b"bedplate").extract(master.bytes()));
        Self {
            rows: derive.sealer("key rows"),
            tokens: derive.sealer("session tokens"),
            session_secrets: derive.mac("session secret keys"),
            session_ids: derive.mac("session access keys"),
            parents: derive.mac("session parents"),
            objects: derive.mac("object data keys"),
        }
    }
}

struct Derive(hkdf::Prk);

impl Derive {
    fn sealer(&self, purpose: &str) -> Sealer {
        let purpose = [purpose.as_bytes()];
        let key = self.0.expand(&purpose, &AES_256_GCM).expect("HKDF gives up to 8,160 bytes, and these are 32");
        Sealer(LessSafeKey::new(UnboundKey::from(key)))
    }

    fn mac(&self, purpose: &str) -> hmac::Key {
        let purpose = [purpose.as_bytes()];
        let key = self.0.expand(&purpose, hmac::HMAC_SHA256).expect("HKDF gives up to 8,160 bytes, and these are 32");
        hmac::Key::from(key)
    }
}

impl Sealer {
    pub(super) fn new(key: LessSafeKey) -> Self {
        Self(key)
    }

    /// Seals `plain` so that it opens in the same `context` only.
    pub(super) fn seal(&self, context: &[&str], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        entropy::fill(&mut nonce);
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, aad(context), &mut sealed[NONCE_LEN..]);
        sealed.extend_from_slice(tag.expect("AES-GCM takes up to 64 GiB, and this is a secret").as_ref());
        sealed
    }

    /// What was sealed in this context; none where anything differs by one bit.
    pub(super) fn open(&self, context: &[&str], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = self.0.open_in_place(nonce, aad(context), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}

/// The context's parts, each behind its length, so that no two contexts have the same bytes.
fn aad(context: &[&str]) -> Aad<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in context {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    Aad::from(bytes)
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

const _: () = assert!(aead::MAX_TAG_LEN == OVERHEAD - NONCE_LEN);

#[cfg(test)]
mod tests {
    //! What is sealed opens in its own context, under its own key, unchanged, and in no other way.
    use super::super::master::test_source;
    use super::*;

    #[test]
    fn opens_only_what_it_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&test_source(dir.path()).create().unwrap());
        let sealed = vault.rows.seal(&["a", "bc"], b"secret");
        assert_eq!(sealed.len(), 6 + OVERHEAD);
        assert_ne!(sealed, vault.rows.seal(&["a", "bc"], b"secret"));
        assert_eq!(vault.rows.open(&["a", "bc"], &sealed).unwrap(), b"secret");
        for context in [&["ab", "c"][..], &["a", "b", "c"], &["a"], &[]] {
            assert_eq!(vault.rows.open(context, &sealed), None);
        }
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(vault.rows.open(&["a", "bc"], &altered), None, "byte {at}");
            assert_eq!(vault.rows.open(&["a", "bc"], &sealed[..at]), None, "cut at {at}");
        }
        assert_eq!(vault.tokens.open(&["a", "bc"], &sealed), None);
        let other = Vault::new(&test_source(dir.path()).create().unwrap());
        assert_eq!(other.rows.open(&["a", "bc"], &sealed), None);
    }
}
