//! What the agent leaves on a disk that it writes, so that it knows the disk again: in one 4 KiB block behind the last
//! partition. It vouches for a disk only together with the partition table that it names, so a disk that someone has
//! partitioned since is a stranger's.
//!
//! ```text
//! offset: the disk's length, rounded down to 4,096, minus 65,536
//! 0   16  magic "bedplate-disk-01"
//! 16   4  length of the JSON text, little endian
//! 20   4  CRC32C of the JSON text
//! 24   n  DiskMarker as JSON; zeros up to 4,096
//! ```

use serde::{Deserialize, Serialize};

use super::field::Damaged;
use crate::model::{Digest, ImageRef};

/// Length of the block.
pub const LENGTH: usize = 4096;
/// How far from the disk's end it begins: in front of the backup partition table.
pub const FROM_END: u64 = 64 * 1024;

const MAGIC: &[u8; 16] = b"bedplate-disk-01";
const HEADER: usize = 24;

/// What the agent knows of a disk that it has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMarker {
    /// The image.
    pub image: ImageRef,
    /// Its root digest.
    pub root_digest: Digest,
    /// Whether the installation came to its end.
    pub finished: bool,
    /// Partition tables that are the agent's own work ([`table_id`] of each).
    pub tables: Vec<String>,
}

/// Where the marker lies on a disk of `len` bytes; `None` on one too small for it.
#[must_use]
pub fn offset(len: u64) -> Option<u64> {
    (len / LENGTH as u64 * LENGTH as u64).checked_sub(FROM_END)
}

/// What identifies a partition table: its disk GUID and the checksum of its entries, from the header sector.
#[must_use]
pub fn table_id(header: &[u8]) -> Option<String> {
    if header.get(..8)? != b"EFI PART" {
        return None;
    }
    Some(format!("{}-{}", hex::encode(header.get(56..72)?), hex::encode(header.get(88..92)?)))
}

impl DiskMarker {
    /// The block's bytes; `None` where the text does not fit.
    #[must_use]
    pub fn encode(&self) -> Option<[u8; LENGTH]> {
        let text = serde_json::to_vec(self).ok()?;
        let mut bytes = [0; LENGTH];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..20].copy_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
        bytes[20..24].copy_from_slice(&crc32c::crc32c(&text).to_le_bytes());
        bytes.get_mut(HEADER..HEADER + text.len())?.copy_from_slice(&text);
        Some(bytes)
    }

    /// Reads the block; `Ok(None)` where there is none.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Damaged> {
        let damaged = |why| Damaged { what: "disk marker", why };
        let header = bytes.get(..HEADER).ok_or(damaged("it is cut short"))?;
        if &header[..16] != MAGIC {
            return Ok(None);
        }
        let length = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
        let crc = u32::from_le_bytes([header[20], header[21], header[22], header[23]]);
        if length > LENGTH - HEADER {
            return Err(damaged("its text is longer than the block"));
        }
        let text = bytes.get(HEADER..HEADER + length).ok_or(damaged("it is cut short"))?;
        if crc32c::crc32c(text) != crc {
            return Err(damaged("its checksum does not match"));
        }
        // serde would take the fields' values in an array too, which need more room once they have their names.
        if !text.starts_with(b"{") {
            return Err(damaged("its text is not an object"));
        }
        serde_json::from_slice(text).map(Some).map_err(|_| damaged("its text is not a marker"))
    }
}

#[cfg(test)]
mod tests {
    //! A marker reads back, and no flipped byte passes for another marker.
    use super::*;

    #[test]
    fn reads_back_and_notices_damage() {
        let marker = DiskMarker {
            image: "a@1".parse().unwrap(),
            root_digest: Digest([3; 32]),
            finished: false,
            tables: vec!["x".into()],
        };
        let good = marker.encode().unwrap();
        assert_eq!(DiskMarker::decode(&good).unwrap(), Some(marker.clone()));
        assert_eq!(DiskMarker::decode(&[0; LENGTH]).unwrap(), None);
        let end = good.iter().rposition(|b| *b != 0).unwrap();
        for at in 0..=end {
            let mut bytes = good;
            bytes[at] ^= 0x20;
            assert!(!matches!(DiskMarker::decode(&bytes), Ok(Some(_))), "byte {at} flipped and unnoticed");
        }
        let long = DiskMarker { tables: vec!["y".repeat(5000)], ..marker };
        assert!(long.encode().is_none());
        let text = serde_json::to_vec(&long).unwrap();
        let (len, crc) = (text.len() as u32, crc32c::crc32c(&text));
        let forged = [&MAGIC[..], &len.to_le_bytes(), &crc.to_le_bytes(), &text].concat();
        assert!(DiskMarker::decode(&forged).is_err(), "longer than any that could be written");
        assert_eq!((offset(1 << 20), offset(65_535)), (Some((1 << 20) - 65_536), None));
    }
}
