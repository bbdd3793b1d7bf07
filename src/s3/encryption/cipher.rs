//! AES-256 in counter mode: every byte can be read alone, and the ciphertext is as long as the text.
//!
//! An object has a key of its own. Each of its pieces (its parts, or all of it) begins its counter at a block of its own: the part's
//! number (2 bytes), a random nonce (8 bytes), and a count from zero (6 bytes). A piece would need 2^52 bytes to count past that; and
//! a part that is uploaded again has another nonce, so no two texts are ever hidden by the same key stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use aes::Aes256;
use bytes::{Bytes, BytesMut};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};
use futures_util::{Stream, StreamExt as _};
use md5::{Digest as _, Md5};

use super::envelope::DataKey;
use crate::s3::body::ChecksumMismatch;
use crate::store::{BoxError, ByteStream, LateMd5};
use crate::sys::entropy;

/// The random part of a piece's first counter block.
pub(super) type Nonce = [u8; 8];

/// What was encrypted in one go, by its bounds in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The part's number, 0 where the object was put in one piece.
    pub(super) number: u32,
    pub(super) nonce: Nonce,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Piece {
    /// One that is about to be encrypted: nobody knows yet where it ends.
    pub(super) fn fresh(number: u32) -> Self {
        let mut nonce = [0; 8];
        entropy::fill(&mut nonce);
        Self { number, nonce, start: 0, end: u64::MAX }
    }

    /// The key stream from the byte `at` of the object on.
    fn stream(&self, key: &DataKey, at: u64) -> Option<Ctr128BE<Aes256>> {
        let mut block = [0; 16];
        block[..2].copy_from_slice(&u16::try_from(self.number).ok()?.to_be_bytes());
        block[2..10].copy_from_slice(&self.nonce);
        let mut stream = Ctr128BE::<Aes256>::new(&key.0.into(), &block.into());
        stream.try_seek(at.checked_sub(self.start)?).ok()?;
        Some(stream)
    }
}

/// There are more bytes than pieces.
#[derive(Debug, thiserror::Error)]
#[error("the object has bytes that nothing says how to decrypt")]
pub(super) struct Overrun;

/// Encrypts bytes, and decrypts them, which is the same.
pub(super) struct Cipher {
    key: DataKey,
    pieces: std::vec::IntoIter<Piece>,
    /// Where in the object the next byte is.
    at: u64,
    /// The key stream from there on, and where it ends.
    current: Option<(Ctr128BE<Aes256>, u64)>,
}

impl Cipher {
    /// For the bytes from `at` on of an object that consists of these pieces.
    pub(super) fn new(key: DataKey, pieces: Vec<Piece>, at: u64) -> Self {
        Self { key, pieces: pieces.into_iter(), at, current: None }
    }

    /// Applies the key stream in place.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) -> Result<(), Overrun> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (stream, end) = match &mut self.current {
                Some((stream, end)) if *end > self.at => (stream, *end),
                current => {
                    let piece = self.pieces.find(|piece| piece.end > self.at).ok_or(Overrun)?;
                    let stream = piece.stream(&self.key, self.at).ok_or(Overrun)?;
                    let (stream, end) = current.insert((stream, piece.end));
                    (stream, *end)
                }
            };
            let here = usize::try_from(end - self.at).map_or(rest.len(), |left| left.min(rest.len()));
            let (now, later) = std::mem::take(&mut rest).split_at_mut(here);
            stream.try_apply_keystream(now).map_err(|_| Overrun)?;
            self.at += here as u64;
            rest = later;
        }
        Ok(())
    }

    /// As [`Cipher::apply`], of a piece of a stream: in its own memory where nobody else holds it.
    fn pass(&mut self, piece: Bytes) -> Result<Bytes, BoxError> {
        let mut piece = BytesMut::from(piece);
        self.apply(&mut piece)?;
        Ok(piece.freeze())
    }
}

/// Bytes of the store, decrypted.
pub(super) fn decrypt(body: ByteStream, mut cipher: Cipher) -> ByteStream {
    body.map(move |piece| cipher.pass(piece?)).boxed()
}

/// A body on its way to the store, encrypted, with the MD5 of what it was.
pub(super) struct Encrypting {
    pub(super) body: ByteStream,
    pub(super) cipher: Cipher,
    /// Computed where anybody wants it.
    pub(super) md5: Option<Md5>,
    /// What it must be.
    pub(super) expected: Option<[u8; 16]>,
    /// Where it is told.
    pub(super) found: LateMd5,
}

impl Encrypting {
    fn finish(&mut self) -> Result<(), ChecksumMismatch> {
        let Some(md5) = self.md5.take() else { return Ok(()) };
        let found = md5.finalize().into();
        self.found.set(found);
        if self.expected.is_some_and(|expected| expected != found) {
            return Err(ChecksumMismatch("Content-MD5"));
        }
        Ok(())
    }
}

impl Stream for Encrypting {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match this.body.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(piece))) => {
                if let Some(md5) = &mut this.md5 {
                    md5.update(&piece);
                }
                Poll::Ready(Some(this.cipher.pass(piece)))
            }
            Poll::Ready(None) => match this.finish() {
                Ok(()) => Poll::Ready(None),
                Err(mismatch) => Poll::Ready(Some(Err(Box::new(mismatch)))),
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    //! The cipher is AES-256-CTR as NIST publishes it; any range decrypts alone, at every alignment, across the bounds of parts; and a
    //! body is encrypted with the MD5 of what it was.
    use futures_util::TryStreamExt as _;
    use futures_util::stream;

    use super::*;

    fn pieces(lengths: &[u64]) -> Vec<Piece> {
        let mut start = 0;
        let each = lengths.iter().enumerate().map(|(n, length)| {
            let piece = Piece { number: n as u32 + 1, nonce: [n as u8; 8], start, end: start + length };
            start += length;
            piece
        });
        each.collect()
    }

    #[test]
    fn agrees_with_the_published_vector() {
        // NIST SP 800-38A, F.5.5.
        let mut key = [0; 32];
        hex::decode_to_slice("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", &mut key).unwrap();
        let mut text = hex::decode("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51").unwrap();
        let mut block = [0; 16];
        hex::decode_to_slice("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", &mut block).unwrap();
        Ctr128BE::<Aes256>::new(&key.into(), &block.into()).apply_keystream(&mut text);
        assert_eq!(hex::encode(text), "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5");
    }

    #[test]
    fn every_range_decrypts_alone() {
        let key = DataKey([9; 32]);
        for lengths in [&[100][..], &[16, 32, 52], &[33, 1, 15, 51], &[0, 17, 0, 83]] {
            let text: Vec<u8> = (0..100).collect();
            let mut sealed = text.clone();
            // Each part is encrypted on its own, as it comes.
            for piece in pieces(lengths) {
                let alone = Piece { start: 0, end: u64::MAX, ..piece };
                let range = piece.start as usize..piece.end as usize;
                Cipher::new(key.clone(), vec![alone], 0).apply(&mut sealed[range]).unwrap();
            }
            for start in 0..=100 {
                for end in start..=100 {
                    let mut cipher = Cipher::new(key.clone(), pieces(lengths), start as u64);
                    let mut range = sealed[start..end].to_vec();
                    let (first, second) = range.split_at_mut((end - start) / 3);
                    cipher.apply(first).unwrap();
                    cipher.apply(second).unwrap();
                    assert_eq!(range, text[start..end], "{lengths:?} {start}..{end}");
                }
            }
            assert!(Cipher::new(key.clone(), pieces(lengths), 90).apply(&mut [0; 11]).is_err());
        }
    }

    #[test]
    fn no_two_pieces_share_a_key_stream() {
        let key = DataKey([9; 32]);
        let stream = |piece: Piece| {
            let mut zeros = [0; 64];
            Cipher::new(key.clone(), vec![piece], 0).apply(&mut zeros).unwrap();
            zeros
        };
        let first = Piece::fresh(1);
        assert_eq!(stream(first), stream(first));
        assert_ne!(stream(first), stream(Piece::fresh(1)), "the part is uploaded again");
        assert_ne!(stream(first), stream(Piece { number: 2, ..first }));
    }

    #[tokio::test]
    async fn bodies_are_encrypted_and_summed_up() {
        let shared = Bytes::from(vec![7; 1000]);
        let body = |bytes: Bytes| stream::iter([Ok(bytes.slice(..300)), Ok(bytes.slice(300..))]).boxed();
        let piece = Piece::fresh(0);
        let encrypting = |expected| Encrypting {
            body: body(shared.clone()),
            cipher: Cipher::new(DataKey([1; 32]), vec![piece], 0),
            md5: Some(Md5::new()),
            expected,
            found: LateMd5::default(),
        };
        let sum: [u8; 16] = Md5::digest(&shared).into();
        let sealed: Vec<Bytes> = encrypting(Some(sum)).try_collect().await.unwrap();
        let sealed = Bytes::from(sealed.concat());
        assert_ne!(sealed, shared);
        assert_eq!(shared, vec![7; 1000], "memory that others hold is not touched");
        let cipher = Cipher::new(DataKey([1; 32]), vec![Piece { end: 1000, ..piece }], 0);
        let back: Vec<Bytes> = decrypt(body(sealed), cipher).try_collect().await.unwrap();
        assert_eq!(back.concat(), shared);
        let wrong: Result<Vec<Bytes>, _> = encrypting(Some([0; 16])).try_collect().await;
        assert!(wrong.unwrap_err().is::<ChecksumMismatch>());
    }
}
