//! Bucket rows.

use bytes::Bytes;

use super::{VERSION, VERSION_EXTENDED};
use crate::format::field::{Damaged, Reader, Writer};
use crate::model::Versioning;
use crate::sys::clock::Timestamp;

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRow {
    /// Who made it.
    pub owner: String,
    /// When.
    pub created: Timestamp,
    /// While it is being deleted, the id of the process that does it: nothing may be put into it. The mark of a process
    /// that has ended means nothing.
    pub deleting: Option<[u8; 16]>,
    /// Whether it keeps versions.
    pub versioning: Versioning,
    /// Whether its versions can be locked.
    pub object_lock: bool,
}

impl BucketRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        let extended = self.versioning != Versioning::Off || self.object_lock;
        out.u8(if extended { VERSION_EXTENDED } else { VERSION }).u64(self.created.0).bytes(self.owner.as_bytes());
        match &self.deleting {
            None => out.u8(0),
            Some(by) => out.u8(1).raw(by),
        };
        if extended {
            let versioning = match self.versioning {
                Versioning::Off => 0,
                Versioning::Enabled => 1,
                Versioning::Suspended => 2,
            };
            out.u8(versioning).u8(u8::from(self.object_lock));
        }
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("bucket row", bytes)?;
        let extended = reader.version_up_to(VERSION_EXTENDED)? == VERSION_EXTENDED;
        let created = Timestamp(reader.u64()?);
        let owner = reader.text()?;
        let deleting = match reader.u8()? {
            0 => None,
            1 => Some(reader.array()?),
            _ => return Err(reader.damaged("a flag is neither 0 nor 1")),
        };
        let (mut versioning, mut object_lock) = (Versioning::Off, false);
        if extended {
            versioning = match reader.u8()? {
                0 => Versioning::Off,
                1 => Versioning::Enabled,
                2 => Versioning::Suspended,
                _ => return Err(reader.damaged("its versioning is not one that this program knows")),
            };
            object_lock = reader.flag()?;
        }
        let row = Self { owner, created, deleting, versioning, object_lock };
        reader.end()?;
        Ok(row)
    }
}
