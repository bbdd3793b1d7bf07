//! A disk (or a file in its place) as the agent reads and writes it: past the page cache where it can be, in aligned
//! blocks, claimed so that nothing else holds it meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags};

/// Everything that is written goes out in multiples of this many bytes, a page and the largest sector in use.
pub const ALIGN: usize = 4096;

/// Bytes in memory that begin on an [`ALIGN`] boundary, as `O_DIRECT` needs them.
pub struct Aligned {
    data: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let data = vec![0; len + ALIGN];
        let start = data.as_ptr().align_offset(ALIGN);
        Self { data, start, len }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.start + self.len]
    }
}

/// How a disk is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To look at; others may use it.
    Read,
    /// To write; refused with `ResourceBusy` where the disk or a partition of it is mounted or otherwise claimed.
    Write,
}

/// An open disk or file.
pub struct Disk {
    path: PathBuf,
    plain: File,
    direct: Option<File>,
    len: u64,
    sector: u32,
    is_block: bool,
}

impl Disk {
    /// Opens a block device or a regular file.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        let is_block = std::fs::metadata(path)?.file_type().is_block_device();
        let writes = access == Access::Write;
        let claim = if writes && is_block { OFlags::EXCL } else { OFlags::empty() };
        let open = |flags: OFlags| {
            let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
            OpenOptions::new().read(true).write(writes).custom_flags(flags).open(path)
        };
        let mut plain = open(claim)?;
        // The claim belongs to the first handle: asking for it twice would refuse ourselves.
        let direct = open(OFlags::DIRECT).ok();
        let len = plain.seek(SeekFrom::End(0))?;
        let sector = if is_block { rustix::fs::ioctl_blksszget(&plain)? } else { 512 };
        Ok(Self { path: path.to_owned(), plain, direct, len, sector, is_block })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no byte at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its logical sector in bytes; 512 for a file.
    #[must_use]
    pub fn sector(&self) -> u32 {
        self.sector
    }

    /// Whether it is a block device, not a file.
    #[must_use]
    pub fn is_block(&self) -> bool {
        self.is_block
    }

    /// Makes a regular file `len` bytes long; a block device only has to be long enough.
    pub fn set_len(&mut self, len: u64) -> io::Result<()> {
        if !self.is_block {
            self.plain.set_len(len)?;
            self.len = len;
        }
        Ok(())
    }

    /// Reads exactly `buf.len()` bytes from `offset`, past the page cache where the range and the file allow it.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if let Some(direct) = self.direct_for(offset, buf) {
            match direct.read_exact_at(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                done => return done,
            }
        }
        self.plain.read_exact_at(buf, offset)
    }

    /// Writes all of `buf` at `offset`, past the page cache where the range and the file allow it.
    pub fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if let Some(direct) = self.direct_for(offset, buf) {
            match direct.write_all_at(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                done => return done,
            }
        }
        self.plain.write_all_at(buf, offset)
    }

    /// Makes `offset..offset + len` read as zeros, by the disk's own command where it has one.
    pub fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let aligned = offset.is_multiple_of(u64::from(self.sector)) && len.is_multiple_of(u64::from(self.sector));
        let done = if self.is_block && aligned {
            zero_out(&self.plain, offset, len)
        } else if self.is_block {
            Err(io::ErrorKind::Unsupported.into())
        } else {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.plain, mode, offset, len).map_err(io::Error::from)
        };
        done.or_else(|_| self.write_zeros(offset, len))
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = Aligned::zeroed(usize::try_from(len.min(1 << 20)).unwrap_or(1 << 20));
        let mut at = offset;
        while at < offset + len {
            let step = (offset + len - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..usize::try_from(step).unwrap_or(zeros.len())])?;
            at += step;
        }
        Ok(())
    }

    /// Returns once everything written is on stable storage.
    pub fn sync(&self) -> io::Result<()> {
        self.plain.sync_all()
    }

    /// Asks the kernel to read the partition table again; a disk in use keeps the old one.
    pub fn reread_partitions(&self) -> io::Result<()> {
        if !self.is_block {
            return Ok(());
        }
        reread_partitions(&self.plain)
    }

    /// The disk as a seekable stream, for code that reads and writes a few sectors (partition tables).
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { disk: self, at: 0 }
    }

    fn direct_for(&self, offset: u64, buf: &[u8]) -> Option<&File> {
        let step = ALIGN.max(self.sector as usize);
        let fits = offset.is_multiple_of(step as u64)
            && buf.len().is_multiple_of(step)
            && buf.as_ptr().align_offset(ALIGN) == 0
            && !buf.is_empty();
        self.direct.as_ref().filter(|_| fits)
    }
}

/// A position on a [`Disk`]; made by [`Disk::cursor`].
pub struct Cursor<'a> {
    disk: &'a Disk,
    at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.disk.plain.read_at(buf, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Cursor<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.disk.plain.write_at(buf, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.disk.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

const BLKZEROOUT: u32 = 0x127f;
const BLKRRPART: u32 = 0x125f;

#[expect(unsafe_code, reason = "rustix has no safe wrapper for this ioctl")]
fn zero_out(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT reads two u64 (offset, length) through its pointer, which is what the setter passes, and
    // writes nothing back.
    let request = unsafe { rustix::ioctl::Setter::<BLKZEROOUT, [u64; 2]>::new([offset, len]) };
    // SAFETY: the descriptor is open for as long as the call, and the request is the one that the opcode names.
    Ok(unsafe { rustix::ioctl::ioctl(file, request) }?)
}

#[expect(unsafe_code, reason = "rustix has no safe wrapper for this ioctl")]
fn reread_partitions(file: &File) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument.
    let request = unsafe { rustix::ioctl::NoArg::<BLKRRPART>::new() };
    // SAFETY: the descriptor is open for as long as the call, and the request is the one that the opcode names.
    Ok(unsafe { rustix::ioctl::ioctl(file, request) }?)
}

#[cfg(test)]
mod tests {
    //! A file stands in for a disk: what is written reads back, aligned or not, and a zeroed range reads as zeros.
    use super::*;

    #[test]
    fn writes_reads_and_zeroes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![7u8; 3 * ALIGN + 100]).unwrap();
        let disk = Disk::open(&path, Access::Write).unwrap();
        assert_eq!((disk.len(), disk.is_block()), (3 * ALIGN as u64 + 100, false));
        let mut block = Aligned::zeroed(ALIGN);
        block.fill(9);
        disk.write_at(ALIGN as u64, &block).unwrap();
        disk.write_at(5, b"odd").unwrap();
        disk.zero(2 * ALIGN as u64, ALIGN as u64 + 50).unwrap();
        disk.sync().unwrap();
        let mut back = Aligned::zeroed(2 * ALIGN);
        disk.read_at(0, &mut back).unwrap();
        assert_eq!(&back[4..9], b"\x07odd\x07");
        assert!(back[ALIGN..].iter().all(|b| *b == 9));
        let whole = std::fs::read(&path).unwrap();
        assert!(whole[2 * ALIGN..3 * ALIGN + 50].iter().all(|b| *b == 0));
        assert!(whole[3 * ALIGN + 50..].iter().all(|b| *b == 7));
    }
}
