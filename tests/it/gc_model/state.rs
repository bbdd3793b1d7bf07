//! What the model's world is made of: the rows and files that a crash leaves, and the memory that it does not; and how
//! all of it is packed into three words.

use super::search::Packed;

/// Packs that can come to be: the old one, number 0, and those that the packer opens.
pub(super) const PACKS: usize = 4;
/// Objects' names.
pub(super) const KEYS: usize = 2;
/// Writers.
pub(super) const WRITERS: usize = 2;
/// No pack.
pub(super) const NONE: u8 = 7;

/// What a pack's row says, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Absent,
    Open,
    Sealed,
    Condemned,
    Deleting,
}

impl Row {
    pub(super) fn live(self) -> bool {
        matches!(self, Self::Open | Self::Sealed)
    }
}

/// A pack: its row and its file. `common` says whether it holds the one chunk that every upload has; what else it holds
/// belongs to one upload alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pack {
    pub(super) row: Row,
    pub(super) created: u8,
    pub(super) referenced: u8,
    pub(super) condemned: u8,
    pub(super) file: bool,
    pub(super) common: bool,
    /// Memory: this process made the file.
    pub(super) own: bool,
}

pub(super) const NO_PACK: Pack =
    Pack { row: Row::Absent, created: 0, referenced: 0, condemned: 0, file: false, common: false, own: false };

/// What a writer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Begin something.
    Idle,
    /// Look at the row of the pack in which the index has the chunk.
    Check,
    /// Put what is not known into the open pack.
    Append,
    /// Make it durable, and its pack's row.
    Flush,
    /// Read the epoch.
    Epoch,
    /// Touch the packs that are not touched yet, then commit.
    Commit,
}

/// What a writer can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Put the common chunk alone, over the first object.
    Over,
    /// Put the common chunk alone, as the second object.
    Put,
    /// Put the common chunk and one that nobody has.
    PutMore,
    /// Copy the first object to the second.
    Copy,
}

pub(super) const WORKS: [Work; 4] = [Work::Over, Work::Put, Work::PutMore, Work::Copy];

/// A writer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) phase: Phase,
    pub(super) work: Work,
    /// The epoch at which its activity began.
    pub(super) began: u8,
    /// The epoch that it read for its commit.
    pub(super) epoch: u8,
    /// Packs that it relies on.
    pub(super) refs: u8,
    /// Packs to touch before the commit.
    pub(super) pending: u8,
    /// The pack that the index named.
    pub(super) candidate: u8,
    /// What it may still do.
    pub(super) left: u8,
}

pub(super) const IDLE: Writer =
    Writer { phase: Phase::Idle, work: Work::Over, began: 0, epoch: 0, refs: 0, pending: 0, candidate: NONE, left: 0 };

/// A reader's memory: the packs of the object that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) began: u8,
    pub(super) refs: u8,
    pub(super) left: u8,
}

/// What the collector does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Idle,
    /// The new epoch is in its row; memory does not know yet.
    Advance,
    /// Mark the object of this number.
    Mark,
    /// Condemn, delete, repack, remove orphans, or end the round.
    Act,
    /// The activities allow it: claim the pack by its row.
    Claim,
    /// Remove the index rows that point to it.
    Index,
    File,
    Row,
    /// A pack's chunks are in a new one; make that durable, and its row.
    Moved,
    /// Rewrite the object of this number, if it refers to the old pack.
    Rewrite,
    /// The new row is ready: touch, then commit.
    Swap,
}

/// The collector's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Collector {
    pub(super) stage: Stage,
    pub(super) key: u8,
    /// The pack that is being deleted or repacked.
    pub(super) pack: u8,
    /// The pack that takes its chunks.
    pub(super) target: u8,
    pub(super) marked: u8,
    /// The object's row as it was read, and what is still to be touched of the new one.
    pub(super) found: u8,
    pub(super) pending: u8,
    /// Rounds that may still begin, and packs that may still be repacked.
    pub(super) rounds: u8,
    pub(super) repacks: u8,
}

/// Between two rounds.
pub(super) const COLLECTOR: Collector = Collector {
    stage: Stage::Idle,
    key: 0,
    pack: NONE,
    target: NONE,
    marked: 0,
    found: 0,
    pending: 0,
    rounds: 0,
    repacks: 0,
};

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    // What a crash leaves.
    pub(super) epoch: u8,
    pub(super) packs: [Pack; PACKS],
    /// Objects' rows: the packs that each refers to, none if there is no object.
    pub(super) objects: [u8; KEYS],
    /// The pack in which the index has the common chunk.
    pub(super) index: u8,
    // Memory.
    pub(super) known: u8,
    /// Packs that were seen live in the epoch that memory knows.
    pub(super) live: u8,
    /// Packs that were touched in this epoch.
    pub(super) touched: u8,
    pub(super) touched_epoch: u8,
    pub(super) open: u8,
    pub(super) sealing: u8,
    pub(super) next_pack: u8,
    pub(super) writers: [Writer; WRITERS],
    pub(super) reader: Reader,
    pub(super) collector: Collector,
    // What may still happen.
    pub(super) deletes: u8,
    pub(super) crashes: u8,
    /// A rule of its own was broken on the way here; see `Protocol::wrong`.
    pub(super) fault: u8,
}

/// The packs of a set.
pub(super) fn each(set: u8) -> impl Iterator<Item = usize> {
    (0..PACKS).filter(move |pack| set >> pack & 1 == 1)
}

/// A set of one pack.
pub(super) fn one(pack: u8) -> u8 {
    if pack == NONE { 0 } else { 1 << pack }
}

/// Writes and reads small numbers, a few bits each.
struct Bits {
    words: Packed,
    at: u32,
}

impl Bits {
    fn put(&mut self, value: u8, bits: u32) {
        debug_assert!(u32::from(value) < 1 << bits, "{value} does not fit {bits} bits");
        let (word, shift) = ((self.at / 64) as usize, self.at % 64);
        self.words[word] |= u64::from(value) << shift;
        if shift + bits > 64 {
            self.words[word + 1] |= u64::from(value) >> (64 - shift);
        }
        self.at += bits;
    }

    fn take(&mut self, bits: u32) -> u8 {
        let (word, shift) = ((self.at / 64) as usize, self.at % 64);
        let mut value = self.words[word] >> shift;
        if shift + bits > 64 {
            value |= self.words[word + 1] << (64 - shift);
        }
        self.at += bits;
        (value & ((1 << bits) - 1)) as u8
    }
}

const ROWS: [Row; 5] = [Row::Absent, Row::Open, Row::Sealed, Row::Condemned, Row::Deleting];
const PHASES: [Phase; 6] = [Phase::Idle, Phase::Check, Phase::Append, Phase::Flush, Phase::Epoch, Phase::Commit];
const STAGES: [Stage; 11] = [
    Stage::Idle,
    Stage::Advance,
    Stage::Mark,
    Stage::Act,
    Stage::Claim,
    Stage::Index,
    Stage::File,
    Stage::Row,
    Stage::Moved,
    Stage::Rewrite,
    Stage::Swap,
];

impl State {
    pub(super) fn pack(&self) -> Packed {
        let mut bits = Bits { words: [0; 3], at: 0 };
        for pack in &self.packs {
            bits.put(pack.row as u8, 3);
            bits.put(pack.created, 3);
            bits.put(pack.referenced, 3);
            bits.put(pack.condemned, 3);
            bits.put(u8::from(pack.file) | u8::from(pack.common) << 1 | u8::from(pack.own) << 2, 3);
        }
        for object in &self.objects {
            bits.put(*object, 4);
        }
        bits.put(self.epoch, 3);
        bits.put(self.index, 3);
        bits.put(self.known, 3);
        bits.put(self.live, 4);
        bits.put(self.touched, 4);
        bits.put(self.touched_epoch, 3);
        bits.put(self.open, 3);
        bits.put(self.sealing, 3);
        bits.put(self.next_pack, 3);
        bits.put(self.deletes | self.crashes << 2 | self.fault << 4, 7);
        bits.put(self.reader.began, 3);
        bits.put(self.reader.refs, 4);
        bits.put(self.reader.left, 2);
        // The writers are alike: which is which does not matter.
        let mut words = self.writers.map(|writer| pack_writer(&writer));
        words.sort_unstable();
        for word in words {
            bits.put((word & 0xff) as u8, 8);
            bits.put((word >> 8 & 0xff) as u8, 8);
            bits.put((word >> 16 & 0xff) as u8, 8);
        }
        self.pack_collector(&mut bits);
        bits.words
    }

    fn pack_collector(&self, bits: &mut Bits) {
        let collector = &self.collector;
        bits.put(collector.stage as u8, 4);
        bits.put(collector.key, 2);
        bits.put(collector.pack, 3);
        bits.put(collector.target, 3);
        bits.put(collector.marked, 4);
        bits.put(collector.found, 4);
        bits.put(collector.pending, 4);
        bits.put(collector.rounds, 2);
        bits.put(collector.repacks, 1);
    }

    pub(super) fn unpack(words: &Packed) -> Self {
        let mut bits = Bits { words: *words, at: 0 };
        let mut packs = [NO_PACK; PACKS];
        for pack in &mut packs {
            pack.row = ROWS[bits.take(3) as usize];
            pack.created = bits.take(3);
            pack.referenced = bits.take(3);
            pack.condemned = bits.take(3);
            let flags = bits.take(3);
            (pack.file, pack.common, pack.own) = (flags & 1 == 1, flags & 2 == 2, flags & 4 == 4);
        }
        let objects = [0; KEYS].map(|_| bits.take(4));
        let [epoch, index, known] = [0; 3].map(|_| bits.take(3));
        let (live, touched) = (bits.take(4), bits.take(4));
        let [touched_epoch, open, sealing, next_pack] = [0; 4].map(|_| bits.take(3));
        let budget = bits.take(7);
        let reader = Reader { began: bits.take(3), refs: bits.take(4), left: bits.take(2) };
        let writers = [0; WRITERS].map(|_| {
            let [low, middle, high] = [0; 3].map(|_| u32::from(bits.take(8)));
            unpack_writer(low | middle << 8 | high << 16)
        });
        let collector = Collector {
            stage: STAGES[bits.take(4) as usize],
            key: bits.take(2),
            pack: bits.take(3),
            target: bits.take(3),
            marked: bits.take(4),
            found: bits.take(4),
            pending: bits.take(4),
            rounds: bits.take(2),
            repacks: bits.take(1),
        };
        Self {
            epoch,
            packs,
            objects,
            index,
            known,
            live,
            touched,
            touched_epoch,
            open,
            sealing,
            next_pack,
            writers,
            reader,
            collector,
            deletes: budget & 3,
            crashes: budget >> 2 & 3,
            fault: budget >> 4,
        }
    }
}

fn pack_writer(writer: &Writer) -> u32 {
    let mut bits = Bits { words: [0; 3], at: 0 };
    bits.put(writer.phase as u8, 3);
    bits.put(writer.work as u8, 2);
    bits.put(writer.began, 3);
    bits.put(writer.epoch, 3);
    bits.put(writer.refs, 4);
    bits.put(writer.pending, 4);
    bits.put(writer.candidate, 3);
    bits.put(writer.left, 2);
    bits.words[0] as u32
}

fn unpack_writer(word: u32) -> Writer {
    let mut bits = Bits { words: [u64::from(word), 0, 0], at: 0 };
    Writer {
        phase: PHASES[bits.take(3) as usize],
        work: WORKS[bits.take(2) as usize],
        began: bits.take(3),
        epoch: bits.take(3),
        refs: bits.take(4),
        pending: bits.take(4),
        candidate: bits.take(3),
        left: bits.take(2),
    }
}
