//! Whether packs may be relied on. A lookup asks before it relies on what the index says; a commit touches each pack that the new row
//! refers to, so that the collector, which may have marked already, knows. Both bring a condemned pack back.
//!
//! What was found is remembered for as long as the epoch lasts. docs/decisions/0004 says why that is enough.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::activity::Activities;
use super::error::StoreError;
use super::faults::{Fault, Faults};
use crate::format::row::{self, PackRow, PackState, key};
use crate::meta::{Meta, MetaError, Transaction};
use crate::model::PackId;
use crate::model::limit::TRANSACTION_KEYS_MAX;

/// Packs that are remembered, of each kind; when there are more, memory begins anew.
const KNOWN_MAX: usize = 256 * 1024;
/// Packs touched in one transaction, which expects and writes each row, and leaves room.
const TOUCHED_AT_ONCE: usize = TRANSACTION_KEYS_MAX / 2 - 8;

/// What is known of packs; clones share it.
#[derive(Clone)]
pub(super) struct Standing {
    meta: Arc<dyn Meta>,
    activities: Activities,
    faults: Faults,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// Packs that were found live, in the epoch that this process knows.
    live: Epochal,
    /// Packs that were touched, in the epoch that a commit has read.
    touched: Epochal,
    /// Packs whose chunks cannot be found, whatever their rows say.
    unreadable: HashSet<PackId>,
}

/// Packs of which something is so within one epoch.
#[derive(Default)]
struct Epochal {
    epoch: u64,
    packs: HashSet<PackId>,
}

impl Epochal {
    fn has(&self, epoch: u64, pack: PackId) -> bool {
        self.epoch == epoch && self.packs.contains(&pack)
    }

    fn add(&mut self, epoch: u64, packs: impl IntoIterator<Item = PackId>) {
        if epoch > self.epoch || self.packs.len() > KNOWN_MAX {
            *self = Self { epoch: epoch.max(self.epoch), packs: HashSet::new() };
        }
        if epoch == self.epoch {
            self.packs.extend(packs);
        }
    }
}

/// What a touch does to a row.
enum Touch {
    /// Nothing: it was made or touched in this epoch.
    Fresh,
    /// It is to be written like this.
    Write(PackRow),
}

impl Standing {
    pub(super) fn new(meta: Arc<dyn Meta>, activities: Activities, faults: Faults) -> Self {
        Self { meta, activities, faults, known: Arc::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the packs that an activity that is under way may rely on. The others are going or gone: what the index says about them
    /// counts as unknown.
    pub(super) async fn usable(&self, packs: BTreeSet<PackId>) -> Result<BTreeSet<PackId>, StoreError> {
        let epoch = self.activities.epoch();
        let (mut usable, ask) = {
            let known = self.known();
            let readable = packs.into_iter().filter(|pack| !known.unreadable.contains(pack));
            readable.partition::<BTreeSet<PackId>, _>(|pack| known.live.has(epoch, *pack))
        };
        if ask.is_empty() {
            return Ok(usable);
        }
        let keys: Vec<Vec<u8>> = ask.iter().map(|pack| key::pack(*pack)).collect();
        let rows = self.meta.get_many(&keys).await?;
        let mut found = Vec::new();
        for (pack, row) in ask.into_iter().zip(rows) {
            let Some(bytes) = row else { continue };
            match PackRow::decode(&bytes) {
                Ok(row) if matches!(row.state, PackState::Open | PackState::Sealed) => found.push(pack),
                Ok(row) if row.state == PackState::Condemned && self.resurrect(pack, epoch).await? => found.push(pack),
                Ok(_) => {}
                // Bytes that are stored again are safe, whatever happened to the row.
                Err(damage) => tracing::error!(%pack, %damage, "a pack is not relied on; run `bedplate store fsck`"),
            }
        }
        usable.extend(&found);
        // What was found in an epoch that has ended meanwhile is true for this caller, who began before, and for nobody else.
        if self.activities.epoch() == epoch {
            self.known().live.add(epoch, found);
        }
        Ok(usable)
    }

    /// From now on nothing new relies on a pack: its directory or its file is damaged.
    pub(super) fn distrust(&self, pack: PackId) {
        self.known().unreadable.insert(pack);
    }

    /// A pack may be relied on again.
    pub(super) fn trust(&self, pack: PackId) {
        self.known().unreadable.remove(&pack);
    }

    /// Makes a condemned pack sealed again; whether it could still be had.
    async fn resurrect(&self, pack: PackId, epoch: u64) -> Result<bool, StoreError> {
        match self.touch_some(&[pack], epoch).await {
            Ok(()) => Ok(true),
            Err(StoreError::NoSuchPack(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Touches the packs in the current epoch. Answers the epoch's row: a transaction that expects it finds all of them live.
    pub(super) async fn touch(&self, packs: &BTreeSet<PackId>) -> Result<Option<Bytes>, StoreError> {
        let found = self.meta.get(&key::epoch()).await?;
        let epoch = row::decode_epoch(found.as_deref())?;
        let wanted: Vec<PackId> = {
            let known = self.known();
            packs.iter().copied().filter(|pack| !known.touched.has(epoch, *pack)).collect()
        };
        for some in wanted.chunks(TOUCHED_AT_ONCE) {
            self.touch_some(some, epoch).await?;
        }
        self.known().touched.add(epoch, wanted);
        Ok(found)
    }

    /// Touches packs in one transaction, again and again until no other writer comes between.
    async fn touch_some(&self, packs: &[PackId], epoch: u64) -> Result<(), StoreError> {
        let keys: Vec<Vec<u8>> = packs.iter().map(|pack| key::pack(*pack)).collect();
        loop {
            let mut tx = Transaction::new();
            for ((pack, key), found) in packs.iter().zip(&keys).zip(self.meta.get_many(&keys).await?) {
                let found = found.ok_or(StoreError::NoSuchPack(*pack))?;
                if let Touch::Write(row) = self.touched(*pack, PackRow::decode(&found)?, epoch)? {
                    tx = tx.expect(key.clone(), Some(found)).put(key.clone(), row.encode());
                }
            }
            if tx.is_empty() {
                return Ok(());
            }
            match self.meta.commit(tx).await {
                Err(MetaError::Conflict) => {}
                other => return Ok(other?),
            }
        }
    }

    /// What a touch makes of a row. A pack that is going cannot be had any more.
    fn touched(&self, pack: PackId, row: PackRow, epoch: u64) -> Result<Touch, StoreError> {
        let is_fresh = row.created_epoch.max(row.referenced_epoch) >= epoch;
        let referenced_epoch = row.referenced_epoch.max(epoch);
        match row.state {
            PackState::Open | PackState::Sealed if is_fresh => Ok(Touch::Fresh),
            PackState::Open | PackState::Sealed => Ok(Touch::Write(PackRow { referenced_epoch, ..row })),
            PackState::Condemned if self.faults.has(Fault::SkipResurrect) => Ok(Touch::Fresh),
            PackState::Condemned => {
                tracing::debug!(%pack, "a condemned pack is of use again");
                let state = PackState::Sealed;
                Ok(Touch::Write(PackRow { state, referenced_epoch, condemned_epoch: 0, ..row }))
            }
            PackState::Deleting => Err(StoreError::NoSuchPack(pack)),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Live packs are relied on, condemned ones come back, those that go are left alone; a touch is written once an epoch.
    use super::*;
    use crate::meta::Embedded;
    use crate::sys::clock::Timestamp;

    fn id(number: u8) -> PackId {
        PackId([number; 16])
    }

    async fn standing(dir: &std::path::Path, epoch: u64, states: &[PackState]) -> Standing {
        let meta = Embedded::open(dir).unwrap();
        let mut tx = Transaction::new().put(key::epoch(), row::encode_epoch(epoch));
        for (number, state) in (1..).zip(states) {
            let condemned_epoch = if *state == PackState::Condemned { 2 } else { 0 };
            let row = PackRow { state: *state, condemned_epoch, ..PackRow::open(Timestamp(0), 1) };
            tx = tx.put(key::pack(id(number)), row.encode());
        }
        meta.commit(tx).await.unwrap();
        Standing::new(meta, Activities::new(epoch), Faults::default())
    }

    async fn row_of(standing: &Standing, number: u8) -> PackRow {
        PackRow::decode(&standing.meta.get(&key::pack(id(number))).await.unwrap().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn lookups_write_only_to_resurrect() {
        let dir = tempfile::tempdir().unwrap();
        let states = [PackState::Open, PackState::Sealed, PackState::Condemned, PackState::Deleting];
        let standing = standing(dir.path(), 3, &states).await;
        for _ in 0..2 {
            let usable = standing.usable((1..=5).map(id).collect()).await.unwrap();
            assert_eq!(usable, (1..=3).map(id).collect());
        }
        assert_eq!((row_of(&standing, 1).await.referenced_epoch, row_of(&standing, 2).await.referenced_epoch), (1, 1));
        let back = row_of(&standing, 3).await;
        assert_eq!((back.state, back.referenced_epoch, back.condemned_epoch), (PackState::Sealed, 3, 0));
        assert_eq!(row_of(&standing, 4).await.state, PackState::Deleting);
        // What was found counts in its epoch only.
        standing.meta.commit(Transaction::new().delete(key::pack(id(2)))).await.unwrap();
        assert!(standing.usable(BTreeSet::from([id(2)])).await.unwrap().contains(&id(2)));
        standing.activities.advance(4);
        assert!(standing.usable(BTreeSet::from([id(2)])).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn touches_are_written_once_an_epoch_and_fail_on_what_goes() {
        let dir = tempfile::tempdir().unwrap();
        let standing = standing(dir.path(), 3, &[PackState::Open, PackState::Sealed, PackState::Condemned]).await;
        let packs: BTreeSet<PackId> = (1..=3).map(id).collect();
        let epoch = standing.touch(&packs).await.unwrap();
        assert_eq!(epoch, Some(row::encode_epoch(3)));
        for (number, state) in [(1, PackState::Open), (2, PackState::Sealed), (3, PackState::Sealed)] {
            let row = row_of(&standing, number).await;
            assert_eq!((row.state, row.referenced_epoch), (state, 3));
        }
        // Touched again in the same epoch, nothing is read or written; in the next one it is.
        let going = PackRow { state: PackState::Deleting, ..row_of(&standing, 2).await };
        standing.meta.commit(Transaction::new().put(key::pack(id(2)), going.encode())).await.unwrap();
        standing.touch(&packs).await.unwrap();
        standing.meta.commit(Transaction::new().put(key::epoch(), row::encode_epoch(4))).await.unwrap();
        assert!(matches!(standing.touch(&packs).await, Err(StoreError::NoSuchPack(pack)) if pack == id(2)));
    }
}
