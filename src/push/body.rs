//! The push of some chunks: which are named, which are made of what is there, which come along.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::cut::Stretch;
use super::patch::{Base, Patches};
use crate::format::codec::Encoder;
use crate::format::digest::{RootDigest, chunk_digest};
use crate::format::field::Writer;
use crate::format::push::{self as wire, FRAME_CHUNKS_MAX, Named, REFERENCES_MAX, Record, Reference};
use crate::model::Digest;

/// Chunks with their digests.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) chunks: Arc<Vec<(Digest, Bytes)>>,
    pub(super) root: Digest,
    pub(super) bytes: u64,
}

/// How a load is to be told.
pub(super) struct Plan {
    /// What the store has.
    pub(super) known: HashSet<Digest>,
    /// What must come along.
    pub(super) whole: HashSet<Digest>,
    /// What the rest may be made of.
    pub(super) base: Option<Arc<Base>>,
    /// The key of the proofs that references need.
    pub(super) prove: Option<[u8; 32]>,
}

impl Load {
    /// Hashes the chunks. Blocks.
    pub(super) fn name(stretch: Stretch) -> Self {
        let mut root = RootDigest::new();
        let named = stretch.chunks.into_iter().map(|data| {
            let digest = chunk_digest(&data);
            root.push(digest, data.len() as u64);
            (digest, data)
        });
        let chunks = Arc::new(named.collect());
        Self { chunks, root: root.finish(), bytes: stretch.bytes }
    }

    /// The push of these chunks; and how many bytes of them it does not bring. Blocks.
    pub(super) fn body(&self, plan: &Plan) -> (Bytes, u64) {
        let mut body = Body {
            out: wire::begin(),
            encoder: Encoder::new(),
            named: Vec::new(),
            along: Vec::new(),
            patches: Patches::default(),
        };
        let mut told: HashSet<Digest> = HashSet::new();
        let mut saved = 0;
        for (digest, data) in self.chunks.iter() {
            let chunk = Named { digest: *digest, len: data.len() as u32 };
            // What comes along once is known from there on.
            let is_known = plan.known.contains(digest) || !told.insert(*digest);
            let base = plan.base.as_deref().filter(|_| !plan.whole.contains(digest));
            let most = if is_known { 0 } else { data.len() / 2 };
            // A name between patches would part them: what is known is made like its neighbours, where it can be.
            let patched = base.filter(|_| !is_known || body.is_patching());
            if let Some(inserted) = patched.and_then(|base| body.patch(base, chunk, data, most)) {
                saved += (data.len() - inserted) as u64;
            } else if is_known {
                saved += data.len() as u64;
                body.name(Reference { chunk, proof: plan.prove.map(|key| wire::proof(&key, data)) });
            } else {
                body.bring(chunk, data);
            }
        }
        body.flush();
        Record::End { size: self.bytes, root_digest: self.root }.encode(&mut body.out);
        (body.out.take().into(), saved)
    }
}

/// A push that is being written: records that are not full yet, of which at most one kind has any.
struct Body {
    out: Writer,
    encoder: Encoder,
    named: Vec<Reference>,
    along: Vec<(Named, Bytes)>,
    patches: Patches,
}

impl Body {
    fn is_patching(&self) -> bool {
        !self.patches.is_empty()
    }

    /// Tells a chunk by what it has in common with the base, where no more than `most` bytes must come along; answers how many.
    fn patch(&mut self, base: &Base, chunk: Named, data: &Bytes, most: usize) -> Option<usize> {
        if !self.is_patching() {
            self.flush();
        }
        self.patches.add(base, chunk, data, most, &mut self.out)
    }

    fn name(&mut self, reference: Reference) {
        if self.named.is_empty() || self.named.len() == REFERENCES_MAX {
            self.flush();
        }
        self.named.push(reference);
    }

    fn bring(&mut self, chunk: Named, data: &Bytes) {
        if self.along.is_empty() || self.along.len() == FRAME_CHUNKS_MAX {
            self.flush();
        }
        self.along.push((chunk, data.clone()));
    }

    fn flush(&mut self) {
        self.patches.flush(&mut self.out);
        if !self.named.is_empty() {
            Record::References(std::mem::take(&mut self.named)).encode(&mut self.out);
        }
        let (mut chunks, data): (Vec<Named>, Vec<Bytes>) = self.along.drain(..).unzip();
        for frame in self.encoder.encode(&data) {
            let rest = chunks.split_off(frame.chunks);
            Record::Frame { chunks, codec: frame.codec, stored: frame.stored }.encode(&mut self.out);
            chunks = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    //! A body holds what is new once, names the rest, and adds up to what was read.
    use super::*;
    use crate::format::push::PushReader;
    use crate::push::cut::Cutting;
    use crate::push::cut::tests::noise;

    #[test]
    fn what_is_known_is_named_and_what_repeats_comes_once() {
        let text = noise(3_000_000);
        let data = [&text[..], &text[..], &[0; 500_000][..]].concat();
        let load = Load::name(Cutting::new(&data[..]).next(u64::MAX).unwrap());
        let known: HashSet<Digest> = load.chunks.iter().step_by(3).map(|(digest, _)| *digest).collect();
        for prove in [None, Some([7; 32])] {
            let plan = Plan { known: known.clone(), whole: HashSet::new(), base: None, prove };
            let (body, saved) = load.body(&plan);
            let mut reader = PushReader::new();
            reader.give(&body);
            let (mut names, mut along) = (Vec::new(), HashSet::new());
            while let Some(record) = reader.record().unwrap() {
                match record {
                    Record::References(references) => {
                        for Reference { chunk, proof } in references {
                            assert!(known.contains(&chunk.digest) || along.contains(&chunk.digest));
                            assert_eq!(proof.is_some(), prove.is_some());
                            names.push(chunk);
                        }
                    }
                    Record::Frame { chunks, .. } => {
                        for chunk in chunks {
                            assert!(!known.contains(&chunk.digest) && along.insert(chunk.digest));
                            names.push(chunk);
                        }
                    }
                    Record::Patch { .. } => panic!("there is no base"),
                    Record::End { size, root_digest } => {
                        assert_eq!((size, root_digest), (data.len() as u64, load.root));
                    }
                }
            }
            reader.finish().unwrap();
            let all = load.chunks.iter().map(|(digest, data)| Named { digest: *digest, len: data.len() as u32 });
            assert!(names.into_iter().eq(all));
            assert!(saved > data.len() as u64 / 2);
        }
    }
}
