//! The warden: scrubs and repairs while the clients work and packs decay. What it is told must have a cause that the seed has.

use std::time::Duration;

use bedplate::format::damage::WHOLE;
use bedplate::store::{DamageInfo, RebuildOptions, RepairReport, ScrubOptions, ScrubReport};

use super::client::Client;
use super::model::Violation;
use super::setup::Promise;

/// Bits that turn while the machine runs once, at most.
const TURNS: u64 = 4;

impl Client {
    /// Lets bits turn, now and then.
    pub(super) async fn rot(mut self) {
        let turns = if self.setup.rot_pause == 0 { 0 } else { self.random.below(TURNS + 1) };
        for _ in 0..turns {
            let pause = self.random.spread(self.setup.rot_pause);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let turned = self.scene.decay.borrow_mut().turn(&self.scene.rows(), &self.scene.volume, &mut self.random);
            if let Some(what) = turned {
                self.note(&what);
                self.count("bits turned at work");
            }
        }
        std::future::pending::<()>().await;
    }

    /// Scrubs and repairs again and again.
    pub(super) async fn watch(mut self) -> Result<(), Violation> {
        let times = if self.setup.scrub_pause == 0 { 0 } else { self.setup.turns };
        for _ in 0..times {
            let pause = self.random.spread(self.setup.scrub_pause);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            match self.random.weighted(&[8, 2, 1, 1]) {
                0 => self.scrub().await?,
                1 => self.repair().await?,
                2 => self.status().await?,
                _ => self.rebuild().await?,
            }
        }
        std::future::pending().await
    }

    async fn scrub(&mut self) -> Result<(), Violation> {
        let options = ScrubOptions {
            older_than: Duration::from_secs(*self.random.pick(&[0, 0, 0, 10])),
            rate: *self.random.pick(&[0, 0, 100_000, 10_000_000]),
            repair: self.random.chance(700),
        };
        self.note(&format!("scrubs: {options:?}"));
        let store = self.store.clone();
        match self.patient(store.scrub(options)).await {
            None => Ok(()),
            Some(Ok(report)) => {
                self.scrubbed(&report);
                self.explained_heads(report.heads)?;
                self.explained_damage(&report.damage)?;
                self.explained_repair(&report.repair)
            }
            Some(Err(error)) => self.judge(&error).map(drop),
        }
    }

    async fn repair(&mut self) -> Result<(), Violation> {
        self.note("repairs");
        let store = self.store.clone();
        match self.patient(store.repair()).await {
            None => Ok(()),
            Some(Ok(report)) => self.explained_repair(&report),
            Some(Err(error)) => self.judge(&error).map(drop),
        }
    }

    async fn status(&mut self) -> Result<(), Violation> {
        let store = self.store.clone();
        match self.patient(store.scrub_status()).await {
            None => Ok(()),
            Some(Ok(status)) => self.explained_damage(&status.damage),
            Some(Err(error)) => self.judge(&error).map(drop),
        }
    }

    async fn rebuild(&mut self) -> Result<(), Violation> {
        self.note("rebuilds the index");
        let store = self.store.clone();
        match self.patient(store.rebuild_index(RebuildOptions::default())).await {
            None => Ok(()),
            Some(Ok(report)) => {
                let failures = report.failures.iter().map(|failure| format!("{failure:?}"));
                self.explained_failures(failures)
            }
            Some(Err(error)) => self.judge(&error).map(drop),
        }
    }

    pub(super) fn scrubbed(&self, report: &ScrubReport) {
        self.add("scrub packs", report.packs);
        self.add("scrub damaged chunks", report.damaged_chunks);
        self.add("scrub heads", report.heads);
        self.add("damage told", report.damage.len() as u64);
    }

    /// Heads are damaged only where bits turn, or a read fails.
    fn explained_heads(&self, heads: u64) -> Result<(), Violation> {
        if heads > 0 && self.setup.promise() == Promise::Whole && !self.setup.disk_fails {
            return Err(format!("{heads} heads of groups are damaged, and no bit has turned"));
        }
        Ok(())
    }

    /// Damage is told only where bits turned, or a read failed twice.
    fn explained_damage(&self, damage: &[DamageInfo]) -> Result<(), Violation> {
        if self.setup.promise() == Promise::Named || self.setup.disk_fails {
            return Ok(());
        }
        let decay = self.decay.borrow();
        match damage.iter().find(|info| !decay.explains(info.pack, info.chunk.unwrap_or(WHOLE))) {
            None => Ok(()),
            Some(info) => Err(format!("nothing explains the damage {info:?}")),
        }
    }

    pub(super) fn explained_repair(&self, report: &RepairReport) -> Result<(), Violation> {
        self.add("repair copies", report.copies);
        self.add("repair rewritten", report.rewritten);
        self.add("repair directories", report.directories);
        self.explained_failures(report.failures.iter().cloned())
    }

    fn explained_failures(&self, mut failures: impl Iterator<Item = String>) -> Result<(), Violation> {
        let faults = &self.setup.faults;
        if self.setup.promise() == Promise::Named || faults.volume_errors + faults.meta_errors + faults.full > 0 {
            return Ok(());
        }
        let decay = self.decay.borrow();
        match failures.find(|failure| !decay.is_named_by(failure)) {
            None => Ok(()),
            Some(failure) => Err(format!("nothing explains what care could not do: {failure}")),
        }
    }
}
