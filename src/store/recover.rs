//! What a crash leaves: packs that were being filled. Their groups say what is in them; they are sealed before the store opens its
//! doors.

use bytes::Bytes;

use super::error::StoreError;
use super::fetch::verified;
use super::home::Packs;
use super::seal;
use crate::format::codec::Decoder;
use crate::format::pack::{Directory, Entry, GROUP_START, Group, MAGIC};
use crate::format::row::key;
use crate::meta::{Meta, Transaction, prefix_end};
use crate::model::PackId;
use crate::sys::worker::blocking;

/// Packs that are looked up at once; there are never more than a few.
const PAGE: usize = 500;

/// Seals all packs that a crash left open.
pub(super) async fn recover(meta: &dyn Meta, packs: &Packs) -> Result<(), StoreError> {
    let prefix = b"f/".to_vec();
    for (row_key, _) in meta.scan(&prefix, &prefix_end(&prefix), PAGE).await? {
        let Some(id) = row_key.last_chunk::<16>() else { continue };
        let pack = PackId(*id);
        match take_up(meta, packs, pack).await {
            Ok(chunks) => tracing::info!(%pack, chunks, "sealed a pack that a crash left open"),
            // Its objects cannot be read; all others can, so the store opens without it.
            Err(error @ (StoreError::NoSuchPack(_) | StoreError::Corrupt { .. })) => {
                tracing::error!(%pack, error = %error, "a pack that a crash left open cannot be sealed; run `bedplate store fsck`");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Seals one pack; answers how many chunks it has.
async fn take_up(meta: &dyn Meta, packs: &Packs, pack: PackId) -> Result<usize, StoreError> {
    if meta.get(&key::pack(pack)).await?.is_none() {
        meta.commit(Transaction::new().delete(key::filling(pack))).await?;
        return Ok(0);
    }
    let size = packs.size(pack).await?;
    let bytes = packs.read(pack, 0, size).await?;
    let groups = bytes.clone();
    let (entries, durable) = blocking(move || read_groups(pack, &groups, 0)).await.map_err(StoreError::step)??;
    let directory = Directory { pack, entries };
    let (tail, offset) = (directory.encode(), directory.offset());
    // A sync that failed before may have left bytes in the system's memory that no later one writes: they are written again.
    let again = bytes.slice(durable.min(offset) as usize..offset as usize);
    let bytes = offset + tail.len() as u64;
    let write = move |file: &dyn crate::sys::volume::VolumeFile| {
        file.truncate(offset)?;
        file.write_at(offset - again.len() as u64, &again)?;
        file.write_at(offset, &tail)?;
        file.sync()
    };
    packs.with(pack, "seal a pack", write).await?;
    // Not before: what was read may be in the system's memory only, if it was a process that ended and not the machine.
    seal::index(meta, pack, &directory.entries).await?;
    seal::publish(meta, &directory, bytes).await?;
    Ok(directory.entries.len())
}

/// The chunks of an open pack: of all groups that were durable, and of those behind them up to the first that is not whole. What
/// was not durable may have come to the disk in any order, or not at all, and nobody was told of it. So many bytes are known to have
/// been `durable`: all of a pack that was sealed, none of one that a crash left open, whose groups say it themselves. Answers how many
/// are known to have been, too.
pub(super) fn read_groups(pack: PackId, bytes: &Bytes, durable: u64) -> Result<(Vec<Entry>, u64), StoreError> {
    let corrupt = |chunk: usize, what: &str| StoreError::Corrupt { pack, chunk: chunk as u32, what: what.to_owned() };
    if durable == 0 && !bytes.starts_with(MAGIC) {
        return Err(corrupt(0, "its first bytes are not a pack's"));
    }
    let mut groups = Vec::new();
    let mut at = MAGIC.len();
    while let Some(group) = group_at(pack, bytes, at) {
        at = group.end() as usize;
        groups.push(group);
    }
    let beyond = (at..bytes.len().saturating_sub(GROUP_START)).filter_map(|at| group_at(pack, bytes, at)).last();
    let durable = beyond.iter().chain(&groups).map(|group| group.durable).fold(durable, u64::max);
    if durable > at as u64 {
        let chunks = groups.iter().map(|group| group.entries.len()).sum();
        return Err(corrupt(chunks, "the head of a group that was durable is damaged"));
    }
    let mut decoder = Decoder::new();
    let mut entries = Vec::new();
    for group in groups {
        let is_whole = group.entries.iter().all(|entry| {
            let stored = bytes.slice(bytes.len().min(entry.offset as usize)..bytes.len().min(entry.end() as usize));
            verified(&mut decoder, entry, &stored).is_ok()
        });
        if group.end() > durable && !is_whole {
            break;
        }
        entries.extend(group.entries);
    }
    Ok((entries, durable))
}

/// The group whose head begins at `at`.
fn group_at(pack: PackId, bytes: &Bytes, at: usize) -> Option<Group> {
    let start = bytes.get(at..)?.first_chunk::<GROUP_START>()?;
    let head = bytes.get(at..at.checked_add(Group::peek(start)?)?)?;
    Group::decode(pack, at as u64, head).ok()
}
