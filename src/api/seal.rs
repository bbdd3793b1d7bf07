//! Seals: what a recipe gives its reader so that it may fetch the pack ranges which the recipe names, and no others, for a while.

use std::time::Duration;

use crate::model::{ByteRange, PackId};
use crate::sys::{clock, entropy};

/// How long a seal opens.
const OPENS: Duration = Duration::from_secs(3_600);

/// Milliseconds of a day.
const DAY: u64 = 24 * 3_600 * 1_000;

/// The key of this process's seals: a restart makes all of them void, and readers ask for the recipe again.
pub(super) struct Seals([u8; 32]);

impl Seals {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        entropy::fill(&mut key);
        Self(key)
    }

    /// Until when seals that are made now open, in milliseconds since 1970.
    pub(super) fn until(&self) -> u64 {
        clock::now().plus(OPENS).0
    }

    /// The seal of a range of a pack.
    pub(super) fn seal(&self, pack: &PackId, range: ByteRange, until: u64) -> [u8; 32] {
        self.hash(pack, range, until).into()
    }

    /// Whether the seal opens the range now.
    pub(super) fn opens(&self, pack: &PackId, range: ByteRange, until: u64, seal: [u8; 32]) -> bool {
        // Compared in constant time.
        until > clock::now().0 && self.hash(pack, range, until) == blake3::Hash::from(seal)
    }

    /// What an owner's proofs that it has a chunk's bytes are keyed with, today or `days` ago. Those of another day are worth as much: they
    /// are changed so that none is worth anything for ever.
    pub(super) fn proof_key(&self, owner: &str, days: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"proof of possession\0").update(&(clock::now().0 / DAY - days).to_le_bytes());
        hasher.update(owner.as_bytes()).finalize().into()
    }

    fn hash(&self, pack: &PackId, range: ByteRange, until: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&pack.0);
        for number in [range.start, range.end, until] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    //! A seal opens what it was made for, and nothing else.
    use super::*;

    #[test]
    fn opens_its_own_range_only() {
        let (seals, pack) = (Seals::new(), PackId([1; 16]));
        let range = ByteRange { start: 5, end: 9 };
        let until = seals.until();
        let seal = seals.seal(&pack, range, until);
        assert!(seals.opens(&pack, range, until, seal));
        assert!(!seals.opens(&PackId([2; 16]), range, until, seal));
        assert!(!seals.opens(&pack, ByteRange { start: 4, end: 9 }, until, seal));
        assert!(!seals.opens(&pack, range, until + 1, seal));
        assert!(!Seals::new().opens(&pack, range, until, seal));
        let proofs = [("a", 0), ("a", 1), ("b", 0)].map(|(owner, days)| seals.proof_key(owner, days));
        assert!(proofs[0] != proofs[1] && proofs[0] != proofs[2] && proofs[0] == seals.proof_key("a", 0));
        let past = seals.seal(&pack, range, 1);
        assert!(!seals.opens(&pack, range, 1, past));
    }
}
