//! Journalled execution: what must survive a killed appliance.
//!
//! A job is a set of tasks, one a node. Each task is one row that says which step it is in; the row is written before
//! the step acts, so that whoever opens the journal next knows what may already have been done. Steps are idempotent.
//! This module knows the rows, the tokens and the loop that drives a task; what a step does to a machine is `rack`'s.

pub mod journal;
pub mod record;
pub mod retry;
pub mod run;
pub mod step;
pub mod token;
pub mod view;

pub use journal::{JobError, Journal};
pub use record::{Fault, Holding, JobRow, MachineId, NodeRow, Passed, Quarantine, TaskRow, TaskState, Work};
pub use run::{Hands, Outcome, StepError};
pub use step::Step;
pub use token::TokenKind;
pub use view::{JobState, JobView, NodeView};
