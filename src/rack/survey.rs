//! The survey: what was observed of a rack's BMCs, and when. A BMC that does not answer is a row with its error.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use crate::model::NodeName;
use crate::rack::check::{self, DiskVerdict};
use crate::rack::machine::{Found, MachineError, Machines};
use crate::rack::spec::NodeSpec;
use crate::sys::clock::{self, Timestamp};

/// BMCs that are asked at a time. Each is slow, and asked for little; together they must not take this machine's ports and memory.
const PARALLEL: usize = 256;

/// Pauses before a BMC that failed in passing is asked again.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// What was observed of a rack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// The rack's name in the spec.
    pub rack: String,
    /// When the survey began.
    pub taken: Timestamp,
    /// One row a node, in the spec's order.
    pub nodes: Vec<SurveyNode>,
}

/// What was observed of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurveyNode {
    /// The node.
    pub node: NodeName,
    /// Rack unit.
    pub slot: Option<u16>,
    /// Its BMC's address.
    pub bmc: String,
    /// How long the BMC took, in seconds.
    pub seconds: f64,
    /// What was found; absent where the BMC could not be asked.
    pub found: Option<Found>,
    /// Why the BMC could not be asked.
    pub error: Option<MachineError>,
    /// Which disk the spec's selector means, as far as the BMC tells.
    pub disk: Option<DiskVerdict>,
    /// Which of the spec's BIOS settings do not hold, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bios: Vec<String>,
}

/// Asks the BMCs of these nodes, many at a time.
pub async fn survey(rack: &str, nodes: &[&NodeSpec], machines: &dyn Machines) -> Survey {
    let taken = clock::now();
    let mut asked = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        asked.push(async move { (index, ask(node, machines).await) });
    }
    let mut rows: Vec<(usize, SurveyNode)> = stream::iter(asked).buffer_unordered(PARALLEL).collect().await;
    rows.sort_by_key(|(index, _)| *index);
    Survey { rack: rack.to_owned(), taken, nodes: rows.into_iter().map(|(_, row)| row).collect() }
}

async fn look(node: &NodeSpec, machines: &dyn Machines) -> Result<(Found, Vec<String>), MachineError> {
    let machine = machines.connect(node).await?;
    let looked = async {
        let found = machine.look().await?;
        let bios = if node.bios.is_empty() { vec![] } else { machine.bios_differs(&node.bios).await? };
        Ok((found, bios))
    };
    let looked = looked.await;
    machine.close().await;
    looked
}

async fn ask(node: &NodeSpec, machines: &dyn Machines) -> SurveyNode {
    let began = tokio::time::Instant::now();
    let mut looked = look(node, machines).await;
    // A BMC that restarts, or was busy, is asked again; a rack must not wait for another day for it.
    for pause in AGAIN {
        if !looked.as_ref().is_err_and(|error| error.transient) {
            break;
        }
        tokio::time::sleep(pause).await;
        looked = look(node, machines).await;
    }
    let (found, bios, error) = match looked {
        Ok((found, bios)) => (Some(found), bios, None),
        Err(error) => (None, vec![], Some(error)),
    };
    SurveyNode {
        node: node.name.clone(),
        slot: node.slot,
        bmc: node.bmc.to_string(),
        seconds: began.elapsed().as_secs_f64(),
        disk: found.as_ref().map(|found| check::disk(&node.disk, found)),
        found,
        error,
        bios,
    }
}
