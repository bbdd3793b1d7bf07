//! Rows of uploads and their parts.

use bytes::Bytes;

use super::{Body, Described, VERSION, VERSION_EXTENDED};
use crate::format::field::{Damaged, Reader, Writer};
use crate::model::Digest;
use crate::sys::clock::Timestamp;

/// A multipart upload that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRow {
    /// When it was begun.
    pub created: Timestamp,
    /// What the client said about the object to be.
    pub described: Described,
}

impl UploadRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION).u64(self.created.0);
        self.described.write(&mut out);
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("upload row", bytes)?;
        reader.version(VERSION)?;
        let row = Self { created: Timestamp(reader.u64()?), described: Described::read(&mut reader)? };
        reader.end()?;
        Ok(row)
    }
}

/// A part of an open upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// Length in bytes.
    pub size: u64,
    /// MD5 of its bytes: its entity tag.
    pub md5: [u8; 16],
    /// When it was written.
    pub modified: Timestamp,
    /// Xet's file hash of the part alone.
    pub root_digest: Digest,
    /// Its bytes.
    pub body: Body,
    /// What is known of it besides: its checksums, by header.
    pub described: Described,
}

impl PartRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        let extended = self.described != Described::default();
        out.u8(if extended { VERSION_EXTENDED } else { VERSION });
        out.varint(self.size).raw(&self.md5).u64(self.modified.0).raw(&self.root_digest.0);
        self.body.write(&mut out);
        if extended {
            self.described.write(&mut out);
        }
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("part row", bytes)?;
        let extended = reader.version_up_to(VERSION_EXTENDED)? == VERSION_EXTENDED;
        let size = reader.varint()?;
        let md5 = reader.array()?;
        let modified = Timestamp(reader.u64()?);
        let root_digest = Digest(reader.array()?);
        let body = Body::read(&mut reader, size)?;
        let described = if extended { Described::read(&mut reader)? } else { Described::default() };
        reader.end()?;
        Ok(Self { size, md5, modified, root_digest, body, described })
    }
}
