//! One seed from its first start to its last check: lives of a machine, each ended by a power cut, a kill or a clean
//! stop, over the same disk.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bedplate::store::{Fault, PackHome, Store, StoreError};
use bedplate::sys::double;
use bedplate::sys::worker::Workers;

use super::client::Client;
use super::ears;
use super::model::Violation;
use super::random::Random;
use super::rows::SimMeta;
use super::scene::{Counts, Scene, chain};
use super::setup::{Promise, Setup};
use super::world::{Faults, World};

/// A life that takes longer than this is stuck.
const LIFE_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// In so much time everything comes to rest.
const SETTLE: Duration = Duration::from_secs(600);
/// Starts that may fail while the disk does.
const STARTS: u64 = 5;

/// What a seed did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The hash over all that happened, in order.
    pub trace: u64,
    pub operations: u64,
    pub counts: Counts,
}

/// What a seed found.
pub(super) struct Failure {
    pub seed: u64,
    pub what: Violation,
    pub recent: String,
    pub setup: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, recent, setup } = self;
        write!(f, "{recent}{setup}\n\nseed {seed} fails: {what}\nrepeat it: cargo xtask sim --first {seed} --seeds 1")
    }
}

/// How a life ended.
enum Ended {
    Cut,
    Well,
}

struct Simulation {
    scene: Scene,
    world: World,
    random: Random,
    /// A deliberate bug of the store.
    bug: Option<Fault>,
}

/// Runs a seed, where wanted with a deliberate bug of the store.
pub(super) fn run(setup: Setup, bug: Option<Fault>) -> Result<Outcome, Failure> {
    let seed = setup.seed;
    let world = World::new(seed, Faults::default());
    let _placed = double::place(Rc::new(world.clone()));
    let _ears = ears::listen(&world);
    let mut simulation =
        Simulation { scene: Scene::new(setup, &world), random: Random::new(seed, 6), world: world.clone(), bug };
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| simulation.lives()));
    let ended = ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("a panic: {}", text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default()))
    });
    match ended {
        Ok(()) => {
            Ok(Outcome { trace: world.trace_hash(), operations: world.operations(), counts: simulation.scene.counts() })
        }
        Err(what) => {
            Err(Failure { seed, what, recent: world.recent(), setup: format!("{:?}", simulation.scene.setup) })
        }
    }
}

impl Simulation {
    fn lives(&mut self) -> Result<(), Violation> {
        let setup = self.scene.setup.clone();
        for life in 0..=setup.lives {
            let is_last = life == setup.lives;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let world = self.world.clone();
            // Now and then while the machine is still putting in order what the cut before has left.
            let within = if self.random.chance(400) { *self.random.pick(&[12, 12, 40]) } else { setup.cut_within };
            let cut_after = (!is_last).then(|| 1 + self.random.below(within));
            let ended = runtime.block_on(async {
                world.switch_on(cut_after);
                let life = tokio::time::timeout(LIFE_LIMIT, self.life(is_last));
                tokio::select! {
                    biased;
                    () = world.cut() => Ok(Ended::Cut),
                    ended = life => {
                        world.switch_off();
                        ended.map_err(|_| "it is stuck: nothing happens any more".to_owned())?.map(|()| Ended::Well)
                    }
                }
            });
            // Every task ends here, wherever it is.
            drop(runtime);
            if let [panic, ..] = &self.world.panics()[..] {
                return Err(format!("a worker panicked: {panic}"));
            }
            match ended? {
                Ended::Cut if self.random.chance(600) => {
                    self.scene.count("power cut");
                    self.scene.volume.recover(&mut self.random);
                }
                // The process was killed: what it wrote is in the page cache still.
                Ended::Cut => self.scene.count("killed"),
                Ended::Well => self.scene.count("stopped"),
            }
            self.scene.model.settle();
            self.scene.shelf.settle();
            self.scene.contents.borrow_mut().power_was_cut();
            if setup.rot_pause > 0 && !is_last && self.random.chance(500) {
                self.rot();
            }
        }
        Ok(())
    }

    /// From a start of the process to its end.
    async fn life(&mut self, is_last: bool) -> Result<(), Violation> {
        let faults = self.scene.setup.faults;
        let workers = Workers::new();
        let store = self.start(&workers).await?;
        self.audit(&store, 250).await?;
        self.world.set_faults(faults);
        let clients = (1..=self.scene.setup.clients).map(|number| self.client(number, &store).run());
        let clients: Vec<_> = clients.collect();
        let keeper = self.client(0, &store).keep();
        let warden = self.client(100, &store).watch();
        let rot = self.client(101, &store).rot();
        tokio::select! {
            biased;
            ended = futures_util::future::try_join_all(clients) => drop(ended?),
            ended = keeper => ended?,
            ended = warden => ended?,
            () = rot => {}
        }
        if is_last {
            self.last_things(&store).await?;
        }
        if is_last || self.random.chance(500) {
            self.world.set_faults(Faults::default());
            store.close().await;
            workers.stop().await;
            self.scene.count("closed");
        }
        Ok(())
    }

    /// Nobody works any more: everything is there, and once the garbage is collected, nothing else.
    async fn last_things(&mut self, store: &Store) -> Result<(), Violation> {
        self.audit(store, 100).await?;
        // What the store does on its own, as long as the disk failed, it now does well.
        tokio::time::sleep(SETTLE).await;
        let mut keeper = self.client(0, store);
        keeper.scene = keeper.scene.calm();
        keeper.tidy().await?;
        let promise = self.scene.setup.promise();
        let mut orphans = BTreeSet::new();
        if promise == Promise::Damaged {
            keeper.heal().await?;
        }
        if promise != Promise::Named {
            let ground = self.scene.survey()?;
            if promise == Promise::Whole {
                ground.is_tidy(self.scene.setup.pack_bytes)?;
            }
            orphans = ground.orphans();
        }
        self.audit(store, 1000).await?;
        if self.random.chance(500) {
            let is_clear = keeper.clear().await?;
            keeper.tidy().await?;
            if is_clear && promise != Promise::Named {
                let left = self.scene.survey()?;
                left.is_tidy(self.scene.setup.pack_bytes)?;
                if !left.packs.is_empty() || !left.orphans().is_subset(&orphans) {
                    return Err(format!("an empty store keeps {:?}", self.scene.volume.files()));
                }
                keeper.forgets().await?;
            }
        }
        Ok(())
    }

    /// A bit turns in some pack.
    fn rot(&mut self) {
        let turned = self.scene.decay.borrow_mut().turn(&self.scene.rows(), &self.scene.volume, &mut self.random);
        if let Some(what) = turned {
            self.world.note(what);
            self.scene.count("bits turned");
        }
    }

    fn client(&mut self, number: u64, store: &Store) -> Client {
        let random = Random::new(self.random.next(), number);
        Client { number, scene: self.scene.clone(), store: store.clone(), random }
    }

    /// Checks everything, while nothing goes wrong but the power; of so many thousandths of what snapshots show the bytes too.
    async fn audit(&mut self, store: &Store, permille: u64) -> Result<(), Violation> {
        self.world.set_faults(Faults::default());
        let mut auditor = self.client(0, store);
        auditor.scene = auditor.scene.calm();
        auditor.audit().await?;
        auditor.audit_shelf(permille).await?;
        if self.scene.setup.promise() == Promise::Named { Ok(()) } else { self.scene.survey().map(drop) }
    }

    /// Opens the store, while things go wrong; it must open as soon as they do not.
    async fn start(&mut self, workers: &Workers) -> Result<Store, Violation> {
        self.world.set_faults(self.scene.setup.faults);
        for _ in 0..STARTS {
            match self.try_start(workers).await {
                Ok(store) => return Ok(store),
                Err(_) if self.world.is_cut() => std::future::pending().await,
                Err(error) => self.scene.judge(&error).map(|_| ())?,
            }
        }
        self.world.set_faults(Faults::default());
        self.try_start(workers).await.map_err(|error| format!("it does not start: {}", chain(&error)))
    }

    async fn try_start(&self, workers: &Workers) -> Result<Store, StoreError> {
        let meta = Arc::new(SimMeta::open(&self.world, &self.scene.rows));
        let mut faults = bedplate::store::Faults::default();
        if let Some(bug) = self.bug {
            faults = faults.with(bug);
        }
        let packs = PackHome::on(Arc::new(self.scene.volume.clone())).with_pack_bytes(self.scene.setup.pack_bytes);
        let packs = packs.with_ration(self.scene.setup.ration);
        let store = Store::open_with(meta, packs, workers, faults).await?;
        for bucket in self.scene.setup.buckets() {
            match store.create_bucket(&bucket, "root").await {
                Ok(()) | Err(StoreError::BucketExists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(store)
    }
}
