//! What is in a folder: S3's lists, page by page, and single names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStoreExt as _};

use super::tree::Facts;

/// Names in one page.
const PAGE: usize = 1_000;
/// How long to wait before asking an appliance again that is away.
const PAUSE: Duration = Duration::from_millis(500);

/// A name in a folder.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Box<str>,
    pub(super) facts: Facts,
}

/// Asks S3. Cheap to clone.
#[derive(Clone)]
pub(super) struct Listing {
    s3: Arc<AmazonS3>,
    root: Arc<str>,
    patience: Duration,
}

impl Listing {
    pub(super) fn new(s3: Arc<AmazonS3>, root: &str, patience: Duration) -> Self {
        Self { s3, root: root.into(), patience }
    }

    /// The client that it asks.
    pub(super) fn s3(&self) -> &Arc<AmazonS3> {
        &self.s3
    }

    /// A page of a folder's names, in order, and the token of the next page.
    pub(super) async fn page(
        &self,
        folder: &str,
        token: Option<String>,
        most: Option<usize>,
    ) -> Result<(Vec<Entry>, Option<String>), Error> {
        let prefix = Some(folder).filter(|folder| !folder.is_empty());
        let page = self
            .patiently(|| {
                let options = PaginatedListOptions {
                    delimiter: Some("/".into()),
                    max_keys: Some(most.unwrap_or(PAGE)),
                    page_token: token.clone(),
                    ..PaginatedListOptions::default()
                };
                self.s3.list_paginated(prefix, options)
            })
            .await?;
        let mut entries = Vec::new();
        for found in page.result.common_prefixes {
            if let Some(name) = name_in(folder, found.as_ref()) {
                entries.push(Entry { name, facts: Facts { is_folder: true, size: 0, modified: 0 } });
            }
        }
        for object in page.result.objects {
            if let Some(name) = name_in(folder, object.location.as_ref()) {
                entries.push(Entry { name, facts: facts_of(&object) });
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // A file and a folder of one name: the file hides the folder.
        entries.dedup_by(|next, kept| {
            let same = next.name == kept.name;
            if same && kept.facts.is_folder {
                kept.facts = next.facts;
            }
            same
        });
        Ok((entries, page.page_token))
    }

    /// What a key is: an object, or a folder because keys begin with it.
    pub(super) async fn find(&self, key: &str) -> Result<Option<Facts>, Error> {
        let Ok(path) = Path::parse(key) else { return Ok(None) };
        match self.patiently(|| self.s3.head(&path)).await {
            Ok(object) => return Ok(Some(facts_of(&object))),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let options = || PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        let below = format!("{key}/");
        let page = self.patiently(|| self.s3.list_paginated(Some(&below), options())).await?;
        let is_folder = !page.result.objects.is_empty();
        Ok(is_folder.then_some(Facts { is_folder, size: 0, modified: 0 }))
    }

    /// Whether the mount's root can be read.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        self.page(&self.root, None, Some(1)).await.map(drop)
    }

    /// Asks again while the appliance is away, as long as patience lasts.
    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let began = Instant::now();
        loop {
            match ask().await {
                Err(error @ Error::Generic { .. }) if began.elapsed() < self.patience => {
                    tracing::debug!(%error, "asking the appliance again");
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }
}

/// The name of a key in a folder; nothing for the folder's own marker, and for names that no file can have.
fn name_in(folder: &str, key: &str) -> Option<Box<str>> {
    let name = key.strip_prefix(folder)?.trim_end_matches('/');
    let good = !name.is_empty() && !name.contains(['/', '\0']) && name.len() <= 255 && !matches!(name, "." | "..");
    good.then(|| name.into())
}

fn facts_of(object: &ObjectMeta) -> Facts {
    let modified = u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0);
    Facts { is_folder: false, size: object.size, modified }
}
