//! Randomness from the kernel: ids that sort by time, and tokens that no one guesses.

use super::{clock, double};

/// Fills `bytes` with random bytes.
pub fn fill(bytes: &mut [u8]) {
    if let Some(double) = double::placed() {
        return double.fill(bytes);
    }
    getrandom::fill(bytes).expect("the kernel's random source answers on every system this program runs on");
}

/// A fresh id: 48 bits of milliseconds, big-endian, then 80 random bits; ids made later sort later.
#[must_use]
pub fn fresh_id() -> [u8; 16] {
    let mut id = [0; 16];
    fill(&mut id[6..]);
    id[..6].copy_from_slice(&clock::now().0.to_be_bytes()[2..]);
    id
}

/// A secret of 256 random bits as 64 hexadecimal digits.
#[must_use]
pub fn token() -> String {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    //! Ids made later sort later, and nothing repeats.
    use super::*;

    #[test]
    fn ids_sort_by_time() {
        let first = fresh_id();
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert!(first < fresh_id());
    }

    #[test]
    fn tokens_do_not_repeat() {
        assert_eq!(token().len(), 64);
        assert_ne!(token(), token());
    }
}
