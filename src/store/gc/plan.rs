//! What a round of garbage collection is to do, computed from what was seen: values in, a value out. Nothing here reads, writes or
//! asks the time.

use serde::{Deserialize, Serialize};

use crate::format::row::{PackRow, PackState};
use crate::model::PackId;

/// A sealed pack below this part of a full one is small: several of them become one.
pub(super) const SMALL_PART: u64 = 4;
/// So many small packs are several.
const SMALL_MIN: usize = 4;
/// A pack is repacked once less than one part in so many of its stored bytes is in use.
const MOSTLY_DEAD: u64 = 2;
/// Chunks differ in length and in how well they compress, so packs are measured in bytes that are mostly dead by their chunks, and a bit
/// above that: those with less than three parts in four of their chunks in use.
const MEASURED: (u32, u32) = (3, 4);
/// Packs of one kind in one plan; the next round has the others.
const PACKS_MAX: usize = 20_000;

/// What was seen of one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackFacts {
    /// The pack.
    pub(super) pack: PackId,
    /// Its row.
    pub(super) row: PackRow,
    /// How many of its chunks are in use.
    pub(super) marked: u32,
    /// Stored bytes of the chunks in use, where they were measured.
    pub(super) live_bytes: Option<u64>,
    /// Readers outside of the store may know the pack by its id, so that its chunks must stay where they are.
    pub(super) pinned: bool,
    /// A chunk of it that is in use, or the whole of it, is known to be damaged: until it is repaired the pack stays, lest what else
    /// is in it is moved again by every round, for nothing.
    pub(super) damaged: bool,
}

/// What was seen of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The epoch in which the marks were made.
    pub(super) epoch: u64,
    /// The least epoch of all activities.
    pub(super) oldest: u64,
    /// All packs that have a row.
    pub(super) packs: Vec<PackFacts>,
    /// Files that no row names, that this process has not made, and that were so in an earlier round too.
    pub(super) strays: Vec<PackId>,
    /// A sealed pack below this many bytes is small.
    pub(super) small: u64,
    /// Stored bytes that one round may move to new packs.
    pub(super) repack_bytes: u64,
}

/// One pack of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPack {
    /// The pack.
    pub pack: PackId,
    /// Length of its file.
    pub bytes: u64,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many of them are in use.
    pub live_chunks: u32,
    /// Stored bytes of those, as far as known.
    pub live_bytes: u64,
}

/// What a round is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcPlan {
    /// The epoch in which the marks were made.
    pub epoch: u64,
    /// The least epoch of all activities.
    pub oldest: u64,
    /// Packs that were looked at.
    pub packs: u64,
    /// Packs that are in use but were condemned: never in order, and put right.
    pub rescue: Vec<PlannedPack>,
    /// Packs of which nothing is in use: they may go in a later round.
    pub condemn: Vec<PlannedPack>,
    /// Packs that were condemned in an earlier round, and that no activity can know.
    pub delete: Vec<PlannedPack>,
    /// Packs that were condemned, and that wait for an activity to end.
    pub waiting: Vec<PlannedPack>,
    /// Packs whose chunks in use move to new packs; what is left of them goes in later rounds.
    pub repack: Vec<PlannedPack>,
    /// Files that no row names: what a crash left.
    pub orphans: Vec<PackId>,
    /// Why files that no row names stay.
    pub orphans_refused: Option<String>,
    /// What contradicts the rules of collection. While there is any, nothing is removed.
    pub contradictions: Vec<String>,
}

impl GcPlan {
    /// Whether there is nothing to do, now or in a later round.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let packs = [&self.rescue, &self.condemn, &self.delete, &self.waiting, &self.repack];
        packs.iter().all(|packs| packs.is_empty()) && self.orphans.is_empty()
    }

    /// Length of the files that go in this round.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        self.delete.iter().map(|pack| pack.bytes).sum()
    }
}

/// Whether no writer that is under way can have made or touched the pack: what is unmarked in it is garbage then, and
/// not an upload that has not committed yet.
fn is_settled(row: &PackRow, facts: &Facts) -> bool {
    let last = row.created_epoch.max(row.referenced_epoch);
    row.state == PackState::Sealed && last < facts.epoch && last < facts.oldest
}

/// Whether what is in use of it may move to another pack.
fn may_move(pack: &PackFacts, facts: &Facts) -> bool {
    !pack.pinned && !pack.damaged && is_settled(&pack.row, facts)
}

/// Whether the stored bytes of its chunks in use must be known.
#[must_use]
pub(super) fn is_to_be_measured(pack: &PackFacts, facts: &Facts) -> bool {
    let partly = pack.marked > 0
        && u64::from(pack.marked) * u64::from(MEASURED.1) < u64::from(pack.row.chunks) * u64::from(MEASURED.0);
    partly && may_move(pack, facts)
}

fn planned(pack: &PackFacts) -> PlannedPack {
    let live_bytes = match pack.live_bytes {
        Some(bytes) => bytes,
        None if pack.marked == 0 => 0,
        // By the share of its chunks: good enough to be told, and never to be acted on.
        None => (u128::from(pack.row.bytes) * u128::from(pack.marked) / u128::from(pack.row.chunks.max(1))) as u64,
    };
    PlannedPack {
        pack: pack.pack,
        bytes: pack.row.bytes,
        chunks: pack.row.chunks,
        live_chunks: pack.marked,
        live_bytes,
    }
}

/// Decides.
#[must_use]
pub(super) fn plan(facts: &Facts) -> GcPlan {
    let mut plan =
        GcPlan { epoch: facts.epoch, oldest: facts.oldest, packs: facts.packs.len() as u64, ..GcPlan::default() };
    for pack in &facts.packs {
        let row = &pack.row;
        let list = match row.state {
            PackState::Deleting if pack.marked > 0 => {
                plan.contradictions.push(format!("pack {} is being deleted and in use", pack.pack));
                continue;
            }
            // A crash cut its removal short.
            PackState::Deleting => &mut plan.delete,
            PackState::Condemned if pack.marked > 0 => &mut plan.rescue,
            PackState::Condemned if row.condemned_epoch < facts.oldest => &mut plan.delete,
            PackState::Condemned => &mut plan.waiting,
            PackState::Sealed if pack.marked > 0 => continue,
            PackState::Sealed if row.created_epoch < facts.epoch && row.referenced_epoch < facts.epoch => {
                &mut plan.condemn
            }
            PackState::Sealed | PackState::Open => continue,
        };
        if list.len() < PACKS_MAX {
            list.push(planned(pack));
        }
    }
    if !plan.contradictions.is_empty() {
        let GcPlan { epoch, oldest, packs, rescue, contradictions, .. } = plan;
        return GcPlan { epoch, oldest, packs, rescue, contradictions, ..GcPlan::default() };
    }
    plan.repack = repack(facts);
    strays(facts, &mut plan);
    plan
}

/// The packs that are worth moving: mostly dead ones first, then small ones, as many as the round may move.
fn repack(facts: &Facts) -> Vec<PlannedPack> {
    let movable = facts.packs.iter().filter(|pack| pack.marked > 0 && may_move(pack, facts));
    let (mut dead, mut small) = (Vec::new(), Vec::new());
    for pack in movable {
        if pack.live_bytes.is_some_and(|live| live.saturating_mul(MOSTLY_DEAD) < pack.row.bytes) {
            dead.push(planned(pack));
        } else if pack.row.bytes < facts.small {
            small.push(planned(pack));
        }
    }
    // What frees most for the least copying goes first; the id decides between equals, so that a plan is the same each time.
    dead.sort_by_key(|pack| (pack.live_bytes * 1024 / pack.bytes.max(1), pack.pack));
    if small.len() < SMALL_MIN {
        small.clear();
    }
    let mut left = facts.repack_bytes;
    let mut chosen = Vec::new();
    for pack in dead.into_iter().chain(small) {
        if pack.live_bytes > left || chosen.len() == PACKS_MAX {
            break;
        }
        left -= pack.live_bytes;
        chosen.push(pack);
    }
    chosen
}

/// Files that no row names go, unless it is the rows that are missing.
fn strays(facts: &Facts, plan: &mut GcPlan) {
    if facts.strays.len() > facts.packs.len() {
        plan.orphans_refused = Some(format!(
            "{} packs have no row and only {} have one: the metadata seems to be lost or old; restore it, or run \
             `bedplate store fsck --rebuild-index`",
            facts.strays.len(),
            facts.packs.len()
        ));
        return;
    }
    plan.orphans = facts.strays.iter().copied().take(PACKS_MAX).collect();
}

#[cfg(test)]
mod tests {
    //! What goes, what waits and what moves, each by the one fact that decides it.
    use super::*;
    use crate::sys::clock::Timestamp;

    const MIB: u64 = 1024 * 1024;

    /// A full, settled pack with all chunks in use, at epoch 10.
    fn pack(id: u8) -> PackFacts {
        let row = PackRow {
            state: PackState::Sealed,
            bytes: 64 * MIB,
            directory_offset: 63 * MIB,
            chunks: 1000,
            raw_bytes: 64 * MIB,
            created: Timestamp(0),
            created_epoch: 2,
            referenced_epoch: 3,
            condemned_epoch: 0,
            verified: Timestamp(0),
        };
        PackFacts { pack: PackId([id; 16]), row, marked: 1000, live_bytes: None, pinned: false, damaged: false }
    }

    fn facts(packs: Vec<PackFacts>) -> Facts {
        Facts { epoch: 10, oldest: 10, packs, strays: Vec::new(), small: 16 * MIB, repack_bytes: 1024 * MIB }
    }

    fn ids(packs: &[PlannedPack]) -> Vec<u8> {
        packs.iter().map(|pack| pack.pack.0[0]).collect()
    }

    #[test]
    fn only_what_nobody_uses_or_has_touched_is_condemned() {
        let unmarked = |id, change: fn(&mut PackFacts)| {
            let mut pack = PackFacts { marked: 0, ..pack(id) };
            change(&mut pack);
            pack
        };
        let plan = plan(&facts(vec![
            pack(1),
            unmarked(2, |_| {}),
            unmarked(3, |pack| pack.row.created_epoch = 10),
            unmarked(4, |pack| pack.row.referenced_epoch = 10),
            unmarked(5, |pack| pack.row.state = PackState::Open),
            unmarked(6, |pack| pack.pinned = true),
        ]));
        assert_eq!(ids(&plan.condemn), [2, 6]);
        assert_eq!((plan.delete.len(), plan.repack.len(), plan.packs), (0, 0, 6));
    }

    #[test]
    fn a_condemned_pack_waits_for_every_activity_of_its_epoch() {
        let condemned = |id, epoch| {
            let mut pack = PackFacts { marked: 0, ..pack(id) };
            (pack.row.state, pack.row.condemned_epoch) = (PackState::Condemned, epoch);
            pack
        };
        let mut facts = facts(vec![condemned(1, 7), condemned(2, 8), condemned(3, 9)]);
        facts.oldest = 8;
        let first = plan(&facts);
        assert_eq!((ids(&first.delete), ids(&first.waiting)), (vec![1], vec![2, 3]));
        assert_eq!(first.freed_bytes(), 64 * MIB);
        facts.oldest = 10;
        assert_eq!(ids(&plan(&facts).delete), [1, 2, 3]);
        // In use after all: nothing that the protocol allows, and no reason to lose it.
        facts.packs[0].marked = 1;
        let last = plan(&facts);
        assert_eq!((ids(&last.rescue), ids(&last.delete)), (vec![1], vec![2, 3]));
        facts.packs[0].row.state = PackState::Deleting;
        let none = plan(&facts);
        assert_eq!((none.contradictions.len(), none.delete.len()), (1, 0));
        facts.packs[0].marked = 0;
        facts.oldest = 1;
        assert_eq!(ids(&plan(&facts).delete), [1]);
    }

    #[test]
    fn packs_that_are_mostly_dead_move_first_and_small_ones_when_there_are_several() {
        let live = |id, mib: u64| PackFacts { marked: 300, live_bytes: Some(mib * MIB), ..pack(id) };
        let small = |id| {
            let mut pack = pack(id);
            pack.row.bytes = 3 * MIB;
            pack
        };
        let mut all = facts(vec![live(1, 31), live(2, 33), live(3, 2), small(4), small(5), small(6)]);
        assert_eq!(ids(&plan(&all).repack), [3, 1]);
        all.packs.push(small(7));
        assert_eq!(ids(&plan(&all).repack), [3, 1, 4, 5, 6, 7]);
        all.repack_bytes = 37 * MIB;
        assert_eq!(ids(&plan(&all).repack), [3, 1, 4]);
        // An upload that is under way may be about to refer to what is unmarked.
        all.oldest = 3;
        assert_eq!(ids(&plan(&all).repack), [0; 0]);
        all.oldest = 10;
        all.packs[1].damaged = true;
        all.packs[3].damaged = true;
        assert_eq!(ids(&plan(&all).repack), [3, 1]);
        all.packs.iter_mut().for_each(|pack| pack.pinned = true);
        assert_eq!(ids(&plan(&all).repack), [0; 0]);
    }

    #[test]
    fn only_packs_that_may_be_mostly_dead_are_measured() {
        let facts = facts(Vec::new());
        let marked = |marked| is_to_be_measured(&PackFacts { marked, ..pack(1) }, &facts);
        assert_eq!([0, 1, 749, 750, 1000].map(marked), [false, true, true, false, false]);
    }

    #[test]
    fn files_without_rows_stay_where_the_rows_seem_to_be_lost() {
        let strays = vec![PackId([8; 16]), PackId([9; 16])];
        let kept = plan(&Facts { strays: strays.clone(), ..facts(vec![pack(1)]) });
        assert!(kept.orphans.is_empty() && kept.orphans_refused.unwrap().contains("restore"));
        let gone = plan(&Facts { strays: strays.clone(), ..facts(vec![pack(1), pack(2)]) });
        assert_eq!((gone.orphans, gone.orphans_refused), (strays, None));
    }

    #[test]
    fn a_plan_is_a_value_that_reads_back() {
        let plan = plan(&facts(vec![PackFacts { marked: 0, ..pack(2) }]));
        assert!(!plan.is_empty());
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<GcPlan>(&text).unwrap(), plan);
    }
}
