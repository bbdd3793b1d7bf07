//! One pack read and compared: its directory with its row, the heads of its groups with its directory, every chunk with its
//! digest. What does not hold is read a second time before it is believed.

use std::ops::Range;

use bytes::Bytes;

use super::Pace;
use crate::format::codec::Decoder;
use crate::format::pack::{Directory, Entry, Group, MAGIC};
use crate::format::row::PackRow;
use crate::model::{Digest, PackId};
use crate::store::Inner;
use crate::store::error::{StoreError, chain};
use crate::store::faults::Fault;
use crate::store::fetch::verified;
use crate::sys::volume::VolumeFile;
use crate::sys::worker::blocking;

/// Stored bytes read at once.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// A chunk that is not what the directory says.
pub(in crate::store) struct BadChunk {
    pub(in crate::store) chunk: u32,
    pub(in crate::store) digest: Digest,
    pub(in crate::store) what: String,
}

/// What a pack turned out to be.
#[derive(Default)]
pub(in crate::store) struct Verdict {
    /// Its directory; none where it cannot be used.
    pub(in crate::store) directory: Option<Directory>,
    /// What is wrong with the pack as a whole.
    pub(in crate::store) whole: Vec<String>,
    /// Where group heads, or the first bytes, are damaged, which harms nobody as long as the directory is whole.
    pub(in crate::store) heads: Vec<Range<u64>>,
    pub(in crate::store) bad: Vec<BadChunk>,
    /// Chunks that were read.
    pub(in crate::store) chunks: u64,
}

/// Looks at one pack; with `data`, reads all of it.
pub(in crate::store) async fn verify(
    inner: &Inner,
    pack: PackId,
    row: &PackRow,
    data: bool,
    pace: &mut Pace,
) -> Result<Verdict, StoreError> {
    let mut verdict = Verdict::default();
    match inner.packs.size(pack).await {
        Ok(size) if size != row.bytes => {
            verdict.whole.push(format!("its file has {size} bytes instead of {}", row.bytes));
        }
        Ok(_) => {}
        Err(StoreError::NoSuchPack(_)) => {
            verdict.whole.push("its file is missing".to_owned());
            return Ok(verdict);
        }
        Err(error) => {
            verdict.whole.push(unreadable(error)?);
            return Ok(verdict);
        }
    }
    if data {
        let forget = |file: &dyn VolumeFile| {
            file.forget();
            Ok(())
        };
        if let Err(error) = inner.packs.with(pack, "look at a pack", forget).await {
            verdict.whole.push(unreadable(error)?);
            return Ok(verdict);
        }
    }
    let directory = match inner.read_directory(pack, row).await {
        Ok(directory) => directory,
        Err(StoreError::CorruptRow(damage)) => {
            verdict.whole.push(damage.to_string());
            return Ok(verdict);
        }
        Err(error) => {
            verdict.whole.push(unreadable(error)?);
            return Ok(verdict);
        }
    };
    if data {
        read_all(inner, pack, &directory, &mut verdict, pace).await?;
    }
    verdict.directory = Some(directory);
    Ok(verdict)
}

/// What a failure to read says of the pack; failures of ours stay failures.
fn unreadable(error: StoreError) -> Result<String, StoreError> {
    match error {
        StoreError::Io { action: "read a pack" | "look at a pack", .. } | StoreError::NoSuchPack(_) => {
            Ok(chain(&error))
        }
        other => Err(other),
    }
}

/// Reads a pack front to back.
async fn read_all(
    inner: &Inner,
    pack: PackId,
    directory: &Directory,
    verdict: &mut Verdict,
    pace: &mut Pace,
) -> Result<(), StoreError> {
    match inner.packs.read(pack, 0, MAGIC.len() as u64).await {
        Ok(magic) if magic[..] == MAGIC[..] => {}
        Ok(_) => verdict.heads.push(0..MAGIC.len() as u64),
        Err(error) => drop(unreadable(error)?),
    }
    let (mut first, mut start) = (0, MAGIC.len() as u64);
    while let Some(head) = directory.entries.get(first) {
        let rest = &directory.entries[first..];
        // All chunks of the first frame, however long, then as many as fit.
        let fits = |entry: &&Entry| entry.end() - head.offset <= READ_BYTES || entry.offset == head.offset;
        let entries = rest[..rest.iter().take_while(fits).count()].to_vec();
        let end = entries.last().map_or(start, Entry::end);
        let bytes = match inner.packs.read(pack, start, end).await {
            Ok(bytes) => bytes,
            // Each chunk is asked for by itself below.
            Err(error) => unreadable(error).map(|_| Bytes::new())?,
        };
        let after = first + entries.len();
        let following = directory.entries[first..].to_vec();
        let believes = inner.faults.has(Fault::SkipCompare);
        let work = move || {
            let bad = if believes { Vec::new() } else { compare(&entries, start, &bytes) };
            (bad, heads(pack, start, end, &following, &bytes))
        };
        let (bad, heads) = blocking(work).await.map_err(StoreError::step)?;
        for (n, gap) in heads {
            let bytes = match inner.packs.read(pack, gap.start, gap.end).await {
                Ok(bytes) => bytes,
                Err(error) => unreadable(error).map(|_| Bytes::new())?,
            };
            if !says(pack, gap.start, &bytes, &directory.entries[first + n..]) {
                verdict.heads.push(gap);
            }
        }
        for (n, _) in bad {
            let chunk = (first + n) as u32;
            let entry = directory.entries[first + n];
            if let Some(what) = again(inner, pack, entry).await? {
                verdict.bad.push(BadChunk { chunk, digest: entry.digest, what });
            }
        }
        verdict.chunks += (after - first) as u64;
        pace.spend(end - start).await;
        (first, start) = (after, end);
    }
    Ok(())
}

/// The chunks that are not what they should be, by their place in `entries`. `bytes` begin at `start` of the pack.
fn compare(entries: &[Entry], start: u64, bytes: &Bytes) -> Vec<(usize, &'static str)> {
    let mut decoder = Decoder::new();
    let wrong = entries.iter().enumerate().filter_map(|(n, entry)| {
        let (at, end) = ((entry.offset - start) as usize, (entry.end() - start) as usize);
        let stored = if end <= bytes.len() { bytes.slice(at..end) } else { Bytes::new() };
        verified(&mut decoder, entry, &stored).err().map(|what| (n, what))
    });
    wrong.collect()
}

/// Reads a chunk by itself, once more; what is wrong with it, if it still is.
async fn again(inner: &Inner, pack: PackId, entry: Entry) -> Result<Option<String>, StoreError> {
    let bytes = match inner.packs.read(pack, entry.offset, entry.end()).await {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(error).map(Some),
    };
    let work = move || verified(&mut Decoder::new(), &entry, &bytes).err().map(str::to_owned);
    blocking(work).await.map_err(StoreError::step)
}

/// The places of the group heads between `start` and `end` that do not say what the directory says, each with the number of the
/// first chunk behind it. Heads lie where a chunk does not begin at the end of the one before.
fn heads(pack: PackId, start: u64, end: u64, entries: &[Entry], bytes: &Bytes) -> Vec<(usize, Range<u64>)> {
    let mut damaged = Vec::new();
    let mut at = start;
    for (n, entry) in entries.iter().enumerate().take_while(|(_, entry)| entry.end() <= end) {
        if entry.offset > at {
            let head = bytes.get((at - start) as usize..(entry.offset - start) as usize).unwrap_or_default();
            if !says(pack, at, head, &entries[n..]) {
                damaged.push((n, at..entry.offset));
            }
        }
        at = entry.end();
    }
    damaged
}

/// Whether a group's head, at this place of the pack, says what the directory says of the chunks behind it.
fn says(pack: PackId, at: u64, head: &[u8], entries: &[Entry]) -> bool {
    Group::decode(pack, at, head).is_ok_and(|group| entries.starts_with(&group.entries))
}
