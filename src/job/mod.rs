//! Journalled execution: what must survive a killed appliance.
