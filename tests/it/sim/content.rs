//! Bytes for objects: short and long, new, repeated, shifted and compressible, so that chunks are found again, share
//! frames, and live in rows.

use std::collections::VecDeque;

use bytes::Bytes;

use super::random::Random;

/// Contents that later ones are made from.
const KEPT: usize = 12;
/// Contents that are sent again after a power cut, at most.
const LAST: usize = 4;
/// Longest content but parts of uploads.
const LONGEST: u64 = 3 * 1024 * 1024;

/// Makes contents.
pub(super) struct Contents {
    random: Random,
    kept: Vec<Bytes>,
    /// What was made last, the newest last; and what of it is to be sent again.
    last: VecDeque<Bytes>,
    again: Vec<Bytes>,
    /// How long contents are on the whole.
    longest: u64,
}

impl Contents {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 4);
        let longest = *random.pick(&[64 * 1024, 300 * 1024, 300 * 1024, 1024 * 1024, LONGEST]);
        Self { random, kept: Vec::new(), last: VecDeque::new(), again: Vec::new(), longest }
    }

    fn len(&mut self) -> u64 {
        match self.random.weighted(&[1, 4, 2, 8, 2]) {
            0 => 0,
            1 => self.random.spread(8191),
            // About where objects stop to live in their row.
            2 => self.random.between(8180, 8200),
            3 => self.random.spread(self.longest / 2),
            _ => self.random.between(self.longest / 4, self.longest),
        }
    }

    /// The next content.
    pub(super) fn next(&mut self) -> Bytes {
        let len = self.len();
        self.of_len(len)
    }

    /// The next content, of some length where it is not an earlier one again.
    fn of_len(&mut self, len: u64) -> Bytes {
        // After a power cut clients send again what they did not hear of.
        let again = if self.random.chance(500) { self.again.pop() } else { None };
        if let Some(again) = again {
            return again;
        }
        if let Some(again) = self.kept()
            && self.random.chance(100)
        {
            return again;
        }
        let made = match self.random.weighted(&[4, 2, 1, 5, 3, 2]) {
            0 => self.noise(len as usize),
            1 => self.words(len as usize),
            2 => vec![0; len as usize],
            3 => self.shifted(len as usize),
            4 => self.joined(len as usize),
            _ => self.repeated(len as usize),
        };
        let made = Bytes::from(made);
        if made.len() >= 4096 {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back(made.clone());
            if self.kept.len() == KEPT {
                let at = self.random.below(KEPT as u64) as usize;
                self.kept.swap_remove(at);
            }
            self.kept.push(made.clone());
        }
        made
    }

    /// The power was cut: what was sent last may have to be sent again.
    pub(super) fn power_was_cut(&mut self) {
        self.again = self.last.iter().cloned().collect();
    }

    /// The next content for a part that has others behind it.
    pub(super) fn long(&mut self, least: u64) -> Bytes {
        let len = least + self.random.below(70_000);
        let bytes = self.repeated(len as usize);
        bytes.into()
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.random.fill(&mut bytes);
        bytes
    }

    /// Compressible, and all different.
    fn words(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 64);
        while bytes.len() < len {
            let number = self.random.next();
            bytes.extend_from_slice(b"{\"step\": ");
            bytes.extend_from_slice(&number.to_le_bytes()[..3]);
            bytes.extend_from_slice(b", \"loss\": 0.0000000000, \"learning_rate\": 0.000100}\n");
        }
        bytes.truncate(len);
        bytes
    }

    fn kept(&mut self) -> Option<Bytes> {
        if self.kept.is_empty() { None } else { Some(self.random.pick(&self.kept).clone()) }
    }

    /// An earlier content with a few bytes put in, taken out or changed, filled up or cut to the length.
    fn shifted(&mut self, len: usize) -> Vec<u8> {
        let Some(old) = self.kept() else { return self.noise(len) };
        let mut bytes = old[..old.len().min(len)].to_vec();
        for _ in 0..self.random.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = self.random.below(bytes.len() as u64) as usize;
            match self.random.below(3) {
                0 => bytes.insert(at, b'+'),
                1 => drop(bytes.remove(at)),
                _ => bytes[at] ^= 0x55,
            }
        }
        bytes.truncate(len);
        let more = self.noise(len - bytes.len());
        bytes.extend(more);
        bytes
    }

    /// Pieces of earlier contents after each other.
    fn joined(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let Some(old) = self.kept() else { return self.noise(len) };
            let from = self.random.below(old.len() as u64) as usize;
            let take = (old.len() - from).min(len - bytes.len());
            bytes.extend_from_slice(&old[from..from + take]);
            if self.random.chance(300) {
                let gap = self.random.below(2000) as usize;
                let gap = self.noise(gap.min(len - bytes.len()));
                bytes.extend(gap);
            }
        }
        bytes
    }

    /// One piece again and again.
    fn repeated(&mut self, len: usize) -> Vec<u8> {
        let period = self.random.spread(40_000) as usize;
        let piece = self.noise(period);
        let mut bytes = piece.repeat(len / period + 1);
        bytes.truncate(len);
        bytes
    }
}
