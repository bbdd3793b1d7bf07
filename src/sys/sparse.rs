//! Holes: a file is read from its beginning to its end without reading them from disk, and zeros need not be written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Largest block that a read answers, in bytes.
pub const BLOCK: usize = 1024 * 1024;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Whether the bytes are all zero, and so could as well be a hole.
#[must_use]
pub fn are_zeros(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(|part| part == &ZEROS[..part.len()])
}

/// A reader of one file, of the length that the file had when the reader was made.
#[derive(Debug)]
pub struct SparseReader {
    file: File,
    bytes: u64,
    at: u64,
    extent: Extent,
}

/// The run of data or hole that `at` is in.
#[derive(Clone, Copy, Debug)]
struct Extent {
    end: u64,
    hole: bool,
}

impl SparseReader {
    /// A reader of `file`; works for block devices too, which have no holes.
    pub fn new(file: File) -> io::Result<Self> {
        let bytes = rustix::fs::seek(&file, SeekFrom::End(0))?;
        Ok(Self { file, bytes, at: 0, extent: Extent { end: 0, hole: false } })
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next block of at most [`BLOCK`] bytes; `None` at the end. Holes are answered as zeros that no one copied.
    ///
    /// Fails when the file was cut short meanwhile.
    pub fn next_block(&mut self) -> io::Result<Option<Bytes>> {
        if self.at == self.bytes {
            return Ok(None);
        }
        if self.at >= self.extent.end {
            self.extent = self.extent_at(self.at)?;
        }
        let length = usize::try_from(self.extent.end - self.at).unwrap_or(BLOCK).min(BLOCK);
        let block = if self.extent.hole {
            Bytes::from_static(&ZEROS[..length])
        } else {
            let mut block = vec![0; length];
            self.file.read_exact_at(&mut block, self.at)?;
            Bytes::from(block)
        };
        self.at += length as u64;
        Ok(Some(block))
    }

    fn extent_at(&self, at: u64) -> io::Result<Extent> {
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data from here to the end.
            Err(Errno::NXIO) => return Ok(Extent { end: self.bytes, hole: true }),
            // A file system, or a device, that does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => return Ok(Extent { end: self.bytes, hole: false }),
            Err(error) => return Err(error.into()),
        };
        if data > at {
            return Ok(Extent { end: data.min(self.bytes), hole: true });
        }
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(at))?;
        Ok(Extent { end: end.min(self.bytes), hole: false })
    }
}

#[cfg(test)]
mod tests {
    //! A sparse file reads as it is, and its holes are not read.
    use super::*;

    fn read(file: File) -> Vec<u8> {
        let mut reader = SparseReader::new(file).unwrap();
        let mut all = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            assert!(!block.is_empty() && block.len() <= BLOCK);
            all.extend_from_slice(&block);
        }
        assert_eq!(all.len() as u64, reader.bytes());
        all
    }

    #[test]
    fn reads_data_and_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(9 * 1024 * 1024 + 77).unwrap();
        file.write_all_at(&[7; 5000], 3 * 1024 * 1024 - 100).unwrap();
        file.write_all_at(&[9; 10], 9 * 1024 * 1024 + 60).unwrap();
        let mut want = vec![0; 9 * 1024 * 1024 + 77];
        want[3 * 1024 * 1024 - 100..][..5000].fill(7);
        want[9 * 1024 * 1024 + 60..][..10].fill(9);
        assert!(read(file) == want);
    }

    #[test]
    fn reads_edges() {
        assert!(read(tempfile::tempfile().unwrap()).is_empty());
        let hole = tempfile::tempfile().unwrap();
        hole.set_len(BLOCK as u64 + 1).unwrap();
        assert!(read(hole).iter().all(|&byte| byte == 0));
    }

    #[test]
    fn notices_a_file_cut_short() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 3 * BLOCK], 0).unwrap();
        let shorter = file.try_clone().unwrap();
        let mut reader = SparseReader::new(file).unwrap();
        reader.next_block().unwrap();
        shorter.set_len(BLOCK as u64 + 5).unwrap();
        assert!(reader.next_block().is_err());
    }
}
