//! Every metric: its name, its unit, and how it is counted. No label carries an object's or a node's name, so that
//! the number of series stays bounded.

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Requests answered, by door (`s3`, `api`), operation and status.
pub const REQUESTS: &str = "bedplate_requests_total";
/// Requests answered with a status of 500 or more, by door and operation.
pub const ERRORS: &str = "bedplate_request_errors_total";
/// Bytes of request bodies received, by door.
pub const BYTES_RECEIVED: &str = "bedplate_received_bytes_total";
/// Bytes of answer bodies sent, by door.
pub const BYTES_SENT: &str = "bedplate_sent_bytes_total";
/// Objects stored.
pub const OBJECTS: &str = "bedplate_store_objects";
/// Bytes as users count them.
pub const LOGICAL_BYTES: &str = "bedplate_store_logical_bytes";
/// Bytes after deduplication.
pub const UNIQUE_BYTES: &str = "bedplate_store_unique_bytes";
/// Bytes in packs.
pub const STORED_BYTES: &str = "bedplate_store_stored_bytes";

/// Rounds of garbage collection, by outcome (`done`, `failed`).
pub const GC_ROUNDS: &str = "bedplate_gc_rounds_total";
/// Bytes of packs that garbage collection has deleted.
pub const GC_FREED_BYTES: &str = "bedplate_gc_freed_bytes_total";
/// Stored bytes that garbage collection has moved to new packs.
pub const GC_MOVED_BYTES: &str = "bedplate_gc_moved_bytes_total";
/// Condemned packs that wait for an activity to end.
pub const GC_WAITING_PACKS: &str = "bedplate_gc_waiting_packs";

/// Seconds since the pack was last read, or written, that was left alone longest.
pub const SCRUB_AGE: &str = "bedplate_store_scrub_oldest_seconds";
/// Damaged chunks that are known and not repaired.
pub const DAMAGED: &str = "bedplate_store_damaged_chunks";

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts counting. Before it, and in commands that never call it, counting costs nothing and goes nowhere.
pub fn install() {
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::error!("another metrics recorder is installed: /metrics stays empty");
        }
        describe_counter!(REQUESTS, "Requests answered, by door, operation and status.");
        describe_counter!(ERRORS, "Requests answered with a status of 500 or more, by door and operation.");
        describe_counter!(BYTES_RECEIVED, "Bytes of request bodies received, by door.");
        describe_counter!(BYTES_SENT, "Bytes of answer bodies sent, by door.");
        describe_gauge!(OBJECTS, "Objects stored.");
        describe_gauge!(LOGICAL_BYTES, "Bytes stored, as users count them.");
        describe_gauge!(UNIQUE_BYTES, "Bytes stored, after deduplication.");
        describe_gauge!(STORED_BYTES, "Bytes in packs.");
        describe_counter!(GC_ROUNDS, "Rounds of garbage collection, by outcome.");
        describe_counter!(GC_FREED_BYTES, "Bytes of packs that garbage collection has deleted.");
        describe_counter!(GC_MOVED_BYTES, "Stored bytes that garbage collection has moved to new packs.");
        describe_gauge!(GC_WAITING_PACKS, "Condemned packs that wait for an activity to end.");
        describe_gauge!(SCRUB_AGE, "Seconds since the pack was last read, or written, that was left alone longest.");
        describe_gauge!(DAMAGED, "Damaged chunks that are known and not repaired.");
        handle
    });
}

/// Counts one answered request.
pub fn request(door: &'static str, operation: &str, status: u16) {
    let operation = operation.to_owned();
    counter!(REQUESTS, "door" => door, "operation" => operation.clone(), "status" => status.to_string()).increment(1);
    if status >= 500 {
        counter!(ERRORS, "door" => door, "operation" => operation).increment(1);
    }
}

/// Counts bytes of request bodies.
pub fn received(door: &'static str, bytes: u64) {
    counter!(BYTES_RECEIVED, "door" => door).increment(bytes);
}

/// Counts bytes of answer bodies.
pub fn sent(door: &'static str, bytes: u64) {
    counter!(BYTES_SENT, "door" => door).increment(bytes);
}

/// Notes the store's figures.
pub fn store(objects: u64, logical_bytes: u64, unique_bytes: u64, stored_bytes: u64) {
    gauge!(OBJECTS).set(objects as f64);
    gauge!(LOGICAL_BYTES).set(logical_bytes as f64);
    gauge!(UNIQUE_BYTES).set(unique_bytes as f64);
    gauge!(STORED_BYTES).set(stored_bytes as f64);
}

/// Counts one round of garbage collection.
pub fn gc_round(done: bool) {
    counter!(GC_ROUNDS, "outcome" => if done { "done" } else { "failed" }).increment(1);
}

/// Counts what a garbage collection did, and notes what waits.
pub fn gc(freed_bytes: u64, moved_bytes: u64, waiting_packs: u64) {
    counter!(GC_FREED_BYTES).increment(freed_bytes);
    counter!(GC_MOVED_BYTES).increment(moved_bytes);
    gauge!(GC_WAITING_PACKS).set(waiting_packs as f64);
}

/// Notes how the scrub stands.
pub fn scrub(oldest_seconds: u64, damaged: u64) {
    gauge!(SCRUB_AGE).set(oldest_seconds as f64);
    gauge!(DAMAGED).set(damaged as f64);
}

/// All metrics in Prometheus' text format, as `/metrics` answers; empty where counting was never started.
#[must_use]
pub fn render() -> String {
    HANDLE.get().map_or_else(String::new, |handle| {
        handle.run_upkeep();
        handle.render()
    })
}

#[cfg(test)]
mod tests {
    //! What is counted is rendered.

    #[test]
    fn renders_what_was_counted() {
        super::install();
        super::request("s3", "GetObject", 200);
        super::request("s3", "GetObject", 503);
        let text = super::render();
        assert!(text.contains(r#"bedplate_requests_total{door="s3",operation="GetObject",status="200"} 1"#), "{text}");
        assert!(text.contains(r#"bedplate_request_errors_total{door="s3",operation="GetObject"} 1"#), "{text}");
    }
}
