//! The boot image as one node sees it: the file that every node shares, with the node's own region laid over the
//! reserved one while it is read. The file itself is never changed, and nothing is built per node.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::boot_region::{self, BootRegion, BootRegionError};
use crate::model::{Digest, limit};

/// Why the boot image cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BootMediaError {
    /// The file cannot be read.
    #[error("the boot image {} cannot be read; build it with `cargo xtask image build agent`, or name another with `serve --boot-image FILE`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no reserved region where one must be, or one that is already filled in.
    #[error("{} is not a boot image for this appliance: an empty boot region belongs at byte {}; build one with `cargo xtask image build agent`", path.display(), boot_region::OFFSET)]
    NoRegion {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than virtual media should carry.
    #[error("the boot image {} has {bytes} bytes, and virtual media carries at most {}; take drivers or firmware out of its recipe", path.display(), limit::BOOT_IMAGE_MAX)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The node's region cannot be laid in.
    #[error("the boot region of node {node} cannot be written")]
    Region {
        /// The node.
        node: String,
        /// Why.
        source: BootRegionError,
    },
}

/// An opened boot image. Cheap to clone. It stays the file that was opened even if another is moved to its path.
#[derive(Clone, Debug)]
pub struct BootMedia {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    path: PathBuf,
    bytes: u64,
    digest: Digest,
}

impl BootMedia {
    /// Opens the image and reads it once, to check its region and to know its digest.
    pub fn open(path: &Path) -> Result<Self, BootMediaError> {
        let failed = |source| BootMediaError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes > limit::BOOT_IMAGE_MAX {
            return Err(BootMediaError::TooLarge { path: path.to_owned(), bytes });
        }
        let mut region = [0; boot_region::LENGTH];
        let read = file.read_exact_at(&mut region, boot_region::OFFSET);
        if read.is_err() || !matches!(BootRegion::decode(&region), Err(BootRegionError::Empty)) {
            return Err(BootMediaError::NoRegion { path: path.to_owned() });
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).map_err(failed)?;
        let digest = Digest(*hasher.finalize().as_bytes());
        Ok(Self { inner: Arc::new(Inner { file, path: path.to_owned(), bytes, digest }) })
    }

    /// Length of the image in bytes, with or without a node's region.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.bytes
    }

    /// Where the image was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// BLAKE3 of the image as it lies on disk, before a node's region is laid in.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// The image with `region` laid in.
    ///
    /// Fails when the region's text does not fit.
    pub fn for_node(&self, region: &BootRegion) -> Result<NodeMedia, BootMediaError> {
        let overlay = region.encode().map_err(|source| BootMediaError::Region { node: region.node.clone(), source })?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.inner.digest.as_bytes()).update(&overlay);
        let etag = format!("\"{}\"", hex::encode(&hasher.finalize().as_bytes()[..16]));
        Ok(NodeMedia { inner: Arc::clone(&self.inner), overlay: Arc::new(overlay), etag })
    }
}

/// The boot image of one node. Cheap to clone.
#[derive(Clone)]
pub struct NodeMedia {
    inner: Arc<Inner>,
    overlay: Arc<[u8; boot_region::LENGTH]>,
    etag: String,
}

impl NodeMedia {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.bytes
    }

    /// A strong entity tag, quoted: another image or another region has another tag.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Fills `out` with the bytes from `offset` on. Blocks on the disk.
    ///
    /// Fails when the range passes the end, or when the file was cut short since it was opened.
    pub fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.file.read_exact_at(out, offset)?;
        let region_end = boot_region::OFFSET + boot_region::LENGTH as u64;
        let from = offset.max(boot_region::OFFSET);
        let to = (offset + out.len() as u64).min(region_end);
        if from < to {
            let here = (from - offset) as usize..(to - offset) as usize;
            let there = (from - boot_region::OFFSET) as usize..(to - boot_region::OFFSET) as usize;
            out[here].copy_from_slice(&self.overlay[there]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Every range of the image reads as if the region had been written into the file; files that are no boot image
    //! are refused with the reason.
    use std::io::Write;

    use super::*;

    fn region(node: &str) -> BootRegion {
        BootRegion {
            url: "https://10.99.0.1:9100".into(),
            certificate_pin: "cd".repeat(32),
            token: "t".repeat(43),
            node: node.into(),
        }
    }

    fn image() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let at = boot_region::OFFSET as usize;
        bytes[at..at + boot_region::LENGTH].copy_from_slice(&boot_region::empty());
        bytes
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn every_range_shows_the_region() {
        let plain = image();
        let file = file(&plain);
        let node = BootMedia::open(file.path()).unwrap().for_node(&region("node-1")).unwrap();
        let mut want = plain;
        let at = boot_region::OFFSET as usize;
        want[at..at + boot_region::LENGTH].copy_from_slice(&region("node-1").encode().unwrap());
        let end = at + boot_region::LENGTH;
        let edges = [0, 1, at - 1, at, at + 1, at + 100, end - 1, end, end + 1, want.len() - 1, want.len()];
        for &start in &edges {
            for &stop in edges.iter().filter(|&&stop| stop >= start) {
                let mut got = vec![0; stop - start];
                node.read_at(&mut got, start as u64).unwrap();
                assert!(got == want[start..stop], "bytes {start}..{stop} differ");
            }
        }
        assert!(node.read_at(&mut [0; 2], want.len() as u64 - 1).is_err());
    }

    #[test]
    fn tags_tell_nodes_apart() {
        let file = file(&image());
        let media = BootMedia::open(file.path()).unwrap();
        let tag = |node: &str| media.for_node(&region(node)).unwrap().etag().to_owned();
        assert_eq!(tag("node-1"), tag("node-1"));
        assert_ne!(tag("node-1"), tag("node-2"));
    }

    #[test]
    fn refuses_what_is_no_boot_image() {
        assert!(matches!(BootMedia::open(Path::new("/nowhere/x.iso")), Err(BootMediaError::Io { .. })));
        let short = file(b"short");
        assert!(matches!(BootMedia::open(short.path()), Err(BootMediaError::NoRegion { .. })));
        let blank = file(&vec![0; 100_000]);
        assert!(matches!(BootMedia::open(blank.path()), Err(BootMediaError::NoRegion { .. })));
        let large = file(b"");
        large.as_file().set_len(limit::BOOT_IMAGE_MAX + 1).unwrap();
        assert!(matches!(BootMedia::open(large.path()), Err(BootMediaError::TooLarge { .. })));
        let mut used = image();
        let at = boot_region::OFFSET as usize;
        used[at..at + boot_region::LENGTH].copy_from_slice(&region("node-1").encode().unwrap());
        assert!(matches!(BootMedia::open(file(&used).path()), Err(BootMediaError::NoRegion { .. })));
    }
}
