//! What can go wrong with a rack, as the control door and the command line tell it.

use crate::job::JobError;
use crate::model::NodeName;
use crate::rack::SpecError;
use crate::rack::apply::BoxError;
use crate::rack::machine::PIN_CHANGED;
use crate::rack::plan::Problem;

/// Why a rack could not be planned or applied. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum RackError {
    /// The spec is wrong.
    #[error("the spec is wrong")]
    Spec(#[source] SpecError),
    /// Some nodes cannot be worked on.
    #[error("{}", problems_text(.0))]
    Problems(Vec<(NodeName, Problem)>),
    /// The journal refused or failed.
    #[error("{0}")]
    Job(JobError),
    /// The catalogue of images failed.
    #[error("the catalogue of images cannot be read")]
    Images(#[source] BoxError),
    /// What was kept of a failed node cannot be read.
    #[error("what was kept of a failed node cannot be read")]
    Evidence(#[source] std::io::Error),
}

fn problems_text(problems: &[(NodeName, Problem)]) -> String {
    match problems {
        [(_, problem)] => format!("{}; nothing was touched", problem.message),
        problems => {
            let each: Vec<&str> = problems.iter().map(|(_, problem)| problem.message.as_str()).collect();
            format!("{} nodes cannot be worked on, so nothing was touched: {}", problems.len(), each.join("; "))
        }
    }
}

impl RackError {
    /// A stable name of the kind, for programs. `refused` and `pin-changed` mean that going on would be unsafe (exit
    /// code 4), `busy` that another job is in the way.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Spec(SpecError::AmbiguousDisk { .. }) => "refused",
            Self::Spec(SpecError::Mistake { .. }) => "bad-spec",
            Self::Problems(problems) => match problems.iter().find(|(_, problem)| problem.is_refusal()) {
                Some((_, problem)) if problem.kind == PIN_CHANGED => PIN_CHANGED,
                Some(_) => "refused",
                None => "node-problem",
            },
            Self::Job(JobError::Busy { .. }) => "busy",
            Self::Job(JobError::NoSuchJob(_) | JobError::NoSuchTask { .. }) => "no-such-job",
            Self::Job(JobError::Refused(_)) => "conflict",
            Self::Job(_) | Self::Images(_) | Self::Evidence(_) => "internal",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Spec(_) => "correct the spec and try again".to_owned(),
            Self::Problems(problems) => {
                let worst = problems.iter().find(|(_, problem)| problem.is_refusal()).or(problems.first());
                worst.map(|(_, problem)| problem.hint.clone()).unwrap_or_default()
            }
            Self::Job(JobError::Busy { job, .. }) => {
                format!("`bedplate rack status` shows it; POST /api/v1/jobs/{job}/cancel ends it")
            }
            Self::Job(JobError::NoSuchJob(_) | JobError::NoSuchTask { .. }) => {
                "GET /api/v1/jobs lists the jobs".to_owned()
            }
            Self::Job(_) | Self::Images(_) | Self::Evidence(_) => "see the appliance's log".to_owned(),
        }
    }
}

/// Why what an agent or an installed system said was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The token is not one of an open task (401). Nothing is said about why.
    #[error("this token is not, or no longer, good for anything: its job has ended, or never was")]
    Unknown,
    /// The token is good, but this does not fit the state that the node is in (409).
    #[error("{0}")]
    Refused(String),
    /// The journal failed (503); ask again.
    #[error("the appliance cannot answer now; ask again")]
    Internal(#[source] JobError),
}

impl AgentError {
    /// A stable name of the kind, for programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unknown => "unauthorized",
            Self::Refused(_) => "refused",
            Self::Internal(_) => "unavailable",
        }
    }
}
