//! Verified reads of an image over the wire, as the agent does them.
