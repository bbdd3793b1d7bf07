//! The fragmentation guard: keeps the last of many versions of an object readable in long runs. Each version shares what it
//! can with those before, here a chunk and there a chunk, until reading one means as many short reads as it has chunks. So
//! sharing is rationed: a short run of known chunks is shared only while the object has terms to spare, and is stored
//! again, beside its neighbours, where it has none.
//!
//! The [`Ration`]: an object of n chunks has at most n / `chunks_per_term` + `spare_terms` terms, as far as sharing goes (where
//! an upload's new chunks are parted by another upload's, or by the end of a pack, is not counted, nor where they repeat each other).
//! An object that comes in parts has a ration for each of them.
//!
//! Kin to the capping of Lillibridge et al. (FAST '13) and to Xet's lower bound on the chunks of a range, which is 8.

use crate::format::manifest::Location;
use crate::store::Ration;

/// More chunks than these in a term, or spare terms than these, make no difference to any object.
const MOST: u32 = 1 << 24;

/// Decides which known chunks of an upload are shared.
#[derive(Clone)]
pub(super) struct Guard {
    /// What a term costs, in chunks.
    cost: u64,
    /// What is to spare at most, in chunks.
    full: u64,
    /// What is to spare now.
    spare: u64,
    /// The run that the chunk before was shared in; none after a chunk that was stored.
    run: Option<Run>,
    /// The run that the chunk before was not shared in, and how many chunks of it there were: it may go on in the next batch.
    refused: Option<(Run, u64)>,
}

/// Consecutive chunks of a pack, or one chunk that is repeated.
#[derive(Clone, Copy)]
struct Run {
    last: Location,
    /// From one chunk to the next; not known for a single chunk.
    step: Option<u32>,
}

impl Run {
    fn new(at: Location) -> Self {
        Self { last: at, step: None }
    }

    /// Whether the chunk continues the run; if so, it is part of it now.
    fn takes(&mut self, at: Location) -> bool {
        let step = at.chunk.wrapping_sub(self.last.chunk);
        let continues = at.pack == self.last.pack && step <= 1 && self.step.is_none_or(|known| known == step);
        if continues {
            *self = Self { last: at, step: Some(step) };
        }
        continues
    }
}

impl Guard {
    pub(super) fn new(ration: Ration) -> Self {
        let cost = u64::from(ration.chunks_per_term.min(MOST));
        let full = cost * u64::from(ration.spare_terms.min(MOST));
        Self { cost, full, spare: full, run: None, refused: None }
    }

    /// Where each chunk is to be shared, if it is, given where the store has it, and whether it could be stored again. A run with
    /// one that cannot be is always shared.
    pub(super) fn choose(&mut self, chunks: &[(Option<Location>, bool)]) -> Vec<Option<Location>> {
        let mut chosen = Vec::with_capacity(chunks.len());
        while let Some((at, _)) = chunks.get(chosen.len()) {
            let refused = self.refused.take();
            let Some(at) = *at else {
                self.run = None;
                self.account(1, 0);
                chosen.push(None);
                continue;
            };
            if self.run.as_mut().is_some_and(|run| run.takes(at)) {
                self.account(1, 0);
                chosen.push(Some(at));
                continue;
            }
            let mut run = Run::new(at);
            let more = chunks[chosen.len() + 1..].iter().take_while(|(at, _)| at.is_some_and(|at| run.takes(at)));
            let len = 1 + more.count();
            // The run is a term, and what is stored after it is another. Between two shared runs that was paid with the first.
            let cost = self.cost * if self.run.is_some() { 1 } else { 2 };
            let before = refused.map_or(0, |(mut refused, len)| if refused.takes(at) { len } else { 0 });
            let can_store = chunks[chosen.len()..chosen.len() + len].iter().all(|(_, can_store)| *can_store);
            let is_shared = self.is_worth(len as u64, before, cost) || !can_store;
            self.account(len as u64, if is_shared { cost } else { 0 });
            self.run = is_shared.then_some(run);
            self.refused = (!is_shared).then_some((run, before + len as u64));
            let run = &chunks[chosen.len()..chosen.len() + len];
            chosen.extend(run.iter().map(|(at, _)| at.filter(|_| is_shared)));
        }
        chosen
    }

    /// Whether a run of so many chunks, and so many before in which it was not shared, is worth its cost: the less there is to
    /// spare, the longer it must be. With nothing to spare, it must earn what it costs.
    fn is_worth(&self, len: u64, before: u64, cost: u64) -> bool {
        let is_long =
            u128::from(before + len) * u128::from(self.full) >= u128::from(cost) * u128::from(self.full - self.spare);
        len >= cost || is_long && self.spare + len >= cost
    }

    fn account(&mut self, earned: u64, spent: u64) {
        self.spare = (self.spare + earned).saturating_sub(spent).min(self.full);
    }
}

#[cfg(test)]
mod tests {
    //! However the known chunks lie, the terms stay within the ration; and what is rarely interrupted is shared whole.
    use proptest::prelude::*;

    use super::*;
    use crate::format::manifest::{self, Term};
    use crate::model::PackId;

    const NEW: PackId = PackId([0xff; 16]);

    fn ration(chunks_per_term: u32) -> Ration {
        Ration { chunks_per_term, spare_terms: 128 }
    }

    fn at(pack: u8, chunk: u32) -> Location {
        Location { pack: PackId([pack; 16]), chunk }
    }

    /// The terms of an object whose chunks lie so, given to the guard in batches; and how many of its chunks are shared.
    fn terms(guard: &mut Guard, chunks: &[Option<Location>], batch: usize) -> (Vec<Term>, usize) {
        let (mut terms, mut new, mut shared) = (Vec::new(), 0, 0);
        for batch in chunks.chunks(batch) {
            let known: Vec<_> = batch.iter().map(|at| (*at, true)).collect();
            for at in guard.choose(&known) {
                shared += usize::from(at.is_some());
                new += u32::from(at.is_none());
                manifest::push(&mut terms, at.unwrap_or(Location { pack: NEW, chunk: new }), 1);
            }
        }
        (terms, shared)
    }

    /// An object of runs, each of a length, from a place in one of four packs, or new, or of one chunk repeated.
    fn object() -> impl Strategy<Value = Vec<Option<Location>>> {
        let run = (0u8..6, 0u32..50, prop_oneof![4 => 1u32..4, 1 => 1u32..40]).prop_map(|(kind, first, len)| {
            let chunk = move |n| match kind {
                0 => None,
                5 => Some(at(1, first)),
                pack => Some(at(pack, first + n)),
            };
            (0..len).map(chunk).collect::<Vec<_>>()
        });
        proptest::collection::vec(run, 0..2000).prop_map(|runs| runs.concat())
    }

    #[test]
    fn what_cannot_be_stored_again_is_shared_with_its_run() {
        let mut guard = Guard::new(Ration { chunks_per_term: 128, spare_terms: 0 });
        let run = [(Some(at(1, 7)), true), (Some(at(1, 8)), false), (Some(at(2, 0)), true)];
        assert_eq!(guard.choose(&run), [Some(at(1, 7)), Some(at(1, 8)), None]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn terms_stay_within_the_ration(
            object in object(), batch in 1usize..100, chunks_per_term in 1u32..20, spare_terms in 0u32..200
        ) {
            let (terms, _) = terms(&mut Guard::new(Ration { chunks_per_term, spare_terms }), &object, batch);
            let allowed = object.len() / chunks_per_term as usize + spare_terms as usize + 1;
            prop_assert!(terms.len() <= allowed, "{} terms, {allowed} allowed", terms.len());
        }

        #[test]
        fn without_a_ration_all_is_shared(object in object(), batch in 1usize..100) {
            let known = object.iter().flatten().count();
            prop_assert_eq!(terms(&mut Guard::new(ration(0)), &object, batch).1, known);
        }
    }

    #[test]
    fn rare_changes_cost_no_sharing() {
        // One chunk in a hundred is new.
        let object: Vec<_> = (0..100_000u32).map(|n| (n % 100 > 0).then(|| at(1, n))).collect();
        assert_eq!(terms(&mut Guard::new(ration(8)), &object, 64).1, 99_000);
    }

    #[test]
    fn what_is_shredded_is_stored_again() {
        // Every chunk comes from another place.
        let object: Vec<_> = (0..10_000u32).map(|n| Some(at((n % 4) as u8, n * 7))).collect();
        let (terms, shared) = terms(&mut Guard::new(ration(8)), &object, 64);
        assert!(terms.len() <= 10_000 / 8 + 129, "{}", terms.len());
        assert!(shared > 128, "{shared}");
    }

    #[test]
    fn what_comes_in_small_batches_is_judged_as_a_whole() {
        // Nothing is to spare after the shreds; then a long run comes two chunks at a time.
        let shreds = (0..2_000u32).map(|n| Some(at((n % 4) as u8, n * 7)));
        let object: Vec<_> = shreds.chain((0..1_000).map(|n| Some(at(9, n)))).collect();
        let mut guard = Guard::new(ration(4));
        terms(&mut guard, &object[..2_000], 2);
        let (_, shared) = terms(&mut guard, &object[2_000..], 2);
        assert!(shared >= 980, "{shared}");
    }

    #[test]
    fn what_cannot_be_stored_again_is_shared() {
        let chunks: Vec<_> = (0..1000).map(|n| (Some(at(1, n * 2)), false)).collect();
        assert!(Guard::new(ration(8)).choose(&chunks).into_iter().all(|at| at.is_some()));
    }
}
