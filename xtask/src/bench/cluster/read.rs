//! How a training job reads: a file from its start to its end, spots of a large file, many small files in shuffled order.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bench::data::numbers::Numbers;

/// Bytes that one call reads of a file from its start to its end.
const BLOCK: usize = 1 << 20;

/// What was read, and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Bytes, of all readers.
    pub bytes: u64,
    /// Calls or files, of all readers.
    pub count: u64,
    /// Seconds from the first byte to the last.
    pub seconds: f64,
}

impl Done {
    /// MB/s.
    pub fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// Calls or files a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

/// Reads a file of this length from its start to its end.
pub fn whole(path: &Path, length: u64) -> Result<Done> {
    let began = Instant::now();
    let bytes = drain(path)?;
    ensure!(bytes == length, "{} gave {bytes} of {length} bytes", path.display());
    Ok(Done { bytes, count: 1, seconds: began.elapsed().as_secs_f64() })
}

fn drain(path: &Path) -> Result<u64> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        match file.read(&mut block).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(bytes),
            more => bytes += more as u64,
        }
    }
}

/// Reads blocks of `block` bytes at places that the seed tells, with so many readers, each with its own handle, for as long as
/// this.
pub fn spots(path: &Path, length: u64, block: u64, readers: u64, time: Duration, seed: u64) -> Result<Done> {
    let began = Instant::now();
    let count = AtomicU64::new(0);
    let read = |reader: u64| -> Result<()> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut numbers = Numbers::new(seed * 1_000 + reader);
        let mut bytes = vec![0; block as usize];
        while began.elapsed() < time {
            let at = numbers.below(length / block) * block;
            file.read_exact_at(&mut bytes, at).with_context(|| format!("cannot read {} at {at}", path.display()))?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    at_once(readers, read)?;
    let count = count.into_inner();
    Ok(Done { bytes: count * block, count, seconds: began.elapsed().as_secs_f64() })
}

/// Opens and reads all files, in an order that the seed tells, with so many readers.
pub fn shuffled(folder: &Path, names: &[PathBuf], readers: u64, seed: u64) -> Result<Done> {
    let mut order: Vec<&PathBuf> = names.iter().collect();
    let mut numbers = Numbers::new(seed);
    for at in (1..order.len()).rev() {
        order.swap(at, numbers.below(at as u64 + 1) as usize);
    }
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let began = Instant::now();
    at_once(readers, |_| {
        while let Some(name) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            bytes.fetch_add(drain(&folder.join(name))?, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(Done { bytes: bytes.into_inner(), count: names.len() as u64, seconds: began.elapsed().as_secs_f64() })
}

/// Does it so many times at once, and fails where any of them does.
pub fn at_once(readers: u64, read: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let read = &read;
        let threads: Vec<_> = (0..readers).map(|reader| scope.spawn(move || read(reader))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a reader does not panic"))
    })
}

#[cfg(test)]
mod tests {
    //! Every byte is read once, every file once; a file that is too short fails the run.
    use super::*;

    #[test]
    fn reads_everything() {
        let folder = std::env::temp_dir().join(format!("bedplate-bench-read-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let names: Vec<PathBuf> = (0..20).map(|number| PathBuf::from(format!("{number}"))).collect();
        for (number, name) in names.iter().enumerate() {
            std::fs::write(folder.join(name), vec![1; number]).unwrap();
        }
        let done = shuffled(&folder, &names, 3, 1).unwrap();
        assert_eq!((done.count, done.bytes), (20, 190));
        assert_eq!(whole(&folder.join("7"), 7).unwrap().bytes, 7);
        assert!(whole(&folder.join("7"), 8).is_err());
        let spots = spots(&folder.join("8"), 8, 2, 2, Duration::from_millis(20), 1).unwrap();
        assert!(spots.count > 0 && spots.bytes == spots.count * 2);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
