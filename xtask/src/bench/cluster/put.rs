//! Uploads: a data set that is new, the same again, and the same with one row in a hundred changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::mounts::{BUCKET, Site};
use super::{Bench, alone};
use crate::bench::data::numbers::Numbers;
use crate::bench::data::{self, lines};
use crate::bench::process::{measure as usage, median, settle};
use crate::bench::report::{Table, figure};
use crate::bench::s3;

/// Bytes of the set at scale 1.
const BYTES: f64 = 2e9;
/// One row in so many is changed; changed rows lie together, so many at a time.
const EVERY: u64 = 100;
const TOGETHER: u64 = 100;
/// Shares of the set's bytes that may travel.
const SAME: f64 = 0.001;
const CHANGED: f64 = 0.03;

/// Who uploads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Bedplate,
    Aws,
    Rclone,
}

impl Client {
    const ALL: [Self; 3] = [Self::Bedplate, Self::Aws, Self::Rclone];

    fn name(self) -> &'static str {
        match self {
            Self::Bedplate => "bedplate put",
            Self::Aws => "aws s3 cp",
            Self::Rclone => "rclone copy",
        }
    }
}

/// The uploads, in their order.
const STEPS: [&str; 4] = ["new", "the same, touched", "rows changed together", "rows changed all over"];

/// What one upload took.
#[derive(Clone, Copy)]
struct Sent {
    client: Client,
    step: usize,
    seconds: f64,
    cpu: f64,
    /// Bytes that crossed the loopback interface, in both directions, with all headers.
    moved: u64,
}

/// Measures it and returns the table.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let home = bench.work.join(format!("put-{}", std::process::id()));
    println!("== put: making the data sets");
    let sets = sets(&home, (BYTES * bench.scale) as u64)?;
    let bytes = data::bytes(&sets[0])?;
    let mut sent = Vec::new();
    for _ in 0..bench.repeat {
        for client in Client::ALL {
            let mut site = Site::start(&bench.programs, bench.work)?;
            for (step, set) in sets.iter().enumerate() {
                println!("== put: {}, {}", client.name(), STEPS[step]);
                sent.push(send(&site, client, step, set).with_context(|| format!("{} failed", client.name()))?);
            }
            site.served.stop()?;
            std::fs::remove_dir_all(&site.home)?;
        }
    }
    std::fs::remove_dir_all(&home)?;
    Ok(table(&sent, bytes))
}

/// The folders of the steps. Files of the second have later times, so that a client that goes by times has to look at them.
fn sets(home: &Path, bytes: u64) -> Result<Vec<PathBuf>> {
    let first = home.join("first");
    lines::write(&first, &home.join("shuffled"), bytes, 5)?;
    std::fs::remove_dir_all(home.join("shuffled"))?;
    let mut folders = vec![first.clone()];
    for (name, together) in [("same", 0), ("together", TOGETHER), ("all-over", 1)] {
        let folder = home.join(name);
        std::fs::create_dir_all(&folder)?;
        let mut numbers = Numbers::new(7);
        for file in data::files(&first)? {
            let text = std::fs::read(&file)?;
            let changed = if together == 0 { text } else { change(&text, together, &mut numbers) };
            std::fs::write(folder.join(file.file_name().context("a file without a name")?), changed)?;
        }
        folders.push(folder);
    }
    Ok(folders)
}

/// Changes one row in [`EVERY`], in runs of so many rows: eight of its bytes become twelve others.
fn change(text: &[u8], together: u64, numbers: &mut Numbers) -> Vec<u8> {
    let mut changed = Vec::with_capacity(text.len() + text.len() / 1_000);
    let mut hit = false;
    for (row, line) in (0..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
        if row % together == 0 {
            hit = numbers.below(EVERY) == 0;
        }
        if !hit || line.len() < 64 {
            changed.extend_from_slice(line);
            continue;
        }
        let spot = 16 + numbers.below(line.len() as u64 - 40) as usize;
        changed.extend_from_slice(&line[..spot]);
        changed.extend_from_slice(format!("{:012x}", numbers.next() >> 16).as_bytes());
        changed.extend_from_slice(&line[spot + 8..]);
    }
    changed
}

fn send(site: &Site<'_>, client: Client, step: usize, set: &Path) -> Result<Sent> {
    let (access, secret) = site.served.root_key()?;
    let mut command = match client {
        Client::Bedplate => {
            let mut command = site.served.command(&["put", "--recursive"]);
            command.arg(set).arg(format!("{BUCKET}/set/"));
            command
        }
        Client::Aws => {
            let mut command = Command::new(&site.programs.aws);
            alone(&mut command, &site.home);
            command.args(["--endpoint-url", &site.served.s3_url(), "s3", "cp", "--recursive", "--only-show-errors"]);
            command.arg(set).arg(format!("s3://{BUCKET}/set/"));
            command.env("AWS_ACCESS_KEY_ID", &access).env("AWS_SECRET_ACCESS_KEY", &secret);
            command.env("AWS_DEFAULT_REGION", "us-east-1");
            command
        }
        Client::Rclone => {
            let settings = site.home.join("rclone.conf");
            std::fs::write(&settings, site.programs.rclone_settings(&site.served, &access, &secret))?;
            let mut command = Command::new(&site.programs.rclone);
            alone(&mut command, &site.home);
            command.arg("copy").arg("--config").arg(settings).arg(set).arg(format!("s3:{BUCKET}/set"));
            command
        }
    };
    settle(&site.home)?;
    let before = crossed()?;
    let took = usage(&mut command, &site.home.join("client.log"))?;
    Ok(Sent { client, step, seconds: took.wall, cpu: took.cpu, moved: crossed()? - before })
}

/// Bytes that the loopback interface has carried.
fn crossed() -> Result<u64> {
    let text = std::fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes")?;
    text.trim().parse().context("the loopback interface has no count")
}

fn table(sent: &[Sent], bytes: u64) -> String {
    let of = |client: Client, step: usize, pick: &dyn Fn(&Sent) -> f64| {
        let matching = sent.iter().filter(|sent| sent.client == client && sent.step == step);
        median(matching.map(pick).collect())
    };
    let mut table =
        Table::new(&["upload", "client", "seconds", "client's CPU s", "moved, % of the set", "ours : theirs, time"]);
    let mut asked = Table::new(&["asked", "figure", "limit", "kept"]);
    for (step, name) in STEPS.iter().enumerate() {
        let share = |client| of(client, step, &|sent| sent.moved as f64 / bytes as f64);
        let seconds = |client| of(client, step, &|sent| sent.seconds);
        for client in Client::ALL {
            let ratio = seconds(Client::Bedplate) / seconds(client);
            table.row(vec![
                (*name).into(),
                client.name().into(),
                figure(seconds(client)),
                figure(of(client, step, &|sent| sent.cpu)),
                format!("{:.3}", share(client) * 100.0),
                figure(if client == Client::Bedplate { f64::NAN } else { ratio }),
            ]);
        }
        let most = match step {
            1 => SAME,
            2 | 3 => CHANGED,
            _ => continue,
        };
        let ours = share(Client::Bedplate);
        asked.row(vec![
            format!("{name}: moved, % of the set"),
            format!("{:.3}", ours * 100.0),
            format!("{:.1}", most * 100.0),
            s3::kept(ours <= most),
        ]);
        let theirs = seconds(Client::Aws).min(seconds(Client::Rclone));
        let ratio = seconds(Client::Bedplate) / theirs;
        asked.row(vec![
            format!("{name}: time, ours : the faster one's"),
            figure(ratio),
            "1.00".into(),
            s3::kept(ratio < 1.0),
        ]);
    }
    format!(
        "{}\n{}\nThe set has {} MB of JSON lines in 12 shards. What moved is what the loopback interface carried meanwhile, in both \
         directions, with the headers of every layer. Changed rows are one in {EVERY}, eight bytes of each replaced by twelve: in runs of \
         {TOGETHER} (what an edit of some sources does), or all over (most chunks change then, and what of them was there before is \
         found by signatures of the old object). The network is a copy in memory here: what does not travel saves little time.\n",
        table.markdown(),
        asked.markdown(),
        figure(bytes as f64 / 1e6),
    )
}
