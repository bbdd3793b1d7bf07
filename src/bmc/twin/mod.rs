//! A simulated BMC and its machine: answers as its recording does over real HTTP, changes as its maker's BMCs change, is as slow as
//! real ones, and fails as it is told to. For rehearsals and tests; what runs on the machine is somebody else's.

mod door;
mod fault;
mod generic;
mod manner;
mod sessions;
mod state;
mod tree;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::sys::worker::Workers;
use state::State;

pub use fault::{Fault, Temper};
pub use manner::Manner;
pub use state::merge;
pub use tree::Tree;

/// What a machine starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boots {
    /// The image at this address, in the virtual drive.
    Media(String),
    /// Its disk.
    Disk,
}

/// What runs on simulated machines.
#[async_trait]
pub trait Software: Send + Sync + 'static {
    /// Runs on a machine from its start until it has nothing more to do, or its power is off.
    async fn run(&self, machine: Running, from: Boots);
}

/// One machine while it runs.
#[derive(Clone)]
pub struct Running {
    twin: Twin,
    life: u64,
}

impl Running {
    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.twin.inner.node
    }

    /// Which power-on this is.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.twin.state().life() == self.life
    }

    /// Switches itself off; answers whether it was still running.
    pub fn power_off(&self) -> bool {
        self.twin.state().off_by_itself(self.life)
    }
}

/// Who a simulated machine is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The user name that its BMC takes.
    pub username: String,
    /// And the password.
    pub password: String,
    /// Its serial number.
    pub serial: String,
    /// Its UUID.
    pub uuid: String,
    /// The serial number of its drive, where the tree leaves it open.
    pub drive_serial: Option<String>,
    /// The model of its drive, where the tree leaves it open.
    pub drive_model: Option<String>,
    /// Whether it is on at first.
    pub on: bool,
}

/// What happened at one BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Connections at once, at most.
    pub connections_peak: usize,
    /// Sessions that are open now.
    pub sessions: usize,
    /// Sessions that were made.
    pub sessions_made: u64,
    /// Times that the machine was started.
    pub starts: u64,
    /// Images that were inserted.
    pub inserts: u64,
    /// Times that the BMC restarted.
    pub reboots: u64,
    /// Whether the machine is on.
    pub on: bool,
}

/// A running simulated BMC; clones share it. It ends with its workers.
#[derive(Clone)]
pub struct Twin {
    inner: Arc<Inner>,
}

struct Inner {
    node: String,
    tree: Arc<Tree>,
    url: String,
    state: Mutex<State>,
    door: Mutex<door::Desk>,
    software: Arc<dyn Software>,
    workers: Workers,
}

/// What a simulated BMC is made of.
pub struct TwinSpec {
    /// The node's name.
    pub node: String,
    /// Its documents.
    pub tree: Arc<Tree>,
    /// How it behaves.
    pub manner: Manner,
    /// Who it is.
    pub identity: Identity,
    /// How slow it is, and how it fails.
    pub temper: Temper,
    /// Which draw of the temper is its own.
    pub number: u64,
    /// What runs on its machine.
    pub software: Arc<dyn Software>,
}

impl Twin {
    /// Starts one on a free port of the loopback interface.
    ///
    /// # Errors
    /// Where no port is free.
    pub async fn start(spec: TwinSpec, workers: &Workers) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let inner = Inner {
            node: spec.node,
            state: Mutex::new(State::new(spec.tree.clone(), spec.manner, spec.identity)),
            door: Mutex::new(door::Desk::new(&spec.temper, spec.number)),
            tree: spec.tree,
            url,
            software: spec.software,
            workers: workers.clone(),
        };
        let twin = Self { inner: Arc::new(inner) };
        let (door, stop) = (twin.clone(), workers.token());
        workers.spawn("twin", async move { door.open(listener, stop).await });
        Ok(twin)
    }

    /// The BMC's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// What happened at it so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.state().tally()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine was started: after its POST, what it starts from runs.
    fn started(&self, from: Boots, life: u64) {
        let (machine, post) = (Running { twin: self.clone(), life }, self.state().post());
        let (software, stop) = (self.inner.software.clone(), self.inner.workers.token());
        self.inner.workers.spawn("machine", async move {
            let work = async {
                tokio::time::sleep(post).await;
                if machine.is_on() {
                    software.run(machine.clone(), from).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }
}
