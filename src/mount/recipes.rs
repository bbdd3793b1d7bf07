//! Recipes: from memory, from the node's cache where they are of a snapshot, else from the appliance. A snapshot's are good for
//! ever, but for their seals, which are asked for anew by who needs them; a bucket's are asked for at every open.

use std::sync::Arc;

use super::cache::Cache;
use super::recent::Recent;
use super::statistics::Statistics;
use super::stretch::{STRETCH, Stretch};
use crate::format::recipe::{Content, Recipe};
use crate::model::ByteRange;
use crate::pull::{ObjectSource, PullError, SnapshotId};
use crate::sys::worker::blocking;

/// The recipes of one bucket, or snapshot.
pub(super) struct Recipes {
    source: ObjectSource,
    /// Where the cache keeps recipes, and under which names.
    kept: Option<(Cache, SnapshotId)>,
    is_snapshot: bool,
    recent: Recent,
    statistics: Arc<Statistics>,
}

impl Recipes {
    pub(super) fn new(
        source: ObjectSource,
        snapshot: Option<SnapshotId>,
        cache: Option<Cache>,
        statistics: Arc<Statistics>,
    ) -> Self {
        let (kept, is_snapshot) = (cache.zip(snapshot), snapshot.is_some());
        Self { source, kept, is_snapshot, recent: Recent::new(), statistics }
    }

    /// The first stretch of an object as it is now.
    pub(super) async fn open(&self, key: &Arc<str>) -> Result<Arc<Stretch>, PullError> {
        if self.is_snapshot {
            return self.find(key, 0).await;
        }
        let known = self.recent.get(key, 0);
        self.statistics.requested();
        let facts = known.as_ref().map(|known| (known.modified, known.etag.as_str()));
        match (self.source.recipe(key, range_of(0), facts).await?, known) {
            (None, Some(known)) => Ok(known),
            (None, None) => self.ask(key, 0).await,
            (Some(recipe), _) => Ok(self.learn(key, 0, recipe)),
        }
    }

    /// A recipe that is in memory.
    pub(super) fn get(&self, key: &Arc<str>, number: u64) -> Option<Arc<Stretch>> {
        self.recent.get(key, number)
    }

    /// A recipe, wherever it is.
    pub(super) async fn find(&self, key: &Arc<str>, number: u64) -> Result<Arc<Stretch>, PullError> {
        if let Some(stretch) = self.recent.get(key, number) {
            return Ok(stretch);
        }
        if let Some((cache, id)) = &self.kept {
            let (cache, name) = (cache.clone(), id.recipe_name(key, number));
            let kept = blocking(move || Recipe::decode(&cache.recipe(&name)?).ok()).await.ok().flatten();
            if let Some(recipe) = kept.filter(|recipe| recipe.covers(range_of(number))) {
                return Ok(self.learn(key, number, recipe));
            }
        }
        self.ask(key, number).await
    }

    /// A recipe as the appliance gives it now.
    pub(super) async fn ask(&self, key: &Arc<str>, number: u64) -> Result<Arc<Stretch>, PullError> {
        self.statistics.requested();
        let recipe = self.source.recipe(key, range_of(number), None).await?;
        let Some(mut recipe) = recipe else {
            let (path, what) = (key.to_string(), "not modified, though nothing was known".to_owned());
            return Err(PullError::BadAnswer { path, what });
        };
        if let Some((cache, id)) = &self.kept {
            // What comes along is kept as chunks: an open that needs the recipe again is not to read them.
            let along = match &mut recipe.content {
                Content::Chunks { stored, .. } => stored.take(),
                Content::Inline(_) => None,
            };
            cache.keep_recipe(&id.recipe_name(key, number), &recipe.encode());
            if let Content::Chunks { stored, .. } = &mut recipe.content {
                *stored = along;
            }
        }
        Ok(self.learn(key, number, recipe))
    }

    fn learn(&self, key: &Arc<str>, number: u64, recipe: Recipe) -> Arc<Stretch> {
        let stretch = Arc::new(Stretch::new(recipe));
        self.recent.put(key, number, stretch.clone());
        stretch
    }
}

fn range_of(number: u64) -> ByteRange {
    ByteRange { start: number * STRETCH, end: (number + 1) * STRETCH }
}
