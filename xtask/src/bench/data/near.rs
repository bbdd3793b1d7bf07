//! A near-copy: the same bytes, but in about one of a hundred spots of 64 KiB some bytes are replaced or inserted.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::Result;

use super::numbers::Numbers;

/// Bytes of a spot.
const SPOT: usize = 64 << 10;
/// One spot in so many is changed.
const EVERY: u64 = 100;

/// Writes a near-copy of each file of `from` below `to`. A file shorter than one spot is changed where the dice say so.
pub fn copy(from: &Path, to: &Path, seed: u64) -> Result<()> {
    let mut numbers = Numbers::new(seed);
    let mut block = vec![0; SPOT];
    for file in super::files(from)? {
        let target = to.join(file.strip_prefix(from)?);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut input = File::open(&file)?;
        let mut output = BufWriter::with_capacity(1 << 20, File::create(target)?);
        loop {
            let mut length = 0;
            while length < SPOT {
                match input.read(&mut block[length..])? {
                    0 => break,
                    more => length += more,
                }
            }
            if length == 0 {
                break;
            }
            if numbers.below(EVERY) == 0 {
                change(&mut numbers, &mut block[..length], &mut output)?;
            } else {
                output.write_all(&block[..length])?;
            }
        }
        output.flush()?;
    }
    Ok(())
}

/// Half of the changes replace 16 to 255 bytes, the others insert 1 to 64.
fn change(numbers: &mut Numbers, block: &mut [u8], output: &mut impl std::io::Write) -> Result<()> {
    let at = numbers.below(block.len() as u64) as usize;
    if numbers.below(2) == 0 {
        let length = 16 + numbers.below(240) as usize;
        for byte in block[at..].iter_mut().take(length) {
            *byte = numbers.next() as u8;
        }
        output.write_all(block)?;
    } else {
        output.write_all(&block[..at])?;
        for _ in 0..=numbers.below(64) {
            output.write_all(&[numbers.next() as u8])?;
        }
        output.write_all(&block[at..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! The copy is as long as the original and a little more, and differs from it in about one spot of a hundred.
    use super::*;

    #[test]
    fn changes_one_spot_in_a_hundred() {
        let folder = std::env::temp_dir().join(format!("bedplate-bench-near-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("from/deep")).unwrap();
        let mut numbers = Numbers::new(7);
        let bytes: Vec<u8> = std::iter::repeat_with(|| numbers.next().to_le_bytes()).flatten().take(32 << 20).collect();
        std::fs::write(folder.join("from/deep/a.bin"), &bytes).unwrap();
        copy(&folder.join("from"), &folder.join("to"), 1).unwrap();
        let near = std::fs::read(folder.join("to/deep/a.bin")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(near.len() > bytes.len() && near.len() < bytes.len() + 64 * 10, "{} bytes", near.len());
        // A spot that stands in the copy stands where it stood, or a little later.
        let starts = (0..bytes.len()).step_by(SPOT);
        let same = starts.filter(|at| find(&near[*at..near.len().min(at + 64 * 11)], &bytes[*at..at + 64])).count();
        assert!(same >= 500, "{same} of 512 spots begin as before");
    }

    fn find(text: &[u8], wanted: &[u8]) -> bool {
        text.windows(wanted.len()).any(|window| window == wanted)
    }
}
