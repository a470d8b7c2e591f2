//! Settings of glibc's allocator. Batches, blocks and fetched messages are allocated and freed by the megabyte. By
//! default glibc gives each back to the system and asks for new pages, which the kernel has to clear; that took a
//! sixth of the consumer's processor time. librdkafka allocates through glibc too, so a Rust allocator would not
//! help it.

/// Keeps up to a gigabyte of freed memory for the next use. Does nothing without glibc. Must be called before threads
/// are started.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (setting, bytes) in [
        // Allocations below this size come from the heap; it is the largest value that glibc takes.
        (libc::M_MMAP_THRESHOLD, 32 * 1_024 * 1_024),
        // Free memory at the end of a heap that is kept.
        (libc::M_TRIM_THRESHOLD, 1_024 * 1_024 * 1_024),
    ] {
        // SAFETY: changes numbers of the allocator, which takes none or any; it says 0 if it did not.
        if unsafe { libc::mallopt(setting, bytes) } == 0 {
            tracing::debug!(setting, bytes, "the allocator did not take a setting");
        }
    }
}
