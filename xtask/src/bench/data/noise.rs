//! Random bytes.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Result;

use super::numbers::Numbers;

/// Writes `bytes` bytes to `file`.
pub fn write(file: &Path, bytes: u64) -> Result<()> {
    let mut numbers = Numbers::new(0x5eed);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    for _ in 0..bytes / 8 {
        out.write_all(&numbers.next().to_le_bytes())?;
    }
    Ok(out.flush()?)
}
