//! The database's life in its folder: writes are refused while the disk has too little room, and a database that met a full
//! disk all the same is opened anew when there is room again.
//!
//! The engine refuses every write after one that failed, and does not know whether the failed one will be found when its
//! journal is read again. Here a transaction that was told to have failed has failed: what was there before it is noted,
//! and written again if it turns out to be there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::PersistMode;

use super::MetaError;
use super::tables::{Tables, engine, is_full};
use crate::sys::folder::{self, FolderLock};
use crate::sys::space::{self, Need, Reserve, Space};

/// What opening anew needs at least, whatever the reserve: the engine writes while it opens.
const OPEN_BYTES: u64 = 16 * 1024 * 1024;
/// Between two tries to open anew.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// How long readers of the old tables may take to leave them.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at whether they have left.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The changes of a group of transactions.
pub(super) type Changes = HashMap<Vec<u8>, Option<Bytes>>;

/// How the database is, as its one writer knows it.
#[derive(Default)]
pub(super) struct Health {
    failed: Option<Failed>,
}

/// The engine takes no more writes.
struct Failed {
    /// Whether a full disk was the cause: then it is opened anew.
    full: bool,
    /// What the rows of the failed group were before it.
    before: Changes,
    tried: Option<Instant>,
}

/// Why a write is refused. It is told to every member of a group, so its error is made more than once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    DiskFull,
    Closed,
    Engine(&'static str),
}

/// An engine that failed earlier, and why it was not opened anew.
#[derive(Debug, thiserror::Error)]
#[error("it {0}; the log around the first failure has the cause")]
struct Broken(&'static str);

impl Refusal {
    pub(super) fn error(&self) -> MetaError {
        match self {
            Self::DiskFull => MetaError::DiskFull,
            Self::Closed => MetaError::Closed,
            Self::Engine(why) => MetaError::Engine { action: "commit", source: Box::new(Broken(why)) },
        }
    }
}

enum State {
    Open(Arc<Tables>),
    /// It is being opened anew: readers wait.
    Opening,
    /// It could not be opened anew yet.
    Down,
    Closed,
}

/// The folder, and the database in it.
pub(super) struct Home {
    dir: PathBuf,
    reserve: Reserve,
    lock: Arc<FolderLock>,
    state: Mutex<State>,
    opened: Condvar,
}

impl Home {
    pub(super) fn open(dir: &Path, reserve: Reserve) -> Result<Self, MetaError> {
        let disk = |source| MetaError::Engine { action: "make its folder", source: Box::new(source) };
        folder::create(dir).map_err(disk)?;
        let lock = Arc::new(FolderLock::take(dir)?);
        let tables = Arc::new(Tables::open(dir, lock.clone()).map_err(engine("open"))?);
        let state = Mutex::new(State::Open(tables));
        Ok(Self { dir: dir.to_owned(), reserve, lock, state, opened: Condvar::new() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open tables. Blocks while they are opened anew.
    pub(super) fn tables(&self) -> Result<Arc<Tables>, MetaError> {
        let opening = |state: &mut State| matches!(state, State::Opening);
        let state = self.opened.wait_while(self.state(), opening).unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(tables) => Ok(tables.clone()),
            State::Closed => Err(MetaError::Closed),
            State::Opening | State::Down => Err(MetaError::DiskFull),
        }
    }

    /// The tables, where they are open just now.
    pub(super) fn open_tables(&self) -> Option<Arc<Tables>> {
        match &*self.state() {
            State::Open(tables) => Some(tables.clone()),
            _ => None,
        }
    }

    fn put(&self, state: State) {
        *self.state() = state;
        self.opened.notify_all();
    }

    /// Room on the disk; a disk that does not say has all that is needed.
    fn space(&self) -> Space {
        space::of(&self.dir).unwrap_or(Space { free: u64::MAX, total: u64::MAX })
    }

    /// The tables, if a group may be written now; opens them anew where that is due.
    pub(super) fn admit(&self, health: &mut Health) -> Result<Arc<Tables>, Refusal> {
        if matches!(*self.state(), State::Closed) {
            return Err(Refusal::Closed);
        }
        let space = self.space();
        let admitted = self.reserve.admits(space, Need::Upkeep);
        if let Some(failed) = &mut health.failed {
            if !failed.full {
                return Err(Refusal::Engine("failed before, and not for want of room"));
            }
            let due = failed.tried.is_none_or(|tried| tried.elapsed() >= TRY_EVERY);
            if !admitted || space.free < OPEN_BYTES || !due {
                return Err(Refusal::DiskFull);
            }
            failed.tried = Some(Instant::now());
            if let Err(error) = self.open_anew(&failed.before) {
                tracing::warn!(%error, "the metadata database could not be opened anew yet");
                return Err(if matches!(error, MetaError::Closed) { Refusal::Closed } else { Refusal::DiskFull });
            }
            health.failed = None;
            tracing::info!("there is room again: the metadata database takes writes again");
        }
        if !admitted {
            return Err(Refusal::DiskFull);
        }
        self.tables()
            .map_err(|error| if matches!(error, MetaError::Closed) { Refusal::Closed } else { Refusal::DiskFull })
    }

    /// Writes a group's changes as one batch of the engine.
    pub(super) fn write(&self, health: &mut Health, tables: &Tables, changes: &Changes) -> Result<(), Refusal> {
        let Err(error) = commit(tables, changes) else { return Ok(()) };
        tracing::error!(%error, "the metadata database could not commit");
        // A worker of the engine's own failed before, and this group was not begun: room is the likeliest cause by far, and
        // to open anew harms nothing where it was another.
        let refused = matches!(error, fjall::Error::Poisoned);
        let mut before = Changes::new();
        for key in changes.keys() {
            match tables.get(key) {
                Ok(value) => drop(before.insert(key.clone(), value)),
                Err(error) => {
                    tracing::error!(%error, "what a failed commit was to change cannot be read");
                    health.failed = Some(Failed { full: false, before: Changes::new(), tried: None });
                    return Err(Refusal::Engine("failed, and could not be read"));
                }
            }
        }
        let full = refused || is_full(&error);
        health.failed = Some(Failed { full, before, tried: None });
        Err(if full { Refusal::DiskFull } else { Refusal::Engine("failed to write its journal") })
    }

    /// Lets go of the database and opens it again; rows that a failed commit may have left are as before it afterwards.
    fn open_anew(&self, before: &Changes) -> Result<(), MetaError> {
        match std::mem::replace(&mut *self.state(), State::Opening) {
            State::Open(tables) => {
                let since = Instant::now();
                while Arc::strong_count(&tables) > 1 {
                    if since.elapsed() > LEAVE_LIMIT {
                        self.put(State::Open(tables));
                        return Err(MetaError::DiskFull);
                    }
                    std::thread::sleep(LOOK_EVERY);
                }
                drop(tables);
            }
            State::Closed => {
                self.put(State::Closed);
                return Err(MetaError::Closed);
            }
            State::Opening | State::Down => {}
        }
        match self.open_as_before(before) {
            Ok(tables) => {
                self.put(State::Open(Arc::new(tables)));
                Ok(())
            }
            Err(error) => {
                self.put(State::Down);
                Err(engine("open")(error))
            }
        }
    }

    fn open_as_before(&self, before: &Changes) -> fjall::Result<Tables> {
        let tables = Tables::open(&self.dir, self.lock.clone())?;
        let mut wrong = Changes::new();
        for (key, value) in before {
            let found = tables.keyspace(key).get(key)?;
            if found.as_deref() != value.as_deref() {
                wrong.insert(key.clone(), value.clone());
            }
        }
        commit(&tables, &wrong)?;
        // What was read out of the old journal is in tables now, and no longer only there.
        for keyspace in [&tables.rows, &tables.index] {
            keyspace.rotate_memtable()?;
        }
        Ok(tables)
    }

    /// Flushes everything and lets go of it.
    pub(super) fn close(&self, health: &Health) -> Result<(), fjall::Error> {
        let State::Open(tables) = std::mem::replace(&mut *self.state(), State::Closed) else { return Ok(()) };
        // The engine would wait for ever for workers that have ended.
        if health.failed.is_some() {
            return Ok(());
        }
        tables.database.persist(PersistMode::SyncAll)?;
        for keyspace in [&tables.rows, &tables.index] {
            keyspace.rotate_memtable_and_wait()?;
        }
        Ok(())
    }
}

/// Writes changes as one batch, and shows them to readers. There is one writer at a time.
fn commit(tables: &Tables, changes: &Changes) -> fjall::Result<()> {
    let mut batch = tables.database.batch().durability(Some(PersistMode::SyncAll));
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(tables.keyspace(key), key.as_slice(), &value[..]),
            None => batch.remove(tables.keyspace(key), key.as_slice()),
        }
    }
    batch.commit()?;
    tables.publish();
    Ok(())
}
