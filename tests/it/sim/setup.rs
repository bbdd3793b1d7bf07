//! What one seed is about: how many clients, what they like to do, and what goes wrong. Each seed leaves most things out,
//! so that what it has occurs often and together.

use bedplate::model::BucketName;
use bedplate::store::Ration;

use super::model::Place;
use super::random::Random;
use super::world::Faults;

/// What may be asked of a store after what was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// Everything that was acknowledged is there.
    Whole,
    /// Everything that was acknowledged is there; what a turned bit harms is an error that names its place, and never other
    /// bytes, and is told by the scrub until it is repaired.
    Damaged,
    /// The disk lied: what cannot be read is an error that says where, and never other bytes.
    Named,
}

/// One seed's circumstances.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub seed: u64,
    pub places: Vec<Place>,
    pub clients: u64,
    /// Calls of each client in one life of the machine.
    pub turns: u64,
    /// Lives that end in a power cut or a kill, before the last one that is let end well.
    pub lives: u64,
    /// Operations until the power fails, at most.
    pub cut_within: u64,
    pub faults: Faults,
    /// Reads and writes of files fail, now or before.
    pub disk_fails: bool,
    /// Milliseconds between two bits that turn in packs, at most; 0 where none does.
    pub rot_pause: u64,
    /// In thousandths: calls that the client gives up before they end, and bodies that do not hold what they promise.
    pub impatience: u64,
    pub flaws: u64,
    /// Milliseconds between two collections of garbage, at most; 0 where there are none.
    pub gc_pause: u64,
    /// Milliseconds between two scrubs, at most; 0 where there are none.
    pub scrub_pause: u64,
    /// A pack is full at this many bytes.
    pub pack_bytes: u64,
    /// How far chunks are shared.
    pub ration: Ration,
    /// In thousandths: calls that have to do with snapshots.
    pub snapshots: u64,
    /// How often each kind of call is made.
    pub habits: [u64; HABITS],
}

/// Kinds of calls: put, read, head, delete, copy, list, upload.
pub(super) const HABITS: usize = 7;

impl Setup {
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed, 5);
        let mut faults = Faults::default();
        let mut rots = false;
        match random.weighted(&[10, 4, 2, 2, 1, 1]) {
            0 => {}
            1 => {
                faults.volume_errors = random.spread(30);
                faults.meta_errors = random.below(2) * random.spread(20);
                faults.full = random.below(2) * random.spread(20);
            }
            2 => faults.full = random.spread(60),
            3 => faults.meta_errors = random.spread(30),
            4 => rots = true,
            _ => faults.lost_writes = random.spread(300),
        }
        if random.chance(200) {
            faults.slow = random.spread(100);
        }
        let mut habits = [12, 8, 2, 4, 4, 2, 3];
        for weight in &mut habits {
            *weight *= random.below(4);
        }
        habits[0] = habits[0].max(4);
        // Of its own stream, so that what there was before stays as it was.
        let mut care = Random::new(seed, 7);
        let rots = rots || faults.lost_writes == 0 && care.chance(250);
        let rot_pause = if rots { *care.pick(&[300, 3_000, 30_000]) } else { 0 };
        let scrub_pause = *care.pick(&[0, 300, 3_000, 30_000]);
        let snapshots = *Random::new(seed, 8).pick(&[0, 0, 100, 250, 450]);
        let ration = Ration { chunks_per_term: *care.pick(&[0, 4, 16]), spare_terms: *care.pick(&[0, 1, 128]) };
        Self {
            seed,
            places: places(&mut random),
            clients: random.between(1, 4),
            turns: random.between(3, 25),
            lives: random.between(1, 4),
            cut_within: *random.pick(&[60, 300, 1000, 3000]),
            disk_fails: faults.volume_errors > 0,
            faults,
            rot_pause,
            impatience: random.below(2) * random.spread(150),
            flaws: random.below(2) * random.spread(150),
            gc_pause: *random.pick(&[0, 300, 3_000, 100_000]),
            scrub_pause,
            pack_bytes: *random.pick(&[2 << 20, 3 << 20, 64 << 20]),
            ration,
            snapshots,
            habits,
        }
    }

    /// The same, where nothing goes wrong any more; what went wrong before stays in mind.
    pub(super) fn calm(&self) -> Self {
        let faults = Faults { lost_writes: self.faults.lost_writes, ..Faults::default() };
        Self { faults, impatience: 0, flaws: 0, ..self.clone() }
    }

    pub(super) fn promise(&self) -> Promise {
        match (self.faults.lost_writes, self.rot_pause) {
            (0, 0) => Promise::Whole,
            (0, _) => Promise::Damaged,
            _ => Promise::Named,
        }
    }

    /// The buckets that the places are in.
    pub(super) fn buckets(&self) -> Vec<BucketName> {
        let mut buckets: Vec<BucketName> = self.places.iter().map(|(bucket, _)| bucket.clone()).collect();
        buckets.sort_unstable();
        buckets.dedup();
        buckets
    }
}

/// Few places, so that clients meet; in folders, so that lists have groups.
fn places(random: &mut Random) -> Vec<Place> {
    let count = random.between(2, 9);
    let names = ["checkpoint/1", "checkpoint/2", "checkpoint/10", "data", "data/a", "data/b/c", "log", "é/ü", "z"];
    let buckets: [BucketName; 2] = [parsed("first"), parsed("second")];
    (0..count).map(|n| (buckets[usize::from(random.chance(250))].clone(), parsed(names[n as usize]))).collect()
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}
