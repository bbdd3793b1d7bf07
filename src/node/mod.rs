//! The agent: from boot to report.
