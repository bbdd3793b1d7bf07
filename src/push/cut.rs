//! A file as chunks: the cuts and digests that the store would make of it.

use std::fs::File;
use std::io::{self, Read};

use bytes::{Bytes, BytesMut};

use crate::format::cut::Cutter;
use crate::format::digest::{RootDigest, chunk_digest};
use crate::model::Digest;

/// Bytes that are read at once.
const BLOCK: usize = 1024 * 1024;

/// Cuts what it reads. Blocks.
pub(super) struct Cutting<R> {
    input: R,
    cutter: Cutter,
    /// Bytes after the last cut.
    open: BytesMut,
    /// How many of them the cutter has seen.
    seen: usize,
    ended: bool,
}

/// Chunks that follow each other.
pub(super) struct Stretch {
    pub(super) chunks: Vec<Bytes>,
    pub(super) bytes: u64,
    /// Whether nothing follows.
    pub(super) last: bool,
}

impl<R: Read> Cutting<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, cutter: Cutter::new(), open: BytesMut::new(), seen: 0, ended: false }
    }

    /// The next chunks, of `target` bytes or up to a block more; fewer only at the end.
    pub(super) fn next(&mut self, target: u64) -> io::Result<Stretch> {
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        while bytes < target && !self.ended {
            self.read()?;
            while self.seen < self.open.len() {
                let Some(step) = self.cutter.next_cut(&self.open[self.seen..]) else {
                    self.seen = self.open.len();
                    break;
                };
                let chunk = self.open.split_to(self.seen + step).freeze();
                self.seen = 0;
                bytes += chunk.len() as u64;
                chunks.push(chunk);
            }
        }
        if self.ended && !self.open.is_empty() {
            let chunk = std::mem::take(&mut self.open).freeze();
            bytes += chunk.len() as u64;
            chunks.push(chunk);
        }
        Ok(Stretch { chunks, bytes, last: self.ended })
    }

    /// Reads a block, or what there is before the end.
    fn read(&mut self) -> io::Result<()> {
        let mut filled = self.open.len();
        let full = filled + BLOCK;
        self.open.resize(full, 0);
        while filled < full {
            match self.input.read(&mut self.open[filled..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.open.truncate(filled);
        Ok(())
    }
}

/// The root digest of a file. Blocks.
pub fn root_digest(file: File) -> io::Result<Digest> {
    let (mut cutting, mut root) = (Cutting::new(file), RootDigest::new());
    loop {
        let stretch = cutting.next(BLOCK as u64)?;
        for chunk in &stretch.chunks {
            root.push(chunk_digest(chunk), chunk.len() as u64);
        }
        if stretch.last {
            return Ok(root.finish());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Stretches of any length are the chunks of the whole, whose root digest is the oracle's (see `format::cut`).
    use super::*;

    pub(in crate::push) fn noise(len: usize) -> Vec<u8> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn stretches_are_the_chunks_of_the_whole() {
        let data = noise(5_000_000);
        let whole = Cutting::new(&data[..]).next(u64::MAX).unwrap();
        assert!(whole.last && whole.chunks.concat() == data && whole.chunks.len() > 40);
        for target in [1, 100_000, 3_000_000] {
            let (mut cutting, mut chunks) = (Cutting::new(&data[..]), Vec::new());
            loop {
                let mut stretch = cutting.next(target).unwrap();
                assert!(stretch.last || stretch.bytes >= target);
                chunks.append(&mut stretch.chunks);
                if stretch.last {
                    break;
                }
            }
            assert!(chunks == whole.chunks, "{target}");
        }
    }

    #[test]
    fn nothing_has_no_chunks() {
        let nothing = Cutting::new(&b""[..]).next(1).unwrap();
        assert!(nothing.last && nothing.chunks.is_empty());
    }
}
