//! The one writer of packs. All uploads hand it frames of new chunks; it appends them to one open pack, group by group,
//! makes the pack durable when somebody waits for it, and seals it when it is full. Uploads that wait at the same time
//! share one sync.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::activity::Activities;
use super::error::StoreError;
use super::faults::Faults;
use super::home::Packs;
use super::seal;
use super::session::{Failure, OpenPack, Session, Ticket, Tickets};
use crate::format::codec::Codec;
use crate::format::manifest::Location;
use crate::format::pack::{Entry, Group, MAGIC};
use crate::meta::Meta;
use crate::model::limit::PACK_CHUNKS_MAX;
use crate::model::{Digest, PackId};
use crate::sys::entropy;
use crate::sys::space::Need;
use crate::sys::volume::VolumeFile;
use crate::sys::worker::{Workers, blocking};

/// Runs that wait for the writer.
const QUEUE: usize = 16;
/// Packs that are sealed at the same time; the next waits.
const SEALS_MAX: usize = 2;
/// Between two tries to seal a pack, where the disk is full or fails.
const RETRY: Duration = Duration::from_secs(5);

/// Chunks that the store does not have yet, encoded together.
pub(super) struct NewFrame {
    pub(super) codec: Codec,
    pub(super) stored: Bytes,
    /// Digest and length of each chunk.
    pub(super) chunks: Vec<(Digest, u32)>,
    /// Whether it is to be stored although all of it is stored already.
    pub(super) again: bool,
}

/// Where a chunk was put, and how to wait for it.
pub(super) type Put = (Location, Ticket);

enum Command {
    Append { frames: Vec<NewFrame>, need: Need, reply: oneshot::Sender<Result<Vec<Put>, StoreError>> },
    Flush { needs: Vec<(PackId, u64)> },
    Seal { done: oneshot::Sender<()> },
    End { done: oneshot::Sender<()> },
}

/// Hands chunks to the writer of packs.
#[derive(Clone)]
pub(super) struct Packer {
    commands: mpsc::Sender<Command>,
    session: Session,
}

/// What the writer works with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) packs: Packs,
    pub(super) meta: Arc<dyn Meta>,
    pub(super) session: Session,
    pub(super) activities: Activities,
    pub(super) faults: Faults,
}

impl Packer {
    /// Starts the writer.
    pub(super) fn start(tools: Tools, workers: &Workers) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let session = tools.session.clone();
        let (sealed, seals) = mpsc::channel(SEALS_MAX);
        let writer =
            Writer { tools, workers: workers.clone(), open: None, sealing: 0, sealed, seals, waiting: VecDeque::new() };
        workers.spawn("pack writer", writer.run(inbox));
        Self { commands, session }
    }

    /// The chunks of open packs.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Appends frames to the open pack. Answers where each of their chunks is, in order. New data of clients stops before what makes
    /// room does.
    pub(super) async fn append(&self, frames: Vec<NewFrame>, need: Need) -> Result<Vec<Put>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Append { frames, need, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits until all that the tickets stand for is durable.
    pub(super) async fn flush(&self, tickets: Tickets) -> Result<(), StoreError> {
        if tickets.is_empty() {
            return Ok(());
        }
        let needs = tickets.needs();
        self.commands.send(Command::Flush { needs }).await.map_err(|_| StoreError::Closed)?;
        tickets.wait().await
    }

    /// Seals the open pack, so that it can be looked at and collected like any other.
    pub(super) async fn seal(&self) -> Result<(), StoreError> {
        let (done, ended) = oneshot::channel();
        self.commands.send(Command::Seal { done }).await.map_err(|_| StoreError::Closed)?;
        ended.await.map_err(|_| StoreError::Closed)
    }

    /// Ends the writer after all that was handed to it.
    pub(super) async fn end(&self) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::End { done }).await.is_ok() {
            let _ = ended.await;
        }
    }
}

type Sync = Pin<Box<dyn Future<Output = Result<u64, Failure>> + Send>>;

/// The pack that is being filled.
pub(super) struct Filling {
    pub(super) shared: Arc<OpenPack>,
    pub(super) file: Arc<dyn VolumeFile>,
    /// Where the next group begins.
    pub(super) end: u64,
    /// How far somebody waits for it.
    wanted: u64,
    /// Whether its row is written.
    pub(super) has_row: bool,
    syncing: Option<Sync>,
}

struct Writer {
    tools: Tools,
    workers: Workers,
    open: Option<Filling>,
    sealing: usize,
    sealed: mpsc::Sender<()>,
    seals: mpsc::Receiver<()>,
    /// Who waits until nothing is being sealed.
    waiting: VecDeque<oneshot::Sender<()>>,
}

enum Event {
    Command(Option<Command>),
    Synced(Result<u64, Failure>),
    Sealed,
    Closing,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let token = self.workers.token();
        loop {
            self.sync_if_wanted();
            if self.sealing == 0 {
                for done in self.waiting.drain(..) {
                    let _ = done.send(());
                }
            }
            let event = tokio::select! {
                biased;
                outcome = synced(&mut self.open) => Event::Synced(outcome),
                _ = self.seals.recv() => Event::Sealed,
                command = inbox.recv() => Event::Command(command),
                () = token.cancelled(), if !inbox.is_closed() => Event::Closing,
            };
            match event {
                Event::Synced(outcome) => self.synced(outcome),
                Event::Sealed => self.sealing -= 1,
                // No more is taken; what waits is still served, then `recv` answers none.
                Event::Closing => inbox.close(),
                Event::Command(Some(Command::Append { frames, need, reply })) => {
                    let outcome = self.append(frames, need).await;
                    let _ = reply.send(outcome);
                }
                Event::Command(Some(Command::Flush { needs })) => self.want(&needs),
                Event::Command(Some(Command::Seal { done })) => {
                    self.seal_open();
                    self.waiting.push_back(done);
                }
                Event::Command(Some(Command::End { done })) => {
                    self.finish().await;
                    let _ = done.send(());
                    return;
                }
                Event::Command(None) => return self.finish().await,
            }
        }
    }

    /// Seals what is open, and waits for all that is being sealed.
    async fn finish(&mut self) {
        self.seal_open();
        while self.sealing > 0 && self.seals.recv().await.is_some() {
            self.sealing -= 1;
        }
        self.waiting.clear();
    }

    fn want(&mut self, needs: &[(PackId, u64)]) {
        if let Some(open) = &mut self.open
            && let Some((_, need)) = needs.iter().find(|(pack, _)| *pack == open.shared.pack)
        {
            open.wanted = open.wanted.max(*need);
        }
    }

    fn sync_if_wanted(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.syncing.is_some() || open.wanted <= open.shared.is_durable().bytes {
            return;
        }
        open.syncing = Some(Box::pin(seal::sync(self.tools.clone(), open)));
    }

    fn synced(&mut self, outcome: Result<u64, Failure>) {
        let Some(open) = &mut self.open else { return };
        open.syncing = None;
        match outcome {
            Ok(bytes) => {
                open.has_row = true;
                open.shared.advance(bytes);
            }
            Err(failure) => self.give_up(failure),
        }
    }

    /// Stops to fill the open pack: what is durable of it is sealed, the rest is lost to who waits for it.
    fn give_up(&mut self, failure: Failure) {
        let Some(mut open) = self.open.take() else { return };
        tracing::error!(pack = %open.shared.pack, ?failure, "a pack could not be made durable");
        if self.tools.session.give_up(&open.shared, failure) {
            open.end = open.shared.is_durable().bytes;
            self.seal(open);
        } else {
            let (tools, pack) = (self.tools.clone(), open.shared.pack);
            self.workers.spawn("pack removal", async move { seal::discard(&tools, pack).await });
        }
    }

    async fn append(&mut self, frames: Vec<NewFrame>, need: Need) -> Result<Vec<Put>, StoreError> {
        let (session, packs) = (self.tools.session.clone(), self.tools.packs.clone());
        let pack_bytes = packs.pack_bytes;
        let mut placed = Vec::new();
        let mut frames = VecDeque::from(frames);
        while !frames.is_empty() {
            // A frame whose chunks have come meanwhile from elsewhere is not stored twice.
            if let Some(known) = frames.front().filter(|frame| !frame.again).and_then(|frame| self.known(frame)) {
                placed.extend(known);
                frames.pop_front();
                continue;
            }
            let open = match &mut self.open {
                Some(open) => open,
                None => self.begin().await?,
            };
            let (group, stored) = take_group(open, pack_bytes, &mut frames);
            if group.entries.is_empty() {
                self.wait_for_seals().await;
                self.seal_open();
                continue;
            }
            let (file, packs) = (open.file.clone(), packs.clone());
            let (at, head) = (open.end, group.encode(open.shared.pack));
            let written = blocking(move || {
                packs.admit(need)?;
                file.write_at(at, &head)?;
                let mut at = at + head.len() as u64;
                for bytes in &stored {
                    file.write_at(at, bytes)?;
                    at += bytes.len() as u64;
                }
                Ok(())
            });
            // A group that could not be written is written over by the next one.
            let written = written.await.map_err(StoreError::step)?;
            written.map_err(|error| StoreError::volume("write a pack", error))?;
            open.end = group.end();
            placed.extend(session.append(&open.shared, &group.entries));
        }
        Ok(placed)
    }

    fn known(&self, frame: &NewFrame) -> Option<Vec<Put>> {
        let digests: Vec<Digest> = frame.chunks.iter().map(|(digest, _)| *digest).collect();
        self.tools.session.find(&digests).into_iter().collect()
    }

    /// Begins a pack.
    async fn begin(&mut self) -> Result<&mut Filling, StoreError> {
        let pack = PackId(entropy::fresh_id());
        let packs = self.tools.packs.clone();
        let shared = Arc::new(OpenPack::new(pack));
        // Before there is a file: a file that is in no session and has no row is an orphan to the collector.
        self.tools.session.begin(shared.clone());
        let made = blocking(move || {
            let file = packs.create(pack)?;
            file.write_at(0, MAGIC)?;
            Ok(file)
        });
        let made = made.await.map_err(StoreError::step);
        let made = made.and_then(|made| made.map_err(|error| StoreError::volume("begin a pack", error)));
        let file = made.inspect_err(|_| self.tools.session.end(&shared))?;
        let end = MAGIC.len() as u64;
        Ok(self.open.insert(Filling { shared, file, end, wanted: 0, has_row: false, syncing: None }))
    }

    /// Waits until another pack may be sealed.
    async fn wait_for_seals(&mut self) {
        while self.sealing >= SEALS_MAX && self.seals.recv().await.is_some() {
            self.sealing -= 1;
        }
    }

    fn seal_open(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.shared.len() == 0 {
            let (tools, pack) = (self.tools.clone(), open.shared.pack);
            self.tools.session.end(&open.shared);
            self.workers.spawn("pack removal", async move { seal::discard(&tools, pack).await });
            return;
        }
        self.seal(open);
    }

    /// Starts to seal a pack; tries again until it is done or the program ends. The next start takes up what is left.
    fn seal(&mut self, mut open: Filling) {
        self.sealing += 1;
        let (tools, sealed, token) = (self.tools.clone(), self.sealed.clone(), self.workers.token());
        self.workers.spawn("pack sealing", async move {
            if let Some(sync) = open.syncing.take()
                && let Ok(bytes) = sync.await
            {
                open.has_row = true;
                open.shared.advance(bytes);
            }
            while let Err(failure) = seal::seal(&tools, &mut open).await {
                let pack = open.shared.pack;
                tracing::error!(%pack, ?failure, "a pack could not be sealed");
                // Who waits for bytes that could not be made durable must not wait for the next try.
                if !tools.session.give_up(&open.shared, failure) {
                    seal::discard(&tools, pack).await;
                    break;
                }
                open.end = open.shared.is_durable().bytes;
                tokio::select! {
                    biased;
                    () = token.cancelled() => break,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
            let _ = sealed.send(()).await;
        });
    }
}

/// Waits for the sync of the open pack; for ever, where there is none.
async fn synced(open: &mut Option<Filling>) -> Result<u64, Failure> {
    match open.as_mut().and_then(|open| open.syncing.as_mut()) {
        Some(sync) => sync.await,
        None => std::future::pending().await,
    }
}

/// Takes as many frames as fit the open pack, as one group, and their bytes.
fn take_group(open: &Filling, pack_bytes: u64, frames: &mut VecDeque<NewFrame>) -> (Group, Vec<Bytes>) {
    let (mut count, mut bytes, mut chunks) = (0, 0, 0);
    for frame in frames.iter() {
        let head = Group::head_len(chunks + frame.chunks.len()) as u64;
        let fits = open.end + head + bytes + frame.stored.len() as u64 <= pack_bytes
            && open.shared.len() + chunks + frame.chunks.len() <= PACK_CHUNKS_MAX;
        if !fits {
            break;
        }
        count += 1;
        bytes += frame.stored.len() as u64;
        chunks += frame.chunks.len();
    }
    let mut offset = open.end + Group::head_len(chunks) as u64;
    let mut group = Group { durable: open.shared.is_durable().bytes, entries: Vec::with_capacity(chunks) };
    let mut stored = Vec::with_capacity(count);
    for frame in frames.drain(..count) {
        let stored_len = frame.stored.len() as u32;
        let mut within = 0;
        for (digest, raw_len) in frame.chunks {
            group.entries.push(Entry { digest, offset, stored_len, raw_len, codec: frame.codec, within });
            within += raw_len;
        }
        offset += u64::from(stored_len);
        stored.push(frame.stored);
    }
    (group, stored)
}
