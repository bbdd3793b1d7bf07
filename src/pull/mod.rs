//! Verified reads of images and objects over the wire, as agents and mounts do them: the appliance behind one address, a plan of few
//! large requests, and no byte handed on that does not match its digest.

mod appliance;
mod image;
mod object;
mod place;
mod plan;

pub use appliance::{Appliance, Login, Patience, PullError, with_causes};
pub use image::{FetchError, ImageSource, Segment};
pub use object::{ObjectSource, SnapshotId, query_value};
pub use place::{Damage, is_plain, place, verify};
pub use plan::{Fetch, fetches};
