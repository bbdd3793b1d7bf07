//! The row that remembers damage: what of which pack could not be read, and since when. It stays until the bytes read well
//! again or nothing needs them any more.

use bytes::Bytes;

use super::field::{Damaged, Reader, Writer};
use super::manifest::Location;
use crate::model::{Digest, PackId};
use crate::sys::clock::Timestamp;

const VERSION: u8 = 1;

/// The chunk's number that stands for the pack as a whole: its file or its directory.
pub const WHOLE: u32 = u32::MAX;

/// What the keys of all these rows begin with.
pub const PREFIX: &[u8] = b"q/";

/// `q/` pack id, chunk's number, 4 bytes big endian.
#[must_use]
pub fn key(at: Location) -> Vec<u8> {
    [PREFIX, &at.pack.0, &at.chunk.to_be_bytes()].concat()
}

/// What the keys of a pack's rows begin with.
#[must_use]
pub fn keys_of(pack: PackId) -> Vec<u8> {
    [PREFIX, &pack.0].concat()
}

/// The place that a key names.
pub fn place(key: &[u8]) -> Result<Location, Damaged> {
    let damaged = Damaged { what: "row key", why: "it names no damaged chunk" };
    let (pack, chunk) = key.strip_prefix(PREFIX).and_then(<[u8]>::split_last_chunk::<4>).ok_or(damaged)?;
    Ok(Location { pack: PackId(pack.try_into().map_err(|_| damaged)?), chunk: u32::from_be_bytes(*chunk) })
}

/// A damaged chunk, or a pack whose chunks cannot be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageRow {
    /// When it was found.
    pub found: Timestamp,
    /// The chunk's digest; none for a pack as a whole.
    pub digest: Option<Digest>,
    /// Whether an object may still need it. Bytes that nothing refers to any more harm nobody.
    pub needed: bool,
    /// What is wrong.
    pub what: String,
}

impl DamageRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION).u64(self.found.0).u8(u8::from(self.needed));
        match &self.digest {
            None => out.u8(0),
            Some(digest) => out.u8(1).raw(&digest.0),
        };
        out.bytes(self.what.as_bytes()).seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("damage row", bytes)?;
        reader.version(VERSION)?;
        let found = Timestamp(reader.u64()?);
        let flag = |byte: u8| match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged { what: "damage row", why: "a flag is neither 0 nor 1" }),
        };
        let needed = flag(reader.u8()?)?;
        let digest = if flag(reader.u8()?)? { Some(Digest(reader.array()?)) } else { None };
        let what = reader.text()?;
        reader.end()?;
        Ok(Self { found, digest, needed, what })
    }
}

#[cfg(test)]
mod tests {
    //! Rows and keys read back; hostile bytes end in an error.
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_and_keys_read_back() {
        for digest in [None, Some(Digest([4; 32]))] {
            for needed in [true, false] {
                let row = DamageRow { found: Timestamp(77), digest, needed, what: "its bytes are cut short".into() };
                assert_eq!(DamageRow::decode(&row.encode()).unwrap(), row);
            }
        }
        let at = Location { pack: PackId([5; 16]), chunk: WHOLE };
        assert_eq!(place(&key(at)).unwrap(), at);
        assert!(key(at).starts_with(&keys_of(at.pack)));
        assert!(place(b"q/short").is_err() && place(b"p/").is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(mut bytes: Vec<u8>, seal: bool) {
            if seal {
                bytes.insert(0, VERSION);
                let crc = crc32c::crc32c(&bytes);
                bytes.extend_from_slice(&crc.to_le_bytes());
            }
            let _ = DamageRow::decode(&bytes);
            let _ = place(&bytes);
        }
    }
}
