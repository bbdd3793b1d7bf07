//! Each stage of the engine alone on one thread, and beside it the limit: the same bytes through the bare primitive, in
//! pieces as large as it likes best.

use std::collections::HashSet;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::Path;

use bedplate::format::codec::{Decoder, Encoder};
use bedplate::format::cut::Cutter;
use bedplate::format::digest::chunk_digest;
use bytes::Bytes;
use md5::Digest as _;

use crate::{Error, meter};

/// The piece in which the primitives get their bytes.
const PIECE: usize = 1 << 20;
/// Most bytes that are held at once; of larger sets the first so many are measured.
const BYTES_MAX: usize = 2 << 30;

/// Chunks that are given to the encoder at once, about 4 MiB.
const RUN: usize = 64;

/// Measures every stage over the files.
pub(crate) fn run(scratch: &Path, files: &[&str]) -> Result<(), Error> {
    read(files)?;
    let data = load(files)?;
    let total = data.iter().map(|file| file.len() as u64).sum();
    whole(&data, total)?;
    let chunks = chunks(&data);
    meter::measure("digest", total, || {
        for chunk in chunks_of_all(&data) {
            black_box(chunk_digest(&chunk));
        }
        Ok(())
    })?;
    coding(&chunks, scratch)
}

/// Reads the files as the engine does, in pieces, from the page cache.
fn read(files: &[&str]) -> Result<(), Error> {
    let mut piece = vec![0; PIECE];
    let mut once = || -> Result<u64, Error> {
        let mut total = 0;
        for file in files {
            let mut file = File::open(file)?;
            loop {
                match file.read(&mut piece)? {
                    0 => break,
                    length => total += length as u64,
                }
            }
        }
        Ok(total)
    };
    let total = once()?;
    meter::measure("read", total, || once().map(drop))
}

fn load(files: &[&str]) -> Result<Vec<Bytes>, Error> {
    let mut data = Vec::new();
    let mut room = BYTES_MAX as u64;
    for file in files {
        let mut bytes = Vec::new();
        File::open(file)?.take(room).read_to_end(&mut bytes)?;
        room -= bytes.len() as u64;
        data.push(Bytes::from(bytes));
    }
    Ok(data)
}

/// What looks at every byte, known or not.
fn whole(data: &[Bytes], total: u64) -> Result<(), Error> {
    let pieces = || data.iter().flat_map(|file| file.chunks(PIECE));
    let mut target = vec![0; 64 * PIECE];
    meter::measure("copy", total, || {
        for (piece, room) in pieces().zip((0..64).cycle()) {
            target[room * PIECE..][..piece.len()].copy_from_slice(piece);
        }
        black_box(&target);
        Ok(())
    })?;
    meter::measure("gear", total, || {
        // A mask of all bits is met by one byte in 2^64: the hash runs and never stops.
        let mut hasher = gearhash::Hasher::default();
        for piece in pieces() {
            black_box(hasher.next_match(piece, u64::MAX));
        }
        Ok(())
    })?;
    meter::measure("cut", total, || {
        for file in data {
            black_box(cuts(file).count());
        }
        Ok(())
    })?;
    meter::measure("blake3", total, || {
        for piece in pieces() {
            black_box(blake3::hash(piece));
        }
        Ok(())
    })?;
    meter::measure("md5", total, || {
        for piece in pieces() {
            black_box(md5::Md5::digest(piece));
        }
        Ok(())
    })
}

/// What only distinct chunks go through.
fn coding(chunks: &[Bytes], scratch: &Path) -> Result<(), Error> {
    let unique: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let joined: Vec<u8> = chunks.iter().flatten().copied().collect();
    let mut zstd = zstd::bulk::Compressor::new(1)?;
    let mut room = Vec::with_capacity(zstd::zstd_safe::compress_bound(PIECE));
    meter::measure("zstd", unique, || {
        for piece in joined.chunks(PIECE) {
            zstd.compress_to_buffer(piece, &mut room)?;
        }
        Ok(())
    })?;
    let mut frames = Vec::new();
    for piece in joined.chunks(PIECE) {
        frames.push(zstd.compress(piece)?);
    }
    drop(joined);
    let mut decoder = zstd::bulk::Decompressor::new()?;
    let mut plain = Vec::with_capacity(PIECE);
    meter::measure("zstd decode", unique, || {
        for frame in &frames {
            decoder.decompress_to_buffer(frame, &mut plain)?;
        }
        Ok(())
    })?;

    let mut encoder = Encoder::new();
    meter::measure("encode", unique, || {
        for run in chunks.chunks(RUN) {
            black_box(encoder.encode(run));
        }
        Ok(())
    })?;
    let mut stored = Vec::new();
    for run in chunks.chunks(RUN) {
        let mut lengths = run.iter().map(Bytes::len);
        for frame in encoder.encode(run) {
            let length = lengths.next().ok_or("a frame of no chunk")?;
            lengths.by_ref().take(frame.chunks - 1).for_each(drop);
            stored.push((frame, length));
        }
    }
    let mut decoder = Decoder::new();
    meter::measure("decode", unique, || {
        for (frame, length) in &stored {
            black_box(decoder.decode(frame.codec, &frame.stored, *length)?);
        }
        Ok(())
    })?;
    write(&stored.into_iter().map(|(frame, _)| frame.stored).collect::<Vec<_>>(), scratch)
}

/// Writes what is to be stored into one file and waits until the disk has it.
fn write(stored: &[Bytes], scratch: &Path) -> Result<(), Error> {
    let path = scratch.join("bench-write");
    let bytes = stored.iter().map(|bytes| bytes.len() as u64).sum();
    let outcome = meter::measure("write", bytes, || {
        let mut file = std::io::BufWriter::with_capacity(PIECE, File::create(&path)?);
        for bytes in stored {
            file.write_all(bytes)?;
        }
        file.flush()?;
        file.get_ref().sync_data()?;
        Ok(())
    });
    std::fs::remove_file(&path)?;
    outcome
}

/// Ends of the chunks of one file.
fn cuts(file: &Bytes) -> impl Iterator<Item = usize> {
    let mut cutter = Cutter::new();
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == file.len() {
            return None;
        }
        at = cutter.next_cut(&file[at..]).map_or(file.len(), |length| at + length);
        Some(at)
    })
}

fn chunks_of_all(data: &[Bytes]) -> impl Iterator<Item = Bytes> {
    data.iter().flat_map(|file| {
        let mut from = 0;
        cuts(file).map(move |to| file.slice(std::mem::replace(&mut from, to)..to))
    })
}

/// The distinct chunks, in the order in which they first appear.
fn chunks(data: &[Bytes]) -> Vec<Bytes> {
    let mut seen = HashSet::new();
    chunks_of_all(data).filter(|chunk| seen.insert(chunk_digest(chunk))).collect()
}
