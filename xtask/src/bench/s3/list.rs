//! Listings: a page costs the same at the start and at the end, folders come at once, and memory stays flat.

use anyhow::Result;

use super::load::Load;
use super::server::{Kind, Server};
use super::{Bench, kept, middle};
use crate::bench::process::median;
use crate::bench::report::{Table, figure};

/// Keys of the two listings, and the folders of the second.
const FEW: u64 = 10_000;
const MANY: f64 = 1e6;
const FOLDERS: u64 = 100;
/// Most milliseconds that a listing of the folders may take, and how much more the last page may cost than the first.
const FOLDERS_MS: f64 = 100.0;
const PAGES: f64 = 1.25;
/// How often everything is listed once more, and most that memory may grow meanwhile: what a database keeps at hand is there by then.
const AGAIN: u64 = 5;
const GROWTH_MIB: f64 = 64.0;

/// Measures it and returns the tables.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let many = ((MANY * bench.scale) as u64).max(FOLDERS * 20);
    println!("== listings: putting {many} keys");
    let server = bench.programs.start(Kind::Bedplate, bench.work)?;
    let put = |prefix: &str, count: u64, folders: u64| {
        let words = [format!("prefix={prefix}"), format!("requests={count}"), format!("folders={folders}")];
        let [prefix, count, folders] = words;
        server.load(&["op=put", "size=16", "connections=64", &prefix, &count, &folders])
    };
    put("few/", FEW, 0)?;
    let filled = put("many/", many, FOLDERS)?;
    let before = server.resident()?;
    println!("== listings: {:.0} keys a second; listing", filled.rate());
    let pages = pages(&server, bench.repeat, many)?;
    let folders = server.load(&["op=list", "prefix=many/", "delimiter=/", "requests=20"])?;
    let whole = server.load(&["op=list", "prefix=many/", "requests=1"])?;
    let once = server.resident()?;
    let again = server.load(&["op=list", "prefix=many/", &format!("requests={AGAIN}")])?;
    let after = server.resident()?;
    let are_whole = folders.keys == FOLDERS * 20 && whole.keys == many && again.keys == many * AGAIN;
    anyhow::ensure!(are_whole, "a listing lacks keys");
    server.stop()?;

    let mut table = Table::new(&["listing", "figure", "target", "kept"]);
    let worst = folders.microseconds.iter().copied().fold(0.0, f64::max) / 1e3;
    let half = median(folders.microseconds.clone()) / 1e3;
    table.row(vec![
        format!("{FOLDERS} folders over {many} keys, ms, the slowest of 20 (half within {})", figure(half)),
        figure(worst),
        format!("< {FOLDERS_MS:.0}"),
        kept(worst < FOLDERS_MS),
    ]);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let grown = mib(after) - mib(once);
    table.row(vec![
        format!("MiB resident once all is listed ({} before)", figure(mib(before))),
        figure(mib(once)),
        "-".into(),
        "-".into(),
    ]);
    table.row(vec![
        format!("MiB more when all was listed {AGAIN} times more"),
        figure(grown),
        format!("< {GROWTH_MIB:.0}"),
        kept(grown < GROWTH_MIB),
    ]);
    table.row(vec![
        format!("all {many} keys in pages of 1,000: keys a second"),
        figure(whole.keys as f64 / whole.seconds),
        "-".into(),
        "-".into(),
    ]);
    Ok(format!(
        "{pages}\n{}\nThe keys were put at {} a second from 64 connections; their objects have 16 bytes.\n",
        table.markdown(),
        figure(filled.rate())
    ))
}

/// Pages at the start and at the end.
fn pages(server: &Server<'_>, repeat: u32, many: u64) -> Result<String> {
    let mut table = Table::new(&[
        "page of 1,000 keys",
        "first, ms",
        "CPU ms",
        "last, ms",
        "CPU ms",
        "last : first, time",
        "CPU",
        "at most",
        "kept",
    ]);
    let last_folder = FOLDERS - 1;
    // The last number in the last folder, less a page.
    let last = (many - 1) / FOLDERS * FOLDERS + last_folder;
    let deep = last.saturating_sub(FOLDERS * 1000.min(many / FOLDERS - 1));
    let asked = [
        ("10,000 keys of one prefix", "few/", format!("few/{:08}", FEW - 1001)),
        ("many keys in folders", "many/", format!("many/{last_folder:03}/{deep:08}")),
    ];
    for (title, prefix, after) in asked {
        let (mut first, mut end) = (Vec::new(), Vec::new());
        for _ in 0..repeat {
            let prefix = format!("prefix={prefix}");
            let words = ["op=list", "pages=1", "requests=100", &prefix];
            first.push(server.load(&words)?);
            end.push(server.load(&[&words[..], &[format!("after={after}").as_str()]].concat())?);
        }
        let time = |loads: &[Load]| middle(loads, |load| load.p50);
        let cost = |loads: &[Load]| middle(loads, |load| load.cpu_a_key() * 1e6);
        let (times, costs) = (time(&end) / time(&first), cost(&end) / cost(&first));
        table.row(vec![
            title.to_owned(),
            figure(time(&first)),
            figure(cost(&first)),
            figure(time(&end)),
            figure(cost(&end)),
            figure(times),
            figure(costs),
            figure(PAGES),
            kept(times <= PAGES),
        ]);
    }
    Ok(table.markdown())
}
