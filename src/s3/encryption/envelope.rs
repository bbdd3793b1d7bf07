//! What an object's row keeps of its encryption: whose key it is, and how each piece was begun. docs/format.md has the layout.

use std::collections::BTreeMap;

use ring::hmac;

use super::cipher::{Nonce, Piece};
use super::wish::CustomerKey;
use crate::auth::base64;
use crate::format::row::PartList;
use crate::store::ENCRYPTION;
use crate::sys::entropy;

/// The nonces of the object's pieces, one after the other.
pub(super) const NONCES: &str = "x-bedplate-nonces";

/// The key of one object, or of all parts of one upload.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct DataKey(pub(super) [u8; 32]);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(…)")
    }
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// The customer's: the data key is derived from it and the salt; the verifier tells whether a key is the right one.
    Customer { salt: [u8; 32], verifier: [u8; 32] },
    /// The store's: the data key, sealed.
    Managed { sealed: Vec<u8> },
}

/// The row's words cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("what the row keeps of the object's encryption is damaged")]
pub(super) struct Damaged;

fn derived(key: &CustomerKey, purpose: &[u8], salt: &[u8; 32]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.key);
    let tag = hmac::sign(&key, &[purpose, salt].concat());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

const FOR_DATA: &[u8] = b"bedplate object data key";
const FOR_VERIFIER: &[u8] = b"bedplate object key verifier";

impl Envelope {
    /// For a new object under the customer's key.
    pub(super) fn customer(key: &CustomerKey) -> (Self, DataKey) {
        let mut salt = [0; 32];
        entropy::fill(&mut salt);
        let envelope = Self::Customer { salt, verifier: derived(key, FOR_VERIFIER, &salt) };
        (envelope, DataKey(derived(key, FOR_DATA, &salt)))
    }

    /// The data key, where this is the key that the envelope was made with.
    pub(super) fn open(&self, key: &CustomerKey) -> Option<DataKey> {
        let Self::Customer { salt, verifier } = self else { return None };
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &key.key);
        hmac::verify(&mac, &[FOR_VERIFIER, salt].concat(), verifier).ok()?;
        Some(DataKey(derived(key, FOR_DATA, salt)))
    }

    /// As the row keeps it.
    pub(super) fn write(&self) -> (String, String) {
        let text = match self {
            Self::Customer { salt, verifier } => {
                format!("1 customer {} {}", base64::encode(salt), base64::encode(verifier))
            }
            Self::Managed { sealed } => format!("1 managed {}", base64::encode(sealed)),
        };
        (ENCRYPTION.to_owned(), text)
    }

    /// Reads what a row keeps; none where the object is not encrypted.
    pub(super) fn read(headers: &BTreeMap<String, String>) -> Result<Option<Self>, Damaged> {
        let Some(text) = headers.get(ENCRYPTION) else { return Ok(None) };
        let words: Vec<&str> = text.split(' ').collect();
        let bytes = |text: &str| base64::decode(text).ok_or(Damaged);
        let array = |text: &str| bytes(text)?.try_into().map_err(|_| Damaged);
        match words[..] {
            ["1", "customer", salt, verifier] => {
                Ok(Some(Self::Customer { salt: array(salt)?, verifier: array(verifier)? }))
            }
            ["1", "managed", sealed] => Ok(Some(Self::Managed { sealed: bytes(sealed)? })),
            _ => Err(Damaged),
        }
    }
}

/// Nonces as a row keeps them.
pub(super) fn write_nonces(nonces: &[Nonce]) -> (String, String) {
    (NONCES.to_owned(), base64::encode(&nonces.concat()))
}

pub(super) fn read_nonces(headers: &BTreeMap<String, String>) -> Result<Vec<Nonce>, Damaged> {
    let bytes = headers.get(NONCES).and_then(|text| base64::decode(text)).ok_or(Damaged)?;
    let (nonces, []) = bytes.as_chunks::<8>() else { return Err(Damaged) };
    Ok(nonces.to_vec())
}

/// The pieces of an object that were encrypted each on its own: its parts, or all of it.
pub(super) fn pieces(headers: &BTreeMap<String, String>, list: &PartList, size: u64) -> Result<Vec<Piece>, Damaged> {
    let nonces = read_nonces(headers)?;
    if list.runs.is_empty() {
        let [nonce] = nonces[..] else { return Err(Damaged) };
        return Ok(vec![Piece { number: 0, nonce, start: 0, end: size }]);
    }
    let mut start = 0u64;
    let mut nonces = nonces.into_iter();
    let mut pieces = Vec::with_capacity(nonces.len());
    for run in &list.runs {
        for n in 0..run.count {
            let end = start.checked_add(run.bytes).ok_or(Damaged)?;
            let nonce = nonces.next().ok_or(Damaged)?;
            pieces.push(Piece { number: run.first.saturating_add(n), nonce, start, end });
            start = end;
        }
    }
    if start == size && nonces.next().is_none() { Ok(pieces) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    //! Envelopes are read as they were written, open with their own key only, and what is damaged is found out.
    use super::*;

    fn key(byte: u8) -> CustomerKey {
        CustomerKey { key: [byte; 32], md5: String::new() }
    }

    #[test]
    fn envelopes_survive_their_rows_and_open_with_their_key_only() {
        let (envelope, data) = Envelope::customer(&key(1));
        let headers = BTreeMap::from([envelope.write()]);
        let read = Envelope::read(&headers).unwrap().unwrap();
        assert_eq!(read, envelope);
        assert_eq!(read.open(&key(1)), Some(data.clone()));
        assert_eq!(read.open(&key(2)), None);
        assert_ne!(Envelope::customer(&key(1)).1, data, "two objects of one key have keys of their own");
        assert!(!headers[ENCRYPTION].contains(&base64::encode(&[1; 32])));

        let managed = Envelope::Managed { sealed: vec![5; 92] };
        assert_eq!(Envelope::read(&BTreeMap::from([managed.write()])).unwrap(), Some(managed.clone()));
        assert_eq!(managed.open(&key(1)), None);
        assert_eq!(Envelope::read(&BTreeMap::new()).unwrap(), None);
        for bad in ["", "1", "1 customer", "2 managed AA==", "1 managed !", "1 customer AA== AA==", "1 other AA=="] {
            assert!(Envelope::read(&BTreeMap::from([(ENCRYPTION.to_owned(), bad.to_owned())])).is_err(), "{bad}");
        }
    }

    #[test]
    fn pieces_are_the_parts() {
        let nonces: Vec<Nonce> = (1..=3).map(|n| [n; 8]).collect();
        let headers = BTreeMap::from([write_nonces(&nonces)]);
        assert_eq!(read_nonces(&headers).unwrap(), nonces);
        let mut list = PartList::default();
        for (number, bytes) in [(1, 10), (2, 10), (7, 3)] {
            list.push(number, bytes);
        }
        let found = pieces(&headers, &list, 23).unwrap();
        let found: Vec<_> = found.iter().map(|p| (p.number, p.nonce[0], p.start, p.end)).collect();
        assert_eq!(found, [(1, 1, 0, 10), (2, 2, 10, 20), (7, 3, 20, 23)]);
        assert!(pieces(&headers, &list, 24).is_err());
        assert!(pieces(&headers, &PartList::default(), 23).is_err(), "three nonces of one piece");
        assert!(pieces(&BTreeMap::from([write_nonces(&nonces[..2])]), &list, 23).is_err(), "a nonce is missing");
        assert!(pieces(&BTreeMap::new(), &list, 23).is_err());
        let whole = pieces(&BTreeMap::from([write_nonces(&nonces[..1])]), &PartList::default(), 5).unwrap();
        assert_eq!((whole.len(), whole[0].end), (1, 5));
        let odd = BTreeMap::from([(NONCES.to_owned(), base64::encode(&[0; 9]))]);
        assert!(read_nonces(&odd).is_err());
    }
}
