//! The memory of a mount that has a million files listed and 64 streams open.

use anyhow::{Result, ensure};

use super::Bench;
use super::mounts::{BUCKET, Kind, Site};
use super::read;
use crate::bench::data;
use crate::bench::data::noise;
use crate::bench::report::{Table, figure};
use crate::bench::s3;
use crate::shell;

/// Files at scale 1, and the folders they lie in.
const FILES: f64 = 1e6;
const FOLDERS: u64 = 1_000;
/// Streams, and bytes of each.
const STREAMS: u64 = 64;
const BYTES: f64 = 64.0 * (1 << 20) as f64;
/// MiB that may be resident.
const LIMIT_MIB: f64 = 512.0;

/// Measures it and returns the table.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let count = ((FILES * bench.scale) as u64).max(FOLDERS);
    let bytes = (BYTES * bench.scale.min(1.0)) as u64 / 8 * 8;
    let mut site = Site::start(&bench.programs, bench.work)?;
    let streams = bench.work.join(format!("streams-{}", std::process::id()));
    std::fs::create_dir_all(streams.join("streams"))?;
    for stream in 0..STREAMS {
        noise::write(&streams.join(format!("streams/{stream:02}")), bytes)?;
    }
    println!("== memory: putting {count} files");
    let programs = s3::server::Programs::ready(Some(&bench.programs.bedplate), false)?;
    let (access, secret) = site.served.root_key()?;
    let words = [
        "load".into(),
        "op=put".into(),
        format!("bucket={BUCKET}"),
        format!("url={}", site.served.s3_url()),
        format!("access={access}"),
        format!("secret={secret}"),
        "size=16".into(),
        "connections=64".into(),
        "prefix=many/".into(),
        format!("requests={count}"),
        format!("folders={FOLDERS}"),
    ];
    shell::run(&mut programs.generator(&words))?;
    site.fill(&streams)?;
    std::fs::remove_dir_all(&streams)?;

    println!("== memory: listing and reading");
    let mounted = site.mount(Kind::Bedplate, &site.empty("cache")?)?;
    let listed = data::files(&mounted.folder)?.len() as u64;
    ensure!(listed == count + STREAMS, "{listed} files are listed, {count} and {STREAMS} were put");
    let after_listing = mounted.peak()?;
    let stream = |number: u64| read::whole(&mounted.folder.join(format!("streams/{number:02}")), bytes).map(drop);
    read::at_once(STREAMS, stream)?;
    let peak = mounted.peak()?;
    mounted.end()?;
    site.served.stop()?;
    std::fs::remove_dir_all(&site.home)?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut table =
        Table::new(&["files listed", "peak MiB", "streams then read at once", "peak MiB", "at most", "kept"]);
    table.row(vec![
        listed.to_string(),
        figure(mib(after_listing)),
        format!("{STREAMS} of {} MB", figure(bytes as f64 / 1e6)),
        figure(mib(peak)),
        figure(LIMIT_MIB),
        s3::kept(mib(peak) < LIMIT_MIB),
    ]);
    Ok(format!(
        "{}\nPeaks are VmHWM of the mount's process; every file was looked up and its facts were read.\n",
        table.markdown()
    ))
}
