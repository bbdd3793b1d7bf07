//! The appliance's memory while many streams come in at once: 16 uploads of 20 GiB in all through the S3 door of a running
//! `bedplate serve`, each made up on its way by a thread of ours, so that no disk but the store's takes part.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::bench::data::numbers::Numbers;
use crate::bench::report::{Table, figure};
use crate::served::Served;
use crate::shell;

/// Uploads at once.
const STREAMS: u64 = 16;
/// Resident memory that the appliance may have at most.
const LIMIT_MIB: f64 = 512.0;
/// Bytes that are made up at once.
const BLOCK: usize = 1 << 20;

/// Measures it and returns the table.
pub fn measure(program: &Path, gib: f64, work: &Path) -> Result<String> {
    println!("== {STREAMS} streams of {gib} GiB in all");
    let folder = work.join("served");
    let mut served = Served::start(program, &folder)?;
    let seconds = ingest(&served, gib).with_context(|| format!("the appliance's log is {}/log", folder.display()))?;
    let (peak, cpu) = (served.peak()? as f64 / f64::from(1 << 20), served.cpu()?);
    served.stop()?;
    std::fs::remove_dir_all(&folder)?;
    let bytes = gib * f64::from(1 << 30);
    let mut table =
        Table::new(&["streams", "GiB", "MB/s", "appliance's MB per CPU-s", "peak MiB", "limit MiB", "peak : limit"]);
    table.row(vec![
        STREAMS.to_string(),
        figure(gib),
        figure(bytes / 1e6 / seconds),
        figure(bytes / 1e6 / cpu),
        figure(peak),
        figure(LIMIT_MIB),
        figure(peak / LIMIT_MIB),
    ]);
    Ok(format!(
        "{}\nThe peak is VmHWM of `bedplate serve`; the uploads are `bedplate put -`, and their clients' time is not in the \
         CPU figure, but takes from the same cores. No two of the streams have a chunk in common, and they compress.\n",
        table.markdown()
    ))
}

/// Sends all streams and answers how long it took.
fn ingest(served: &Served, gib: f64) -> Result<f64> {
    shell::run(&mut served.command(&["bucket", "create", "streams"]))?;
    let bytes = (gib * f64::from(1 << 30) / STREAMS as f64) as u64;
    let began = Instant::now();
    let mut senders = Vec::new();
    for stream in 0..STREAMS {
        let mut command = served.command(&["put", "-", &format!("streams/{stream:02}")]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("cannot start bedplate put")?;
        senders.push(std::thread::spawn(move || send(child, stream, bytes)));
    }
    for sender in senders {
        match sender.join() {
            Ok(sent) => sent?,
            Err(_) => bail!("a sender came to grief"),
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

fn send(mut child: Child, stream: u64, bytes: u64) -> Result<()> {
    let mut pipe = child.stdin.take().context("the upload has no input")?;
    let mut numbers = Numbers::new(0x57ea_0000 + stream);
    let mut block = Vec::with_capacity(BLOCK);
    let mut left = bytes;
    while left > 0 {
        block.clear();
        while block.len() < BLOCK {
            // Two of eight bytes are drawn, so that a compressor has something to find, as it has in text.
            let number = numbers.next();
            for part in 0..4 {
                block.extend_from_slice(&(number >> (16 * part) & 0xffff | 0x2020_2020_0000).to_le_bytes());
            }
        }
        let length = left.min(BLOCK as u64);
        pipe.write_all(&block[..length as usize]).context("an upload ended early")?;
        left -= length;
    }
    drop(pipe);
    let status = child.wait()?;
    ensure!(status.success(), "an upload ended with {status}");
    Ok(())
}
