//! Reads of single rows, done away from the async threads by as few threads as will do: handing one read to a thread of its own costs
//! many times a read that is answered from memory.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::MetaError;
use super::home::Home;

/// Reads that one reader may have before it, so that the next starts another; up to as many readers as there are cores.
const WAITING: usize = 16;
/// A read that waited so long waits for a disk: more readers then help, on any number of cores.
const SLOW: Duration = Duration::from_millis(1);
/// Readers at most.
const READERS_MAX: usize = 32;

/// The readers of the tables in a folder; clones share them.
#[derive(Clone)]
pub(super) struct Readers {
    home: Arc<Home>,
    queue: Arc<Mutex<Queue>>,
    cores: usize,
}

/// The reads that wait, and how many read.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    readers: usize,
}

struct Waiting {
    key: Vec<u8>,
    since: Instant,
    done: oneshot::Sender<Result<Option<Bytes>, MetaError>>,
}

impl Queue {
    /// Whether one reader more is to be started.
    fn wants_another(&self, now: Instant, cores: usize) -> bool {
        let waited = self.waiting.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.since));
        match self.readers {
            0 => true,
            readers if waited >= SLOW => readers < READERS_MAX,
            readers => readers < cores && self.waiting.len() > WAITING * readers,
        }
    }
}

impl Readers {
    pub(super) fn new(home: Arc<Home>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { home, queue: Arc::default(), cores }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row at `key`.
    pub(super) async fn get(&self, key: Vec<u8>) -> Result<Option<Bytes>, MetaError> {
        let (done, found) = oneshot::channel();
        let starts = {
            let mut queue = self.queue();
            let now = Instant::now();
            queue.waiting.push_back(Waiting { key, since: now, done });
            let starts = queue.wants_another(now, self.cores);
            queue.readers += usize::from(starts);
            starts
        };
        if starts {
            let shift = Shift { readers: self.clone(), ended: false };
            drop(tokio::task::spawn_blocking(move || shift.read_all()));
        }
        found.await.map_err(|_| MetaError::Closed)?
    }

    /// The next read to do; none ends the reader that asks.
    fn next(&self) -> Option<Waiting> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.readers -= 1;
        }
        next
    }
}

/// One reader at work. One that is dropped before it ran, with its runtime, is no reader any more.
struct Shift {
    readers: Readers,
    ended: bool,
}

impl Shift {
    /// Reads until nobody waits.
    fn read_all(mut self) {
        while let Some(Waiting { key, done, .. }) = self.readers.next() {
            // Nobody waits for what a caller who went away asked.
            if done.is_closed() {
                continue;
            }
            let read = || self.readers.home.tables()?.get(&key);
            let found = std::panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(MetaError::Closed));
            drop(done.send(found));
        }
        self.ended = true;
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut queue = self.readers.queue();
        queue.readers -= 1;
        if queue.readers == 0 {
            // Whoever waits is told, and does not wait for ever.
            queue.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Every read is answered, by few readers where rows come at once and by more where they do not.
    use super::*;

    fn queue(waiting: usize, since: Instant, readers: usize) -> Queue {
        let read = || Waiting { key: Vec::new(), since, done: oneshot::channel().0 };
        Queue { waiting: std::iter::repeat_with(read).take(waiting).collect(), readers }
    }

    #[test]
    fn more_readers_start_where_they_help() {
        let now = Instant::now();
        let late = now + SLOW;
        assert!(queue(1, now, 0).wants_another(now, 2));
        assert!(!queue(16, now, 1).wants_another(now, 2));
        assert!(queue(17, now, 1).wants_another(now, 2));
        assert!(!queue(100, now, 2).wants_another(now, 2));
        assert!(queue(2, now, 2).wants_another(late, 2));
        assert!(!queue(2, now, READERS_MAX).wants_another(late, 2));
    }

    #[test]
    fn a_reader_that_never_ran_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let readers = Readers::new(Arc::new(Home::open(dir.path(), crate::sys::space::Reserve::default()).unwrap()));
        let (done, mut found) = oneshot::channel();
        {
            let mut queue = readers.queue();
            queue.waiting.push_back(Waiting { key: Vec::new(), since: Instant::now(), done });
            queue.readers = 1;
        }
        drop(Shift { readers: readers.clone(), ended: false });
        assert!(matches!(found.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert_eq!(readers.queue().readers, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_read_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let readers = Readers::new(Arc::new(Home::open(dir.path(), crate::sys::space::Reserve::default()).unwrap()));
        let reads = (0..2_000u32).map(|n| readers.get(n.to_be_bytes().to_vec()));
        for found in futures_util::future::join_all(reads).await {
            assert!(found.unwrap().is_none());
        }
        let idle = async {
            while readers.queue().readers > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), idle).await.unwrap();
        assert!(readers.queue().waiting.is_empty());
    }
}
