//! Bodies, both ways: checksums verified as bytes come in, failures caught before the first byte goes out.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, StdError, TrailingHeaders};

use super::checksum::{self, Algorithm};
use super::error::store_error;
use crate::store::{ByteStream, LateHeaders, StoreError};
use crate::sys::lane::{Pulse, Seat};
use crate::telemetry::metrics;

/// The body is not what its checksum says.
#[derive(Debug, thiserror::Error)]
#[error("The {0} you specified did not match what we received.")]
pub(super) struct ChecksumMismatch(pub(super) &'static str);

/// The request's body as the store takes it. A checksum in `headers` or in the trailer is verified at the end, where
/// a mismatch becomes the stream's last item and so aborts the write. `late` then holds it, and that of `besides`.
pub(super) fn receive(
    body: Option<StreamingBlob>,
    headers: &HeaderMap,
    trailer: Option<TrailingHeaders>,
    besides: Algorithm,
) -> S3Result<(ByteStream, LateHeaders)> {
    let announced = checksum::announced(headers)?;
    let given = announced.filter(|announced| !announced.in_trailer).and_then(|announced| {
        let text = headers.get(announced.algorithm.header())?.to_str().ok()?;
        Some(text.trim().to_owned())
    });
    let body = body.unwrap_or_else(|| StreamingBlob::from_bytes(Bytes::new()));
    let source = body.map(|piece| piece.inspect(|piece| metrics::received("s3", piece.len() as u64)));
    let algorithm = announced.map_or(besides, |announced| announced.algorithm);
    let mut hashing = Hashing::new(source.boxed(), &[algorithm, besides]);
    hashing.expected = announced.map(|announced| Expected { algorithm: announced.algorithm, given, trailer });
    let late = hashing.late.clone();
    Ok((Box::pin(hashing), late))
}

/// Stored bytes on their way to be stored again, with a checksum computed.
pub(super) fn pass(bytes: ByteStream, algorithm: Algorithm) -> (ByteStream, LateHeaders) {
    let hashing = Hashing::new(bytes, &[algorithm]);
    let late = hashing.late.clone();
    (Box::pin(hashing), late)
}

/// A checksum that the body must have.
struct Expected {
    algorithm: Algorithm,
    given: Option<String>,
    trailer: Option<TrailingHeaders>,
}

struct Hashing {
    body: ByteStream,
    /// `None` once the end was reached.
    hasher: Option<ChecksumHasher>,
    expected: Option<Expected>,
    late: LateHeaders,
}

impl Hashing {
    fn new(body: ByteStream, algorithms: &[Algorithm]) -> Self {
        let mut hasher = ChecksumHasher::default();
        algorithms.iter().for_each(|algorithm| algorithm.start(&mut hasher));
        Self { body, hasher: Some(hasher), expected: None, late: LateHeaders::default() }
    }

    fn finish(&mut self, hasher: ChecksumHasher) -> Result<(), ChecksumMismatch> {
        let found = hasher.finalize();
        if let Some(Expected { algorithm, given, trailer }) = &self.expected {
            let trailer = trailer.as_ref().and_then(TrailingHeaders::take).unwrap_or_default();
            let sent = trailer.get(algorithm.header()).and_then(|value| value.to_str().ok());
            let expected = given.as_deref().or(sent).map(str::trim);
            if expected != algorithm.of(&found).map(String::as_str) {
                return Err(ChecksumMismatch(algorithm.name()));
            }
        }
        self.late.set(checksum::kept(&found));
        Ok(())
    }
}

impl Stream for Hashing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.body.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(piece))) => {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&piece);
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(None) => match self.hasher.take().map(|hasher| self.finish(hasher)) {
                Some(Err(mismatch)) => Poll::Ready(Some(Err(Box::new(mismatch)))),
                _ => Poll::Ready(None),
            },
            other => other,
        }
    }
}

/// The store's bytes as an answer's body. The first piece is read here, so that damage at the beginning is an error and
/// not a broken connection; the seat of `turn` is held until the body ends, and its pulse tells how the client takes it.
pub(super) async fn send(mut stream: ByteStream, turn: (Seat, Pulse)) -> S3Result<StreamingBlob> {
    let first = match stream.next().await {
        None => return Ok(StreamingBlob::from_bytes(Bytes::new())),
        Some(Ok(first)) => first,
        Some(Err(error)) => {
            return Err(match error.downcast::<StoreError>() {
                Ok(error) => store_error(*error),
                Err(error) => error
                    .downcast::<S3Error>()
                    .map_or_else(|error| store_error(StoreError::Body(error)), |error| *error),
            });
        }
    };
    let (seat, pulse) = turn;
    Ok(StreamingBlob::wrap(Sending { first: Some(first), rest: Mutex::new(stream), pulse, _seat: seat }))
}

struct Sending {
    first: Option<Bytes>,
    /// The lock is never taken: it makes a stream that is only `Send` also `Sync`, which s3s asks for.
    rest: Mutex<ByteStream>,
    pulse: Pulse,
    _seat: Seat,
}

impl Stream for Sending {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.pulse.done(0);
        let piece = match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => this.rest.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(cx),
        };
        match piece {
            Poll::Ready(Some(Ok(piece))) => {
                metrics::sent("s3", piece.len() as u64);
                this.pulse.turn(piece.len() as u64);
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::error!(%error, "an object could not be read to its end; the connection is cut");
                Poll::Ready(Some(Err(std::io::Error::other(error))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
