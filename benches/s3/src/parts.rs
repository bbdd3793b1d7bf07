//! What no server can leave out when it stores bytes as this store does, each step alone, on one thread, in pieces as large
//! as it likes best.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;

use md5::Digest as _;

use crate::words::Words;
use crate::{Error, meter};

/// The piece in which the steps get their bytes.
const PIECE: usize = 1 << 20;

/// Measures the steps over the bytes of `source=`, writing below `dir=`.
pub fn run(words: &Words) -> Result<(), Error> {
    let data = std::fs::read(words.text("source")?)?;
    let total = data.len() as u64;
    let mut all = md5::Md5::new();
    meter::measure("md5", total, || {
        data.chunks(PIECE).for_each(|piece| all.update(piece));
        Ok(())
    })?;
    black_box(all.finalize());
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    meter::measure("crc", total, || {
        data.chunks(PIECE).for_each(|piece| crc.update(piece));
        Ok(())
    })?;
    black_box(crc.finalize());
    meter::measure("gear", total, || {
        // A mask of all bits is met by one byte in 2^64: the hash runs and never stops.
        let mut hasher = gearhash::Hasher::default();
        for piece in data.chunks(PIECE) {
            black_box(hasher.next_match(piece, u64::MAX));
        }
        Ok(())
    })?;
    meter::measure("blake3", total, || {
        for piece in data.chunks(PIECE) {
            black_box(blake3::hash(piece));
        }
        Ok(())
    })?;
    let mut zstd = zstd::bulk::Compressor::new(1)?;
    let mut room = Vec::with_capacity(zstd::zstd_safe::compress_bound(PIECE));
    meter::measure("zstd", total, || {
        for piece in data.chunks(PIECE) {
            zstd.compress_to_buffer(piece, &mut room)?;
        }
        Ok(())
    })?;
    let mut frames = Vec::new();
    for piece in data.chunks(PIECE) {
        frames.push(zstd.compress(piece)?);
    }
    let mut decoder = zstd::bulk::Decompressor::new()?;
    let mut plain = Vec::with_capacity(PIECE);
    meter::measure("decode", total, || {
        for frame in &frames {
            decoder.decompress_to_buffer(frame, &mut plain)?;
        }
        Ok(())
    })?;
    write(&frames, total, &Path::new(words.text("dir")?).join("parts-write"))
}

/// Writes what is stored of these bytes into one file and waits until the disk has it.
fn write(frames: &[Vec<u8>], total: u64, path: &Path) -> Result<(), Error> {
    let outcome = meter::measure("write", total, || {
        let mut file = File::create(path)?;
        for frame in frames {
            file.write_all(frame)?;
        }
        Ok(file.sync_data()?)
    });
    std::fs::remove_file(path)?;
    outcome
}
