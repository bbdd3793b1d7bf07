//! The control door: racks, jobs, images, the agent's endpoint, boot media.

pub mod identity;
