//! What is known of the store's health: how old the oldest look at a pack is, what is damaged, and which objects need it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::format::damage::WHOLE;
use crate::format::row::{PackRow, PackState};
use crate::model::{Digest, PackId};
use crate::store::error::StoreError;
use crate::store::gc::roots::{Roots, each_term};
use crate::store::{Inner, Store};
use crate::sys::clock::{self, Timestamp};

/// Rows of packs read at once.
const PAGE: usize = 256;
/// Objects that are named for each damaged place; more are counted.
const OBJECTS_MAX: usize = 100;

/// Something that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageInfo {
    /// The pack.
    pub pack: PackId,
    /// The chunk's number in it; none, the pack as a whole.
    pub chunk: Option<u32>,
    /// The chunk's digest.
    pub digest: Option<Digest>,
    /// When it was found.
    pub found: Timestamp,
    /// What is wrong.
    pub what: String,
    /// How many objects and parts of open uploads need it.
    pub needed_by: u64,
    /// The first of them, as `bucket/key`.
    pub objects: Vec<String>,
}

/// How the scrub stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Packs that are whole.
    pub packs: u64,
    /// Packs that were never read again since they were written.
    pub never_verified: u64,
    /// When the pack was last read, or written, that was left alone longest.
    pub oldest: Option<Timestamp>,
    /// Seconds since then.
    pub oldest_age_seconds: u64,
    /// What is damaged, and not repaired.
    pub damage: Vec<DamageInfo>,
}

/// A pack, and when it was last known to be good.
pub(super) struct Aged {
    pub(super) pack: PackId,
    pub(super) seen: Timestamp,
    pub(super) verified: bool,
}

impl Store {
    /// How the scrub stands, and what is damaged.
    pub async fn scrub_status(&self) -> Result<ScrubStatus, StoreError> {
        let ages = self.inner.ages().await?;
        let oldest = ages.iter().map(|aged| aged.seen).min();
        Ok(ScrubStatus {
            packs: ages.len() as u64,
            never_verified: ages.iter().filter(|aged| !aged.verified).count() as u64,
            oldest,
            oldest_age_seconds: oldest.map_or(0, |oldest| clock::now().since(oldest).as_secs()),
            damage: self.inner.damage().await?,
        })
    }
}

impl Inner {
    /// All packs that are whole.
    pub(super) async fn ages(&self) -> Result<Vec<Aged>, StoreError> {
        let mut ages = Vec::new();
        let mut start = b"p/".to_vec();
        loop {
            let rows = self.meta.scan(&start, b"p0", PAGE).await?;
            for (row_key, value) in &rows {
                let (Some(id), Ok(row)) = (row_key.last_chunk::<16>(), PackRow::decode(value)) else { continue };
                if matches!(row.state, PackState::Sealed | PackState::Condemned) {
                    let seen = row.verified.max(row.created);
                    ages.push(Aged { pack: PackId(*id), seen, verified: row.verified.0 > 0 });
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => return Ok(ages),
            }
        }
    }

    /// What is damaged, and who needs it. Takes note of what nobody needs any more.
    pub(super) async fn damage(&self) -> Result<Vec<DamageInfo>, StoreError> {
        let rows = self.all_damage().await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut places: BTreeMap<PackId, BTreeMap<u32, usize>> = BTreeMap::new();
        for (number, (at, _)) in rows.iter().enumerate() {
            places.entry(at.pack).or_default().insert(at.chunk, number);
        }
        let mut needed: Vec<(u64, Vec<String>)> = vec![(0, Vec::new()); rows.len()];
        let is_complete = self.who_needs(&places, &mut needed).await?;
        let mut damage = Vec::new();
        for ((at, row), (needed_by, objects)) in rows.into_iter().zip(needed) {
            let is_needed = needed_by > 0 || !is_complete;
            if row.needed != is_needed {
                self.mark_needed(at, &row, is_needed).await?;
            }
            if is_needed {
                damage.push(DamageInfo {
                    pack: at.pack,
                    chunk: (at.chunk != WHOLE).then_some(at.chunk),
                    digest: row.digest,
                    found: row.found,
                    what: row.what,
                    needed_by,
                    objects,
                });
            }
        }
        Ok(damage)
    }

    /// Counts and names who refers to these places; whether every object could be looked at.
    async fn who_needs(
        &self,
        places: &BTreeMap<PackId, BTreeMap<u32, usize>>,
        needed: &mut [(u64, Vec<String>)],
    ) -> Result<bool, StoreError> {
        let mut roots = Roots::all();
        loop {
            let page = match roots.next(self).await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(true),
                // Rows that cannot be read are fsck's to tell.
                Err(StoreError::NotCollected { .. }) => return Ok(false),
                Err(error) => return Err(error),
            };
            for root in &page {
                let mut met = BTreeSet::new();
                let read = each_term(self, root, |terms| {
                    for term in terms {
                        let Some(chunks) = places.get(&term.pack) else { continue };
                        met.extend(chunks.range(term.chunks()).map(|(_, number)| *number));
                        met.extend(chunks.get(&WHOLE));
                    }
                    Ok(())
                });
                match read.await {
                    // Changed while it was read, or fsck's to tell.
                    Ok(()) | Err(StoreError::CorruptRow(_)) => {}
                    Err(error) => return Err(error),
                }
                for number in met {
                    let (count, names) = &mut needed[number];
                    *count += 1;
                    if names.len() < OBJECTS_MAX {
                        let name = root.name();
                        names.push(name.strip_prefix("object ").map(str::to_owned).unwrap_or(name));
                    }
                }
            }
        }
    }
}
