//! Durable small files as a file system allows them: into a new file, fsync, rename, fsync of the folder.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::words::Words;
use crate::{Error, meter};

/// Writes files of `size=` bytes in `dir=` with `threads=` threads for `seconds=`, and prints how many.
pub fn run(words: &Words) -> Result<(), Error> {
    let dir = Path::new(words.text("dir")?);
    let (threads, size) = (words.number("threads", 64u64)?, words.number("size", 4096usize)?);
    let deadline = Instant::now() + Duration::from_secs_f64(words.number("seconds", 3.0)?);
    let began = Instant::now();
    let (mut files, mut cpu) = (0u64, 0.0);
    std::thread::scope(|scope| -> Result<(), Error> {
        let start = |thread| scope.spawn(move || write(dir, thread, size, deadline));
        let writers: Vec<_> = (0..threads).map(start).collect();
        for writer in writers {
            let (count, time) = writer.join().map_err(|_| "a writer came to grief")??;
            files += count;
            cpu += time;
        }
        Ok(())
    })?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{{\"requests\":{files},\"bytes\":{},\"seconds\":{seconds},\"cpu\":{cpu},\"p50\":0,\"p99\":0}}",
        files * size as u64
    );
    Ok(())
}

fn write(dir: &Path, thread: u64, size: usize, deadline: Instant) -> Result<(u64, f64), Error> {
    let before = meter::thread_time()?;
    let (folder, bytes) = (File::open(dir)?, vec![0x5a; size]);
    let mut count = 0;
    while Instant::now() < deadline {
        let (temporary, path) = (dir.join(format!(".{thread}-{count}")), dir.join(format!("{thread}-{count}")));
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        folder.sync_all()?;
        count += 1;
    }
    Ok((count, meter::thread_time()? - before))
}
