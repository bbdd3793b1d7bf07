//! Bucket rows.

use bytes::Bytes;

use super::{VERSION, VERSION_EXTENDED, VERSION_SNAPSHOT};
use crate::format::field::{Damaged, Reader, Writer};
use crate::model::limit::{BRANCH_DEPTH_MAX, SNAPSHOTS_MAX};
use crate::model::{BucketName, SnapshotName, Versioning};
use crate::sys::clock::Timestamp;

/// A snapshot that a branch goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The bucket that the snapshot is of.
    pub bucket: BucketName,
    /// The snapshot.
    pub snapshot: SnapshotName,
    /// Its epoch.
    pub epoch: u64,
}

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
    /// The epoch that writes belong to: each snapshot ends one. 0 before the first.
    pub epoch: u64,
    /// The epochs that its snapshots ended, in ascending order.
    pub snapshots: Vec<u64>,
    /// Where a branch finds what it has no row of: the nearest first.
    pub origins: Vec<Origin>,
}

impl BucketRow {
    /// A bucket of `owner` that holds nothing and keeps no versions.
    #[must_use]
    pub fn new(owner: &str, created: Timestamp) -> Self {
        Self {
            owner: owner.to_owned(),
            created,
            deleting: None,
            versioning: Versioning::Off,
            object_lock: false,
            epoch: 0,
            snapshots: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// Whether some snapshot shows what was written in one epoch and replaced in another.
    #[must_use]
    pub fn shows(&self, written: u64, replaced: u64) -> bool {
        let first = self.snapshots.partition_point(|epoch| *epoch < written);
        self.snapshots.get(first).is_some_and(|epoch| *epoch < replaced)
    }

    fn version(&self) -> u8 {
        if self.epoch > 0 || !self.origins.is_empty() {
            return VERSION_SNAPSHOT;
        }
        if self.versioning != Versioning::Off || self.object_lock { VERSION_EXTENDED } else { VERSION }
    }

    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        let version = self.version();
        out.u8(version).u64(self.created.0).bytes(self.owner.as_bytes());
        match &self.deleting {
            None => out.u8(0),
            Some(by) => out.u8(1).raw(by),
        };
        if version >= VERSION_EXTENDED {
            let versioning = match self.versioning {
                Versioning::Off => 0,
                Versioning::Enabled => 1,
                Versioning::Suspended => 2,
            };
            out.u8(versioning).u8(u8::from(self.object_lock));
        }
        if version >= VERSION_SNAPSHOT {
            out.varint(self.epoch).varint(self.snapshots.len() as u64);
            for epoch in &self.snapshots {
                out.varint(*epoch);
            }
            out.varint(self.origins.len() as u64);
            for Origin { bucket, snapshot, epoch } in &self.origins {
                out.bytes(bucket.as_str().as_bytes()).bytes(snapshot.as_str().as_bytes()).varint(*epoch);
            }
        }
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("bucket row", bytes)?;
        let written = reader.version_up_to(VERSION_SNAPSHOT)?;
        let created = Timestamp(reader.u64()?);
        let owner = reader.text()?;
        let deleting = match reader.u8()? {
            0 => None,
            1 => Some(reader.array()?),
            _ => return Err(reader.damaged("a flag is neither 0 nor 1")),
        };
        let (mut versioning, mut object_lock) = (Versioning::Off, false);
        if written >= VERSION_EXTENDED {
            versioning = match reader.u8()? {
                0 => Versioning::Off,
                1 => Versioning::Enabled,
                2 => Versioning::Suspended,
                _ => return Err(reader.damaged("its versioning is not one that this program knows")),
            };
            object_lock = reader.flag()?;
        }
        let (epoch, snapshots, origins) =
            if written >= VERSION_SNAPSHOT { read_snapshots(&mut reader)? } else { (0, Vec::new(), Vec::new()) };
        let row = Self { owner, created, deleting, versioning, object_lock, epoch, snapshots, origins };
        reader.end()?;
        Ok(row)
    }
}

/// The bucket's epoch, those of its snapshots, and where it branched from.
fn read_snapshots(reader: &mut Reader<'_>) -> Result<(u64, Vec<u64>, Vec<Origin>), Damaged> {
    let epoch = reader.varint()?;
    let count = reader.varint()?;
    if count > SNAPSHOTS_MAX as u64 {
        return Err(reader.damaged("it has more snapshots than a bucket may have"));
    }
    let snapshots = (0..count).map(|_| reader.varint()).collect::<Result<Vec<_>, Damaged>>()?;
    if !snapshots.is_sorted_by(|one, next| one < next) || snapshots.last().is_some_and(|last| *last >= epoch) {
        return Err(reader.damaged("its snapshots are not in order"));
    }
    let count = reader.varint()?;
    if count > BRANCH_DEPTH_MAX as u64 {
        return Err(reader.damaged("it branches off deeper than a bucket may"));
    }
    let mut origins = Vec::new();
    for _ in 0..count {
        let (bucket, snapshot) = (reader.text()?, reader.text()?);
        let nameless = |_| reader.damaged("it branches off from what has no name");
        let (bucket, snapshot) = (bucket.parse().map_err(nameless)?, snapshot.parse().map_err(nameless)?);
        origins.push(Origin { bucket, snapshot, epoch: reader.varint()? });
    }
    Ok((epoch, snapshots, origins))
}
