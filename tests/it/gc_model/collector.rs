//! The collector's steps.

use super::protocol::{Protocol, REVIVED, Take};
use super::search::Step;
use super::state::{COLLECTOR, Collector, KEYS, NONE, PACKS, Row, Stage, State, one};

impl Protocol {
    pub(super) fn collector(&self, state: &State, take: Take<'_>) {
        let mut next = *state;
        let collector = &mut next.collector;
        match collector.stage {
            Stage::Idle => self.begin_round(state, take),
            Stage::Advance => {
                collector.stage = if self.rules.epoch_first { Stage::Mark } else { Stage::Act };
                (next.known, next.live) = (state.epoch, 0);
                take(Step("collector", "tells the activities the epoch"), next);
            }
            Stage::Mark => {
                collector.marked |= state.objects[collector.key as usize];
                collector.key += 1;
                if collector.key as usize == KEYS {
                    collector.key = 0;
                    collector.stage = if self.rules.epoch_first { Stage::Act } else { Stage::Advance };
                    next.epoch += u8::from(!self.rules.epoch_first);
                }
                take(Step("collector", "marks an object's packs"), next);
            }
            Stage::Act => self.act(state, take),
            Stage::Claim => {
                let pack = &mut next.packs[collector.pack as usize];
                if !self.rules.claim {
                    // Goes by what it read.
                    collector.stage = Stage::Index;
                    take(Step("collector", "does not claim a pack"), next);
                } else if pack.row == Row::Condemned {
                    pack.row = Row::Deleting;
                    collector.stage = self.first_to_go();
                    take(Step("collector", "claims a pack"), next);
                } else {
                    (collector.stage, collector.pack) = (Stage::Act, NONE);
                    take(Step("collector", "leaves a pack that was resurrected"), next);
                }
            }
            Stage::Index | Stage::File | Stage::Row => self.remove(state, take),
            Stage::Moved | Stage::Rewrite | Stage::Swap => self.move_on(state, take),
        }
    }

    fn begin_round(&self, state: &State, take: Take<'_>) {
        let Collector { rounds, repacks, .. } = state.collector;
        if rounds == 0 {
            return;
        }
        let mut next = State { collector: Collector { rounds: rounds - 1, repacks, ..COLLECTOR }, ..*state };
        if self.rules.epoch_first {
            next.collector.stage = Stage::Advance;
            next.epoch += 1;
            take(Step("collector", "raises the epoch"), next);
        } else {
            next.collector.stage = Stage::Mark;
            take(Step("collector", "begins to mark"), next);
        }
    }

    /// What can be done once all is marked, in any order. The round ends where the next one begins, and that is when
    /// nothing is left to do: what becomes possible after a look at a pack is as good as possible after the round.
    fn act(&self, state: &State, take: Take<'_>) {
        let collector = state.collector;
        let mut idle = true;
        let oldest = self.oldest(state);
        for number in 0..PACKS {
            let pack = state.packs[number];
            let mut next = *state;
            let marked = collector.marked >> number & 1 == 1;
            let settled = (!self.rules.spare_created || pack.created < state.epoch)
                && (!self.rules.spare_referenced || pack.referenced < state.epoch);
            match pack.row {
                Row::Sealed if !marked && settled => {
                    idle = false;
                    (next.packs[number].row, next.packs[number].condemned) = (Row::Condemned, state.epoch);
                    take(Step("collector", "condemns a pack"), next);
                }
                Row::Sealed if marked && settled && collector.repacks > 0 => self.append_again(next, number, take),
                Row::Condemned if pack.condemned < if self.rules.wait { oldest } else { state.epoch } => {
                    idle = false;
                    (next.collector.stage, next.collector.pack) = (Stage::Claim, number as u8);
                    take(Step("collector", "finds that a pack may go"), next);
                }
                Row::Deleting => {
                    idle = false;
                    (next.collector.stage, next.collector.pack) = (self.first_to_go(), number as u8);
                    take(Step("collector", "goes on with a pack that goes"), next);
                }
                Row::Absent if pack.file && !(self.rules.spare_own && pack.own) => {
                    next.packs[number].file = false;
                    take(Step("collector", "removes an orphan"), next);
                }
                _ => {}
            }
        }
        if idle {
            self.begin_round(state, take);
        }
    }

    fn first_to_go(&self) -> Stage {
        if self.rules.index_first { Stage::Index } else { Stage::File }
    }

    /// Removes what the stage says, then goes on to the next.
    fn remove(&self, state: &State, take: Take<'_>) {
        let mut next = *state;
        let number = state.collector.pack;
        let (name, then) = match state.collector.stage {
            Stage::Index => {
                // Its digests are read from the pack's directory.
                if state.index == number && state.packs[number as usize].file {
                    next.index = NONE;
                }
                ("removes index rows", if self.rules.index_first { Stage::File } else { Stage::Row })
            }
            Stage::File => {
                next.packs[number as usize].file = false;
                ("removes a file", if self.rules.index_first { Stage::Row } else { Stage::Index })
            }
            _ => {
                next.packs[number as usize].row = Row::Absent;
                ("removes a row", Stage::Act)
            }
        };
        next.collector.stage = then;
        if then == Stage::Act {
            next.collector.pack = NONE;
        }
        take(Step("collector", name), next);
    }

    /// Appends a pack's chunks to the open pack, as an upload does.
    fn append_again(&self, mut next: State, number: usize, take: Take<'_>) {
        if next.open == NONE && !self.open_pack(&mut next) {
            return;
        }
        next.packs[next.open as usize].common |= next.packs[number].common;
        let (target, repacks) = (next.open, next.collector.repacks - 1);
        next.collector =
            Collector { stage: Stage::Moved, pack: number as u8, target, repacks, key: 0, ..next.collector };
        take(Step("collector", "appends a pack's chunks again"), next);
    }

    /// Makes the new pack durable, then rewrites the objects that refer to the old one.
    fn move_on(&self, state: &State, take: Take<'_>) {
        let mut next = *state;
        let collector = &mut next.collector;
        let old = one(collector.pack);
        match collector.stage {
            Stage::Moved => {
                collector.stage = Stage::Rewrite;
                let target = one(collector.target);
                self.flush(&mut next, target);
                take(Step("collector", "flushes"), next);
            }
            Stage::Rewrite => {
                let refs = state.objects[collector.key as usize];
                if refs & old != 0 {
                    collector.found = refs;
                    collector.pending = refs & !old | one(collector.target);
                    collector.stage = Stage::Swap;
                    take(Step("collector", "reads an object to rewrite"), next);
                } else {
                    self.next_key(&mut next);
                    take(Step("collector", "passes an object by"), next);
                }
            }
            _ => {
                let mut pending = collector.pending;
                let touch = self.touch(&mut next, state.epoch, &mut pending);
                next.collector.pending = pending;
                let name = match touch {
                    Some(name) => name,
                    None => self.swap(&mut next, state),
                };
                take(Step("collector", name), next);
            }
        }
    }

    fn swap(&self, next: &mut State, state: &State) -> &'static str {
        let Collector { key, found, pack, target, .. } = state.collector;
        let unchanged = state.objects[key as usize] == found;
        let name = if unchanged || !self.rules.expect_object {
            next.objects[key as usize] = found & !one(pack) | one(target);
            if !unchanged {
                next.fault = REVIVED;
            }
            "rewrites an object"
        } else {
            "leaves an object that was changed"
        };
        self.next_key(next);
        name
    }

    fn next_key(&self, next: &mut State) {
        let collector = &mut next.collector;
        (collector.found, collector.pending, collector.stage) = (0, 0, Stage::Rewrite);
        collector.key += 1;
        if collector.key as usize == KEYS {
            (collector.key, collector.pack, collector.target, collector.stage) = (0, NONE, NONE, Stage::Act);
        }
    }
}
