//! A BMC's events as they happen: by server-sent events where it has them, else by looking at its logs again and again.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exchange::Ask;
use super::{Bmc, BmcError, LogEntry};

/// Bytes of one event at most.
const EVENT_MAX: usize = 1024 * 1024;
/// Times the usual pause between two looks: between two looks at the logs, which are long.
const SELDOM: u32 = 10;
/// Log entries that a look compares.
const ENTRIES: usize = 200;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcEvent {
    /// `stream` where the BMC sent it by itself, else the log that it was found in.
    pub source: String,
    /// When it happened, as the BMC writes it.
    pub time: Option<String>,
    /// `OK`, `Warning` or `Critical`.
    pub severity: String,
    /// What happened.
    pub message: String,
    /// The message's id in its registry.
    pub id: Option<String>,
    /// What it is about.
    pub origin: Option<String>,
}

impl Bmc {
    /// Tells events from now on, and never ends by itself. A stream that ends is opened again; where there is none, new entries of the
    /// BMC's logs are told, within some seconds. What happened while a stream was away is looked for in the logs: there, an event may
    /// come twice, and none is missed that was logged.
    ///
    /// # Errors
    /// Where the BMC has neither a stream nor logs, or can no longer be asked.
    pub async fn follow_events(&self, mut tell: impl FnMut(BmcEvent)) -> Result<(), BmcError> {
        let mut seen = match self.log(None, ENTRIES).await {
            Ok(entries) => Some(entries.iter().map(key).collect::<BTreeSet<_>>()),
            Err(_) => None,
        };
        let mut stream = self.stream_link().await;
        if stream.is_none() && seen.is_none() {
            return Err(self.unsupported("tell events: it has neither a stream of them nor a log"));
        }
        loop {
            let began = Instant::now();
            if let Some(link) = stream.clone() {
                match self.read_stream(&link, &mut tell).await {
                    Ok(()) => {}
                    // It is listed, and not there; or a licence is wanting.
                    Err(error) if matches!(error.status(), Some(400..=499 | 501)) => stream = None,
                    Err(error) if error.is_passing() => {}
                    Err(error) => return Err(error),
                }
            }
            // A BMC that ends each stream at once is not asked for its logs all the time.
            let seldom = SELDOM * self.timing().look;
            let lasted = stream.is_some() && began.elapsed() >= seldom;
            let look = self.new_entries(&mut seen, &mut tell).await;
            match (&stream, look) {
                (Some(_), _) | (None, Ok(())) => {}
                (None, Err(error)) if error.is_passing() && seen.is_some() => {}
                (None, Err(error)) => return Err(error),
            }
            tokio::time::sleep(if lasted { self.timing().look } else { seldom }).await;
        }
    }

    async fn stream_link(&self) -> Option<String> {
        let service: Value = self.client.get(self.root["EventService"]["@odata.id"].as_str()?).await.ok()?;
        service["ServerSentEventUri"].as_str().map(str::to_owned)
    }

    /// Tells a stream's events until it ends.
    async fn read_stream(&self, link: &str, tell: &mut impl FnMut(BmcEvent)) -> Result<(), BmcError> {
        let mut stream = self.exchange.stream(&Ask::get(link)).await?;
        let mut lines = EventLines::default();
        while let Some(bytes) = stream.next().await? {
            for data in lines.feed(&bytes) {
                // Streams carry telemetry too, and what is no event is none.
                let document: Value = serde_json::from_str(&data).unwrap_or_default();
                document["Events"].as_array().into_iter().flatten().map(event).for_each(&mut *tell);
            }
            if lines.is_too_long() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells the log entries that were not there at the last look.
    async fn new_entries(
        &self,
        seen: &mut Option<BTreeSet<String>>,
        tell: &mut impl FnMut(BmcEvent),
    ) -> Result<(), BmcError> {
        let entries = self.log(None, ENTRIES).await?;
        let known = seen.get_or_insert_with(|| entries.iter().map(key).collect());
        for entry in entries.iter().rev().filter(|entry| !known.contains(&key(entry))) {
            tell(BmcEvent {
                source: entry.log.clone(),
                time: entry.time.clone(),
                severity: entry.severity.clone(),
                message: entry.message.clone(),
                id: None,
                origin: None,
            });
        }
        *known = entries.iter().map(key).collect();
        Ok(())
    }
}

fn key(entry: &LogEntry) -> String {
    format!("{} {:?} {}", entry.log, entry.time, entry.message)
}

fn event(document: &Value) -> BmcEvent {
    let text = |key: &str| document[key].as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    BmcEvent {
        source: "stream".to_owned(),
        time: text("EventTimestamp"),
        severity: text("MessageSeverity").or(text("Severity")).unwrap_or_default(),
        message: text("Message").unwrap_or_default(),
        id: text("MessageId"),
        origin: document["OriginOfCondition"]["@odata.id"].as_str().map(str::to_owned),
    }
}

/// The lines of a stream of server-sent events, and the data of each event (HTML standard, "Server-sent events").
#[derive(Default)]
struct EventLines {
    line: Vec<u8>,
    data: String,
    after_return: bool,
}

impl EventLines {
    /// Takes bytes in; answers the data of each event that is complete.
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = vec![];
        for byte in bytes {
            // A line ends with a return, a line feed, or both.
            let second = *byte == b'\n' && self.after_return;
            self.after_return = *byte == b'\r';
            match byte {
                _ if second => {}
                b'\r' | b'\n' => events.extend(self.line_ends()),
                _ if self.is_too_long() => {}
                _ => self.line.push(*byte),
            }
        }
        events
    }

    fn line_ends(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then_some(data);
        }
        let line = String::from_utf8_lossy(&line);
        if let Some(data) = line.strip_prefix("data:") {
            if !self.data.is_empty() {
                self.data.push('\n');
            }
            self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
        }
        None
    }

    /// Whether an event has grown beyond what any BMC sends.
    fn is_too_long(&self) -> bool {
        self.line.len() + self.data.len() > EVENT_MAX
    }
}

#[cfg(test)]
mod tests {
    //! Events come whole however the bytes come, and one that does not end takes bounded memory.
    use super::*;

    const STREAM: &str = ": hello\r\nid: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:two\n\n\n\nevent: x\r\rdata: three\r\rdata: never ends";

    #[test]
    fn events_come_whole_however_they_are_cut() {
        for size in 1..STREAM.len() {
            let mut lines = EventLines::default();
            let events: Vec<String> = STREAM.as_bytes().chunks(size).flat_map(|part| lines.feed(part)).collect();
            assert_eq!(events, ["{\"a\":\n1}", "two", "three"], "in parts of {size}");
        }
    }

    #[test]
    fn what_does_not_end_is_bounded() {
        let mut lines = EventLines::default();
        for _ in 0..40 {
            assert!(lines.feed(&[b'x'; 100_000]).is_empty());
        }
        assert!(lines.is_too_long() && lines.line.len() <= EVENT_MAX + 1);
    }
}
