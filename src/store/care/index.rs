//! The index compared with the packs, in bounded memory: many rows are read, sorted by the pack that they name, and compared
//! with one directory after the other.

use bytes::Bytes;

use crate::format::manifest::Location;
use crate::format::row::{self, PackRow, PackState, key};
use crate::model::{Digest, PackId};
use crate::store::Inner;
use crate::store::error::StoreError;

/// Rows that are compared at once: about 40 MiB. Each such batch reads every directory that it needs once.
const BATCH: usize = 512 * 1024;
/// Rows read at once.
const PAGE: usize = 4096;

/// An index row that says what is not so.
pub(in crate::store) struct WrongRow {
    pub(in crate::store) key: Bytes,
    pub(in crate::store) value: Bytes,
    /// Where it says the chunk is, if it can be read.
    pub(in crate::store) at: Option<Location>,
    pub(in crate::store) what: &'static str,
}

/// A row of the index, as it is compared.
struct Indexed {
    at: Location,
    digest: Digest,
}

/// The chunks of a pack.
enum Known {
    Digests(Vec<Digest>),
    /// It is not in the list of packs.
    None,
    /// It cannot be read, or it is going: its rows are not judged.
    Unknown,
}

/// Walks the index.
pub(in crate::store) struct Sweep {
    start: Option<Vec<u8>>,
}

impl Sweep {
    pub(in crate::store) fn new() -> Self {
        Self { start: Some(b"c/".to_vec()) }
    }

    /// The wrong rows of the next batch; none at the end of the index.
    pub(in crate::store) async fn next(&mut self, inner: &Inner) -> Result<Option<Vec<WrongRow>>, StoreError> {
        let Some(mut start) = self.start.take() else { return Ok(None) };
        let (mut indexed, mut wrong) = (Vec::new(), Vec::new());
        while indexed.len() + wrong.len() < BATCH {
            let rows = inner.meta.scan(&start, b"c0", PAGE).await?;
            let last = rows.last().map(|(last, _)| [last, &b"\0"[..]].concat()).filter(|_| rows.len() == PAGE);
            for (key, value) in rows {
                let digest = key.last_chunk::<32>().filter(|_| key.len() == 34);
                match (digest, row::decode_location(&value)) {
                    (Some(digest), Ok(at)) => indexed.push(Indexed { at, digest: Digest(*digest) }),
                    _ => wrong.push(WrongRow { key, value, at: None, what: "a row of the index cannot be read" }),
                }
            }
            self.start.clone_from(&last);
            match last {
                Some(last) => start = last,
                None => break,
            }
        }
        indexed.sort_unstable_by_key(|row| (row.at.pack, row.at.chunk));
        for rows in indexed.chunk_by(|a, b| a.at.pack == b.at.pack) {
            compare(inner, rows, &mut wrong).await?;
        }
        Ok(Some(still_there(inner, wrong).await?))
    }
}

/// Compares rows that name the same pack with it.
async fn compare(inner: &Inner, rows: &[Indexed], wrong: &mut Vec<WrongRow>) -> Result<(), StoreError> {
    let Some(pack) = rows.first().map(|row| row.at.pack) else { return Ok(()) };
    let digests = match digests(inner, pack).await? {
        Known::Unknown => return Ok(()),
        Known::None => None,
        Known::Digests(digests) => Some(digests),
    };
    for Indexed { at, digest } in rows {
        let what = match digests.as_ref().map(|digests| digests.get(at.chunk as usize)) {
            None => "the index names a pack that is not in the list of packs",
            Some(None) => "the index names a chunk that the pack does not have",
            Some(Some(found)) if found != digest => "the index names another chunk than it should",
            Some(Some(_)) => continue,
        };
        let (key, value) = (key::chunk(digest).into(), row::encode_location(*at));
        wrong.push(WrongRow { key, value, at: Some(*at), what });
    }
    Ok(())
}

async fn digests(inner: &Inner, pack: PackId) -> Result<Known, StoreError> {
    if let Some(open) = inner.packer.session().pack(pack) {
        return Ok(Known::Digests(open.entries().iter().map(|entry| entry.digest).collect()));
    }
    let Some(bytes) = inner.meta.get(&key::pack(pack)).await? else { return Ok(Known::None) };
    let Ok(row) = PackRow::decode(&bytes) else { return Ok(Known::Unknown) };
    if matches!(row.state, PackState::Open | PackState::Deleting) {
        return Ok(Known::Unknown);
    }
    match inner.read_directory(pack, &row).await {
        Ok(directory) => Ok(Known::Digests(directory.entries.iter().map(|entry| entry.digest).collect())),
        Err(StoreError::Closed) => Err(StoreError::Closed),
        Err(_) => Ok(Known::Unknown),
    }
}

/// Those rows that are still as they were: packs come and go while the index is compared. The rows of a pack go before the pack.
async fn still_there(inner: &Inner, wrong: Vec<WrongRow>) -> Result<Vec<WrongRow>, StoreError> {
    let mut left = Vec::with_capacity(wrong.len());
    for row in wrong {
        if inner.meta.get(&row.key).await?.as_ref() == Some(&row.value) {
            left.push(row);
        }
    }
    Ok(left)
}
