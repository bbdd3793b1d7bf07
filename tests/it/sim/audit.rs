//! The full check of a store that nobody uses at the moment, against the model: every object, every list, every upload,
//! and the store's own check.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bedplate::model::{BucketName, ByteRange, ObjectKey, PackId};
use bedplate::store::{FsckOptions, ListRequest, ObjectInfo, StoreError};

use super::client::Client;
use super::history::{Call, End};
use super::model::{Part, Place, Violation, id_of};
use super::scene::chain;
use super::setup::Promise;

/// Longer than any step of a call takes.
const SETTLED: Duration = Duration::from_secs(10);

impl Client {
    /// Checks everything. From here on the model knows exactly what there is.
    pub(super) async fn audit(&mut self) -> Result<(), Violation> {
        // A call that its client gave up may still take effect, and is to do so before anything is looked at.
        tokio::time::sleep(SETTLED).await;
        self.note("audit");
        let mut there: BTreeMap<Place, ObjectInfo> = BTreeMap::new();
        for place in self.setup.places.clone() {
            if let Some(info) = self.audit_object(&place).await? {
                there.insert(place, info);
            }
        }
        for bucket in self.setup.buckets() {
            self.audit_lists(&bucket, &there).await?;
            self.audit_uploads(&bucket, &there).await?;
        }
        self.audit_store().await?;
        self.count("audited");
        Ok(())
    }

    async fn audit_object(&mut self, place: &Place) -> Result<Option<ObjectInfo>, Violation> {
        let call = self.model.begin(place, Call::Read);
        let store = self.store.clone();
        let info = match self.patient(store.head(&place.0, &place.1)).await {
            Some(Ok(info)) => info,
            Some(Err(StoreError::NoSuchKey(_))) => {
                self.model.end(place, call, &End::Saw(None))?;
                return Ok(None);
            }
            Some(Err(error)) => return Err(format!("{}/{}: {}", place.0, place.1, chain(&error))),
            None => return Ok(None),
        };
        self.check_info(place, &info)?;
        let id = id_of(&info)?;
        self.model.end(place, call, &End::Saw(Some(id.clone())))?;
        let content = self.model.find(&id)?.content;
        let size = content.len() as u64;
        let mut ranges = vec![None];
        if self.random.chance(500) {
            let start = self.random.below(size + 1);
            ranges.push(Some(ByteRange { start, end: start + self.random.below(size - start + 1) }));
        }
        for range in ranges {
            let whole = range.unwrap_or(ByteRange { start: 0, end: size });
            let store = self.store.clone();
            match self.patient(store.get(&place.0, &place.1, range)).await {
                Some(Ok((_, stream))) => {
                    let wanted = &content[whole.start as usize..whole.end as usize];
                    let is_whole = self.compare(place, stream, wanted, false).await?;
                    if !is_whole && self.setup.promise() == Promise::Damaged && self.harmed(place).is_empty() {
                        return Err(format!("{}/{}: it is refused, and nothing of it is harmed", place.0, place.1));
                    }
                }
                Some(Err(error)) => {
                    self.judge(&error).map_err(|what| format!("{}/{}: {what}", place.0, place.1))?;
                    if self.setup.promise() == Promise::Damaged && self.harmed(place).is_empty() {
                        return Err(format!("{}/{}: nothing of it is harmed: {}", place.0, place.1, chain(&error)));
                    }
                }
                None => {}
            }
        }
        Ok(Some(info))
    }

    /// Lists page by page, with and without groups.
    async fn audit_lists(&mut self, bucket: &BucketName, there: &BTreeMap<Place, ObjectInfo>) -> Result<(), Violation> {
        let keys = there.iter().filter(|((of, _), _)| of == bucket).map(|((_, key), _)| key.clone());
        let keys: Vec<ObjectKey> = keys.collect();
        for delimiter in [None, Some("/".to_owned())] {
            let mut request = ListRequest {
                delimiter: delimiter.clone(),
                limit: self.random.between(1, 4) as usize,
                ..ListRequest::default()
            };
            let mut found: Vec<String> = Vec::new();
            loop {
                let store = self.store.clone();
                let page = match self.patient(store.list(bucket, &request)).await {
                    Some(Ok(page)) => page,
                    Some(Err(error)) => return Err(format!("{bucket} cannot be listed: {}", chain(&error))),
                    None => return Ok(()),
                };
                found.extend(page.objects.iter().map(|info| info.key.to_string()));
                found.extend(page.prefixes);
                match page.next {
                    Some(next) => request.start_after = Some(next),
                    None => break,
                }
            }
            found.sort_unstable();
            let group = |key: &ObjectKey| match (&delimiter, key.as_str().split_once('/')) {
                (Some(_), Some((folder, _))) => format!("{folder}/"),
                _ => key.to_string(),
            };
            let wanted: BTreeSet<String> = keys.iter().map(group).collect();
            if found != wanted.iter().cloned().collect::<Vec<_>>() {
                return Err(format!("{bucket} lists {found:?} and holds {wanted:?} (delimiter {delimiter:?})"));
            }
        }
        Ok(())
    }

    async fn audit_uploads(
        &mut self,
        bucket: &BucketName,
        there: &BTreeMap<Place, ObjectInfo>,
    ) -> Result<(), Violation> {
        let store = self.store.clone();
        let listed = match self.patient(store.list_uploads(bucket)).await {
            Some(Ok(listed)) => listed,
            Some(Err(error)) => return Err(format!("{bucket}'s uploads cannot be listed: {}", chain(&error))),
            None => return Ok(()),
        };
        let listed: Vec<_> = listed.into_iter().map(|upload| (upload.key, upload.id)).collect();
        self.model.check_uploads(bucket, &listed)?;
        for (key, id) in listed {
            let store = self.store.clone();
            let parts = match self.patient(store.list_parts(bucket, &key, &id)).await {
                Some(Ok(parts)) => parts,
                Some(Err(error)) => return Err(format!("upload {id} of {bucket}/{key}: {}", chain(&error))),
                None => return Ok(()),
            };
            let mut found: BTreeMap<u32, (String, u64)> =
                parts.into_iter().map(|part| (part.number, (part.etag, part.size))).collect();
            self.model.uploads(|uploads| {
                let Some(upload) = uploads.get_mut(&id) else { return Ok(()) };
                let write = upload.write.to_string();
                let completed = there.values().find(|info| info.headers.values().any(|value| *value == write));
                if let Some(info) = completed {
                    return Err(format!("upload {id} is open, and {} came out of it", info.key));
                }
                for (number, held) in &mut upload.parts {
                    let seen = found.remove(number);
                    let is_so = |part: &Part| match (part, &seen) {
                        (None, None) => true,
                        (Some((etag, content)), Some(seen)) => *etag == seen.0 && content.len() as u64 == seen.1,
                        _ => false,
                    };
                    held.retain(is_so);
                    held.truncate(1);
                    if held.is_empty() {
                        return Err(format!("part {number} of upload {id} is {seen:?}, and that cannot be"));
                    }
                }
                if found.is_empty() { Ok(()) } else { Err(format!("upload {id} has parts that nobody put: {found:?}")) }
            })?;
        }
        Ok(())
    }

    /// The store's own check finds nothing, unless the disk lied or rotted; and then it finds that.
    async fn audit_store(&mut self) -> Result<(), Violation> {
        let promise = self.setup.promise();
        // A read that failed twice is damage to the scrub, until it reads well.
        if self.setup.scrub_pause > 0 && (self.setup.disk_fails || self.random.chance(500)) {
            let repair = self.random.chance(700);
            self.pass(repair).await?;
        }
        let options = FsckOptions { data: self.random.chance(500) || promise == Promise::Damaged };
        let store = self.store.clone();
        let report = match self.patient(store.fsck(options)).await {
            Some(Ok(report)) => report,
            Some(Err(error)) => return Err(format!("fsck cannot run: {}", chain(&error))),
            None => return Ok(()),
        };
        self.add("damage found by fsck", report.errors.len() as u64);
        let named: BTreeSet<PackId> = report.errors.iter().filter_map(|error| error.pack).collect();
        let is_explained = match promise {
            Promise::Whole => report.errors.is_empty(),
            Promise::Damaged => named == self.harmed_packs(),
            Promise::Named => true,
        };
        if is_explained { Ok(()) } else { Err(format!("fsck finds {:?}", report.errors)) }
    }
}
