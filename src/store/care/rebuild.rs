//! The index and the list of packs, made again from the packs alone. To lose either costs time, never data.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::index::Sweep;
use super::repair::{from_groups, write_directory};
use crate::format::damage::WHOLE;
use crate::format::manifest::Location;
use crate::format::pack::{Directory, Entry, FOOTER, Footer};
use crate::format::row::{self, PackRow, PackState, key};
use crate::meta::{MetaError, Transaction};
use crate::model::limit::TRANSACTION_KEYS_MAX;
use crate::model::{Digest, PackId};
use crate::store::error::{StoreError, chain};
use crate::store::types::FsckError;
use crate::store::{Inner, Store};
use crate::sys::clock::Timestamp;

/// Rows of packs read at once.
const PAGE: usize = 256;
/// Index rows looked at and written at once.
const ROWS: usize = TRANSACTION_KEYS_MAX / 2 - 2;

/// How to rebuild.
#[derive(Clone, Copy, Debug, Default)]
pub struct RebuildOptions {
    /// Take packs into the list that no row names. Only while nobody else uses the store: what a crash left, and what is being
    /// removed, cannot be told from what has lost its row.
    pub adopt: bool,
}

/// What was rebuilt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildReport {
    /// Packs whose chunks were compared with the index.
    pub packs: u64,
    /// Packs that had no row and have one again.
    pub adopted: Vec<PackId>,
    /// Index rows that were written.
    pub rows_written: u64,
    /// Index rows that pointed nowhere, or to another chunk, and were removed.
    pub rows_removed: u64,
    /// What could not be done; the files concerned are as they were.
    pub failures: Vec<FsckError>,
}

impl RebuildReport {
    fn failed(&mut self, pack: PackId, error: &StoreError) {
        self.failures.push(FsckError { pack: Some(pack), chunk: None, object: None, what: chain(error) });
    }
}

impl Store {
    /// Makes the index agree with the packs.
    pub async fn rebuild_index(&self, options: RebuildOptions) -> Result<RebuildReport, StoreError> {
        let inner = &self.inner;
        let mut report = RebuildReport::default();
        inner.packer.seal().await?;
        if options.adopt {
            inner.adopt_all(&mut report).await?;
        }
        inner.remove_wrong_rows(&mut report).await?;
        let mut start = b"p/".to_vec();
        loop {
            let rows = inner.meta.scan(&start, b"p0", PAGE).await?;
            for (row_key, _) in &rows {
                let Some(id) = row_key.get(2..).and_then(|id| id.try_into().ok()) else { continue };
                match inner.index_pack(PackId(id)).await {
                    Ok(None) => {}
                    Ok(Some(written)) => {
                        report.packs += 1;
                        report.rows_written += written;
                    }
                    Err(error @ (StoreError::Closed | StoreError::DiskFull | StoreError::Meta(_))) => {
                        return Err(error);
                    }
                    Err(error) => report.failed(PackId(id), &error),
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => return Ok(report),
            }
        }
    }
}

impl Inner {
    async fn remove_wrong_rows(&self, report: &mut RebuildReport) -> Result<(), StoreError> {
        let mut sweep = Sweep::new();
        while let Some(wrong) = sweep.next(self).await? {
            for rows in wrong.chunks(ROWS) {
                // Rows that cannot be read may have any key: all of them are expected as they were seen.
                let tx = rows.iter().fold(Transaction::new(), |tx, row| {
                    tx.expect(&row.key[..], Some(row.value.clone())).delete(&row.key[..])
                });
                match self.meta.commit(tx).await {
                    Ok(()) => report.rows_removed += rows.len() as u64,
                    // A writer has changed one of them: the next rebuild finds what is left.
                    Err(MetaError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Writes the index rows that a pack's chunks lack; none for a pack that is open, going or gone.
    pub(super) async fn index_pack(&self, pack: PackId) -> Result<Option<u64>, StoreError> {
        let pack_key = key::pack(pack);
        let Some(mut found) = self.meta.get(&pack_key).await? else { return Ok(None) };
        let is_whole = |row: &PackRow| matches!(row.state, PackState::Sealed | PackState::Condemned);
        let pack_row = PackRow::decode(&found)?;
        if !is_whole(&pack_row) {
            return Ok(None);
        }
        let directory = match self.read_directory(pack, &pack_row).await {
            Ok(directory) => directory,
            Err(StoreError::CorruptRow(_)) => self.restore_directory(pack, &pack_row).await?,
            Err(error) => return Err(error),
        };
        let damaged: BTreeSet<u32> = self.damage_of(pack).await?.iter().map(|(at, _)| at.chunk).collect();
        let good = |chunk: u32| !damaged.contains(&chunk);
        let chunks: Vec<(u32, Digest)> = (0..)
            .zip(&directory.entries)
            .map(|(chunk, entry)| (chunk, entry.digest))
            .filter(|(chunk, _)| good(*chunk))
            .collect();
        let mut written = 0;
        for chunks in chunks.chunks(ROWS) {
            loop {
                let keys: Vec<Vec<u8>> = chunks.iter().map(|(_, digest)| key::chunk(digest)).collect();
                let rows = self.meta.get_many(&keys).await?;
                let absent = chunks.iter().zip(keys).zip(rows).filter(|(_, row)| row.is_none());
                // The pack's row is expected: once the pack is going, nothing may point to it any more.
                let tx = Transaction::new().expect(pack_key.clone(), Some(found.clone()));
                let tx = absent.fold(tx, |tx, (((chunk, _), key), _)| {
                    tx.expect(key.clone(), None).put(key, row::encode_location(Location { pack, chunk: *chunk }))
                });
                let count = (tx.len() as u64 - 1) / 2;
                if count == 0 {
                    break;
                }
                match self.meta.commit(tx).await {
                    Ok(()) => {
                        written += count;
                        break;
                    }
                    Err(MetaError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
                let Some(now) = self.meta.get(&pack_key).await? else { return Ok(None) };
                if !is_whole(&PackRow::decode(&now)?) {
                    return Ok(None);
                }
                found = now;
            }
        }
        Ok(Some(written))
    }

    /// Takes packs into the list that no row names.
    async fn adopt_all(&self, report: &mut RebuildReport) -> Result<(), StoreError> {
        for pack in self.packs.list().await? {
            if self.packer.session().pack(pack).is_some() || self.meta.get(&key::pack(pack)).await?.is_some() {
                continue;
            }
            match self.adopt(pack).await {
                Ok(true) => report.adopted.push(pack),
                Ok(false) => {}
                Err(error @ (StoreError::Closed | StoreError::DiskFull | StoreError::Meta(_))) => return Err(error),
                Err(error) => report.failed(pack, &error),
            }
        }
        Ok(())
    }

    /// Gives a pack its row back, out of its footer and directory, or its groups where those are not whole. Whether it holds
    /// anything.
    async fn adopt(&self, pack: PackId) -> Result<bool, StoreError> {
        let size = self.packs.size(pack).await?;
        let (directory, bytes) = match self.read_tail(pack, size).await {
            Ok(directory) => (directory, size),
            Err(StoreError::CorruptRow(_)) => {
                let directory = from_groups(self, pack, size, 0).await?;
                if directory.entries.is_empty() {
                    return Ok(false);
                }
                let bytes = write_directory(self, &directory).await?;
                (directory, bytes)
            }
            Err(error) => return Err(error),
        };
        let row = PackRow {
            state: PackState::Sealed,
            bytes,
            directory_offset: directory.offset(),
            chunks: directory.entries.len() as u32,
            raw_bytes: directory.raw_bytes(),
            ..PackRow::open(created(pack), self.activities.epoch())
        };
        let key = key::pack(pack);
        let tx = Transaction::new().expect(key.clone(), None).put(key, row.encode()).delete(key::filling(pack));
        self.meta.commit(tx).await?;
        self.forgive(&[Location { pack, chunk: WHOLE }]).await?;
        Ok(true)
    }

    /// A pack's directory, found from the end of its file.
    async fn read_tail(&self, pack: PackId, size: u64) -> Result<Directory, StoreError> {
        let footer = self.packs.read(pack, size.saturating_sub(FOOTER as u64), size).await?;
        let footer = Footer::decode(&footer)?;
        let tail = self.packs.read(pack, footer.directory_offset, size).await?;
        let directory = Directory::decode(&tail)?;
        if directory.pack != pack {
            let damage = crate::format::field::Damaged { what: "pack directory", why: "it is another pack's" };
            return Err(damage.into());
        }
        Ok(directory)
    }
}

/// When a pack was begun: its id says it.
fn created(pack: PackId) -> Timestamp {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&pack.0[..6]);
    Timestamp(u64::from_be_bytes(bytes))
}

/// Whether two directories say the same.
pub(super) fn agrees(directory: &Directory, row: &PackRow) -> bool {
    directory.entries.len() == row.chunks as usize
        && directory.offset() == row.directory_offset
        && directory.entries.iter().map(|entry: &Entry| u64::from(entry.raw_len)).sum::<u64>() == row.raw_bytes
}
