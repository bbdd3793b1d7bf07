//! Snapshot rows.

use bytes::Bytes;

use super::VERSION;
use crate::format::field::{Damaged, Reader, Writer};
use crate::model::BucketName;
use crate::model::limit::BRANCHES_MAX;
use crate::sys::clock::Timestamp;

/// A snapshot of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// When it was made.
    pub created: Timestamp,
    /// The bucket's epoch that it ended: it shows what was written in this one and before.
    pub epoch: u64,
    /// When it may go by itself; none is never.
    pub expires: Option<Timestamp>,
    /// Whether it is being removed: it shows nothing any more, and what only it kept is going.
    pub leaving: bool,
    /// Buckets that branched off from it, and need it.
    pub branches: Vec<BucketName>,
}

impl SnapshotRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION).u64(self.created.0).varint(self.epoch);
        match self.expires {
            None => out.u8(0),
            Some(expires) => out.u8(1).u64(expires.0),
        };
        out.u8(u8::from(self.leaving)).varint(self.branches.len() as u64);
        for branch in &self.branches {
            out.bytes(branch.as_str().as_bytes());
        }
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("snapshot row", bytes)?;
        reader.version(VERSION)?;
        let (created, epoch) = (Timestamp(reader.u64()?), reader.varint()?);
        let expires = if reader.flag()? { Some(Timestamp(reader.u64()?)) } else { None };
        let leaving = reader.flag()?;
        let count = reader.varint()?;
        if count > BRANCHES_MAX as u64 {
            return Err(reader.damaged("it has more branches than a snapshot may have"));
        }
        let mut branches = Vec::new();
        for _ in 0..count {
            let branch = reader.text()?;
            branches.push(branch.parse().map_err(|_| reader.damaged("a branch of it has no name"))?);
        }
        reader.end()?;
        Ok(Self { created, epoch, expires, leaving, branches })
    }
}
