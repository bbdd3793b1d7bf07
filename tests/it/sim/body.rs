//! Bodies as clients send them: in pieces, with pauses, and sometimes not what was announced.

use std::time::Duration;

use bedplate::store::{BoxError, ByteStream, PutRequest, StoreError};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::random::Random;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    BreaksOff,
    IsShort,
    HasOtherSum,
}

impl Flaw {
    pub(super) fn of(random: &mut Random) -> Self {
        *random.pick(&[Self::BreaksOff, Self::IsShort, Self::HasOtherSum])
    }

    /// Announces what the body will not keep.
    pub(super) fn announce(self, request: &mut PutRequest, content: &Bytes) {
        match self {
            Self::BreaksOff => {}
            Self::IsShort => request.expected_bytes = Some(content.len() as u64 + 1),
            Self::HasOtherSum => request.expected_md5 = Some([0xab; 16]),
        }
    }

    /// Whether the store said what is wrong.
    pub(super) fn is_named_by(self, error: &StoreError) -> bool {
        match self {
            Self::BreaksOff => matches!(error, StoreError::Body(_)),
            Self::IsShort => matches!(error, StoreError::IncompleteBody { .. }),
            Self::HasOtherSum => matches!(error, StoreError::BadDigest),
        }
    }
}

/// The content as a stream.
pub(super) fn body(content: &Bytes, flaw: Option<Flaw>, random: &mut Random) -> ByteStream {
    let mut rest = content.clone();
    let mut pieces: Vec<(u64, Result<Bytes, BoxError>)> = Vec::new();
    let slow = random.chance(100);
    let piece = random.spread(1 << 20).max(1 + content.len() as u64 / 40);
    while !rest.is_empty() {
        let len = random.between(piece / 2, piece + 1).min(rest.len() as u64) as usize;
        let pause = if slow && random.chance(300) { random.spread(60_000) } else { random.below(8).saturating_sub(5) };
        pieces.push((pause, Ok(rest.split_to(len))));
    }
    if flaw == Some(Flaw::BreaksOff) {
        pieces.truncate(random.below(pieces.len() as u64 + 1) as usize);
        pieces.push((1, Err("simulated: the client went away".into())));
    }
    let paced = stream::iter(pieces).then(|(pause, piece)| async move {
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        piece
    });
    paced.boxed()
}
