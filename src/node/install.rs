//! One installation, from the order to a disk that boots: each step either succeeds or says why, and whether the disk
//! is still as it was.

use std::sync::Arc;
use std::time::Instant;

use super::disks::{self, DiskInfo};
use super::guard::{self, Content};
use super::report::Gauge;
use super::write::{self, Counts, WriteOptions};
use super::{console, efi, gpt, verify};
use crate::format::disk_marker::{self, DiskMarker};
use crate::format::order::{Installed, Order, Phase};
use crate::model::{ByteSize, Digest};
use crate::pull::{Appliance, ImageSource, Patience, with_causes};
use crate::sys::disk::{Access, Disk};

/// Longest seed volume that is taken.
const SEED_MAX: usize = 64 * 1024 * 1024;

/// Why an installation ended.
#[derive(Debug)]
pub struct Failure {
    /// What failed and what to do.
    pub error: String,
    /// Whether the disk is as it was before.
    pub untouched: bool,
}

impl Failure {
    fn before(error: &dyn std::error::Error) -> Self {
        Self { error: with_causes(error), untouched: true }
    }

    fn after(error: &dyn std::error::Error) -> Self {
        Self { error: with_causes(error), untouched: false }
    }

    fn refused(error: String) -> Self {
        Self { error, untouched: true }
    }
}

/// All that is known before the first byte is written.
struct Ready {
    info: DiskInfo,
    disk: Arc<Disk>,
    content: Content,
    source: ImageSource,
    seed: Vec<u8>,
}

/// Carries the order out. The disk is synced when this returns.
pub async fn install(appliance: &Appliance, order: &Order, gauge: &Gauge) -> Result<Installed, Failure> {
    let began = Instant::now();
    gauge.begin(Phase::Disk, 1);
    let ready = prepare(appliance, order).await?;
    let (counts, root_digest) = write_and_verify(order, &ready, gauge).await?;
    gauge.begin(Phase::Finish, 1);
    finish(order, &ready)?;
    gauge.advance(1);
    Ok(Installed {
        disk: ready.disk.path().display().to_string(),
        disk_serial: ready.info.serial.clone(),
        bytes_fetched: ready.source.bytes_fetched(),
        bytes_reused: counts.reused,
        bytes_written: counts.written,
        bytes_zero: counts.zero,
        seconds: began.elapsed().as_secs_f64(),
        root_digest,
    })
}

/// Chooses the disk, and makes sure of everything that can be made sure of without touching it.
async fn prepare(appliance: &Appliance, order: &Order) -> Result<Ready, Failure> {
    let drives = disks::survey();
    for drive in &drives {
        console::say("disk", drive.describe());
    }
    let info = disks::choose(&drives, &order.disk).map_err(|error| Failure::before(&error))?.clone();
    let (name, path) = (info.describe(), info.path());
    let disk = Disk::open(&path, Access::Write)
        .map_err(|error| Failure::refused(format!("{name} cannot be opened for writing: {error}")))?;
    if disk.sector() != 512 {
        return Err(Failure::refused(format!(
            "{name} has sectors of {} bytes and images have partition tables for 512: format the drive to 512-byte \
             sectors (`nvme format --lbaf`), or name another disk in the spec",
            disk.sector()
        )));
    }
    let content = guard::inspect(&disk).map_err(|error| Failure::refused(format!("{name} cannot be read: {error}")))?;
    guard::admit(&content, order.wipe, &name).map_err(|error| Failure::before(&error))?;
    console::say("disk", format!("chosen: {name}; {}", held(&content)));
    let seed = fetch_seed(appliance).await?;
    let needed = gpt::room_for(order.image_bytes, seed.len() as u64);
    if disk.len() < needed {
        let (has, needs) = (ByteSize(disk.len()), ByteSize(needed));
        return Err(Failure::refused(format!(
            "{name} is too small: {} and its seed need {needs} and it has {has}; name a larger disk in the spec",
            order.image
        )));
    }
    let source =
        ImageSource::open(appliance, &order.image, Patience::Endless).await.map_err(|error| Failure::before(&error))?;
    let list = source.list();
    if (list.root_digest, list.size) != (order.root_digest, order.image_bytes) {
        return Err(Failure::refused(format!(
            "{} on the appliance is not the image that was ordered (root digest {} instead of {}): apply the spec again",
            order.image,
            list.root_digest.short(),
            order.root_digest.short()
        )));
    }
    Ok(Ready { info, disk: Arc::new(disk), content, source, seed })
}

fn held(content: &Content) -> String {
    match content {
        Content::Blank => "it is blank".to_owned(),
        Content::Ours(marker) if marker.finished => format!("it holds {}, written by bedplate", marker.image),
        Content::Ours(marker) => format!("it holds an unfinished installation of {}", marker.image),
        Content::Foreign(what) => format!("it holds {what}, which the order allows to be lost"),
    }
}

async fn fetch_seed(appliance: &Appliance) -> Result<Vec<u8>, Failure> {
    let get = || appliance.get("/agent/v1/seed", None, SEED_MAX);
    let seed = Patience::Endless.keep_trying("fetching the seed", get).await;
    seed.map(|bytes| bytes.to_vec()).map_err(|error| Failure::before(&error))
}

/// Writes the image behind a blank beginning, checks all of it, and only then has a partition table on the disk.
async fn write_and_verify(order: &Order, ready: &Ready, gauge: &Gauge) -> Result<(Counts, Digest), Failure> {
    let disk = &ready.disk;
    let unfinished = matches!(&ready.content, Content::Ours(marker) if !marker.finished);
    let mut marker = marker_of(order, tables_of(&ready.content));
    guard::wipe_edges(disk)
        .and_then(|()| guard::write_marker(disk, &marker))
        .map_err(|error| Failure::after(&error))?;
    let size = ready.source.list().size;
    console::say("write", format!("writing {} ({})", order.image, ByteSize(size)));
    gauge.begin(Phase::Write, size);
    let options = WriteOptions { reuse: unfinished, hold_head: true };
    let (counts, head) =
        write::write_image(&ready.source, disk, options, gauge).await.map_err(|error| Failure::after(&error))?;
    marker.tables.extend(head.table().and_then(disk_marker::table_id));
    guard::write_marker(disk, &marker).and_then(|()| head.commit(disk)).map_err(|error| Failure::after(&error))?;
    console::say("verify", "reading everything back");
    gauge.begin(Phase::Verify, size);
    let root = verify::verify(&ready.source, disk, gauge).await.map_err(|error| Failure::after(&error))?;
    if root != order.root_digest {
        let error = format!("the disk adds up to {root} instead of {}: the drive is failing", order.root_digest);
        return Err(Failure { error, untouched: false });
    }
    Ok((counts, root))
}

fn tables_of(content: &Content) -> Vec<String> {
    // An older table stays known for as long as it may come back: never, once the edges are wiped.
    match content {
        Content::Ours(marker) if !marker.finished => marker.tables.clone(),
        _ => Vec::new(),
    }
}

fn marker_of(order: &Order, tables: Vec<String>) -> DiskMarker {
    DiskMarker { image: order.image.clone(), root_digest: order.root_digest, finished: false, tables }
}

/// Partition table, seed, marker, boot entry.
fn finish(order: &Order, ready: &Ready) -> Result<(), Failure> {
    let disk = &ready.disk;
    let mut fixed = gpt::plan(disk, ready.seed.len() as u64).map_err(|error| Failure::after(&error))?;
    let mut marker = marker_of(order, vec![fixed.table_id()]);
    guard::write_marker(disk, &marker).map_err(|error| Failure::after(&error))?;
    fixed.write(disk, &ready.seed).map_err(|error| Failure::after(&error))?;
    marker.finished = true;
    guard::write_marker(disk, &marker).map_err(|error| Failure::after(&error))?;
    // The agent needs no partition nodes; the kernel's idea of them is for whoever looks at a rescue prompt.
    drop(disk.reread_partitions());
    match fixed.root_bytes {
        Some(bytes) => console::say("finish", format!("the root partition has {}", ByteSize(bytes))),
        None => console::say("finish", "the image's last partition is not named root: it keeps its size"),
    }
    let entry = fixed.system.map(|system| efi::set_boot_entry(std::path::Path::new(efi::EFIVARS), &system));
    match entry {
        Some(Ok(number)) => console::say("finish", format!("the firmware starts it by Boot{number:04X}")),
        Some(Err(error)) => console::say("finish", format!("no boot entry ({error}): the firmware's fallback must do")),
        None => console::say("finish", "the image has no EFI system partition: no boot entry was made"),
    }
    Ok(())
}
