//! Garbage collection while the store serves. A round raises the epoch, surveys (`survey`: every pack, and by `mark` what is in use),
//! decides (`plan`, pure), and acts (`act`, `repack`). docs/decisions/0004 has the protocol between the rounds and the writers, and
//! tests/it/gc_model proves it.
//!
//! A round may be dropped at any await, and the process may die in it: every step is one transaction or one file, and the next round
//! goes on with what it finds.

mod act;
mod mark;
mod pace;
mod plan;
mod repack;
pub(super) mod roots;
mod survey;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::error::StoreError;
use super::{Inner, Store};
use crate::format::row::{self, key};
use crate::meta::{MetaError, Transaction};
use crate::model::PackId;
use crate::telemetry::metrics;
use act::Actor;
use pace::Pace;
pub use plan::{GcPlan, PlannedPack};
use repack::Mover;
use survey::Survey;

/// Stored bytes that one round moves to new packs at most.
const REPACK_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Tries to raise the epoch.
const RAISES: usize = 8;
/// Failures that a report names.
const FAILURES_MAX: usize = 100;

/// How to collect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Only make the plan.
    pub dry_run: bool,
    /// Rounds at most, while there is something left to do; 0 is one. What is garbage takes one round to be condemned and another to go.
    pub rounds: u32,
    /// Seal the pack that is being filled first, so that garbage in it goes too.
    pub seal: bool,
    /// Leave most of the time to others.
    pub gentle: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcDone {
    /// Packs that were in use though condemned, and are sealed again.
    pub rescued: u64,
    /// Packs that were condemned: they go in a later round.
    pub condemned: u64,
    /// Packs that were to go, and that a writer has found of use again.
    pub resurrected: u64,
    /// Packs that were deleted.
    pub deleted: u64,
    /// Length of the files that were deleted, orphans included.
    pub freed_bytes: u64,
    /// Packs whose chunks in use were moved: they go in later rounds.
    pub repacked: u64,
    /// Stored bytes that were moved.
    pub moved_bytes: u64,
    /// Objects and parts that were rewritten to what was moved.
    pub rewritten: u64,
    /// Files without a row that were deleted.
    pub orphans: u64,
    /// Index rows that were removed with their packs.
    pub index_rows: u64,
    /// Parts of ended uploads that were removed.
    pub parts: u64,
    /// Manifests that nothing names that were removed.
    pub manifests: u64,
    /// What could not be done, and why; the next round tries again.
    pub failures: Vec<String>,
}

impl GcDone {
    fn add(&mut self, other: Self) {
        self.rescued += other.rescued;
        self.condemned += other.condemned;
        self.resurrected += other.resurrected;
        self.deleted += other.deleted;
        self.freed_bytes += other.freed_bytes;
        self.repacked += other.repacked;
        self.moved_bytes += other.moved_bytes;
        self.rewritten += other.rewritten;
        self.orphans += other.orphans;
        self.index_rows += other.index_rows;
        self.parts += other.parts;
        self.manifests += other.manifests;
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_MAX);
    }
}

/// What a collection found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GcReport {
    /// Whether only the plan was made.
    pub dry_run: bool,
    /// Rounds.
    pub rounds: u32,
    /// Objects whose manifests were followed, in the last round.
    pub objects: u64,
    /// The plan of the first round: what there was to do.
    pub plan: GcPlan,
    /// Packs that are condemned and wait for an activity to end.
    pub waiting: u64,
    /// Activities that began before the last round and are still under way: what they may know stays until they end.
    pub held_over: u64,
    /// What all rounds did.
    pub done: GcDone,
    /// How long it took.
    pub seconds: f64,
}

/// What one round leaves in memory for the next. A crash loses it, and costs a round.
#[derive(Default)]
pub(super) struct Memory {
    /// Files that no row names.
    strays: BTreeSet<PackId>,
    /// Manifests that no root names, each with the epoch in which it was first seen.
    manifests: BTreeMap<[u8; 16], u64>,
}

/// Lets one round at a time through.
#[derive(Default)]
pub(super) struct Collector(tokio::sync::Mutex<Memory>);

impl Store {
    /// Collects garbage while the store serves. One collection at a time: another one waits.
    ///
    /// Fails with [`StoreError::NotCollected`], and has removed nothing in that round, when something cannot be read that may refer to
    /// chunks.
    pub async fn gc(&self, options: GcOptions) -> Result<GcReport, StoreError> {
        let mut memory = self.inner.collector.0.lock().await;
        let begin = Instant::now();
        let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        let rounds = if options.dry_run { 1 } else { options.rounds.max(1) };
        while report.rounds < rounds {
            let outcome = self.inner.round(options, &mut memory).await;
            metrics::gc_round(outcome.is_ok());
            let (plan, objects, done, more) = outcome?;
            report.rounds += 1;
            (report.waiting, report.objects) = (plan.waiting.len() as u64, objects);
            if report.rounds == 1 {
                report.plan = plan;
            }
            report.done.add(done);
            if !more {
                break;
            }
        }
        report.held_over = self.inner.activities.held_over() as u64;
        report.seconds = begin.elapsed().as_secs_f64();
        metrics::gc(report.done.freed_bytes, report.done.moved_bytes, report.waiting);
        Ok(report)
    }
}

impl Inner {
    /// One round. Answers the plan, how many objects there are, what was done, and whether another round has something to do.
    async fn round(&self, options: GcOptions, memory: &mut Memory) -> Result<(GcPlan, u64, GcDone, bool), StoreError> {
        if options.seal && !options.dry_run {
            self.packer.seal().await?;
        }
        let epoch = if options.dry_run { self.activities.epoch() + 1 } else { self.raise_epoch().await? };
        let mut pace = Pace::new(options.gentle);
        let Survey { facts, marks, objects, ended_uploads, manifests, first_seen } = if options.dry_run {
            // A look changes nothing, not even what the next round remembers.
            let mut seen = Memory { strays: memory.strays.clone(), manifests: memory.manifests.clone() };
            survey::survey(self, epoch, &mut seen, &mut pace).await?
        } else {
            survey::survey(self, epoch, memory, &mut pace).await?
        };
        let plan = plan::plan(&facts);
        if options.dry_run {
            return Ok((plan, objects, GcDone::default(), false));
        }
        let mut actor = Actor { inner: self, facts: &facts, done: GcDone::default() };
        actor.rescue(&plan.rescue).await?;
        if let Some(what) = plan.contradictions.first() {
            return Err(StoreError::NotCollected { what: what.clone() });
        }
        if let Some(why) = &plan.orphans_refused {
            tracing::warn!("packs without a row are kept: {why}");
        }
        actor.condemn(&plan.condemn, &mut pace).await?;
        actor.delete(&plan, &mut pace).await?;
        actor.remove_orphans(&plan.orphans).await;
        actor.remove_leftovers(&ended_uploads, &manifests, &mut pace).await?;
        let mut done = actor.done;
        let mut mover = Mover::new(self);
        mover.append(&plan.repack, &marks, &mut done, &mut pace).await?;
        mover.rewrite(&mut done, &mut pace).await?;
        let more = first_seen || done.condemned + done.repacked + done.parts + done.manifests > 0;
        Ok((plan, objects, done, more))
    }

    /// Begins a new epoch: from here on every commit is one of it.
    async fn raise_epoch(&self) -> Result<u64, StoreError> {
        for _ in 0..RAISES {
            let found = self.meta.get(&key::epoch()).await?;
            let epoch = row::decode_epoch(found.as_deref())? + 1;
            let tx = Transaction::new().expect(key::epoch(), found).put(key::epoch(), row::encode_epoch(epoch));
            match self.meta.commit(tx).await {
                // No other process has the store open, and this one collects one round at a time: a round that was dropped has
                // raised the epoch just now.
                Err(MetaError::Conflict) => {}
                other => {
                    other?;
                    self.activities.advance(epoch);
                    return Ok(epoch);
                }
            }
        }
        Err(StoreError::Busy)
    }
}
