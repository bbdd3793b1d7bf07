//! Objects of the appliance: the recipe of a stretch, and the stored bytes that it opens.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};

use super::appliance::{Appliance, Patience, PullError};
use super::image::FetchError;
use super::plan::Fetch;
use crate::format::chunk_list::ChunkList;
use crate::format::recipe::{Content, Recipe, Run, STORED_MAX};
use crate::model::{ByteRange, Digest};

/// Longest recipe that is read, in bytes.
const RECIPE_MAX: usize = 64 * 1024 * 1024;
/// Requests for pack ranges under way at once.
const CONNECTIONS: usize = 32;

/// What the appliance says of a snapshot.
#[derive(Deserialize)]
struct SnapshotSeen {
    created: u64,
}

/// A snapshot as one login sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotId([u8; 32]);

impl SnapshotId {
    /// The name of the recipe of one of its objects' stretches.
    #[must_use]
    pub fn recipe_name(&self, key: &str, number: u64) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&number.to_le_bytes()).update(key.as_bytes());
        Digest(hasher.finalize().into())
    }
}

/// Reads objects of one bucket. Cheap to clone.
#[derive(Clone)]
pub struct ObjectSource {
    appliance: Appliance,
    bucket: Arc<str>,
    patience: Patience,
    slots: Arc<Semaphore>,
    fetched: Arc<AtomicU64>,
}

impl ObjectSource {
    /// A reader of the bucket, whose name goes to the appliance as it is.
    #[must_use]
    pub fn new(appliance: Appliance, bucket: &str, patience: Patience) -> Self {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        Self { appliance, bucket: bucket.into(), patience, slots, fetched: Arc::default() }
    }

    /// Bytes of recipes and packs that came over the wire so far.
    #[must_use]
    pub fn bytes_fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// The recipe of a stretch of an object, with what it leads to where that is little. None where the object is still the one that
    /// `known` tells by when it was written and its entity tag.
    pub async fn recipe(
        &self,
        key: &str,
        stretch: ByteRange,
        known: Option<(u64, &str)>,
    ) -> Result<Option<Recipe>, PullError> {
        let (bucket, key) = (query_value(&self.bucket), query_value(key));
        let (start, end) = (stretch.start, stretch.end);
        let mut path = format!("/api/v1/pull/objects/{bucket}?key={key}&start={start}&end={end}&stored={STORED_MAX}");
        if let Some((modified, etag)) = known {
            let _cannot_fail = write!(path, "&unless={modified}-{}", query_value(etag));
        }
        let what = "fetching a recipe";
        let bytes = match self.patience.keep_trying(what, || self.appliance.get(&path, None, RECIPE_MAX)).await {
            Err(error) if error.status() == Some(StatusCode::NOT_MODIFIED) => return Ok(None),
            answer => answer?,
        };
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let bad = |what: String| PullError::BadAnswer { path: path.clone(), what };
        let recipe = Recipe::decode(&bytes).map_err(|error| bad(error.to_string()))?;
        if !recipe.covers(stretch) {
            let end = recipe.start + recipe.len();
            return Err(bad(format!("it covers bytes {} to {end} of {} only", recipe.start, recipe.size)));
        }
        if matches!(recipe.content, Content::Inline(_)) && recipe.start > 0 {
            return Err(bad("an object in its row is told from its start".to_owned()));
        }
        Ok(Some(recipe))
    }

    /// A name for what a key shows in a snapshot, which never changes: another snapshot of the same name, another key and another
    /// login have others.
    pub async fn snapshot_name(&self) -> Result<SnapshotId, PullError> {
        let path = format!("/api/v1/pull/snapshots/{}", query_value(&self.bucket));
        let what = "asking which snapshot this is";
        let seen: SnapshotSeen = self.patience.keep_trying(what, || self.appliance.get_json(&path)).await?;
        let mut hasher = blake3::Hasher::new_keyed(&self.appliance.login_digest());
        hasher.update(&seen.created.to_le_bytes()).update(self.bucket.as_bytes());
        Ok(SnapshotId(hasher.finalize().into()))
    }

    /// The stored bytes of a request: nothing in them is verified yet ([`place`](super::place)).
    pub async fn stored(&self, list: &ChunkList, runs: &[Run], fetch: &Fetch) -> Result<Bytes, FetchError> {
        let (what, sealed) = sealed(list, runs, fetch)?;
        let _slot = self.slots.acquire().await.map_err(|_| FetchError::Interrupted)?;
        let limit = usize::try_from(fetch.range.len()).unwrap_or(usize::MAX);
        let stored = self
            .patience
            .keep_trying(&what, || self.appliance.get(&sealed, Some(fetch.range), limit))
            .await
            .map_err(|source| FetchError::Pull { what: what.clone(), source })?;
        self.fetched.fetch_add(stored.len() as u64, Ordering::Relaxed);
        Ok(stored)
    }

    /// The same, to where it belongs: `out` is as long as the request's range. What is in it after an error is not to be used.
    pub async fn stored_into(
        &self,
        list: &ChunkList,
        runs: &[Run],
        fetch: &Fetch,
        out: &mut [u8],
    ) -> Result<(), FetchError> {
        let (what, sealed) = sealed(list, runs, fetch)?;
        let _slot = self.slots.acquire().await.map_err(|_| FetchError::Interrupted)?;
        // One attempt after the other has it.
        let out = Mutex::new(out);
        let get = || async { self.appliance.get_into(&sealed, fetch.range, &mut out.lock().await).await };
        self.patience
            .keep_trying(&what, get)
            .await
            .map_err(|source| FetchError::Pull { what: what.clone(), source })?;
        self.fetched.fetch_add(fetch.range.len(), Ordering::Relaxed);
        Ok(())
    }
}

/// What a request is for, and where it goes.
fn sealed(list: &ChunkList, runs: &[Run], fetch: &Fetch) -> Result<(String, String), FetchError> {
    let pack = list.packs[fetch.pack as usize];
    let what = format!("fetching bytes {} to {} of pack {pack}", fetch.range.start, fetch.range.end);
    let path = format!("/api/v1/pull/runs/{pack}");
    let at = runs.partition_point(|run| (run.pack, run.range.start) <= (fetch.pack, fetch.range.start));
    let run = at.checked_sub(1).map(|at| &runs[at]).filter(|run| {
        run.pack == fetch.pack && run.range.start <= fetch.range.start && fetch.range.end <= run.range.end
    });
    let Some(run) = run else {
        let what_is_wrong = "its recipe does not open what it names".to_owned();
        return Err(FetchError::Pull { what, source: PullError::BadAnswer { path, what: what_is_wrong } });
    };
    let until = run.until;
    let sealed =
        format!("{path}?start={}&end={}&until={until}&seal={}", run.range.start, run.range.end, hex::encode(run.seal));
    Ok((what, sealed))
}

/// A text as the value of a query, or as one segment of a path.
#[must_use]
pub fn query_value(text: &str) -> String {
    let mut coded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => coded.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(coded, "%{byte:02X}")),
        }
    }
    coded
}

#[cfg(test)]
mod tests {
    //! Keys travel whole.
    use super::*;

    #[test]
    fn values_are_coded() {
        assert_eq!(query_value("a/ü&b=c@d"), "a%2F%C3%BC%26b%3Dc%40d");
    }
}
