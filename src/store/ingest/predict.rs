//! What probably comes next: an upload that repeats what is stored repeats it in order. Where the last chunk was found in a
//! pack, the next one is compared with the chunk that follows there. A guess that holds costs one digest and neither the
//! search for a cut nor a lookup; one that does not is noticed, nearly always, at the price of looking at 64 bytes.

use std::collections::HashMap;

use crate::format::cut;
use crate::format::digest::chunk_digest;
use crate::format::manifest::Location;
use crate::model::{Digest, PackId};
use crate::store::fetch::Chunks;
use crate::store::session::Ticket;

/// Packs that are remembered.
const PACKS: usize = 4;

/// A pack in which chunks of this upload were found.
struct Known {
    pack: PackId,
    chunks: Chunks,
    /// Where each chunk is; made when the pack is first searched.
    numbers: HashMap<Digest, u32>,
}

/// Guesses the next chunk.
#[derive(Default)]
pub(super) struct Predictor {
    /// The last pack in which something was found is the last of these.
    packs: Vec<Known>,
    next: Option<Location>,
}

/// A chunk that was guessed right.
pub(super) struct Guess {
    pub(super) digest: Digest,
    pub(super) len: usize,
    pub(super) at: Location,
    /// How to wait for it, where its pack is still being filled.
    pub(super) ticket: Option<Ticket>,
}

impl Predictor {
    /// Remembers a pack in which a chunk of the upload was found.
    pub(super) fn learn(&mut self, pack: PackId, chunks: Chunks) {
        if self.packs.iter().any(|known| known.pack == pack) {
            return;
        }
        if self.packs.len() == PACKS {
            self.packs.remove(0);
        }
        let numbers = chunks.numbers();
        self.packs.push(Known { pack, chunks, numbers });
    }

    /// Whether the pack is remembered.
    pub(super) fn knows(&self, pack: PackId) -> bool {
        self.packs.iter().any(|known| known.pack == pack)
    }

    /// Where a chunk is, of those in the remembered packs; what follows it is the next guess.
    pub(super) fn find(&mut self, digest: &Digest) -> Option<(Location, Option<Ticket>)> {
        self.next = None;
        let mut packs = self.packs.iter().rev();
        let (known, chunk) = packs.find_map(|known| Some((known, *known.numbers.get(digest)?)))?;
        let ticket = known.chunks.ticket(chunk)?;
        self.next = Some(Location { pack: known.pack, chunk: chunk + 1 });
        Some((Location { pack: known.pack, chunk }, ticket))
    }

    /// How many bytes the guess for the next chunk needs; none without a guess.
    pub(super) fn wants(&self) -> Option<usize> {
        let next = self.next?;
        let known = self.packs.iter().rev().find(|known| known.pack == next.pack)?;
        known.chunks.entry(next.chunk).map(|entry| entry.raw_len as usize)
    }

    /// Compares the bytes at the beginning of a chunk with the guess.
    ///
    /// A chunk that was cut before, and whose end is one where the cutter cuts by itself, would be cut the same way here: where
    /// the cutter cuts depends on nothing but the bytes since the chunk's start. What ends elsewhere was the end of an object.
    pub(super) fn guess(&mut self, data: &[u8]) -> Option<Guess> {
        let at = self.next?;
        let known = self.packs.iter().rev().find(|known| known.pack == at.pack)?;
        let Some(entry) = known.chunks.entry(at.chunk) else {
            self.next = None;
            return None;
        };
        let len = entry.raw_len as usize;
        let holds = data.len() >= len && cut::ends_chunk(&data[..len]) && chunk_digest(&data[..len]) == entry.digest;
        let Some(ticket) = known.chunks.ticket(at.chunk).filter(|_| holds) else {
            self.next = None;
            return None;
        };
        self.next = Some(Location { chunk: at.chunk + 1, ..at });
        Some(Guess { digest: entry.digest, len, at, ticket })
    }
}
