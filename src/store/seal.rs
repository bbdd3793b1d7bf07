//! How a pack becomes durable, and how it is sealed: its bytes, then its row, then its index rows, then its directory. A
//! crash between any two of these leaves a pack that the next start seals.

use std::sync::Arc;

use super::faults::Fault;
use super::packer::{Filling, Tools};
use super::session::Failure;
use crate::format::manifest::Location;
use crate::format::pack::{Directory, Entry};
use crate::format::row::{self, PackRow, PackState, key};
use crate::meta::{Meta, Transaction};
use crate::model::PackId;
use crate::model::limit::TRANSACTION_KEYS_MAX;
use crate::sys::clock;
use crate::sys::worker::blocking;

/// Makes all that was appended so far durable, and writes the pack's row where it has none yet. Answers how many bytes
/// are durable.
pub(super) fn sync(tools: Tools, open: &Filling) -> impl Future<Output = Result<u64, Failure>> + Send + use<> {
    let (shared, file, end, has_row) = (open.shared.clone(), open.file.clone(), open.end, open.has_row);
    async move {
        let pack = shared.pack;
        let (packs, faults) = (tools.packs.clone(), tools.faults.clone());
        let synced = blocking(move || {
            if !faults.has(Fault::SkipSync) {
                file.sync()?;
            }
            if !has_row && !faults.has(Fault::SkipFolderSync) {
                packs.sync_folder(pack)?;
            }
            Ok::<(), std::io::Error>(())
        });
        synced.await.map_err(|error| Failure::of(&error))?.map_err(|error| Failure::of(&error))?;
        if !has_row {
            let row = PackRow::open(clock::now(), tools.activities.epoch());
            let tx =
                Transaction::new().put(key::pack(pack), row.encode()).put(key::filling(pack), row::encode_filling());
            tools.meta.commit(tx).await.map_err(|error| Failure::of(&error))?;
        }
        Ok(end)
    }
}

/// Seals a pack.
pub(super) async fn seal(tools: &Tools, open: &mut Filling) -> Result<(), Failure> {
    let shared = open.shared.clone();
    if shared.is_durable().bytes < open.end {
        let bytes = sync(tools.clone(), open).await?;
        open.has_row = true;
        shared.advance(bytes);
    }
    let directory = Directory { pack: shared.pack, entries: shared.entries() };
    index(tools.meta.as_ref(), directory.pack, &directory.entries).await?;
    let file = open.file.clone();
    let faults = tools.faults.clone();
    let directory = Arc::new(directory);
    let ended = directory.clone();
    let written = blocking(move || {
        let tail = ended.encode();
        // A seal that failed before may have left more behind than it writes now.
        file.truncate(ended.offset())?;
        file.write_at(ended.offset(), &tail)?;
        if !faults.has(Fault::SkipSync) {
            file.sync()?;
        }
        Ok::<u64, std::io::Error>(ended.offset() + tail.len() as u64)
    });
    let bytes = written.await.map_err(|error| Failure::of(&error))?.map_err(|error| Failure::of(&error))?;
    publish(tools.meta.as_ref(), &directory, bytes).await?;
    tools.session.end(&shared);
    Ok(())
}

/// Takes away a pack of which nothing is durable. Its row goes first: a commit that failed may have written it all the same, and
/// a row must never outlive its file. What fails here is taken up by the next start.
pub(super) async fn discard(tools: &Tools, pack: PackId) {
    let rows = Transaction::new().delete(key::pack(pack)).delete(key::filling(pack));
    let discarded = match tools.meta.commit(rows).await {
        Ok(()) => tools.packs.remove(pack).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = discarded {
        tracing::debug!(%error, %pack, "a pack that nobody needs could not be removed yet");
    }
}

/// Writes the index rows of a pack's chunks.
pub(super) async fn index(meta: &dyn Meta, pack: PackId, entries: &[Entry]) -> Result<(), Failure> {
    let numbered: Vec<(u32, &Entry)> = (0..).zip(entries).collect();
    let parts = numbered.chunks(TRANSACTION_KEYS_MAX).map(|part| {
        let tx = part.iter().fold(Transaction::new(), |tx, (chunk, entry)| {
            tx.put(key::chunk(&entry.digest), row::encode_location(Location { pack, chunk: *chunk }))
        });
        meta.commit(tx)
    });
    futures_util::future::try_join_all(parts).await.map_err(|error| Failure::of(&error))?;
    Ok(())
}

/// Says in the pack's row that it is sealed. The row may change at the same time: a writer relies on the pack.
pub(super) async fn publish(meta: &dyn Meta, directory: &Directory, bytes: u64) -> Result<(), Failure> {
    let key = key::pack(directory.pack);
    loop {
        let found = meta.get(&key).await.map_err(|error| Failure::of(&error))?;
        let Some(found) = found else { return Err(Failure::Other("the pack has lost its row".to_owned())) };
        let row = PackRow::decode(&found).map_err(|error| Failure::of(&error))?;
        let row = PackRow {
            state: PackState::Sealed,
            bytes,
            directory_offset: directory.offset(),
            chunks: directory.entries.len() as u32,
            raw_bytes: directory.raw_bytes(),
            ..row
        };
        let tx = Transaction::new()
            .expect(key.clone(), Some(found))
            .put(key.clone(), row.encode())
            .delete(key::filling(directory.pack));
        match meta.commit(tx).await {
            Err(crate::meta::MetaError::Conflict) => {}
            other => return other.map_err(|error| Failure::of(&error)),
        }
    }
}
