//! Standard input as it is typed: read by a thread that stops without swallowing what it was not asked for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

/// Between two looks at whether the reading is to stop.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Pieces of input that wait to be taken.
const WAITING: usize = 64;

/// What is typed, from now until it is dropped.
pub struct Keyboard {
    typed: mpsc::Receiver<Bytes>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Keyboard {
    /// Begins to read standard input.
    pub fn listen() -> Self {
        let (tell, typed) = mpsc::channel(WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Where it fails there is no keyboard, and the channel's end says so.
        let reader = std::thread::spawn(move || drop(read_on(&stopped, &tell)));
        Self { typed, stop, reader: Some(reader) }
    }

    /// What was typed next; none when standard input has ended.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.typed.recv().await
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.typed.close();
        // At most one look later.
        drop(self.reader.take().map(JoinHandle::join));
    }
}

fn read_on(stop: &AtomicBool, tell: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let input = io::stdin();
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let read = rustix::io::read(&input, &mut buffer)?;
        if read == 0 || tell.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
            break;
        }
    }
    Ok(())
}
