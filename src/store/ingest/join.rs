//! Parts into one object. Parts are cut each by itself while they come, in any order; where two meet, what the end of the one cut short is
//! cut again together with the beginning of the other, until a cut falls where the other part has one too. From there on all
//! is as if the object had come in one piece, because where the next cut falls depends on the last one alone.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::cut::Piece;
use super::place::Placer;
use crate::format::cut::Cutter;
use crate::format::digest::{RootDigest, chunk_digest};
use crate::format::manifest::{Location, Term};
use crate::format::row::PartRow;
use crate::model::Digest;
use crate::model::limit::CHUNK_MAX;
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::sys::worker::blocking;

/// Chunks that are placed at once.
const BATCH: usize = 1024;

/// A chunk of a part.
#[derive(Clone, Copy)]
struct Stored {
    digest: Digest,
    len: u32,
    at: Location,
}

/// Puts parts together; the bytes are durable when this returns.
pub(in crate::store) async fn join(inner: &Arc<Inner>, parts: &[&PartRow]) -> Result<(Vec<Term>, Digest), StoreError> {
    let mut joiner = Joiner {
        inner: inner.clone(),
        placer: Placer::new(inner.clone()),
        root: RootDigest::new(),
        ready: Vec::new(),
        seam: Seam::Closed,
    };
    for part in parts.iter().filter(|part| part.size > 0) {
        joiner.part(part).await?;
    }
    joiner.finish().await
}

/// What is at the end of the parts so far.
enum Seam {
    /// A cut.
    Closed,
    /// A chunk that ended with its part, and would perhaps not have ended there.
    Last(Stored),
    /// Bytes after the last cut that no longer are a chunk of any part.
    Open(Box<Cutter>, BytesMut),
}

struct Joiner {
    inner: Arc<Inner>,
    placer: Placer,
    root: RootDigest,
    ready: Vec<Piece>,
    seam: Seam,
}

impl Joiner {
    async fn part(&mut self, part: &PartRow) -> Result<(), StoreError> {
        let (terms, _) = self.inner.terms(&part.body, 0, part.size).await?;
        for term in terms {
            let chunks = self.inner.chunks(term.pack, term.first).await?;
            for chunk in term.sequence() {
                let at = Location { pack: term.pack, chunk };
                let entry = chunks.entry(chunk).ok_or_else(|| StoreError::Corrupt {
                    pack: term.pack,
                    chunk,
                    what: "the pack has no such chunk".to_owned(),
                })?;
                self.chunk(Stored { digest: entry.digest, len: entry.raw_len, at }).await?;
            }
        }
        // Only the last chunk of a part may have been cut by the part's end.
        if let Seam::Closed = self.seam
            && let Some(last) = self.ready.pop_if(|piece| piece.data.is_empty() && (piece.len as usize) < CHUNK_MAX)
            && let Some(at) = last.at
        {
            self.seam = Seam::Last(Stored { digest: last.digest, len: last.len, at });
        }
        Ok(())
    }

    /// Takes the next chunk of a part.
    async fn chunk(&mut self, chunk: Stored) -> Result<(), StoreError> {
        match std::mem::replace(&mut self.seam, Seam::Closed) {
            Seam::Closed => self.emit(Piece::known(chunk.digest, chunk.len, chunk.at)).await,
            Seam::Last(last) => {
                let bytes = self.inner.chunk(last.at).await?;
                // Where the cutter ends it by itself it stays; else its bytes and those of the next chunk are cut anew.
                let mut cutter = Box::new(Cutter::new());
                if cutter.next_cut(&bytes) == Some(bytes.len()) {
                    self.emit(Piece::known(last.digest, last.len, last.at)).await?;
                    return self.emit(Piece::known(chunk.digest, chunk.len, chunk.at)).await;
                }
                self.cut(cutter, BytesMut::from(&bytes[..]), chunk).await
            }
            Seam::Open(cutter, open) => self.cut(cutter, open, chunk).await,
        }
    }

    /// Cuts what is open together with the next chunk.
    async fn cut(&mut self, mut cutter: Box<Cutter>, mut open: BytesMut, chunk: Stored) -> Result<(), StoreError> {
        let mut seen = open.len();
        open.extend_from_slice(&self.inner.chunk(chunk.at).await?);
        while seen < open.len() {
            let Some(step) = cutter.next_cut(&open[seen..]) else { break };
            let data = open.split_to(seen + step).freeze();
            seen = 0;
            self.emit_new(data).await?;
        }
        self.seam = if open.is_empty() { Seam::Closed } else { Seam::Open(cutter, open) };
        Ok(())
    }

    async fn emit_new(&mut self, data: Bytes) -> Result<(), StoreError> {
        let bytes = data.clone();
        let digest = blocking(move || chunk_digest(&bytes)).await.map_err(StoreError::step)?;
        self.emit(Piece::new(digest, data, None)).await
    }

    async fn emit(&mut self, piece: Piece) -> Result<(), StoreError> {
        // The last one stays at hand: it may be the last of its part.
        if self.ready.len() >= BATCH {
            let ready = std::mem::take(&mut self.ready);
            self.place(ready).await?;
        }
        self.ready.push(piece);
        Ok(())
    }

    async fn place(&mut self, pieces: Vec<Piece>) -> Result<(), StoreError> {
        pieces.iter().for_each(|piece| self.root.push(piece.digest, u64::from(piece.len)));
        self.placer.place(pieces, 0).await.map(drop)
    }

    async fn finish(mut self) -> Result<(Vec<Term>, Digest), StoreError> {
        match std::mem::replace(&mut self.seam, Seam::Closed) {
            Seam::Closed => {}
            Seam::Last(last) => self.emit(Piece::known(last.digest, last.len, last.at)).await?,
            Seam::Open(_, open) => self.emit_new(open.freeze()).await?,
        }
        let ready = std::mem::take(&mut self.ready);
        self.place(ready).await?;
        Ok((self.placer.finish().await?, self.root.finish()))
    }
}
