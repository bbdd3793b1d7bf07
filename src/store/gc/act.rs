//! What a plan says is done here: each pack by transactions that expect its row as it was seen, in an order that a crash may cut
//! anywhere and the next round takes up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::GcDone;
use super::pace::Pace;
use super::plan::{Facts, GcPlan, PlannedPack};
use crate::format::row::{self, Body, PackRow, PackState, PartRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::limit::TRANSACTION_KEYS_MAX;
use crate::model::{Digest, PackId, UploadId};
use crate::store::Inner;
use crate::store::error::StoreError;

/// Index rows that one transaction expects and removes.
const INDEX_ROWS: usize = TRANSACTION_KEYS_MAX / 2;
/// Transactions under way at once: they share the metadata's flushes.
const AT_ONCE: usize = 64;

/// Carries a plan out.
pub(super) struct Actor<'a> {
    pub(super) inner: &'a Inner,
    pub(super) facts: &'a Facts,
    pub(super) done: GcDone,
}

impl Actor<'_> {
    /// The row as it was seen.
    fn row(&self, pack: PackId) -> Option<PackRow> {
        let at = self.facts.packs.binary_search_by_key(&pack, |facts| facts.pack).ok()?;
        Some(self.facts.packs[at].row)
    }

    /// Writes a pack's row, if it is still as it was seen.
    async fn swap(&self, pack: PackId, from: PackRow, to: PackRow) -> Result<bool, StoreError> {
        let key = key::pack(pack);
        let tx = Transaction::new().expect(key.clone(), Some(from.encode())).put(key, to.encode());
        match self.inner.meta.commit(tx).await {
            Ok(()) => Ok(true),
            Err(MetaError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes packs sealed again that are in use.
    pub(super) async fn rescue(&mut self, packs: &[PlannedPack]) -> Result<(), StoreError> {
        for PlannedPack { pack, .. } in packs {
            let Some(row) = self.row(*pack) else { continue };
            tracing::error!(%pack, "a condemned pack is in use: this should not be, please report it");
            let sealed = PackRow {
                state: PackState::Sealed,
                condemned_epoch: 0,
                referenced_epoch: row.referenced_epoch.max(self.facts.epoch),
                ..row
            };
            self.done.rescued += u64::from(self.swap(*pack, row, sealed).await?);
        }
        Ok(())
    }

    /// Condemns packs that nothing refers to, unless a writer has touched them since.
    pub(super) async fn condemn(&mut self, packs: &[PlannedPack], pace: &mut Pace) -> Result<(), StoreError> {
        for some in packs.chunks(AT_ONCE) {
            let rows = some.iter().filter_map(|planned| Some((planned.pack, self.row(planned.pack)?)));
            let swaps = rows.map(|(pack, row)| {
                let condemned = PackRow { state: PackState::Condemned, condemned_epoch: self.facts.epoch, ..row };
                self.swap(pack, row, condemned)
            });
            let swapped = try_join_all(swaps).await?;
            self.done.condemned += swapped.into_iter().filter(|swapped| *swapped).count() as u64;
            pace.rest().await;
        }
        Ok(())
    }

    /// Deletes packs that may go. One that fails stays as it is for the next round, and the others go on.
    pub(super) async fn delete(&mut self, plan: &GcPlan, pace: &mut Pace) -> Result<(), StoreError> {
        // Packs whose directory cannot be read: their index rows are found by looking at all.
        let mut blind = Vec::new();
        for planned in &plan.delete {
            let Some(row) = self.row(planned.pack) else { continue };
            let claimed = PackRow { state: PackState::Deleting, ..row };
            if row.state == PackState::Condemned && !self.swap(planned.pack, row, claimed).await? {
                self.done.resurrected += 1;
                continue;
            }
            match self.inner.read_directory(planned.pack, &row).await {
                Ok(directory) => {
                    let digests = directory.entries.iter().map(|entry| entry.digest).collect();
                    self.drop_index(planned.pack, digests).await?;
                }
                // Index rows go before the file.
                Err(StoreError::NoSuchPack(_)) if row.state == PackState::Deleting => {}
                Err(error) => {
                    tracing::warn!(pack = %planned.pack, %error, "the whole index is searched for a pack's rows");
                    blind.push((*planned, claimed));
                    continue;
                }
            }
            self.remove(planned, claimed).await;
            pace.rest().await;
        }
        if !blind.is_empty() {
            self.search_index(blind.iter().map(|(planned, _)| planned.pack).collect(), pace).await?;
            for (planned, claimed) in blind {
                self.remove(&planned, claimed).await;
            }
        }
        Ok(())
    }

    /// Removes a pack's file, then its row.
    async fn remove(&mut self, planned: &PlannedPack, claimed: PackRow) {
        let pack = planned.pack;
        let key = key::pack(pack);
        self.inner.directories.forget(pack);
        let removed = match self.inner.packs.remove(pack).await {
            Ok(()) => {
                let tx = Transaction::new().expect(key.clone(), Some(claimed.encode())).delete(key);
                self.inner.meta.commit(tx).await.map_err(StoreError::from)
            }
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => {
                self.done.deleted += 1;
                self.done.freed_bytes += planned.bytes;
                tracing::debug!(%pack, bytes = planned.bytes, "deleted a pack");
            }
            Err(error) => {
                tracing::warn!(%pack, %error, "a pack could not be removed; the next round tries again");
                self.done.failures.push(format!("pack {pack}: {error}"));
            }
        }
    }

    /// Removes the index rows of these digests that point to the pack, as they are now.
    async fn drop_index(&mut self, pack: PackId, mut digests: Vec<Digest>) -> Result<(), StoreError> {
        digests.sort_unstable();
        digests.dedup();
        let dropped = digests.chunks(INDEX_ROWS).map(|digests| self.drop_some(pack, digests));
        self.done.index_rows += try_join_all(dropped).await?.into_iter().sum::<u64>();
        Ok(())
    }

    /// Does it in one transaction, again and again until no other writer comes between. Answers how many rows there were.
    async fn drop_some(&self, pack: PackId, digests: &[Digest]) -> Result<u64, StoreError> {
        let keys: Vec<Vec<u8>> = digests.iter().map(key::chunk).collect();
        loop {
            let rows = self.inner.meta.get_many(&keys).await?;
            let points_here = |row: &Bytes| row::decode_location(row).is_ok_and(|at| at.pack == pack);
            let theirs = keys.iter().zip(rows).filter(|(_, row)| row.as_ref().is_some_and(points_here));
            let tx = theirs.fold(Transaction::new(), |tx, (key, row)| tx.expect(key.clone(), row).delete(key.clone()));
            let count = tx.len() as u64 / 2;
            match self.inner.meta.commit(tx).await {
                Err(MetaError::Conflict) => {}
                other => return Ok(other.map(|()| count)?),
            }
        }
    }

    /// Removes all index rows that point to these packs.
    async fn search_index(&mut self, packs: BTreeSet<PackId>, pace: &mut Pace) -> Result<(), StoreError> {
        let mut start = b"c/".to_vec();
        loop {
            let rows = self.inner.meta.scan(&start, b"c0", TRANSACTION_KEYS_MAX).await?;
            let mut found: BTreeMap<PackId, Vec<Digest>> = BTreeMap::new();
            for (row_key, value) in &rows {
                let digest = row_key.last_chunk::<32>().filter(|_| row_key.len() == 34);
                if let (Some(digest), Ok(at)) = (digest, row::decode_location(value))
                    && packs.contains(&at.pack)
                {
                    found.entry(at.pack).or_default().push(Digest(*digest));
                }
            }
            for (pack, digests) in found {
                self.drop_index(pack, digests).await?;
            }
            pace.rest().await;
            match rows.last() {
                Some((last, _)) if rows.len() == TRANSACTION_KEYS_MAX => start = [last, &b"\0"[..]].concat(),
                _ => return Ok(()),
            }
        }
    }

    /// Removes files that no row names.
    pub(super) async fn remove_orphans(&mut self, packs: &[PackId]) {
        for pack in packs {
            let size = self.inner.packs.size(*pack).await.unwrap_or_default();
            match self.inner.packs.remove(*pack).await {
                Ok(()) => {
                    tracing::info!(%pack, bytes = size, "removed a pack that a crash left without a row");
                    self.done.orphans += 1;
                    self.done.freed_bytes += size;
                }
                Err(error) => self.done.failures.push(format!("orphan {pack}: {error}")),
            }
        }
    }

    /// Removes rows that a crash left: parts of uploads that have ended, manifests that nothing names.
    pub(super) async fn remove_leftovers(
        &mut self,
        uploads: &[UploadId],
        manifests: &[[u8; 16]],
        pace: &mut Pace,
    ) -> Result<(), StoreError> {
        for upload in uploads {
            let prefix = key::parts(*upload);
            loop {
                let rows = self.inner.meta.scan(&prefix, &prefix_end(&prefix), TRANSACTION_KEYS_MAX).await?;
                if rows.is_empty() {
                    break;
                }
                self.done.parts += rows.len() as u64;
                let tx = rows.iter().fold(Transaction::new(), |tx, (key, _)| tx.delete(&key[..]));
                self.inner.meta.commit(tx).await?;
                for (_, value) in rows {
                    self.inner.drop_manifest(&PartRow::decode(&value)?.body).await;
                }
            }
        }
        for id in manifests {
            self.inner.drop_manifest(&Body::Rows(*id)).await;
            self.done.manifests += 1;
            pace.rest().await;
        }
        Ok(())
    }
}
