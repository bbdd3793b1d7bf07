//! The sweep: every bucket with rules is walked now and then, and what its rules say is done; snapshots whose time is over go.

use std::collections::VecDeque;
use std::time::Duration;

use s3s::dto::{BucketLifecycleConfiguration, LifecycleRule};
use tokio_util::sync::CancellationToken;

use super::rules::{self, Action, Standing};
use crate::model::{BucketName, ObjectKey};
use crate::s3::settings::{self, Setting};
use crate::store::{BucketInfo, DeleteRequest, Placed, Store, StoreError, VersionInfo, VersionListRequest};
use crate::sys::clock::{self, Timestamp};

/// Versions read at once.
const PAGE: usize = 1_000;

/// How often buckets are walked.
#[derive(Clone, Copy, Debug)]
pub struct LifecycleSettings {
    /// Between two walks.
    pub every: Duration,
}

/// What one walk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects that expired.
    pub expired: u64,
    /// Versions and delete markers that were removed.
    pub removed: u64,
    /// Uploads that were aborted.
    pub aborted: u64,
    /// Snapshots whose time was over.
    pub snapshots: u64,
}

/// Applies the rules of all buckets.
#[derive(Clone)]
pub struct Lifecycle {
    store: Store,
}

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifecycle").finish_non_exhaustive()
    }
}

impl Lifecycle {
    /// Over the buckets of this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Sweeps again and again, until the token is cancelled.
    pub async fn keep_sweeping(self, settings: LifecycleSettings, token: CancellationToken) {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(settings.every) => {}
            }
            tokio::select! {
                () = token.cancelled() => return,
                swept = self.sweep(clock::now()) => match swept {
                    Ok(swept) if swept == Swept::default() => {}
                    Ok(Swept { expired, removed, aborted, snapshots }) => {
                        tracing::info!(expired, removed, aborted, snapshots, "lifecycle rules were applied");
                    }
                    Err(error) => tracing::error!(%error, "lifecycle rules could not be applied; the next sweep tries again"),
                },
            }
        }
    }

    /// Does once what all rules say at `now`.
    pub async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for bucket in self.store.buckets().await? {
            if let Err(error) = self.bucket(&bucket, now, &mut swept).await {
                tracing::error!(bucket = %bucket.name, %error, "a bucket's lifecycle rules were not applied to all of it");
            }
        }
        swept.snapshots = self.store.expire_snapshots(now).await?;
        Ok(swept)
    }

    /// The rules that the bucket has now; none where it is gone, also if there is another of its name.
    async fn rules(&self, bucket: &BucketInfo) -> Result<Vec<LifecycleRule>, StoreError> {
        let found = settings::read::<BucketLifecycleConfiguration>(&self.store, &bucket.name, Setting::Lifecycle).await;
        let Ok(found) = found else {
            // Rules that cannot be read delete nothing; reading them has logged why.
            tracing::error!(bucket = %bucket.name, "a bucket's lifecycle rules cannot be read; set them again");
            return Ok(Vec::new());
        };
        let Some(found) = found else { return Ok(Vec::new()) };
        // What was read belongs to it if it is there afterwards.
        match self.store.bucket(&bucket.name).await {
            Ok(now) if now.identity() == bucket.identity() => Ok(found.rules),
            Ok(_) | Err(StoreError::NoSuchBucket(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Rules are read anew for each page, and after it: what was taken back deletes nothing more, and what is deleted is of their bucket.
    async fn bucket(&self, bucket: &BucketInfo, now: Timestamp, swept: &mut Swept) -> Result<(), StoreError> {
        let mut request = VersionListRequest { limit: PAGE, ..VersionListRequest::default() };
        let mut walk = Walk::default();
        loop {
            let page = self.store.list_versions(&bucket.name, &request).await?;
            let rules = self.rules(bucket).await?;
            if rules.is_empty() {
                return Ok(());
            }
            walk.add(page.versions);
            while let Some((version, standing)) = walk.next(page.next.is_none()) {
                if let Some(action) = rules::action(&rules, &version.info, standing, now) {
                    self.act(&bucket.name, &version, action, swept).await?;
                }
            }
            match page.next {
                None => break,
                Some((key, id)) => (request.key_after, request.version_after) = (Some(key), id),
            }
        }
        self.uploads(bucket, now, swept).await
    }

    async fn uploads(&self, bucket: &BucketInfo, now: Timestamp, swept: &mut Swept) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let uploads = self.store.list_uploads_after(&bucket.name, "", after, PAGE).await?;
            let rules = self.rules(bucket).await?;
            if rules.is_empty() {
                return Ok(());
            }
            after = uploads.last().map(|last| (last.key.clone(), Some(last.id)));
            for upload in uploads.iter().filter(|upload| rules::aborts(&rules, upload, now)) {
                match self.store.abort_upload(&bucket.name, &upload.key, &upload.id).await {
                    Ok(()) => swept.aborted += 1,
                    Err(StoreError::NoSuchUpload(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            if uploads.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Deletes on condition that it is still what was seen; what changed meanwhile is left for the next sweep.
    async fn act(
        &self,
        bucket: &BucketName,
        version: &VersionInfo,
        action: Action,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let info = &version.info;
        // Only a marker that is the last of its key is removed while it is the newest.
        let placed = if version.latest { Placed::Alone } else { Placed::Superseded };
        let request = DeleteRequest {
            version: (action == Action::Remove).then(|| info.version.id()),
            if_match: Some(info.etag.clone()),
            if_modified: Some(info.modified.0 / 1_000),
            if_size: Some(info.size),
            if_exactly: Some(info.version),
            if_headers: Some(info.headers.clone()),
            if_placed: (action == Action::Remove).then_some(placed),
            bypass_governance: false,
        };
        match self.store.delete_as(bucket, &info.key, &request).await {
            Ok(deleted) if !deleted.existed => {}
            Ok(_) if action == Action::Expire => swept.expired += 1,
            Ok(_) => swept.removed += 1,
            Err(StoreError::Locked | StoreError::PreconditionFailed | StoreError::Busy) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Versions in order, each with where it stands among those of its key; pages may end between them.
#[derive(Default)]
pub(super) struct Walk {
    ahead: VecDeque<VersionInfo>,
    /// The version before: its key, when it was written, and how many older ones of the key came before.
    before: Option<(ObjectKey, Timestamp, u32)>,
}

impl Walk {
    pub(super) fn add(&mut self, versions: Vec<VersionInfo>) {
        self.ahead.extend(versions);
    }

    /// The next version; none where the one after it must be known first, and is not in yet.
    pub(super) fn next(&mut self, is_last_page: bool) -> Option<(VersionInfo, Standing)> {
        if self.ahead.len() < 2 && !is_last_page {
            return None;
        }
        let version = self.ahead.pop_front()?;
        let key = version.info.key.clone();
        let before = self.before.take().filter(|(before, ..)| *before == key && !version.latest);
        let newer_noncurrent = before.as_ref().map_or(0, |(_, _, count)| *count);
        let standing = Standing {
            superseded: before.map(|(_, modified, _)| modified),
            newer_noncurrent,
            alone: version.latest && self.ahead.front().is_none_or(|after| after.info.key != key),
        };
        let count = if standing.superseded.is_some() { newer_noncurrent + 1 } else { 0 };
        self.before = Some((key, version.info.modified, count));
        Some((version, standing))
    }
}
