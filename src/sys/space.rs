//! Room on a disk: how much is left, and how much of it is kept back. A disk that is really full fails in the middle of
//! things; one that is refused at a mark before fails at the door.

use std::io;
use std::path::Path;

/// The least that is kept back unless somebody says otherwise.
const RESERVE_MIN: u64 = 256 * 1024 * 1024;
/// The part of the disk that is kept back unless somebody says otherwise: a hundredth.
const RESERVE_SHARE: u64 = 100;
/// The part of the reserve that even small writes leave alone: a quarter.
const LAST_SHARE: u64 = 4;

/// Room on the disk that holds a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user may still write.
    pub free: u64,
    /// Bytes that the disk has.
    pub total: u64,
}

/// Asks the disk that holds `path`.
pub fn of(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// How urgent a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// New data of a client: stops at the reserve.
    Data,
    /// Rows, and what makes room: go on into the reserve, down to its last quarter.
    Upkeep,
}

/// What is kept back of a disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve(pub Option<u64>);

impl Reserve {
    /// Nothing is kept back: writes fail when the disk does.
    #[must_use]
    pub fn none() -> Self {
        Self(Some(0))
    }

    /// Whether a write of that need may begin.
    #[must_use]
    pub fn admits(self, space: Space, need: Need) -> bool {
        let reserve = self.0.unwrap_or_else(|| RESERVE_MIN.max(space.total / RESERVE_SHARE));
        let mark = match need {
            Need::Data => reserve,
            Need::Upkeep => reserve / LAST_SHARE,
        };
        space.free >= mark
    }
}

#[cfg(test)]
mod tests {
    //! The marks are where they are said to be, and the disk answers.
    use super::*;

    #[test]
    fn data_stops_before_upkeep() {
        let admits = |reserve: Reserve, free, need| reserve.admits(Space { free, total: 1 << 40 }, need);
        let hundredth = (1u64 << 40) / 100;
        assert!(admits(Reserve(None), hundredth, Need::Data));
        assert!(!admits(Reserve(None), hundredth - 1, Need::Data));
        assert!(admits(Reserve(None), hundredth - 1, Need::Upkeep));
        assert!(!admits(Reserve(None), hundredth / 4 - 1, Need::Upkeep));
        assert!(!Reserve(None).admits(Space { free: RESERVE_MIN - 1, total: 1 << 30 }, Need::Data));
        assert!(admits(Reserve::none(), 0, Need::Data) && admits(Reserve(Some(400)), 100, Need::Upkeep));
    }

    #[test]
    fn the_disk_answers() {
        let space = of(&std::env::temp_dir()).unwrap();
        assert!(space.free <= space.total && space.total > 0);
    }
}
