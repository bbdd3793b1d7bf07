//! Applying a spec: the conductor journals a job and drives its nodes; the agents on them talk to it.

mod agent;
mod conductor;
#[cfg(test)]
mod double;
mod error;
mod evidence;
mod hands;
mod live;
#[cfg(test)]
mod tests;
mod tidy;
mod waves;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

use crate::job::retry::Backoff;
use crate::model::{ImageRef, JobId, NodeName};
use crate::rack::{ImageFacts, Spec};
use crate::sys::wire::ShownPin;

pub use conductor::Conductor;
pub use error::{AgentError, RackError};

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where agents and BMCs find this appliance.
#[derive(Clone, Debug)]
pub struct ConductorConfig {
    /// Base URL for agents, `https://address:port`.
    pub public_url: String,
    /// Base URL for BMCs, which fetch the boot image: `http://address:port`, because most cannot check a certificate.
    pub media_url: String,
    /// SHA-256 of the appliance's certificate.
    pub certificate_pin: ShownPin,
    /// How often to look.
    pub pace: Pace,
    /// Where the evidence of failed nodes is kept; nowhere if none.
    pub evidence: Option<PathBuf>,
}

/// How often to look at a machine that something is awaited of.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks at the power state when it is about to change.
    pub poll: Duration,
    /// Between two looks at the power state while an agent works.
    pub watch: Duration,
    /// Between tries of what failed.
    pub backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self { poll: Duration::from_secs(2), watch: Duration::from_secs(15), backoff: Backoff::default() }
    }
}

/// The catalogue of images, as far as a rack needs it.
#[async_trait]
pub trait Images: Send + Sync {
    /// The facts of an image; `None` where there is no such image.
    async fn find(&self, image: &ImageRef) -> Result<Option<ImageFacts>, BoxError>;
}

/// What to plan or apply: the body of `POST /api/v1/racks/plan` and `POST /api/v1/jobs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The spec.
    pub spec: Spec,
    /// The nodes to work on; empty for all.
    #[serde(default)]
    pub only: Vec<NodeName>,
}

/// A job that was begun: the answer of `POST /api/v1/jobs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its id.
    pub job: JobId,
}
