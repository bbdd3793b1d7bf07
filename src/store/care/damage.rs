//! What is known to be damaged, written down: a damaged chunk is not found in the index any more, so that the same bytes, put
//! again, are stored again, and it is told until it is repaired.

use std::collections::HashSet;

use bytes::Bytes;

use crate::format::damage::{self, DamageRow, WHOLE};
use crate::format::manifest::Location;
use crate::format::row::{self, PackRow, PackState, key};
use crate::meta::{Meta, MetaError, Transaction, prefix_end};
use crate::model::limit::TRANSACTION_KEYS_MAX;
use crate::model::{Digest, PackId};
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::faults::Fault;
use crate::sys::clock;

/// Rows read at once, where only few of them count.
const PAGE: usize = 256;

/// The packs that are known to be damaged as a whole.
pub(in crate::store) async fn unreadable_packs(meta: &dyn Meta) -> Result<HashSet<PackId>, StoreError> {
    let (mut start, end) = (damage::PREFIX.to_vec(), prefix_end(damage::PREFIX));
    let mut packs = HashSet::new();
    loop {
        let rows = meta.scan(&start, &end, PAGE).await?;
        let places = rows.iter().filter_map(|(row_key, _)| damage::place(row_key).ok());
        packs.extend(places.filter(|at| at.chunk == WHOLE).map(|at| at.pack));
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
            _ => return Ok(packs),
        }
    }
}

impl Inner {
    /// Writes down that a chunk is damaged, and takes it out of the index. `needed`: somebody reads it, so that something
    /// refers to it. That it cannot be written down must not hide the damage itself: it is only logged.
    pub(in crate::store) async fn distrust(&self, digest: &Digest, at: Location, what: &str, needed: bool) {
        if let Err(error) = self.note_damage(Some(*digest), at, what, needed).await {
            tracing::warn!(%error, %digest, pack = %at.pack, chunk = at.chunk, "damage could not be written down");
        }
    }

    /// Writes down that a pack as a whole is damaged: nothing new relies on it.
    pub(in crate::store) async fn distrust_pack(&self, pack: PackId, what: &str) {
        self.standing.distrust(pack);
        if let Err(error) = self.note_damage(None, Location { pack, chunk: WHOLE }, what, false).await {
            tracing::warn!(%error, %pack, "damage could not be written down");
        }
    }

    async fn note_damage(
        &self,
        digest: Option<Digest>,
        at: Location,
        what: &str,
        needed: bool,
    ) -> Result<(), MetaError> {
        if let Some(digest) = digest
            && !self.faults.has(Fault::RelyOnDamage)
        {
            let key = key::chunk(&digest);
            let tx = Transaction::new().expect(key.clone(), Some(row::encode_location(at))).delete(key);
            match self.meta.commit(tx).await {
                // The index has it elsewhere, or not at all.
                Ok(()) | Err(MetaError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        let key = damage::key(at);
        let found = self.meta.get(&key).await?;
        let known = found.as_deref().and_then(|bytes| DamageRow::decode(bytes).ok());
        let row = match known {
            Some(known) if known.needed || !needed => return Ok(()),
            Some(known) => DamageRow { needed, ..known },
            None => {
                tracing::error!(pack = %at.pack, chunk = at.chunk, what, "damage was found in a pack");
                DamageRow { found: clock::now(), digest, needed: true, what: what.to_owned() }
            }
        };
        match self.meta.commit(Transaction::new().expect(key.clone(), found).put(key, row.encode())).await {
            // Somebody else has found it too.
            Err(MetaError::Conflict) => Ok(()),
            other => other,
        }
    }

    /// Whether anything of the pack is known to be damaged.
    pub(in crate::store) async fn is_damaged(&self, pack: PackId) -> Result<bool, StoreError> {
        let start = damage::keys_of(pack);
        Ok(!self.meta.scan(&start, &prefix_end(&start), 1).await?.is_empty())
    }

    /// What is known to be damaged in one pack.
    pub(in crate::store) async fn damage_of(&self, pack: PackId) -> Result<Vec<(Location, DamageRow)>, StoreError> {
        self.damage_below(damage::keys_of(pack)).await
    }

    /// All that is known to be damaged.
    pub(in crate::store) async fn all_damage(&self) -> Result<Vec<(Location, DamageRow)>, StoreError> {
        self.damage_below(damage::PREFIX.to_vec()).await
    }

    async fn damage_below(&self, prefix: Vec<u8>) -> Result<Vec<(Location, DamageRow)>, StoreError> {
        let end = prefix_end(&prefix);
        let mut start = prefix;
        let mut all = Vec::new();
        loop {
            let rows = self.meta.scan(&start, &end, TRANSACTION_KEYS_MAX).await?;
            for (row_key, value) in &rows {
                all.push((damage::place(row_key)?, DamageRow::decode(value)?));
            }
            match rows.last() {
                Some((last, _)) if rows.len() == TRANSACTION_KEYS_MAX => start = [last, &b"\0"[..]].concat(),
                _ => return Ok(all),
            }
        }
    }

    /// Somebody could not read a pack's directory or file: writes it down, unless the pack is going.
    pub(in crate::store) async fn met_unreadable(&self, pack: PackId, what: &str) {
        match self.whole_pack(pack).await {
            Ok(Some(_)) => self.distrust_pack(pack, what).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, %pack, "damage could not be written down"),
        }
    }

    /// Forgets damage that is none any more.
    pub(super) async fn forgive(&self, places: &[Location]) -> Result<(), StoreError> {
        for places in places.chunks(TRANSACTION_KEYS_MAX) {
            let tx = places.iter().fold(Transaction::new(), |tx, at| tx.delete(damage::key(*at)));
            self.meta.commit(tx).await?;
        }
        places.iter().filter(|at| at.chunk == WHOLE).for_each(|at| self.standing.trust(at.pack));
        Ok(())
    }

    /// Forgets one damage that is none any more, as it is written down; its chunk, if it is about one, is found in the index
    /// again, unless it is found elsewhere by now.
    pub(super) async fn forgive_one(
        &self,
        at: Location,
        row: &DamageRow,
        digest: Option<Digest>,
    ) -> Result<(), StoreError> {
        let key = damage::key(at);
        loop {
            let found = self.meta.get(&key).await?;
            if found != Some(row.encode()) {
                return Ok(());
            }
            let mut tx = Transaction::new().expect(key.clone(), found).delete(key.clone());
            if let Some(digest) = digest {
                let (pack_key, chunk_key) = (key::pack(at.pack), key::chunk(&digest));
                let pack = self.meta.get(&pack_key).await?;
                let is_whole = |bytes: &Bytes| {
                    PackRow::decode(bytes)
                        .is_ok_and(|row| matches!(row.state, PackState::Sealed | PackState::Condemned))
                };
                // Once the pack is going, nothing may point to it any more: its row is expected.
                if pack.as_ref().is_some_and(is_whole) && self.meta.get(&chunk_key).await?.is_none() {
                    tx = tx.expect(pack_key, pack).expect(chunk_key.clone(), None);
                    tx = tx.put(chunk_key, row::encode_location(at));
                }
            }
            match self.meta.commit(tx).await {
                Ok(()) => {
                    if at.chunk == WHOLE {
                        self.standing.trust(at.pack);
                    }
                    return Ok(());
                }
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says whether anything needs a damaged place.
    pub(super) async fn mark_needed(&self, at: Location, row: &DamageRow, needed: bool) -> Result<(), StoreError> {
        let key = damage::key(at);
        let new = DamageRow { needed, ..row.clone() };
        match self.meta.commit(Transaction::new().expect(key.clone(), Some(row.encode())).put(key, new.encode())).await
        {
            Ok(()) | Err(MetaError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
