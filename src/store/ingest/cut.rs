//! The first stage: bytes into chunks with their digests. What the predictor guesses right is neither searched for a cut nor
//! looked up.

use bytes::Bytes;

use super::predict::Predictor;
use crate::format::cut::{Cutter, ends_chunk};
use crate::format::digest::{RootDigest, chunk_digest};
use crate::format::manifest::Location;
use crate::model::Digest;
use crate::store::session::Ticket;

/// A chunk that was cut.
pub(super) struct Piece {
    pub(super) digest: Digest,
    pub(super) len: u32,
    /// Its bytes; none where the store has it and they are not at hand.
    pub(super) data: Bytes,
    /// Where the store has it, when that is known already.
    pub(super) at: Option<Location>,
    /// How to wait for it there, where its pack is still being filled.
    pub(super) ticket: Option<Ticket>,
    /// Whether it is to be stored although the store has it.
    pub(super) again: bool,
}

impl Piece {
    pub(super) fn new(digest: Digest, data: Bytes, at: Option<Location>) -> Self {
        Self { digest, len: data.len() as u32, data, at, ticket: None, again: false }
    }

    /// A chunk that the store has.
    pub(super) fn known(digest: Digest, len: u32, at: Location) -> Self {
        Self { digest, len, data: Bytes::new(), at: Some(at), ticket: None, again: false }
    }
}

/// What runs over all bytes in order.
pub(super) struct Cut {
    cutter: Cutter,
    root: RootDigest,
    pub(super) predictor: Predictor,
}

/// What a batch left uncut, and how much of it the cutter has seen.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) data: Bytes,
    seen: usize,
}

impl Tail {
    /// The same with memory of its own.
    pub(super) fn detached(self) -> Self {
        Self { data: Bytes::copy_from_slice(&self.data), seen: self.seen }
    }
}

impl Cut {
    pub(super) fn new() -> Self {
        Self { cutter: Cutter::new(), root: RootDigest::new(), predictor: Predictor::default() }
    }

    /// The root digest of all that was cut.
    pub(super) fn root(self) -> Digest {
        self.root.finish()
    }

    /// Cuts `data`, which begins with the `tail` of the batch before; what is left uncut comes back, unless it is the `last`.
    pub(super) fn run(&mut self, data: &Bytes, tail: &Tail, last: bool) -> (Tail, Vec<Piece>) {
        let mut pieces: Vec<Piece> = Vec::with_capacity(data.len() / (64 * 1024) + 2);
        // The open chunk begins at `begin`; the cutter has seen it up to `at`.
        let (mut begin, mut at) = (0, tail.seen);
        while begin < data.len() {
            if let Some(len) = self.same_again(&data[begin..], pieces.last()) {
                let before = &pieces[pieces.len() - 1];
                let piece = Piece::new(before.digest, data.slice(begin..begin + len), before.at);
                self.add(&mut pieces, piece);
                (begin, at) = (begin + len, begin + len);
                continue;
            }
            if self.predictor.wants().is_some_and(|len| begin + len > data.len()) && !last {
                // The guess needs bytes that are still to come.
                break;
            }
            if let Some(guess) = self.predictor.guess(&data[begin..]) {
                let data = data.slice(begin..begin + guess.len);
                let piece = Piece { ticket: guess.ticket, ..Piece::new(guess.digest, data, Some(guess.at)) };
                self.add(&mut pieces, piece);
                (begin, at) = (begin + guess.len, begin + guess.len);
                continue;
            }
            let Some(step) = self.cutter.next_cut(&data[at..]) else {
                at = data.len();
                break;
            };
            at += step;
            self.digest(&mut pieces, data.slice(begin..at));
            begin = at;
        }
        if last && begin < data.len() {
            self.digest(&mut pieces, data.slice(begin..));
            (begin, at) = (data.len(), data.len());
        }
        (Tail { data: data.slice(begin..), seen: at - begin }, pieces)
    }

    /// The length of the chunk before, where its bytes come once more and the cutter would end a chunk with them again.
    fn same_again(&self, data: &[u8], before: Option<&Piece>) -> Option<usize> {
        let before = &before?.data;
        (data.starts_with(before) && ends_chunk(before)).then_some(before.len())
    }

    fn digest(&mut self, pieces: &mut Vec<Piece>, data: Bytes) {
        let digest = chunk_digest(&data);
        let found = self.predictor.find(&digest);
        let (at, ticket) = found.map_or((None, None), |(at, ticket)| (Some(at), ticket));
        self.root.push(digest, data.len() as u64);
        pieces.push(Piece { ticket, ..Piece::new(digest, data, at) });
    }

    /// Adds a chunk whose end was not found by the cutter.
    fn add(&mut self, pieces: &mut Vec<Piece>, piece: Piece) {
        self.cutter.restart();
        self.root.push(piece.digest, piece.data.len() as u64);
        pieces.push(piece);
    }
}
