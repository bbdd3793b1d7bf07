//! Who may use a scarce thing, in the order in which they came, and who has to give it up for them.
//!
//! A client that neither sends nor takes bytes holds on to memory. It may, for as long as nobody else needs it. Once
//! somebody waits, whoever has kept us waiting longest is cut, and tries again later.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A client may keep us waiting for so long, all pauses together, before others who wait are preferred.
const CREDIT: Duration = Duration::from_secs(1);
/// What is left of that when very many wait.
const CREDIT_MIN: Duration = Duration::from_millis(250);
/// Bytes a second that keep a client's credit as it is.
const RATE: u64 = 64 * 1024;
/// Who waits behind so many is sent away at once.
const WAITING_MAX: usize = 512;
/// Who has waited for so long is sent away.
const WAIT_MAX: Duration = Duration::from_secs(50);
/// How often one who waits looks for a seat to be given up.
const LOOK: Duration = Duration::from_millis(50);

/// Too many want the same thing: try again later.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many requests are under way")]
pub struct Crowded;

/// How one client keeps up; clones share it.
#[derive(Clone)]
pub struct Pulse {
    state: Arc<Mutex<State>>,
    cut: CancellationToken,
}

struct State {
    /// Since when it is the client's turn to send or to take.
    waiting_since: Option<Instant>,
    /// What is left of the client's credit, when it began to be its turn.
    credit: Duration,
}

impl Pulse {
    /// `cut` is cancelled when the client has to go.
    #[must_use]
    pub fn new(cut: CancellationToken) -> Self {
        Self { state: Arc::new(Mutex::new(State { waiting_since: None, credit: CREDIT })), cut }
    }

    /// It is the client's turn. Where it is to take `bytes`, it has the time for them besides.
    pub fn turn(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.credit = state.credit.min(CREDIT) + time_for(bytes);
        state.waiting_since.get_or_insert_with(Instant::now);
    }

    /// The client has done its part, and sent `bytes`.
    pub fn done(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = state.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        state.credit = (state.credit.saturating_sub(waited) + time_for(bytes)).min(CREDIT);
    }

    /// Resolves once the client has to go.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Whether the client has to go.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// For how long the client has kept us waiting beyond its credit, of which `discount` is taken away.
    fn overdue(&self, now: Instant, discount: Duration) -> Option<Duration> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (now.duration_since(state.waiting_since?) + discount).checked_sub(state.credit)
    }
}

/// The time that `bytes` take at [`RATE`].
fn time_for(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / RATE)
}

/// A number of seats; clones share them.
#[derive(Clone)]
pub struct Lane(Arc<Inner>);

struct Inner {
    count: usize,
    seats: Arc<Semaphore>,
    waiting: AtomicUsize,
    seated: Mutex<Seated>,
}

#[derive(Default)]
struct Seated {
    next: u64,
    held: Vec<Held>,
}

struct Held {
    number: u64,
    pulse: Pulse,
    leaving: bool,
}

/// One or more seats, given back when dropped.
pub struct Seat {
    lane: Lane,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seated = self.lane.0.seated.lock().unwrap_or_else(PoisonError::into_inner);
        seated.held.retain(|held| held.number != self.number);
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lane {
    /// A lane of so many seats.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let (seats, waiting) = (Arc::new(Semaphore::new(count)), AtomicUsize::new(0));
        Self(Arc::new(Inner { count, seats, waiting, seated: Mutex::default() }))
    }

    /// Waits for `count` seats, at most [`WAIT_MAX`]. While they are held, `pulse` tells whether they are used.
    pub async fn enter(&self, count: u32, pulse: &Pulse) -> Result<Seat, Crowded> {
        let inner = &*self.0;
        if inner.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            inner.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Crowded);
        }
        let _waiting = Waiting(&inner.waiting);
        let deadline = Instant::now() + WAIT_MAX;
        let mut turn = std::pin::pin!(inner.seats.clone().acquire_many_owned(count));
        let permit = loop {
            tokio::select! {
                biased;
                permit = turn.as_mut() => break permit.map_err(|_| Crowded)?,
                () = pulse.cut() => return Err(Crowded),
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Crowded);
            }
            self.make_room(now);
        };
        let mut seated = inner.seated.lock().unwrap_or_else(PoisonError::into_inner);
        seated.next += 1;
        let number = seated.next;
        seated.held.push(Held { number, pulse: pulse.clone(), leaving: false });
        Ok(Seat { lane: self.clone(), number, _permit: permit })
    }

    /// Cuts whoever is overdue most, unless as many are leaving as are waiting.
    fn make_room(&self, now: Instant) {
        let mut seated = self.0.seated.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = seated.held.iter().filter(|held| held.leaving).count();
        let waiting = self.0.waiting.load(Ordering::Relaxed);
        if leaving >= waiting {
            return;
        }
        // The longer the queue, the less patience with those who hold it up.
        let rounds = u32::try_from(1 + waiting / self.0.count.max(1)).unwrap_or(u32::MAX);
        let discount = CREDIT - (CREDIT / rounds).max(CREDIT_MIN);
        let staying = seated.held.iter_mut().filter(|held| !held.leaving);
        let overdue = staying.filter_map(|held| Some((held.pulse.overdue(now, discount)?, held)));
        if let Some((_, held)) = overdue.max_by_key(|(by, _)| *by) {
            held.leaving = true;
            held.pulse.cut.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Seats go to whoever came first; who keeps a seat without using it loses it to one who waits, and only then.
    use super::*;

    fn pulse() -> Pulse {
        Pulse::new(CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_seat_is_given_up_when_somebody_waits() {
        let lane = Lane::new(1);
        let (idle, other) = (pulse(), pulse());
        let seat = lane.enter(1, &idle).await.unwrap_or_else(|_| unreachable!());
        idle.turn(0);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!idle.cut.is_cancelled(), "nobody waited");
        let leave = async {
            idle.cut().await;
            drop(seat);
        };
        let (entered, ()) = tokio::join!(lane.enter(1, &other), leave);
        assert!(entered.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_uses_a_seat_keeps_it() {
        let lane = Lane::new(1);
        let (busy, other) = (pulse(), pulse());
        let _seat = lane.enter(1, &busy).await;
        let work = async {
            for _ in 0..300 {
                busy.turn(0);
                tokio::time::sleep(Duration::from_millis(300)).await;
                busy.done(RATE);
            }
        };
        let (entered, ()) = tokio::join!(lane.enter(1, &other), work);
        assert!(entered.is_err() && !busy.cut.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_not_use() {
        let lane = Lane::new(1);
        let (trickle, other) = (pulse(), pulse());
        let seat = lane.enter(1, &trickle).await;
        let send = async {
            while !trickle.cut.is_cancelled() {
                trickle.turn(0);
                tokio::time::sleep(Duration::from_millis(300)).await;
                trickle.done(1);
            }
            drop(seat);
        };
        let (entered, ()) = tokio::join!(lane.enter(1, &other), send);
        assert!(entered.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_piece_may_take_its_time() {
        let lane = Lane::new(1);
        let (slow, other) = (pulse(), pulse());
        let _seat = lane.enter(1, &slow).await;
        slow.turn(RATE * 100);
        assert!(lane.enter(1, &other).await.is_err() && !slow.cut.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_sends_away() {
        let lane = Lane::new(1);
        let _seat = lane.enter(1, &pulse()).await;
        let many: Vec<_> = (0..=WAITING_MAX).map(|_| pulse()).collect();
        let before = Instant::now();
        let mut waits: Vec<_> = many.iter().map(|pulse| Box::pin(lane.enter(1, pulse))).collect();
        let (first, ..) = futures_util::future::select_all(waits.drain(..)).await;
        assert!(first.is_err() && before.elapsed() < Duration::from_millis(10));
    }
}
