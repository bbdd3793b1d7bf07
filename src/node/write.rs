//! From chunks to disk blocks. Chunks end anywhere, disks are written in blocks, so what the chunks give is put
//! together in order; what is zero is zeroed by the disk itself, and what the disk holds already stays.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::report::Gauge;
use crate::format::chunk_list::ChunkList;
use crate::format::codec::Codec;
use crate::format::digest::{chunk_digest, is_zero_digest};
use crate::model::limit::CHUNK_MAX;
use crate::pull::{FetchError, ImageSource, Segment, fetches};
use crate::sys::disk::{ALIGN, Aligned, Disk};

/// Bytes put together and written at a time.
pub const SEGMENT: usize = 8 * 1024 * 1024;
/// Segments in the making at once: with the one being written, some 50 MiB of memory.
const AHEAD: usize = 4;
/// Zeros shorter than this between data are written along: one long write beats three short ones.
const ZERO_RUN_MIN: usize = 64 * 1024;
/// The first bytes of a disk, written last: until then it has no partition table and nobody boots half an image.
pub const HEAD: u64 = super::guard::EDGE;

/// How the image is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Read the disk first, and leave what it holds already.
    pub reuse: bool,
    /// Keep the disk's beginning back, for [`Head::commit`].
    pub hold_head: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of chunks that the disk held already.
    pub reused: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes that are zero and were zeroed by the disk.
    pub zero: u64,
}

/// The beginning of the image, kept back.
#[derive(Debug, Default)]
pub struct Head(Vec<(u64, Vec<u8>)>);

impl Head {
    /// The header sector of its partition table, for the marker.
    #[must_use]
    pub fn table(&self) -> Option<&[u8]> {
        self.0.iter().find(|(at, _)| *at == 0).and_then(|(_, bytes)| bytes.get(512..1024))
    }

    /// Writes it, once everything else is on stable storage.
    pub fn commit(&self, disk: &Disk) -> io::Result<()> {
        disk.sync()?;
        for (at, bytes) in &self.0 {
            let mut block = Aligned::zeroed(bytes.len());
            block.copy_from_slice(bytes);
            disk.write_at(*at, &block)?;
        }
        disk.sync()
    }
}

/// Why the image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Its bytes could not be had.
    #[error("the image could not be fetched")]
    Fetch(#[source] FetchError),
    /// The disk failed.
    #[error("the disk failed at byte {offset} while {doing}: replace the drive, or see the kernel's messages")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// Where.
        offset: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Work was stopped from outside.
    #[error("writing was interrupted")]
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Zero,
    Same,
}

/// Bytes `start..end` of the image and what is known of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    kind: Kind,
}

/// One segment's bytes, behind room for what the segment before left over.
struct Prepared {
    segment: Segment,
    buffer: Aligned,
    pieces: Vec<Piece>,
}

fn down(at: u64) -> u64 {
    at / ALIGN as u64 * ALIGN as u64
}

fn disk_error(doing: &'static str, offset: u64) -> impl FnOnce(io::Error) -> WriteError {
    move |source| WriteError::Disk { doing, offset, source }
}

/// Writes the image; the disk is long enough. Returns once all but the head is handed to the disk (not yet synced).
pub async fn write_image(
    source: &ImageSource,
    disk: &Arc<Disk>,
    options: WriteOptions,
    gauge: &Gauge,
) -> Result<(Counts, Head), WriteError> {
    let size = source.list().size;
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Prepared>(1);
    let (writer_disk, writer_gauge) = (disk.clone(), gauge.clone());
    let writer = tokio::task::spawn_blocking(move || {
        let mut writer = Writer::new(writer_disk, size, options.hold_head);
        while let Some(prepared) = receiver.blocking_recv() {
            let len = prepared.segment.len as u64;
            writer.push(prepared)?;
            writer_gauge.advance(len);
        }
        Ok::<_, WriteError>((writer.counts, Head(writer.head)))
    });
    let segments = futures_util::stream::iter(source.segments(SEGMENT));
    let mut ready = segments.map(|segment| prepare(source, disk, segment, options.reuse)).buffered(AHEAD);
    while let Some(prepared) = ready.next().await {
        if sender.send(prepared?).await.is_err() {
            // The writer has ended early: its error says why.
            break;
        }
    }
    drop(sender);
    writer.await.map_err(|_| WriteError::Interrupted)?
}

/// Gathers one segment: what the disk holds already, what is zero, and the rest over the wire.
async fn prepare(
    source: &ImageSource,
    disk: &Arc<Disk>,
    segment: Segment,
    reuse: bool,
) -> Result<Prepared, WriteError> {
    let room = usize::try_from(segment.offset - down(segment.offset)).unwrap_or_default();
    let (list, shared) = (source.list().clone(), disk.clone());
    let (mut buffer, kinds) = tokio::task::spawn_blocking(move || {
        let mut buffer = Aligned::zeroed((room + segment.len).next_multiple_of(ALIGN));
        if reuse {
            read_segment(&shared, segment, &mut buffer)?;
        }
        let kinds = classify(&list, segment, &mut buffer[room..room + segment.len], reuse);
        Ok::<_, WriteError>((buffer, kinds))
    })
    .await
    .map_err(|_| WriteError::Interrupted)??;
    let wanted: Vec<usize> =
        (segment.first..segment.end).filter(|at| kinds[at - segment.first] == Kind::Data).collect();
    let plan = fetches(&source.list().chunks, &wanted);
    let pieces = pieces_of(source.list(), segment, &kinds);
    let mut answers = futures_util::stream::iter(&plan).map(|fetch| source.fetch(fetch)).buffer_unordered(AHEAD);
    while let Some(chunks) = answers.next().await {
        for (at, bytes) in chunks.map_err(WriteError::Fetch)? {
            let start = starts_at(&pieces, at - segment.first, segment) + room;
            buffer[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }
    Ok(Prepared { segment, buffer, pieces })
}

fn starts_at(pieces: &[Piece], index: usize, segment: Segment) -> usize {
    usize::try_from(pieces[index].start - segment.offset).unwrap_or_default()
}

/// Reads the blocks that the segment touches, as far as the disk goes.
fn read_segment(disk: &Disk, segment: Segment, buffer: &mut Aligned) -> Result<(), WriteError> {
    let start = down(segment.offset);
    let end = (start + buffer.len() as u64).min(disk.len());
    let len = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
    disk.read_at(start, &mut buffer[..len]).map_err(disk_error("reading what it holds", start))
}

/// What each chunk of the segment is; `bytes` hold what the disk has where `reuse` is set, and zeros otherwise.
fn classify(list: &ChunkList, segment: Segment, bytes: &mut [u8], reuse: bool) -> Vec<Kind> {
    let mut at = 0;
    let kind = |chunk: &crate::format::chunk_list::ChunkRef| {
        let len = chunk.raw_len as usize;
        let part = &mut bytes[at..at + len];
        at += len;
        if reuse && chunk_digest(part) == chunk.digest {
            return Kind::Same;
        }
        // Only what compressed to almost nothing can be zeros; hashing zeros for every other chunk would cost as much
        // as verifying it.
        let may_be_zero = len == CHUNK_MAX || (chunk.codec == Codec::Zstd && chunk.stored_len <= 64) || len <= ALIGN;
        if may_be_zero && is_zero_digest(&chunk.digest, len) {
            part.fill(0);
            return Kind::Zero;
        }
        Kind::Data
    };
    list.chunks[segment.first..segment.end].iter().map(kind).collect()
}

fn pieces_of(list: &ChunkList, segment: Segment, kinds: &[Kind]) -> Vec<Piece> {
    let mut start = segment.offset;
    let chunks = list.chunks[segment.first..segment.end].iter().zip(kinds);
    chunks
        .map(|(chunk, kind)| {
            let piece = Piece { start, end: start + u64::from(chunk.raw_len), kind: *kind };
            start = piece.end;
            piece
        })
        .collect()
}

/// Writes segments in order.
struct Writer {
    disk: Arc<Disk>,
    size: u64,
    hold_head: bool,
    head: Vec<(u64, Vec<u8>)>,
    counts: Counts,
    carry: Vec<u8>,
    carried: Vec<Piece>,
}

impl Writer {
    fn new(disk: Arc<Disk>, size: u64, hold_head: bool) -> Self {
        let (head, counts, carry, carried) = Default::default();
        Self { disk, size, hold_head, head, counts, carry, carried }
    }

    fn push(&mut self, prepared: Prepared) -> Result<(), WriteError> {
        let Prepared { segment, mut buffer, pieces } = prepared;
        let base = down(segment.offset);
        buffer[..self.carry.len()].copy_from_slice(&self.carry);
        for piece in &pieces {
            let len = piece.end - piece.start;
            self.counts.reused += if piece.kind == Kind::Same { len } else { 0 };
        }
        let mut pieces: Vec<Piece> = self.carried.drain(..).chain(pieces).collect();
        let end = segment.offset + segment.len as u64;
        let stop = if end == self.size { end } else { down(end).max(base) };
        for (start, end, kind) in runs(&pieces, base, stop) {
            let from = usize::try_from(start - base).unwrap_or_default();
            let to = usize::try_from(end - base).unwrap_or_default();
            self.put(start, &buffer[from..to], kind)?;
        }
        let left = usize::try_from(stop - base).unwrap_or_default();
        let whole = usize::try_from(end - base).unwrap_or_default();
        self.carry = buffer[left..whole].to_vec();
        pieces.retain(|piece| piece.end > stop);
        self.carried = pieces;
        Ok(())
    }

    fn put(&mut self, at: u64, bytes: &[u8], kind: Kind) -> Result<(), WriteError> {
        let held = if self.hold_head && at < HEAD { bytes.len().min((HEAD - at) as usize) } else { 0 };
        if held > 0 && kind != Kind::Zero {
            // The head was zeroed before the first segment: what the disk "holds already" there is written again.
            self.head.push((at, bytes[..held].to_vec()));
            self.counts.written += held as u64;
        } else if held > 0 {
            self.counts.zero += held as u64;
        }
        let (at, bytes) = (at + held as u64, &bytes[held..]);
        if bytes.is_empty() {
            return Ok(());
        }
        match kind {
            Kind::Same => {}
            Kind::Zero => {
                self.disk.zero(at, bytes.len() as u64).map_err(disk_error("zeroing", at))?;
                self.counts.zero += bytes.len() as u64;
            }
            Kind::Data => {
                self.disk.write_at(at, bytes).map_err(disk_error("writing", at))?;
                self.counts.written += bytes.len() as u64;
            }
        }
        Ok(())
    }
}

/// What each block between `base` and `stop` needs, as runs of one kind. A block with anything new in it is written.
fn runs(pieces: &[Piece], base: u64, stop: u64) -> Vec<(u64, u64, Kind)> {
    let mut runs: Vec<(u64, u64, Kind)> = Vec::new();
    let mut first = 0;
    let mut at = base;
    while at < stop {
        let end = (at + ALIGN as u64).min(stop);
        while pieces.get(first).is_some_and(|piece| piece.end <= at) {
            first += 1;
        }
        let here = pieces[first..].iter().take_while(|piece| piece.start < end).map(|piece| piece.kind);
        let kind = here.reduce(|a, b| if a == b { a } else { Kind::Data }).unwrap_or(Kind::Data);
        match runs.last_mut() {
            Some((_, open, same)) if *same == kind => *open = end,
            _ => runs.push((at, end, kind)),
        }
        at = end;
    }
    merge_short_zeros(runs)
}

/// Turns short zero runs beside data into data.
fn merge_short_zeros(runs: Vec<(u64, u64, Kind)>) -> Vec<(u64, u64, Kind)> {
    let mut merged: Vec<(u64, u64, Kind)> = Vec::with_capacity(runs.len());
    for (start, end, kind) in runs {
        let short = kind == Kind::Zero && end - start < ZERO_RUN_MIN as u64;
        match merged.last_mut() {
            Some((_, open, Kind::Data)) if kind == Kind::Data || short => *open = end,
            _ => merged.push((start, end, kind)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    //! Pieces of every length end up where they belong, whatever the segments; only what must be written is.
    use super::*;
    use crate::sys::disk::Access;

    fn piece(start: u64, end: u64, kind: Kind) -> Piece {
        Piece { start, end, kind }
    }

    #[test]
    fn blocks_take_what_they_need() {
        let big = 1 << 20;
        let pieces = [
            piece(0, 5000, Kind::Same),
            piece(5000, 9000, Kind::Data),
            piece(9000, big, Kind::Zero),
            piece(big, big + 1, Kind::Data),
        ];
        assert_eq!(
            runs(&pieces, 0, big + 1),
            [(0, 4096, Kind::Same), (4096, 12288, Kind::Data), (12288, big, Kind::Zero), (big, big + 1, Kind::Data)]
        );
        let short = [piece(0, 4096, Kind::Data), piece(4096, 8192, Kind::Zero), piece(8192, 12288, Kind::Data)];
        assert_eq!(runs(&short, 0, 12288), [(0, 12288, Kind::Data)]);
    }

    /// An image of pieces with odd lengths through segments of odd lengths.
    fn write(disk_bytes: &[u8], image: &[u8], pieces: &[Piece], cuts: &[usize], hold: bool) -> (Vec<u8>, Counts) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, disk_bytes).unwrap();
        let disk = Arc::new(Disk::open(&path, Access::Write).unwrap());
        if hold {
            disk.zero(0, HEAD.min(disk.len())).unwrap();
        }
        let mut writer = Writer::new(disk.clone(), image.len() as u64, hold);
        let mut first = 0;
        for &end in cuts.iter().chain([&pieces.len()]) {
            let offset = pieces[first].start;
            let len = (pieces[end - 1].end - offset) as usize;
            let room = (offset - down(offset)) as usize;
            let mut buffer = Aligned::zeroed((room + len).next_multiple_of(ALIGN));
            let from = offset as usize;
            buffer[room..room + len].copy_from_slice(&image[from..from + len]);
            let segment = Segment { first, end, offset, len };
            writer.push(Prepared { segment, buffer, pieces: pieces[first..end].to_vec() }).unwrap();
            first = end;
        }
        let counts = writer.counts;
        if hold {
            let held = std::fs::read(&path).unwrap();
            assert!(held[..HEAD as usize].iter().all(|b| *b == 0), "the head is written last");
        }
        Head(writer.head).commit(&disk).unwrap();
        (std::fs::read(&path).unwrap(), counts)
    }

    #[test]
    fn puts_segments_together() {
        let lengths = [10_000usize, 131_072, 131_072, 77, 131_072, 3, 900_000, 131_072, 131_072, 12_345];
        let kinds = [
            Kind::Data,
            Kind::Zero,
            Kind::Zero,
            Kind::Data,
            Kind::Same,
            Kind::Data,
            Kind::Data,
            Kind::Zero,
            Kind::Same,
            Kind::Data,
        ];
        let (mut image, mut pieces) = (Vec::new(), Vec::new());
        for (n, (len, kind)) in lengths.into_iter().zip(kinds).enumerate() {
            let fill = if kind == Kind::Zero { 0 } else { n as u8 + 1 };
            let start = image.len() as u64;
            image.extend(std::iter::repeat_n(fill, len));
            pieces.push(piece(start, image.len() as u64, kind));
        }
        let mut before = vec![0xee; image.len() + 5000];
        for piece in pieces.iter().filter(|piece| piece.kind == Kind::Same) {
            let range = piece.start as usize..piece.end as usize;
            before[range.clone()].copy_from_slice(&image[range]);
        }
        for cuts in [&[][..], &[1], &[4, 6], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            let (after, counts) = write(&before, &image, &pieces, cuts, false);
            assert!(after[..image.len()] == image[..], "cut at {cuts:?}");
            assert!(after[image.len()..].iter().all(|b| *b == 0xee), "bytes behind the image changed");
            assert_eq!(counts.reused, 2 * 131_072);
            assert!(counts.written < 1_200_000 && counts.zero > 2 * 120_000, "{counts:?}");
        }
        let all_new: Vec<Piece> =
            pieces.iter().map(|p| if p.kind == Kind::Same { piece(p.start, p.end, Kind::Data) } else { *p }).collect();
        let (after, _) = write(&before, &image, &all_new, &[2, 5], true);
        assert!(after[..image.len()] == image[..], "with the head held back");
    }
}
