//! Just enough FAT to read one file of the root folder of the seed volume: FAT12, FAT16 and FAT32, long names, read
//! only. Hostile volumes end in `None`, never in a panic or a loop.

use std::io;

/// Largest file that is read; the seed's files have a few hundred bytes.
const FILE_MAX: usize = 1 << 20;
const ENTRY: usize = 32;
const LONG_NAME: u8 = 0x0f;
const VOLUME_LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;

/// Reads `len` bytes at an offset of the volume.
pub trait ReadAt {
    /// Fills the buffer from the offset.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for crate::sys::disk::Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buf)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// A FAT volume.
pub struct Volume<'a, R> {
    source: &'a R,
    width: Width,
    fat: u64,
    root: Root,
    data: u64,
    cluster: u64,
    clusters: u32,
    boot_label: String,
}

enum Root {
    Fixed { offset: u64, len: u64 },
    Chain(u32),
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |b| u64::from(u16::from_le_bytes([b[0], b[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

impl<'a, R: ReadAt> Volume<'a, R> {
    /// Reads the volume's first sector; `None` where it is not a FAT volume.
    pub fn open(source: &'a R) -> Option<Self> {
        let mut boot = [0; 512];
        source.read_at(0, &mut boot).ok()?;
        let (sector, per_cluster) = (u16_at(&boot, 11), u64::from(boot[13]));
        let (reserved, fats, root_entries) = (u16_at(&boot, 14), u64::from(boot[16]), u16_at(&boot, 17));
        let sectors = if u16_at(&boot, 19) == 0 { u32_at(&boot, 32) } else { u16_at(&boot, 19) };
        let is_32 = u16_at(&boot, 22) == 0;
        let fat_sectors = if is_32 { u32_at(&boot, 36) } else { u16_at(&boot, 22) };
        let sane = boot[510..] == [0x55, 0xaa]
            && [512, 1024, 2048, 4096].contains(&sector)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=2).contains(&fats)
            && fat_sectors > 0;
        if !sane {
            return None;
        }
        let root_start = reserved + fats * fat_sectors;
        let root_sectors = (root_entries * ENTRY as u64).div_ceil(sector);
        let data_start = root_start + root_sectors;
        let clusters = u32::try_from(sectors.checked_sub(data_start)? / per_cluster).ok()?;
        let width = match clusters {
            _ if is_32 => Width::Fat32,
            0..4085 => Width::Fat12,
            _ => Width::Fat16,
        };
        let root = if is_32 {
            Root::Chain(u32::try_from(u32_at(&boot, 44)).ok()?)
        } else {
            Root::Fixed { offset: root_start * sector, len: root_sectors * sector }
        };
        let boot_label = text(&boot[if is_32 { 71..82 } else { 43..54 }]);
        let (fat, data) = (reserved * sector, data_start * sector);
        Some(Self { source, width, fat, root, data, cluster: per_cluster * sector, clusters, boot_label })
    }

    /// The volume's label: the root folder's entry, or the first sector's where there is none.
    #[must_use]
    pub fn label(&self) -> String {
        let root = self.root().unwrap_or_default();
        let entries = root.chunks_exact(ENTRY).take_while(|entry| entry[0] != 0);
        let is_label = |entry: &&[u8]| entry[11] & 0x3f == VOLUME_LABEL && entry[0] != 0xe5;
        entries.into_iter().find(is_label).map_or_else(|| self.boot_label.clone(), |entry| text(&entry[..11]))
    }

    /// The contents of a file of the root folder, by its name, whose case does not matter.
    #[must_use]
    pub fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        let root = self.root()?;
        let mut long = String::new();
        for entry in root.chunks_exact(ENTRY).take_while(|entry| entry[0] != 0) {
            if entry[11] == LONG_NAME {
                // Parts come last first; the one that ends the name begins a new one.
                let part = long_part(entry);
                long = if entry[0] & 0x40 == 0 { part + &long } else { part };
                continue;
            }
            let found = std::mem::take(&mut long);
            let is_file = entry[0] != 0xe5 && entry[11] & (VOLUME_LABEL | FOLDER) == 0;
            if is_file && (found.eq_ignore_ascii_case(name) || short_name(entry).eq_ignore_ascii_case(name)) {
                let first = u32::try_from(u16_at(entry, 26) | u16_at(entry, 20) << 16).ok()?;
                let len = usize::try_from(u32_at(entry, 28)).ok().filter(|len| *len <= FILE_MAX)?;
                let mut bytes = if len == 0 { Vec::new() } else { self.chain(first, len)? };
                bytes.truncate(len);
                return Some(bytes).filter(|bytes| bytes.len() == len);
            }
        }
        None
    }

    fn root(&self) -> Option<Vec<u8>> {
        match self.root {
            Root::Fixed { offset, len } => {
                let mut bytes = vec![0; usize::try_from(len).ok().filter(|len| *len <= FILE_MAX * 2)?];
                self.source.read_at(offset, &mut bytes).ok()?;
                Some(bytes)
            }
            Root::Chain(first) => self.chain(first, FILE_MAX),
        }
    }

    /// The clusters from `first` on, until the chain ends or `limit` bytes are there.
    fn chain(&self, first: u32, limit: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = first;
        while bytes.len() < limit {
            if at < 2 || at - 2 >= self.clusters {
                return None;
            }
            let mut cluster = vec![0; usize::try_from(self.cluster).ok()?];
            self.source.read_at(self.data + u64::from(at - 2) * self.cluster, &mut cluster).ok()?;
            bytes.extend_from_slice(&cluster);
            match self.next(at)? {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(bytes)
    }

    /// The cluster after this one; `Some(None)` at the end of the chain.
    fn next(&self, at: u32) -> Option<Option<u32>> {
        let mut raw = [0; 4];
        let at64 = u64::from(at);
        let (next, end) = match self.width {
            Width::Fat12 => {
                self.source.read_at(self.fat + at64 * 3 / 2, &mut raw[..2]).ok()?;
                let pair = u32::from(u16::from_le_bytes([raw[0], raw[1]]));
                (if at.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }, 0xff8)
            }
            Width::Fat16 => {
                self.source.read_at(self.fat + at64 * 2, &mut raw[..2]).ok()?;
                (u32::from(u16::from_le_bytes([raw[0], raw[1]])), 0xfff8)
            }
            Width::Fat32 => {
                self.source.read_at(self.fat + at64 * 4, &mut raw).ok()?;
                (u32::from_le_bytes(raw) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Some((next < end).then_some(next))
    }
}

/// The part of a long name that one entry holds.
fn long_part(entry: &[u8]) -> String {
    let unit = |at: usize| u16_at(entry, at) as u16;
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
    let units: Vec<u16> = places.map(unit).take_while(|unit| *unit != 0 && *unit != 0xffff).collect();
    String::from_utf16_lossy(&units)
}

fn short_name(entry: &[u8]) -> String {
    let (base, extension) = (text(&entry[..8]), text(&entry[8..11]));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

#[cfg(test)]
mod tests {
    //! Volumes made by mkfs.vfat and filled by mtools read back in every width, and damaged ones do not hang.
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::sys::disk::{Access, Disk};

    /// A volume of this width; `None`, aloud, where the tools are not installed.
    fn volume(folder: &Path, bits: &str, kib: &str, text: &[u8]) -> Option<std::path::PathBuf> {
        let path = folder.join(format!("fat{bits}.img"));
        let source = folder.join("source");
        std::fs::write(&source, text).unwrap();
        let made = Command::new("mkfs.vfat").args(["-F", bits, "-n", "CIDATA", "-C"]).arg(&path).arg(kib).output();
        let copied = Command::new("mcopy").arg("-i").arg(&path).arg(&source).arg("::bedplate.json").output();
        match (made, copied) {
            (Ok(made), Ok(copied)) => {
                assert!(made.status.success() && copied.status.success(), "{made:?} {copied:?}");
                let short = Command::new("mcopy").arg("-i").arg(&path).arg(&source).arg("::META.TXT").output().unwrap();
                assert!(short.status.success());
                Some(path)
            }
            _ => {
                eprintln!("SKIPPED: mkfs.vfat or mcopy is not installed (apt-get install dosfstools mtools)");
                None
            }
        }
    }

    #[test]
    fn reads_every_width() {
        let folder = tempfile::tempdir().unwrap();
        let text = b"{\"url\": \"https://10.99.0.1:9100\"} ".repeat(200);
        for (bits, kib) in [("12", "1024"), ("16", "16384"), ("32", "65536")] {
            let Some(path) = volume(folder.path(), bits, kib, &text) else { return };
            let disk = Disk::open(&path, Access::Read).unwrap();
            let volume = Volume::open(&disk).unwrap();
            assert_eq!(volume.label(), "CIDATA", "FAT{bits}");
            assert_eq!(volume.read_file("bedplate.json").as_deref(), Some(&text[..]), "FAT{bits}");
            assert_eq!(volume.read_file("meta.txt").as_deref(), Some(&text[..]), "FAT{bits}");
            assert_eq!(volume.read_file("absent"), None);
        }
    }

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let part = self.0.get(start..start.saturating_add(buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
            buf.copy_from_slice(part);
            Ok(())
        }
    }

    #[test]
    fn survives_damage() {
        let folder = tempfile::tempdir().unwrap();
        let Some(path) = volume(folder.path(), "12", "1024", &[b'x'; 9000]) else { return };
        let good = std::fs::read(path).unwrap();
        for at in (0..512).chain((512..12_000).step_by(7)) {
            for value in [0, 0xff, good[at] ^ 0x10] {
                let mut bad = Bytes(good.clone());
                bad.0[at] = value;
                if let Some(volume) = Volume::open(&bad) {
                    drop((volume.label(), volume.read_file("bedplate.json")));
                }
            }
        }
        assert!(Volume::open(&Bytes(vec![0; 100])).is_none());
    }
}
