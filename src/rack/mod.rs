//! Desired state: spec and survey make a plan, a plan makes a job.
