//! The protocol of garbage collection as steps between states: each reads or commits rows once, or touches one file. What
//! the real code does by reading a row and committing on the condition that it is unchanged, again and again until it
//! succeeds, is one step here: the tries that fail have no effect.

use super::search::{Model, Packed, Step};
use super::state::{
    COLLECTOR, Collector, IDLE, KEYS, NO_PACK, NONE, PACKS, Pack, Phase, Reader, Row, Stage, State, WRITERS, Work,
    Writer, each, one,
};

/// The rules; each can be broken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// A commit touches every pack that the object refers to.
    pub(super) touch: bool,
    /// A touch of a condemned pack makes it sealed again.
    pub(super) resurrect: bool,
    /// A commit expects the epoch that its touches were made in.
    pub(super) expect_epoch: bool,
    /// What was touched counts within its epoch only.
    pub(super) touch_again: bool,
    /// A lookup looks at the pack's row before it relies on the index.
    pub(super) check_row: bool,
    /// Sealing a pack keeps the epoch of a touch that came before.
    pub(super) sealing_keeps: bool,
    /// The epoch is raised before the objects are marked.
    pub(super) epoch_first: bool,
    /// A pack that was created in this epoch is not condemned.
    pub(super) spare_created: bool,
    /// A pack that was referred to in this epoch is not condemned.
    pub(super) spare_referenced: bool,
    /// A condemned pack is deleted once no activity is as old as its condemnation.
    pub(super) wait: bool,
    /// A row says `deleting` before anything of the pack goes.
    pub(super) claim: bool,
    /// Index rows go before the file by whose directory they are found.
    pub(super) index_first: bool,
    /// A file that this process has made is no orphan.
    pub(super) spare_own: bool,
    /// An object is rewritten only as it was read.
    pub(super) expect_object: bool,
}

impl Rules {
    pub(super) const ALL: Self = Self {
        touch: true,
        resurrect: true,
        expect_epoch: true,
        touch_again: true,
        check_row: true,
        sealing_keeps: true,
        epoch_first: true,
        spare_created: true,
        spare_referenced: true,
        wait: true,
        claim: true,
        index_first: true,
        spare_own: true,
        expect_object: true,
    };
}

/// How much may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Writers, what each may do, and how often.
    pub(super) writers: usize,
    pub(super) works: &'static [Work],
    pub(super) each: u8,
    pub(super) reads: u8,
    pub(super) deletes: u8,
    pub(super) rounds: u8,
    pub(super) repacks: u8,
    pub(super) crashes: u8,
    /// Packs, the old one included.
    pub(super) packs: u8,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protocol {
    pub(super) rules: Rules,
    pub(super) size: Size,
    /// States that differ in nothing that matters are one.
    pub(super) folded: bool,
}

/// A pack that an upload relies on has gone before its commit: the upload cannot be finished.
pub(super) const LOST: u8 = 1;
/// An object that was overwritten is back.
pub(super) const REVIVED: u8 = 2;

pub(super) type Take<'a> = &'a mut dyn FnMut(Step, State);

impl Model for Protocol {
    type State = State;

    /// One sealed pack with the common chunk, which the first object refers to.
    fn start(&self) -> State {
        let old = Pack { row: Row::Sealed, created: 1, referenced: 1, file: true, common: true, ..NO_PACK };
        let mut writers = [IDLE; WRITERS];
        writers.iter_mut().take(self.size.writers).for_each(|writer| writer.left = self.size.each);
        State {
            epoch: 2,
            packs: [old, NO_PACK, NO_PACK, NO_PACK],
            objects: [1, 0],
            index: 0,
            known: 2,
            live: 0,
            touched: 0,
            touched_epoch: 0,
            open: NONE,
            sealing: NONE,
            next_pack: 1,
            writers,
            reader: Reader { began: 0, refs: 0, left: self.size.reads },
            collector: Collector { rounds: self.size.rounds, repacks: self.size.repacks, ..COLLECTOR },
            deletes: self.size.deletes,
            crashes: self.size.crashes,
            fault: 0,
        }
    }

    fn steps(&self, state: &State, take: Take<'_>) {
        for number in 0..WRITERS {
            self.writer(state, number, take);
        }
        self.reader(state, take);
        self.packer(state, take);
        self.collector(state, take);
        if state.deletes > 0 {
            for key in 0..KEYS {
                if state.objects[key] != 0 {
                    let mut next = State { deletes: state.deletes - 1, ..*state };
                    next.objects[key] = 0;
                    take(Step("user", "deletes an object"), next);
                }
            }
        }
        if state.crashes > 0 {
            take(Step("process", "crashes and starts again"), self.crash(state));
        }
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        for refs in state.objects {
            for number in each(refs) {
                let pack = &state.packs[number];
                if !pack.file {
                    return Some("an object refers to a pack whose file is gone");
                }
                if !pack.row.live() {
                    return Some("an object refers to a pack that is neither open nor sealed");
                }
            }
        }
        if each(state.reader.refs).any(|number| !state.packs[number].file) {
            return Some("a reader's pack is gone");
        }
        match state.fault {
            0 => {}
            LOST => return Some("an upload relied on a pack that has gone before its commit"),
            _ => return Some("an object that was overwritten is back"),
        }
        self.leak(state)
    }

    fn pack(&self, state: &State) -> Packed {
        if self.folded { self.settled(state).pack() } else { state.pack() }
    }

    fn unpack(&self, packed: &Packed) -> State {
        State::unpack(packed)
    }

    fn show(&self, state: &State) -> String {
        let packs: Vec<String> = state.packs[..state.next_pack as usize]
            .iter()
            .enumerate()
            .map(|(number, pack)| {
                let file = if pack.file { "" } else { ", no file" };
                let epochs = (pack.created, pack.referenced, pack.condemned);
                format!("{number}: {:?} {}/{}/{}{file}", pack.row, epochs.0, epochs.1, epochs.2)
            })
            .collect();
        let objects = state.objects.map(|refs| each(refs).map(|pack| pack.to_string()).collect::<Vec<_>>().join("+"));
        let index = if state.index == NONE { "-".to_owned() } else { state.index.to_string() };
        format!("epoch {} | packs {} | objects {objects:?} | index {index}", state.epoch, packs.join(", "))
    }
}

impl Protocol {
    /// Forgets what cannot matter any more, so that states that differ in nothing else are one. Epochs are only ever
    /// compared, so one that is older than all that it can be compared with is as good as 0.
    pub(super) fn settled(&self, state: &State) -> State {
        let mut state = *state;
        let oldest = self.oldest(&state);
        let committing = state.writers.iter().filter(|writer| writer.phase == Phase::Commit);
        let in_use = committing.map(|writer| writer.epoch).min().unwrap_or(state.epoch).min(state.epoch);
        if self.rules.touch_again && state.touched_epoch < in_use {
            (state.touched, state.touched_epoch) = (0, 0);
        }
        let both = self.rules.spare_created && self.rules.spare_referenced && self.rules.sealing_keeps;
        let mut waiting = 0;
        for pack in &mut state.packs {
            if pack.row == Row::Absent && !pack.file {
                *pack = NO_PACK;
            }
            if pack.row != Row::Absent {
                pack.own = false;
            }
            if both {
                // Only the later of the two ever counts.
                (pack.created, pack.referenced) = (0, pack.created.max(pack.referenced));
            }
            if pack.created < in_use {
                pack.created = 0;
            }
            if pack.referenced < in_use {
                pack.referenced = 0;
            }
            if pack.row != Row::Condemned || pack.condemned < oldest && self.rules.wait {
                pack.condemned = 0;
            }
            waiting |= 1 << pack.condemned;
        }
        // An activity's beginning is compared with condemnations alone: it is as good as the end of the last one before.
        let after = |began: u8| (0..began).rev().find(|epoch| waiting >> epoch & 1 == 1).unwrap_or(0) + 1;
        for writer in state.writers.iter_mut().filter(|writer| writer.phase != Phase::Idle) {
            writer.began = after(writer.began);
        }
        if state.reader.refs != 0 {
            state.reader.began = after(state.reader.began);
        }
        state
    }

    /// The process dies: memory goes, and what was under way with it. The next one finishes the open packs.
    fn crash(&self, state: &State) -> State {
        let mut next = State { crashes: state.crashes - 1, known: state.epoch, live: 0, touched: 0, ..*state };
        (next.touched_epoch, next.open, next.sealing) = (0, NONE, NONE);
        for number in 0..PACKS {
            let pack = &mut next.packs[number];
            pack.own = false;
            if pack.row == Row::Open {
                pack.row = Row::Sealed;
                if pack.common {
                    next.index = number as u8;
                }
            }
        }
        for writer in &mut next.writers {
            // What was under way is not done again: its client has gone too.
            let begun = u8::from(writer.phase != Phase::Idle);
            *writer = Writer { left: writer.left - begun, ..IDLE };
        }
        if next.reader.refs != 0 {
            next.reader = Reader { began: 0, refs: 0, left: next.reader.left - 1 };
        }
        next.collector = Collector { rounds: next.collector.rounds, repacks: next.collector.repacks, ..COLLECTOR };
        next
    }

    /// The least epoch of all activities.
    pub(super) fn oldest(&self, state: &State) -> u8 {
        let writers = state.writers.iter().filter(|writer| writer.phase != Phase::Idle).map(|writer| writer.began);
        let reader = Some(state.reader.began).filter(|_| state.reader.refs != 0);
        writers.chain(reader).min().unwrap_or(state.known)
    }

    fn writer(&self, state: &State, number: usize, take: Take<'_>) {
        let writer = state.writers[number];
        let mut next = *state;
        if writer.phase != Phase::Idle {
            next.writers[number] = Writer { left: writer.left - 1, ..IDLE };
            take(Step("writer", "gives up"), next);
            next = *state;
        }
        match writer.phase {
            Phase::Idle if writer.left > 0 => {
                for work in self.size.works {
                    self.begin(state, number, *work, take);
                }
            }
            Phase::Idle => {}
            Phase::Check => {
                let name = self.check(&mut next, number);
                self.skip_idle_phases(&mut next, number);
                take(Step("writer", name), next);
            }
            Phase::Append => {
                if self.append(&mut next, number) {
                    take(Step("writer", "appends what is not known"), next);
                }
            }
            Phase::Flush => {
                self.flush(&mut next, writer.refs);
                next.writers[number].phase = Phase::Epoch;
                take(Step("writer", "flushes"), next);
            }
            Phase::Epoch => {
                let epoch = state.epoch;
                next.writers[number] = Writer { phase: Phase::Commit, epoch, pending: writer.refs, ..writer };
                take(Step("writer", "reads the epoch"), next);
            }
            Phase::Commit => {
                let name = self.touch_or_commit(&mut next, number);
                take(Step("writer", name), next);
            }
        }
    }

    /// Begins an activity, and takes the first look: what happens between the two cannot make things worse.
    fn begin(&self, state: &State, number: usize, work: Work, take: Take<'_>) {
        let mut next = *state;
        let writer = &mut next.writers[number];
        *writer = Writer { began: state.known, work, ..*writer };
        if work == Work::Copy {
            if state.objects[0] != 0 {
                (writer.refs, writer.phase) = (state.objects[0], Phase::Epoch);
                take(Step("writer", "begins to copy"), next);
            }
            return;
        }
        let (name, phase, refs) = if let Some(pack) = self.session(state) {
            ("finds the chunk in the session", Phase::Append, one(pack))
        } else if state.index == NONE {
            ("does not find the chunk", Phase::Append, 0)
        } else if state.live >> state.index & 1 == 1 || !self.rules.check_row {
            ("finds the chunk in a pack seen live", Phase::Append, one(state.index))
        } else {
            writer.candidate = state.index;
            ("finds the chunk in the index", Phase::Check, 0)
        };
        (writer.phase, writer.refs) = (phase, refs);
        self.skip_idle_phases(&mut next, number);
        take(Step("writer", name), next);
    }

    /// A writer that has nothing to append, or nothing to flush, goes on at once.
    fn skip_idle_phases(&self, next: &mut State, number: usize) {
        let writer = &mut next.writers[number];
        if writer.phase == Phase::Append && writer.refs != 0 && writer.work != Work::PutMore {
            writer.phase = Phase::Flush;
        }
        if writer.phase == Phase::Flush && each(writer.refs).all(|pack| next.packs[pack].row != Row::Absent) {
            writer.phase = Phase::Epoch;
        }
    }

    /// The pack of this process that holds the common chunk and is not in the index yet.
    fn session(&self, state: &State) -> Option<u8> {
        let holds = |pack: u8| pack != NONE && state.packs[pack as usize].common;
        [state.open, state.sealing].into_iter().find(|pack| holds(*pack))
    }

    fn check(&self, next: &mut State, number: usize) -> &'static str {
        let writer = &mut next.writers[number];
        let candidate = std::mem::replace(&mut writer.candidate, NONE);
        writer.phase = Phase::Append;
        let pack = &mut next.packs[candidate as usize];
        let name = match pack.row {
            Row::Open | Row::Sealed => "relies on a live pack",
            Row::Condemned => {
                if self.rules.resurrect {
                    pack.row = Row::Sealed;
                    pack.referenced = pack.referenced.max(next.known);
                }
                "resurrects what it finds"
            }
            Row::Absent | Row::Deleting => return "does not rely on a pack that goes",
        };
        writer.refs |= one(candidate);
        next.live |= one(candidate);
        name
    }

    /// Puts what is not known into the open pack; whether there is a pack left to open.
    fn append(&self, next: &mut State, number: usize) -> bool {
        let mut writer = next.writers[number];
        let mut common = writer.refs == 0;
        if common && let Some(pack) = self.session(next) {
            writer.refs |= one(pack);
            common = false;
        }
        if common || writer.work == Work::PutMore {
            if next.open == NONE && !self.open_pack(next) {
                return false;
            }
            writer.refs |= one(next.open);
            next.packs[next.open as usize].common |= common;
        }
        writer.phase = Phase::Flush;
        next.writers[number] = writer;
        self.skip_idle_phases(next, number);
        true
    }

    pub(super) fn open_pack(&self, next: &mut State) -> bool {
        if next.next_pack == self.size.packs {
            return false;
        }
        next.open = next.next_pack;
        next.next_pack += 1;
        next.packs[next.open as usize] = Pack { file: true, own: true, ..NO_PACK };
        true
    }

    /// Gives rows to those of the packs that this process has made and that have none.
    pub(super) fn flush(&self, next: &mut State, refs: u8) {
        for number in each(refs) {
            let pack = &mut next.packs[number];
            if pack.row == Row::Absent && pack.own {
                (pack.row, pack.created) = (Row::Open, next.known);
            }
        }
    }

    /// Touches the next pack that this epoch has not seen touched, or commits.
    fn touch_or_commit(&self, next: &mut State, number: usize) -> &'static str {
        let mut writer = next.writers[number];
        let touch = self.touch(next, writer.epoch, &mut writer.pending);
        next.writers[number] = writer;
        if let Some(name) = touch {
            return name;
        }
        if self.rules.expect_epoch && next.epoch != writer.epoch {
            next.writers[number].phase = Phase::Epoch;
            return "cannot commit: the epoch is another";
        }
        let key = usize::from(writer.work != Work::Over);
        next.objects[key] = writer.refs;
        next.writers[number] = Writer { left: writer.left - 1, ..IDLE };
        "commits"
    }

    /// Touches one of the pending packs; none when all have been touched.
    pub(super) fn touch(&self, next: &mut State, epoch: u8, pending: &mut u8) -> Option<&'static str> {
        if next.touched_epoch == epoch || !self.rules.touch_again {
            *pending &= !next.touched;
        }
        if *pending == 0 || !self.rules.touch {
            *pending = 0;
            return None;
        }
        let number = pending.trailing_zeros() as u8;
        *pending &= !one(number);
        let pack = &mut next.packs[number as usize];
        let name = match pack.row {
            Row::Open | Row::Sealed if pack.created.max(pack.referenced) >= epoch => "finds a pack fresh",
            Row::Open | Row::Sealed => "touches a pack",
            Row::Condemned => "resurrects a pack before its commit",
            Row::Absent | Row::Deleting => {
                next.fault = LOST;
                return Some("finds a pack gone");
            }
        };
        if pack.row == Row::Condemned && self.rules.resurrect {
            pack.row = Row::Sealed;
        }
        if pack.created < epoch {
            pack.referenced = pack.referenced.max(epoch);
        }
        if epoch > next.touched_epoch {
            (next.touched_epoch, next.touched) = (epoch, if self.rules.touch_again { 0 } else { next.touched });
        }
        if epoch == next.touched_epoch {
            next.touched |= one(number);
        }
        Some(name)
    }

    fn reader(&self, state: &State, take: Take<'_>) {
        let reader = state.reader;
        if reader.refs != 0 {
            let next = Reader { began: 0, refs: 0, left: reader.left - 1 };
            take(Step("reader", "ends"), State { reader: next, ..*state });
        } else if reader.left > 0 {
            for refs in state.objects.into_iter().filter(|refs| *refs != 0) {
                let next = Reader { began: state.known, refs, ..reader };
                take(Step("reader", "begins"), State { reader: next, ..*state });
            }
        }
    }

    /// The packer: a pack becomes full at any time; its index rows are written, then its row.
    fn packer(&self, state: &State, take: Take<'_>) {
        let mut next = *state;
        if state.sealing != NONE {
            let pack = &mut next.packs[state.sealing as usize];
            pack.row = Row::Sealed;
            if !self.rules.sealing_keeps {
                pack.referenced = 0;
            }
            next.sealing = NONE;
            take(Step("packer", "seals"), next);
        } else if state.open != NONE {
            self.flush(&mut next, one(state.open));
            (next.open, next.sealing) = (NONE, state.open);
            if next.packs[state.open as usize].common {
                next.index = state.open;
            }
            take(Step("packer", "writes index rows"), next);
        }
    }
}

/// What is left of a world in which everything has come to an end but the collector.
impl Protocol {
    /// After three more rounds nothing may be left that no object needs.
    fn leak(&self, state: &State) -> Option<&'static str> {
        let quiet = state.writers.iter().all(|writer| writer.phase == Phase::Idle)
            && state.reader.refs == 0
            && matches!(state.collector.stage, Stage::Idle | Stage::Act)
            && state.sealing == NONE;
        if !quiet {
            return None;
        }
        let mut end = *state;
        for _ in 0..3 {
            self.whole_round(&mut end);
        }
        let needed = end.objects.iter().fold(one(end.open), |all, refs| all | refs);
        for (number, pack) in end.packs.iter().enumerate() {
            let is_needed = needed >> number & 1 == 1;
            if !is_needed && (pack.row != Row::Absent || pack.file) {
                return Some("a pack that no object needs is never removed");
            }
        }
        if end.index != NONE && needed >> end.index & 1 == 0 {
            return Some("an index row of a pack that is gone is never removed");
        }
        None
    }

    /// A round that nobody disturbs.
    fn whole_round(&self, state: &mut State) {
        // Epochs stay small: all that matters is which is older.
        state.epoch = 3;
        state.known = 3;
        let marked = state.objects.iter().fold(0, |all, refs| all | refs);
        for number in 0..PACKS {
            let is_marked = marked >> number & 1 == 1;
            let pack = &mut state.packs[number];
            match pack.row {
                Row::Sealed if !is_marked => pack.row = Row::Condemned,
                Row::Condemned | Row::Deleting => {
                    if state.index == number as u8 && pack.file {
                        state.index = NONE;
                    }
                    *pack = NO_PACK;
                }
                Row::Absent if pack.file && !pack.own => *pack = NO_PACK,
                _ => {}
            }
        }
    }
}
