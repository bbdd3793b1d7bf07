//! What a load came to.

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One load on one server.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Load {
    /// Requests that succeeded; others end the run.
    pub requests: u64,
    /// Bytes in the bodies of objects.
    pub bytes: u64,
    /// Keys and common prefixes in listings.
    #[serde(default)]
    pub keys: u64,
    /// Seconds from the first to the last.
    pub seconds: f64,
    /// Processor seconds of the load itself.
    pub cpu: f64,
    /// Milliseconds that half of the requests, and all but one in a hundred, stayed below.
    pub p50: f64,
    pub p99: f64,
    /// Of listings: each request, in order.
    #[serde(default)]
    pub microseconds: Vec<f64>,
    /// Processor seconds of the server.
    #[serde(skip)]
    pub server_cpu: f64,
}

/// Reads what benches/s3 printed.
pub fn parse(text: &str) -> Result<Load> {
    serde_json::from_str(text.trim()).with_context(|| format!("benches/s3 printed {text:?}"))
}

impl Load {
    /// MB/s.
    pub fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// The server's CPU seconds per GB.
    pub fn cpu_per_gb(&self) -> f64 {
        self.server_cpu / (self.bytes as f64 / 1e9)
    }

    /// The server's CPU milliseconds per request, which are its seconds per thousand.
    pub fn cpu_per_request(&self) -> f64 {
        self.server_cpu / self.requests as f64 * 1e3
    }

    /// The server's CPU seconds per listed key.
    pub fn cpu_a_key(&self) -> f64 {
        self.server_cpu / self.keys as f64
    }
}
