//! Ends the sessions that a killed appliance left open at BMCs: after a start, where no job works on the node, and else when the job
//! lets it go, which may have ended without another word to its BMC.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::conductor::Conductor;
use crate::job::JobError;
use crate::rack::machine::Machines;
use crate::rack::spec::{NodeSpec, Spec};

/// The last jobs, whose nodes are looked after.
const JOBS_LOOKED_AT: usize = 100;
/// BMCs that are talked to at a time.
const AT_ONCE: usize = 16;
/// How long one of them may take.
const EACH: Duration = Duration::from_secs(60);

/// Ends the sessions that a killed process left open at one BMC.
pub(super) async fn end_left(machines: &dyn Machines, node: &NodeSpec) {
    match timeout(EACH, machines.end_left_sessions(node)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(node = %node.name, %error, "a session that was left open at its BMC is ended at the next contact");
        }
        Err(_) => tracing::warn!(node = %node.name, "its BMC took too long to end a session that was left open"),
    }
}

impl Conductor {
    /// Begins it, in the background.
    pub(super) fn tidy(&self) {
        let (conductor, stop) = (self.clone(), self.workers().token());
        self.workers().spawn("tidy", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = conductor.end_left_sessions() => {}
            }
        });
    }

    async fn end_left_sessions(&self) {
        let nodes = match self.idle_nodes().await {
            Ok(nodes) => nodes,
            Err(error) => {
                tracing::warn!(%error, "which sessions were left open at BMCs could not be read");
                return;
            }
        };
        stream::iter(&nodes).for_each_concurrent(AT_ONCE, |node| end_left(self.machines(), node)).await;
    }

    /// The nodes of the last jobs that no job works on, as they were last described.
    async fn idle_nodes(&self) -> Result<Vec<NodeSpec>, JobError> {
        let (mut nodes, mut seen) = (vec![], BTreeSet::new());
        for job in self.journal().jobs(None, JOBS_LOOKED_AT).await? {
            let Ok(spec) = serde_json::from_value::<Spec>(job.spec) else { continue };
            for node in spec.nodes {
                if seen.insert(node.identity()) && self.journal().holder(&node.identity()).await?.is_none() {
                    nodes.push(node);
                }
            }
        }
        Ok(nodes)
    }
}
