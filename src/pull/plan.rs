//! Which pack ranges to ask for: chunks that lie next to each other in a pack travel in one request.

use crate::format::chunk_list::ChunkRef;
use crate::model::ByteRange;

/// Largest request in bytes; a pack's chunks rarely lie in longer runs, and a lost connection costs at most this.
const REQUEST_MAX: u64 = 4 * 1024 * 1024;
/// One request: a range of a pack, and the chunks in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Which of the list's packs.
    pub pack: u32,
    /// Which bytes of it.
    pub range: ByteRange,
    /// Positions in the image's list of the chunks that the range holds, in pack order.
    pub chunks: Vec<usize>,
}

/// Requests for the chunks at these positions. What lies between two chunks may be somebody else's, and is not asked for. A chunk that is wanted at several places is asked for once.
#[must_use]
pub fn fetches(chunks: &[ChunkRef], wanted: &[usize]) -> Vec<Fetch> {
    let mut sorted = wanted.to_vec();
    sorted.sort_by_key(|at| (chunks[*at].pack, chunks[*at].offset, chunks[*at].within, *at));
    let mut plan: Vec<Fetch> = Vec::new();
    for at in sorted {
        let chunk = &chunks[at];
        let end = chunk.offset + u64::from(chunk.stored_len);
        if let Some(open) = plan.last_mut()
            && open.pack == chunk.pack
            && chunk.offset <= open.range.end
            && end.max(open.range.end) - open.range.start <= REQUEST_MAX
        {
            open.range.end = open.range.end.max(end);
            open.chunks.push(at);
        } else {
            plan.push(Fetch { pack: chunk.pack, range: ByteRange { start: chunk.offset, end }, chunks: vec![at] });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    //! Every wanted chunk is in exactly one request, which covers it; requests stay short and gaps small.
    use proptest::prelude::*;

    use super::*;
    use crate::format::codec::Codec;
    use crate::model::Digest;

    fn chunk(pack: u32, offset: u64, stored_len: u32) -> ChunkRef {
        ChunkRef { digest: Digest::default(), pack, offset, stored_len, raw_len: 65536, codec: Codec::Raw, within: 0 }
    }

    #[test]
    fn neighbours_travel_together() {
        let chunks = [chunk(0, 0, 100), chunk(0, 100, 50), chunk(1, 0, 10), chunk(0, 150, 1), chunk(0, 1 << 30, 9)];
        let plan = fetches(&chunks, &[0, 1, 2, 3, 4]);
        let shape: Vec<_> = plan.iter().map(|f| (f.pack, f.range.start, f.range.end, f.chunks.clone())).collect();
        let far = 1 << 30;
        assert_eq!(shape, [(0, 0, 151, vec![0, 1, 3]), (0, far, far + 9, vec![4]), (1, 0, 10, vec![2])]);
        let again = [chunk(0, 0, 100), chunk(0, 0, 100)];
        assert_eq!(fetches(&again, &[0, 1]).len(), 1);
    }

    proptest! {
        #[test]
        fn covers_all(raw in proptest::collection::vec((0u32..3, 0u64..20_000_000, 1u32..131_072), 1..80)) {
            let chunks: Vec<ChunkRef> = raw.into_iter().map(|(pack, offset, len)| chunk(pack, offset, len)).collect();
            let wanted: Vec<usize> = (0..chunks.len()).step_by(2).collect();
            let plan = fetches(&chunks, &wanted);
            let mut seen: Vec<usize> = plan.iter().flat_map(|fetch| fetch.chunks.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, wanted);
            for fetch in &plan {
                prop_assert!(fetch.range.len() <= REQUEST_MAX);
                for at in &fetch.chunks {
                    let chunk = &chunks[*at];
                    prop_assert_eq!(chunk.pack, fetch.pack);
                    prop_assert!(chunk.offset >= fetch.range.start);
                    prop_assert!(chunk.offset + u64::from(chunk.stored_len) <= fetch.range.end);
                }
            }
        }
    }
}
