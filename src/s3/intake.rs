//! A request's body as it comes off the wire: awaited within bounds, and never held beyond what there is room for.
//!
//! s3s keeps two things whole: documents, which it parses, and signed frames of aws-chunked bodies, whose bytes count only once
//! their signature was verified. For both, room is taken before the first of their bytes is. A frame is gathered here into one
//! piece of memory, because the pieces in which it arrives may be small, and each costs as much again to keep.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::admission::{Broken, Turns, Watch};
use super::digests::Digests;
use super::service::OperationName;
use crate::sys::lane::Seat;
use crate::sys::wire::BoxError;

/// Largest signed frame of an aws-chunked body. Clients send 64 KiB to 1 MiB.
pub(super) const SIGNED_FRAME_MAX: usize = 8 * 1024 * 1024;
/// Largest frame that s3s reads.
const FRAME_MAX: u64 = u32::MAX as u64;
/// A signed frame up to this length needs no room of its own: it counts as a part of the upload that it belongs to.
const SMALL_FRAME: u64 = 256 * 1024;
/// Longest head of a frame: its length and its signature.
const FRAME_HEAD_MAX: usize = 1024;
/// What ends a frame's data.
const FRAME_END: u64 = 2;
/// Largest XML body: a batch delete of 1,000 keys with room to spare.
pub(super) const DOCUMENT_MAX: usize = 4 * 1024 * 1024;
/// All fields of a form but its file.
pub(super) const FORM_FIELDS_MAX: usize = 256 * 1024;
/// The operations whose bodies pass through.
const STREAMED: [&str; 2] = ["PutObject", "UploadPart"];

/// A body that broke off. Why stands in its [`Watch`] where it decides the answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    #[error("the client sent nothing for too long")]
    TooSlow,
    #[error("others needed the room")]
    Crowded,
    #[error("a frame is longer than any may be")]
    TooLarge,
    #[error("a document is another than its digest says")]
    OtherDigest,
    #[error("the connection broke")]
    Wire(#[source] hyper::Error),
}

/// The guarded body of a request.
pub(super) struct Intake {
    pieces: BoxStream<'static, Result<Bytes, IntakeError>>,
    hint: SizeHint,
}

impl Intake {
    /// Guards the body of `request`, whose operation `name` tells once it is known.
    pub(super) fn new(
        request: Request<Incoming>,
        name: OperationName,
        watch: Watch,
        turns: Turns,
        patience: Duration,
    ) -> Request<Self> {
        let framed = request.headers().get("x-amz-content-sha256");
        let framed = framed.is_some_and(|value| value.as_bytes().starts_with(b"STREAMING-"));
        let digests = Digests::of(request.headers());
        request.map(|body| {
            let hint = body.size_hint();
            let at = if framed { At::Head(BytesMut::new()) } else { At::Plain };
            let reader = Reader { body, name, watch, turns, patience, begun: false, at, digests, rest: Bytes::new() };
            let pieces = futures_util::stream::try_unfold(reader, |mut reader| async move {
                Ok(reader.next().await?.map(|piece| (piece, reader)))
            });
            Self { pieces: pieces.boxed(), hint }
        })
    }
}

impl Body for Intake {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.pieces.poll_next_unpin(cx).map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(Into::into)))
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// Where in an aws-chunked body the next byte lies.
enum At {
    /// Nowhere: the body is not framed, or not as it should be, which s3s will say.
    Plain,
    /// In the head of a frame, of which this has come.
    Head(BytesMut),
    /// In the data of an unsigned frame, so many bytes from its end.
    Data(u64),
}

/// What the head of a frame says.
#[derive(Debug, PartialEq, Eq)]
struct FrameHead {
    bytes: u64,
    signed: bool,
}

impl FrameHead {
    /// Reads `LENGTH` or `LENGTH;chunk-signature=…`, the length in hexadecimal digits.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.trim_end();
        let (length, signed) = match line.split_once(';') {
            Some((length, _)) => (length, true),
            None => (line, false),
        };
        let digits = !length.is_empty() && length.len() <= 15 && length.bytes().all(|digit| digit.is_ascii_hexdigit());
        let bytes = u64::from_str_radix(length, 16).ok().filter(|_| digits)?;
        Some(Self { bytes, signed })
    }
}

/// A frame with the room that it takes.
struct Gathered {
    data: Vec<u8>,
    _room: Option<Seat>,
}

impl AsRef<[u8]> for Gathered {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

struct Reader {
    body: Incoming,
    name: OperationName,
    watch: Watch,
    turns: Turns,
    patience: Duration,
    begun: bool,
    at: At,
    /// What a document must have; nothing for a body that passes through, whose digests are compared further in.
    digests: Digests,
    /// What came and was not passed on.
    rest: Bytes,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, IntakeError> {
        if !self.begun {
            self.begun = true;
            self.make_room().await?;
        }
        loop {
            match &mut self.at {
                At::Plain => {
                    let piece = self.more().await?;
                    return match self.digests.take(piece.as_ref()) {
                        Ok(()) => Ok(piece),
                        Err(why) => Err(self.broke(why)),
                    };
                }
                At::Data(left) if *left == 0 => self.at = At::Head(BytesMut::new()),
                At::Data(_) => return self.pass().await,
                At::Head(_) => return self.head().await,
            }
        }
    }

    /// Room for a body that will be held as a whole.
    async fn make_room(&mut self) -> Result<(), IntakeError> {
        let bytes = match self.name.0.get() {
            Some(name) if STREAMED.contains(&name.as_str()) => {
                self.digests = Digests::default();
                return Ok(());
            }
            Some(_) => DOCUMENT_MAX,
            // A form, which is read before anybody knows what it asks for.
            None => {
                self.digests = Digests::default();
                FORM_FIELDS_MAX
            }
        };
        let bytes = self.body.size_hint().upper().unwrap_or(u64::MAX).min(bytes as u64);
        let seat = self.turns.document(bytes, self.watch.upload()).await;
        let seat = seat.map_err(|_| self.broke(Broken::Crowded))?;
        self.watch.keep(seat);
        Ok(())
    }

    fn broke(&self, why: Broken) -> IntakeError {
        self.watch.broke(why);
        match why {
            Broken::TooSlow => IntakeError::TooSlow,
            Broken::Crowded => IntakeError::Crowded,
            Broken::TooLarge => IntakeError::TooLarge,
            Broken::OtherDigest | Broken::NoDigest => IntakeError::OtherDigest,
        }
    }

    /// The next bytes off the wire; none at the end. They are awaited for as long as the client is given, and as nobody else
    /// needs what it holds.
    async fn read(&mut self) -> Result<Option<Bytes>, IntakeError> {
        loop {
            // Mostly they are there, and no clock is needed.
            let frame = match self.body.frame().now_or_never() {
                Some(frame) => frame,
                None => self.wait().await?,
            };
            let Some(frame) = frame else {
                self.watch.received();
                return Ok(None);
            };
            let Ok(bytes) = frame.map_err(IntakeError::Wire)?.into_data() else { continue };
            self.watch.upload().done(bytes.len() as u64);
            if self.body.is_end_stream() {
                self.watch.received();
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    async fn wait(&mut self) -> Result<Option<Result<Frame<Bytes>, hyper::Error>>, IntakeError> {
        let pulse = self.watch.upload().clone();
        pulse.turn(0);
        tokio::select! {
            biased;
            frame = self.body.frame() => Ok(frame),
            () = pulse.cut() => Err(self.broke(Broken::Crowded)),
            () = tokio::time::sleep(self.patience) => Err(self.broke(Broken::TooSlow)),
        }
    }

    /// The next bytes, whether they came before or not; none at the end.
    async fn more(&mut self) -> Result<Option<Bytes>, IntakeError> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { self.read().await } else { Ok(Some(rest)) }
    }

    /// Bytes of an unsigned frame.
    async fn pass(&mut self) -> Result<Option<Bytes>, IntakeError> {
        let Some(mut piece) = self.more().await? else { return Ok(None) };
        if let At::Data(left) = &mut self.at {
            let here = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
            self.rest = piece.split_off(here);
            *left -= piece.len() as u64;
        }
        Ok(Some(piece))
    }

    /// A frame's head, and where it is signed the whole frame with it. None where the body ended, or is not framed as it should be.
    async fn head(&mut self) -> Result<Option<Bytes>, IntakeError> {
        let mut line = match std::mem::replace(&mut self.at, At::Plain) {
            At::Head(begun) => begun,
            At::Plain | At::Data(_) => BytesMut::new(),
        };
        loop {
            let Some(mut piece) = self.more().await? else {
                return Ok(Some(line.freeze()).filter(|line| !line.is_empty()));
            };
            let end = piece.iter().position(|byte| *byte == b'\n');
            self.rest = piece.split_off(end.map_or(piece.len(), |end| end + 1));
            line.extend_from_slice(&piece);
            if end.is_some() || line.len() > FRAME_HEAD_MAX {
                break;
            }
        }
        let line = line.freeze();
        match FrameHead::parse(&line) {
            Some(frame) if frame.bytes > FRAME_MAX => return Err(self.broke(Broken::TooLarge)),
            Some(frame) if frame.bytes > 0 && !frame.signed => self.at = At::Data(frame.bytes + FRAME_END),
            Some(frame) if frame.bytes > 0 && frame.bytes <= SIGNED_FRAME_MAX as u64 => {
                self.at = At::Head(BytesMut::new());
                return self.gather(&line, frame.bytes + FRAME_END).await.map(Some);
            }
            // The last frame, or one that s3s will refuse.
            _ => {}
        }
        Ok(Some(line))
    }

    /// A signed frame in one piece: its head, and so many bytes after it, or as many as came.
    async fn gather(&mut self, head: &[u8], bytes: u64) -> Result<Bytes, IntakeError> {
        let room = if bytes <= SMALL_FRAME {
            None
        } else {
            let seat = self.turns.frame(bytes, self.watch.upload()).await;
            Some(seat.map_err(|_| self.broke(Broken::Crowded))?)
        };
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut data = Vec::with_capacity(head.len() + left);
        data.extend_from_slice(head);
        while left > 0 {
            let Some(mut piece) = self.more().await? else { break };
            self.rest = piece.split_off(piece.len().min(left));
            left -= piece.len();
            data.extend_from_slice(&piece);
        }
        Ok(Bytes::from_owner(Gathered { data, _room: room }))
    }
}

#[cfg(test)]
mod tests {
    //! The heads of frames are read as s3s reads them.
    use super::*;

    #[test]
    fn reads_frame_heads() {
        let head = |bytes, signed| Some(FrameHead { bytes, signed });
        assert_eq!(FrameHead::parse(b"10000\r\n"), head(65536, false));
        assert_eq!(FrameHead::parse(b"ffffffff\r\n"), head(u64::from(u32::MAX), false));
        assert_eq!(FrameHead::parse(b"0;chunk-signature=ab\r\n"), head(0, true));
        assert_eq!(FrameHead::parse(b"100000000\r\n"), head(1 << 32, false));
        for bad in
            [&b"\r\n"[..], b"1000000000000000\r\n", b"+1\r\n", b"xyz\r\n", b"\xff\r\n", b";chunk-signature=ab\r\n"]
        {
            assert_eq!(FrameHead::parse(bad), None, "{bad:?}");
        }
    }
}
