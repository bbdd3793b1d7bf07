//! The scrub: every pack is read again before it has been left alone for too long, the oldest first, at a pace that leaves the
//! disk to others. How far it has come stands in the packs' rows, so that a restart goes on where it was.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Pace;
use super::repair::RepairReport;
use super::report::DamageInfo;
use super::verify::{Verdict, verify};
use crate::format::damage::DamageRow;
use crate::format::manifest::Location;
use crate::format::row::{PackRow, PackState, key};
use crate::meta::{MetaError, Transaction};
use crate::model::PackId;
use crate::store::error::StoreError;
use crate::store::{Inner, Store};
use crate::sys::clock;
use crate::telemetry::metrics;

/// Between two looks for packs that are due.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// How the background scrub works.
#[derive(Clone, Copy, Debug)]
pub struct ScrubSettings {
    /// Every pack is read again within this time.
    pub within: Duration,
    /// Bytes a second at most; 0, no bound.
    pub rate: u64,
}

/// How to scrub once.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScrubOptions {
    /// Only packs that were last read this long ago or longer.
    pub older_than: Duration,
    /// Bytes a second at most; 0, no bound.
    pub rate: u64,
    /// Repair what has a second copy.
    pub repair: bool,
}

/// What a scrub found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Packs that were read.
    pub packs: u64,
    /// Chunks that were compared with their digests.
    pub chunks: u64,
    /// Damaged chunks that were met, known or not.
    pub damaged_chunks: u64,
    /// Heads of groups that were damaged, and were written again where that was asked for.
    pub heads: u64,
    /// What was repaired.
    pub repair: RepairReport,
    /// What is damaged now.
    pub damage: Vec<DamageInfo>,
    /// How long it took.
    pub seconds: f64,
}

impl Store {
    /// Reads packs and compares each chunk with its digest. May be dropped at any await: what was read counts.
    pub async fn scrub(&self, options: ScrubOptions) -> Result<ScrubReport, StoreError> {
        let started = Instant::now();
        let inner = &self.inner;
        let mut report = ScrubReport::default();
        let mut due = inner.ages().await?;
        let now = clock::now();
        due.retain(|aged| now.since(aged.seen) >= options.older_than);
        due.sort_unstable_by_key(|aged| (aged.seen, aged.pack));
        let mut pace = Pace::new(Some(options.rate));
        for aged in due {
            inner.scrub_one(aged.pack, options.repair, &mut pace, &mut report).await?;
        }
        inner.forget_gone().await?;
        if options.repair {
            let directories = report.repair.directories;
            report.repair = self.repair().await?;
            report.repair.directories += directories;
        }
        report.damage = inner.damage().await?;
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Scrubs in the background until the token is cancelled.
    pub async fn keep_scrubbing(self, settings: ScrubSettings, token: CancellationToken) {
        let options = ScrubOptions { older_than: settings.within, rate: settings.rate, repair: true };
        let rounds = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                match self.scrub(options).await {
                    Ok(report) => self.told(&report).await,
                    Err(error) => tracing::warn!(%error, "the store could not be scrubbed; it is tried again"),
                }
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = rounds => {}
        }
    }

    async fn told(&self, report: &ScrubReport) {
        if report.packs > 0 || report.repair.rewritten > 0 {
            let (packs, chunks, repaired) = (report.packs, report.chunks, report.repair.rewritten);
            tracing::info!(packs, chunks, damage = report.damage.len(), repaired, "scrubbed packs");
        }
        let oldest = match self.inner.ages().await {
            Ok(ages) => ages.iter().map(|aged| aged.seen).min(),
            Err(_) => return,
        };
        let age = oldest.map_or(0, |oldest| clock::now().since(oldest).as_secs());
        metrics::scrub(age, report.damage.len() as u64);
    }
}

impl Inner {
    async fn scrub_one(
        &self,
        pack: PackId,
        repair: bool,
        pace: &mut Pace,
        report: &mut ScrubReport,
    ) -> Result<(), StoreError> {
        let Some(row) = self.whole_pack(pack).await? else { return Ok(()) };
        // Damage that somebody meets while the pack is read is not forgiven for what was read before.
        let known = self.damage_of(pack).await?;
        let mut verdict = verify(self, pack, &row, true, pace).await?;
        if repair && verdict.directory.is_none() && self.restored(pack, report).await? {
            verdict = verify(self, pack, &row, true, pace).await?;
        }
        // It may have gone while it was read: then nothing that was found counts.
        if self.whole_pack(pack).await?.is_none() {
            return Ok(());
        }
        report.packs += 1;
        report.chunks += verdict.chunks;
        report.damaged_chunks += verdict.bad.len() as u64;
        report.heads += verdict.heads.len() as u64;
        self.write_down(pack, &verdict, &known).await?;
        if let (true, Some(directory)) = (repair && !verdict.heads.is_empty(), &verdict.directory) {
            tracing::warn!(%pack, heads = verdict.heads.len(), "heads of groups are damaged and written again");
            match self.repair_heads(directory, verdict.heads).await {
                // It has gone meanwhile.
                Err(StoreError::NoSuchPack(_)) if self.whole_pack(pack).await?.is_none() => return Ok(()),
                other => other?,
            }
        }
        // A pack that does not say what it holds was not looked at.
        if verdict.directory.is_some() { self.note_verified(pack).await } else { Ok(()) }
    }

    /// Makes a damaged directory again, so that the pack can be read; whether it could.
    async fn restored(&self, pack: PackId, report: &mut ScrubReport) -> Result<bool, StoreError> {
        match self.repair_directory(pack).await {
            Ok(done) => {
                report.repair.directories += u64::from(done);
                Ok(done)
            }
            Err(error @ (StoreError::Closed | StoreError::DiskFull | StoreError::Meta(_))) => Err(error),
            // The repair tries it again, and tells.
            Err(error) => {
                tracing::debug!(%pack, %error, "a damaged directory could not be made again");
                Ok(false)
            }
        }
    }

    /// The row of a pack that is whole and not going.
    pub(in crate::store) async fn whole_pack(&self, pack: PackId) -> Result<Option<PackRow>, StoreError> {
        let Some(bytes) = self.meta.get(&key::pack(pack)).await? else { return Ok(None) };
        let row = PackRow::decode(&bytes)?;
        Ok(matches!(row.state, PackState::Sealed | PackState::Condemned).then_some(row))
    }

    /// Writes down what is damaged, and forgets what of the damage that was `known` reads well again.
    pub(super) async fn write_down(
        &self,
        pack: PackId,
        verdict: &Verdict,
        known: &[(Location, DamageRow)],
    ) -> Result<(), StoreError> {
        for what in &verdict.whole {
            match verdict.directory {
                None => self.distrust_pack(pack, what).await,
                // Every chunk can be found and read all the same.
                Some(_) => tracing::warn!(%pack, what, "a pack is not as it should be"),
            }
        }
        for bad in &verdict.bad {
            self.distrust(&bad.digest, Location { pack, chunk: bad.chunk }, &bad.what, false).await;
        }
        let Some(directory) = &verdict.directory else { return Ok(()) };
        let bad: BTreeSet<u32> = verdict.bad.iter().map(|bad| bad.chunk).collect();
        for (at, row) in known.iter().filter(|(at, _)| !bad.contains(&at.chunk)) {
            let digest = directory.entries.get(at.chunk as usize).map(|entry| entry.digest);
            self.forgive_one(*at, row, digest).await?;
        }
        Ok(())
    }

    /// Writes into the pack's row that it was read now.
    async fn note_verified(&self, pack: PackId) -> Result<(), StoreError> {
        let key = key::pack(pack);
        loop {
            let Some(found) = self.meta.get(&key).await? else { return Ok(()) };
            let row = PackRow { verified: clock::now(), ..PackRow::decode(&found)? };
            // The collector expects its row as it is.
            if row.state == PackState::Deleting {
                return Ok(());
            }
            match self
                .meta
                .commit(Transaction::new().expect(key.clone(), Some(found)).put(key.clone(), row.encode()))
                .await
            {
                Err(MetaError::Conflict) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Forgets damage in packs that are gone.
    async fn forget_gone(&self) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for (at, _) in self.all_damage().await? {
            if self.meta.get(&key::pack(at.pack)).await?.is_none() {
                gone.push(at);
            }
        }
        self.forgive(&gone).await
    }
}
