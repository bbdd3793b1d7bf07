//! Objects of 4 KiB from 64 connections: durable PUTs and GETs.

use anyhow::{Context as _, Result};

use super::load::{self, Load};
use super::server::{self, Kind, Programs};
use super::{Bench, kept, middle};
use crate::bench::process;
use crate::bench::report::{Table, figure};
use crate::shell;

const CONNECTIONS: &str = "connections=64";
/// Least rate of our PUTs, as a multiple of the rival's with an fsync an object, and of our GETs, of the rival's.
const PUTS: f64 = 3.0;
const GETS: f64 = 1.0;

/// PUTs and GETs of one server over all runs.
struct Taken {
    kind: Kind,
    puts: Vec<Load>,
    gets: Vec<Load>,
}

/// Measures it and returns the tables.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let kinds = bench.programs.present(&[Kind::Bedplate, Kind::Synced, Kind::Rival, Kind::Bare]);
    let mut taken: Vec<Taken> =
        kinds.iter().map(|kind| Taken { kind: *kind, puts: Vec::new(), gets: Vec::new() }).collect();
    let mut floors = Vec::new();
    let seconds = format!("seconds={}", bench.seconds);
    for run in 0..bench.repeat {
        for each in &mut taken {
            println!("== small objects, run {}: {}", run + 1, each.kind.name());
            let server = bench.programs.start(each.kind, bench.work)?;
            let put = server.load(&["op=put", CONNECTIONS, &seconds])?;
            let objects = format!("objects={}", put.requests);
            server.load(&["op=get", CONNECTIONS, &objects, "requests=2000", "check=1"])?;
            each.gets.push(server.load(&["op=get", CONNECTIONS, &objects, &seconds])?);
            each.puts.push(put);
            server.stop()?;
        }
        floors.push(floor(bench, run, &seconds)?);
    }
    Ok(format!("{}\n{}\n{NOTE}", rates(&taken, &floors), verdict(&taken, &floors)?))
}

const NOTE: &str = "\
Durable are the PUTs of bedplate (each is on the disk before it is acknowledged, those under way together), those of \"s3s-fs, \
fsync\" as far as the object's bytes go, and the floor: 64 threads, each writing a file, fsync, rename, fsync of the folder. \
\
s3s-fs as it is and the bare server leave the writing to the kernel. What a power cut would leave of \"s3s-fs, fsync\" may lack \
the object's name or its entity tag; the last row says what s3s-fs would come to if each PUT did the floor's work besides its \
own, 1 / (1 / rate + 1 / floor). No two objects are alike.\n";

/// What the file system allows.
fn floor(bench: &Bench<'_>, run: u32, seconds: &str) -> Result<Load> {
    let folder = bench.work.join(format!("{}{}-floor-{run}", server::SERVED, std::process::id()));
    std::fs::create_dir_all(&folder)?;
    process::settle(&folder)?;
    let words = ["floor".to_owned(), format!("dir={}", folder.display()), "threads=64".into(), seconds.to_owned()];
    let programs: &Programs = &bench.programs;
    let load = load::parse(&shell::output(&mut programs.generator(&words))?)?;
    Ok(Load { server_cpu: load.cpu, ..load })
}

fn rates(taken: &[Taken], floors: &[Load]) -> String {
    let mut table = Table::new(&[
        "4 KiB objects, 64 connections",
        "PUT/s",
        "CPU s per 1,000",
        "half within ms",
        "99 of 100",
        "GET/s",
        "CPU s per 1,000",
        "half within ms",
        "99 of 100",
    ]);
    let cells = |loads: &[Load]| {
        let picks: [fn(&Load) -> f64; 4] = [Load::rate, Load::cpu_per_request, |load| load.p50, |load| load.p99];
        picks.map(|pick| figure(middle(loads, pick)))
    };
    for each in taken {
        let mut row = vec![each.kind.name().to_owned()];
        row.extend(cells(&each.puts));
        row.extend(cells(&each.gets));
        table.row(row);
    }
    let floor = [middle(floors, Load::rate), middle(floors, Load::cpu_per_request)].map(figure);
    let [rate, cost] = floor;
    let dashes = std::iter::repeat_n("-".to_owned(), 6);
    table.row([["floor: files and fsync".to_owned(), rate, cost].to_vec(), dashes.collect()].concat());
    table.markdown()
}

fn verdict(taken: &[Taken], floors: &[Load]) -> Result<String> {
    let find = |kind: Kind| taken.iter().find(|taken| taken.kind == kind);
    let ours = find(Kind::Bedplate).context("bedplate was not measured")?;
    let mut table = Table::new(&["ours : theirs", "rate", "at least", "kept", "CPU a request"]);
    let both = |first: f64, second: f64| 1.0 / (1.0 / first + 1.0 / second);
    let mut row = |name: &str, other: &[Load], own: &[Load], target: f64| {
        let ratio = middle(own, Load::rate) / middle(other, Load::rate);
        let cost = middle(own, Load::cpu_per_request) / middle(other, Load::cpu_per_request);
        table.row(vec![name.to_owned(), figure(ratio), figure(target), kept(ratio >= target), figure(cost)]);
    };
    if let (Some(synced), Some(rival)) = (find(Kind::Synced), find(Kind::Rival)) {
        row("PUT, s3s-fs with an fsync an object", &synced.puts, &ours.puts, PUTS);
        row("GET, s3s-fs", &rival.gets, &ours.gets, GETS);
        row("GET, s3s-fs with an fsync an object", &synced.gets, &ours.gets, GETS);
        let durable = both(middle(&rival.puts, Load::rate), middle(floors, Load::rate));
        let ratio = middle(&ours.puts, Load::rate) / durable;
        let name = format!("PUT, s3s-fs and then the floor: {} a second, computed", figure(durable));
        table.row(vec![name, figure(ratio), figure(PUTS), kept(ratio >= PUTS), "-".into()]);
    }
    Ok(table.markdown())
}
