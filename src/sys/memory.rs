//! Memory: how the C library's allocator treats large buffers, and how much this process had.

/// Bytes that freed memory may come to before it is given back; also the largest buffer that is taken from it.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 32 * 1024 * 1024;

/// Keeps freed memory for the next buffer, in a heap for each core. Left alone, glibc gives each buffer of a MiB back to the kernel
/// and takes it anew, page by page: a sixth of the time that reading compressed data takes. And it keeps eight heaps for each
/// core, each with holes of its own: sixteen uploads took an eighth more memory. Call it before there are threads.
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let heaps = libc::c_int::try_from(cores).unwrap_or(libc::c_int::MAX).max(2);
        #[expect(unsafe_code, reason = "the C library's settings have no safe door")]
        // SAFETY: these only set numbers of the allocator; there is no other thread yet that could allocate meanwhile.
        unsafe {
            // A refusal leaves things as they were.
            libc::mallopt(libc::M_ARENA_MAX, heaps);
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}

/// The most memory that this process had resident, in bytes (proc(5), VmHWM); 0 where the kernel does not say.
#[must_use]
pub fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
