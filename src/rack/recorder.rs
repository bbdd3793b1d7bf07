//! Serial consoles that are recorded while a job works on their nodes: the last of each is kept in memory, for the evidence.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bmc::{BmcError, Console};
use crate::rack::spec::NodeSpec;
use crate::sys::worker::Workers;

/// Bytes of a console that are kept.
const TAIL: usize = 64 * 1024;
/// Before a console that was closed, or could not be opened, is opened again.
const PAUSE: Duration = Duration::from_secs(10);

/// The last that a console showed.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn add(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(TAIL);
        tail.drain(..surplus);
    }

    fn note(&self, words: &str) {
        self.add(format!("\r\n[{words}]\r\n").as_bytes());
    }

    fn text(&self) -> String {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(tail.make_contiguous()).replace('\0', "")
    }
}

/// The recordings, by what tells a machine from every other: nodes of two racks may have one name.
#[derive(Default)]
pub(super) struct Recorder(Mutex<BTreeMap<String, (Tail, Workers)>>);

impl Recorder {
    /// Begins to record, where it is not recorded yet; `open` opens the console, as often as it takes.
    pub(super) fn begin<F>(&self, node: &NodeSpec, open: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Console, BmcError>> + Send,
    {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains_key(&node.identity()) {
            return;
        }
        let (tail, workers) = (Tail::default(), Workers::new());
        let (kept, stop) = (tail.clone(), workers.token());
        workers.spawn("console", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = record(open, &kept) => {}
            }
        });
        all.insert(node.identity(), (tail, workers));
    }

    /// The last that a node's console showed; none where it is not recorded.
    pub(super) fn text(&self, node: &NodeSpec) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node.identity()).map(|(tail, _)| tail.text())
    }

    /// Ends the recording of a node, and forgets it.
    pub(super) async fn end(&self, node: &NodeSpec) {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node.identity());
        if let Some((_, workers)) = found {
            workers.stop().await;
        }
    }
}

async fn record<F>(open: impl Fn() -> F, tail: &Tail)
where
    F: Future<Output = Result<Console, BmcError>>,
{
    loop {
        match open().await {
            Ok(mut console) => {
                let ended = loop {
                    match console.read().await {
                        Ok(Some(bytes)) => tail.add(&bytes),
                        Ok(None) => break "the BMC closed the console".to_owned(),
                        Err(error) => break error.to_string(),
                    }
                };
                tail.note(&ended);
            }
            Err(error) => {
                tail.note(&error.to_string());
                // Neither becomes better by trying, and wrong passwords lock accounts.
                if !error.is_passing() && !matches!(error, BmcError::Unreachable { .. }) {
                    return;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The size of a terminal that nobody sees.
pub(super) const UNSEEN: (u16, u16) = (160, 50);

#[cfg(test)]
mod tests {
    //! A console that talks without end is kept to its last bytes.
    use super::*;

    #[test]
    fn only_the_last_is_kept() {
        let tail = Tail::default();
        for _ in 0..TAIL {
            tail.add(b"noise ");
        }
        tail.add(b"Kernel panic");
        let text = tail.text();
        assert!(text.len() == TAIL && text.ends_with("noise Kernel panic"), "{} bytes", text.len());
    }
}
