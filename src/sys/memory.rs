//! Memory: how much this process had.

/// The most memory that this process had resident, in bytes (proc(5), VmHWM); 0 where the kernel does not say.
#[must_use]
pub fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
