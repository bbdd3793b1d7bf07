//! The data keys of objects that the store encrypts, sealed under the master key.

use std::sync::Arc;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hmac;

use super::Auth;
use super::vault::{Sealer, Vault};
use crate::model::{BucketName, ObjectKey};
use crate::sys::entropy;

/// Bytes of the salt in front of what is sealed.
const SALT: usize = 32;

/// Seals and opens the data keys of objects. Each is sealed under a key of its own, derived from a fresh salt, so that
/// no number of objects wears the master key out; and opens only as the key of the object that it was sealed for.
#[derive(Clone, Debug)]
pub struct ObjectKeys(Arc<Vault>);

impl Auth {
    /// What seals the data keys of objects.
    #[must_use]
    pub fn object_keys(&self) -> ObjectKeys {
        ObjectKeys(self.vault.clone())
    }
}

impl ObjectKeys {
    fn sealer(&self, salt: &[u8]) -> Sealer {
        let key = hmac::sign(&self.0.objects, salt);
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref());
        Sealer::new(LessSafeKey::new(key.expect("HMAC-SHA-256 gives 32 bytes, and AES-256 takes as many")))
    }

    /// Seals the data key of an object.
    #[must_use]
    pub fn seal(&self, bucket: &BucketName, object: &ObjectKey, data_key: &[u8; 32]) -> Vec<u8> {
        let mut sealed = vec![0; SALT];
        entropy::fill(&mut sealed);
        let rest = self.sealer(&sealed).seal(&[bucket.as_str(), object.as_str()], data_key);
        sealed.extend_from_slice(&rest);
        sealed
    }

    /// The data key of an object; none where it was sealed for another, or under another master key, or was altered.
    #[must_use]
    pub fn open(&self, bucket: &BucketName, object: &ObjectKey, sealed: &[u8]) -> Option<[u8; 32]> {
        let (salt, rest) = sealed.split_first_chunk::<SALT>()?;
        self.sealer(salt).open(&[bucket.as_str(), object.as_str()], rest)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    //! A data key opens for its own object, under its own master key, unchanged, and in no other way.
    use super::*;
    use crate::auth::master;

    fn test_keys(data: &std::path::Path) -> ObjectKeys {
        ObjectKeys(Arc::new(Vault::new(&master::test_source(data).create().unwrap())))
    }

    #[test]
    fn data_keys_open_for_their_object_only() {
        let dir = tempfile::tempdir().unwrap();
        let keys = test_keys(dir.path());
        let name = |name: &str| -> BucketName { name.parse().unwrap() };
        let key = |key: &str| -> ObjectKey { key.parse().unwrap() };
        let sealed = keys.seal(&name("bucket"), &key("key"), &[7; 32]);
        assert_eq!(keys.open(&name("bucket"), &key("key"), &sealed), Some([7; 32]));
        assert_ne!(sealed, keys.seal(&name("bucket"), &key("key"), &[7; 32]));
        assert_eq!(keys.open(&name("bucket"), &key("kez"), &sealed), None);
        assert_eq!(keys.open(&name("bucke"), &key("tkey"), &sealed), None);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(keys.open(&name("bucket"), &key("key"), &altered), None, "byte {at}");
            assert_eq!(keys.open(&name("bucket"), &key("key"), &sealed[..at]), None, "cut at {at}");
        }
        assert_eq!(test_keys(dir.path()).open(&name("bucket"), &key("key"), &sealed), None);
    }
}
