//! The simulated BMCs of a rack, and the machines behind them as the conductor reaches them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::agents::Agents;
use super::{RehearsalError, Script, temper, timing};
use crate::bmc::twin::{Identity, Manner, Tally, Tree, Twin, TwinSpec};
use crate::bmc::{Address, Credentials, Facts, MemoryPins, Target, Timing, Trust};
use crate::model::{Digest, ImageRef, NodeName, Secret};
use crate::rack::apply::BoxError;
use crate::rack::machine::{Machine, MachineError, Machines};
use crate::rack::redfish::{Met, machine_error};
use crate::rack::spec::{BmcAddress, NodeSpec};
use crate::rack::{ImageFacts, Images, Spec};
use crate::sys::worker::Workers;

/// Who the rehearsal logs in as.
const USERNAME: &str = "rehearsal";
/// With which password.
const PASSWORD: &str = "rehearsal";

/// The simulated BMCs of a rack.
pub(super) struct TwinMachines {
    twins: BTreeMap<NodeName, Twin>,
    timing: Timing,
    pins: Arc<MemoryPins>,
    met: Met,
}

impl TwinMachines {
    pub(super) async fn start(
        spec: &Spec,
        script: &Script,
        agents: Arc<Agents>,
        workers: &Workers,
    ) -> Result<Self, RehearsalError> {
        let mut trees = Trees { generic: Arc::new(Tree::generic()), recorded: BTreeMap::new() };
        let mut twins = BTreeMap::new();
        for (number, node) in spec.nodes.iter().enumerate() {
            let tree = trees.of(node, script.recordings.as_deref())?;
            let mut manner = Manner::of(&tree);
            manner.post = script.post;
            let twin = TwinSpec {
                node: node.name.to_string(),
                manner,
                identity: identity(node),
                tree,
                temper: temper(script),
                number: number as u64,
                software: agents.clone(),
            };
            twins.insert(node.name.clone(), Twin::start(twin, workers).await?);
        }
        Ok(Self { twins, timing: timing(script), pins: Arc::default(), met: Met::default() })
    }

    pub(super) fn tallies(&self) -> BTreeMap<NodeName, Tally> {
        self.twins.iter().map(|(node, twin)| (node.clone(), twin.tally())).collect()
    }

    pub(super) fn tally(&self, node: &NodeName) -> Tally {
        self.twins.get(node).map(Twin::tally).unwrap_or_default()
    }
}

/// Trees that were read, each once.
struct Trees {
    generic: Arc<Tree>,
    recorded: BTreeMap<PathBuf, Arc<Tree>>,
}

impl Trees {
    /// The tree of a node: the folder that its spec names, the one of its name among the recordings, or the generic one.
    fn of(&mut self, node: &NodeSpec, recordings: Option<&Path>) -> Result<Arc<Tree>, RehearsalError> {
        let named = recordings.map(|folder| folder.join(node.name.as_str())).filter(|folder| folder.is_dir());
        let folder = match &node.bmc {
            BmcAddress::Folder(folder) => Some(folder.clone()),
            BmcAddress::Url(_) => named,
        };
        let Some(folder) = folder else { return Ok(self.generic.clone()) };
        if let Some(known) = self.recorded.get(&folder) {
            return Ok(known.clone());
        }
        let tree = Arc::new(Tree::load(&folder).map_err(|error| RehearsalError::Tree(Box::new(error)))?);
        self.recorded.insert(folder, tree.clone());
        Ok(tree)
    }
}

fn identity(node: &NodeSpec) -> Identity {
    let digest = blake3::hash(node.name.as_str().as_bytes()).to_hex();
    Identity {
        username: USERNAME.to_owned(),
        password: PASSWORD.to_owned(),
        serial: node.serial.clone().unwrap_or_else(|| format!("TWIN-{}", &digest[..12].to_uppercase())),
        uuid: format!(
            "{}-{}-4{}-8{}-{}",
            &digest[..8],
            &digest[8..12],
            &digest[13..16],
            &digest[17..20],
            &digest[20..32]
        ),
        drive_serial: node.disk.serial.clone(),
        drive_model: node.disk.model.clone(),
        on: true,
    }
}

#[async_trait]
impl Machines for TwinMachines {
    async fn connect(&self, node: &NodeSpec) -> Result<Box<dyn Machine>, MachineError> {
        let twin = self.twins.get(&node.name).ok_or_else(|| MachineError {
            kind: "no-twin".to_owned(),
            message: format!("{} is not rehearsed", node.name),
            hint: "name only nodes of the spec".to_owned(),
            transient: false,
        })?;
        let address: Address = twin.url().parse().map_err(|error| machine_error(&error))?;
        let credentials = Credentials { username: USERNAME.to_owned(), password: Secret::new(PASSWORD) };
        let target = Target {
            address,
            system: node.system.clone(),
            credentials: Some(credentials),
            trust: Trust::Known,
            without: Facts::default(),
        };
        let bmc = self.met.connect(&node.name, &target, self.pins.clone(), self.timing.clone()).await;
        Ok(Box::new(bmc.map_err(|error| machine_error(&error))?))
    }
}

/// A catalogue that has every image: what is rehearsed is the rack.
pub(super) struct RehearsedImages;

#[async_trait]
impl Images for RehearsedImages {
    async fn find(&self, image: &ImageRef) -> Result<Option<ImageFacts>, BoxError> {
        let root_digest = Digest(*blake3::hash(image.to_string().as_bytes()).as_bytes());
        Ok(Some(ImageFacts { image: image.clone(), bytes: 20_000_000_000, root_digest }))
    }
}
