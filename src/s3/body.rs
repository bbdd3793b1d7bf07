//! Bodies, both ways: checksums verified as bytes come in, failures caught before the first byte goes out.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Result, StdError, TrailingHeaders, crypto};

use super::error::store_error;
use super::lane::{Pulse, Seat};
use crate::store::{ByteStream, StoreError};
use crate::telemetry::metrics;

/// The body is not what its checksum says.
#[derive(Debug, thiserror::Error)]
#[error("The {0} you specified did not match what we received.")]
pub(super) struct ChecksumMismatch(&'static str);

/// One checksum algorithm: its name in headers, and its place in a [`Checksum`].
struct Algorithm {
    header: &'static str,
    place: fn(&mut Checksum) -> &mut Option<String>,
    start: fn(&mut ChecksumHasher),
}

macro_rules! algorithms {
    ($($header:literal $field:ident $place:ident $hasher:ident)*) => {
        [$(Algorithm {
            header: $header,
            place: |checksum| &mut checksum.$place,
            start: |hasher| hasher.$field = Some(<crypto::$hasher as crypto::Checksum>::new()),
        }),*]
    };
}

/// The algorithms that clients use by default or on request.
const ALGORITHMS: [Algorithm; 5] = algorithms! {
    "x-amz-checksum-crc32" crc32 checksum_crc32 Crc32
    "x-amz-checksum-crc32c" crc32c checksum_crc32c Crc32c
    "x-amz-checksum-crc64nvme" crc64nvme checksum_crc64nvme Crc64Nvme
    "x-amz-checksum-sha1" sha1 checksum_sha1 Sha1
    "x-amz-checksum-sha256" sha256 checksum_sha256 Sha256
};

/// A body's checksums once it has been read to its end.
#[derive(Clone, Default)]
pub(super) struct Verified(Arc<Mutex<Checksum>>);

impl Verified {
    /// What was verified, for the answer; empty where the client sent no checksum.
    pub(super) fn take(&self) -> Checksum {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The request's body as the store takes it. A checksum in `headers` or in the trailer is verified at the end, where
/// a mismatch becomes the stream's last item and so aborts the write.
pub(super) fn receive(
    body: Option<StreamingBlob>,
    headers: &HeaderMap,
    trailer: Option<TrailingHeaders>,
) -> (ByteStream, Verified) {
    let verified = Verified::default();
    let announced = announced_trailers(headers);
    let mut hasher = ChecksumHasher::default();
    let mut wanted = Vec::new();
    for algorithm in &ALGORITHMS {
        let given = headers.get(algorithm.header).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        if given.is_some() || announced.iter().any(|name| name == algorithm.header) {
            (algorithm.start)(&mut hasher);
            wanted.push((algorithm, given));
        }
    }
    let Some(body) = body else { return (Box::pin(futures_util::stream::empty()), verified) };
    let receiving = Receiving { body, hasher: Some(hasher), wanted, trailer, verified: verified.clone() };
    (Box::pin(receiving), verified)
}

fn announced_trailers(headers: &HeaderMap) -> Vec<String> {
    let names = headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok());
    names.flat_map(|names| names.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

struct Receiving {
    body: StreamingBlob,
    /// `None` once the end was reached.
    hasher: Option<ChecksumHasher>,
    wanted: Vec<(&'static Algorithm, Option<String>)>,
    trailer: Option<TrailingHeaders>,
    verified: Verified,
}

impl Receiving {
    fn finish(&mut self, hasher: ChecksumHasher) -> Result<(), ChecksumMismatch> {
        let mut found = hasher.finalize();
        let trailer = self.trailer.as_ref().and_then(TrailingHeaders::take).unwrap_or_default();
        for (algorithm, given) in &self.wanted {
            let sent = trailer.get(algorithm.header).and_then(|value| value.to_str().ok());
            let expected = given.as_deref().or(sent).map(str::trim);
            if expected != (algorithm.place)(&mut found).as_deref() {
                return Err(ChecksumMismatch(&algorithm.header["x-amz-checksum-".len()..]));
            }
        }
        *self.verified.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }
}

impl Stream for Receiving {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.body.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(piece))) => {
                metrics::received("s3", piece.len() as u64);
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
            return Err(store_error(match error.downcast::<StoreError>() {
                Ok(error) => *error,
                Err(error) => StoreError::Body(error),
            }));
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
