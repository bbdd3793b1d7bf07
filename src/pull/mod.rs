//! Verified reads of an image over the wire, as the agent does them: the appliance behind one address, a plan of few
//! large requests, and no byte handed on that does not match its digest.

mod appliance;
mod image;
mod plan;

pub use appliance::{Appliance, Login, Patience, PullError, with_causes};
pub use image::{FetchError, ImageSource, Segment};
pub use plan::{Fetch, fetches};
