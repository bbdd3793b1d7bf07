//! What all parts of one simulation share: the count and the trace of its operations, the power that fails at one of
//! them, the faults, and the clock.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bedplate::sys::clock::Timestamp;
use bedplate::sys::double::Double;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::random::Random;

/// Operations that a failure prints.
const RECENT: usize = 60;
/// The simulation's clock begins in 2026.
const BEGIN: u64 = 1_767_225_600_000;

/// What goes wrong in a run, and how often; in thousandths of the operations that it can hit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A read, write or sync of a file fails once.
    pub volume_errors: u64,
    /// The metadata fails once; a commit that failed so may have happened.
    pub meta_errors: u64,
    /// A write finds the disk full, and so do all in the next while.
    pub full: u64,
    /// Work takes seconds instead of no time.
    pub slow: u64,
    /// A sync answers well and forgets what it should have kept: the promise of a lying disk.
    pub lost_writes: u64,
}

/// How an operation is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// As it should.
    Well,
    /// Not at all: this is what the caller is told.
    Fails(Cause),
    /// The power fails before it.
    CutBefore,
    /// The power fails after it; nobody is told that it ended.
    CutAfter,
}

impl Fate {
    fn number(self) -> u64 {
        match self {
            Self::Well => 0,
            Self::Fails(Cause::Broken) => 1,
            Self::Fails(Cause::Full) => 2,
            Self::CutBefore => 3,
            Self::CutAfter => 4,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Broken,
    Full,
}

impl From<Cause> for io::Error {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Broken => Self::other("simulated: the disk answered with an error"),
            Cause::Full => Self::new(io::ErrorKind::StorageFull, "simulated: no space is left"),
        }
    }
}

/// The power is off; nobody hears this.
pub(super) fn power_is_off() -> io::Error {
    io::Error::other("simulated: the power is off")
}

/// What an operation can suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposure {
    Reads,
    /// It needs space.
    Grows,
    /// It changes what is stored and needs none.
    Changes,
}

/// One operation, as the trace keeps it.
#[derive(Clone, Debug)]
struct Event {
    at: u64,
    number: u64,
    what: &'static str,
    name: String,
    from: u64,
    len: u64,
    fate: Fate,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, number, what, name, from, len, fate } = self;
        write!(f, "{:>10} ms  #{number:<6} {what:<12} {name} {from}+{len}", at - BEGIN)?;
        if *fate == Fate::Well { Ok(()) } else { write!(f, "  => {fate:?}") }
    }
}

enum Note {
    Event(Event),
    Text(u64, String),
}

struct State {
    chance: Random,
    delays: Random,
    entropy: Random,
    faults: Faults,
    full_until: u64,
    /// Power fails when as many operations have begun.
    cut_at: Option<u64>,
    is_cut: bool,
    operations: u64,
    trace: u64,
    recent: VecDeque<Note>,
    /// The clock when this life of the machine began, and since when that is.
    began: u64,
    since: Option<Instant>,
    last_now: u64,
    panics: Vec<String>,
}

/// The shared state; clones share it.
#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    cut: Arc<Notify>,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let state = State {
            chance: Random::new(seed, 1),
            delays: Random::new(seed, 2),
            entropy: Random::new(seed, 3),
            faults,
            full_until: 0,
            cut_at: None,
            is_cut: false,
            operations: 0,
            trace: seed,
            recent: VecDeque::new(),
            began: BEGIN,
            since: None,
            last_now: BEGIN,
            panics: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), cut: Arc::new(Notify::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine is switched on, within a runtime: power fails `cut_after` operations from now, or never.
    pub(super) fn switch_on(&self, cut_after: Option<u64>) {
        let mut state = self.lock();
        state.began = state.last_now + 1;
        state.since = Some(Instant::now());
        state.is_cut = false;
        state.cut_at = cut_after.map(|after| state.operations + after);
    }

    /// The machine was stopped without a power cut.
    pub(super) fn switch_off(&self) {
        let mut state = self.lock();
        state.now();
        state.since = None;
    }

    /// Takes away or gives back all faults; the power stays as it is.
    pub(super) fn set_faults(&self, faults: Faults) {
        let mut state = self.lock();
        state.faults = faults;
        state.full_until = 0;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Waits until the power fails.
    pub(super) async fn cut(&self) {
        loop {
            let cut = self.cut.notified();
            if self.is_cut() {
                return;
            }
            cut.await;
        }
    }

    /// An operation begins. None when there is no power to do anything.
    pub(super) fn begin(&self, what: &'static str, name: &str, from: u64, len: u64, exposed: Exposure) -> Option<Fate> {
        let mut state = self.lock();
        if state.is_cut {
            return None;
        }
        state.operations += 1;
        let fate = state.fate(what, exposed);
        let at = state.now();
        let event = Event { at, number: state.operations, what, name: name.to_owned(), from, len, fate };
        state.trace_text(what);
        state.trace_text(name);
        for number in [event.at, from, len, fate.number()] {
            state.trace_number(number);
        }
        state.remember(Note::Event(event));
        Some(fate)
    }

    /// The power goes.
    pub(super) fn power_fails(&self) {
        let mut state = self.lock();
        state.now();
        state.is_cut = true;
        state.since = None;
        let at = state.last_now;
        state.remember(Note::Text(at, "---- the power fails ----".to_owned()));
        drop(state);
        self.cut.notify_waiters();
    }

    /// Adds a line to the trace: what a client does, or what the store logs.
    pub(super) fn note(&self, text: String) {
        let mut state = self.lock();
        if state.is_cut {
            return;
        }
        let at = state.now();
        state.trace_number(at);
        state.trace_text(&text);
        state.remember(Note::Text(at, text));
    }

    /// Adds bytes' checksum to the trace.
    pub(super) fn trace(&self, bytes: &[u8]) {
        let sum = crc32c::crc32c(bytes);
        self.lock().trace_number(u64::from(sum));
    }

    /// A task of the store panicked.
    pub(super) fn panicked(&self, text: String) {
        self.lock().panics.push(text);
    }

    pub(super) fn panics(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().panics)
    }

    /// A chance of the world's own, in thousandths.
    pub(super) fn chance(&self, permille: u64) -> bool {
        self.lock().chance.chance(permille)
    }

    /// Calls `with` with the world's own randomness.
    pub(super) fn random<T>(&self, with: impl FnOnce(&mut Random) -> T) -> T {
        with(&mut self.lock().chance)
    }

    /// Whether a sync forgets a write that it should keep.
    pub(super) fn loses_write(&self) -> bool {
        let mut state = self.lock();
        let permille = state.faults.lost_writes;
        permille > 0 && state.chance.chance(permille)
    }

    /// Waits as long as an asynchronous operation takes.
    pub(super) async fn pause(&self) {
        let (turns, delay) = {
            let mut state = self.lock();
            (state.delays.below(3), state.delay())
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    pub(super) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The hash over all that happened.
    pub(super) fn trace_hash(&self) -> u64 {
        self.lock().trace
    }

    /// What happened last, a line each.
    pub(super) fn recent(&self) -> String {
        let state = self.lock();
        let line = |note: &Note| match note {
            Note::Event(event) => format!("{event}\n"),
            Note::Text(at, text) => format!("{:>10} ms  {text}\n", at - BEGIN),
        };
        state.recent.iter().map(line).collect()
    }
}

impl State {
    fn now(&mut self) -> u64 {
        if let Some(since) = self.since {
            self.last_now = self.began + since.elapsed().as_millis() as u64;
        }
        self.last_now
    }

    fn fate(&mut self, what: &'static str, exposed: Exposure) -> Fate {
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            return if self.chance.chance(500) { Fate::CutBefore } else { Fate::CutAfter };
        }
        let now = self.now();
        if exposed == Exposure::Grows {
            if now < self.full_until {
                return Fate::Fails(Cause::Full);
            }
            if self.faults.full > 0 && self.chance.chance(self.faults.full) {
                self.full_until = now + self.chance.spread(20_000);
                return Fate::Fails(Cause::Full);
            }
        }
        let permille = match exposed {
            _ if what.starts_with("meta") => self.faults.meta_errors,
            _ => self.faults.volume_errors,
        };
        if permille > 0 && self.chance.chance(permille) { Fate::Fails(Cause::Broken) } else { Fate::Well }
    }

    /// Most work takes no time at all, some a few milliseconds, little of it long.
    fn delay(&mut self) -> Duration {
        if self.faults.slow > 0 && self.delays.chance(self.faults.slow) {
            return Duration::from_millis(self.delays.spread(30_000));
        }
        match self.delays.below(4) {
            0 => Duration::from_millis(self.delays.spread(16)),
            _ => Duration::ZERO,
        }
    }

    fn remember(&mut self, note: Note) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(note);
    }

    fn trace_number(&mut self, number: u64) {
        self.trace = (self.trace ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn trace_text(&mut self, text: &str) {
        self.trace_number(u64::from(crc32c::crc32c(text.as_bytes())));
    }
}

impl Double for World {
    fn now(&self) -> Timestamp {
        Timestamp(self.lock().now())
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.lock().entropy.fill(bytes);
    }

    fn delay(&self) -> Duration {
        self.lock().delay()
    }
}
