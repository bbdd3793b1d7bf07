//! The keeper: collects garbage while the clients work, and at the end for good.

use std::time::Duration;

use bedplate::store::{GcOptions, StoreError};

use super::client::Client;
use super::model::Violation;
use super::setup::Promise;

/// More rounds than any garbage needs.
const ROUNDS: u32 = 50;

impl Client {
    /// Collects garbage again and again.
    pub(super) async fn keep(mut self) -> Result<(), Violation> {
        // So often, and not for as long as a slow client takes.
        let times = if self.setup.gc_pause == 0 { 0 } else { self.setup.turns * 2 };
        for _ in 0..times {
            let pause = self.random.spread(self.setup.gc_pause);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let options = GcOptions {
                dry_run: self.random.chance(100),
                rounds: self.random.below(4) as u32,
                seal: self.random.chance(500),
                gentle: self.random.chance(300),
            };
            self.collect(options).await?;
        }
        std::future::pending().await
    }

    async fn collect(&mut self, options: GcOptions) -> Result<(), Violation> {
        self.note(&format!("collects garbage: {options:?}"));
        let store = self.store.clone();
        let report = match self.patient(store.gc(options)).await {
            None => return Ok(()),
            Some(Ok(report)) => report,
            Some(Err(StoreError::NotCollected { what })) => {
                self.note(&format!("    not collected: {what}"));
                let faults = &self.setup.faults;
                let is_explained =
                    self.setup.promise() == Promise::Named || faults.meta_errors + faults.volume_errors > 0;
                return if is_explained {
                    Ok(())
                } else {
                    Err(format!("nothing explains that nothing is collected: {what}"))
                };
            }
            Some(Err(error)) => return self.judge(&error).map(drop),
        };
        if report.rounds == ROUNDS && self.setup.promise() != Promise::Named {
            return Err(format!("a collection finds no end: {:?}", report.done));
        }
        let done = &report.done;
        for (what, count) in [
            ("gc condemned", done.condemned),
            ("gc resurrected", done.resurrected),
            ("gc deleted", done.deleted),
            ("gc repacked", done.repacked),
            ("gc rewritten", done.rewritten),
            ("gc orphans", done.orphans),
            ("gc parts", done.parts),
            ("gc manifests", done.manifests),
            ("gc failures", done.failures.len() as u64),
        ] {
            self.add(what, count);
        }
        if done.rescued > 0 && self.setup.promise() != Promise::Named {
            return Err(format!("{} packs were condemned and in use", done.rescued));
        }
        let faults = &self.setup.faults;
        let may_fail = faults.meta_errors + faults.volume_errors + faults.full > 0;
        let decay = self.decay.borrow();
        match done.failures.iter().find(|failure| !decay.is_named_by(failure)) {
            Some(failure) if !may_fail && self.setup.promise() != Promise::Named => {
                Err(format!("nothing explains what the collection could not do: {failure}"))
            }
            _ => Ok(()),
        }
    }

    /// Collects until nothing is left to do.
    pub(super) async fn tidy(&mut self) -> Result<(), Violation> {
        self.end_removals().await?;
        self.collect(GcOptions { dry_run: false, rounds: ROUNDS, seal: true, gentle: false }).await
    }

    /// Removes all snapshots and branches, deletes all objects and aborts all uploads. False where something stays until the next start.
    pub(super) async fn clear(&mut self) -> Result<bool, Violation> {
        for place in self.setup.places.clone() {
            self.delete_one(&place).await?;
        }
        for id in self.model.uploads(|uploads| uploads.keys().copied().collect::<Vec<_>>()) {
            self.abort(id).await?;
        }
        match self.model.uploads(|uploads| uploads.len()) {
            0 => self.clear_shelf().await,
            left => Err(format!("{left} uploads could not be aborted")),
        }
    }
}
