//! Racks: spec + survey -> plan -> job.
//!
//! `spec` reads what a rack should be, `survey` asks the BMCs what is there, `plan` decides purely, and
//! [`Conductor`] journals a job and performs it. `machine` is the seam behind which a BMC sits.

pub mod apply;
pub mod check;
pub mod event;
pub mod import;
pub mod machine;
pub mod plan;
pub mod recorder;
pub mod redfish;
pub mod rehearse;
pub mod show;
pub mod spec;
pub mod survey;

pub use apply::{AgentError, Conductor, ConductorConfig, Images, JobRequest, Pace, RackError, Started};
pub use machine::{Machine, MachineError, Machines};
pub use plan::{ImageFacts, Plan};
pub use spec::{NodeSpec, Spec, SpecError};
pub use survey::Survey;
