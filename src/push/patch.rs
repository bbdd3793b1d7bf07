//! Chunks that have changed a little, told as what they have in common with the object that is there: the store sends what that is made
//! of, finely, and gets places in it and the bytes between them.

use std::collections::HashMap;

use bytes::Bytes;

use crate::format::codec::Codec;
use crate::format::field::Writer;
use crate::format::pieces::{Piece, Signature, pieces};
use crate::format::push::{INSERTED_MAX, Named, OPS_MAX, Op, PATCHED_MAX, Patched, Record, SPAN_MAX, span};

/// zstd's level for the bytes between: there are few of them.
const LEVEL: i32 = 6;

/// What a stretch of the object that is there is made of.
pub(super) struct Base {
    pub(super) etag: String,
    /// Where each piece is; nothing for those that are in several places.
    places: HashMap<Piece, Option<u64>>,
    by_place: HashMap<u64, Piece>,
}

impl Base {
    pub(super) fn new(signature: Signature) -> Self {
        let mut at = signature.start;
        let mut places = HashMap::with_capacity(signature.pieces.len());
        let mut by_place = HashMap::with_capacity(signature.pieces.len());
        for piece in signature.pieces {
            places.entry(piece).and_modify(|place| *place = None).or_insert(Some(at));
            by_place.insert(at, piece);
            at += u64::from(piece.len);
        }
        Self { etag: signature.etag, places, by_place }
    }

    /// The chunk as copies, and insertions of these bytes. What repeats is found where it follows what is found.
    fn ops(&self, data: &[u8]) -> (Vec<Op>, Vec<u8>) {
        let (mut ops, mut inserted): (Vec<Op>, Vec<u8>) = (Vec::new(), Vec::new());
        for (piece, bytes) in pieces(data) {
            if let Some(Op::Copy { at, len }) = ops.last_mut()
                && self.by_place.get(&(*at + u64::from(*len))) == Some(&piece)
            {
                *len += piece.len;
                continue;
            }
            if let Some(Some(at)) = self.places.get(&piece) {
                ops.push(Op::Copy { at: *at, len: piece.len });
                continue;
            }
            inserted.extend_from_slice(bytes);
            match ops.last_mut() {
                Some(Op::Insert { len }) => *len += piece.len,
                _ => ops.push(Op::Insert { len: piece.len }),
            }
        }
        (ops, inserted)
    }
}

/// A record of patches that is being written.
#[derive(Default)]
pub(super) struct Patches {
    chunks: Vec<Patched>,
    ops: usize,
    inserted: Vec<u8>,
    span: Option<(u64, u64)>,
}

impl Patches {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds a chunk, where no more than `most` bytes of it are not in the base; writes what would not fit one record with it. Answers how
    /// many bytes those are.
    pub(super) fn add(
        &mut self,
        base: &Base,
        chunk: Named,
        data: &Bytes,
        most: usize,
        out: &mut Writer,
    ) -> Option<usize> {
        let (ops, inserted) = base.ops(data);
        let own = span(&ops);
        let wide = |(from, to): (u64, u64)| to - from > SPAN_MAX;
        if inserted.len() > most || own.is_some_and(wide) || ops.len() > OPS_MAX {
            return None;
        }
        let joined = join(self.span, own);
        if joined.is_some_and(wide)
            || self.ops + ops.len() > OPS_MAX
            || self.inserted.len() + inserted.len() > INSERTED_MAX
            || self.chunks.len() == PATCHED_MAX
        {
            self.flush(out);
        }
        self.span = join(self.span, own);
        self.ops += ops.len();
        self.inserted.extend_from_slice(&inserted);
        self.chunks.push(Patched { chunk, ops });
        Some(inserted.len())
    }

    /// Writes what there is.
    pub(super) fn flush(&mut self, out: &mut Writer) {
        let Self { chunks, inserted, .. } = std::mem::take(self);
        if chunks.is_empty() {
            return;
        }
        let stored = zstd::bulk::compress(&inserted, LEVEL).ok().filter(|stored| stored.len() < inserted.len());
        let (codec, stored) = match stored {
            Some(stored) => (Codec::Zstd, stored),
            None => (Codec::Raw, inserted.clone()),
        };
        Record::Patch { chunks, inserted: inserted.len() as u32, codec, stored: stored.into() }.encode(out);
    }
}

fn join(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}
