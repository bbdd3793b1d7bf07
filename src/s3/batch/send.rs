//! A batch on its way out: members of a tar stream, small ones gathered into larger pieces.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};

use super::ahead::{Ahead, Opened, Outcome, Refused};
use super::tar::{self, Member};
use crate::store::{BoxError, ByteStream};
use crate::sys::lane::Seat;

/// What is gathered before it is sent, in bytes; a piece that is not much smaller goes out as it is.
const PIECE: usize = 64 * 1024;
/// Before the key in the name of a member that stands for an object that cannot be had.
const REFUSED: &str = "__refused__/";

/// The tar stream of a batch. An `Err` is its last item, and then its end is missing.
pub(super) struct Batch {
    ahead: Ahead,
    current: Option<Sending>,
    gathered: BytesMut,
    /// What goes out before anything else is gathered.
    large: Option<Bytes>,
    state: State,
    _room: Seat,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Members,
    Ending,
    Ended,
}

/// The member that is being sent.
struct Sending {
    left: u64,
    padding: usize,
    first: Option<Bytes>,
    rest: ByteStream,
}

/// The object gave another number of bytes than its member's head says.
#[derive(Debug, thiserror::Error)]
#[error("an object of a batch does not have as many bytes as its row says")]
struct WrongLength;

impl Batch {
    /// `room` is held for as long as the stream lives.
    pub(super) fn new(ahead: Ahead, room: Seat) -> Self {
        Self { ahead, current: None, gathered: BytesMut::new(), large: None, state: State::Members, _room: room }
    }

    /// Gathers what comes next.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let Some(current) = &mut self.current else {
            match ready!(self.ahead.poll_next(cx)).transpose()? {
                Some(Outcome::Opened(opened)) => self.begin(*opened),
                Some(Outcome::Marked(refused)) => self.mark(&refused),
                None => self.state = State::Ending,
            }
            return Poll::Ready(Ok(()));
        };
        // The others come closer meanwhile.
        self.ahead.push(cx, false);
        let piece = match current.first.take() {
            Some(first) => Some(first),
            None => ready!(current.rest.poll_next_unpin(cx)).transpose()?,
        };
        match piece {
            Some(piece) => {
                current.left = current.left.checked_sub(piece.len() as u64).ok_or(WrongLength)?;
                if piece.len() >= PIECE / 2 {
                    self.large = Some(piece);
                } else {
                    self.gathered.extend_from_slice(&piece);
                }
            }
            None if current.left > 0 => return Poll::Ready(Err(WrongLength.into())),
            None => {
                self.gathered.put_bytes(0, current.padding);
                self.current = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn begin(&mut self, opened: Opened) {
        let Opened { entry, modified, bytes, first, rest } = opened;
        let member = Member { name: entry.key.as_str(), bytes, modified: modified.0 / 1_000, records: &[] };
        tar::put_head(&mut self.gathered, &member);
        self.current = Some(Sending { left: bytes, padding: tar::padding(bytes), first, rest });
    }

    fn mark(&mut self, refused: &Refused) {
        let name = format!("{REFUSED}{}", refused.entry.key);
        let code = refused.error.code().as_str();
        let message = refused.error.message().unwrap_or(code);
        let records =
            [("BEDPLATE.error", code), ("BEDPLATE.message", message), ("BEDPLATE.key", refused.entry.key.as_str())];
        tar::put_head(&mut self.gathered, &Member { name: &name, bytes: 0, modified: 0, records: &records });
    }

    /// What is gathered, or large, in order.
    fn take(&mut self) -> Option<Bytes> {
        if self.gathered.is_empty() { self.large.take() } else { Some(self.gathered.split().freeze()) }
    }
}

impl Stream for Batch {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.large.is_some() || this.gathered.len() >= PIECE {
                return Poll::Ready(this.take().map(Ok));
            }
            match this.state {
                State::Members => {}
                State::Ending => {
                    this.state = State::Ended;
                    this.gathered.extend_from_slice(&tar::END);
                    return Poll::Ready(this.take().map(Ok));
                }
                State::Ended => return Poll::Ready(None),
            }
            match this.poll_step(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    this.state = State::Ended;
                    this.gathered.clear();
                    return Poll::Ready(Some(Err(error)));
                }
                // Who waits for the next object has the ones before it.
                Poll::Pending if this.gathered.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(this.take().map(Ok)),
            }
        }
    }
}
