//! The one writer of packs. All uploads hand it runs of new chunks; it fills one open pack with them, seals the pack when
//! it is full or somebody waits for it, and publishes it: pack durable, then its row and its chunks' index rows. Uploads
//! that wait at the same time share one sealing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::error::{StoreError, is_full};
use super::home::{PackWriter, Packs};
use crate::format::codec::Codec;
use crate::format::manifest::Location;
use crate::format::pack::{self, Directory, Entry};
use crate::format::row::{self, PackRow, key};
use crate::meta::{Meta, Transaction};
use crate::model::limit::{PACK_CHUNKS_MAX, PACK_TARGET, TRANSACTION_KEYS_MAX};
use crate::model::{Digest, PackId};
use crate::sys::worker::Workers;
use crate::sys::{clock, entropy};

/// Runs that wait for the writer.
const QUEUE: usize = 16;
/// Packs that are sealed at the same time: one syncs while the next fills.
const SEALS_MAX: usize = 2;

/// A chunk that the store does not have yet, encoded.
pub(super) struct NewChunk {
    pub(super) digest: Digest,
    pub(super) raw_len: u32,
    pub(super) codec: Codec,
    pub(super) stored: Bytes,
}

/// Why a pack did not become durable; told to every upload that needs it.
#[derive(Clone, Debug)]
enum SealFailure {
    DiskFull,
    Closed,
    Other(String),
}

impl SealFailure {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        if is_full(error) {
            return Self::DiskFull;
        }
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        Self::Other(text)
    }
}

impl From<SealFailure> for StoreError {
    fn from(failure: SealFailure) -> Self {
        match failure {
            SealFailure::DiskFull => Self::DiskFull,
            SealFailure::Closed => Self::Closed,
            SealFailure::Other(text) => Self::Io { action: "write a pack", source: text.into() },
        }
    }
}

type Sealed = Option<Result<(), SealFailure>>;

/// A pack that is not durable yet: who needs a chunk of it waits for it.
#[derive(Clone)]
pub(super) struct Ticket {
    sealed: watch::Receiver<Sealed>,
}

impl Ticket {
    /// Waits until the pack is durable and published.
    async fn wait(mut self) -> Result<(), StoreError> {
        match self.sealed.wait_for(Option::is_some).await {
            Ok(sealed) => sealed.clone().unwrap_or(Err(SealFailure::Closed)).map_err(StoreError::from),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

/// Chunks of packs that are not published yet.
type Session = Arc<Mutex<HashMap<Digest, (Location, Ticket)>>>;

enum Command {
    Append { chunks: Vec<NewChunk>, reply: oneshot::Sender<Result<Vec<(Location, Ticket)>, StoreError>> },
    Flush { packs: Vec<PackId> },
    End { done: oneshot::Sender<()> },
}

/// Hands chunks to the writer of packs.
#[derive(Clone)]
pub(super) struct Packer {
    commands: mpsc::Sender<Command>,
    session: Session,
}

impl Packer {
    /// Starts the writer.
    pub(super) fn start(packs: Packs, meta: Arc<dyn Meta>, workers: &Workers) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let session = Session::default();
        let sealing = Arc::new(Sealing { count: AtomicUsize::new(0), ended: Notify::new() });
        let writer = Writer { packs, meta, workers: workers.clone(), session: session.clone(), sealing, open: None };
        workers.spawn("pack writer", writer.run(inbox));
        Self { commands, session }
    }

    /// Where a chunk is, if it is in a pack that is not published yet.
    pub(super) fn find(&self, digests: &[Digest]) -> Vec<Option<(Location, Ticket)>> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        digests.iter().map(|digest| session.get(digest).cloned()).collect()
    }

    /// Puts chunks into the open pack; one that has come meanwhile from elsewhere is not stored twice.
    pub(super) async fn append(&self, chunks: Vec<NewChunk>) -> Result<Vec<(Location, Ticket)>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Append { chunks, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits until these packs are durable and published.
    pub(super) async fn flush(&self, tickets: HashMap<PackId, Ticket>) -> Result<(), StoreError> {
        if tickets.is_empty() {
            return Ok(());
        }
        let packs = tickets.keys().copied().collect();
        self.commands.send(Command::Flush { packs }).await.map_err(|_| StoreError::Closed)?;
        for ticket in tickets.into_values() {
            ticket.wait().await?;
        }
        Ok(())
    }

    /// Ends the writer after all that was handed to it.
    pub(super) async fn end(&self) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::End { done }).await.is_ok() {
            let _ = ended.await;
        }
    }
}

struct Sealing {
    count: AtomicUsize,
    ended: Notify,
}

struct Writer {
    packs: Packs,
    meta: Arc<dyn Meta>,
    workers: Workers,
    session: Session,
    sealing: Arc<Sealing>,
    open: Option<Open>,
}

/// The pack that is being filled.
struct Open {
    directory: Directory,
    writer: PackWriter,
    end: u64,
    sealed: watch::Sender<Sealed>,
    ticket: Ticket,
    wanted: bool,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let token = self.workers.token();
        loop {
            let wanted = self.open.as_ref().is_some_and(|open| open.wanted);
            if wanted && inbox.is_empty() && self.sealing.count.load(Ordering::Acquire) < SEALS_MAX {
                self.seal();
                continue;
            }
            let command = tokio::select! {
                command = inbox.recv() => command,
                () = self.sealing.ended.notified() => continue,
                // No more is taken; what waits is still served, then `recv` answers none.
                () = token.cancelled(), if !inbox.is_closed() => {
                    inbox.close();
                    continue;
                }
            };
            match command {
                Some(Command::Append { chunks, reply }) => {
                    let outcome = self.append(chunks).await;
                    let _ = reply.send(outcome);
                }
                Some(Command::Flush { packs }) => {
                    if let Some(open) = &mut self.open {
                        open.wanted |= packs.contains(&open.directory.pack);
                    }
                }
                Some(Command::End { done }) => {
                    self.finish().await;
                    let _ = done.send(());
                    return;
                }
                None => return self.finish().await,
            }
        }
    }

    /// Seals what is open, and waits for all sealings.
    async fn finish(&mut self) {
        self.seal();
        while self.sealing.count.load(Ordering::Acquire) > 0 {
            self.sealing.ended.notified().await;
        }
    }

    async fn append(&mut self, chunks: Vec<NewChunk>) -> Result<Vec<(Location, Ticket)>, StoreError> {
        let mut placed = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let known = self.session.lock().unwrap_or_else(PoisonError::into_inner).get(&chunk.digest).cloned();
            let at = match known {
                Some(at) => at,
                None => self.append_one(chunk).await?,
            };
            placed.push(at);
        }
        Ok(placed)
    }

    async fn append_one(&mut self, chunk: NewChunk) -> Result<(Location, Ticket), StoreError> {
        let full = self.open.as_ref().is_some_and(|open| {
            open.end + chunk.stored.len() as u64 > PACK_TARGET || open.directory.entries.len() == PACK_CHUNKS_MAX
        });
        if full {
            while self.sealing.count.load(Ordering::Acquire) >= SEALS_MAX {
                self.sealing.ended.notified().await;
            }
            self.seal();
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::new(&self.packs)),
        };
        let entry = Entry {
            digest: chunk.digest,
            offset: open.end,
            stored_len: chunk.stored.len() as u32,
            raw_len: chunk.raw_len,
            codec: chunk.codec,
        };
        if let Err(error) = open.writer.push(chunk.stored).await {
            let failure = SealFailure::of(&error);
            self.give_up(failure.clone()).await;
            return Err(failure.into());
        }
        open.end = entry.end();
        let at = Location { pack: open.directory.pack, chunk: open.directory.entries.len() as u32 };
        open.directory.entries.push(entry);
        let placed = (at, open.ticket.clone());
        self.session.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.digest, placed.clone());
        Ok(placed)
    }

    /// Drops the open pack: everyone who needs it is told why.
    async fn give_up(&mut self, failure: SealFailure) {
        let Some(open) = self.open.take() else { return };
        forget(&self.session, &open.directory);
        open.sealed.send_replace(Some(Err(failure)));
        open.writer.abort().await;
    }

    /// Starts to seal the open pack.
    fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.sealing.count.fetch_add(1, Ordering::AcqRel);
        let (meta, session, sealing) = (self.meta.clone(), self.session.clone(), self.sealing.clone());
        self.workers.spawn("pack sealing", async move {
            let Open { directory, writer, sealed, .. } = open;
            let outcome = seal(&directory, writer, meta.as_ref()).await;
            if let Err(failure) = &outcome {
                tracing::error!(pack = %directory.pack, ?failure, "a pack could not be written");
            }
            forget(&session, &directory);
            sealed.send_replace(Some(outcome));
            sealing.count.fetch_sub(1, Ordering::AcqRel);
            sealing.ended.notify_one();
        });
    }
}

impl Open {
    fn new(packs: &Packs) -> Self {
        let pack = PackId(entropy::fresh_id());
        let (sealed, receiver) = watch::channel(None);
        Self {
            directory: Directory { pack, entries: Vec::new() },
            writer: packs.create(pack),
            end: pack::MAGIC.len() as u64,
            sealed,
            ticket: Ticket { sealed: receiver },
            wanted: false,
        }
    }
}

/// Removes a pack's chunks from the session: from here on the index has them, or nobody.
fn forget(session: &Session, directory: &Directory) {
    let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
    for entry in &directory.entries {
        if session.get(&entry.digest).is_some_and(|(at, _)| at.pack == directory.pack) {
            session.remove(&entry.digest);
        }
    }
}

/// Writes directory and footer, makes the pack durable, then publishes its row and its index rows.
async fn seal(directory: &Directory, mut writer: PackWriter, meta: &dyn Meta) -> Result<(), SealFailure> {
    let tail = Bytes::from(directory.encode());
    let bytes = directory.offset() + tail.len() as u64;
    writer.push(tail).await.map_err(|error| SealFailure::of(&error))?;
    writer.finish().await.map_err(|error| SealFailure::of(&error))?;
    let row = PackRow {
        bytes,
        directory_offset: directory.offset(),
        chunks: directory.entries.len() as u32,
        raw_bytes: directory.raw_bytes(),
        created: clock::now(),
    };
    // The pack's row goes first: an index row must never name a pack that has none.
    let numbered: Vec<(u32, &Entry)> = (0..).zip(&directory.entries).collect();
    let (head, rest) = numbered.split_at(numbered.len().min(TRANSACTION_KEYS_MAX - 1));
    let first = Transaction::new().put(key::pack(directory.pack), row.encode());
    let index = |tx: Transaction, part: &[(u32, &Entry)]| {
        part.iter().fold(tx, |tx, (chunk, entry)| {
            let at = Location { pack: directory.pack, chunk: *chunk };
            tx.put(key::chunk(&entry.digest), row::encode_location(at))
        })
    };
    meta.commit(index(first, head)).await.map_err(|error| SealFailure::of(&error))?;
    let parts = rest.chunks(TRANSACTION_KEYS_MAX).map(|part| meta.commit(index(Transaction::new(), part)));
    futures_util::future::try_join_all(parts).await.map_err(|error| SealFailure::of(&error))?;
    Ok(())
}
