//! The same load from 1 to 256 connections.

use anyhow::Result;

use super::load::Load;
use super::server::Kind;
use super::{Bench, middle};
use crate::bench::report::{Table, figure};

const CONNECTIONS: [u32; 5] = [1, 4, 16, 64, 256];
/// Bytes of a larger object, and how many there are.
const LARGE: u64 = 4 << 20;
const LARGE_COUNT: u64 = 32;

/// What is asked: a heading, the words of the load, and how it is counted.
type Asked = (&'static str, [&'static str; 2], fn(&Load) -> f64);

const ASKED: [Asked; 3] = [
    ("PUT of 4 KiB, a second", ["op=put", "prefix=new/"], Load::rate),
    ("GET of 4 KiB, a second", ["op=get", "prefix=small/"], Load::rate),
    ("GET of 4 MiB, MB/s", ["op=get", "prefix=large/"], Load::megabytes),
];

const NOTE: &str = "\
Columns are connections, each with one request under way. s3s-fs leaves Nagle's algorithm on, so with few connections most of its \
answers wait some 40 ms for an acknowledgement.\n";

/// Measures it and returns the tables.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let kinds = bench.programs.present(&[Kind::Bedplate, Kind::Synced, Kind::Bare]);
    // By what was asked, by server, by connections, by run.
    let mut taken = vec![vec![vec![Vec::new(); CONNECTIONS.len()]; kinds.len()]; ASKED.len()];
    for run in 0..bench.repeat {
        for (place, kind) in kinds.iter().enumerate() {
            println!("== scaling, run {}: {}", run + 1, kind.name());
            for (asked, by_connections) in one(bench, *kind)?.into_iter().enumerate() {
                for (step, load) in by_connections.into_iter().enumerate() {
                    taken[asked][place][step].push(load);
                }
            }
        }
    }
    let mut text = String::new();
    for ((title, _, count), taken) in ASKED.iter().zip(&taken) {
        let mut head: Vec<String> = vec![(*title).to_owned()];
        head.extend(CONNECTIONS.iter().map(|connections| format!("{connections}")));
        head.push("256 : 16".to_owned());
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for (kind, loads) in kinds.iter().zip(taken) {
            let rates: Vec<f64> = loads.iter().map(|loads| middle(loads, *count)).collect();
            let mut row = vec![kind.name().to_owned()];
            row.extend(rates.iter().copied().map(figure));
            row.push(figure(rates[4] / rates[2]));
            table.row(row);
            let late: Vec<String> = loads.iter().map(|loads| figure(middle(loads, |load| load.p99))).collect();
            table.row([vec![format!("{}, 99 of 100 within ms", kind.name())], late, vec!["-".into()]].concat());
        }
        text.push_str(&format!("{}\n", table.markdown()));
    }
    Ok(text + NOTE)
}

fn one(bench: &Bench<'_>, kind: Kind) -> Result<Vec<Vec<Load>>> {
    let server = bench.programs.start(kind, bench.work)?;
    if kind == Kind::Bare {
        for folder in ["bench/new", "bench/small", "bench/large"] {
            server.load(&["op=bucket", "requests=1", &format!("bucket={folder}")])?;
        }
    }
    server.load(&["op=put", "prefix=small/", "requests=4000", "connections=64"])?;
    let (large, count) = (format!("size={LARGE}"), format!("requests={LARGE_COUNT}"));
    let noise = format!("source={}", super::large::noise(LARGE * LARGE_COUNT)?.display());
    server.load(&["op=put", "prefix=large/", &large, &count, &noise, "connections=4"])?;
    let seconds = format!("seconds={}", (bench.seconds / 2.0).max(0.5));
    let mut taken = Vec::new();
    let mut from = 0;
    for (_, words, _) in ASKED {
        let objects = if words[1] == "prefix=large/" { LARGE_COUNT } else { 4000 };
        let mut loads = Vec::new();
        for connections in CONNECTIONS {
            let (objects, start) = (format!("objects={objects}"), format!("from={from}"));
            let start = if words[0] == "op=put" { start.as_str() } else { "from=0" };
            let connections = format!("connections={connections}");
            let load = server.load(&[words[0], words[1], &objects, start, &connections, &seconds])?;
            from += load.requests + 1000;
            loads.push(load);
        }
        taken.push(loads);
    }
    server.stop()?;
    Ok(taken)
}
