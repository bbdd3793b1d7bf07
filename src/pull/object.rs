//! Objects of the appliance: the recipe of a stretch, and the chunks that it names, verified.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use super::appliance::{Appliance, Patience, PullError};
use super::image::{FetchError, unpack};
use super::plan::Fetch;
use crate::format::chunk_list::ChunkList;
use crate::format::recipe::{Recipe, Run};
use crate::model::ByteRange;

/// Longest recipe that is read, in bytes.
const RECIPE_MAX: usize = 64 * 1024 * 1024;
/// Requests for pack ranges under way at once.
const CONNECTIONS: usize = 32;

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

    /// The recipe of a stretch of an object.
    pub async fn recipe(&self, key: &str, stretch: ByteRange) -> Result<Recipe, PullError> {
        let (bucket, key) = (query_value(&self.bucket), query_value(key));
        let path = format!("/api/v1/pull/objects/{bucket}?key={key}&start={}&end={}", stretch.start, stretch.end);
        let what = "fetching a recipe";
        let bytes = self.patience.keep_trying(what, || self.appliance.get(&path, None, RECIPE_MAX)).await?;
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let bad = |what: String| PullError::BadAnswer { path: path.clone(), what };
        let recipe = Recipe::decode(&bytes).map_err(|error| bad(error.to_string()))?;
        let end = recipe.start + recipe.len();
        // Whoever reads by it goes by its places.
        if recipe.start > stretch.start.min(recipe.size) || end < stretch.end.min(recipe.size) {
            return Err(bad(format!("it covers bytes {} to {end} of {} only", recipe.start, recipe.size)));
        }
        Ok(recipe)
    }

    /// The chunks of a request, each verified, with its place in the list. What comes damaged is asked for once more.
    pub async fn fetch(
        &self,
        list: &Arc<ChunkList>,
        runs: &[Run],
        fetch: &Fetch,
    ) -> Result<Vec<(usize, Vec<u8>)>, FetchError> {
        let _slot = self.slots.acquire().await.map_err(|_| FetchError::Interrupted)?;
        match self.fetch_once(list, runs, fetch).await {
            Err(FetchError::Damaged { .. }) => self.fetch_once(list, runs, fetch).await,
            done => done,
        }
    }

    async fn fetch_once(
        &self,
        list: &Arc<ChunkList>,
        runs: &[Run],
        fetch: &Fetch,
    ) -> Result<Vec<(usize, Vec<u8>)>, FetchError> {
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
        let sealed = format!(
            "{path}?start={}&end={}&until={until}&seal={}",
            run.range.start,
            run.range.end,
            hex::encode(run.seal)
        );
        let limit = usize::try_from(fetch.range.len()).unwrap_or(usize::MAX);
        let stored = self
            .patience
            .keep_trying(&what, || self.appliance.get(&sealed, Some(fetch.range), limit))
            .await
            .map_err(|source| FetchError::Pull { what: what.clone(), source })?;
        self.fetched.fetch_add(stored.len() as u64, Ordering::Relaxed);
        let (list, fetch) = (list.clone(), fetch.clone());
        tokio::task::spawn_blocking(move || unpack(&list, &fetch, &stored))
            .await
            .map_err(|_| FetchError::Interrupted)?
    }
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
