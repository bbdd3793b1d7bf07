//! A push: an object, or a part of one, as a client sends it that has cut and hashed it itself: references to chunks that the
//! store has, chunks that are made of what is there, and the others compressed.
//!
//! ```text
//! 0  16  magic "bedplate-push-01"
//! 16     records, one after the other; a record is
//!        1  kind
//!        4  length of what follows
//!
//!        kind 1, references: to its end, for each
//!           32  chunk digest
//!           4   length of the chunk
//!        kind 2, references with proofs: to its end, for each
//!           32  chunk digest
//!           4   length of the chunk
//!           16  proof that the client has the chunk's bytes
//!        kind 3, a frame of chunks
//!           1   codec
//!           2   chunks, then for each
//!           32    chunk digest
//!           4     length of the chunk
//!           …   the frame's stored bytes, to the record's end
//!        kind 4, patches: chunks that are made of pieces of an object that is there, the base, and of bytes between them
//!           1   codec of these bytes
//!           4   their length, decoded, at most 131,072
//!           2   chunks, at most 64, then for each
//!           32    chunk digest
//!           4     length of the chunk
//!           …     varint operations, at most 8,192 in a record, then for each
//!                   varint  length, times 2, and + 1 for a copy
//!                   varint  of a copy, where it begins in the base
//!           …   the stored bytes, to the record's end
//!        kind 0, the end
//!           8   bytes of all chunks
//!           32  root digest over all chunks
//! ```

use bytes::{Buf as _, Bytes, BytesMut};

use super::codec::Codec;
use super::field::{Damaged, Reader, Writer};
use crate::model::Digest;
use crate::model::limit::{CHUNK_MAX, FRAME_MAX};

const MAGIC: &[u8; 16] = b"bedplate-push-01";
const WHAT: &str = "push";
/// Kind and length.
const HEAD: usize = 5;
const END: u8 = 0;
const REFERENCES: u8 = 1;
const PROVEN: u8 = 2;
const FRAME: u8 = 3;
const PATCHES: u8 = 4;
/// Bytes of a digest and a length.
const NAMED: usize = 36;
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 16;
/// Most references in a record.
pub const REFERENCES_MAX: usize = 1024;
/// Most chunks in a frame.
pub const FRAME_CHUNKS_MAX: usize = 256;
/// Most chunks in a record of patches.
pub const PATCHED_MAX: usize = 64;
/// Most operations in a record of patches.
pub const OPS_MAX: usize = 8192;
/// Most bytes between the pieces in a record of patches.
pub const INSERTED_MAX: usize = CHUNK_MAX;
/// How far apart in the base the copies of one record lie at most, in bytes: the store reads what lies between them at once.
pub const SPAN_MAX: u64 = 4 * 1024 * 1024;
/// Longest record, in bytes: a frame that did not shrink, and the names of its chunks.
const RECORD_MAX: usize = FRAME_MAX + FRAME_CHUNKS_MAX * NAMED + 3;
/// A chunk by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes, 1 to [`CHUNK_MAX`].
    pub len: u32,
}

/// A chunk that the store has, as the client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Which.
    pub chunk: Named,
    /// What shows that the client has its bytes too: see [`proof`].
    pub proof: Option<[u8; PROOF_BYTES]>,
}

/// A chunk that is made of others' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patched {
    /// Which.
    pub chunk: Named,
    /// What it is made of, in order; together as long as the chunk.
    pub ops: Vec<Op>,
}

/// Some bytes of a patched chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes of the base.
    Copy {
        /// Where they begin in it, in bytes.
        at: u64,
        /// How many.
        len: u32,
    },
    /// The next bytes of those that come along.
    Insert {
        /// How many.
        len: u32,
    },
}

impl Op {
    /// How many bytes it makes.
    #[must_use]
    pub fn len(&self) -> u32 {
        match self {
            Self::Copy { len, .. } | Self::Insert { len } => *len,
        }
    }

    /// Whether it makes none, which no push says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// From where to where in the base the copies lie; nothing where there are none.
#[must_use]
pub fn span<'a>(ops: impl IntoIterator<Item = &'a Op>) -> Option<(u64, u64)> {
    ops.into_iter().fold(None, |span: Option<(u64, u64)>, op| match op {
        Op::Copy { at, len } => {
            let (from, to) = (*at, at.saturating_add(u64::from(*len)));
            Some(span.map_or((from, to), |span| (span.0.min(from), span.1.max(to))))
        }
        Op::Insert { .. } => span,
    })
}

/// A record of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Chunks that the store has; all of them with a proof, or none.
    References(Vec<Reference>),
    /// Chunks that come along.
    Frame {
        /// Which, in the order in which they lie in the decoded frame.
        chunks: Vec<Named>,
        /// How they are stored.
        codec: Codec,
        /// Their stored bytes.
        stored: Bytes,
    },
    /// Chunks that are made of the base.
    Patch {
        /// Which, and of what.
        chunks: Vec<Patched>,
        /// How many bytes come along.
        inserted: u32,
        /// How they are stored.
        codec: Codec,
        /// Their stored bytes.
        stored: Bytes,
    },
    /// There is no more.
    End {
        /// Bytes of all chunks.
        size: u64,
        /// The root digest over all chunks.
        root_digest: Digest,
    },
}

impl Record {
    /// Adds the record's bytes; a record that is longer than a record may be is read by nobody.
    pub fn encode(&self, out: &mut Writer) {
        let mut body = Writer::default();
        let kind = match self {
            Self::References(references) => {
                let proven = references.iter().all(|reference| reference.proof.is_some());
                for Reference { chunk, proof } in references {
                    name(&mut body, chunk);
                    if let (true, Some(proof)) = (proven, proof) {
                        body.raw(proof);
                    }
                }
                if proven { PROVEN } else { REFERENCES }
            }
            Self::Frame { chunks, codec, stored } => {
                body.u8(codec.code()).raw(&(chunks.len() as u16).to_le_bytes());
                chunks.iter().for_each(|chunk| name(&mut body, chunk));
                body.raw(stored);
                FRAME
            }
            Self::Patch { chunks, inserted, codec, stored } => {
                body.u8(codec.code()).u32(*inserted).raw(&(chunks.len() as u16).to_le_bytes());
                for Patched { chunk, ops } in chunks {
                    name(&mut body, chunk);
                    body.varint(ops.len() as u64);
                    for op in ops {
                        match op {
                            Op::Copy { at, len } => body.varint(u64::from(*len) << 1 | 1).varint(*at),
                            Op::Insert { len } => body.varint(u64::from(*len) << 1),
                        };
                    }
                }
                body.raw(stored);
                PATCHES
            }
            Self::End { size, root_digest } => {
                body.u64(*size).raw(&root_digest.0);
                END
            }
        };
        out.u8(kind).u32(body.len() as u32).raw(&body.take());
    }

    fn decode(kind: u8, body: &Bytes) -> Result<Self, Damaged> {
        let mut reader = Reader::new(WHAT, body);
        let record = match kind {
            END => Self::End { size: reader.u64()?, root_digest: Digest(reader.array()?) },
            REFERENCES | PROVEN => {
                let each = NAMED + if kind == PROVEN { PROOF_BYTES } else { 0 };
                let count = body.len() / each;
                if count == 0 || count > REFERENCES_MAX {
                    return Err(reader.damaged("a record has no references, or too many"));
                }
                let mut references = Vec::with_capacity(count);
                for _ in 0..count {
                    let chunk = named(&mut reader)?;
                    let proof = if kind == PROVEN { Some(reader.array()?) } else { None };
                    references.push(Reference { chunk, proof });
                }
                Self::References(references)
            }
            FRAME => {
                let codec = Codec::from_code(reader.u8()?)?;
                let count = usize::from(u16::from_le_bytes(reader.array()?));
                if count == 0 || count > FRAME_CHUNKS_MAX || codec != Codec::ZstdFrame && count > 1 {
                    return Err(reader.damaged("a frame has no chunks, or too many"));
                }
                let chunks = (0..count).map(|_| named(&mut reader)).collect::<Result<Vec<_>, _>>()?;
                let stored = body.slice(body.len() - reader.left()..);
                reader.raw(stored.len())?;
                Self::Frame { chunks, codec, stored }
            }
            PATCHES => {
                let codec = Codec::from_code(reader.u8()?)?;
                let inserted = reader.u32()?;
                let chunks = patched(&mut reader, inserted)?;
                let stored = body.slice(body.len() - reader.left()..);
                reader.raw(stored.len())?;
                Self::Patch { chunks, inserted, codec, stored }
            }
            _ => return Err(reader.damaged("a record is of a kind that this program does not know")),
        };
        reader.end()?;
        Ok(record)
    }
}

fn name(out: &mut Writer, chunk: &Named) {
    out.raw(&chunk.digest.0).u32(chunk.len);
}

fn named(reader: &mut Reader<'_>) -> Result<Named, Damaged> {
    let chunk = Named { digest: Digest(reader.array()?), len: reader.u32()? };
    if (1..=CHUNK_MAX as u32).contains(&chunk.len) {
        Ok(chunk)
    } else {
        Err(reader.damaged("a chunk has a length that none can have"))
    }
}

fn patched(reader: &mut Reader<'_>, inserted: u32) -> Result<Vec<Patched>, Damaged> {
    let count = usize::from(u16::from_le_bytes(reader.array()?));
    if count == 0 || count > PATCHED_MAX || inserted as usize > INSERTED_MAX {
        return Err(reader.damaged("a record has no patches, or too many"));
    }
    let (mut chunks, mut room, mut left) = (Vec::with_capacity(count), OPS_MAX, u64::from(inserted));
    for _ in 0..count {
        let chunk = named(reader)?;
        let ops_count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if ops_count > room || ops_count > reader.left() {
            return Err(reader.damaged("a record has too many operations"));
        }
        room -= ops_count;
        let (mut ops, mut made) = (Vec::with_capacity(ops_count), 0u64);
        for _ in 0..ops_count {
            let word = reader.varint()?;
            let len = u32::try_from(word >> 1).ok().filter(|len| (1..=chunk.len).contains(len));
            let len = len.ok_or(reader.damaged("an operation has a length that none can have"))?;
            made += u64::from(len);
            if word & 1 == 1 {
                ops.push(Op::Copy { at: reader.varint()?, len });
            } else {
                left = left.checked_sub(u64::from(len)).ok_or(reader.damaged("more is inserted than comes along"))?;
                ops.push(Op::Insert { len });
            }
        }
        if made != u64::from(chunk.len) {
            return Err(reader.damaged("a patch makes another length than its chunk has"));
        }
        chunks.push(Patched { chunk, ops });
    }
    let all = span(chunks.iter().flat_map(|patched| &patched.ops));
    if all.is_some_and(|(from, to)| to - from > SPAN_MAX) || left > 0 {
        return Err(reader.damaged("its copies lie too far apart, or bytes are left"));
    }
    Ok(chunks)
}

/// The beginning of a push.
#[must_use]
pub fn begin() -> Writer {
    let mut out = Writer::default();
    out.raw(MAGIC);
    out
}

/// Reads a push that arrives in pieces. It holds the record that is arriving, and the piece that was given last.
#[derive(Default)]
pub struct PushReader {
    held: BytesMut,
    begun: bool,
    ended: bool,
}

impl PushReader {
    /// A reader of a push that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece; call [`PushReader::record`] until it has no more before the next one.
    pub fn give(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// The next record, if all of it has come.
    pub fn record(&mut self) -> Result<Option<Record>, Damaged> {
        let damaged = |why| Damaged { what: WHAT, why };
        if !self.begun {
            let Some(magic) = self.held.first_chunk::<16>() else { return Ok(None) };
            if magic != MAGIC {
                return Err(damaged("its magic is absent"));
            }
            self.held.advance(MAGIC.len());
            self.begun = true;
        }
        if self.ended && !self.held.is_empty() {
            return Err(damaged("it goes on after its end"));
        }
        let Some([kind, len @ ..]) = self.held.first_chunk::<HEAD>() else { return Ok(None) };
        let (kind, len) = (*kind, u32::from_le_bytes(*len) as usize);
        if len > RECORD_MAX {
            return Err(damaged("a record is longer than any may be"));
        }
        if self.held.len() < HEAD + len {
            return Ok(None);
        }
        self.held.advance(HEAD);
        // A copy, so that the record does not keep alive what came with it.
        let body = Bytes::copy_from_slice(&self.held[..len]);
        self.held.advance(len);
        let record = Record::decode(kind, &body)?;
        self.ended = matches!(record, Record::End { .. });
        Ok(Some(record))
    }

    /// Whether the push has come to its end.
    pub fn finish(&self) -> Result<(), Damaged> {
        if self.ended && self.held.is_empty() { Ok(()) } else { Err(Damaged { what: WHAT, why: "it breaks off" }) }
    }
}

/// What only who has a chunk's bytes can say of them, under a key that the store names.
#[must_use]
pub fn proof(key: &[u8; 32], chunk: &[u8]) -> [u8; PROOF_BYTES] {
    let hash = blake3::keyed_hash(key, chunk);
    std::array::from_fn(|at| hash.as_bytes()[at])
}

#[cfg(test)]
mod tests {
    //! Pushes read back however they arrive; what is cut short, goes on, or claims too much is refused.
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<Record> {
        let chunk = |n: u8| Named { digest: Digest([n; 32]), len: 9_000 + u32::from(n) };
        let reference = |n, proof| Reference { chunk: chunk(n), proof };
        vec![
            Record::References(vec![reference(1, None), reference(2, None)]),
            Record::Frame { chunks: vec![chunk(3)], codec: Codec::Zstd, stored: Bytes::from_static(b"stored") },
            Record::References(vec![reference(4, Some([7; 16]))]),
            Record::Frame { chunks: vec![chunk(5), chunk(6)], codec: Codec::ZstdFrame, stored: Bytes::new() },
            Record::Patch {
                chunks: vec![
                    Patched { chunk: chunk(7), ops: vec![Op::Copy { at: 1 << 40, len: 9_000 }, Op::Insert { len: 7 }] },
                    Patched { chunk: chunk(8), ops: vec![Op::Insert { len: 9_008 }] },
                ],
                inserted: 9_015,
                codec: Codec::Zstd,
                stored: Bytes::from_static(b"between"),
            },
            Record::End { size: 72_036, root_digest: Digest([9; 32]) },
        ]
    }

    fn bytes_of(records: &[Record]) -> Vec<u8> {
        let mut out = begin();
        records.iter().for_each(|record| record.encode(&mut out));
        out.take()
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<Record>, Damaged> {
        let (mut reader, mut records) = (PushReader::new(), Vec::new());
        for piece in pieces {
            reader.give(piece);
            while let Some(record) = reader.record()? {
                records.push(record);
            }
        }
        reader.finish()?;
        Ok(records)
    }

    #[test]
    fn reads_back_however_it_arrives() {
        let bytes = bytes_of(&sample());
        assert_eq!(read(&[&bytes]).unwrap(), sample());
        assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()).unwrap(), sample());
        for at in 0..bytes.len() {
            assert!(read(&[&bytes[..at]]).is_err(), "cut at {at}");
        }
        assert!(read(&[&bytes, b"x"]).is_err());
        assert!(read(&[&bytes_of(&[sample(), sample()].concat())]).is_err());
    }

    #[test]
    fn refuses_what_claims_too_much() {
        let named = |len| Named { digest: Digest([1; 32]), len };
        let of = |len| vec![Record::References(vec![Reference { chunk: named(len), proof: None }])];
        assert!(read(&[&bytes_of(&of(0))]).is_err());
        assert!(read(&[&bytes_of(&of(CHUNK_MAX as u32 + 1))]).is_err());
        let frame = |count, codec| Record::Frame { chunks: vec![named(8_192); count], codec, stored: Bytes::new() };
        for (count, codec) in [(0, Codec::Raw), (2, Codec::Zstd), (FRAME_CHUNKS_MAX + 1, Codec::ZstdFrame)] {
            assert!(read(&[&bytes_of(&[frame(count, codec)])]).is_err(), "{count}");
        }
        let patch = |ops: Vec<Op>, inserted| Record::Patch {
            chunks: vec![Patched { chunk: named(8_192), ops }],
            inserted,
            codec: Codec::Raw,
            stored: Bytes::new(),
        };
        let copy = |at, len| Op::Copy { at, len };
        assert!(read(&[&bytes_of(&[patch(vec![copy(5, 8_192)], 0), sample()[5].clone()])]).is_ok());
        for (ops, inserted) in [
            (vec![], 0),
            (vec![copy(5, 8_191)], 0),
            (vec![copy(5, 8_193)], 0),
            (vec![copy(5, 8_192)], 1),
            (vec![Op::Insert { len: 8_192 }], 8_191),
            (vec![copy(0, 4_096), copy(SPAN_MAX, 4_096)], 0),
            (vec![copy(u64::MAX, 8_191), copy(0, 1)], 0),
            (vec![Op::Insert { len: 1 }; 8_193], 8_192),
        ] {
            assert!(read(&[&bytes_of(&[patch(ops, inserted), sample()[5].clone()])]).is_err());
        }
        let mut head = MAGIC.to_vec();
        head.extend([FRAME, 0xff, 0xff, 0xff, 0xff]);
        let mut reader = PushReader::new();
        reader.give(&head);
        assert!(reader.record().is_err(), "it does not wait for 4 GiB");
    }

    #[test]
    fn a_proof_needs_the_bytes_and_the_key() {
        let of = |key: u8, chunk: &[u8]| proof(&[key; 32], chunk);
        assert_eq!(of(1, b"chunk"), of(1, b"chunk"));
        assert!(of(1, b"chunk") != of(2, b"chunk") && of(1, b"chunk") != of(1, b"chunks"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(mut bytes: Vec<u8>, at in 0usize..200, with: u8) {
            drop(read(&[&bytes]));
            bytes.splice(0..0, MAGIC.iter().copied());
            drop(read(&[&bytes]));
            let mut mutated = bytes_of(&sample());
            let at = at % mutated.len();
            mutated[at] = with;
            drop(read(&[&mutated]));
        }
    }
}
