//! Objects of 64 MiB: PUT, GET and ranges, beside the rival, a bare server, and the steps of a PUT.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::load::Load;
use super::server::Kind;
use super::steps::{self, Steps};
use super::{Bench, kept, middle};
use crate::bench::data::{self, lines, noise};
use crate::bench::report::{Table, figure};

/// Bytes of an object, and of a range.
const SIZE: f64 = 67_108_864.0;
const SPAN: u64 = 1 << 20;
/// Objects that are put one after the other, and after them so many at once.
const ALONE: u64 = 2;
const TOGETHER: u64 = 8;
/// Least rate of a GET, as a share of its limit.
const TARGET: f64 = 0.8;

/// A kind of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// Random: stored raw.
    Noise,
    /// JSON lines: stored compressed.
    Lines,
}

/// What is asked of the servers, in this order.
const ASKED: [&str; 5] = ["PUT, 1 at once", "PUT, 8 at once", "GET, 1 at once", "GET, 8 at once", "ranges, 8 at once"];

/// A file of so many random bytes.
pub fn noise(total: u64) -> Result<PathBuf> {
    Bytes::Noise.file(total)
}

/// One server's loads over all runs: of each run one load for each of [`ASKED`], a sink's end after the PUTs.
struct Taken {
    kind: Kind,
    runs: Vec<Vec<Load>>,
}

impl Taken {
    fn middle(&self, asked: usize, pick: fn(&Load) -> f64) -> f64 {
        let loads: Vec<&Load> = self.runs.iter().filter_map(|run| run.get(asked)).collect();
        middle(&loads, |load| pick(load))
    }
}

/// Measures it and returns the tables.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let mut text = String::new();
    let (mut sums, mut alone) = (Vec::new(), Vec::new());
    for (bytes, title) in [(Bytes::Noise, "Random bytes, stored raw"), (Bytes::Lines, "JSON lines, stored compressed")]
    {
        let source = bytes.ready(bench.size())?;
        let (taken, steps) = all(bench, bytes, &source)?;
        text.push_str(&format!("### {title}\n\n{}\n{}\n", rates(bytes, &taken)?, verdict(bytes, &taken)?));
        let (sink, ours) = (find(&taken, Kind::Sink)?, find(&taken, Kind::Bedplate)?);
        let cost = |taken: &Taken| taken.middle(1, Load::cpu_per_gb);
        alone.push(ours.middle(0, Load::megabytes));
        sums.push((title, steps, cost(sink), cost(ours)));
    }
    let rows: Vec<_> = sums.iter().map(|(title, steps, receive, put)| (*title, steps, *receive, *put)).collect();
    text.push_str(&format!("### What the steps of a PUT cost\n\n{}\n{EXPLAINED}", steps::table(&rows)?));
    text.push_str(&overlap(&rows, &alone)?);
    Ok(text)
}

const EXPLAINED: &str = "\
Each step alone on one thread over the same bytes in pieces of 1 MiB: receive is the bare server taking the same PUTs and \
forgetting them, write is writing what zstd leaves of the bytes into a file and waiting for the disk. PUT is 8 uploads at \
once.\n\n";

impl Bench<'_> {
    fn size(&self) -> u64 {
        ((SIZE * self.scale) as u64 / SPAN).max(2) * SPAN
    }
}

impl Bytes {
    /// The file that the objects are cut from.
    fn ready(self, size: u64) -> Result<PathBuf> {
        self.file(size * (ALONE + TOGETHER))
    }

    fn file(self, total: u64) -> Result<PathBuf> {
        let folder = data::base().join("data");
        std::fs::create_dir_all(&folder)?;
        let name = if self == Self::Noise { "noise" } else { "lines" };
        let file = folder.join(format!("s3-{name}-{}.bin", total >> 20));
        if !file.exists() {
            println!("making {} MiB of {name}", total >> 20);
            let part = folder.join("s3-part");
            match self {
                Self::Noise => noise::write(&part, total)?,
                Self::Lines => {
                    let made = folder.join("s3-lines");
                    // A little more, since a run of lines may end early.
                    lines::one_file(&made, total + total / 8, 0x53)?;
                    std::fs::rename(made.join("part-00000.jsonl"), &part)?;
                    std::fs::remove_dir_all(made)?;
                }
            }
            std::fs::rename(part, &file)?;
        }
        Ok(file)
    }

    /// The server that bounds a GET of these bytes.
    fn limit(self) -> Kind {
        if self == Self::Noise { Kind::Bare } else { Kind::BareZstd }
    }
}

fn all(bench: &Bench<'_>, bytes: Bytes, source: &Path) -> Result<(Vec<Taken>, Steps)> {
    let kinds = bench.programs.present(&[Kind::Bedplate, Kind::Rival, Kind::Synced, bytes.limit(), Kind::Sink]);
    let mut taken: Vec<Taken> = kinds.iter().map(|kind| Taken { kind: *kind, runs: Vec::new() }).collect();
    for run in 0..bench.repeat {
        for each in &mut taken {
            println!("== large objects, run {}: {}", run + 1, each.kind.name());
            each.runs.push(one(bench, each.kind, source)?);
        }
    }
    Ok((taken, Steps::measure(&bench.programs, source, bench.work)?))
}

/// One server, once.
fn one(bench: &Bench<'_>, kind: Kind, source: &Path) -> Result<Vec<Load>> {
    let server = bench.programs.start(kind, bench.work)?;
    let (size, source) = (format!("size={}", bench.size()), format!("source={}", source.display()));
    let load = |words: &[&str]| server.load(&[&[size.as_str(), source.as_str()][..], words].concat());
    let (alone, together) = (format!("requests={ALONE}"), format!("requests={TOGETHER}"));
    let mut loads = vec![
        load(&["op=put", &alone])?,
        load(&["op=put", &together, &format!("from={ALONE}"), &format!("connections={TOGETHER}")])?,
    ];
    if kind != Kind::Sink {
        let objects = format!("objects={}", ALONE + TOGETHER);
        // Once before the clock runs, and compared: what is fast must also be right.
        load(&["op=get", "check=1", &objects, &format!("requests={}", ALONE + TOGETHER), "connections=2"])?;
        loads.push(load(&["op=get", &objects, "requests=8"])?);
        loads.push(load(&["op=get", &objects, "requests=24", "connections=8"])?);
        if kind != Kind::BareZstd {
            let span = format!("span={SPAN}");
            loads.push(load(&["op=range", &objects, &span, "requests=600", "connections=8"])?);
        }
    }
    // Gigabytes, in few files.
    std::fs::remove_dir_all(server.stop()?)?;
    Ok(loads)
}

fn find(taken: &[Taken], kind: Kind) -> Result<&Taken> {
    taken.iter().find(|taken| taken.kind == kind).with_context(|| format!("{} was not measured", kind.name()))
}

/// Rates and costs of all servers.
fn rates(bytes: Bytes, taken: &[Taken]) -> Result<String> {
    let shown: Vec<&Taken> = taken.iter().filter(|taken| taken.kind != Kind::Sink).collect();
    let mut head = vec!["64 MiB objects".to_owned()];
    for each in &shown {
        head.extend([format!("{} MB/s", each.kind.name()), "CPU s per GB".to_owned()]);
    }
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for (asked, name) in ASKED.iter().enumerate() {
        let mut cells = vec![(*name).to_owned()];
        for each in &shown {
            cells.push(figure(each.middle(asked, Load::megabytes)));
            cells.push(figure(each.middle(asked, Load::cpu_per_gb)));
        }
        table.row(cells);
    }
    let size = find(taken, Kind::Bedplate)?.runs[0][0].bytes as f64 / ALONE as f64 / f64::from(1 << 20);
    let note = match bytes {
        Bytes::Noise => "",
        Bytes::Lines => {
            " The bare server keeps frames of 1 MiB compressed by zstd 1 and decodes them on their way out."
        }
    };
    Ok(format!("{}\nObjects of {size:.0} MiB; ranges of 1 MiB.{note}\n", table.markdown()))
}

/// Ours against the rival and the limit.
fn verdict(bytes: Bytes, taken: &[Taken]) -> Result<String> {
    let (ours, limit) = (find(taken, Kind::Bedplate)?, find(taken, bytes.limit())?);
    let rival = find(taken, Kind::Rival).ok();
    let mut table =
        Table::new(&["ours : theirs", "s3s-fs, rate", "CPU", "bare, rate", "CPU", "at least, rate", "kept"]);
    for (asked, name) in ASKED.iter().enumerate() {
        let rate = |other: &Taken| ours.middle(asked, Load::megabytes) / other.middle(asked, Load::megabytes);
        let cost = |other: &Taken| ours.middle(asked, Load::cpu_per_gb) / other.middle(asked, Load::cpu_per_gb);
        let of_rival = |ratio: &dyn Fn(&Taken) -> f64| rival.map_or(f64::NAN, ratio);
        let bound = name.starts_with("GET");
        table.row(vec![
            (*name).to_owned(),
            figure(of_rival(&rate)),
            figure(of_rival(&cost)),
            figure(rate(limit)),
            figure(cost(limit)),
            if bound { figure(TARGET) } else { "-".to_owned() },
            if bound { kept(rate(limit) >= TARGET) } else { "-".to_owned() },
        ]);
    }
    Ok(table.markdown())
}

/// Whether MD5 holds an upload up: in line with the other steps, one upload could be no faster than their sum.
fn overlap(rows: &[(&str, &Steps, f64, f64)], alone: &[f64]) -> Result<String> {
    let mut table =
        Table::new(&["one upload, MB/s", "measured", "MD5 alone", "all steps in line", "measured : in line"]);
    for ((title, steps, receive, _), rate) in rows.iter().zip(alone) {
        let in_line = 1e3 / steps.sum(*receive)?;
        let md5 = 1e3 / steps.cost("md5")?;
        table.row(vec![(*title).to_owned(), figure(*rate), figure(md5), figure(in_line), figure(rate / in_line)]);
    }
    Ok(format!("\n{}\nMD5 is computed beside the rest of an upload where this is above 1.\n", table.markdown()))
}
