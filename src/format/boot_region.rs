//! The reserved region of a boot image, into which the appliance lays one node's order address while it streams the
//! image. It sits in ISO 9660's unused system area, so neither the file system nor the partition table moves, and the
//! agent reads it off the raw device without mounting anything.
//!
//! ```text
//! offset 24,576, length 8,192
//! 0   16  magic "bedplate-boot-01"
//! 16   4  length of the JSON text, little endian; 0 in an image that no server has filled in
//! 20   4  CRC32C of the JSON text
//! 24   n  BootRegion as JSON; zeros up to the region's end
//! ```

use serde::{Deserialize, Serialize};

/// Where the region begins, in bytes from the start of the device.
pub const OFFSET: u64 = 24 * 1024;
/// Its length in bytes.
pub const LENGTH: usize = 8 * 1024;
/// What it begins with.
pub const MAGIC: &[u8; 16] = b"bedplate-boot-01";

const HEADER: usize = 24;

/// Where a node asks for its order, and how it knows that it asked the right server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRegion {
    /// Base URL of the control door, `https://address:port`.
    pub url: String,
    /// SHA-256 of the server certificate's DER encoding, 64 hexadecimal digits.
    pub certificate_pin: String,
    /// Bearer token, good for this one installation.
    pub token: String,
    /// The node's name, for messages on its console.
    pub node: String,
}

/// Why a region could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BootRegionError {
    /// The magic is absent: this is not a bedplate boot image.
    #[error("no bedplate boot region: the magic is absent")]
    NoMagic,
    /// The image was never filled in by a server.
    #[error("the boot region is empty: this image was not streamed by an appliance")]
    Empty,
    /// The text is damaged.
    #[error("the boot region is damaged: {0}")]
    Damaged(&'static str),
    /// The text is too long for the region.
    #[error("the boot region holds {LENGTH} bytes and the order needs {0}")]
    TooLong(usize),
}

/// An empty region: the magic, and no text.
#[must_use]
pub fn empty() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..16].copy_from_slice(MAGIC);
    bytes
}

impl BootRegion {
    /// The region's bytes.
    pub fn encode(&self) -> Result<[u8; LENGTH], BootRegionError> {
        let text = serde_json::to_vec(self).map_err(|_| BootRegionError::Damaged("it cannot be written as JSON"))?;
        let room = LENGTH - HEADER;
        if text.len() > room {
            return Err(BootRegionError::TooLong(text.len()));
        }
        let mut bytes = empty();
        let length = u32::try_from(text.len()).map_err(|_| BootRegionError::TooLong(text.len()))?;
        bytes[16..20].copy_from_slice(&length.to_le_bytes());
        bytes[20..24].copy_from_slice(&crc32c::crc32c(&text).to_le_bytes());
        bytes[HEADER..HEADER + text.len()].copy_from_slice(&text);
        Ok(bytes)
    }

    /// Reads the region; `bytes` begin where the region begins.
    pub fn decode(bytes: &[u8]) -> Result<Self, BootRegionError> {
        let header = bytes.get(..HEADER).ok_or(BootRegionError::Damaged("it is cut short"))?;
        if &header[..16] != MAGIC {
            return Err(BootRegionError::NoMagic);
        }
        let length = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
        if length == 0 {
            return Err(BootRegionError::Empty);
        }
        let crc = u32::from_le_bytes([header[20], header[21], header[22], header[23]]);
        if length > LENGTH - HEADER {
            return Err(BootRegionError::Damaged("its text is longer than the region"));
        }
        let text = bytes.get(HEADER..HEADER + length).ok_or(BootRegionError::Damaged("it is cut short"))?;
        if crc32c::crc32c(text) != crc {
            return Err(BootRegionError::Damaged("its checksum does not match"));
        }
        // serde would take the fields' values in an array too, which need more room once they have their names.
        if !text.starts_with(b"{") {
            return Err(BootRegionError::Damaged("its text is not an object"));
        }
        serde_json::from_slice(text).map_err(|_| BootRegionError::Damaged("its text is not a boot region"))
    }
}

#[cfg(test)]
mod tests {
    //! A region reads back as it was written, and every single flipped byte is noticed or harmless.
    use super::*;

    fn region() -> BootRegion {
        BootRegion {
            url: "https://10.99.0.1:9100".into(),
            certificate_pin: "ab".repeat(32),
            token: "t".repeat(43),
            node: "node-1".into(),
        }
    }

    #[test]
    fn reads_back() {
        let bytes = region().encode().unwrap();
        assert_eq!(BootRegion::decode(&bytes).unwrap(), region());
    }

    #[test]
    fn refuses_damage() {
        assert!(matches!(BootRegion::decode(&empty()), Err(BootRegionError::Empty)));
        assert!(matches!(BootRegion::decode(&[0; LENGTH]), Err(BootRegionError::NoMagic)));
        let good = region().encode().unwrap();
        for at in 0..200 {
            let mut bytes = good;
            bytes[at] ^= 0x40;
            assert!(BootRegion::decode(&bytes).is_err(), "byte {at} flipped and unnoticed");
        }
    }

    #[test]
    fn refuses_what_it_could_not_have_written() {
        let forged = |text: &str| {
            let (len, crc) = (text.len() as u32, crc32c::crc32c(text.as_bytes()));
            [&MAGIC[..], &len.to_le_bytes(), &crc.to_le_bytes(), text.as_bytes()].concat()
        };
        let text = serde_json::to_string(&region()).unwrap();
        assert_eq!(BootRegion::decode(&forged(&text)).unwrap(), region());
        assert!(BootRegion::decode(&forged(&text.replace("node-1", &"n".repeat(LENGTH)))).is_err());
        assert!(BootRegion::decode(&forged(r#"["https://a", "b", "c", "d"]"#)).is_err());
    }
}
