//! Rows of packs and chunks.

use bytes::Bytes;

use super::VERSION;
use crate::format::field::{Damaged, Reader, Writer};
use crate::format::manifest::Location;
use crate::model::PackId;
use crate::sys::clock::Timestamp;

/// Where a pack is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackState {
    /// It still grows: its directory is in the memory of the process that fills it, and in its groups.
    Open,
    /// It is whole.
    Sealed,
    /// Nothing refers to it; who finds it of use again makes it sealed again.
    Condemned,
    /// It is being removed: nothing may refer to it any more.
    Deleting,
}

/// A pack that is durable and may be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRow {
    /// Where it is in its life.
    pub state: PackState,
    /// Length of the file in bytes; 0 while it is open.
    pub bytes: u64,
    /// Where its directory begins; 0 while it is open.
    pub directory_offset: u64,
    /// Its chunks; 0 while it is open.
    pub chunks: u32,
    /// Sum of its chunks' lengths in bytes; 0 while it is open.
    pub raw_bytes: u64,
    /// When it was begun.
    pub created: Timestamp,
    /// The epoch in which it was begun.
    pub created_epoch: u64,
    /// The last epoch in which a writer relied on it.
    pub referenced_epoch: u64,
    /// The epoch in which it was condemned; 0 where it is not.
    pub condemned_epoch: u64,
    /// When all its chunks were last read and found good; 0, never.
    pub verified: Timestamp,
}

impl PackRow {
    /// The row of a pack that was just begun.
    #[must_use]
    pub fn open(created: Timestamp, epoch: u64) -> Self {
        Self {
            state: PackState::Open,
            bytes: 0,
            directory_offset: 0,
            chunks: 0,
            raw_bytes: 0,
            created,
            created_epoch: epoch,
            referenced_epoch: epoch,
            condemned_epoch: 0,
            verified: Timestamp(0),
        }
    }

    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        let state = match self.state {
            PackState::Open => 0,
            PackState::Sealed => 1,
            PackState::Condemned => 2,
            PackState::Deleting => 3,
        };
        out.u8(VERSION).u8(state).varint(self.bytes).varint(self.directory_offset).varint(u64::from(self.chunks));
        out.varint(self.raw_bytes).u64(self.created.0).varint(self.created_epoch).varint(self.referenced_epoch);
        out.varint(self.condemned_epoch).u64(self.verified.0);
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("pack row", bytes)?;
        reader.version(VERSION)?;
        let state = match reader.u8()? {
            0 => PackState::Open,
            1 => PackState::Sealed,
            2 => PackState::Condemned,
            3 => PackState::Deleting,
            _ => return Err(reader.damaged("its state is not one that this program knows")),
        };
        let row = Self {
            state,
            bytes: reader.varint()?,
            directory_offset: reader.varint()?,
            chunks: reader.varint32()?,
            raw_bytes: reader.varint()?,
            created: Timestamp(reader.u64()?),
            created_epoch: reader.varint()?,
            referenced_epoch: reader.varint()?,
            condemned_epoch: reader.varint()?,
            verified: Timestamp(reader.u64()?),
        };
        if row.directory_offset > row.bytes {
            return Err(reader.damaged("its directory lies beyond its end"));
        }
        reader.end()?;
        Ok(row)
    }
}

/// The value of the row that marks a pack as being filled: it says nothing more.
#[must_use]
pub fn encode_filling() -> Bytes {
    let mut out = Writer::default();
    out.u8(VERSION).seal().take().into()
}

/// The value of a chunk's index row: where the chunk is. 24 bytes: the pack's id, the chunk's number, CRC32C.
#[must_use]
pub fn encode_location(at: Location) -> Bytes {
    let mut out = Writer::with_capacity(24);
    out.raw(&at.pack.0).u32(at.chunk);
    out.seal().take().into()
}

/// Reads the value of a chunk's index row.
pub fn decode_location(bytes: &[u8]) -> Result<Location, Damaged> {
    let mut reader = Reader::sealed("index row", bytes)?;
    let at = Location { pack: PackId(reader.array()?), chunk: reader.u32()? };
    reader.end()?;
    Ok(at)
}

/// The value of the epoch's row.
#[must_use]
pub fn encode_epoch(epoch: u64) -> Bytes {
    let mut out = Writer::default();
    out.u8(VERSION).u64(epoch);
    out.seal().take().into()
}

/// Reads the value of the epoch's row. A store that was never collected has none: its epoch is 1.
pub fn decode_epoch(bytes: Option<&[u8]>) -> Result<u64, Damaged> {
    let Some(bytes) = bytes else { return Ok(1) };
    let mut reader = Reader::sealed("epoch row", bytes)?;
    reader.version(VERSION)?;
    let epoch = reader.u64()?;
    reader.end()?;
    Ok(epoch)
}
